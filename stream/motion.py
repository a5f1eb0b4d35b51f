"""Motion as the codec tells it: how far the blocks of pictures moved, and which of them it does not say it of.

What it is good for: where no vector is longer than a pixel and none is missing, the pixels hardly ever changed (of
the patches that changed, 96 to 100 % are elsewhere, on real clips), and that is known before a picture is converted
to RGB. What it is not: a map of what changed. An encoder takes the vector that saves bits, in flat and in dark parts
any, and some code most blocks without one: two to ten times as many patches "moved" or are unknown as changed, and a
lamp that goes on moves nothing. So a change map is made of pixels, and a vector makes it look twice: inside a person
in a dark coat the pixels change little, and the vectors say that it moved (`ChangeRule.moved_px`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import av

# Shapes: H rows and W columns of blocks or patches, N motion vectors.

_RUN_AHEAD = 32  # pictures that may be decoded, and found damaged, before one is shown
_B_PICTURE = 3  # FFmpeg's number for pictures that are predicted from both sides
_BLOCK_PX = 16  # pixels along a side of what the codecs that tell vectors code as one: a macroblock


class PatchMotion(NamedTuple):
    """A motion field on a grid of patches.

    displacement_HW: float32, pixels, the largest of any block that the patch touches.
    is_unknown_HW: bool, whether it touches a block of which the codec does not say.
    """

    displacement_HW: np.ndarray
    is_unknown_HW: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class MotionField:
    """How far blocks moved in the pictures since the frame before. Made by a source, read by change maps, written by
    nobody.

    displacement_HW: float32, pixels, the largest vector of any of the pictures; 0 where all say that nothing moved. A
        vector may reach back over several pictures, or ahead.
    is_unknown_HW: bool, whether a picture has no vector there: it is coded afresh, as a whole or in this block, or was
        lost.
    row_edges, column_edges: pixels, where blocks begin and, last, where the picture ends.
    num_pictures: how many pictures these are, those that a sampler left out counted.
    """

    displacement_HW: np.ndarray
    is_unknown_HW: np.ndarray
    row_edges: np.ndarray
    column_edges: np.ndarray
    num_pictures: int = 1

    def __post_init__(self) -> None:
        shape = (len(self.row_edges) - 1, len(self.column_edges) - 1)
        if self.displacement_HW.shape != shape or self.is_unknown_HW.shape != shape or min(shape) < 1:
            raise ValueError(
                f"a motion field needs one value for each block between its edges, {shape}; got"
                f" {self.displacement_HW.shape} and {self.is_unknown_HW.shape}"
            )
        if self.displacement_HW.dtype != np.float32 or self.is_unknown_HW.dtype != bool:
            raise ValueError(
                f"a motion field holds float32 pixels and bools; got {self.displacement_HW.dtype} and"
                f" {self.is_unknown_HW.dtype}"
            )
        if not (np.isfinite(self.displacement_HW).all() and (self.displacement_HW >= 0).all()):
            raise ValueError(
                f"displacements are finite pixels, 0 or more; got {self.displacement_HW.min()} at the least"
            )
        for edges in (self.row_edges, self.column_edges):
            if edges[0] != 0 or (np.diff(edges) <= 0).any():
                raise ValueError(f"the edges of blocks rise from 0 to the picture's end; got {edges[:3]}...")
        if self.num_pictures < 1:
            raise ValueError(f"a motion field is of one picture or more; got num_pictures={self.num_pictures}")
        for name in ("displacement_HW", "is_unknown_HW", "row_edges", "column_edges"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def height(self) -> int:
        return int(self.row_edges[-1])

    @property
    def width(self) -> int:
        return int(self.column_edges[-1])

    def on_grid(self, grid_hw: tuple[int, int], covered_hw: tuple[float, float] = (1.0, 1.0)) -> PatchMotion:
        """The field on a model's patches, each of which takes the most that any block under it says.

        grid_hw: rows and columns of patches.
        covered_hw: share of the picture's height and width that the patches cover, from its top left.
        """
        rows = _blocks_under(self.row_edges, grid_hw[0], covered_hw[0])
        columns = _blocks_under(self.column_edges, grid_hw[1], covered_hw[1])
        return PatchMotion(
            _most(_most(self.displacement_HW, rows, 0), columns, 1),
            _most(_most(self.is_unknown_HW, rows, 0), columns, 1),
        )

    def turned(self, quarter_turns: int) -> MotionField:
        """The field of the picture turned counter-clockwise."""
        field = self
        for _ in range(quarter_turns % 4):
            field = MotionField(
                np.rot90(field.displacement_HW),
                np.rot90(field.is_unknown_HW),
                field.width - field.column_edges[::-1],
                field.row_edges,
                field.num_pictures,
            )
        return field

    def __repr__(self) -> str:
        rows, columns = self.displacement_HW.shape
        return (
            f"MotionField({rows}x{columns} blocks, {self.displacement_HW.max():.1f} px at most,"
            f" {self.is_unknown_HW.mean():.0%} unknown)"
        )


class MotionGatherer:
    """Gathers the vectors of decoded pictures until somebody takes them. Not thread-safe, one per stream; bounded.

    The decoder must have been told to export them: `ask_for_vectors`.
    """

    def __init__(self) -> None:
        self._size_hw = (0, 0)
        self._quarter_turns = 0
        self._num_pictures = 0
        self._num_told = 0  # of these, how many said anything
        self._num_in_doubt = 0
        self._has_vectors = False
        self._displacement_HW = np.zeros((0, 0), np.float32)
        self._is_unknown_HW = np.zeros((0, 0), bool)

    def add(self, picture: av.VideoFrame) -> None:
        """One more picture of the stream, in order of display."""
        height, width = picture.height, picture.width
        if (height, width) != self._size_hw:
            self._size_hw = (height, width)
            self._clear()
            self._is_unknown_HW[:] = True
        self._num_pictures += 1
        self._quarter_turns = round(picture.rotation / 90) % 4
        vectors = picture.side_data.get("MOTION_VECTORS")
        if vectors is not None:
            self._has_vectors = True
            self._add_vectors(vectors.to_ndarray(), is_b_picture=picture.pict_type == _B_PICTURE)
        if vectors is None or self._num_in_doubt:
            self._is_unknown_HW[:] = True
            self._num_in_doubt = max(0, self._num_in_doubt - 1)

    def add_damage(self) -> None:
        """A picture was lost or is wrong: nothing is believed of those that may be it or may be built on it."""
        self._num_in_doubt = _RUN_AHEAD

    def take(self) -> MotionField | None:
        """What was gathered since the last call, which it forgets; None where the codec has shown no vectors so far."""
        if not (self._has_vectors and self._num_pictures):
            self._clear()
            return None
        height, width = self._size_hw
        if not self._num_told:
            self._is_unknown_HW[:] = True
        field = MotionField(
            self._displacement_HW,
            self._is_unknown_HW,
            np.minimum(np.arange(self._displacement_HW.shape[0] + 1) * _BLOCK_PX, height),
            np.minimum(np.arange(self._displacement_HW.shape[1] + 1) * _BLOCK_PX, width),
            self._num_pictures,
        )
        self._clear()
        return field.turned(self._quarter_turns)

    def _clear(self) -> None:
        rows, columns = -(-self._size_hw[0] // _BLOCK_PX), -(-self._size_hw[1] // _BLOCK_PX)
        self._displacement_HW = np.zeros((rows, columns), np.float32)
        self._is_unknown_HW = np.zeros((rows, columns), bool)
        self._num_pictures = 0
        self._num_told = 0

    def _add_vectors(self, vectors_N: np.ndarray, is_b_picture: bool) -> None:
        """The numbers are a stranger's: blocks outside the picture are left out, no vector is longer than it."""
        # For B-pictures of MPEG-4 FFmpeg gives zeros, whatever moved. The next P-picture's vectors reach back over
        # them and tell of their motion too.
        if is_b_picture and not (vectors_N["motion_x"].any() or vectors_N["motion_y"].any()):
            return
        self._num_told += 1
        rows, columns = self._displacement_HW.shape
        # A vector names its block by the middle. Blocks lie on the grid of macroblocks and never across its lines.
        row_N, column_N = vectors_N["dst_y"] // _BLOCK_PX, vectors_N["dst_x"] // _BLOCK_PX
        is_inside_N = (row_N >= 0) & (row_N < rows) & (column_N >= 0) & (column_N < columns)
        place_N = row_N[is_inside_N].astype(np.int64) * columns + column_N[is_inside_N]
        scale_N = np.maximum(vectors_N["motion_scale"], 1).astype(np.float32)
        length_N = np.hypot(vectors_N["motion_x"] / scale_N, vectors_N["motion_y"] / scale_N)[is_inside_N]
        length_N = np.minimum(length_N, sum(self._size_hw)).astype(np.float32)
        np.maximum.at(self._displacement_HW.reshape(-1), place_N, length_N)
        self._is_unknown_HW |= (np.bincount(place_N, minlength=rows * columns) == 0).reshape(rows, columns)


def ask_for_vectors(video: av.VideoStream) -> None:
    """Tells the decoder, before its first packet, to give vectors with its pictures; codecs that have none ignore
    it."""
    from av.codec.context import Flags2

    video.codec_context.flags2 |= Flags2.export_mvs


def _blocks_under(edges: np.ndarray, num_patches: int, covered: float) -> np.ndarray:
    """The blocks that each patch touches: the first, and the one behind the last, for one patch after another."""
    if num_patches < 1 or not 0 < covered <= 1:
        raise ValueError(f"a grid needs patches, over a share above 0 and at most 1; got {num_patches}, {covered}")
    lines = np.arange(num_patches + 1) * (float(edges[-1]) * covered / num_patches)
    first = np.searchsorted(edges, lines[:-1] + 1e-6, side="right") - 1
    behind = np.maximum(np.searchsorted(edges, lines[1:] - 1e-6, side="left"), first + 1)
    return np.stack([first, behind], axis=1).ravel()


def _most(values_HW: np.ndarray, blocks: np.ndarray, axis: int) -> np.ndarray:
    """The largest value under each patch, along one axis."""
    # One row more, of nothing: `reduceat` takes no end behind the last.
    padded = np.pad(values_HW, [(0, 1), (0, 0)] if axis == 0 else [(0, 0), (0, 1)])
    most: np.ndarray = np.maximum.reduceat(padded, blocks, axis=axis)
    return most[::2] if axis == 0 else most[:, ::2]
