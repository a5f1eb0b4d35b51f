"""Everything put together: an engine, its sessions, their answers. The front door."""

from .answer import Answer, Narration, Timing
from .config import EngineConfig, HistoryConfig, NarrationConfig
from .engine import Engine
from .prompts import Prompts
from .question import Question
from .session import Session

__all__ = [
    "Answer",
    "Engine",
    "EngineConfig",
    "HistoryConfig",
    "Narration",
    "NarrationConfig",
    "Prompts",
    "Question",
    "Session",
    "Timing",
]
