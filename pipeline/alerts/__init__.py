"""Alerts: rules in plain words on streams, checked twice before they fire, told to a webhook that can trust them.

Names are imported when they are first used: a program that only reads rules needs no HTTP client.
"""

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names as _lazy_names

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

__getattr__, __dir__ = _lazy_names(
    __name__,
    {
        "alert": ("Alert",),
        "courier": ("Courier",),
        "dead_letter": ("DeadLetters",),
        "desk": ("AlertDesk",),
        "reading": ("read_rules",),
        "rule": ("AlertRule",),
        "secret": ("Secret",),
        "service": ("Alerts", "NoRule"),
        "signing": ("verify_signature",),
        "watcher": ("Watcher",),
    },
)
