"""Alerts: rules in plain words on streams, checked twice before they fire, told to a webhook that can trust them.

Names are imported when they are first used: a program that only reads rules needs no HTTP client.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .alert import Alert
    from .courier import Courier
    from .dead_letter import DeadLetters
    from .desk import AlertDesk
    from .reading import read_rules
    from .rule import AlertRule
    from .secret import Secret
    from .service import Alerts, NoRule
    from .signing import verify_signature
    from .watcher import Watcher

__all__ = [
    "Alert",
    "AlertDesk",
    "AlertRule",
    "Alerts",
    "Courier",
    "DeadLetters",
    "NoRule",
    "Secret",
    "Watcher",
    "read_rules",
    "verify_signature",
]

_HOME_OF = {
    "Alert": "alert",
    "AlertDesk": "desk",
    "AlertRule": "rule",
    "Alerts": "service",
    "Courier": "courier",
    "DeadLetters": "dead_letter",
    "NoRule": "service",
    "Secret": "secret",
    "Watcher": "watcher",
    "read_rules": "reading",
    "verify_signature": "signing",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(_import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
