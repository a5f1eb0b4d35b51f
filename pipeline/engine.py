"""Engine: one model and the sessions that share it. Whatever several sessions need at once is done in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..encoders import FrameTokens, Row, VideoLLM, load_model
from ..encoders.compressors import check_compressor
from ..encoders.reuse import Seer
from ..encoders.sight import Need
from ..memory import KVBlock, MemoryConfig
from .answer import Answer
from .answering import Answering, Asking
from .config import EngineConfig
from .history import History
from .intake import Intake
from .prompts import prompts_for
from .question import Question
from .session import Session

# Shapes: M words of a question, D channels of the language model.

# The built-in model was trained on up to 64 frames at a time, of 37 tokens each; real ones have more tokens a frame.
MINI_MEMORY = MemoryConfig(recent_frames=16, recall_blocks=16)

# What a tower that can be taken apart offers to compressors.
TOWER_NEEDS = (Need.PIXELS, Need.CLS, Need.RECEIVED, Need.FEATURES)


# Queries of a block that pruners measure attention with, where they do.
NUM_PROBES = 16


class Engine:
    """A loaded model, its settings, and sessions: one for each stream.

    >>> engine = Engine()
    >>> session = engine.session("front-door")
    >>> session.push(frame)
    >>> session.ask("What color is the circle?").text

    Not thread-safe, and neither are its sessions: one thread owns them all.
    """

    def __init__(self, config: EngineConfig | str | None = None, *, model: VideoLLM | None = None) -> None:
        """Takes settings, or just the name of a model; `model` is one that is loaded already."""
        if isinstance(config, str):
            config = EngineConfig(model=config)
        config = config or EngineConfig()
        self.model = model or load_model(
            config.model, device=config.device, dtype=config.dtype, max_side_px=config.max_side_px
        )
        name = self.model.spec.name
        self._memory = config.memory or (MINI_MEMORY if name == "millpond/mini" else MemoryConfig())
        self._prompts = config.prompts or prompts_for(name)
        self.config = replace(config, memory=self._memory, prompts=self._prompts)
        self.gate, self.compressor = config.made_gate(), config.made_compressor()
        self._seer: Seer[Any] = config.made_reuser(self.model).over(self.model, budget_bytes=config.reuse_budget_bytes)
        self._sessions: dict[str, Session] = {}

    def session(
        self,
        stream_id: str = "stream",
        *,
        question: str | None = None,
        at: str | Path | None = None,
        read_only: bool = False,
    ) -> Session:
        """A session. A stream has one at a time; `close` it to start over.

        question: what the stream is watched for; compressors that look at a question look at this one.
        at: a directory, or a redis:// address, where the session outlives the process: where one has been before, it
            goes on there, and the first frame pushed comes after the last one seen.
        read_only: another process writes there; this session only answers, and takes no frames.
        """
        if stream_id in self._sessions:
            raise ValueError(f"stream {stream_id!r} has a session already; close it, or take another stream_id")
        offered = frozenset(TOWER_NEEDS if self.model.tower is not None else ())
        words_MD = None
        if question is not None:
            if not question.strip():
                raise ValueError(f"a question needs words; got {question!r}")
            offered |= {Need.TEXT}
            if Need.TEXT in self.compressor.needs | self.compressor.uses:
                words_MD = self.model.embed_words(question)
        check_compressor(self.compressor, offered, f"stream {stream_id!r}")
        intake = Intake(
            self._seer.start(),
            self.compressor,
            num_fresh=self._memory.recent_frames,
            frames_per_block=self.model.spec.frames_per_block,
            offered=offered,
            text_MD=words_MD,
        )
        history = History(
            self.config.history,
            self._memory,
            at=at,
            stream_id=stream_id,
            model_name=self.model.spec.name,
            fingerprint=self.model.fingerprint,
            patience_s=0.5 / self.config.fps,
            read_only=read_only,
        )
        session = Session(self, stream_id, history=history, prompts=self._prompts, intake=intake)
        self._sessions[stream_id] = session
        return session

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    @property
    def num_bytes(self) -> int:
        """What all sessions hold."""
        return sum(session.num_bytes for session in self.sessions)

    def read_pending(self, sessions: Sequence[Session] | None = None) -> None:
        """Encodes what was pushed and not seen yet, of these sessions or of all, and reads what is ready, packed.

        Frames that do not fill a block yet (the odd one, where a model takes two together) stay pending.
        Raises ValueError where what was seen of a block makes no sense; it is left out, and all others are read.
        """
        chosen = list(dict.fromkeys(self.sessions if sessions is None else sessions))
        waiting = [session for session in chosen if session.intake.pending]
        refused: ValueError | None = None
        if waiting:
            needs = frozenset().union(*(session.intake.needs for session in waiting))
            seen = self._seer.see([(session.intake.eyes, session.intake.pending) for session in waiting], needs)
            for session, sights in zip(waiting, seen, strict=True):
                try:
                    session.saw(sights)
                except ValueError as error:
                    refused = refused or error
        while any(session.intake.ready for session in chosen):
            ready = [(session, session.intake.ready[: session.num_readable]) for session in chosen]
            for session, blocks in self.read_rows(ready):
                try:
                    session.take(blocks)
                except ValueError as error:
                    refused = refused or error
        if refused is not None:
            raise refused

    def read_rows(self, asked: Sequence[tuple[Session, Sequence[FrameTokens]]]) -> list[tuple[Session, list[KVBlock]]]:
        """Reads tokens of several sessions into their contexts, in one pass; what sessions and `Answering` call."""
        waiting = [(session, tokens) for session, tokens in asked if tokens]
        if not waiting:
            return []
        rows = [Row(session.context(), tuple(tokens)) for session, tokens in waiting]
        num_probes = NUM_PROBES if any(session.memory.needs_probes for session, _ in waiting) else 0
        read = self.model.read(rows, num_probes=num_probes)
        return [(session, blocks) for (session, _), blocks in zip(waiting, read, strict=True)]

    def ask(
        self,
        questions: Sequence[tuple[Session, Question]],
        *,
        on_text: Callable[[Session, str], None] | None = None,
    ) -> list[Answer]:
        """Answers questions of several sessions, each after all that was pushed to it, decoding them together.

        Several questions of one session are answered one after another, as they share a context.
        on_text: called with the text so far of a session's answer, as it grows.
        """
        asked = [
            Asking(number, session, question, None if on_text is None else partial(on_text, session))
            for number, (session, question) in enumerate(questions)
        ]
        sessions = list(dict.fromkeys(session for session, _ in questions))
        for session in sessions:
            session.refresh()
        self.read_pending(sessions)
        answering = Answering(self)
        try:
            done = answering.begin(asked)
            while len(answering) and not any(one.error for one in done):
                done += answering.step()
        except BaseException:
            answering.stop(ValueError("given up"))
            raise
        refused = next((one.error for one in done if one.error is not None), None)
        if refused is not None:
            answering.stop(refused)
            raise refused
        answers = {one.key: one.answer for one in done}
        return [answer for number in range(len(asked)) if (answer := answers[number]) is not None]

    def close(self) -> None:
        """Lets all sessions go."""
        for session in self.sessions:
            session.close()

    def forget(self, session: Session) -> None:
        """Takes a closed session off the list; `Session.close` calls it."""
        if self._sessions.get(session.stream_id) is session:
            del self._sessions[session.stream_id]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Engine({self.model.spec.name}, {len(self._sessions)} sessions)"
