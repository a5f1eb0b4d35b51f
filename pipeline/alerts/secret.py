"""Secret: words that are used and never shown."""

from __future__ import annotations

import hmac
from typing import NoReturn

MIN_BYTES = 16


class Secret:
    """What a webhook's signature is made with. No repr, error, comparison or serialised form gives it away.

    At least 16 bytes: who sees a signed message can try shorter ones until one fits.
    """

    __slots__ = ("_words",)

    def __init__(self, words: str) -> None:
        if not isinstance(words, str) or len(words.strip().encode()) < MIN_BYTES:
            raise ValueError(f"a secret has {MIN_BYTES} bytes or more; make one with: openssl rand -hex 32")
        self._words = words.strip()

    def reveal(self) -> bytes:
        """The secret itself, for whoever signs."""
        return self._words.encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.reveal(), other.reveal())

    def __hash__(self) -> int:
        return hash(Secret)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere; give the other process its own")
