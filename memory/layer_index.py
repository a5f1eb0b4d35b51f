"""LayerIndex: mean keys of all layers, so that each layer may choose its own blocks."""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored
from .key_index import finite_query, mean_keys
from .key_rows import KeyRows

# Shapes: L layers, K key/value heads, D channels per head, C = K * D channels of a layer, N rows.


class LayerIndex(Index):
    """Rows are [L, C]: for each layer, the mean of the block's visual keys before rotation, heads side by side.

    similarity: "dot": the product with the query; "cosine": of the two, over all heads of a layer together.
    """

    def __init__(self, similarity: Literal["dot", "cosine"]) -> None:
        self._similarity = similarity
        self._rows = KeyRows()

    @property
    def ids(self) -> Set[BlockId]:
        return self._rows.ids

    @property
    def num_bytes(self) -> int:
        return self._rows.num_bytes

    def num_bytes_with(self, spec: KVSpec) -> int:
        return self._rows.num_bytes_with(spec.num_layers, spec.num_kv_heads * spec.head_dim)

    def describe(self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None) -> Tensor:
        return mean_keys(block, slice(None)).flatten(1).to("cpu", torch.bfloat16)

    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        shape = (spec.num_layers, spec.num_kv_heads * spec.head_dim)
        return row is not None and row.dtype == torch.bfloat16 and tuple(row.shape) == shape

    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        if row is None or row.dtype != torch.bfloat16 or row.ndim != 2:
            got = "none" if row is None else f"{row.dtype} of shape {tuple(row.shape)}"
            raise ValueError(f"the row of block {block_id} must be what describe() made of it; got {got}")
        self._check_shape(row, f"the row of block {block_id}")
        self._rows.add(block_id, row.detach().cpu(), start_s)

    def drop(self, block_id: BlockId) -> None:
        self._rows.drop(block_id)

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        """One choice for all layers: by the mean of what they score."""
        score_LN = self._scores(query_LKD)
        if score_LN is None:
            return []
        return self._rows.best(score_LN.sum(axis=0, dtype=np.float64) / len(score_LN), num_blocks, among)

    def best_by_layer(
        self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None
    ) -> list[list[Scored]]:
        score_LN = self._scores(query_LKD)
        if score_LN is None:
            return [[] for _ in range(0 if query_LKD is None else len(query_LKD))]
        return [self._rows.best(score_N, num_blocks, among) for score_N in score_LN]

    def check(self) -> None:
        self._rows.check()

    def _scores(self, query_LKD: Tensor | None) -> np.ndarray | None:
        """float32 [L, N]; None where nothing is held."""
        if query_LKD is None:
            raise ValueError("retriever 'per_layer' got no query; give it the question's, or use 'recent'")
        if self._rows.shape_HD is None:
            return None
        query_LC = query_LKD.flatten(1) if query_LKD.ndim == 3 else query_LKD
        self._check_shape(query_LC, "a query, its heads side by side,")
        query_LC = finite_query(query_LC)
        if self._similarity == "cosine":
            query_LC = torch.nn.functional.normalize(query_LC, dim=-1)
        score_LN = self._rows.dots(query_LC[:, None])[:, 0]
        if self._similarity == "cosine":
            score_LN /= np.sqrt(np.maximum(self._rows.square_HN, np.finfo(np.float32).tiny))
        return score_LN

    def _check_shape(self, x_LC: Tensor, what: str) -> None:
        if self._rows.shape_HD is not None and tuple(x_LC.shape) != self._rows.shape_HD:
            raise ValueError(
                f"{what} must have the shape (layers, kv heads x channels) {self._rows.shape_HD} of the keys held "
                f"here; got {tuple(x_LC.shape)}: one memory holds one model's blocks"
            )
