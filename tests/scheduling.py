"""How this thread is scheduled, and that it stays so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def policy() -> int | None:
    """That of this thread; None where there is no asking."""
    return os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None


@contextmanager
def as_scheduled() -> Iterator[None]:
    """Puts back how this thread was scheduled.

    SVT-AV1, as root, makes who opens it a real-time thread, and so all that this one starts from then on: Ray,
    browsers, whole tests. Such processes leave all others a twentieth of the machine, for as long as they are busy.
    """
    before = policy()
    if before is None:
        yield
        return
    param = os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, param)
