"""Right answers against bytes of keys and values: codecs, pruners and retrievers, on worlds asked while they run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ..encoders import Row, Text, VideoLLM
from ..memory import CODECS, PRUNERS, BlockId, KVBlock, KVSpec, Memory, MemoryConfig, PackedBlock, Pruner, Recall
from ..memory.codecs.plain import PlainCodec
from ..memory.keeper import Keeper
from ..memory.pruners.key_diff import KeyDiff
from ..memory.pruners.novel import Novel
from ..memory.recall_gate import RECALL_GATES
from ..stream import Frame
from ..stream.truth import Asked
from .bench_mini import wilson
from .bench_worlds import FIRST_SEED, ask_along, make_clip
from .engine import NUM_PROBES
from .generate import Prompt, generate

# Shapes: L layers, K key/value heads, D channels per head.

RECENT_FRAMES = 4
SHORT_FRAMES, LONG_FRAMES = 16, 32
FULL, TARGET = "full", "key_diff+adaptive"
KEEP_TOKENS = 9  # of the built-in model's 37 a frame

_EVERYTHING = 1000  # blocks: more than any world has
_CHUNK_FRAMES = 4
_WORLDS_AT_ONCE = 8
_ROWS_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to remember: settings of memory, and which questions open what is older than the recent window.

    about: what is varied: "codec", "pruner", "both" or "recall".
    """

    name: str
    about: str
    memory: MemoryConfig
    gate: str = "always"


@dataclass(frozen=True)
class HalvedCodec(PlainCodec):
    """Keys and values rounded to bfloat16: what other models hold, and what compression is measured against."""

    name: ClassVar[str] = "bfloat16"
    worst_error: ClassVar[float] = 0.004

    def pack(self, block: KVBlock) -> PackedBlock:
        packed = super().pack(block)
        buffers = {name: x.bfloat16() if name in ("k", "v") else x for name, x in packed.buffers.items()}
        return replace(packed, buffers=buffers)

    def unpack(self, packed: PackedBlock) -> KVBlock:
        wide = {name: x.to(packed.spec.dtype) if name in ("k", "v") else x for name, x in packed.buffers.items()}
        return super().unpack(replace(packed, buffers=wide))


class Told(NamedTuple):
    """A question of a world, with what the model makes of it before anything is recalled."""

    asked: Asked
    text: Text
    query_LKD: Tensor
    margin: float


class ReadWorld(NamedTuple):
    """A world as the model has read it, once for all methods; questions by how many blocks they are asked after."""

    sink: KVBlock
    blocks: tuple[KVBlock, ...]
    told: dict[int, list[Told]]


class Tried(NamedTuple):
    """One method on some worlds: answers, which of them are right, and the bytes of what left the recent window."""

    answers: tuple[str, ...] = ()
    right: tuple[bool, ...] = ()
    whole_bytes: int = 0
    kept_bytes: int = 0
    index_bytes: int = 0
    num_left: int = 0

    def __add__(self, other: object) -> Tried:
        assert isinstance(other, Tried)
        return Tried(
            self.answers + other.answers,
            self.right + other.right,
            self.whole_bytes + other.whole_bytes,
            self.kept_bytes + other.kept_bytes,
            self.index_bytes + other.index_bytes,
            self.num_left + other.num_left,
        )


def target_pruner() -> Pruner:
    """What worlds from seed 5000 on showed to be enough."""
    return KeyDiff(keep_tokens=6)


def novel_pruner() -> Pruner:
    """It keeps what changed, so blocks differ in bytes: the harder case for what is to be bounded."""
    return Novel(keep_tokens=16, least=0.3, refresh_blocks=16)


def methods(num_frames: int) -> list[Method]:
    """All that are compared; fewer for longer worlds. The first is the one that all others are held against."""
    target: dict[str, Any] = {"pruner": target_pruner(), "codec": "adaptive"}
    found = [_method(FULL, "codec")]
    if num_frames == SHORT_FRAMES:
        halved = HalvedCodec()
        found.append(_method("codec bfloat16", "codec", codec=halved))
        found += [_method(f"codec {name}", "codec", codec=name) for name in CODECS if name != "plain"]
        pruners = [name for name in PRUNERS if name != "none"]
        found += [_method(f"pruner {name}", "pruner", pruner=_few(name), codec=halved) for name in pruners]
        found += [_method(f"{name}+int2", "both", pruner=_few(name), codec="int2") for name in ("live_vlm", "look_m")]
    codecs = ("int4", "vidkv", "adaptive")
    found += [_method(f"novel+{name}", "both", pruner=novel_pruner(), codec=name) for name in codecs]
    found.append(_method(TARGET, "both", **target))
    kept: tuple[tuple[str, dict[str, Any]], ...] = (("", {}), (f" of {TARGET}", target))
    for label, parts in kept:
        for num_blocks in (8, 4) if num_frames == SHORT_FRAMES else (16, 8, 4):
            for retriever in ("by_key_and_novelty", "by_novelty", "by_key", "per_layer", "recent"):
                name = f"{num_blocks} {retriever}{label}"
                found.append(_method(name, "recall", retriever=retriever, recall_blocks=num_blocks, **parts))
        found += [_method(f"gate {gate}{label}", "recall", gate=gate, **parts) for gate in ("words", "auto")]
    found.append(_method("no recall", "recall", recall_blocks=0))
    return found


def measure_answers(model: VideoLLM, num_worlds: int, num_frames: int) -> list[dict[str, Any]]:
    """A row for each method, over so many worlds that training never saw."""
    tried = dict.fromkeys((method.name for method in methods(num_frames)), Tried())
    for first in range(FIRST_SEED, FIRST_SEED + num_worlds, _WORLDS_AT_ONCE):
        worlds = read_worlds(model, range(first, min(first + _WORLDS_AT_ONCE, FIRST_SEED + num_worlds)), num_frames)
        for method in methods(num_frames):
            tried[method.name] += try_method(model, method, worlds)
    full = tried[FULL]
    return [
        {
            "name": method.name,
            "about": method.about,
            "settings": _settings(method),
            "num_frames": num_frames,
            **_figures(tried[method.name], full),
        }
        for method in methods(num_frames)
    ]


def read_worlds(model: VideoLLM, seeds: Iterable[int], num_frames: int) -> list[ReadWorld]:
    """As a session with a small recent window reads them: each block after the sink and the newest blocks only."""
    worlds = [_world(seed, num_frames) for seed in seeds]
    contexts = [model.new_context() for _ in worlds]
    sinks = [blocks[0] for blocks in model.read([Row(context, (model.prefix(),)) for context in contexts])]
    memories = [Memory(MemoryConfig(recent_frames=RECENT_FRAMES, budget_bytes=0)) for _ in worlds]
    blocks: list[list[KVBlock]] = [[] for _ in worlds]
    told: list[dict[int, list[Told]]] = [{} for _ in worlds]
    for memory, sink in zip(memories, sinks, strict=True):
        memory.add_sink(sink)
    for start in range(0, num_frames, _CHUNK_FRAMES):
        stop = start + _CHUNK_FRAMES
        tokens = [model.see(frames[start:stop]) for frames, _ in worlds]
        rows = [Row(context, tuple(seen)) for context, seen in zip(contexts, tokens, strict=True)]
        for i, read in enumerate(model.read(rows, num_probes=NUM_PROBES)):
            blocks[i] += read
            for block in read:
                memories[i].append(block)
            model.fill(contexts[i], memories[i].context())
            asked = worlds[i][1].get(stop, [])
            told[i][len(blocks[i])] = [
                _tell(model, Row(contexts[i], (model.question(one.question),)), one) for one in asked
            ]
    return [ReadWorld(sink, tuple(own), one) for sink, own, one in zip(sinks, blocks, told, strict=True)]


def try_method(model: VideoLLM, method: Method, worlds: Sequence[ReadWorld]) -> Tried:
    """What a memory of its own answers from the same blocks, and what it holds of them."""
    gate, count = RECALL_GATES[method.gate](), _Count()
    asked: list[tuple[list[KVBlock], Told]] = []
    whole_bytes = num_left = 0
    for world in worlds:
        memory = Memory(method.memory, count)
        memory.add_sink(world.sink)
        num_taken = 0
        for num_blocks, told in world.told.items():
            for block in world.blocks[num_taken:num_blocks]:
                memory.append(block)
            num_taken = num_blocks
            for one in told:
                recall = memory.recall(one.query_LKD) if gate.opens(one.asked.question, one.margin) else Recall()
                asked.append((memory.context(recall), one))
        left = world.blocks[: num_taken - RECENT_FRAMES]
        num_left += len(left)
        whole_bytes += sum(block.num_tokens * _bfloat16_bytes(block.spec) for block in left)
    answers = _answer(model, asked)
    right = tuple(text == one.asked.answer for text, (_, one) in zip(answers, asked, strict=True))
    return Tried(tuple(answers), right, whole_bytes, count.kept_bytes, count.index_bytes, num_left)


class _Count(Keeper):
    """Adds up what blocks take at rest."""

    def __init__(self) -> None:
        self.kept_bytes = self.index_bytes = 0

    def arrived(self, block: KVBlock) -> None:
        """It is exact still."""

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        self.kept_bytes += block.num_bytes
        self.index_bytes += 0 if row is None else row.nbytes

    def let_go(self, ids: Iterable[BlockId]) -> None:
        """What was held counts, not for how long."""


def _method(name: str, about: str, *, gate: str = "always", **parts: Any) -> Method:
    """Everything older is recalled, unless the parts say otherwise."""
    settings: dict[str, Any] = {"retriever": "recent", "recall_blocks": _EVERYTHING, "codec": "plain"} | parts
    return Method(name=name, about=about, gate=gate, memory=MemoryConfig(recent_frames=RECENT_FRAMES, **settings))


def _few(name: str) -> Pruner:
    return replace(PRUNERS[name](), keep_tokens=KEEP_TOKENS)


def _settings(method: Method) -> str:
    """What of the pruner differs from its defaults."""
    pruner = method.memory.pruner
    if isinstance(pruner, str):
        return ""
    usual = type(pruner)()
    changed = {f.name: getattr(pruner, f.name) for f in fields(pruner)}
    return ", ".join(f"{name}={value}" for name, value in changed.items() if value != getattr(usual, name))


def _world(seed: int, num_frames: int) -> tuple[list[Frame], dict[int, list[Asked]]]:
    """A world's frames, and questions by the number of frames after which they are asked: half, three quarters, all."""
    clip = make_clip(seed, num_frames)
    return clip.frames, ask_along(clip, seed, (num_frames // 2, num_frames * 3 // 4, num_frames))


def _tell(model: VideoLLM, row: Row, one: Asked) -> Told:
    mark = row.context.mark()
    best = model.step([row])[0].softmax(dim=-1).topk(2).values
    row.context.rewind(mark)
    (text,) = row.parts
    assert isinstance(text, Text)
    return Told(one, text, model.probe(row), float(best[0] - best[1]))


def _answer(model: VideoLLM, asked: Sequence[tuple[list[KVBlock], Told]]) -> list[str]:
    texts: list[str] = []
    for first in range(0, len(asked), _ROWS_AT_ONCE):
        prompts = []
        for blocks, one in asked[first : first + _ROWS_AT_ONCE]:
            context = model.new_context()
            model.fill(context, blocks)
            prompts.append(Prompt(context=context, question=one.text, max_new_tokens=32))
        texts += [generated.text for generated in generate(model, prompts)]
    return texts


def _bfloat16_bytes(spec: KVSpec) -> int:
    """Of one token."""
    return spec.bytes_per_token // spec.dtype.itemsize * 2


def _figures(one: Tried, full: Tried) -> dict[str, Any]:
    num = len(one.right)
    pairs = list(zip(full.right, one.right, strict=True))
    return {
        "kv_bytes_per_block": one.kept_bytes / one.num_left,
        "index_bytes_per_block": one.index_bytes / one.num_left,
        "compression_ratio": one.whole_bytes / one.kept_bytes if one.kept_bytes else None,
        "accuracy": sum(one.right) / num,
        "interval": wilson(sum(one.right), num),
        "answers_kept": sum(one.right) / sum(full.right),
        "agreement": sum(a == b for a, b in zip(one.answers, full.answers, strict=True)) / num,
        "num_lost": sum(was and not still for was, still in pairs),
        "num_won": sum(still and not was for was, still in pairs),
        "num_questions": num,
    }
