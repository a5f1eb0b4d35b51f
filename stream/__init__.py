"""Pictures in: frames and their times, from files, folders, cameras and synthetic worlds. No models."""

if not __name__.startswith("millpond."):
    raise ImportError(
        f"this package is millpond.stream, not {__name__!r}; run `pip install -e .` and import millpond.stream"
    )

from .buffer import FrameBuffer
from .change import ChangeDetector, ChangeMap, ChangeRule
from .frame import Frame, Span, time_words
from .gates import GATES, DifferenceGate, Gate, GateRun, NoGate, Verdict
from .motion import MotionField
from .redact import redact, redact_uri
from .sampling import SAMPLERS, EveryFrame, RateSampler, Sampler, SamplerRun, StrideSampler
from .source import SOURCES, Source, SourceError, SourceLost, open_source
from .stats import SourceStats
from .table import Table

__all__ = [
    "GATES",
    "SAMPLERS",
    "SOURCES",
    "ChangeDetector",
    "ChangeMap",
    "ChangeRule",
    "DifferenceGate",
    "EveryFrame",
    "Frame",
    "FrameBuffer",
    "Gate",
    "GateRun",
    "MotionField",
    "NoGate",
    "RateSampler",
    "Sampler",
    "SamplerRun",
    "Source",
    "SourceError",
    "SourceLost",
    "SourceStats",
    "Span",
    "StrideSampler",
    "Table",
    "Verdict",
    "open_source",
    "redact",
    "redact_uri",
    "time_words",
]
