"""Per-frame selectors that look at the tokens alone: what stays covers what there was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .base import Picked, Room
from .mergers import soft_matching
from .per_frame import PerFrame
from .picks import coverage, farthest_first, strided_grid
from .scorers import cosines

# Shapes: T tokens, D channels of the language model, R rows of things to be covered, M words of a question.


@dataclass(frozen=True, kw_only=True)
class UniformGrid(PerFrame):
    """Rows and columns of the grid at even steps, whatever they show.

    Baseline: a smaller picture, without the blur.
    Differs from the paper: None.

    keep_tokens: tokens of a frame.
    at_most: tokens per second, and the floor per frame.
    """

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return Picked(strided_grid(sight.tokens.grid_hw, room.most).to(x_TD.device))


@dataclass(frozen=True, kw_only=True)
class ToDRE(PerFrame):
    """The most different tokens: each next one is the farthest, by cosine, from those kept so far (greedy k-centre).

    Paper: ToDRE: Effective Visual Token Pruning via Token Diversity and Task Relevance (arXiv 2505.18757)
    Differs from the paper: stage 1 alone, and of its first version, which had this k-centre (the second maximises a
        sum instead; stage 2 drops tokens inside the language model, for one question); starts at the token least like
        the frame's mean, as we do not know where the paper starts.

    keep_tokens: tokens of a frame.
    at_most: tokens per second, and the floor per frame.
    """

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return Picked(farthest_first(x_TD, room.most))


@dataclass(frozen=True, kw_only=True)
class MMTok(PerFrame):
    """The tokens that together stand best for all of the frame's, and for the question's words where there is one.

    1. A row per thing to cover, a softmax over the tokens that may cover it: one per token of the frame, by the
       tower's features, and one per word, by the language model's embeddings.
    2. Greedy coverage: add the token that raises the sum of every row's best the most.

    Paper: MMTok: Multimodal Coverage Maximization for Efficient Inference of VLMs (arXiv 2508.18264)
    Differs from the paper: all words of the question count, stop words too; no agent that rewrites the question;
        compares projected tokens where the tower's features are not to be had; without a question the frame alone is
        covered, which is the paper's ablation and not its result.

    keep_tokens: tokens of a frame.
    frame_weight: what covering the whole frame counts, where covering all words counts 1; 0 or more.
    frame_temperature: of the softmax over cosines between tokens, above 0.
    text_temperature: of the softmax over cosines between words and tokens, above 0.
    at_most: tokens per second, and the floor per frame.
    """

    uses: ClassVar[frozenset[Need]] = frozenset({Need.TEXT, Need.FEATURES})

    frame_weight: float = 0.5
    frame_temperature: float = 0.2
    text_temperature: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.frame_weight >= 0.0:
            raise ValueError(f"frame_weight must be 0 or more; got {self.frame_weight}")
        for name in ("frame_temperature", "text_temperature"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return Picked(coverage(self.rows(sight, x_TD), room.most))

    def rows(self, sight: Sight, x_TD: Tensor) -> Tensor:
        """How well each token stands for each thing to cover: (R, T), 0 or more; R = T, and M more with a question."""
        seen_TC = x_TD if sight.features_TC is None else sight.features_TC.to(x_TD.device)
        frame_TT = (cosines(seen_TC, seen_TC) / self.frame_temperature).softmax(-1)
        # Without words the weight would only scale every gain, and a weight of 0 leave nothing to cover.
        if sight.text_MD is None:
            return frame_TT
        text_MD = sight.text_MD.to(x_TD.device)
        words_MT = (cosines(text_MD, x_TD) / self.text_temperature).softmax(-1)
        return torch.cat([words_MT / words_MT.shape[0], self.frame_weight * frame_TT / frame_TT.shape[0]])


@dataclass(frozen=True, kw_only=True)
class ToMe(PerFrame):
    """The most similar tokens merge to their mean, pair by pair, until few enough are left.

    Paper: Token Merging: Your ViT But Faster (arXiv 2210.09461)
    Differs from the paper: after the projector, not between attention and MLP of every ViT block, as towers that
        pool their grid need it whole: saves the language model's time, not the tower's, and the paper's numbers are
        not ours; compares tokens, not keys; no log-size term in attention, so a merged token weighs what one token
        does; order and positions are those of the one that stands for the rest, and so are DeepStack levels, unmerged.

    keep_tokens: tokens of a frame.
    at_most: tokens per second, and the floor per frame.
    """

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        merged = soft_matching(x_TD, room.most)
        return Picked(merged.index_K, merged.x_KD)
