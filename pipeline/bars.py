"""TerminalBars: progress bars on stderr, and nothing where that is no terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


class TerminalBars:
    """Bars with a word beside each, `at`; between `with` and its end they show.

    shows_left: whether the time that is left is told too.
    """

    def __init__(self, *, shows_left: bool = False) -> None:
        self._bars: Any = None  # None: no terminal, and nothing to do
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[at]}", markup=False),
                TimeElapsedColumn(),
                *([TimeRemainingColumn()] if shows_left else []),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
