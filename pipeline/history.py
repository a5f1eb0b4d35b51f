"""History: what one session keeps besides its context, tier by tier, and where all of it outlives the process."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..encoders import FrameTokens
from ..encoders.tokens_at_rest import rest_tokens
from ..memory import BlockId, KVBlock, Memory, MemoryConfig
from ..memory.archive import Archive, Seen
from ..memory.block import skip_block_ids
from ..memory.depot_keeper import DepotKeeper, read_blocks
from ..memory.depots import DepotError, DepotStats, open_depot
from ..memory.depots.directory import DirectoryDepot
from ..memory.depots.writer import DepotWriter
from ..memory.event_log import EventLog, Line
from ..memory.keeper import NoKeeper
from ..memory.log_reader import LogReader
from ..memory.no_archive import NoArchive
from ..stream import Frame, Span
from ..stream.redact import redact
from .config import HistoryConfig

_log = logging.getLogger(__name__)

_STATE = 0  # the number of the one record of its kind
_STATE_VERSION = 1
_MAX_STATE_BYTES = 64 * 2**10
_LATE_S = 1e12  # later than any stream lasts
_ARCHIVE_BYTES = 2**30
_ARCHIVE_BYTES_IN_RAM = 64 * 2**20
_MAX_NOTICES = 32
_MAX_LINES_LET_GO = 1000  # at a time


class Known(NamedTuple):
    """What was seen of a stream so far; None before the first frame. wall_until_s: Unix time at `until_s`, if known."""

    from_s: float | None
    until_s: float | None
    num_frames: int
    wall_until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Made by History, read by the command line and metrics: what a session keeps, tier by tier."""

    seen: Known
    num_blocks: int
    num_keyframes: int
    num_lines: int
    bytes_by_tier: dict[str, int]
    notices: tuple[str, ...]


class History:
    """One session's tiers, and where they outlive the process. Not thread-safe: its session's.

        blocks read  -> memory (T0, T1) -> keeper --\\
        frames seen  -> archive (T2) ---------------+-> writer -> depot: RAM, a directory, Redis
        narrations   -> log (T3) -------------------/

    Opened where another session has been, it knows what that one knew. Nothing here waits for a disk or a server.

    notices: sentences on what was found damaged, or is not used; each is also logged once.
    is_behind: where another process writes: whether what came last could not be read, and is not known here.
    on_line: called with every line that is noted, from the session's thread.
    """

    def __init__(
        self,
        config: HistoryConfig,
        memory: MemoryConfig,
        *,
        at: str | Path | None,
        stream_id: str,
        model_name: str,
        fingerprint: str,
        patience_s: float,
        read_only: bool = False,
    ) -> None:
        """at: a directory or a redis:// address; None: nothing outlives the process. patience_s: longest wait of a
        frame for the writer. read_only: another process is writing there, and this one answers."""
        self.config = config
        self.gate = config.made_gate()
        self.read_only = read_only
        self.is_closed = False
        self.notices: tuple[str, ...] = ()
        self.is_behind = False
        self.on_line: Callable[[Line], None] = _nobody
        self._model_name, self._fingerprint = model_name, fingerprint
        self._where = "RAM" if at is None else redact(str(at))
        self._depot = open_depot(at, session=stream_id, read_only=read_only, segment_bytes=self._segment_bytes)
        try:
            self._writer = None
            if not read_only:
                self._writer = DepotWriter(self._depot, queue_bytes=config.queue_bytes, patience_s=patience_s)
            # In RAM a record would be the same block once more.
            is_kept = self._writer is not None and self.outlives
            keeper = DepotKeeper(self._writer, fingerprint) if self._writer and is_kept else NoKeeper()
            self.memory = Memory(memory, keeper)
            self.log = self._made_log(at)
            self.archive = self._made_archive()
            self._first_line, self._last_line = 0, -1  # numbers of records, where lines are records
            self._useless: list[int] = []  # blocks at rest that are not used; they go when this session has its own
            self._packed_here: set[BlockId] = set()  # where another process writes, and had not packed them yet
            self._state = self._read_state()
            self._restore()
        except BaseException:
            self.close()
            raise
        self._flushed_at_s = time.monotonic()

    @property
    def outlives(self) -> bool:
        """Whether what is kept is there after the process."""
        return self._depot.is_shared

    @property
    def has_units(self) -> bool:
        """Whether there is anything besides keys and values to recall."""
        return bool(self.archive.num_keyframes or self.log.num_lines)

    @property
    def num_bytes(self) -> int:
        """What this process holds of it: the archive's index, what waits to be written, and what only RAM keeps.
        Nothing, once it is closed."""
        if self.is_closed:
            return 0
        waiting = 0 if self._writer is None else self._writer.stats.waiting_bytes
        in_ram = 0 if self.outlives else self.archive.num_bytes + self.log.num_bytes
        return self.archive.index_bytes + waiting + in_ram

    @property
    def writer_stats(self) -> DepotStats | None:
        """How writing goes; None where this process does not write."""
        return None if self._writer is None else self._writer.stats

    @property
    def kept(self) -> Kept:
        """What is kept now."""
        return Kept(
            seen=self.seen,
            num_blocks=len(self.memory.recent) + len(self.memory.older),
            num_keyframes=self.archive.num_keyframes,
            num_lines=self.log.num_lines,
            bytes_by_tier=self.bytes_by_tier(),
            notices=self.notices,
        )

    def bytes_by_tier(self) -> dict[str, int]:
        """What every tier holds, wherever that is: T0 recent window and sinks, T1 older keys and values with their
        index, T2 keyframes, T3 text."""
        stats = self.memory.stats
        return {
            "T0": stats.sink_bytes + stats.recent_bytes,
            "T1": stats.older_bytes + stats.index_bytes,
            "T2": self.archive.num_bytes,
            "T3": self.log.num_bytes,
        }

    def budget_by_tier(self) -> dict[str, int]:
        """What every tier may hold; the recent window is capped by its frames."""
        return {
            "T1": self.memory.config.budget_bytes,
            "T2": self._archive_bytes,
            "T3": self.config.log_bytes,
        }

    def see(self, frame: Frame, tokens: FrameTokens) -> None:
        """Takes note of a block's last frame and of what the model saw in it: a keyframe, perhaps."""
        if self._writer is not None:
            self._useless = [number for number in self._useless if not self._writer.drop("kv", number)]
        extra = rest_tokens(tokens) if self.config.archive_tokens else None
        self._tell(self.archive.see(frame.rgb_HW3, tokens.span, tokens.mean_D, extra))

    def note(self, text: str, span: Span, kind: str = "narration") -> None:
        """Writes a line of the log."""
        if self.read_only:
            return
        number = self.log.add(span, text, kind)
        self.on_line(Line(number, span, kind, text))
        if self._writer is not None and self._lines_travel:
            record = json.dumps({"start_s": span.start_s, "end_s": span.end_s, "kind": kind, "text": text}).encode()
            self._last_line += 1
            self._writer.submit("line", self._last_line, lambda: record, num_bytes=len(record))

    def is_flush_due(self) -> bool:
        """Whether the flush interval has passed; never, where nothing outlives the process."""
        return (
            self.outlives and not self.read_only and time.monotonic() - self._flushed_at_s >= self.config.flush_every_s
        )

    def flush(self, state: Mapping[str, Any]) -> None:
        """Has the session's state and all that was noted written soon; waits for nothing."""
        self._flushed_at_s = time.monotonic()
        if self._writer is None:
            return
        self._state = {
            "version": _STATE_VERSION,
            # Until this session has blocks of its own, those at rest are the other model's.
            "model": self._state.get("model", self._model_name) if self._useless else self._model_name,
            "wall_s": time.time(),
            **state,
        }
        data = json.dumps(self._state).encode()
        self._writer.submit("state", _STATE, lambda: data, num_bytes=len(data))
        self.log.flush()
        if self._lines_travel and self._writer.num_bytes("line") > self.config.log_bytes * 7 // 8:
            self._let_lines_go()

    def settle(self, wait_s: float) -> bool:
        """Waits until all that was noted is at rest; whether it is, in that time."""
        self.log.flush()
        return self._writer is None or self._writer.flush(wait_s)

    @property
    def seen(self) -> Known:
        """What sessions before this one have seen here."""
        from_s, until_s = self._state.get("seen_from_s"), self._state.get("seen_until_s")
        known_s = [block.span.end_s for block in self.memory.recent[-1:]] + ([] if until_s is None else [until_s])
        newest = self.archive.nearest(_LATE_S)
        known_s += [] if newest is None else [newest.span.end_s]
        newest_s, wall_s = max(known_s, default=None), self._state.get("wall_until_s")
        if wall_s is not None and until_s is not None and newest_s is not None:
            wall_s += newest_s - until_s
        num_frames = int(self._state.get("num_frames", 0))
        return Known(newest_s if from_s is None else from_s, newest_s, num_frames, wall_s)

    def refresh(self) -> bool:
        """Where another process writes: takes in what came since; whether anything did. What cannot be read now is
        taken in later, and questions are answered from what is known."""
        if not self.read_only:
            return False
        is_new, was_behind, self.is_behind = False, self.is_behind, False
        try:
            self._state = self._read_state() or self._state
            is_new = self._follow_blocks()
            is_new |= self.archive.restore().num_keyframes > 0
            self._follow_lines()
        except DepotError as error:
            self.is_behind = True
            if not was_behind:
                _log.warning("%s; questions are answered from what is known here", redact(str(error)))
        return is_new

    def close(self) -> None:
        """Writes what waits, as far as that goes in two seconds, and lets go. Idempotent."""
        with ExitStack() as closing:
            for part in ("_depot", "log", "_writer"):  # the last one first
                held = getattr(self, part, None)
                if held is not None:
                    closing.callback(held.close)
            if not self.is_closed and getattr(self, "_writer", None) is not None and hasattr(self, "archive"):
                self._tell(self.archive.close())
            self.is_closed = True

    @property
    def _lines_travel(self) -> bool:
        """Whether lines are records too, because the log is not a file there."""
        return self.outlives and not isinstance(self._depot, DirectoryDepot)

    def _made_log(self, at: str | Path | None) -> EventLog:
        """A directory holds the log as a file; over Redis its lines travel as records, and this is in RAM."""
        path = Path(at) / "log.sqlite" if isinstance(self._depot, DirectoryDepot) and at is not None else None
        if path is not None and self.read_only:
            return LogReader(path, budget_bytes=self.config.log_bytes)
        # Of a disk that fails, the depot's writer warns.
        return EventLog(path, budget_bytes=self.config.log_bytes, warns=False)

    @property
    def _segment_bytes(self) -> int:
        """Files so small that several fill the archive: it shrinks by whole files."""
        return max(64 * 2**10, min(32 * 2**20, (self.config.archive_bytes or _ARCHIVE_BYTES) // 8))

    @property
    def _archive_bytes(self) -> int:
        given = self.config.archive_bytes
        return (_ARCHIVE_BYTES if self.outlives else _ARCHIVE_BYTES_IN_RAM) if given is None else given

    def _made_archive(self) -> Archive:
        if not self._archive_bytes:
            return NoArchive()
        return Archive(
            self._depot if self._writer is None else self._writer,
            budget_bytes=self._archive_bytes,
            jpeg_quality=self.config.jpeg_quality,
            # Vectors of another model are of another space.
            vectors=self._fingerprint[:32],
        )

    def _tell(self, seen: Seen) -> None:
        """Every event has a line, and one more when its last picture goes."""
        if seen.closed is not None:
            self.note(f"scene of {seen.closed.num_blocks} frames", seen.closed.span, kind="event")
        for event in seen.gone:
            self.note("pictures let go", event.span, kind="event")

    def _restore(self) -> None:
        """Takes back what a session before this one kept; what cannot be used is said once."""
        for fault in (*self._depot.faults, *self.log.faults):
            self._notice(fault)
        self.archive.restore()
        self._follow_lines()
        self._follow_blocks()

    def _follow_blocks(self) -> bool:
        """Takes in blocks at rest that are not here, and lets go those that are at rest no more."""
        # A writer has them in its own form by now; all that follows them is read again too, so order is kept.
        again, self._packed_here = self._packed_here, set()
        known = set(self.memory.older) - again
        before = [block.id for block in self.memory.recent]
        found = read_blocks(self._depot, self._fingerprint, known)
        if found.ids:
            skip_block_ids(max(found.ids))
        self._useless = [*found.foreign, *found.damaged]
        if found.foreign:
            self._notice(
                f"the keys and values in {self._where} were written by another model "
                f"({self._state.get('model', 'unknown')}); {self._model_name} uses its pictures and text, and not them"
            )
        if found.damaged:
            self._notice(f"{len(found.damaged)} blocks in {self._where} are damaged; they are left out")
        if self.read_only:
            exact = sorted((b.block.span, b.block.id) for b in found.blocks if isinstance(b.block, KVBlock))
            self._packed_here = {block_id for _, block_id in exact[: -self.memory.config.recent_frames]}
        gone = (known - found.ids) | again
        try:
            self.memory.restore(found.blocks, gone)
        except ValueError as error:
            self._notice(f"the keys and values in {self._where} are not used: {error}")
            self._useless += [at_rest.block.id for at_rest in found.blocks]
            return False
        return bool(gone or known | again != set(self.memory.older) or before != [b.id for b in self.memory.recent])

    def _follow_lines(self) -> None:
        """Lines that came as records, into the log that is searched."""
        if not self._lines_travel:
            return
        for number in self._depot.numbers("line"):
            if number <= self._last_line:
                continue
            self._first_line = number if self._last_line < 0 else self._first_line
            data = self._depot.get("line", number)
            try:
                given = json.loads(data or b"")
                span = Span(float(given["start_s"]), float(given["end_s"]))
                self.log.add(span, str(given["text"]), str(given["kind"]))
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                _log.debug("line %d: %s", number, error)
            self._last_line = number

    def _let_lines_go(self) -> None:
        """The oldest quarter of the lines that are records."""
        assert self._writer is not None
        until = self._first_line + min(_MAX_LINES_LET_GO, (self._last_line - self._first_line) // 4 + 1)
        while self._first_line < until and self._writer.drop("line", self._first_line):
            self._first_line += 1

    def _read_state(self) -> dict[str, Any]:
        """What the last flush wrote; empty where there is none or it makes no sense."""
        data = self._depot.get("state", _STATE)
        if data is None:
            return {}
        try:
            state = json.loads(data) if len(data) <= _MAX_STATE_BYTES else None
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict) or state.get("version") != _STATE_VERSION or not _are_times(state):
            self._notice(f"the session's state in {self._where} is damaged or of another version; it begins anew")
            return {}
        return state

    def _notice(self, sentence: str) -> None:
        if sentence not in self.notices:
            self.notices = (*self.notices, sentence)[-_MAX_NOTICES:]
            _log.warning("%s", sentence)


def _nobody(line: Line) -> None:
    """Who hears of lines where nobody asked to."""


def _are_times(state: Mapping[str, Any]) -> bool:
    def fits(value: Any) -> bool:
        return value is None or (isinstance(value, int | float) and math.isfinite(value))

    names = ("seen_from_s", "seen_until_s", "num_frames", "wall_until_s")
    return all(fits(state.get(name)) for name in names) and isinstance(state.get("model"), str)
