"""KeyIndex: unit mean keys of all older blocks; a question scores them by cosine, without what all have in common."""

from __future__ import annotations

from collections.abc import Collection, Set

import numpy as np
import torch
from torch import Tensor

from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored
from .key_rows import KeyRows

# Shapes: L layers of the model, S layers that are kept, K key/value heads, D channels per head, H = S * K, N rows.

# Sums are kept as whole numbers of this unit, so that they are exact: what came and went before leaves no trace.
_UNIT = 2.0**-30
# Rows nearer to their mean than this share of their length are equal to it: bfloat16 is no finer than 0.004.
_LEAST_DISTANCE = 2.0**-6
# With fewer blocks, a single good match would be taken for a trend.
_LEAST_TO_FIT = 32
_FIT_STEPS = 2.0**16


class KeyIndex(Index):
    """Rows are [S, K, D]: for each kept layer and head the mean of the visual keys before rotation, of length 1.

    max_layers: how many layers are kept, evenly spaced; all of a model that has fewer than twice that.
    centred: whether the mean of the rows held is taken off each before the cosine.
    detrend: whether the straight line that scores follow over time is taken off them.
    """

    def __init__(self, max_layers: int, *, centred: bool, detrend: bool) -> None:
        self._max_layers, self._centred, self._detrend = max_layers, centred, detrend
        self._rows = KeyRows()
        self._shape_SKD: tuple[int, ...] | None = None
        self._sum_HD = np.zeros(0, np.int64)  # of the fit rows
        self._num_fit = 0

    @property
    def ids(self) -> Set[BlockId]:
        return self._rows.ids

    @property
    def num_bytes(self) -> int:
        return self._rows.num_bytes + self._sum_HD.nbytes

    def num_bytes_with(self, spec: KVSpec) -> int:
        num_heads = len(self._layers(spec.num_layers)) * spec.num_kv_heads
        sum_bytes = 0 if self._rows.ids else num_heads * spec.head_dim * self._sum_HD.itemsize
        return self._rows.num_bytes_with(num_heads, spec.head_dim) + sum_bytes + self._sum_HD.nbytes

    def describe(self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None) -> Tensor:
        return _unit(mean_keys(block, self._layers(block.k_LKTD.shape[0]))).to("cpu", torch.bfloat16)

    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        shape = (len(self._layers(spec.num_layers)), spec.num_kv_heads, spec.head_dim)
        return row is not None and row.dtype == torch.bfloat16 and tuple(row.shape) == shape and _is_of_units(row)

    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        if row is None or row.dtype != torch.bfloat16 or row.ndim != 3:
            got = "none" if row is None else f"{row.dtype} of shape {tuple(row.shape)}"
            raise ValueError(f"the row of block {block_id} must be what describe() made of it; got {got}")
        self._check_shape(row, f"the row of block {block_id}")
        if not _is_of_units(row):
            raise ValueError(
                f"the row of block {block_id} must be of unit vectors; got a value of {float(row.abs().max()):.3g}"
            )
        row_HD = row.detach().cpu().flatten(0, 1)
        is_fit = self._rows.add(block_id, row_HD, start_s)
        if self._shape_SKD is None:
            self._shape_SKD = tuple(row.shape)
            self._sum_HD = np.zeros(row_HD.shape, np.int64)
        if is_fit:
            self._sum_HD += _whole(row_HD)
            self._num_fit += 1

    def drop(self, block_id: BlockId) -> None:
        held = self._rows.get(block_id)
        if held.is_fit:
            self._sum_HD -= _whole(held.x_HD)
            self._num_fit -= 1
        self._rows.drop(block_id)
        if not self._rows.ids:
            self._shape_SKD, self._sum_HD = None, np.zeros(0, np.int64)

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        if query_LKD is None:
            raise ValueError("retriever 'by_key' got no query; give it the question's, or use 'recent'")
        if self._shape_SKD is None:
            return []
        query_SKD = query_LKD[self._layers(len(query_LKD))] if query_LKD.ndim == 3 else query_LKD
        self._check_shape(query_SKD, "a query")
        query_HD = finite_query(query_SKD).flatten(0, 1)
        if not self._num_fit:
            return []
        score_N = self._centred_cosines(_unit(query_HD)) if self._centred else self._cosines(_unit(query_HD))
        if self._detrend:
            score_N = without_trend(score_N, self._rows.start_N, self._rows.fit_N)
        return self._rows.best(score_N, num_blocks, among)

    def check(self) -> None:
        self._rows.check()
        fit = [held.x_HD for held in map(self._rows.get, self._rows.ids) if held.is_fit]
        if len(fit) != self._num_fit:
            raise RuntimeError(f"the index's books say {self._num_fit} rows are finite; {len(fit)} are")
        sum_HD = np.zeros_like(self._sum_HD)
        for row_HD in fit:
            sum_HD += _whole(row_HD)
        if not np.array_equal(sum_HD, self._sum_HD):
            off = float(np.abs(sum_HD - self._sum_HD).max()) * _UNIT
            raise RuntimeError(f"the sum of {len(fit)} rows is off by {off:.3g} in the index's books")

    def _layers(self, num_layers: int) -> list[int]:
        return spread_layers(num_layers, self._max_layers)

    def _cosines(self, query_HD: Tensor) -> np.ndarray:
        """float64 [N]: the mean over heads of query x row, both of length 1."""
        dot_HN = self._rows.dots(query_HD[:, None])[:, 0]
        return dot_HN.sum(axis=0, dtype=np.float64) / len(dot_HN)

    def _centred_cosines(self, query_HD: Tensor) -> np.ndarray:
        """float64 [N]: the mean over heads of query x (row - mean) / |row - mean|.

        |row - mean| counts as its root mean square over all rows where it is less: what is no more than noise around
        the mean is not blown up to a direction.
        """
        mean_HD = self._sum_HD * (_UNIT / self._num_fit)
        dot_HN, with_mean_HN = self._rows.dots(
            torch.stack([query_HD, torch.from_numpy(mean_HD).float()], dim=1)
        ).swapaxes(0, 1)
        mean_square_H1 = np.square(mean_HD).sum(axis=1, keepdims=True).astype(np.float32)
        away_H1 = (query_HD.double().numpy() * mean_HD).sum(axis=1, keepdims=True).astype(np.float32)
        # Where keys are zero a row is shorter, and the typical distance a little less than this.
        typical_H1 = np.maximum(1.0 - mean_square_H1, _LEAST_DISTANCE**2)
        distance_HN = self._rows.square_HN - 2 * with_mean_HN + mean_square_H1
        np.maximum(distance_HN, typical_H1, out=distance_HN)
        score_HN = (dot_HN - away_H1) / np.sqrt(distance_HN, out=distance_HN)
        return score_HN.sum(axis=0, dtype=np.float64) / len(score_HN)

    def _check_shape(self, x_SKD: Tensor, what: str) -> None:
        if self._shape_SKD is not None and tuple(x_SKD.shape) != self._shape_SKD:
            raise ValueError(
                f"{what} must have the shape (layers kept, kv heads, channels) {self._shape_SKD} of the keys held "
                f"here; got {tuple(x_SKD.shape)}: one memory holds one model's blocks"
            )


def spread_layers(num_layers: int, max_layers: int) -> list[int]:
    """Which of a model's layers are looked at: the middles of equal stretches; all, where there are fewer than twice as
    many."""
    kept = num_layers if num_layers < 2 * max_layers else max_layers
    return [(2 * i + 1) * num_layers // (2 * kept) for i in range(kept)]


def visual_keys(block: KVBlock, layers: list[int] | slice) -> Tensor:
    """[layers, K, T, D]: keys of the block's visual tokens, or of all where it has none."""
    visual = block.visual if block.visual.start < block.visual.stop else slice(None)
    return block.k_LKTD.detach()[layers][:, :, visual]


def mean_keys(block: KVBlock, layers: list[int] | slice) -> Tensor:
    """float32 [layers, K, D]: the mean over the block's visual tokens, or over all where it has none."""
    return visual_keys(block, layers).mean(dim=2, dtype=torch.float32)


def finite_query(query: Tensor) -> Tensor:
    """The query in float32 on the CPU; ValueError where it is not finite."""
    query = query.detach().to(device="cpu", dtype=torch.float32)
    if not bool(query.isfinite().all()):
        raise ValueError("a query must be finite; got NaN or infinity, look at the model's dtype")
    return query


def without_trend(score_N: np.ndarray, start_N: np.ndarray, fit_N: np.ndarray) -> np.ndarray:
    """Scores less the slope of their least-squares line over time; the mean stays. As they are where rows are few.

    What a block scores rises with the age of the stream at which it was read, whatever it shows, so that plain scores
    drift to the newest blocks. Sums are of whole numbers: exact in any order.
    """
    first_s, last_s = (start_N[fit_N].min(), start_N[fit_N].max()) if fit_N.any() else (0.0, 0.0)
    num_fit = int(fit_N.sum())
    if num_fit < _LEAST_TO_FIT or not first_s < last_s:
        return score_N
    time_N = np.rint((start_N - first_s) / (last_s - first_s) * _FIT_STEPS).astype(np.int64)
    step_N = np.rint(score_N * _FIT_STEPS).astype(np.int64)
    time_n, step_n = time_N[fit_N], step_N[fit_N]
    sum_time, sum_step = int(time_n.sum()), int(step_n.sum())
    spread = num_fit * int((time_n * time_n).sum()) - sum_time * sum_time
    if not spread:
        return score_N
    slope = (num_fit * int((time_n * step_n).sum()) - sum_time * sum_step) / (spread * _FIT_STEPS)
    flat_N: np.ndarray = score_N - slope * (time_N - sum_time / num_fit)
    return flat_N


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def _whole(row_HD: Tensor) -> np.ndarray:
    whole_HD: np.ndarray = (row_HD.double() / _UNIT).round().long().numpy()
    return whole_HD


def _is_of_units(row: Tensor) -> bool:
    # NaN passes: the rows of a block that is not finite are known, and never named.
    return not bool((row.abs() > 1.01).any())
