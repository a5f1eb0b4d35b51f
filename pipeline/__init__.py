"""Everything put together: an engine, its sessions, their answers. The front door."""

from .answer import Answer, Narration, Timing
from .config import EngineConfig, HistoryConfig, NarrationConfig
from .engine import Engine
from .feeds import Feed, SourceFeed
from .hub import Hub, HubStopped
from .hub_events import Ended, Narrated
from .prompts import Prompts
from .question import Question
from .session import Session
from .stream_spec import StreamSpec

__all__ = [
    "Answer",
    "Ended",
    "Engine",
    "EngineConfig",
    "Feed",
    "HistoryConfig",
    "Hub",
    "HubStopped",
    "Narrated",
    "Narration",
    "NarrationConfig",
    "Prompts",
    "Question",
    "Session",
    "SourceFeed",
    "StreamSpec",
    "Timing",
]
