"""Everything put together: an engine, its sessions, their answers. The front door.

Names are imported when they are first used: a process that only reads a source needs no torch.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answer import Answer, Narration, Timing
    from .config import EngineConfig, HistoryConfig, NarrationConfig
    from .engine import Engine
    from .feeds import Feed, SourceFeed
    from .hub import Hub
    from .hub_events import Ended, HubStopped, Narrated
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

_HOMES = {
    "answer": ("Answer", "Narration", "Timing"),
    "config": ("EngineConfig", "HistoryConfig", "NarrationConfig"),
    "engine": ("Engine",),
    "feeds": ("Feed", "SourceFeed"),
    "hub": ("Hub",),
    "hub_events": ("Ended", "HubStopped", "Narrated"),
    "prompts": ("Prompts",),
    "question": ("Question",),
    "session": ("Session",),
    "stream_spec": ("StreamSpec",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(_import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
