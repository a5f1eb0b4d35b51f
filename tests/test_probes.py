"""Queries that come with blocks: those that transformers computes before rotation, of the tokens that are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from millpond.encoders import FAMILIES, FrameTokens, Row, Text
from millpond.encoders.families.base_hf import HFVideoLLM
from millpond.memory import KVBlock
from millpond.stream import Span

from .tiny_readers import MODELS, dense, make, stream
from .watched import pictures, tiny

# Shapes: L layers, K key/value heads, H query heads, T tokens, P probing tokens, D channels per head.


class Queries:
    """Watches a text decoder's queries before rotation, layer by layer."""

    def __init__(self, decoder: nn.Module) -> None:
        self._seen: list[Tensor] = []
        self._attentions = [layer.self_attn for layer in decoder.layers]  # type: ignore[union-attr]
        for attention in self._attentions:
            last = attention.q_norm if hasattr(attention, "q_norm") else attention.q_proj
            last.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, given: object, x: Tensor) -> None:
        self._seen.append(x)

    def take(self) -> Tensor:
        """Averaged over each key/value head's query heads. Returns: (L, K, T, D)."""
        newest = self._seen[-len(self._attentions) :]
        q_LTHD = torch.stack([x.flatten(2)[0].unflatten(-1, (-1, self._attentions[0].head_dim)) for x in newest])
        group = self._attentions[0].num_key_value_groups
        return q_LTHD.unflatten(2, (-1, group)).mean(3).transpose(1, 2)


def places(num_tokens: int, num_probes: int) -> list[int]:
    """Ends of equal parts."""
    num_probes = min(num_probes, num_tokens)
    return [num_tokens * i // num_probes - 1 for i in range(1, num_probes + 1)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_probes", [1, 3, 1000])
def test_queries_are_those_of_transformers(name: str, num_probes: int) -> None:
    reader, twin = make(name)
    parts = stream(reader, 4)
    queries = Queries(twin.get_decoder())
    dense(reader, twin, parts)
    q_LKTD = queries.take()
    context, blocks = reader.new_context(), []
    for several in (parts[:2], parts[2:]):
        blocks += reader.read([Row(context, tuple(several))], num_probes=num_probes)[0]
    start = 0
    for part, block in zip(parts, blocks, strict=True):
        if isinstance(part, Text):
            assert block.q_LKPD is None
        else:
            assert block.q_LKPD is not None
            wanted = q_LKTD[:, :, [start + place for place in places(block.num_tokens, num_probes)]]
            assert block.q_LKPD.shape == wanted.shape
            torch.testing.assert_close(block.q_LKPD, wanted, rtol=1e-4, atol=2e-4)
        start += block.num_tokens
    assert start == q_LKTD.shape[2]


def read(model: HFVideoLLM, num_probes: int, seen: list[FrameTokens]) -> list[KVBlock]:
    prefix, rest = model.new_context(), model.new_context()
    model.read([Row(prefix, (model.prefix(),))])
    rows = [Row(prefix, tuple(seen[:2])), Row(rest, tuple(seen[2:]))]
    return [block for row in model.read(rows, num_probes=num_probes) for block in row]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_probing_changes_no_key_and_blocks_know_their_words(family: str) -> None:
    model = tiny(family)
    assert isinstance(model, HFVideoLLM)
    step = model.spec.frames_per_block
    frames = pictures(3 * step)
    seen = [model.see(frames[i : i + step])[0] for i in range(0, 3 * step, step)]
    plain = read(model, 0, seen)
    queries = Queries(model.text_model)
    probed = read(model, 5, seen)
    q_LKTD, start = queries.take(), 0
    for frame, a, b in zip(seen, plain, probed, strict=True):
        assert torch.equal(a.k_LKTD, b.k_LKTD) and torch.equal(a.v_LKTD, b.v_LKTD) and torch.equal(a.pos_3T, b.pos_3T)
        assert a.q_LKPD is None and b.q_LKPD is not None
        words = model.frame_text(frame.span)
        assert (b.num_before, b.num_after) == (len(words.before_ids), len(words.after_ids))
        assert (a.num_before, a.num_after) == (b.num_before, b.num_after)
        assert b.visual.stop - b.visual.start == frame.num_tokens
        wanted = q_LKTD[:, :, [start + place for place in places(b.num_tokens, 5)]]
        torch.testing.assert_close(b.q_LKPD, wanted, rtol=1e-5, atol=1e-5)
        start += b.num_tokens
    # A block owns its queries: a view would keep all of the call alive.
    for block in probed:
        assert block.q_LKPD is not None
        assert block.q_LKPD.untyped_storage().nbytes() == block.q_LKPD.numel() * block.q_LKPD.element_size()


def test_words_bring_no_queries_and_fewer_than_none_are_refused() -> None:
    reader, _ = make("qwen2")
    ((block,),) = reader.read([Row(reader.new_context(), (Text((1, 2, 3), Span(0, 1)),))], num_probes=4)
    assert block.q_LKPD is None and (block.num_before, block.num_after) == (0, 0)
    with pytest.raises(ValueError, match="must not be negative; got -1"):
        reader.read([Row(reader.new_context(), (Text((1,)),))], num_probes=-1)
