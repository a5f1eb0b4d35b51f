"""When a rule asks, and when it fires: a state, what happens to it, and the state after that. No clock, no threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from .rule import AlertRule


class Phase(Enum):
    """QUIET: what the rule says is not so, for all we know. HOLDING: it is said to be so. STANDING: it was told, and
    has not ended since."""

    QUIET = "quiet"
    HOLDING = "holding"
    STANDING = "standing"


class Which(Enum):
    """One of a rule's two questions."""

    TRIGGER = "trigger"
    VERIFIER = "verifier"


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a rule. Times are the stream's.

    pending: the question that is on its way. has_news: something changed since the last trigger was asked; news_s:
    when something last did.
    now_s: of the newest frame. asked_s: when a trigger was last asked. holds_since_s: since when triggers say yes.
    fired_s: when it last fired. num_noes: triggers in a row that said no, while STANDING.
    """

    phase: Phase = Phase.QUIET
    pending: Which | None = None
    has_news: bool = False
    news_s: float | None = None
    now_s: float | None = None
    asked_s: float | None = None
    holds_since_s: float | None = None
    fired_s: float | None = None
    num_noes: int = 0


class Saw(NamedTuple):
    """The stream was seen up to here. has_news: something in it changed."""

    now_s: float
    has_news: bool


class Answered(NamedTuple):
    """A question came back. says: yes, no, or None for neither."""

    which: Which
    says: bool | None


class Failed(NamedTuple):
    """A question came to nothing: it is asked again in time."""

    which: Which


class Ask(NamedTuple):
    """To be done: ask this, about the newest stretch of the stream."""

    which: Which


class Fire(NamedTuple):
    """To be done: tell it. since_s: since when it is so, as far as that was seen."""

    at_s: float
    since_s: float


class Step(NamedTuple):
    """The state after an event, and what is to be done now."""

    state: State
    do: Ask | Fire | None = None


def step(rule: AlertRule, state: State, event: Saw | Answered | Failed) -> Step:
    """What becomes of a rule when this happens.

        QUIET --trigger yes--> HOLDING --held as long as the rule says, verifier yes--> fire, STANDING
          ^------- trigger no, verifier not yes ------'                                     |
          ^--------------------- trigger no, `releases` times in a row ----------------------'

    Promises: it fires on a verifier's yes and on nothing else; between two firings lie `cooldown_s` and the end of what
    the first one told; at most one question is on its way; an answer that nobody waits for changes nothing.
    """
    if isinstance(event, Saw):
        return _look(rule, _seen(rule, state, event))
    if event.which is not state.pending or state.now_s is None:
        return Step(state)
    state = replace(state, pending=None)
    if isinstance(event, Failed):
        return Step(replace(state, has_news=True))
    if event.which is Which.VERIFIER:
        return _verified(rule, state, event.says)
    return _triggered(rule, state, event.says)


def _seen(rule: AlertRule, state: State, event: Saw) -> State:
    has_news = state.has_news or event.has_news or state.now_s is None
    state = replace(state, has_news=has_news, news_s=event.now_s if event.has_news else state.news_s)
    if state.now_s is None:
        return replace(state, now_s=event.now_s)
    passed_s = event.now_s - state.now_s
    if passed_s < 0:  # the stream began anew: nothing of it holds any more, and the cooldown goes on
        left_s = None if state.fired_s is None else event.now_s - (state.now_s - state.fired_s)
        return State(pending=state.pending, has_news=True, news_s=event.now_s, now_s=event.now_s, fired_s=left_s)
    if passed_s > _blind_s(rule) and state.phase is Phase.HOLDING:
        # Nobody knows what was in between.
        state = replace(state, holds_since_s=event.now_s, has_news=True)
    return replace(state, now_s=event.now_s)


def _look(rule: AlertRule, state: State) -> Step:
    """Whether anything is to be asked now."""
    if state.pending is not None:
        return Step(state)
    assert state.now_s is not None
    if state.phase is not Phase.STANDING and is_cooling(rule, state):
        return Step(state)  # what changes meanwhile is looked at when it is over
    if state.phase is Phase.HOLDING and _has_lasted(rule, state):
        return Step(replace(state, pending=Which.VERIFIER), Ask(Which.VERIFIER))
    if _is_due(rule, state):
        asking = replace(state, pending=Which.TRIGGER, asked_s=state.now_s, has_news=False)
        return Step(asking, Ask(Which.TRIGGER))
    return Step(state)


def _triggered(rule: AlertRule, state: State, says: bool | None) -> Step:
    assert state.now_s is not None
    if state.phase is Phase.STANDING:
        num_noes = {False: state.num_noes + 1, True: 0, None: state.num_noes}[says]
        if num_noes < rule.releases:
            return Step(replace(state, num_noes=num_noes))
        return Step(replace(state, phase=Phase.QUIET, num_noes=0))
    if says is None:
        return Step(state)
    if not says:
        return Step(replace(state, phase=Phase.QUIET, holds_since_s=None))
    if state.phase is Phase.QUIET:
        state = replace(state, phase=Phase.HOLDING, holds_since_s=state.asked_s)
    if _has_lasted(rule, state) and not is_cooling(rule, state):
        return Step(replace(state, pending=Which.VERIFIER), Ask(Which.VERIFIER))
    return Step(state)


def _verified(rule: AlertRule, state: State, says: bool | None) -> Step:
    assert state.now_s is not None
    if not says:
        return Step(replace(state, phase=Phase.QUIET, holds_since_s=None))
    if state.phase is not Phase.HOLDING or is_cooling(rule, state):
        return Step(state)  # the stream began anew meanwhile
    since_s = state.now_s if state.holds_since_s is None else state.holds_since_s
    fired = replace(state, phase=Phase.STANDING, fired_s=state.now_s, num_noes=0, holds_since_s=None)
    return Step(fired, Fire(state.now_s, since_s))


def is_cooling(rule: AlertRule, state: State) -> bool:
    """Whether it fired so short a time ago that it must not again."""
    if state.fired_s is None or state.now_s is None:
        return False
    return state.now_s - state.fired_s < rule.cooldown_s


def _has_lasted(rule: AlertRule, state: State) -> bool:
    assert state.now_s is not None
    return state.holds_since_s is not None and state.now_s - state.holds_since_s >= rule.lasts_s


def _is_due(rule: AlertRule, state: State) -> bool:
    """Whether a trigger is to be asked."""
    assert state.now_s is not None
    if state.asked_s is None:
        return True
    if rule.every_s is not None:  # on a grid, so that it comes as often as it says, however frames fall
        return state.now_s // rule.every_s > state.asked_s // rule.every_s
    if state.now_s - state.asked_s < rule.least_gap_s:
        return False
    if state.has_news or (state.phase is Phase.STANDING and state.num_noes > 0):  # one "no" may be a slip
        return True
    # The question is about a stretch: when what changed has left that, the answer may be another, with nothing new.
    gone_s = float("inf") if state.news_s is None else state.news_s + rule.window_s
    return state.asked_s < gone_s <= state.now_s


def _blind_s(rule: AlertRule) -> float:
    """So long without a frame, and what held before is not known to hold still."""
    return max(2 * rule.window_s, 10.0)
