"""What real models' keys and values take at rest, and what recalling costs: published shapes, random weights."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..encoders.pixels import smart_size
from ..memory import CODECS, BlockId, KVBlock, KVSpec, Memory, MemoryConfig, PackedBlock
from ..memory.block import next_block_id
from ..memory.depot_keeper import DepotKeeper, read_blocks
from ..memory.depots.directory import DirectoryDepot
from ..memory.depots.writer import DepotWriter
from ..memory.keeper import Keeper
from ..memory.pruners.novel import Novel
from ..memory.retrievers import ByKeyRetriever
from ..stream import Span
from .bench_shapes import wait_for

# Shapes: L layers, K key/value heads, T tokens, D channels per head, S layers of the index, W width of the model.

NUM_ROWS = 100_000
REKV_FRAMES_PER_HOUR, REKV_TOKENS = 1800, 196

_RECENT_FRAMES = 8
_NUM_BLOCKS = 16  # beyond the recent window; where caps bite, a quarter of them fit
_NUM_WORDS = 8  # a block's time in text, and marks around its picture
_CHANGED_SHARE = 0.25  # of places, from one block to the next
_NOISE = 0.02
_NUM_RECALLED = 8
_WARM_UPS = 1

# What is compared at rest: a name, and how blocks are kept.
_KEPT: dict[str, dict[str, Any]] = {
    "plain": {"codec": "plain"},
    "int4": {"codec": "int4"},
    "int2": {"codec": "int2"},
    "novel+adaptive": {"codec": "adaptive", "pruner": Novel(keep_tokens=64, least=0.3, refresh_blocks=16)},
}


class Shape(NamedTuple):
    """A published model's language half. num_tokens: visual tokens of a block; picture: what they are of."""

    name: str
    spec: KVSpec
    num_tokens: int
    frames_per_block: int
    picture: str
    make_layer: Callable[[], tuple[nn.Module, nn.Module, int]]


def shapes() -> tuple[Shape, ...]:
    # Qwen3-VL's processor: patches of 16 pixels, 2 x 2 of them a token, two frames a block.
    height, width = smart_size(
        360, 640, factor=32, min_pixels=64 * 32 * 32, max_pixels=768 * 32 * 32, grow_to_factor=True
    )
    return (
        Shape("LLaVA-OneVision-7B", KVSpec(28, 4, 128, torch.bfloat16), 196, 1, "384x384", _qwen2_layer),
        Shape(
            "Qwen3-VL-8B",
            KVSpec(36, 8, 128, torch.bfloat16),
            height * width // 32**2,
            2,
            f"two frames of 640x360, seen as {width}x{height}",
            _qwen3_vl_layer,
        ),
    )


def measure_shapes(repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """A row for each shape."""
    return [measure_shape(shape, repeats, device) for shape in shapes()]


def measure_shape(shape: Shape, repeats: int, device: torch.device) -> dict[str, Any]:
    """Bytes an hour at 1 fps by tier, growth where caps bite, and dequantizing beside reading again."""
    kept = {name: _kept(shape, parts) for name, parts in _KEPT.items()}
    reread_s = _reread(shape, repeats, device)
    dequantize = {name: _dequantize(shape, name, repeats, device) for name in _KEPT if name != "plain"}
    return {
        "shape": shape.name,
        "layers": shape.spec.num_layers,
        "kv_heads": shape.spec.num_kv_heads,
        "head_dim": shape.spec.head_dim,
        "tokens_per_block": shape.num_tokens + _NUM_WORDS,
        "frames_per_block": shape.frames_per_block,
        "picture": shape.picture,
        "rekv_bytes_per_hour_at_half_fps": REKV_FRAMES_PER_HOUR * REKV_TOKENS * shape.spec.bytes_per_token,
        "kept": kept,
        "reread_s": reread_s,
        "dequantize": {
            name: {"dequantize_s": took_s, "reread_s": reread_s, "reread_over_dequantize": reread_s / took_s}
            for name, took_s in dequantize.items()
        },
    }


def measure_recall(repeats: int, *, num_rows: int = NUM_ROWS) -> dict[str, Any]:
    """The index of that many blocks of the 7B shape: time to choose 8 of them, and its bytes."""
    spec, recipe = shapes()[0].spec, ByKeyRetriever()
    index, rng = recipe.start(), torch.Generator().manual_seed(0)
    row_SKD = index.describe(_block(spec, 1, 0.0, rng))
    assert row_SKD is not None
    for number in range(num_rows):
        row = torch.nn.functional.normalize(torch.randn(row_SKD.shape, generator=rng), dim=-1).bfloat16()
        index.add(BlockId(number), row, float(number))
    query_LKD = torch.randn((spec.num_layers, spec.num_kv_heads, spec.head_dim), generator=rng)
    took_s = []
    for _ in range(_WARM_UPS + repeats):
        started_s = time.perf_counter()
        best = index.best(query_LKD, _NUM_RECALLED)
        took_s.append(time.perf_counter() - started_s)
    return {
        "num_blocks": num_rows,
        "num_recalled": len(best),
        "recall_ms": 1000 * statistics.median(took_s[_WARM_UPS:]),
        "index_bytes": index.num_bytes,
        "row_bytes": row_SKD.nbytes,
    }


def random_blocks(shape: Shape, num_blocks: int) -> Iterator[KVBlock]:
    """Blocks of a stream in which a quarter of the places change from one to the next, the others but for noise."""
    rng = torch.Generator().manual_seed(0)
    block = _block(shape.spec, shape.num_tokens, 0.0, rng)
    num_changed = round(_CHANGED_SHARE * shape.num_tokens)
    for number in range(num_blocks):
        yield block
        changed_T = torch.randperm(shape.num_tokens, generator=rng)[:num_changed] + _NUM_WORDS
        new = _block(shape.spec, shape.num_tokens, (number + 1.0) * shape.frames_per_block, rng)
        k_LKTD, v_LKTD = (old + _NOISE * fresh for old, fresh in _pairs(block, new))
        k_LKTD[:, :, changed_T], v_LKTD[:, :, changed_T] = new.k_LKTD[:, :, changed_T], new.v_LKTD[:, :, changed_T]
        block = KVBlock(
            k_LKTD, v_LKTD, new.pos_3T, new.advance, new.span, num_before=new.num_before, num_after=new.num_after
        )


class _Last(Keeper):
    """Remembers the last block that was brought to rest, and adds up what they take."""

    def __init__(self) -> None:
        self.num_kept = self.kept_bytes = 0
        self.last: PackedBlock | None = None

    def arrived(self, block: KVBlock) -> None:
        """It is exact still."""

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        self.num_kept += 1
        self.kept_bytes += block.num_bytes + (0 if row is None else row.nbytes)
        self.last = block

    def let_go(self, ids: Iterable[BlockId]) -> None:
        """What was held counts, not for how long."""


def _kept(shape: Shape, parts: dict[str, Any]) -> dict[str, Any]:
    """T0 is a constant; T1 grows by what a block takes with its row of the index, and no more once it is full."""
    count = _Last()
    memory = Memory(MemoryConfig(recent_frames=_RECENT_FRAMES, **parts), count)
    for block in random_blocks(shape, _RECENT_FRAMES + _NUM_BLOCKS):
        if len(memory.recent) + len(memory.older) == _RECENT_FRAMES + _NUM_BLOCKS // 2:
            count.num_kept = count.kept_bytes = 0  # the first picture is all new, and counts for no hour
        memory.append(block)
    block_bytes = count.kept_bytes / count.num_kept
    budget_bytes = round(_NUM_BLOCKS // 4 * block_bytes)
    capped = Memory(MemoryConfig(recent_frames=_RECENT_FRAMES, budget_bytes=budget_bytes, **parts))
    held: list[int] = []
    for block in random_blocks(shape, _RECENT_FRAMES + _NUM_BLOCKS):
        capped.append(block)
        if capped.stats.num_evicted:
            held.append(capped.stats.older_bytes + capped.stats.index_bytes)
    whole_bytes = (shape.num_tokens + _NUM_WORDS) * shape.spec.bytes_per_token
    return {
        "t0_bytes": memory.stats.recent_bytes,
        "t1_bytes_per_hour": block_bytes * 3600 / shape.frames_per_block,
        "ratio": whole_bytes / block_bytes,
        "capped_at_bytes": budget_bytes,
        "most_when_capped_bytes": max(held),
        "growth_when_full_bytes": max(held[len(held) // 2 :]) - max(held[: len(held) // 2]),
    }


def measure_reopening(repeats: int, budget_bytes: int = 512 * 2**20) -> dict[str, Any]:
    """Seconds until a directory whose T1 is full, of blocks of the first shape as int4, is a memory again."""
    config = MemoryConfig(recent_frames=1, budget_bytes=budget_bytes, codec="int4")
    with TemporaryDirectory() as folder:
        depot = DirectoryDepot(folder)
        writer = DepotWriter(depot, queue_bytes=budget_bytes, patience_s=60.0)
        memory = Memory(config, DepotKeeper(writer, ""))
        blocks = list(random_blocks(shapes()[0], 4))
        held = itertools.count()
        while not memory.stats.num_evicted:
            at_s = float(next(held))
            memory.append(replace(blocks[int(at_s) % len(blocks)], span=Span(at_s, at_s), id=next_block_id()))
        writer.flush(600.0)
        writer.close()
        depot.close()

        def reopen() -> None:
            with closing(DirectoryDepot(folder, read_only=True)) as reopened:
                again = Memory(config)
                again.restore(read_blocks(reopened, "").blocks)
                if len(again.older) != len(memory.older):
                    raise RuntimeError(f"{len(memory.older)} blocks were kept, {len(again.older)} came back")

        took_s = _median_s(reopen, repeats, torch.device("cpu"))
        return {"reopen_s": took_s, "num_blocks": len(memory.older), "t1_bytes": memory.stats.older_bytes}


def _dequantize(shape: Shape, name: str, repeats: int, device: torch.device) -> float:
    """Seconds to unpack one block that is recalled, of those that stand for a usual one."""
    count = _Last()
    memory = Memory(MemoryConfig(recent_frames=1, **_KEPT[name]), count)
    for block in random_blocks(shape, 5):
        memory.append(block)
    packed, codec = count.last, CODECS[_KEPT[name]["codec"]]()
    assert packed is not None
    packed = replace(packed, buffers={key: x.to(device) for key, x in packed.buffers.items()})
    return _median_s(lambda: codec.unpack(packed), repeats, device)


def _reread(shape: Shape, repeats: int, device: torch.device) -> float:
    """Seconds to read a block's tokens through the language half again: one layer's time, as often as there are layers.

    Nothing stands before them, and the vision half is not counted: both would make it longer.
    """
    num_tokens = shape.num_tokens + _NUM_WORDS
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer, rotary, width = shape.make_layer()
        x_1TW = torch.randn(1, num_tokens, width).to(device, torch.bfloat16)
    layer, rotary = layer.eval().to(device, torch.bfloat16), rotary.to(device)
    with torch.inference_mode():
        at = rotary(x_1TW, torch.arange(num_tokens, device=device)[None])
        took_s = _median_s(lambda: layer(x_1TW, position_embeddings=at), repeats, device)
    return took_s * shape.spec.num_layers


def _median_s(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    took_s = []
    with torch.inference_mode():
        for _ in range(_WARM_UPS + repeats):
            wait_for(device)
            started_s = time.perf_counter()
            call()
            wait_for(device)
            took_s.append(time.perf_counter() - started_s)
    return statistics.median(took_s[_WARM_UPS:])


def _qwen2_layer() -> tuple[nn.Module, nn.Module, int]:
    """A decoder layer of Qwen2-7B, its rotary module, and its width."""
    from transformers import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

    config = Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
    )
    config._attn_implementation = "sdpa"
    return Qwen2DecoderLayer(config, 0), Qwen2RotaryEmbedding(config), config.hidden_size


def _qwen3_vl_layer() -> tuple[nn.Module, nn.Module, int]:
    """A decoder layer of Qwen3-VL-8B, its rotary module, and its width."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer, Qwen3VLTextRotaryEmbedding

    config = Qwen3VLTextConfig(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        rope_parameters={"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    )
    config._attn_implementation = "sdpa"
    return Qwen3VLTextDecoderLayer(config, 0), Qwen3VLTextRotaryEmbedding(config), config.hidden_size


def _block(spec: KVSpec, num_tokens: int, start_s: float, rng: torch.Generator) -> KVBlock:
    num = num_tokens + _NUM_WORDS
    shape = (spec.num_layers, spec.num_kv_heads, num, spec.head_dim)
    k_LKTD, v_LKTD = (torch.randn(shape, generator=rng, dtype=torch.float32).to(spec.dtype) for _ in range(2))
    pos_3T = torch.arange(num).expand(3, -1).contiguous()
    return KVBlock(k_LKTD, v_LKTD, pos_3T, num, Span(start_s, start_s), num_before=_NUM_WORDS)


def _pairs(old: KVBlock, new: KVBlock) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (old.k_LKTD, new.k_LKTD), (old.v_LKTD, new.v_LKTD)
