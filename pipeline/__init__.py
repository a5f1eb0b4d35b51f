"""Everything put together: an engine, its sessions, their answers. The front door.

Names are imported when they are first used: a process that only reads a source needs no torch.
"""

from typing import TYPE_CHECKING

from .lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .answer import Answer, Narration, Timing
    from .config import EngineConfig, HistoryConfig, NarrationConfig
    from .engine import Engine
    from .feeds import Feed, SourceFeed
    from .hub import Hub
    from .hub_events import Ended, HubStopped, Narrated
    from .prompts import Prompts
    from .question import Question
    from .robot import Camera, Perception, RobotFeed
    from .session import Session
    from .stream_spec import StreamSpec

__all__ = [
    "Answer",
    "Camera",
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
    "Perception",
    "Prompts",
    "Question",
    "RobotFeed",
    "Session",
    "SourceFeed",
    "StreamSpec",
    "Timing",
]

__getattr__, __dir__ = _lazy_names(
    __name__,
    {
        "answer": ("Answer", "Narration", "Timing"),
        "config": ("EngineConfig", "HistoryConfig", "NarrationConfig"),
        "engine": ("Engine",),
        "feeds": ("Feed", "SourceFeed"),
        "hub": ("Hub",),
        "hub_events": ("Ended", "HubStopped", "Narrated"),
        "prompts": ("Prompts",),
        "question": ("Question",),
        "robot": ("Camera", "Perception", "RobotFeed"),
        "session": ("Session",),
        "stream_spec": ("StreamSpec",),
    },
)
