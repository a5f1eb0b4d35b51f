"""Engine: one model and the sessions that share it. Whatever several sessions need at once is done in one pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from ..encoders import Row, VideoLLM, load_model
from ..memory import KVBlock, MemoryConfig
from ..stream import Frame
from .answer import Answer
from .config import EngineConfig
from .generate import Prompt, generate
from .prompts import prompts_for
from .session import Question, Session

# The built-in model was trained on 16 to 20 frames at a time, of 37 tokens each; real ones have more tokens a frame.
_MINI_MEMORY = MemoryConfig(recent_frames=16, recall_blocks=4)


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
        self._memory = config.memory or (_MINI_MEMORY if name == "millpond/mini" else MemoryConfig())
        self._prompts = config.prompts or prompts_for(name)
        self.config = replace(config, memory=self._memory, prompts=self._prompts)
        self._sessions: dict[str, Session] = {}

    def session(self, stream_id: str = "stream") -> Session:
        """A new session. A stream has one at a time; `close` it to start over."""
        if stream_id in self._sessions:
            raise ValueError(f"stream {stream_id!r} has a session already; close it, or take another stream_id")
        session = Session(self, stream_id, memory=self._memory, prompts=self._prompts)
        self._sessions[stream_id] = session
        return session

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    def read_pending(self, sessions: Sequence[Session] | None = None) -> None:
        """Encodes and reads what was pushed and not read yet, of these sessions or of all, packed in one pass.

        Frames that do not fill a block yet (the odd one, where a model takes two together) stay pending.
        """
        for session, blocks in self._read(self.sessions if sessions is None else sessions, Session.whole_pending):
            session.take(blocks)

    def _read(
        self, sessions: Sequence[Session], frames_of: Callable[[Session], Sequence[Frame]]
    ) -> list[tuple[Session, list[KVBlock]]]:
        waiting = [session for session in dict.fromkeys(sessions) if frames_of(session)]
        if not waiting:
            return []
        rows = [Row(session.context(), tuple(self.model.see(frames_of(session)))) for session in waiting]
        return list(zip(waiting, self.model.read(rows), strict=True))

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
        started_s = time.perf_counter()
        asked_sessions = list(dict.fromkeys(session for session, _ in questions))
        self.read_pending(asked_sessions)
        for session in asked_sessions:
            session.begin_tail()
        try:
            # What does not fill a block is read as one for these questions only, and taken back.
            for session, blocks in self._read(asked_sessions, Session.all_pending):
                session.add_tail(blocks)
            return self._answer(questions, on_text, started_s)
        finally:
            for session in asked_sessions:
                session.drop_tail()

    def _answer(
        self,
        questions: Sequence[tuple[Session, Question]],
        on_text: Callable[[Session, str], None] | None,
        started_s: float,
    ) -> list[Answer]:
        answers: list[Answer | None] = [None] * len(questions)
        left = list(range(len(questions)))
        while left:
            round_: dict[int, Session] = {}
            for i in left:
                if questions[i][0] not in round_.values():
                    round_[i] = questions[i][0]
            asked = {i: session.prepare(questions[i][1], started_s) for i, session in round_.items()}
            prompts = [
                Prompt(
                    context=asked[i].context,
                    question=asked[i].text,
                    max_new_tokens=asked[i].max_new_tokens,
                    on_text=None if on_text is None else _bind(on_text, session),
                )
                for i, session in round_.items()
            ]
            for i, generated in zip(round_, generate(self.model, prompts), strict=True):
                answers[i] = asked[i].finish(generated)
            left = [i for i in left if i not in round_]
        return [answer for answer in answers if answer is not None]

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


def _bind(on_text: Callable[[Session, str], None], session: Session) -> Callable[[str], None]:
    return lambda text: on_text(session, text)
