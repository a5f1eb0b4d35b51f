"""Markdown of what others wrote: nothing of it becomes a heading, a link, a cell or a tag."""

from __future__ import annotations

import html
import string
from collections.abc import Iterable, Sequence

# Of ASCII's signs, those that mean nothing within a line.
_PLAIN = frozenset(string.ascii_letters + string.digits + " -.,;/()=+%'")


def plain(text: str) -> str:
    """The text as words, whatever signs are in it."""
    return "".join(
        f"&#{ord(char)};" if char.isascii() and char not in _PLAIN else char for char in _printable(text.strip())
    )


def code(text: str) -> str:
    """The text as a name, in a sentence or in a table's cell."""
    return f"<code>{plain(text)}</code>"


def block(lines: Iterable[str]) -> list[str]:
    """The texts as lines of a block of code."""
    shown = [_printable(text) for text in lines]
    fence = "```"
    while any(fence in text for text in shown):
        fence += "`"
    return [fence, *shown, fence]


def tag_text(text: str) -> str:
    """The text within a tag of XML."""
    return html.escape(_printable(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Cells are markdown already. The first column stands left, the others right."""
    return [
        f"| {' | '.join(head)} |",
        "|---|" + "---:|" * (len(head) - 1),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def figure(value: float) -> str:
    """Three digits of it or so, and no more zeros than it needs: 1234, 123, 12.3, 1.23, 0.0123."""
    for least, digits in ((100.0, 0), (10.0, 1), (1.0, 2), (0.1, 3)):
        if value >= least:
            return f"{value:.{digits}f}"
    return f"{value:.2g}"


def several(parts: Sequence[str]) -> str:
    """One, two and three."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else f"\\u{{{ord(char):x}}}" for char in text)
