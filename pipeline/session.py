"""Session: one stream's clock, memory and context. Frames go in, answers and narrations come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..encoders import FrameTokens, Row, Text
from ..encoders.context import Context, Mark
from ..memory import KVBlock, Memory, MemoryConfig, Recall
from ..stream import Frame, Span
from .answer import Answer, Narration, Timing, join_spans
from .generate import Generated
from .intake import Intake
from .narrator import Narrator
from .prompts import Prompts

if TYPE_CHECKING:
    from .engine import Engine

# Shapes: H rows and W columns of a mask.

# Later than any stream lasts: what an open side of a span stands for.
_NEVER_S = 1e12


class NothingRemembered(ValueError):
    """The stretch of time that a question is about was not seen, or is remembered no more."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the moment it is asked at, and the stretch of stream time it is about; None leaves that side open.

    at_s: stream time of asking, not before the newest frame; None: the newest frame's.
    """

    text: str
    at_s: float | None = None
    since_s: float | None = None
    until_s: float | None = None
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"a question needs words; got {self.text!r}")
        for name in ("at_s", "since_s", "until_s"):
            given = getattr(self, name)
            if given is not None and not abs(given) < _NEVER_S:
                raise ValueError(f"{name} must be a finite number of seconds; got {given}")
        if self.since_s is not None and self.until_s is not None and self.until_s < self.since_s:
            raise ValueError(f"a question about a span needs since_s <= until_s; got {self.since_s} and {self.until_s}")

    @property
    def span(self) -> Span | None:
        """The stretch that it is about, both ends included; None where it is about everything."""
        if self.since_s is None and self.until_s is None:
            return None
        since_s = -_NEVER_S if self.since_s is None else self.since_s
        until_s = _NEVER_S if self.until_s is None else self.until_s
        # Spans are half-open, and a block of two frames ends at its second: a hair more on both sides lets
        # frames at the very ends in.
        return Span(math.nextafter(since_s, -math.inf), math.nextafter(until_s, math.inf))


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A question on its way: where to decode it, and how its answer is put together."""

    context: Context
    text: Text
    max_new_tokens: int
    finish: Callable[[Generated], Answer]


class Session:
    """One stream. Made by `Engine.session`; `push` frames in order of time, `ask` and `narrate` at any moment.

        pushed frames -> gate -> [intake: see, compress] -> read -> [context]   what the model attends to
                                                               \\-> [memory]    sinks, recent window, older blocks

    `ask` sees every frame pushed before it. The context holds sinks and recent blocks. What has left the recent window
    stays in it until as many blocks were read as make a chunk, counted from the stream's first: then it is filled anew
    from memory. So what a block is read after does not depend on when somebody asked, or on what is read together.
    Not thread-safe: owned by the engine's thread.

    note: what the model is told before every question, such as how to read picture cards; answers do not repeat it.
    """

    def __init__(
        self, engine: Engine, stream_id: str, *, memory: MemoryConfig, prompts: Prompts, intake: Intake
    ) -> None:
        self._engine = engine
        self.intake = intake
        self.stream_id = stream_id
        self.memory = Memory(memory)
        self.prompts = prompts
        self.note = ""
        self._gate = engine.gate.start()
        self._narrator = Narrator(engine.config.narration)
        self._context = engine.model.new_context()
        (blocks,) = engine.model.read([Row(self._context, (engine.model.prefix(),))])
        self.memory.add_sink(blocks[0])
        self._is_stale = False
        self._num_read = 0
        self._has_left = False  # whether the context holds a block that is not recent any more
        self._is_closed = False
        self._tail: tuple[KVBlock, ...] = ()
        self._tail_mark: Mark | None = None
        self._last_pts_s: float | None = None
        self._first_pts_s: float | None = None
        self.num_frames = 0
        self.num_dropped = 0

    @property
    def num_pending(self) -> int:
        """How many frames were pushed and are not read for good yet."""
        return self.intake.num_waiting

    @property
    def seen_until_s(self) -> float | None:
        """Time of the newest frame that was pushed; None before the first."""
        return self._last_pts_s

    @property
    def seen_from_s(self) -> float | None:
        """Time of the first frame that was pushed; None before it."""
        return self._first_pts_s

    @property
    def num_bytes(self) -> int:
        """What the session holds: memory, the context that the model attends to, and what is on its way there."""
        return self.memory.num_bytes + self._context.num_bytes + self.intake.num_bytes

    def push(self, frame: Frame) -> None:
        """Takes the next frame. Reading is put off until a chunk is full or something is asked."""
        self._check_open()
        if self._last_pts_s is not None and frame.pts_s < self._last_pts_s:
            raise ValueError(
                f"frames must come in order of time; got {frame!r} after one at {self._last_pts_s:.3f} s; "
                "sort them, or start another session"
            )
        self._last_pts_s = frame.pts_s
        if self._first_pts_s is None:
            self._first_pts_s = frame.pts_s
        self.num_frames += 1
        self._narrator.see(frame)
        if not self._gate.judge(frame).keep:
            self.num_dropped += 1
            return
        self.intake.push(frame)
        if len(self.intake.pending) >= self._engine.config.chunk_frames * self._engine.model.spec.frames_per_block:
            self._engine.read_pending([self])

    def require_fresh(self, mask_HW: np.ndarray | None) -> None:
        """From now on, what lies under True is encoded anew in every frame, changed or not; None: nothing has to be.

        mask_HW: bool, of any shape: it is laid over the whole picture.
        """
        self.intake.eyes.require_fresh(mask_HW)

    def ask(
        self,
        question: str,
        *,
        since_s: float | None = None,
        until_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answers from what was pushed so far, or from the stretch of time that since_s and until_s bound.

        on_text: called with the text so far, as it grows.
        Raises ValueError where no frame was pushed yet, and NothingRemembered, which is one, where none of that stretch
        is remembered.
        """
        return self.ask_question(Question(question, since_s=since_s, until_s=until_s), on_text=on_text)

    def ask_question(self, question: Question, *, on_text: Callable[[str], None] | None = None) -> Answer:
        """`ask`, for a question that is made already."""
        relay = None if on_text is None else (lambda _session, text: on_text(text))
        return self._engine.ask([(self, question)], on_text=relay)[0]

    def narrate(self, *, force: bool = False) -> Narration | None:
        """Says what is new, if enough changed or enough time passed since it last did; None when there is nothing.

        force: say it now, whatever has passed.
        """
        if self._last_pts_s is None or not (force or self._narrator.is_due(self._last_pts_s)):
            return None
        since_s = self._narrator.since_s
        start_s = since_s if since_s is not None else self._first_pts_s
        assert start_s is not None
        if since_s == self._last_pts_s:
            return None
        question = Question(self.prompts.question(since_s), max_new_tokens=self._engine.config.narration.max_new_tokens)
        answer = self.ask_question(question)
        self._narrator.said(self._last_pts_s)
        if self.prompts.is_silent(answer.text):
            return None
        return Narration(answer.text, Span(start_s, self._last_pts_s), answer)

    def close(self) -> None:
        """Ends the session and lets its memory go; it takes no frame and no question any more. Idempotent."""
        self._is_closed = True
        self.intake.clear()
        self.memory.forget()
        self._context = self._engine.model.new_context()
        self._engine.forget(self)

    # What the engine calls.

    def context(self) -> Context:
        """The session's context, holding its sinks and recent blocks."""
        if self._is_stale:
            self._engine.model.fill(self._context, self.memory.context())
            self._is_stale = False
        return self._context

    def take(self, blocks: Sequence[KVBlock]) -> None:
        """Some of what was ready, `num_readable` at most, was read into the context, and these are its blocks."""
        self.intake.read(len(blocks))
        for block in blocks:
            self._has_left |= bool(self.memory.append(block).left_recent)
        self._num_read += len(blocks)
        if self._has_left and self._num_read % self._engine.config.chunk_frames == 0:
            self._is_stale, self._has_left = True, False

    @property
    def num_readable(self) -> int:
        """How many blocks may be read into the context as it is."""
        return self._engine.config.chunk_frames - self._num_read % self._engine.config.chunk_frames

    def tail(self) -> tuple[FrameTokens, ...]:
        """What a question reads besides: the newest blocks, whole, and the last frames where they fill none yet."""
        odd = self.intake.odd
        # As a block of its own, by nobody's memory of it: the stream goes on as if this had not been seen.
        return (*self.intake.fresh, *(self._engine.model.see(odd) if odd else ()))

    # [sinks | recent] [tail | question, answer]     in the context; all from the mark on is taken back
    #                  ^ mark

    def begin_tail(self) -> None:
        """From here on, what is read into the context is for the questions at hand."""
        self._tail_mark = self.context().mark()

    def add_tail(self, blocks: Sequence[KVBlock]) -> None:
        """The tail was read into the context."""
        self._tail = tuple(blocks)

    def drop_tail(self) -> None:
        """The questions are answered: the context is as it was."""
        if self._tail_mark is not None:
            self._context.rewind(self._tail_mark)
        self._tail_mark, self._tail = None, ()

    def prepare(self, question: Question, started_s: float) -> Asked:
        """Recalls what the question needs, and gives the context to answer it in.

        started_s: when it was asked, on `time.perf_counter`'s clock.
        """
        self._check_open()
        model, span = self._engine.model, question.span
        if self._last_pts_s is None:
            raise ValueError(f"nothing was seen of stream {self.stream_id!r} yet; push a frame before asking")
        asked = model.question(question.text)
        text = model.question(f"{self.note} {question.text}") if self.note else asked
        context = self.context()
        shown = [block.span for block in (*self.memory.recent, *self._tail)]
        if span is not None or self.memory.older:
            recall = Recall()
            if self.memory.older:
                query = model.probe(Row(context, (asked,))) if self.memory.needs_query else None
                recall = self.memory.recall(query, span=span)
            if span is not None or recall.blocks or self._has_left:
                tail = [block for block in self._tail if span is None or block.span.overlaps(span)]
                blocks = [*self.memory.context(recall, span=span), *tail]
                shown = [block.span for block in blocks if block.kind == "frame"]
                if not shown:
                    raise NothingRemembered(self._nothing_there(question))
                context = model.new_context()
                model.fill(context, blocks)
        max_new_tokens = question.max_new_tokens or self._engine.config.max_new_tokens
        self._check_length(context.next_position + len(text.ids) + max_new_tokens)
        last_pts_s = self._last_pts_s

        def finish(generated: Generated) -> Answer:
            return Answer(
                question=question.text,
                text=generated.text,
                asked_at_s=max(last_pts_s, question.at_s or last_pts_s),
                seen_until_s=last_pts_s,
                used=join_spans(shown, gap_s=1.5 / self._engine.config.fps),
                timing=Timing(generated.first_token_s - started_s, generated.done_s - started_s),
                token_ids=generated.ids,
            )

        return Asked(context, text, max_new_tokens, finish)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"the session of stream {self.stream_id!r} is closed; start another with engine.session")

    def _check_length(self, num_positions: int) -> None:
        spec, limits = self._engine.model.spec, self.memory.config
        if num_positions > spec.max_positions:
            raise ValueError(
                f"the question, what it is asked about and its answer may take {num_positions} positions, and "
                f"{spec.name} was trained for {spec.max_positions}; shorten the question, or lower recent_frames "
                f"({limits.recent_frames}), recall_blocks ({limits.recall_blocks}) or max_new_tokens"
            )

    def _nothing_there(self, question: Question) -> str:
        sides = ((" from", question.since_s), (" up to", question.until_s))
        wanted = "".join(f"{side} {time_s:.1f} s" for side, time_s in sides if time_s is not None)
        return (
            f"no frame{wanted} is remembered of stream {self.stream_id!r}, which was seen from "
            f"{self._first_pts_s:.1f} s to {self._last_pts_s:.1f} s; ask about another span, or raise the memory's "
            "budget_bytes"
        )

    def __repr__(self) -> str:
        until = "nothing yet" if self._last_pts_s is None else f"until {self._last_pts_s:.1f} s"
        return f"Session({self.stream_id!r}, seen {until}, {self.num_bytes} bytes)"
