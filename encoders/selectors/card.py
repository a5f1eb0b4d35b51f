"""Picture cards: several frames, shown small, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...stream import Frame
from .base import Candidate, Card, Selector
from .uniform import spread

# Shapes: N candidates, 3 colours, H rows and W columns of pixels, K chosen frames.

_MAX_CELLS = 36


@dataclass(frozen=True)
class GridSelector(Selector):
    """Frames at equal steps, all of them on cards: a model that reads images reads a stretch of video as one.

    Paper: An Image Grid Can Be Worth a Video: Zero-shot Video Question Answering Using a VLM (arXiv 2403.18406)
    Differs from the paper: as many cards as it takes for all frames, equally full, where the paper has one card of
        six frames; frames are shrunk so that a card is no larger than a frame.
    cells: frames on a card at most, 2 to 36.
    """

    cells: int = 6

    def __post_init__(self) -> None:
        _check_cells(self.cells)

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        return spread(len(candidates), num_frames).tolist()

    def _cards(self, chosen: Sequence[int]) -> tuple[Card, ...]:
        num_cards = -(-len(chosen) // self.cells)
        return tuple(Card.of(part.tolist()) for part in np.array_split(np.array(chosen), num_cards))


@dataclass(frozen=True)
class ThumbnailSelector(Selector):
    """Frames at equal steps, a few of them, from the first to the last, together on one card; the rest stay sharp.

    The card has the time of the last frame, and so is read after all others.

    Paper: TS-LLaVA: Constructing Visual Tokens through Thumbnail-and-Sampling [...] (arXiv 2411.11066)
    Differs from the paper: the frames beside the thumbnail are read whole, where the paper takes every few tokens of
        them, and those on the thumbnail are not read a second time; the thumbnail has at most half of the frames.
    cells: frames on the card, 2 to 36; half of the frames where there are fewer than twice as many.
    """

    cells: int = 6

    def __post_init__(self) -> None:
        _check_cells(self.cells)

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        return spread(len(candidates), num_frames).tolist()

    def _cards(self, chosen: Sequence[int]) -> tuple[Card, ...]:
        num_cells = min(self.cells, len(chosen) // 2)
        if num_cells < 2:
            return ()
        places = (np.arange(num_cells) * (len(chosen) - 1) // (num_cells - 1)).tolist()
        return (Card.of([chosen[place] for place in places]),)


def compose_card(frames: Sequence[Frame], card: Card) -> Frame:
    """The card's frames in one picture, no larger than the first of them (but a pixel for each cell at least); its time
    is that of the last.

    frames: the card's, in order of time. Each keeps its shape; where it does not fill its cell there is black.
    """
    if len(frames) != len(card.indices):
        raise ValueError(f"the card has {len(card.indices)} frames; got {len(frames)}")
    shrink = max(card.rows, card.columns)
    height, width = max(1, frames[0].height // shrink), max(1, frames[0].width // shrink)
    picture = Image.new("RGB", (card.columns * width, card.rows * height))
    for place, frame in enumerate(frames):
        row, column = divmod(place, card.columns)
        small = _fitted(frame, height, width)
        left, top = (width - small.width) // 2, (height - small.height) // 2
        picture.paste(small, (column * width + left, row * height + top))
    last = frames[-1]
    return Frame(np.asarray(picture), last.pts_s, last.stream_id, last.index, last.wall_s)


def _fitted(frame: Frame, height: int, width: int) -> Image.Image:
    scale = min(height / frame.height, width / frame.width)
    # A pixel of rounding must not leave a line of black.
    rows = height if abs(frame.height * scale - height) < 1 else max(1, round(frame.height * scale))
    columns = width if abs(frame.width * scale - width) < 1 else max(1, round(frame.width * scale))
    return Image.fromarray(frame.rgb_HW3).resize((columns, rows), Image.Resampling.BICUBIC)


def _check_cells(cells: int) -> None:
    if not 2 <= cells <= _MAX_CELLS:
        raise ValueError(f"a card has 2 to {_MAX_CELLS} cells; got {cells}")
