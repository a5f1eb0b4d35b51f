"""Everything put together: an engine, its sessions, their answers. The front door."""

from .answer import Answer, Narration, Timing
from .config import EngineConfig, NarrationConfig
from .engine import Engine
from .prompts import Prompts
from .session import Question, Session

__all__ = [
    "Answer",
    "Engine",
    "EngineConfig",
    "Narration",
    "NarrationConfig",
    "Prompts",
    "Question",
    "Session",
    "Timing",
]
