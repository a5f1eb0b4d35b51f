"""Batches: folders of recordings become chapters, summaries, logs and captions, over processes or machines."""

from .progress import Advanced, Bars, Ended, Event, Looked, Planned
from .run import Report, run_batch
from .settings import BatchSettings

__all__ = [
    "Advanced",
    "Bars",
    "BatchSettings",
    "Ended",
    "Event",
    "Looked",
    "Planned",
    "Report",
    "run_batch",
]
