"""Change maps: which patches of a model's grid look different from when they were last encoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .motion import MotionField

# Shapes: H rows and W columns of patches, F frames of a block, R rows and C columns of cells (_CELLS to a patch's
# side), 3 colours, N patches in one row.

_CELLS = 4  # along a patch's side
_MOVED = 0.5  # of the threshold, for a patch that the codec moved
_STILL = 0.5  # levels; a change of light that moves nothing by more is none: cells are rounded to whole levels
_FIT_TOLERANCES = (8.0, 4.0, 2.0)  # levels; patches further from the fitted light are left out of the next fit
_THUMB = 48  # pixels along each side of the pictures in which a shift is looked for
_SAME_SCENE = 0.88  # correlation after the best shift, from which on two pictures are of one scene
_LEAST_FITTED = 0.5  # share of the patches that must agree on one change of light before it is believed


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """When a patch counts as changed. `start()` gives the state for one stream.

    A patch is cut into 4 x 4 cells, each the mean colour of its pixels. Its score is the mean absolute difference
    of the cells from the picture that it was last encoded from, or `part_weight` times that of the quarter of it
    that differs most, whichever is larger. It has changed where the score is above
    `clip(noise_factor * noise, floor_levels, ceiling_levels)`. One change of brightness and contrast of the whole
    picture, fitted to each frame, is taken out first, up to `flicker_levels`: a larger one is change.

    What is finer than a cell is averaged out, as it mostly is where the model shrinks the picture. Pure noise changes
    everywhere as long as a cell is no larger than 60 pixels or so.

    The noise is the score between one block and the next that `noise_share` of the patches stay under; it falls
    fast and rises slowly, so that a picture that moves for a while is not taken for a noisy one.

    Where the source brings motion, a patch that the codec moved since it was last encoded has changed at half the
    threshold; its word alone is not enough (see motion.py).

    floor_levels: lowest threshold, in levels of 0 to 255.
    ceiling_levels: highest threshold, in levels: noise beyond it is change.
    noise_factor: how many times the noise a score must be, 1 or more.
    noise_share: share of the patches, above 0 and below 1.
    part_weight: what the most changed quarter of a patch counts, 0 to 1; 0 for the mean alone.
    flicker_levels: the most that a change of light is taken out, in levels; 0 for not at all.
    moved_px: a patch moved where a vector is longer than this, in pixels; infinite for no use of motion.
    cut_levels: a patch whose score from one block to the next is above this belongs to another scene, in levels.
    cut_share: share of such patches, above 0, from which on it is a cut, unless a shift of the whole picture by up
        to half of it, or a change of light, explains them: a camera that turns makes no cut.
    """

    floor_levels: float = 5.0
    ceiling_levels: float = 8.0
    noise_factor: float = 2.5
    noise_share: float = 0.15
    part_weight: float = 0.5
    flicker_levels: float = 8.0
    moved_px: float = 1.0
    cut_levels: float = 16.0
    cut_share: float = 0.35

    def __post_init__(self) -> None:
        if not 0 <= self.floor_levels <= self.ceiling_levels <= 255:
            raise ValueError(
                "a change threshold needs 0 <= floor_levels <= ceiling_levels <= 255;"
                f" got floor_levels={self.floor_levels}, ceiling_levels={self.ceiling_levels}"
            )
        if not (math.isfinite(self.noise_factor) and self.noise_factor >= 1):
            raise ValueError(f"the noise must count at least once; got noise_factor={self.noise_factor}")
        if not 0 < self.noise_share < 1:
            raise ValueError(f"the noise needs a share above 0 and below 1; got noise_share={self.noise_share}")
        if not 0 <= self.part_weight <= 1:
            raise ValueError(f"a quarter of a patch counts 0 to 1; got part_weight={self.part_weight}")
        if not 0 <= self.flicker_levels <= 255:
            raise ValueError(f"flicker is in levels of 0 to 255; got flicker_levels={self.flicker_levels}")
        if not self.moved_px >= 0:
            raise ValueError(f"a patch moves by 0 pixels or more; got moved_px={self.moved_px}")
        if not 0 <= self.cut_levels <= 255:
            raise ValueError(f"a cut is in levels of 0 to 255; got cut_levels={self.cut_levels}")
        if not 0 < self.cut_share <= 1:
            raise ValueError(f"a cut needs a share above 0 and at most 1; got cut_share={self.cut_share}")

    def start(self, grid_hw: tuple[int, int], covered_hw: tuple[float, float] = (1.0, 1.0)) -> ChangeDetector:
        """A fresh detector for one stream.

        grid_hw: rows and columns of patches.
        covered_hw: share of the picture's height and width that the patches cover, from its top left.
        """
        return ChangeDetector(self, grid_hw, covered_hw)


@dataclass(frozen=True, slots=True, eq=False)
class ChangeMap:
    """What changed in one block. Made by ChangeDetector.compare, read by reusers and compressors, written by nobody.

    score_HW: float32, levels by which a patch differs from what it was last encoded from; infinite where it never was.
    changed_HW: bool, whether that is above the threshold.
    since_last_HW: float32, levels by which a patch differs from the block before; infinite on the first block.
    noise_levels: how large since_last_HW is where nothing happens, as the stream showed so far.
    threshold_levels: what the scores were held against.
    is_cut: whether another scene begins here; all patches have changed then.
    """

    score_HW: np.ndarray
    changed_HW: np.ndarray
    since_last_HW: np.ndarray
    noise_levels: float
    threshold_levels: float
    is_cut: bool

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.score_HW, self.changed_HW, self.since_last_HW)}
        if len(shapes) != 1 or len(self.score_HW.shape) != 2:
            raise ValueError(f"a change map needs three maps of one grid; got shapes {sorted(shapes)}")
        for array in (self.score_HW, self.changed_HW, self.since_last_HW):
            array.flags.writeable = False

    @property
    def share(self) -> float:
        """Share of the patches that changed."""
        return float(self.changed_HW.mean())

    def __repr__(self) -> str:
        cut = ", a cut" if self.is_cut else ""
        return f"ChangeMap({self.share:.1%} of {self.changed_HW.shape[0]}x{self.changed_HW.shape[1]} changed{cut})"


class ChangeDetector:
    """One stream's state: what each patch was last encoded from. Not thread-safe, one per stream; bounded.

    Call `compare` for each block in order, then `encoded` with the patches that were encoded from it. Patches that
    are not named keep their reference, so that slow change adds up until it is seen.
    """

    def __init__(self, rule: ChangeRule, grid_hw: tuple[int, int], covered_hw: tuple[float, float]) -> None:
        if min(grid_hw) < 1:
            raise ValueError(f"a grid needs at least one row and one column of patches; got {grid_hw}")
        if not all(0 < covered <= 1 for covered in covered_hw):
            raise ValueError(f"the patches cover a share above 0 and at most 1 of each side; got {covered_hw}")
        self.rule = rule
        self.grid_hw = grid_hw
        self.covered_hw = covered_hw
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next block is the first."""
        rows, columns = self.grid_hw
        self._size_hw = (0, 0)
        self._last_FRC3: np.ndarray | None = None
        self._reference_FRC3: np.ndarray | None = None
        self._is_encoded_HW = np.zeros(self.grid_hw, bool)
        # How the light of the whole picture has changed since each patch was encoded: now = gain * then + offset.
        self._gain_FHW = np.ones((1, rows, columns), np.float32)
        self._offset_FHW = np.zeros((1, rows, columns), np.float32)
        self._has_moved_HW = np.zeros(self.grid_hw, bool)  # since it was encoded, as the codec says
        self._noise: float | None = None

    @property
    def num_bytes(self) -> int:
        """State held; the same from the first block of full length on."""
        masks = self._is_encoded_HW.nbytes + self._has_moved_HW.nbytes
        cells = sum(array.nbytes for array in (self._last_FRC3, self._reference_FRC3) if array is not None)
        return masks + cells + self._gain_FHW.nbytes + self._offset_FHW.nbytes

    def compare(self, pictures: Sequence[np.ndarray], motion: Sequence[MotionField | None] = ()) -> ChangeMap:
        """What changed in this block, which becomes the block last compared.

        pictures: uint8 RGB arrays of one size, the frames of the block. A block with fewer frames than those before
            is filled with its last. In the first block, and where pictures change their size, everything changed
            and a cut is given.
        motion: what the frames brought of it, if anything.
        """
        now_FRC3 = self._cells(pictures)
        size_hw = pictures[0].shape[:2]
        last_FRC3, reference_FRC3 = self._last_FRC3, self._reference_FRC3
        if last_FRC3 is None or reference_FRC3 is None or size_hw != self._size_hw:
            return self._begin(now_FRC3, size_hw)
        if len(last_FRC3) != len(now_FRC3):
            now_FRC3, last_FRC3, reference_FRC3 = self._match_frames(now_FRC3, last_FRC3, reference_FRC3)

        last_HW = np.zeros(self.grid_hw, np.float32)
        score_HW = np.zeros(self.grid_hw, np.float32)
        for f, now_RC3 in enumerate(now_FRC3):
            now_RC3 = now_RC3.astype(np.float32)
            light = self._follow_light(f, now_RC3, reference_FRC3[f])
            then_RC3 = self._relit(reference_FRC3[f], self._gain_FHW[f], self._offset_FHW[f])
            np.maximum(score_HW, self._scores(now_RC3, then_RC3), out=score_HW)
            then_RC3 = self._relit(last_FRC3[f], *np.asarray(light, np.float32))
            np.maximum(last_HW, self._scores(now_RC3, then_RC3), out=last_HW)
        score_HW[~self._is_encoded_HW] = np.inf

        noise = self._follow_noise(last_HW)
        rule = self.rule
        threshold = min(max(rule.noise_factor * noise, rule.floor_levels), rule.ceiling_levels)
        is_cut = False
        if (last_HW > rule.cut_levels).mean() >= rule.cut_share:
            is_cut = best_overlap(last_FRC3[-1], now_FRC3[0]) < _SAME_SCENE
        self._follow_motion(motion, size_hw)
        limit_HW = np.where(self._has_moved_HW, np.float32(threshold * _MOVED), np.float32(threshold))
        changed_HW = np.ones(self.grid_hw, bool) if is_cut else score_HW > limit_HW
        self._last_FRC3 = now_FRC3
        return ChangeMap(score_HW, changed_HW, last_HW, noise, threshold, is_cut)

    def encoded(self, mask_HW: np.ndarray | None = None) -> None:
        """These patches (None: all) were encoded from the block last compared: it becomes their reference."""
        if self._last_FRC3 is None or self._reference_FRC3 is None:
            raise ValueError("nothing was compared yet, got a call of encoded(); call compare(pictures) first")
        if mask_HW is None:
            mask_HW = np.ones(self.grid_hw, bool)
        if mask_HW.shape != self.grid_hw or mask_HW.dtype != bool:
            raise ValueError(
                f"encoded() takes a bool for each patch of the {self.grid_hw} grid; got {mask_HW.dtype} array of"
                f" shape {mask_HW.shape}"
            )
        mask_RC = mask_HW.repeat(_CELLS, axis=0).repeat(_CELLS, axis=1)
        np.copyto(self._reference_FRC3, self._last_FRC3, where=mask_RC[None, :, :, None])
        self._gain_FHW[:, mask_HW] = 1.0
        self._offset_FHW[:, mask_HW] = 0.0
        self._is_encoded_HW |= mask_HW
        self._has_moved_HW &= ~mask_HW

    def _cells(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Mean colour of each cell of each picture, uint8."""
        if not len(pictures):
            raise ValueError("a block needs at least one picture; got none")
        for rgb_HW3 in pictures:
            if rgb_HW3.dtype != np.uint8 or rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or not rgb_HW3.size:
                raise ValueError(
                    f"a picture is a uint8 array of shape (height, width, 3); got {rgb_HW3.dtype} of {rgb_HW3.shape}"
                )
            if rgb_HW3.shape != pictures[0].shape:
                raise ValueError(
                    f"the pictures of a block must have one size; got {pictures[0].shape[:2]} and {rgb_HW3.shape[:2]}"
                )
        from PIL import Image

        height, width = pictures[0].shape[:2]
        box = (0, 0, width * self.covered_hw[1], height * self.covered_hw[0])
        cells_wh = (self.grid_hw[1] * _CELLS, self.grid_hw[0] * _CELLS)
        shrunk = (Image.fromarray(p).resize(cells_wh, Image.Resampling.BOX, box=box) for p in pictures)
        return np.stack([np.asarray(picture) for picture in shrunk])

    def _begin(self, now_FRC3: np.ndarray, size_hw: tuple[int, int]) -> ChangeMap:
        """The first block of pictures of a size: nothing to compare with."""
        self.reset()
        self._size_hw = size_hw
        self._last_FRC3, self._reference_FRC3 = now_FRC3, now_FRC3.copy()
        self._gain_FHW = self._gain_FHW.repeat(len(now_FRC3), axis=0)
        self._offset_FHW = self._offset_FHW.repeat(len(now_FRC3), axis=0)
        nothing_HW = np.full(self.grid_hw, np.inf, np.float32)
        return ChangeMap(
            nothing_HW, np.ones(self.grid_hw, bool), nothing_HW.copy(), 0.0, self.rule.floor_levels, is_cut=True
        )

    def _match_frames(self, now: np.ndarray, last: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, ...]:
        """A short block is filled with its last frame; after one, what is held is filled in the same way."""
        num_frames = max(len(now), len(last))

        def fill(held: np.ndarray) -> np.ndarray:
            return np.concatenate([held, held[-1:].repeat(num_frames - len(held), axis=0)])

        self._gain_FHW, self._offset_FHW = fill(self._gain_FHW), fill(self._offset_FHW)
        self._reference_FRC3 = fill(reference)
        return fill(now), fill(last), self._reference_FRC3

    def _scores(self, now_RC3: np.ndarray, then_RC3: np.ndarray) -> np.ndarray:
        """Levels of difference of each patch, float32."""
        difference_RC3 = np.abs(now_RC3 - then_RC3)
        cell_RC = difference_RC3[..., 0] + difference_RC3[..., 1] + difference_RC3[..., 2]
        half_RC = cell_RC[::2] + cell_RC[1::2]
        quarter_RC = half_RC[:, ::2] + half_RC[:, 1::2]  # _CELLS is 4: two by two of these to a patch
        top_left, top_right = quarter_RC[::2, ::2], quarter_RC[::2, 1::2]
        low_left, low_right = quarter_RC[1::2, ::2], quarter_RC[1::2, 1::2]
        mean_HW = (top_left + top_right + low_left + low_right) * np.float32(1 / (3 * _CELLS * _CELLS))
        most_HW = np.maximum(np.maximum(top_left, top_right), np.maximum(low_left, low_right))
        part_HW = most_HW * np.float32(self.rule.part_weight * 4 / (3 * _CELLS * _CELLS))
        score_HW: np.ndarray = np.maximum(mean_HW, part_HW)
        return score_HW

    def _relit(self, then_RC3: np.ndarray, gain_HW: np.ndarray, offset_HW: np.ndarray) -> np.ndarray:
        """Cells of an earlier picture in the light of now, moved by `flicker_levels` at most."""
        then_RC3 = then_RC3.astype(np.float32)
        if np.all(gain_HW == 1) and np.all(offset_HW == 0):
            return then_RC3
        if gain_HW.ndim:
            gain_HW = gain_HW.repeat(_CELLS, axis=0).repeat(_CELLS, axis=1)[..., None]
            offset_HW = offset_HW.repeat(_CELLS, axis=0).repeat(_CELLS, axis=1)[..., None]
        moved_RC3: np.ndarray = then_RC3 * (gain_HW - np.float32(1)) + offset_HW
        limit = self.rule.flicker_levels
        np.clip(moved_RC3, -limit, limit, out=moved_RC3)
        moved_RC3 += then_RC3
        np.clip(moved_RC3, 0, 255, out=moved_RC3)
        return moved_RC3

    def _follow_light(self, f: int, now_RC3: np.ndarray, reference_RC3: np.ndarray) -> tuple[float, float]:
        """How the light changed since the block before; what is known of each patch's light is brought up to now.

        Fitted against the references in the light that they are thought to be in, not against the last picture: an
        error of one fit is then seen by the next, and errors do not add up.
        """
        if self.rule.flicker_levels == 0:
            return 1.0, 0.0
        gain_HW, offset_HW = self._gain_FHW[f], self._offset_FHW[f]
        then_HW = _patch_means(reference_RC3) * gain_HW + offset_HW
        gain, offset = _fit_light(then_HW.ravel(), _patch_means(now_RC3).ravel())
        if (gain, offset) != (1.0, 0.0):
            gain_HW *= np.float32(gain)
            offset_HW *= np.float32(gain)
            offset_HW += np.float32(offset)
        return gain, offset

    def _follow_motion(self, motion: Sequence[MotionField | None], size_hw: tuple[int, int]) -> None:
        """Which patches the codec has moved. One that it does not say of has not: pixels alone decide there."""
        for field in motion:
            if field is None:
                continue
            if (field.height, field.width) != size_hw:
                raise ValueError(f"motion must be of pictures of {size_hw} pixels; got {(field.height, field.width)}")
            moved = field.on_grid(self.grid_hw, self.covered_hw)
            self._has_moved_HW |= moved.displacement_HW > self.rule.moved_px

    def _follow_noise(self, last_HW: np.ndarray) -> float:
        """The noise floor with one more block in it, in levels."""
        seen = float(np.quantile(last_HW, self.rule.noise_share))
        seen = min(seen, self.rule.ceiling_levels / self.rule.noise_factor)
        if self._noise is None:
            self._noise = seen
        else:
            self._noise += (0.5 if seen < self._noise else 0.1) * (seen - self._noise)
        return self._noise


def _patch_means(cells_RC3: np.ndarray) -> np.ndarray:
    """Mean brightness of each patch, float32."""
    rows, columns = cells_RC3.shape[0] // _CELLS, cells_RC3.shape[1] // _CELLS
    # Two sums along whole rows, then two over a few columns: much faster than one over four axes.
    in_rows = cells_RC3.reshape(rows, _CELLS, -1).sum(axis=1, dtype=np.float32)
    sums_HW: np.ndarray = in_rows.reshape(rows, columns, -1).sum(axis=2)
    return sums_HW * np.float32(1 / (3 * _CELLS * _CELLS))


def _fit_light(then_N: np.ndarray, now_N: np.ndarray) -> tuple[float, float]:
    """The gain and offset that most patches agree on, (1, 0) where they do not or where hardly anything changed."""
    if then_N.size < 16:
        return 1.0, 0.0
    gain, offset = 1.0, float(np.median(now_N - then_N))
    for tolerance in _FIT_TOLERANCES:
        is_near_N = np.abs(now_N - gain * then_N - offset) <= tolerance
        if is_near_N.mean() < _LEAST_FITTED:
            return 1.0, 0.0
        x_N, y_N = then_N[is_near_N], now_N[is_near_N]
        x_mean, y_mean = float(x_N.mean()), float(y_N.mean())
        x_N = x_N - x_mean
        spread = float(x_N @ x_N)
        # Patches of one brightness say nothing about contrast.
        gain = float(x_N @ y_N) / spread if spread > 25.0 * x_N.size else 1.0
        offset = y_mean - gain * x_mean
    if not 0.8 <= gain <= 1.25:
        return 1.0, 0.0
    low, high = float(then_N.min()), float(then_N.max())
    if max(abs((gain - 1) * low + offset), abs((gain - 1) * high + offset)) <= _STILL:
        return 1.0, 0.0
    return gain, offset


def best_overlap(last_RC3: np.ndarray, now_RC3: np.ndarray) -> float:
    """Correlation of brightness, -1 to 1, where one picture is shifted onto the other so that they agree best.

    At least a quarter of the pictures overlaps. 0 where one of them is of one brightness.
    """
    from PIL import Image

    thumbs = []
    for cells_RC3 in (last_RC3, now_RC3):
        grey = Image.fromarray(cells_RC3).convert("L").resize((_THUMB, _THUMB), Image.Resampling.BOX)
        thumbs.append(np.asarray(grey, np.float32) - 128)
    spectra = [np.fft.rfft2(x, (2 * _THUMB, 2 * _THUMB)) for a in thumbs for x in (a, a * a)]
    a, aa, b, bb = spectra
    ones = np.fft.rfft2(np.ones((_THUMB, _THUMB)), (2 * _THUMB, 2 * _THUMB))
    # Sums over the overlap, for each shift: of a cell's count, a, b, a * a, b * b, a * b.
    products = (ones * ones.conj(), a * ones.conj(), ones * b.conj(), aa * ones.conj(), ones * bb.conj(), a * b.conj())
    count, sum_a, sum_b, sum_aa, sum_bb, sum_ab = (np.fft.irfft2(product) for product in products)
    is_enough = count > _THUMB * _THUMB / 4
    n, sum_a, sum_b = count[is_enough], sum_a[is_enough], sum_b[is_enough]
    spread_a = sum_aa[is_enough] - sum_a * sum_a / n
    spread_b = sum_bb[is_enough] - sum_b * sum_b / n
    both = sum_ab[is_enough] - sum_a * sum_b / n
    # Less than a level of spread is rounding, and agrees with nothing.
    is_rich = (spread_a > n) & (spread_b > n)
    return float(np.max(both[is_rich] / np.sqrt(spread_a[is_rich] * spread_b[is_rich]), initial=0.0))
