"""VideoPass: one pass over a video, in which all that is asked about it is asked, each when its moment has come."""

from __future__ import annotations

import heapq
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ...stream import Frame
from ..engine import Engine
from ..question import Question
from .asking import poll_times
from .causal import CausalFrames
from .item import Item, Said
from .method import EvalMethod, Told, Viewing
from .record import Answered, item_digest
from .scoring import yes_or_no
from .suites import Suite
from .wording import Wording

# What a method may fail with: it has nothing to say, what it would look at does not fit, or memory is full.
_FAILURES = (ValueError, torch.OutOfMemoryError)
# A poll is answered with one word.
_POLL_TOKENS = 8


class VideoBroken(RuntimeError):
    """The video could not be read on: one sentence."""


class Unshown(NamedTuple):
    """An item about a stretch in which the video shows nothing; whatever the method, there is nothing to score."""

    item: Item
    reason: str


class Shown(NamedTuple):
    """A frame was handed out."""

    pts_s: float


@dataclass(slots=True, eq=False)
class _Seat:
    """One viewing of the video from a moment on, and what it took since the answer before."""

    viewing: Viewing
    since_s: float
    num_left: int = 0
    num_seen: int = 0
    num_frames: int = 0
    ingest_s: float = 0.0
    failure: str | None = None


@dataclass(slots=True, eq=False)
class _Pending:
    """An item that is not answered yet: what was asked of it so far. polls: the moments that are left."""

    item: Item
    seat: _Seat
    number: int
    polls: deque[float] = field(default_factory=deque)
    polled_at: int = -1  # how many frames had been seen at the last poll
    asked: str = ""
    told: list[Told] = field(default_factory=list)
    ingest_s: float = 0.0
    num_frames: int = 0

    def __lt__(self, other: _Pending) -> bool:
        return self.number < other.number


class VideoPass:
    """Asks items about one video while it plays, in order of time. Made for one pass, and used up by it.

        source -> [CausalFrames: nothing later than the question at hand] -> seat: since 0 s   -> answers
                                                                         \\-> seat: since 60 s -> answers

    Items that may see the video from the same moment on share a seat: their method sees each frame once.
    """

    def __init__(
        self,
        suite: Suite,
        method: EvalMethod,
        engine: Engine,
        wording: Wording,
        *,
        poll_s: float,
        by_id: Mapping[str, Item],
        video: str,
    ) -> None:
        """by_id: where the items of a conversation are found. video: its name in what comes out."""
        self._suite, self._method, self._engine, self._wording = suite, method, engine, wording
        self._poll_s, self._by_id, self._video = poll_s, by_id, video
        self._device = engine.model.spec.device
        self._seats: dict[float, _Seat] = {}

    def run(self, frames: Iterable[Frame], items: Sequence[Item]) -> Iterator[Shown | Answered | Unshown]:
        """Yields what comes of it. The frames are taken up to the last item's moment, and no further.

        Raises VideoBroken where the frames cannot be read on; what was answered by then holds.
        """
        guard = CausalFrames(frames)
        try:
            agenda = self._agenda(items)
            while agenda:
                due_s, pending = heapq.heappop(agenda)
                for frame in _handed_out(guard, due_s):
                    self._show(frame)
                    yield Shown(frame.pts_s)
                outcome = self._ask(pending, due_s, guard)
                if outcome is None:
                    heapq.heappush(agenda, (pending.polls.popleft(), pending))
                    continue
                pending.seat.num_left -= 1
                if not pending.seat.num_left:
                    pending.seat.viewing.close()
                yield outcome
        finally:
            for seat in self._seats.values():
                seat.viewing.close()

    def _agenda(self, items: Sequence[Item]) -> list[tuple[float, _Pending]]:
        agenda: list[tuple[float, _Pending]] = []
        for number, item in enumerate(items):
            if item.since_s not in self._seats:
                viewing = self._method.show.start(self._engine, f"{self._method.name}-{len(self._seats)}")
                self._seats[item.since_s] = _Seat(viewing, item.since_s)
            seat = self._seats[item.since_s]
            seat.num_left += 1
            pending, due_s = _Pending(item, seat, number), item.at_s
            if item.form == "moment":
                pending.polls.extend(poll_times(item, poll_s=self._poll_s) or (item.until_s or item.at_s,))
                due_s = pending.polls.popleft()
            agenda.append((due_s, pending))
        heapq.heapify(agenda)
        return agenda

    def _show(self, frame: Frame) -> None:
        for seat in self._seats.values():
            if frame.pts_s < seat.since_s or not seat.num_left or seat.failure is not None:
                continue
            began_s = time.perf_counter()
            try:
                seat.viewing.see(frame)
            except _FAILURES as error:
                self._fail(seat, error)
            seat.ingest_s += time.perf_counter() - began_s
            seat.num_frames += 1
            seat.num_seen += 1

    def _ask(self, pending: _Pending, due_s: float, guard: CausalFrames) -> Answered | Unshown | None:
        """Asks what is due of an item; None where it is to be polled again."""
        item, seat = pending.item, pending.seat
        self._settle(pending)
        is_moment = item.form == "moment"
        has_more = bool(pending.polls)
        if not seat.num_seen:
            reason = f"shows no frame from {item.since_s:g} s to {due_s:g} s"
            return None if has_more else Unshown(item, reason)
        if seat.failure is not None:
            return self._answered(pending, Said(""), seat.failure)
        if is_moment and pending.polled_at == seat.num_seen:
            # Nothing was shown since the last poll: the same would be said again.
            return None if has_more else self._answered(pending, Said(""), None)
        pending.polled_at = seat.num_seen
        before = [self._by_id[id] for id in item.context if id in self._by_id]
        words = (self._wording.poll if is_moment else self._wording.ask)(item, before)
        pending.asked = words
        try:
            said = self._said(pending, words, due_s, guard, before)
        except _FAILURES as error:
            self._free(error)
            return self._answered(pending, Said(""), str(error))
        if is_moment and said.first_yes_s is None and has_more:
            return None
        return self._answered(pending, said, None)

    def _said(self, pending: _Pending, words: str, due_s: float, guard: CausalFrames, before: Sequence[Item]) -> Said:
        if pending.item.form != "moment":
            return Said(self._put(pending, words, due_s, guard))
        polled = self._put(pending, words, due_s, guard, _POLL_TOKENS)
        if not yes_or_no(polled):
            return Said("")
        then = self._wording.say(pending.item, before)
        return Said(polled if then is None else self._put(pending, then, due_s, guard), due_s)

    def _put(
        self, pending: _Pending, words: str, due_s: float, guard: CausalFrames, max_new_tokens: int | None = None
    ) -> str:
        told = pending.seat.viewing.ask(Question(words, at_s=due_s, max_new_tokens=max_new_tokens))
        guard.check(told.answer)
        pending.told.append(told)
        return told.answer.text

    def _settle(self, pending: _Pending) -> None:
        """What taking in frames cost since the last answer of the seat is this item's to tell."""
        seat = pending.seat
        if self._device.type == "cuda":
            began_s = time.perf_counter()
            torch.cuda.synchronize(self._device)  # else the question would be charged with what still runs
            seat.ingest_s += time.perf_counter() - began_s
        pending.ingest_s += seat.ingest_s
        pending.num_frames += seat.num_frames
        seat.ingest_s, seat.num_frames = 0.0, 0

    def _answered(self, pending: _Pending, said: Said, problem: str | None) -> Answered:
        item, told = pending.item, pending.told
        last = told[-1].answer if told else None
        return Answered(
            id=item.id,
            item=item_digest(item, self._video),
            video=self._video,
            kind=item.kind,
            category=item.category,
            form=item.form,
            at_s=item.at_s,
            question=item.question,
            answer=item.answer,
            asked=pending.asked,
            text=said.text,
            first_yes_s=said.first_yes_s,
            score=0.0 if problem is not None else float(self._suite.score(item, said)),
            problem=problem,
            seen_until_s=None if last is None else last.seen_until_s,
            used=() if last is None else last.used,
            num_frames=pending.num_frames,
            num_polls=len(told) if item.form == "moment" else 0,
            num_tokens=sum(one.answer.num_tokens for one in told),
            ingest_s=pending.ingest_s,
            ttft_s=statistics.median([one.answer.timing.ttft_s for one in told]) if told else 0.0,
            total_s=sum(one.answer.timing.total_s for one in told),
            kv_bytes=max((one.kv_bytes for one in told), default=0),
            held_bytes=max((one.held_bytes for one in told), default=0),
        )

    def _fail(self, seat: _Seat, error: Exception) -> None:
        """The method cannot go on with this seat: what is still to be asked there has no answer."""
        seat.failure = str(error)
        seat.viewing.close()
        self._free(error)

    def _free(self, error: Exception) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()


def _handed_out(guard: CausalFrames, due_s: float) -> Iterator[Frame]:
    """The frames up to a moment; whatever goes wrong on the source's side of the guard is the video's fault."""
    frames = guard.until(due_s)
    while True:
        try:
            frame = next(frames, None)
        except Exception as error:  # whatever a video makes codecs stumble over; a frame out of order
            raise VideoBroken(str(error) or type(error).__name__) from error
        if frame is None:
            return
        yield frame
