"""Selector: which frames of a recording a question or a summary needs. The contract, and the list of what there is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar

import numpy as np

from ...stream.table import Table
from ..sight import Need, missing_needs

# Shapes: H rows and W columns of pixels, 3 colours, D channels of a vector, N candidates.

MAX_SIDE_PX = 96
"""The longer side of a candidate's thumbnail, at most."""

_LEAST_SCALE = 1e-2  # similarities are cosines or like them: where all are near 0, this is what they are rounded to


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A frame that may be chosen, as small as it is remembered. Made by the first pass over a recording, read by
    selectors, written by nobody.

    index: number of the frame in its source.
    pts_s: its time in seconds.
    picture_HW3: uint8, the whole frame, at most MAX_SIDE_PX on its longer side.
    vector_D: float32 of length 1, what a Similarity compares with words; None where no method asked for it.
    """

    index: int
    pts_s: float
    picture_HW3: np.ndarray
    vector_D: np.ndarray | None = None

    def __post_init__(self) -> None:
        picture = self.picture_HW3
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
            raise ValueError(f"a thumbnail must be uint8 (rows, columns, 3); got {picture.dtype} {picture.shape}")
        if max(picture.shape[:2]) > MAX_SIDE_PX:
            raise ValueError(
                f"a thumbnail is at most {MAX_SIDE_PX} pixels long; got {picture.shape[1]}x{picture.shape[0]}"
            )
        if not math.isfinite(self.pts_s):
            raise ValueError(f"a candidate needs a finite time in seconds; got pts_s={self.pts_s}")
        if self.vector_D is not None and (self.vector_D.ndim != 1 or not np.isfinite(self.vector_D).all()):
            raise ValueError(
                f"the vector of the frame at {self.pts_s:.3f} s must be one row of finite numbers; "
                f"got shape {self.vector_D.shape}"
            )

    def __repr__(self) -> str:
        return f"Candidate({self.index} at {self.pts_s:.3f} s)"


@dataclass(frozen=True, slots=True)
class Card:
    """Chosen frames that are shown small, in one picture, in the order of reading. Made by selectors, read by
    `compose_card`.

    indices: into the candidates, in order of time.
    rows, columns: of the picture; what is left over at its end stays black.
    """

    indices: tuple[int, ...]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.indices) <= self.rows * self.columns or min(self.rows, self.columns) < 1:
            raise ValueError(
                f"a card needs a place for each frame and a frame at least; got {len(self.indices)} frames, "
                f"{self.rows} rows and {self.columns} columns"
            )
        _check_order("a card's frames", self.indices)

    @property
    def words(self) -> str:
        """What a prompt says of the picture, for a model that has not seen its like."""
        return (
            f"One picture shows {len(self.indices)} frames of the video in {self.rows} rows and {self.columns} columns,"
            " in order of time, from left to right and from top to bottom."
        )

    @classmethod
    def of(cls, indices: Sequence[int]) -> Card:
        """As near to a square of frames as there can be, wide rather than tall: 6 in 2 rows and 3 columns."""
        rows = max(1, round(math.sqrt(len(indices))))
        return cls(tuple(indices), rows, math.ceil(len(indices) / rows))


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector chose. Made by selectors, read by whoever fetches the frames.

    indices: into the candidates, in order of time: all frames that are shown, in whatever way.
    cards: those of them that are shown small, together; the others are shown each on its own.
    """

    indices: tuple[int, ...]
    cards: tuple[Card, ...] = ()

    def __post_init__(self) -> None:
        if not self.indices:
            raise ValueError("a selection needs at least one frame; got none")
        _check_order("a selection's frames", self.indices)
        on_cards = list(chain.from_iterable(card.indices for card in self.cards))
        if len(set(on_cards)) < len(on_cards) or not set(on_cards) <= set(self.indices):
            raise ValueError(f"a card shows chosen frames, and a frame is on one card; got {on_cards[:20]}")

    @property
    def alone(self) -> tuple[int, ...]:
        """The frames that are shown each on its own."""
        on_cards = set(chain.from_iterable(card.indices for card in self.cards))
        return tuple(i for i in self.indices if i not in on_cards)

    @property
    def num_pictures(self) -> int:
        """How many pictures a model reads."""
        return len(self.alone) + len(self.cards)

    def __repr__(self) -> str:
        return f"Selection({len(self.indices)} frames, {len(self.cards)} cards)"


class Selector(ABC):
    """A frozen recipe that chooses frames of a recording.

    Promises, checked for every row of SELECTORS: at most `num_frames` are chosen, all where there are no more;
    they are in order and none twice; what cannot be told apart is spread over time; the same candidates give the
    same frames; candidates are not written; what a method needs and is not given is refused with a sentence.

    needs: Need.TEXT where it looks at how near each frame is to a question.
    is_offline: whether it has to see all of the recording before it chooses.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    is_offline: ClassVar[bool] = True

    def select(
        self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray | None = None
    ) -> Selection:
        """Chooses at most `num_frames` of the candidates, which come in order of time.

        similarity_N: how near each candidate is to the question, larger is nearer; None where there is no question.
        """
        if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
            raise ValueError(f"num_frames must be a whole number, at least 1; got {num_frames!r}")
        if not candidates:
            raise ValueError("a selection needs at least one frame to choose from; got none")
        if any(after.pts_s < before.pts_s for before, after in pairwise(candidates)):
            raise ValueError(f"candidates must come in order of time; got {list(candidates)[:8]}")
        if Need.TEXT in self.needs and similarity_N is None:
            missing_needs(type(self).__name__, {Need.TEXT}, (), "this call")
        scores_N = _checked(similarity_N, len(candidates))
        if len(candidates) <= num_frames:
            chosen: Sequence[int] = range(len(candidates))
        else:
            chosen = sorted(int(i) for i in self._choose(candidates, num_frames, scores_N))
        return Selection(tuple(chosen), self._cards(chosen))

    @abstractmethod
    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        """`num_frames` of the candidates, of which there are more; similarity_N is all 0 without a question."""

    def _cards(self, chosen: Sequence[int]) -> tuple[Card, ...]:
        return ()


SELECTORS: Table[Selector] = Table(
    "selector",
    __package__ or "",
    {
        "change": "change:ChangeSelector",
        "grid": "card:GridSelector",
        "keyframes": "keyframes:KeyframeSelector",
        "text": "text:TextSelector",
        "thumbnails": "card:ThumbnailSelector",
        "uniform": "uniform:UniformSelector",
    },
)


def _checked(similarity_N: np.ndarray | None, num: int) -> np.ndarray:
    """A copy as float64, in which what differs by rounding only is the same."""
    if similarity_N is None:
        return np.zeros(num)
    scores_N = np.array(similarity_N, dtype=np.float64)
    if scores_N.shape != (num,) or not np.isfinite(scores_N).all():
        raise ValueError(
            f"similarity must be one finite number for each of {num} candidates; got {scores_N.shape}, "
            f"{int((~np.isfinite(scores_N)).sum())} of them not finite"
        )
    scale = max(float(np.abs(scores_N).max()), _LEAST_SCALE)
    return np.round(scores_N / scale, 6) * scale


def _check_order(what: str, indices: Sequence[int]) -> None:
    if indices[0] < 0 or any(after <= before for before, after in pairwise(indices)):
        raise ValueError(f"{what} must be in order and none twice; got {list(indices)[:20]}")
