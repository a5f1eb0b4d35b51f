"""VLA-Cache: keys and values of visual tokens that stand still are used again, at their places, from the last chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Held, Prefix, Saving, SavingRun, Watch, at_depth, check_share, without

# Shapes: N visual tokens of all cameras, C cameras, P visual tokens of a camera, T tokens of the prefix, L layers,
# R rows computed, Q queries, U slots a layer holds, K key/value heads, D channels, V values of a patch, 3 colours,
# H rows and W columns of pixels, 1 robot.

_LOOKED_AT_LAYER_OF_32 = 15
_RISE = 0.55  # of what a layer may reuse more than the one before


@dataclass(frozen=True, slots=True, kw_only=True)
class VLACache(Saving):
    """A visual token whose pixels stand still, and at which the words do not look, is not computed in deep layers.

    1. Still: the cosine of its patch of pixels to that of before is at least `same_cosine`; of each camera, the most
       alike first, `still_share` of its tokens at most.
    2. Not at work: of each camera, the `relevant_share` of its tokens that the prompt's words looked at most, in a
       middle layer of the last chunk, are computed anew; so are those marked fresh.
    3. From each layer of `layers_of_32` on, a share of what is left is no longer computed: 1 minus the entropy of that
       layer's attention in the last chunk, scaled to 0 and 1 over the layers; a rise from one layer to the next counts
       0.55 of itself. What has left does not come back.
    4. Keys and values of such a token are the last chunk's, at the same place, in every layer that leaves it out; all
       others, and the actions, attend to them.

    Paper: VLA-Cache: Efficient Vision-Language-Action Manipulation via Adaptive Token Caching (arXiv 2502.02175)
    Differs from the paper: a chunk is the step, as pi0 reads its prefix once for each; in pi0 visual tokens see the
        words and each other, so what is reused is staler than in OpenVLA, where they see only what stands before
        them; layers are as deep as the paper's code has them in 32; the most alike are reused first, where its code
        takes those at the top of the picture; a patch is held against the picture that its token was computed from,
        so that slow change adds up until it is seen, where the paper holds it against the last (`against="last"`);
        attention is that of the prompt's words to visual tokens; a cut or a new instruction begins anew.

    same_cosine: of raw pixels, 0 to 1. A change of brightness alone is none, as in the paper.
    still_share: of a camera's tokens, the most that may be reused; 150 of 256 in the paper's code.
    relevant_share: of a camera's tokens, those that are at work; 120 of 256 in the paper's code.
    layers_of_32: where tokens may leave, increasing, 1 to 31: the first layer computes all, or there were no keys.
    against: which picture a patch is held against.
    """

    same_cosine: float = 0.996
    still_share: float = 150 / 256
    relevant_share: float = 120 / 256
    layers_of_32: tuple[int, ...] = (2, 6, 9, 11)
    against: Literal["computed", "last"] = "computed"

    def __post_init__(self) -> None:
        for name in ("same_cosine", "still_share", "relevant_share"):
            check_share(name, getattr(self, name))
        layers = self.layers_of_32
        if not layers or list(layers) != sorted(set(layers)) or not all(1 <= layer <= 31 for layer in layers):
            raise ValueError(f"layers_of_32 must be increasing numbers from 1 to 31, one at least; got {layers}")
        if self.against not in ("computed", "last"):
            raise ValueError(f"against must be 'computed' or 'last'; got {self.against!r}")

    def start(self) -> VLACacheRun:
        return VLACacheRun(self)


class _Last(NamedTuple):
    """What the last chunk left: keys and values, the patches that they are of, where words looked, entropies."""

    k_1KTD: list[Tensor]
    v_1KTD: list[Tensor]
    patches_NV: Tensor
    relevance_N: Tensor
    entropy_L: Tensor


class VLACacheRun(SavingRun):
    """One episode's keys and values of a prefix: as many bytes as the prefix's own cache, once."""

    def __init__(self, recipe: VLACache) -> None:
        self._recipe = recipe
        self.reset()

    def reset(self) -> None:
        self._last: _Last | None = None
        self._prefix: Prefix | None = None
        self._same_as: tuple[int, ...] | None = None
        self.reused_N: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        if self._last is None:
            return 0
        held = [*self._last.k_1KTD, *self._last.v_1KTD, *self._last[2:]]
        return sum(one.numel() * one.element_size() for one in held)

    def begin(self, prefix: Prefix) -> None:
        """reused_N, after this: visual tokens that may be reused, the surest first."""
        if prefix.pixels_C3HW is None:
            raise ValueError("VLA-Cache compares pictures; got an observation without pixels_C3HW; give it the tower's")
        if not bool(prefix.words_T.any()):
            raise ValueError("VLA-Cache asks what the words look at; got a prompt without words; give it one")
        patches_NV = patches(prefix.pixels_C3HW, prefix.image_N.shape[0])
        if prefix.is_cut or prefix.same_as != self._same_as:
            self.reset()
        self._prefix, self._same_as = prefix, prefix.same_as
        self._patches_NV = patches_NV
        self._k: list[Tensor] = []
        self._v: list[Tensor] = []
        self._entropy_L = torch.zeros(prefix.num_layers, device=prefix.x_TD.device)
        self._relevance_N = torch.zeros(prefix.image_N.shape[0], device=prefix.x_TD.device)
        self._looked_at = at_depth(prefix.num_layers, _LOOKED_AT_LAYER_OF_32)
        self._num_reused = dict.fromkeys(range(prefix.num_layers), 0)
        self.reused_N = torch.empty(0, dtype=torch.int64, device=prefix.image_N.device)
        last, recipe = self._last, self._recipe
        if last is None:
            return
        alike_N = F.cosine_similarity(patches_NV, last.patches_NV, dim=1)
        # Black is like black, whatever the cosine of nothing is.
        alike_N[(patches_NV == last.patches_NV).all(dim=1)] = 1.0
        self.reused_N = reusable(alike_N, last.relevance_N, prefix.fresh_N, prefix.num_cameras, recipe)
        shares_L = reuse_shares(last.entropy_L).tolist()
        where = {at_depth(prefix.num_layers, layer) for layer in recipe.layers_of_32} - {0}
        num_reused = 0
        for layer in range(prefix.num_layers):
            if layer in where:
                num_reused = max(num_reused, round(shares_L[layer] * self.reused_N.shape[0]))
            self._num_reused[layer] = num_reused

    def rows(self, layer: int, alive_R: Tensor) -> Tensor:
        assert self._prefix is not None and self.reused_N is not None
        num_reused = self._num_reused[layer]
        if num_reused == (self._num_reused[layer - 1] if layer else 0):
            return alive_R
        return without(alive_R, self._prefix.image_N[self.reused_N[:num_reused]], self._prefix.x_TD.shape[0])

    def held(self, layer: int, alive_R: Tensor, k_1KRD: Tensor, v_1KRD: Tensor) -> Held:
        assert self._prefix is not None
        num_tokens = self._prefix.x_TD.shape[0]
        if alive_R.shape[0] < num_tokens:
            assert self._last is not None
            # A copy: a prefix that was read before stays as it was.
            k_1KRD = self._last.k_1KTD[layer].index_copy(2, alive_R, k_1KRD)
            v_1KRD = self._last.v_1KTD[layer].index_copy(2, alive_R, v_1KRD)
        self._k.append(k_1KRD)
        self._v.append(v_1KRD)
        return Held(k_1KRD, v_1KRD, torch.arange(num_tokens, device=alive_R.device))

    def watches(self, layer: int) -> Watch:
        return Watch.WORDS

    def saw(self, layer: int, shares_QU: Tensor, slots_U: Tensor) -> None:
        assert self._prefix is not None
        looked_QN = shares_QU[:, self._prefix.image_N]
        looked_QN = looked_QN / looked_QN.sum(dim=1, keepdim=True).clamp_min(1e-30)
        self._entropy_L[layer] = torch.special.entr(looked_QN).sum(dim=1).mean()
        if layer == self._looked_at:
            self._relevance_N = looked_QN.mean(0)

    def end(self) -> None:
        last, prefix = self._last, self._prefix
        assert prefix is not None and self.reused_N is not None
        patches_NV = self._patches_NV
        if last is not None and self._recipe.against == "computed":
            # The tokens that some layer left out are still those of the picture that they were computed from.
            old = self.reused_N[: self._num_reused[prefix.num_layers - 1]]
            patches_NV = patches_NV.index_copy(0, old, last.patches_NV[old])
        self._last = _Last(self._k, self._v, patches_NV, self._relevance_N, self._entropy_L)
        self._prefix, self._k, self._v = None, [], []


def patches(pixels_C3HW: Tensor, num_visual: int) -> Tensor:
    """The raw pixels of each visual token, 0 to 1, camera by camera: float32 (N, V)."""
    side = int((num_visual / pixels_C3HW.shape[0]) ** 0.5 + 0.5)
    if side * side * pixels_C3HW.shape[0] != num_visual:
        raise ValueError(
            f"each camera's visual tokens must be a square grid; got {num_visual} of {pixels_C3HW.shape[0]} cameras"
        )
    raw_C3HW = pixels_C3HW.float() / 2 + 0.5  # pi0 shows its tower -1 to 1
    patch_px = raw_C3HW.shape[-1] // side
    unfolded_CVP = F.unfold(raw_C3HW[..., : side * patch_px, : side * patch_px], patch_px, stride=patch_px)
    return unfolded_CVP.transpose(1, 2).flatten(0, 1)


def reusable(alike_N: Tensor, relevance_N: Tensor, fresh_N: Tensor, num_cameras: int, recipe: VLACache) -> Tensor:
    """Visual tokens that stand still and are not at work, the most alike first: int64."""
    alike_CP, relevance_CP = (x.view(num_cameras, -1) for x in (alike_N, relevance_N))
    num_tokens = alike_CP.shape[1]
    num_still, num_relevant = (round(share * num_tokens) for share in (recipe.still_share, recipe.relevant_share))
    order_CP = alike_CP.sort(dim=1, descending=True, stable=True).indices
    may_CP = torch.zeros_like(alike_CP, dtype=torch.bool).scatter(1, order_CP[:, :num_still], True)
    may_CP &= alike_CP >= recipe.same_cosine
    at_work = relevance_CP.sort(dim=1, descending=True, stable=True).indices[:, :num_relevant]
    may_CP = may_CP.scatter(1, at_work.to(may_CP.device), False)
    may_N = may_CP.flatten() & ~fresh_N
    order_N = alike_N.sort(descending=True, stable=True).indices
    return order_N[may_N[order_N]]


def reuse_shares(entropy_L: Tensor) -> Tensor:
    """What share of the reusable tokens each layer may leave out: float32 (L,), 0 to 1; less where attention spreads.

    Where all layers' attention is equally spread, nothing tells them apart, and each may reuse all.
    """
    entropy_L = entropy_L.cpu()  # a handful of numbers, compared one by one
    low, high = entropy_L.min(), entropy_L.max()
    if not bool(high > low):
        return torch.ones_like(entropy_L)
    shares_L = 1 - (entropy_L - low) / (high - low)
    for layer in range(1, len(shares_L)):
        rise = shares_L[layer] - shares_L[layer - 1]
        if rise > 0:
            shares_L[layer] = shares_L[layer - 1] + _RISE * rise
    return shares_L
