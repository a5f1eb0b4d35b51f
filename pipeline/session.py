"""Session: one stream's clock, memory and context. Frames go in, answers and narrations come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..encoders import FrameTokens, Row, Text
from ..encoders.context import Context, Mark
from ..encoders.sight import Sight
from ..memory import KVBlock, Recall
from ..stream import Frame, Span, time_words
from .answer import Answer, Narration, Timing, join_spans
from .earlier_turns import after_earlier
from .generate import Generated
from .history import History
from .intake import Intake
from .narrator import Narrator
from .prompts import Prompts
from .question import NothingRemembered, Question
from .recalling import Recalling
from .session_clock import SessionClock

if TYPE_CHECKING:
    from .engine import Engine

# Shapes: H rows and W columns of a mask.


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
    newest: the frame that was pushed last, in the session's time.
    """

    def __init__(self, engine: Engine, stream_id: str, *, history: History, prompts: Prompts, intake: Intake) -> None:
        self._engine = engine
        self.intake = intake
        self.stream_id = stream_id
        self.history = history
        self.memory = history.memory
        self.prompts = prompts
        self.note = ""
        self._gate = engine.gate.start()
        self.narrator = Narrator(engine.config.narration)
        self._context = engine.model.new_context()
        (blocks,) = engine.model.read([Row(self._context, (engine.model.prefix(),))])
        self.memory.add_sink(blocks[0])
        self._recalling = Recalling(engine.model, history, prompts)
        self._num_read = 0
        self._has_left = False  # whether the context holds a block that is not recent any more
        self._is_closed = False
        self._tail: tuple[KVBlock, ...] = ()
        self._tail_mark: Mark | None = None
        self._clock = SessionClock(1 / engine.config.fps)
        self.num_dropped = 0
        self.newest: Frame | None = None
        self._is_stale = False
        self._resume()

    @property
    def num_pending(self) -> int:
        """How many frames were pushed and are not read for good yet."""
        return self.intake.num_waiting

    @property
    def seen_until_s(self) -> float | None:
        """Time of the newest frame that was pushed; None before the first."""
        return self._clock.last_s

    @property
    def seen_from_s(self) -> float | None:
        """Time of the first frame that was pushed; None before it."""
        return self._clock.first_s

    @property
    def num_frames(self) -> int:
        """How many were pushed, in earlier sessions here too."""
        return self._clock.num_frames

    @property
    def num_bytes(self) -> int:
        """What the session holds: memory, the context that the model attends to, what is on its way there, and what
        of the history is in this process."""
        held_bytes = self.memory.num_bytes + self._context.num_bytes + self.intake.num_bytes
        return held_bytes + self.history.num_bytes

    def push(self, frame: Frame, *, reads: bool = True) -> None:
        """Takes the next frame. Reading is put off until a chunk is full or something is asked.

        reads: False puts it off until `Engine.read_pending`, which whoever pushes to many sessions calls for all of
        them; `flush_if_due` is then theirs to call too.
        """
        self._check_open()
        if self.history.read_only:
            raise ValueError(
                f"the session of stream {self.stream_id!r} was opened with read_only=True and takes no frames; got "
                f"{frame!r}; push it in the process that writes"
            )
        frame = self._clock.place(frame)
        if frame.gap_s > 0:
            gap_s = min(frame.gap_s, frame.pts_s - self._clock.first_s)
            words = f"no picture for {time_words(gap_s)} s"
            self.history.note(words, Span(frame.pts_s - gap_s, frame.pts_s), kind="gap")
        self.narrator.see(frame)
        self.newest = frame
        if not self._gate.judge(frame).keep:
            self.num_dropped += 1
            return
        self.intake.push(frame)
        if not reads:
            return
        if len(self.intake.pending) >= self._engine.config.chunk_frames * self._engine.model.spec.frames_per_block:
            self._engine.read_pending([self])
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Flushes where the last time is long enough ago."""
        if self.history.is_flush_due():
            self.flush()

    def flush(self) -> None:
        """Reads what was pushed, and has all that is known written where it outlives the process, soon.

        Happens by itself every `flush_every_s` of the history's settings, while frames come.
        """
        if self.history.outlives and not self.history.read_only:
            self._engine.read_pending([self])
        self.history.flush(self._clock.state)

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
        question = self.narration_question(force=force)
        return None if question is None else self.narrated(self.ask_question(question))

    def narration_question(self, *, force: bool = False) -> Question | None:
        """What to ask for the next narration, where one is due; its answer goes to `narrated`."""
        if self._clock.last_s is None or not (force or self.narrator.is_due(self._clock.last_s)):
            return None
        since_s = self.narrator.since_s
        if since_s == self._clock.last_s:
            return None
        return Question(self.prompts.question(since_s), max_new_tokens=self._engine.config.narration.max_new_tokens)

    def narrated(self, answer: Answer) -> Narration | None:
        """Takes the answer to `narration_question` as said, and keeps it in the log; None where it says nothing.

        No frame may have been pushed since it was asked.
        """
        since_s, until_s = self.narrator.since_s, answer.seen_until_s
        self.narrator.said(until_s)
        if self.prompts.is_silent(answer.text):
            return None
        start_s = since_s if since_s is not None else self._clock.first_s
        assert start_s is not None
        narration = Narration(answer.text, Span(start_s, until_s), answer)
        self.history.note(narration.text, narration.span)
        return narration

    def skip_narration(self) -> None:
        """Takes the narration that was due as said: it could not be asked for."""
        if self._clock.last_s is not None:
            self.narrator.said(self._clock.last_s)

    def close(self) -> None:
        """Ends the session; it takes no frame and no question any more. Idempotent.

        What it knew is let go, but for what outlives the process: that is brought to rest first.
        """
        if not self._is_closed:
            with ExitStack() as closing:
                closing.callback(self._let_go)
                closing.callback(self.history.close)
                self.flush()

    def _let_go(self) -> None:
        self._is_closed = True
        self.newest = None
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

    def saw(self, sights: Sequence[Sight]) -> None:
        """Pending frames that fill blocks were seen. Raises ValueError as `Intake.saw` does, for what is left out."""
        size = self._engine.model.spec.frames_per_block
        seen = list(zip(self.intake.pending[size - 1 :: size], sights, strict=False))
        refused: ValueError | None = None
        try:
            self.intake.saw(sights)
        except ValueError as error:
            refused = error
        for frame, sight in seen:
            try:
                self.history.see(frame, sight.tokens)
            except ValueError as error:
                refused = refused or error
        if refused is not None:
            raise refused

    def take(self, blocks: Sequence[KVBlock]) -> None:
        """Some of what was ready, `num_readable` at most, was read into the context, and these are its blocks.

        Raises ValueError for one that is not finite; it is left out, and those read after it are to be read again,
        since it is in what they were read after.
        """
        for block in blocks:
            self.intake.read(1)
            try:
                self._has_left |= bool(self.memory.append(block).left_recent)
            except ValueError:
                self._is_stale = True
                raise
            self._num_read += 1
        if self._has_left and self._num_read % self._engine.config.chunk_frames == 0:
            self._is_stale, self._has_left = True, False

    def refresh(self) -> None:
        """Where another process writes, what came since is read."""
        if self.history.refresh():
            self._resume()

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
        model, span, words = self._engine.model, question.span, f"{self.note} {question.text}".strip()
        if self._clock.last_s is None:
            raise ValueError(f"nothing was seen of stream {self.stream_id!r} yet; push a frame before asking")
        asked = model.question(question.text)
        text = model.question(words) if self.note else asked
        context = self.context()
        if self._has_left:
            # What a question recalls, and is told, must not depend on what is in the context besides.
            context = self._filled([*self.memory.context(), *self._tail])
        shown = [block.span for block in (*self.memory.recent, *self._tail)]
        recall = Recall()
        if span is not None or self._recalling.opens(question.text, text, context):
            recall = self._recalling.recall(question.text, asked, context, span)
        if span is not None or recall.blocks:
            tail = [block for block in self._tail if span is None or block.span.overlaps(span)]
            blocks = [*self.memory.context(recall, span=span), *tail]
            recent = self.memory.recent
            shown = [*recall.spans, *(block.span for block in blocks if block in recent or block in tail)]
            if not shown:
                raise NothingRemembered(self._nothing_there(question))
            context = self._filled(blocks)
        max_new_tokens = question.max_new_tokens or self._engine.config.max_new_tokens
        if question.earlier:
            num_free = model.spec.max_positions - context.next_position - max_new_tokens
            text = after_earlier(model, self.prompts, words, question.earlier, num_free=num_free)
        num_prompt_tokens = context.length + len(text.ids)
        self._check_length(context.next_position + len(text.ids) + max_new_tokens)
        last_pts_s = self._clock.last_s

        def finish(generated: Generated) -> Answer:
            return Answer(
                question=question.text,
                text=generated.text,
                asked_at_s=max(last_pts_s, question.at_s or last_pts_s),
                seen_until_s=last_pts_s,
                used=join_spans(shown, gap_s=1.5 / self._engine.config.fps),
                timing=Timing(generated.first_token_s - started_s, generated.done_s - started_s),
                token_ids=generated.ids,
                num_prompt_tokens=num_prompt_tokens,
            )

        return Asked(context, text, max_new_tokens, finish)

    def _filled(self, blocks: Sequence[KVBlock]) -> Context:
        """A context of its own, that holds these."""
        context = self._engine.model.new_context()
        self._engine.model.fill(context, blocks)
        return context

    def _resume(self) -> None:
        """Takes the times, and the recent window, from what the history knows."""
        self._clock.resume(self.history.seen)
        self._is_stale = True

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
            f"{self._clock.first_s:.1f} s to {self._clock.last_s:.1f} s; ask about another span, or raise the memory's "
            "budget_bytes"
        )

    def __repr__(self) -> str:
        until = "nothing yet" if self._clock.last_s is None else f"until {self._clock.last_s:.1f} s"
        return f"Session({self.stream_id!r}, seen {until}, {self.num_bytes} bytes)"
