"""Questions with known answers about streams: suites of them, asked strictly causally, scored and compared.

Nothing is imported before it is asked for: a suite's table loads only the reader that is named.
"""

from typing import TYPE_CHECKING

from ..lazy_names import lazy_names as _lazy_names

if TYPE_CHECKING:
    from .item import CATEGORIES, FORMS, Item, Said, Scored
    from .suites import SUITES, Suite

__all__ = ["CATEGORIES", "FORMS", "SUITES", "Item", "Said", "Scored", "Suite"]

__getattr__, __dir__ = _lazy_names(
    __name__,
    {
        "item": ("CATEGORIES", "FORMS", "Item", "Said", "Scored"),
        "suites": ("SUITES", "Suite"),
    },
)
