"""4 bits for the tokens that matter, 2 for the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVSpec
from .bits import pack_codes, packed_bytes, unpack_codes
from .grid import Grid, Layout
from .lossy import LossyCodec

# Shapes: L layers, K key/value heads, T tokens, D channels per head, P probe tokens.

_SALIENT_SHARE = 0.6
_PROBES = 64
_WHOLE = 1 << 30  # one group: all channels of a head
_KEYS = {"salient": Grid(16, group=256), "rest": Grid(4, group=256)}
_VALUES = {"salient": Grid(16, group=_WHOLE), "rest": Grid(4, group=_WHOLE)}


@dataclass(frozen=True)
class ZipCacheCodec(LossyCodec):
    """Of each layer and head the 60 % most salient tokens at 4 bits, the others at 2.

    Keys are coded per channel, each kind of token with its own levels. Values are divided, channel by channel, by
    the square root of the channel's largest magnitude, and coded per token over all channels. Off by at most
    1/3 of the largest magnitude (2-bit tokens), and rounding to the block's dtype.

    Paper: ZipCache: Accurate and Efficient KV Cache Quantization with Salient Token Identification (arXiv 2405.14256)
    Differs from the paper: no queries are kept at rest, so saliency is measured with the block's own keys in their
        place, divided by the head's root mean square: attention of up to 64 evenly spaced tokens to all others of
        the block (it is read whole, later), summed by column and divided by the number of probes; the paper probes
        with the last 5 % and a random 5 % of real queries, causally. It is chosen once, when the block is packed,
        not again every 100 tokens, and by layer and head. Keys are in groups of 256 tokens.
    """

    name: ClassVar[str] = "zipcache"
    worst_error: ClassVar[float] = 0.34
    min_tokens: ClassVar[int] = 2

    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        heads = (spec.num_layers, spec.num_kv_heads)
        layout: Layout = {
            "is_salient": (torch.uint8, (packed_bytes(heads[0] * heads[1] * num_tokens, 2),)),
            "v_channel": (torch.float16, (*heads, spec.head_dim)),
        }
        for kind, tokens in _tokens_of_kinds(num_tokens).items():
            layout |= _KEYS[kind].layout(f"k_{kind}", (*heads, spec.head_dim, tokens))
            layout |= _VALUES[kind].layout(f"v_{kind}", (*heads, tokens, spec.head_dim))
        return layout

    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        tokens = _tokens_of_kinds(k_LKTD.shape[2])
        saliency_LKT = _saliency(k_LKTD)
        is_salient_LKT = torch.zeros_like(saliency_LKT, dtype=torch.uint8)
        is_salient_LKT.scatter_(-1, saliency_LKT.topk(tokens["salient"]).indices, 1)
        order_LKTD = _salient_first(is_salient_LKT)[..., None].expand_as(k_LKTD)
        channel_LKD = v_LKTD.abs().amax(2).sqrt().half()
        divisor_LK1D = channel_LKD.float().clamp(min=2**-24).unsqueeze(2)
        ks = torch.split(k_LKTD.gather(2, order_LKTD), list(tokens.values()), dim=2)
        vs = torch.split((v_LKTD / divisor_LK1D).gather(2, order_LKTD), list(tokens.values()), dim=2)
        buffers = {"is_salient": pack_codes(is_salient_LKT, 2), "v_channel": channel_LKD}
        for kind, k, v in zip(tokens, ks, vs, strict=True):
            buffers |= _KEYS[kind].encode(f"k_{kind}", k.mT.contiguous()) | _VALUES[kind].encode(f"v_{kind}", v)
        return buffers

    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        heads, ks, vs = (spec.num_layers, spec.num_kv_heads), [], []
        for kind, tokens in _tokens_of_kinds(num_tokens).items():
            ks.append(_KEYS[kind].decode(buffers, f"k_{kind}", (*heads, spec.head_dim, tokens)).mT)
            vs.append(_VALUES[kind].decode(buffers, f"v_{kind}", (*heads, tokens, spec.head_dim)))
        is_salient_LKT = unpack_codes(buffers["is_salient"], 2, (*heads, num_tokens))
        place_LKT = _salient_first(is_salient_LKT).argsort(-1)
        k_LKTD, v_LKTD = torch.cat(ks, dim=2), torch.cat(vs, dim=2)
        place_LKTD = place_LKT[..., None].expand_as(k_LKTD)
        v_LKTD = v_LKTD.gather(2, place_LKTD) * buffers["v_channel"].float().unsqueeze(2)
        return k_LKTD.gather(2, place_LKTD), v_LKTD


def _tokens_of_kinds(num_tokens: int) -> dict[str, int]:
    """How many tokens are of each kind: at least one."""
    salient = min(max(round(_SALIENT_SHARE * num_tokens), 1), num_tokens - 1)
    return {"salient": salient, "rest": num_tokens - salient}


def _salient_first(is_salient_LKT: Tensor) -> Tensor:
    """The tokens of each head, salient ones first, each kind in order of time."""
    return is_salient_LKT.argsort(dim=-1, descending=True, stable=True)


def _saliency(k_LKTD: Tensor) -> Tensor:
    """Mean attention that each token gets from the probes other than itself."""
    num_tokens, head_dim = k_LKTD.shape[2:]
    k_LKTD = k_LKTD / k_LKTD.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=2**-24)
    place_T = torch.arange(num_tokens, device=k_LKTD.device)
    num_probes = min(_PROBES, num_tokens)
    place_P = (torch.arange(1, num_probes + 1, device=k_LKTD.device) * num_tokens) // num_probes - 1
    is_own_PT = place_T == place_P[:, None]  # a key is most like itself, which says nothing about its use
    logits_LKPT = k_LKTD[:, :, place_P] @ k_LKTD.mT / head_dim**0.5
    attention_LKPT = logits_LKPT.masked_fill_(is_own_PT, float("-inf")).softmax(-1)
    saliency_LKT: Tensor = attention_LKPT.sum(2) / (~is_own_PT).sum(0)
    return saliency_LKT
