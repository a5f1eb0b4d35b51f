"""What the command line prints: results to stdout, for people or for programs; progress to stderr."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from typing import Any

from ..memory.event_log import Line
from .answer import Answer, Narration
from .bars import TerminalBars
from .history import Kept


def complain(words: object) -> None:
    """One line on stderr, from the program and not of the result."""
    print(f"millpond: {words}", file=sys.stderr)


def answer_record(answer: Answer) -> dict[str, Any]:
    """An answer as `ask --json` prints it."""
    return {
        "question": answer.question,
        "text": answer.text,
        "asked_at_s": round(answer.asked_at_s, 6),
        "seen_until_s": round(answer.seen_until_s, 6),
        "used": [[round(s.start_s, 6), round(s.end_s, 6)] for s in answer.used],
        "timing": asdict(answer.timing),
        "tokens": answer.num_tokens,
    }


def narration_record(narration: Narration) -> dict[str, Any]:
    """A narration as `narrate --json` prints it: what an answer has, and its own stretch of time."""
    times = {"start_s": round(narration.span.start_s, 6), "end_s": round(narration.span.end_s, 6)}
    return {**times, **answer_record(narration.answer), "text": narration.text}


def clock(time_s: float) -> str:
    """Stream time for people: 75.5 -> "1:15.5", 3675 -> "1:01:15.0"."""
    tenths = round(max(0.0, time_s) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def answer_text(answer: Answer, name: str = "") -> str:
    """An answer for people, after the name of its stream."""
    used = ", ".join(f"{clock(s.start_s)} - {clock(s.end_s)}" for s in answer.used)
    return (
        f"[{name}{clock(answer.asked_at_s)}] {answer.question}\n"
        f"    {answer.text or '(no answer)'}\n"
        f"    seen until {clock(answer.seen_until_s)}, read {used}; "
        f"{answer.num_tokens} tokens in {answer.timing.total_s:.2f} s"
    )


def narration_text(narration: Narration, name: str = "") -> str:
    """A narration for people, after the name of its stream."""
    span = narration.span
    return f"[{name}{clock(span.start_s)} - {clock(span.end_s)}] {narration.text}"


class Printer(TerminalBars):
    """Prints results as they come, and a progress bar on stderr where that is a terminal.

    The bar is taken off for each result, so that results read the same whether or not both go to one terminal.
    """

    def __init__(self, *, as_json: bool, duration_s: float | None, label: str) -> None:
        self._as_json = as_json
        super().__init__()
        if self._bars is not None:
            self._task = self._bars.add_task(label, total=duration_s, at="")

    def progress(self, pts_s: float) -> None:
        if self._bars is not None:
            self._bars.update(self._task, completed=pts_s, at=clock(pts_s))

    def narration(self, narration: Narration) -> None:
        self.result(narration_record(narration), narration_text(narration))

    def answer(self, answer: Answer) -> None:
        self.result(answer_record(answer), answer_text(answer))

    def line(self, line: Line) -> None:
        """What was said of a stretch of time."""
        record = {"start_s": line.span.start_s, "end_s": line.span.end_s, "kind": line.kind, "text": line.text}
        self.result(record, f"[{clock(line.span.start_s)} - {clock(line.span.end_s)}] {line.text}")

    def kept(self, kept: Kept) -> None:
        """What a session keeps."""
        when = "nothing was seen yet"
        if kept.seen.from_s is not None and kept.seen.until_s is not None:
            when = f"seen from {clock(kept.seen.from_s)} to {clock(kept.seen.until_s)}"
        sizes = ", ".join(f"{tier} {num_bytes / 2**20:.1f} MiB" for tier, num_bytes in kept.bytes_by_tier.items())
        self.result(
            asdict(kept),
            f"{when}: {kept.num_blocks} blocks of keys and values, {kept.num_keyframes} keyframes, {kept.num_lines} "
            f"lines\n    {sizes}" + "".join(f"\n    {notice}" for notice in kept.notices),
        )

    def result(self, record: dict[str, Any], text: str) -> None:
        """One result, in whichever form was asked for."""
        if self._bars is not None:
            self._bars.stop()
        print(json.dumps(record, ensure_ascii=False) if self._as_json else text, flush=True)
        if self._bars is not None:
            self._bars.start()


class StreamPrinter:
    """Prints what comes of many streams, each result with its stream's name. Any thread may call it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._lock = threading.Lock()

    def narration(self, stream_id: str, narration: Narration) -> None:
        record = {"stream": stream_id, "kind": "narration", **narration_record(narration)}
        self.result(record, narration_text(narration, f"{stream_id} "))

    def answer(self, stream_id: str, answer: Answer) -> None:
        record = {"stream": stream_id, "kind": "answer", **answer_record(answer)}
        self.result(record, answer_text(answer, f"{stream_id} "))

    def ended(self, stream_id: str, problem: str | None) -> None:
        text = f"[{stream_id}] ended" + (f": {problem}" if problem else "")
        self.result({"stream": stream_id, "kind": "ended", "problem": problem}, text)

    def result(self, record: dict[str, Any], text: str) -> None:
        """One result, in whichever form was asked for; where that is for people, none without words."""
        with self._lock:
            if self._as_json or text:
                print(json.dumps(record, ensure_ascii=False) if self._as_json else text, flush=True)
