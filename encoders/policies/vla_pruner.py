"""VLA-Pruner: visual tokens leave the prefix early, unless the words or the actions of late looked at them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compressors.picks import farthest_first, topk
from ..compressors.scorers import cosines
from .base import Prefix, Saving, SavingRun, Watch, at_depth, check_share, without

# Shapes: N visual tokens of all cameras, T tokens of the prefix, R rows computed, Q queries, U slots a layer holds,
# D channels, K tokens kept, W chunks remembered.

_ACTION_LAYER_OF_32 = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class VLAPruner(Saving):
    """Two criteria and diversity choose the visual tokens that go on below the first layers.

    1. For the first `window` chunks of an episode nothing is pruned: there is no telling what actions look at.
    2. Action: the attention that the action steps paid to each visual token in a middle layer of the expert, mean over
       heads, steps and denoising, as shares of each chunk; of the last `window` chunks, the one n chunks back weighs
       decay**n, so that the newest weighs most.
    3. Meaning: the attention that each visual token receives in the layer before `prune_layer`, mean over heads and
       over all of the prefix's tokens.
    4. The best by action and the best by meaning, as many of each as may stay, are the candidates.
    5. Of them, as many as may stay: starting with the one whose nearest neighbour is farthest, each next one is the
       farthest, by cosine of the projector's outputs, from those chosen.

    Paper: VLA-Pruner: Temporal-Aware Dual-Level Visual Token Pruning for Efficient VLA Inference (arXiv 2511.16449)
    Differs from the paper: the newest chunk weighs most, as the paper has it; its released code gives the oldest one
        the largest weight. A token that was pruned receives nothing where it is not, and could never come back by
        action: no token counts for less than `floor_share` of the mean, and among equals meaning decides. An episode's
        history ends at a reset, a cut or a new instruction by itself. A step of action is a chunk here, as pi0 reads
        its prefix once for each. Several cameras are one set of tokens. Tokens marked fresh always stay, even where
        they are more than may. The layer of action is as deep as the 15th of OpenVLA's 32; the paper's for pi0 is not
        known to us.

    keep_share: share of the visual tokens that stay, above 0 to 1.
    prune_layer: the first layer that has only those, 1 or more.
    window: chunks of history, 1 or more.
    decay: what a chunk counts for each chunk that came after it, above 0 to 1.
    floor_share: share of the mean attention that every token counts for at least, 0 to 1; 0 as in the paper.
    action_layer: of the expert's layers, the one that is looked at; None: a middle one.
    """

    keep_share: float = 0.5
    prune_layer: int = 3
    window: int = 3
    decay: float = 0.8
    floor_share: float = 0.5
    action_layer: int | None = None

    def __post_init__(self) -> None:
        for name in ("prune_layer", "window"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {given!r}")
        for name in ("keep_share", "decay", "floor_share"):
            check_share(name, getattr(self, name))
        for name in ("keep_share", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if self.action_layer is not None and self.action_layer < 0:
            raise ValueError(f"action_layer is the number of a layer, 0 or more; got {self.action_layer}")

    def start(self) -> VLAPrunerRun:
        return VLAPrunerRun(self)


class VLAPrunerRun(SavingRun):
    """One episode's history of where actions looked: `window` rows of shares."""

    def __init__(self, recipe: VLAPruner) -> None:
        self._recipe = recipe
        self._history: deque[Tensor] = deque(maxlen=recipe.window)
        self.reset()

    def reset(self) -> None:
        self._history.clear()
        self._same_as: tuple[int, ...] | None = None
        self._prefix: Prefix | None = None

    @property
    def num_bytes(self) -> int:
        return sum(one_N.numel() * one_N.element_size() for one_N in self._history)

    @property
    def is_pruning(self) -> bool:
        """Whether there is history enough: the next chunk of the same scene and instruction is pruned."""
        return len(self._history) == self._recipe.window

    def begin(self, prefix: Prefix) -> None:
        recipe = self._recipe
        if recipe.prune_layer >= prefix.num_layers:
            raise ValueError(
                f"prune_layer must be one of this policy's layers, 1 to {prefix.num_layers - 1}; got "
                f"{recipe.prune_layer}"
            )
        action_layer = recipe.action_layer
        if action_layer is None:
            action_layer = at_depth(prefix.num_layers, _ACTION_LAYER_OF_32)
        if action_layer >= prefix.num_layers:
            raise ValueError(
                f"action_layer must be one of the expert's {prefix.num_layers} layers; got {action_layer}; "
                "leave it out for a middle one"
            )
        if prefix.is_cut or prefix.same_as != self._same_as:
            self.reset()
        self._prefix, self._same_as = prefix, prefix.same_as
        self._action_layer = action_layer
        self._meaning_N: Tensor | None = None
        num_visual = prefix.image_N.shape[0]
        self._looked_N = torch.zeros(num_visual, device=prefix.x_TD.device)
        self._num_looks = 0

    def watches(self, layer: int) -> Watch:
        return Watch.ALL if self.is_pruning and layer == self._recipe.prune_layer - 1 else Watch.NOBODY

    def saw(self, layer: int, shares_QU: Tensor, slots_U: Tensor) -> None:
        assert self._prefix is not None
        self._meaning_N = shares_QU.mean(0)[torch.searchsorted(slots_U, self._prefix.image_N)]

    def rows(self, layer: int, alive_R: Tensor) -> Tensor:
        prefix = self._prefix
        if layer != self._recipe.prune_layer or self._meaning_N is None or prefix is None:
            return alive_R
        x_ND = prefix.x_TD[prefix.image_N]
        kept_K = choose(x_ND, self.action_prior(), self._meaning_N, self._num_kept(x_ND.shape[0]), prefix.fresh_N)
        is_dropped_N = torch.ones_like(prefix.fresh_N)
        is_dropped_N[kept_K] = False
        return without(alive_R, prefix.image_N[is_dropped_N], prefix.x_TD.shape[0])

    def watches_action(self, layer: int) -> bool:
        return layer == self._action_layer

    def saw_action(self, layer: int, shares_U: Tensor, slots_U: Tensor) -> None:
        assert self._prefix is not None
        seen_T = torch.zeros(self._prefix.x_TD.shape[0], device=shares_U.device)
        seen_T[slots_U] = shares_U
        self._looked_N += seen_T[self._prefix.image_N]
        self._num_looks += 1

    def end(self) -> None:
        if not self._num_looks:
            return
        self._history.append(with_floor(self._looked_N / self._num_looks, self._recipe.floor_share))
        self._prefix = self._meaning_N = None

    def action_prior(self) -> Tensor:
        """What the next actions are expected to look at, float32 (N,), sums to 1."""
        newest_first = torch.stack(list(reversed(self._history)))
        weights_W = self._recipe.decay ** torch.arange(len(self._history), device=newest_first.device).float()
        return (weights_W[:, None] * newest_first).sum(0) / weights_W.sum()

    def _num_kept(self, num_visual: int) -> int:
        return max(1, round(self._recipe.keep_share * num_visual))


def with_floor(looked_N: Tensor, floor_share: float) -> Tensor:
    """Attention as shares that sum to 1, none below that share of the mean (before they are made to sum to 1 again)."""
    total = looked_N.sum()
    shares_N = torch.where(total > 0, looked_N / total.clamp_min(1e-30), 1.0 / looked_N.shape[0])
    shares_N = shares_N.clamp_min(floor_share / looked_N.shape[0])
    return shares_N / shares_N.sum()


def choose(x_ND: Tensor, action_N: Tensor, meaning_N: Tensor, num_kept: int, fresh_N: Tensor) -> Tensor:
    """The visual tokens that stay: int64, increasing; `num_kept` of them, or all that are marked fresh where these
    are more."""
    # By meaning first, stably by action then: where action cannot tell, meaning does, and not the place in the picture.
    by_meaning = meaning_N.sort(descending=True, stable=True).indices
    by_action = by_meaning[action_N[by_meaning].sort(descending=True, stable=True).indices]
    is_candidate_N = fresh_N.clone()
    is_candidate_N[by_action[:num_kept]] = True
    is_candidate_N[topk(meaning_N, num_kept)] = True
    num_fresh = int(fresh_N.sum())
    if int(is_candidate_N.sum()) <= num_kept:
        return is_candidate_N.nonzero().squeeze(1)
    if num_fresh >= num_kept:
        return fresh_N.nonzero().squeeze(1)
    is_open_N = is_candidate_N & ~fresh_N
    chosen_N = fresh_N.clone()
    if not num_fresh:
        candidates = is_open_N.nonzero().squeeze(1)
        near = cosines(x_ND[candidates], x_ND[candidates]).fill_diagonal_(-torch.inf).amax(dim=1)
        chosen_N[candidates[near.argmin()]] = True
        is_open_N = is_open_N & ~chosen_N
    rest = is_open_N.nonzero().squeeze(1)
    far_R = (1.0 - cosines(x_ND[rest], x_ND[chosen_N])).amin(dim=1)
    picked = farthest_first(x_ND[rest], num_kept - int(chosen_N.sum()), nearest_T=far_R)
    chosen_N[rest[picked]] = True
    return chosen_N.nonzero().squeeze(1)
