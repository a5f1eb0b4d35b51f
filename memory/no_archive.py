"""NoArchive: no pictures are kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ..stream import Span
from .archive import Archive, Restored, Seen
from .keyframe import Keyframe
from .picture_index import Found

# Shapes: H rows of pixels, W columns, 3 colours, D channels of a picture's vector.


class NoArchive(Archive):
    """An archive that takes pictures and keeps none: what `archive_bytes = 0` stands for."""

    def __init__(self) -> None:
        """Needs no store."""

    @property
    def num_keyframes(self) -> int:
        return 0

    @property
    def num_bytes(self) -> int:
        return 0

    @property
    def index_bytes(self) -> int:
        return 0

    @property
    def num_lost(self) -> int:
        return 0

    def see(
        self, picture_HW3: np.ndarray, span: Span, vector_D: Tensor, extra: Mapping[str, Tensor] | None = None
    ) -> Seen:
        return Seen(None, None, ())

    def close(self) -> Seen:
        return Seen(None, None, ())

    def find(self, query_D: Tensor, num_keyframes: int, span: Span | None = None) -> list[Found]:
        return []

    def between(self, span: Span) -> list[Found]:
        return []

    def nearest(self, time_s: float) -> Found | None:
        return None

    def get(self, number: int) -> Keyframe | None:
        return None

    def jpeg(self, number: int) -> bytes | None:
        return None

    def restore(self, num_channels: int | None = None) -> Restored:
        return Restored(0, 0)

    def check(self) -> None:
        """There is nothing to be off."""

    def __repr__(self) -> str:
        return "NoArchive()"
