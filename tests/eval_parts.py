"""Parts that the tests of the harness share: a suite of given items, and methods without a model that tell on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from millpond.encoders import VideoLLM, load_model
from millpond.memory import MemoryConfig
from millpond.pipeline.answer import Answer, Timing
from millpond.pipeline.config import EngineConfig, HistoryConfig
from millpond.pipeline.engine import Engine
from millpond.pipeline.eval import Item, Suite
from millpond.pipeline.eval.method import EvalMethod, Show, Told, Viewing
from millpond.pipeline.eval.progress import Event
from millpond.pipeline.eval.record import Answered
from millpond.pipeline.eval.run import Results, evaluate
from millpond.pipeline.eval.showing import Streamed
from millpond.pipeline.eval.video_pass import VideoPass
from millpond.pipeline.eval.wording import BareWording, Wording
from millpond.pipeline.question import Question
from millpond.stream import Frame, Span


@cache
def mini() -> VideoLLM:
    return load_model("millpond/mini", device="cpu")


def small() -> EngineConfig:
    """Answers of a few words, from a few frames."""
    return EngineConfig(
        memory=MemoryConfig(recent_frames=4, budget_bytes=2**20),
        history=HistoryConfig(archive_bytes=0),
        max_new_tokens=4,
    )


class GivenSuite(Suite):
    """Items that a test made; answers are right to the letter."""

    about = "items that a test made"

    def __init__(self, given: Sequence[Item] = ()) -> None:
        self.given = list(given)

    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        return self.given


def item(id: str = "1", at_s: float = 1.0, **given: Any) -> Item:
    usual = {
        "video": "synthetic://shapes?duration_s=4&rate_hz=1&width=64&height=48",
        "question": f"Question {id}?",
        "answer": "yes",
        "form": "words",
        "kind": "seen",
        "category": "real-time",
    }
    return Item(id=id, at_s=at_s, **{**usual, **given})


def moment(id: str = "1", at_s: float = 0.0, *, right_at_s: float, until_s: float, **given: Any) -> Item:
    return item(id, at_s, form="moment", right_at_s=right_at_s, until_s=until_s, category="forward", **given)


def frame(pts_s: float, level: int = 0) -> Frame:
    return Frame(np.full((8, 8, 3), level, np.uint8), pts_s)


def frames(times_s: Iterable[float]) -> Iterator[Frame]:
    return (frame(time_s) for time_s in times_s)


@dataclass(frozen=True, slots=True)
class Asking:
    """What a method had seen when it was asked. levels: of each frame's first pixel, looked at no earlier."""

    text: str
    at_s: float | None
    times_s: tuple[float, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Telling(Show):
    """Keeps every frame, and answers with what `says` makes of them. `log` has all askings, `seen` the time of every
    frame."""

    says: Callable[[Asking], str] = lambda asking: f"{len(asking.times_s)}"
    log: list[Asking] = field(default_factory=list, compare=False)
    seen: list[float] = field(default_factory=list, compare=False)

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _Viewing(self, stream_id)


class _Viewing(Viewing):
    def __init__(self, show: Telling, stream_id: str) -> None:
        self._show, self._frames = show, list[Frame]()
        self._is_test = stream_id != "warm-up"

    def see(self, frame: Frame) -> None:
        self._frames.append(frame)
        if self._is_test:
            self._show.seen.append(frame.pts_s)

    def ask(self, question: Question) -> Told:
        times_s = tuple(frame.pts_s for frame in self._frames)
        levels = tuple(int(frame.rgb_HW3[0, 0, 0]) for frame in self._frames)
        asking = Asking(question.text, question.at_s, times_s, levels)
        if self._is_test:
            self._show.log.append(asking)
        return told(question, self._show.says(asking) if self._is_test else "", times_s[-1])

    def close(self) -> None:
        self._frames.clear()


def told(question: Question, text: str, seen_until_s: float) -> Told:
    used = (Span(seen_until_s, seen_until_s),)
    asked_at_s = max(seen_until_s, question.at_s or 0.0)
    answer = Answer(question.text, text, asked_at_s, seen_until_s, used, Timing(0.25, 0.5), (1, 2))
    return Told(answer, 1000, 2000)


def method(show: Show, name: str = "telling") -> EvalMethod:
    return EvalMethod(name=name, about="tells what it saw", show=show)


def passing(
    engine: Engine, shown: EvalMethod, items: Sequence[Item], *, wording: Wording | None = None, poll_s: float = 1.0
) -> VideoPass:
    """A pass over one video, about which all the items ask."""
    by_id = {one.id: one for one in items}
    return VideoPass(GivenSuite(), shown, engine, wording or BareWording(), poll_s=poll_s, by_id=by_id, video="clip")


def answers(outcomes: Iterable[object]) -> dict[str, Answered]:
    return {one.id: one for one in outcomes if isinstance(one, Answered)}


def run_of_four(out: Path | None, on_event: Callable[[Event], None] | None = None) -> Results:
    """A run of 48 questions about four worlds, short but through the model."""
    asked = [
        item(
            f"{seed}-{number}",
            number / 4,
            video=f"synthetic://shapes?seed={seed}&duration_s=5&rate_hz=4&width=64&height=48",
            question="What appeared?",
        )
        for seed in range(4)
        for number in range(12)
    ]
    return evaluate(
        GivenSuite(), asked, method(Streamed(), "streamed"), config=small(), model=mini(), out=out, on_event=on_event
    )
