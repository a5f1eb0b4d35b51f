"""The program `millpond`: what is to be set before torch is loaded, and then the command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; see `cli.main`."""
    if sys.argv[1:2] == ["serve"]:
        # libgomp reads this when torch is loaded. Its threads spin for milliseconds, until there is more to do, on a
        # core that the thread which speaks to clients may need: on two cores that doubles p95 of an answer's way to its
        # client. A tenth of it still spans the gaps between one operation and the next; with none, answers are slower.
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from .cli import main as run

    run()
