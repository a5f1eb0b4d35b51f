"""Alert: what fired, as it is told and kept."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ...stream import Span
from .rule import AlertRule

_MAX_SPANS = 64
_MAX_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Alert:
    """Made by the watcher when a rule fires; written and read back by dead letters, told by the courier.

    id: of this firing, the same each time that it is sent: a receiver that knows it has been told already.
    rule: the rule's id. at_s: stream time; wall: the same as RFC 3339. spans: what the verifier looked at.
    keyframe: where its picture is, on this server. test: nothing happened, somebody tries the webhook.
    """

    id: str
    stream_id: str
    rule: str
    says: str
    at_s: float
    wall: str
    spans: tuple[Span, ...]
    keyframe: str
    test: bool = False

    @property
    def body(self) -> bytes:
        """The message."""
        spans = [{"start_s": span.start_s, "end_s": span.end_s} for span in self.spans]
        told = {
            "id": self.id,
            "stream_id": self.stream_id,
            "rule": self.rule,
            "says": self.says,
            "at_s": self.at_s,
            "wall": self.wall,
            "spans": spans,
            "keyframe": self.keyframe,
            "test": self.test,
        }
        return json.dumps(told, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Alert:
        """From a message, or a file that may be anybody's. Raises ValueError."""
        try:
            words = {name: told[name] for name in ("id", "stream_id", "rule", "says", "wall", "keyframe")}
            spans = tuple(Span(_number(one["start_s"]), _number(one["end_s"])) for one in told["spans"][:_MAX_SPANS])
            at_s, test = _number(told["at_s"]), told["test"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"an alert has all its fields; got one without, or of another kind: {error}") from None
        if not all(isinstance(one, str) and 0 < len(one) <= _MAX_CHARS for one in words.values()):
            raise ValueError(f"an alert's words have 1 to {_MAX_CHARS} characters; got others")
        if not isinstance(test, bool):
            raise ValueError(f"an alert is a test or is not; got {str(test)[:20]!r}")
        return cls(**words, at_s=at_s, spans=spans, test=test)


def new_alert(rule: AlertRule, *, at_s: float, wall: str, spans: tuple[Span, ...] = (), is_test: bool = False) -> Alert:
    """A firing of this rule, with an id of its own."""
    keyframe = f"/v1/streams/{quote(rule.stream_id, safe='')}/frames/{at_s:.3f}.jpg"
    return Alert(
        uuid.uuid4().hex, rule.stream_id, rule.id, rule.says, at_s, wall, spans[-_MAX_SPANS:], keyframe, is_test
    )


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(f"a time is a number of seconds; got {str(given)[:20]!r}")
    return float(given)
