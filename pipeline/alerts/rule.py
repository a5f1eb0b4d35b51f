"""AlertRule: what is to be told of a stream, in plain words, and how sure and how often."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from ..question import Question
from ..serve.url_guard import UrlRules, check_url
from .secret import Secret

MAX_WORDS = 500  # characters, of what a rule says or asks
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
_SCHEMES = ("http", "https")

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "ten": 10, "thirty": 30}
_UNITS_S = {"second": 1.0, "sec": 1.0, "minute": 60.0, "min": 60.0, "hour": 3600.0}
_LASTING = re.compile(
    r"\s+for\s+(?:(?:at least|more than|over|longer than)\s+)?"
    rf"(?P<number>[0-9]+(?:\.[0-9]+)?|half an?|{'|'.join(_NUMBERS)})\s*(?P<unit>{'|'.join(_UNITS_S)})s?\.?",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """What a rule says: what must hold, and for how long without a break."""

    condition: str
    lasts_s: float


def read_words(says: str) -> Said:
    """Takes apart what a rule says.

    >>> read_words("the door stays open for a minute")
    Said(condition='the door stays open', lasts_s=60.0)
    """
    words = says.strip()
    found = _LASTING.search(words)
    if found is None or found.end() != len(words) or not found.start():
        return Said(words.rstrip("."), 0.0)
    number = found["number"].lower()
    if number.startswith("half"):
        times = 0.5
    else:
        times = float(_NUMBERS[number]) if number in _NUMBERS else float(number)
    return Said(words[: found.start()], times * _UNITS_S[found["unit"].lower()])


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """Made from a table [[alerts]] of the config file, read by the watcher and the courier. All times are the stream's.

    id: its name, in addresses and messages. stream_id: whose stream it watches.
    says: when to tell, in plain words: "a person falls", "the door stays open for a minute".
    every_s: asked so often; None: when something changed.
    cooldown_s: after it fired, it does not again for so long.
    window_s: the newest stretch of the stream, which it is asked about.
    least_gap_s: between two questions, where it is asked when something changed.
    change_share: share of the picture, 0 to 1, that must have changed.
    releases: so many times "no", one after another, end what it fired for.
    ask, confirm: the cheap question and the verifier's, both to be answered with yes or no; None: made from `says`.
    webhook: where it is told, http or https; None: only on this server. secret: what that is signed with.
    """

    id: str
    stream_id: str
    says: str
    every_s: float | None = None
    cooldown_s: float = 60.0
    window_s: float = 4.0
    least_gap_s: float = 1.0
    change_share: float = 0.002
    releases: int = 2
    ask: str | None = None
    confirm: str | None = None
    webhook: str | None = field(default=None, repr=False)
    secret: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise ValueError(f"an alert's id has letters, digits and _.- and at most 64 of them; got {self.id!r}")
        if not isinstance(self.stream_id, str) or not self.stream_id.strip():
            raise ValueError(f"alert {self.id!r} watches a stream; got stream {self.stream_id!r}")
        for name in ("says", "ask", "confirm"):
            given = getattr(self, name)
            if given is None and name != "says":
                continue
            if not isinstance(given, str) or not 0 < len(given.strip()) <= MAX_WORDS or not given.isprintable():
                raise ValueError(
                    f"{name!r} of alert {self.id!r} is 1 to {MAX_WORDS} printable characters; got {str(given)[:80]!r}"
                )
            Question(given)
        for name, least in (("every_s", 0.1), ("cooldown_s", 0.0), ("window_s", 0.1), ("least_gap_s", 0.0)):
            given = getattr(self, name)
            if given is None and name == "every_s":
                continue
            if not _is_number(given) or not least <= given < 1e9:
                raise ValueError(f"{name} of alert {self.id!r} is {least:g} seconds or more; got {given!r}")
        if not _is_number(self.change_share) or not 0 <= self.change_share <= 1:
            raise ValueError(f"change_share of alert {self.id!r} is a share, 0 to 1; got {self.change_share!r}")
        if isinstance(self.releases, bool) or not isinstance(self.releases, int) or self.releases < 1:
            raise ValueError(f"releases of alert {self.id!r} is a whole number, 1 or more; got {self.releases!r}")
        if self.webhook is not None:
            check_url(self.webhook, UrlRules(schemes=_SCHEMES), _SCHEMES)  # raises ValueError; connects to nothing
            if not isinstance(self.secret, Secret):
                raise ValueError(f"the webhook of alert {self.id!r} got no secret; make one with: openssl rand -hex 32")

    @property
    def condition(self) -> str:
        """What must hold, without for how long."""
        return read_words(self.says).condition

    @property
    def lasts_s(self) -> float:
        """For how long it must hold without a break."""
        return read_words(self.says).lasts_s


def _is_number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
