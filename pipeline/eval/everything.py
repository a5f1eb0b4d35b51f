"""Everything: each frame is kept as it is, for as long as all of them fit."""

from __future__ import annotations

from dataclasses import dataclass

from ...stream import Frame
from ..engine import Engine
from ..question import Question
from ..session import Session
from .method import Show, Told, Viewing


@dataclass(frozen=True, kw_only=True)
class Everything(Show):
    """Every frame goes into one session and stays in its context. Once they are more than fits, they are let go, and
    every later question is refused, with the time up to which all of them fitted. The settings must not let frames
    leave the recent window: see `recent_frames`.

    budget_bytes: of keys and values, at most.
    spare_positions: how many of the model's positions are left to a question and its answer.
    """

    budget_bytes: int = 4 * 2**30
    spare_positions: int = 256

    def __post_init__(self) -> None:
        for name in ("budget_bytes", "spare_positions"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {given!r}")

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _Everything(self, engine, engine.session(stream_id))


class _Everything(Viewing):
    def __init__(self, show: Everything, engine: Engine, session: Session) -> None:
        self._show, self._session = show, session
        self._max_positions = engine.model.spec.max_positions - show.spare_positions
        self._frames_per_block = engine.model.spec.frames_per_block
        self._fitted_until_s: float | None = None
        self._is_full = False

    def see(self, frame: Frame) -> None:
        if self._is_full:
            return
        self._session.push(frame)
        if self._is_over():
            self._is_full = True
            self._session.close()
        else:
            self._fitted_until_s = frame.pts_s

    def ask(self, question: Question) -> Told:
        if self._is_full:
            until = "no frame" if self._fitted_until_s is None else f"all frames up to {self._fitted_until_s:.1f} s"
            raise ValueError(
                f"{until} fit {self._max_positions} positions and {self._show.budget_bytes} bytes of keys and values; "
                f"got a question after more; keep fewer frames"
            )
        answer = self._session.ask_question(question)
        return Told(answer, self._session.memory.num_bytes, self._session.num_bytes)

    def close(self) -> None:
        self._session.close()

    def _is_over(self) -> bool:
        memory = self._session.memory
        num_positions = sum(block.advance for block in (*memory.sinks, *memory.recent))
        num_bytes = memory.num_bytes
        if memory.recent:
            # What waits to be read takes as much as the newest that was.
            num_waiting = -(-self._session.num_pending // self._frames_per_block)
            num_positions += num_waiting * memory.recent[-1].advance
            num_bytes += num_waiting * memory.recent[-1].num_bytes
        return num_positions > self._max_positions or num_bytes > self._show.budget_bytes
