"""The service: streams behind an HTTP API, a page and alerts. Needs the extra: pip install 'millpond[serve]'.

Names are imported when they are first used: importing this needs none of it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import make_app
    from .config_file import ServeConfig, read_config
    from .serving import serve
    from .streams import Streams

__all__ = ["ServeConfig", "Streams", "make_app", "read_config", "serve"]

_HOME_OF = {
    "ServeConfig": "config_file",
    "Streams": "streams",
    "make_app": "app",
    "read_config": "config_file",
    "serve": "serving",
}

_EXTRA = ("fastapi", "prometheus_client", "pydantic", "pydantic_core", "starlette", "structlog", "uvicorn")


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = _import_module(f".{_HOME_OF[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        raise ImportError(f"the server needs {error.name}; pip install 'millpond[serve]'") from error
    found: object = getattr(home, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
