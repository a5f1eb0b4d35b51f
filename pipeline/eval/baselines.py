"""Baselines and peers: what Millpond is measured against, each a configuration of parts that are here.

A row is a function; its docstring says what it is, where it comes from and how it differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from inspect import getdoc
from typing import Any

from ...encoders.compressors import COMPRESSORS, Compressor
from ...encoders.reuse import REUSERS
from ...memory import MemoryConfig
from ...memory.pruners.novel import Novel
from ..config import EngineConfig, HistoryConfig, NarrationConfig
from ..engine import MINI_MEMORY
from .blind import Blind
from .everything import Everything
from .method import EvalMethod, Show, unchanged
from .narrating import Narrating
from .showing import LookedBack, Streamed

BUILT_IN = "millpond/mini"

# As many frames at a time as the built-in model was trained to read.
_MINI_FRAMES = 64
# A quarter of the built-in model's 36 tokens a frame; of real ones, what the method itself keeps.
_MINI_KEEP_TOKENS = 9
# Of blocks that no stream here has so many of.
_ALL_BLOCKS = 10**6


def blind() -> EvalMethod:
    """Millpond's defaults on black frames: what the words of a question give away.

    Baseline: chance, and what suites let slip.
    Differs from the paper: None.
    """
    return _method("blind", blind, Blind(watching=Streamed()))


def dense() -> EvalMethod:
    """Everything, exact and in context, for as long as it fits; every question after that is refused.

    Baseline: what compression is measured against.
    Differs from the paper: None.
    """
    return _method("dense", dense, Everything(), lambda base: _plain(base, recent_frames=_ALL_BLOCKS))


def last(num_frames: int) -> EvalMethod:
    """The last frames only, read anew for every question.

    Paper: A Simple Baseline for Streaming Video Understanding (arXiv 2604.02317); it takes 4 frames
    Differs from the paper: frames carry their times in text, and a model that joins two frames in time joins these,
        where it is given images; a frame has as many pixels as in every other row.
    """
    config = _room_for(num_frames)
    return _method(f"last-{num_frames}", last, LookedBack(num_frames=num_frames, choose="last"), config)


def uniform(num_frames: int) -> EvalMethod:
    """Frames at even steps from all of the past, read anew for every question.

    Baseline: what offline models do with a long video.
    Differs from the paper: None.
    """
    config = _room_for(num_frames)
    return _method(f"uniform-{num_frames}", uniform, LookedBack(num_frames=num_frames, choose="uniform"), config)


def fifo(num_blocks: int) -> EvalMethod:
    """A sliding window of exact keys and values: first in, first out.

    Baseline: a bounded cache without a memory.
    Differs from the paper: None.
    """
    return _method(f"fifo-{num_blocks}", fifo, Streamed(), lambda base: _plain(base, recent_frames=num_blocks))


def streaming_llm() -> EvalMethod:
    """Attention sinks and the model's usual window, nothing in between.

    Paper: Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453)
    Differs from the paper: sinks are the prompt, all of it, and the window is counted in frames. The prompt is a sink
        in every row here, so this is `fifo` with the window that suits the model.
    """

    def config(base: EngineConfig) -> EngineConfig:
        usual = usual_memory(base)
        return _plain(base, recent_frames=usual.recent_frames, pruner="streaming_llm")

    return _method("streaming-llm", streaming_llm, Streamed(), config)


def timer() -> EvalMethod:
    """Says every 10 s what is new, and answers from the newest frames and from what it said.

    Baseline: narration by the clock, which triggers by novelty have to beat.
    Differs from the paper: None.
    """
    by_clock = NarrationConfig(min_gap_s=10.0, max_gap_s=10.0)
    return _method("timer", timer, Narrating(), lambda base: _from_notes(replace(base, narration=by_clock)))


def narrator() -> EvalMethod:
    """Says what is new when the picture changed, and answers from the newest frames and from what it said.

    Baseline: Millpond's own trigger, with nothing else of its memory; beside `timer`.
    Differs from the paper: None.
    """
    return _method("narrator", narrator, Narrating(), _from_notes)


def rekv() -> EvalMethod:
    """Full keys and values of the whole stream; each layer recalls the 64 frames that fit the question best there.

    Paper: Streaming Video Question-Answering with In-context Video KV-Cache Retrieval (arXiv 2503.00540)
    Differs from the paper: the recent window is always in context, where ReKV's must be retrieved; frames are read
        after that window, the model's usual one, where ReKV's is 15,000 tokens; the built-in model recalls as many as
        make 64 with the window; bytes are capped, and the oldest go.
    """
    return _method("rekv", rekv, Streamed(), _rekv)


def stc_cacher() -> EvalMethod:
    """ReKV with STC-Cacher in the vision tower: every other frame computes a quarter of its patches.

    Paper: Accelerating Streaming Video Large Language Models via Hierarchical Token Compression (arXiv 2512.00891)
    Differs from the paper: as `rekv` and the reuser `stc` do.
    """
    return _method("stc-cacher", stc_cacher, Streamed(), lambda base: replace(_rekv(base), reuse=REUSERS["stc"]()))


def stc_pruner() -> EvalMethod:
    """ReKV with STC-Pruner after it: a frame keeps the tokens farthest from its own mean and from that of the past.

    Paper: Accelerating Streaming Video Large Language Models via Hierarchical Token Compression (arXiv 2512.00891)
    Differs from the paper: as `rekv` and the compressor `stc_pruner` do; the recent window stays whole.
    """
    return _method("stc-pruner", stc_pruner, Streamed(), _with_stc_pruner)


def stc() -> EvalMethod:
    """ReKV with STC-Cacher in the tower and STC-Pruner after it.

    Paper: Accelerating Streaming Video Large Language Models via Hierarchical Token Compression (arXiv 2512.00891)
    Differs from the paper: as `rekv`, the reuser `stc` and the compressor `stc_pruner` do; the recent window stays
        whole.
    """
    return _method("stc", stc, Streamed(), lambda base: replace(_with_stc_pruner(base), reuse=REUSERS["stc"]()))


def millpond() -> EvalMethod:
    """Millpond as it comes.

    Baseline: Millpond's defaults.
    Differs from the paper: None.
    """
    return _method("millpond", millpond, Streamed())


def millpond_small() -> EvalMethod:
    """Millpond with the least bytes at rest: only what is new in a block, at about 2 bits.

    Baseline: Millpond's own; the codec is KIVI's (arXiv 2402.02750).
    Differs from the paper: as the codec `adaptive` does.
    """

    def config(base: EngineConfig) -> EngineConfig:
        pruner = Novel(keep_tokens=16, least=0.3, refresh_blocks=16) if base.model == BUILT_IN else Novel()
        return with_memory(base, pruner=pruner, codec="adaptive")

    return _method("millpond-small", millpond_small, Streamed(), config)


def usual_memory(base: EngineConfig) -> MemoryConfig:
    """What an engine with these settings remembers with."""
    return base.memory or (MINI_MEMORY if base.model == BUILT_IN else MemoryConfig())


def with_memory(base: EngineConfig, **parts: Any) -> EngineConfig:
    """The same settings with other parts of memory."""
    return replace(base, memory=replace(usual_memory(base), **parts))


def keeping_few(base: EngineConfig, method: Any) -> Any:
    """A method that keeps a count of a frame's tokens, with the count that suits the model; another as it is."""
    if base.model != BUILT_IN or getattr(method, "keep_tokens", None) is None:
        return method
    return replace(method, keep_tokens=_MINI_KEEP_TOKENS)


def about(row: object) -> str:
    """What a row's docstring says first, with the id of its paper."""
    doc = getdoc(row) or ""
    said = " ".join(doc.split("\n\n")[0].split()).removesuffix(".")
    paper = re.search(r"\(arXiv \S+\)", doc)
    return f"{said} {paper[0]}." if paper else f"{said}."


def _method(
    name: str,
    row: Callable[..., EvalMethod],
    show: Show,
    config: Callable[[EngineConfig], EngineConfig] = unchanged,
) -> EvalMethod:
    return EvalMethod(name=name, about=about(row), show=show, config=config)


def _plain(base: EngineConfig, **memory: Any) -> EngineConfig:
    """Every frame whole, computed whole; exact keys and values, no history."""
    parts: dict[str, Any] = {"budget_bytes": 0, "recall_blocks": 0, "pruner": "none", "codec": "plain"} | memory
    return replace(
        base,
        gate="none",
        reuse="none",
        compressor="none",
        memory=MemoryConfig(**parts),
        history=replace(base.history, gate="never", archive_bytes=0),
    )


def _room_for(num_frames: int) -> Callable[[EngineConfig], EngineConfig]:
    return lambda base: _plain(base, recent_frames=num_frames)


def _from_notes(base: EngineConfig) -> EngineConfig:
    """No older keys and values: what is recalled are lines, and the moments they are about."""
    plain = _plain(base, recent_frames=usual_memory(base).recent_frames, recall_blocks=8)
    return replace(plain, history=HistoryConfig(gate="always", num_reads=8))


def _rekv(base: EngineConfig) -> EngineConfig:
    usual = usual_memory(base)
    num_recalled = _MINI_FRAMES - usual.recent_frames if base.model == BUILT_IN else 64
    plain = _plain(
        base,
        recent_frames=usual.recent_frames,
        budget_bytes=max(usual.budget_bytes, 4 * 2**30),
        recall_blocks=max(1, num_recalled),
        retriever="per_layer",
    )
    return replace(plain, history=replace(plain.history, gate="always"))


def _with_stc_pruner(base: EngineConfig) -> EngineConfig:
    pruner: Compressor = COMPRESSORS["stc_pruner"]()
    return replace(_rekv(base), compressor=keeping_few(base, pruner))
