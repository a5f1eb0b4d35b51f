"""Compression for a question that is known while the stream is seen."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .base import Compressor, CompressorRun, Picked, Room
from .mergers import soft_matching
from .per_frame import check_share
from .picks import topk
from .scorers import cosines, text_relevance

# Shapes: T tokens, D channels of the language model, M words of the question, S tokens left to merge, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class TemporalMerging(Compressor):
    """A frame in which the question selects what it selected before adds nothing; another is sampled by relevance.

    1. A frame's selection row: a softmax over (word, place) of how alike each is, standardised within the frame.
    2. A row like an earlier one's, (cos + 1) / 2 above a threshold: that frame absorbs this one, of which the floor
       stays, the most relevant tokens. After so many absorbed, one is sent all the same.
    3. Of any other frame: the tokens that the words are most about as they are, and the rest merged to a few.

    Paper: inspired by B-VLLM: A Vision Large Language Model with Balanced Spatio-Temporal Tokens (arXiv 2412.09919)
    Differs from the paper: offline and trained as published, causal and training-free here, so its results are not
        this method's. No Q-Formers select frames and tokens; a row lies over the words and places of one frame, not
        over time; an earlier frame, read already, cannot take up what a later one shows; no Gumbel noise.

    keep_tokens: tokens of a frame that is not absorbed.
    relevant_share: share of these that stay as they are, the most relevant, one token at least, 0 to 1.
    like: (cos + 1) / 2 of two selection rows from which they count as one, in [0.5, 1]; the paper's is 0.75.
    temperature: of the softmax over standardised likeness, above 0; the paper's is 0.5.
    num_rows: how many selection rows are remembered, at least 1; the paper's queries are 16.
    refresh_blocks: fewer blocks than this are absorbed in a row.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXT})
    is_offline_as_published: ClassVar[bool] = True

    keep_tokens: int = 64
    relevant_share: float = 0.5
    like: float = 0.75
    temperature: float = 0.5
    num_rows: int = 16
    refresh_blocks: int = 32

    def __post_init__(self) -> None:
        check_share("relevant_share", self.relevant_share)
        if not 0.5 <= self.like <= 1.0:
            raise ValueError(f"like must be from 0.5 to 1; got {self.like}")
        if not self.temperature > 0.0:
            raise ValueError(f"temperature must be above 0; got {self.temperature}")
        for name in ("keep_tokens", "num_rows", "refresh_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")

    def start(self) -> CompressorRun:
        return _MergingRun(self)

    def selection(self, x_TD: Tensor, text_MD: Tensor) -> Tensor:
        """The frame's selection row: which words are where. (M * T,), sums to 1."""
        like_MT = cosines(text_MD, x_TD)
        # Cosines between words and tokens are small and differ from model to model: only their order of size counts.
        spread = like_MT.std(unbiased=False)
        standard_MT = (like_MT - like_MT.mean()) / torch.where(spread > 0, spread, 1.0)
        return (standard_MT.flatten() / self.temperature).softmax(0)


class _MergingRun(CompressorRun):
    """Remembers the question and the rows of the last frames that were not absorbed."""

    def __init__(self, recipe: TemporalMerging) -> None:
        super().__init__(recipe)
        self._merging = recipe
        self._rows: deque[Tensor] = deque(maxlen=recipe.num_rows)
        self._text_MD: Tensor | None = None
        self._num_absorbed = 0

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        if sight.text_MD is None:
            raise ValueError(f"TemporalMerging needs a question; got none in {sight!r}")
        text_MD = sight.text_MD.detach().to(x_TD.device).float()
        if self._text_MD is None or not torch.equal(text_MD, self._text_MD):
            self.restart()  # rows of another question say nothing about this one
            self._text_MD = text_MD.clone()
        row = self._merging.selection(x_TD, text_MD)
        relevance_T = text_relevance(x_TD, text_MD)
        is_absorbed = self._num_absorbed < self._merging.refresh_blocks - 1 and self._is_like_an_earlier(row)
        self._num_absorbed = self._num_absorbed + 1 if is_absorbed else 0
        if is_absorbed:
            return Picked(topk(relevance_T, room.least))
        self._rows.append(row)
        return self._sampled(x_TD, relevance_T, room.fit(self._merging.keep_tokens))

    def _is_like_an_earlier(self, row: Tensor) -> bool:
        if not self._rows:
            return False
        best = float(cosines(row[None], torch.stack(list(self._rows))).max())
        return (best + 1.0) / 2.0 > self._merging.like

    def _sampled(self, x_TD: Tensor, relevance_T: Tensor, num_tokens: int) -> Picked:
        """The most relevant tokens, and the rest merged to as many as there is room left for."""
        index_K = topk(relevance_T, max(1, round(self._merging.relevant_share * num_tokens)))
        is_rest_T = torch.ones_like(relevance_T, dtype=torch.bool).index_fill(0, index_K, False)
        rest_S = is_rest_T.nonzero().squeeze(1)
        x_KD = x_TD.clone()
        if num_tokens > index_K.shape[0]:
            merged = soft_matching(x_TD[rest_S], num_tokens - index_K.shape[0])
            x_KD[rest_S[merged.index_K]] = merged.x_KD
            is_rest_T[rest_S[merged.index_K]] = False
        index_K = (~is_rest_T).nonzero().squeeze(1)
        return Picked(index_K, x_KD[index_K])

    def restart(self) -> None:
        self._rows.clear()
        self._text_MD = None
        self._num_absorbed = 0

    @property
    def num_bytes(self) -> int:
        held = [*self._rows, *([] if self._text_MD is None else [self._text_MD])]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)
