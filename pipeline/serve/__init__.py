"""The service: streams behind an HTTP API, a page and alerts. Needs the extra: pip install 'millpond[serve]'.

Names are imported when they are first used: importing this needs none of it.
"""

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .app import make_app
    from .config_file import ServeConfig, read_config
    from .serving import serve
    from .streams import Streams

__all__ = ["ServeConfig", "Streams", "make_app", "read_config", "serve"]

__getattr__, __dir__ = _lazy_names(
    __name__,
    {
        "app": ("make_app",),
        "config_file": ("ServeConfig", "read_config"),
        "serving": ("serve",),
        "streams": ("Streams",),
    },
    "serve",
    ("fastapi", "prometheus_client", "pydantic", "pydantic_core", "starlette", "structlog", "uvicorn"),
)
