"""The questions of a rule, and how their answers are read. An answer that is neither yes nor no fires nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ...stream.world import COLORS, SHAPES
from .rule import AlertRule

_WORD = re.compile(r"[a-z']+")
_THING = re.compile(rf"\b({'|'.join(COLORS)}) ({'|'.join(SHAPES)})s?\b")
_FEW_TOKENS = 8


def read_yes_no(text: str) -> bool | None:
    """Whether an answer says yes or no: its first word, with nothing behind it that takes it back. None: neither.

    >>> read_yes_no("Yes."), read_yes_no("No, nobody does."), read_yes_no("There is no yes here"), read_yes_no("yes/no")
    (True, False, None, None)
    """
    words = _WORD.findall(text.lower())
    if not words or words[0] not in ("yes", "no") or {"yes", "no"} <= set(words):
        return None
    return words[0] == "yes"


@dataclass(frozen=True, slots=True)
class Check:
    """A question of a rule's, and what an answer to it means."""

    text: str
    read: Callable[[str], bool | None]
    max_new_tokens: int = _FEW_TOKENS


@dataclass(frozen=True, slots=True)
class Checks:
    """Made by `checks_for`, read by the watcher: a rule's cheap question, and the one that must agree with it."""

    trigger: Check
    verifier: Check


def checks_for(rule: AlertRule, model_name: str) -> Checks:
    """The questions that suit a model. Raises ValueError where it cannot know what the rule is about."""
    made = _of_shapes(rule) if model_name == "millpond/mini" else _of_anything(rule)
    return Checks(
        made.trigger if rule.ask is None else Check(rule.ask, read_yes_no),
        made.verifier if rule.confirm is None else Check(rule.confirm, read_yes_no),
    )


def _of_anything(rule: AlertRule) -> Checks:
    so = rule.condition
    return Checks(
        Check(f"Does this happen, or is it so, in the video: {so}? Answer with one word, yes or no.", read_yes_no),
        Check(
            f'Someone is about to be alarmed because "{so}". Look at each of the newest pictures. Answer yes if it can '
            "clearly be seen in them, and no if it cannot, or if you are not sure. One word.",
            read_yes_no,
        ),
    )


def _of_shapes(rule: AlertRule) -> Checks:
    """The built-in model's: it knows shapes, and few questions."""
    if rule.ask is not None and rule.confirm is not None:
        return Checks(Check(rule.ask, read_yes_no), Check(rule.confirm, read_yes_no))
    found = _THING.search(rule.condition.lower())
    if found is None:
        raise ValueError(
            f"the built-in model knows coloured shapes, such as a red circle, and nothing else; got the rule "
            f"{rule.says!r}; choose another model, or give the rule `ask` and `confirm`"
        )
    thing = f"{found[1]} {found[2]}"
    # What lasts is there long after it appeared, which may be before what a question looks back at.
    first = f"Can you see a {thing} right now?" if rule.lasts_s else f"Did a {thing} appear?"
    # Asked in another way, so that what made the first answer wrong need not make this one wrong too.
    return Checks(Check(first, read_yes_no), Check(f"Is there a {thing} now?", read_yes_no))
