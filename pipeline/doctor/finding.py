"""Finding: what one check of the doctor found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from ...stream.redact import redact

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Made by a check, printed by `millpond doctor`. Holds no credentials: they are masked as it is made.

    name: of the check. verdict: warn: it works, and not as well as it might; fail: it does not work.
    found: what there is. to_do: what to do about it; empty where all is well.
    """

    name: str
    verdict: Verdict
    found: str
    to_do: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            text = " ".join(redact(str(getattr(self, field.name))).split())
            object.__setattr__(self, field.name, text)
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"a verdict is one of {', '.join(get_args(Verdict))}; got {self.verdict!r}")
        if not self.name or not self.found:
            raise ValueError(f"a finding has a name and what was found; got {self.name!r} and {self.found!r}")
        if bool(self.to_do) == (self.verdict == "ok"):
            raise ValueError(f"{self.name} is {self.verdict}; got {self.to_do!r} to do; say what where it is not ok")
