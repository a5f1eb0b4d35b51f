"""`millpond bench real`: models of the real architectures, one after the other, in true time and memory."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .bench import Bench
from .bench_real_language import measure_language
from .bench_real_models import PeakMemory, let_go, make_real, room_for
from .bench_real_shapes import REAL_SHAPES, RealShape
from .bench_real_tower import LONGEST_CYCLE, Moving, measure_tower, measure_tower_memory, moving_clips
from .bench_shapes import machine, wait_for
from .bench_streams_packed import PackedPlan, measure_packed

_log = logging.getLogger(__name__)

_GIB = 2**30
# What bench_streams_packed lets a stream keep of its features, on both of its sides.
_FEATURE_BYTES_A_STREAM = 2 * 2**28


@dataclass(frozen=True)
class RealPlan:
    """How much is measured of each model.

    num_blocks: of a clip, timed in each pass; whole cycles of STC-Cacher. A block is a frame, or the two that a tower
        joins.
    prefill_frames, num_decoded: frames that are read at once, and tokens after them.
    num_streams, stream_frames, recent_frames, num_answers: as in PackedPlan.
    """

    num_blocks: int = 24
    prefill_frames: int = 16
    num_decoded: int = 32
    num_streams: int = 8
    stream_frames: int = 128
    recent_frames: int = 8
    num_answers: int = 8

    def __post_init__(self) -> None:
        if self.num_blocks < 1 or self.num_blocks % LONGEST_CYCLE:
            raise ValueError(f"num_blocks must be a multiple of {LONGEST_CYCLE}, above 0; got {self.num_blocks}")
        for name in ("prefill_frames", "num_decoded", "num_streams", "num_answers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if self.stream_frames < 2 * self.num_streams:
            raise ValueError(
                f"stream_frames must be two of each of {self.num_streams} streams or more, as some towers join two; "
                f"got {self.stream_frames}"
            )


ON_GPU = RealPlan()
# Some minutes for each model that has room.
ON_CPU = RealPlan(num_blocks=8, prefill_frames=8, num_decoded=16, stream_frames=16, recent_frames=2)


@dataclass(frozen=True)
class RealBench(Bench):
    """One model at a time: made, measured, let go of.

    shapes: what is measured. plan: how much; None: what suits the device.
    cpu_bytes: what a model, and what is measured on it, may take of a CPU's memory.
    device: auto (a GPU where there is one), cpu, cuda or cuda:N.
    """

    shapes: tuple[RealShape, ...] = REAL_SHAPES
    plan: RealPlan | None = None
    cpu_bytes: int = 8 * _GIB
    device: str = "auto"

    about = (
        "real: models of published sizes with random weights in bfloat16, made on the GPU where there is one "
        "(SmolVLM2-256M, LLaVA-OneVision-0.5B and -7B, Qwen2.5-VL-3B and -7B, Qwen3-VL-8B; --model takes one of "
        "smolvlm2-256m, llava-onevision-0.5b, llava-onevision-7b, qwen2.5-vl-3b, qwen2.5-vl-7b, qwen3-vl-8b), "
        "one after the other. Words are the built-in model's. Keys: rows, one for each model that has room, with "
        "name, checkpoint whose config it is, num_parameters, dtype, frames_per_block that its tower joins, make_s; "
        "clips (of a clip with little and one with much change, changed_share of it between frames, picture, "
        "num_patches of a block: seconds of a frame from pixels to tokens "
        "dense_s (median), stc_s (the faster of a whole frame every 2nd or 4th; stc_every says which) and "
        "delta_s (means), block by block in turn; speedup_stc, speedup_delta (dense_s over theirs), each with _range "
        "over all passes; recomputed_share of the patches, delta); prefill (of num_frames at once, num_tokens: "
        "dense_s; transformers_s: its own decoder, cache and attention on the same weights and embeddings; quarter_s: "
        "with quarter_tokens; speedup_over_transformers, speedup_quarter, each with _range); decode (the same for "
        "each of num_decoded tokens after these frames: dense_token_s, transformers_token_s, quarter_token_s); streams "
        "(num_streams, packed_fps: frames a second of all, from pixels to keys and values, read in one pass; "
        "single_fps: one stream at a time; speedup; packed_answers_per_s, single_answers_per_s, answers_speedup; "
        "_range); peak_memory (bytes, weights included: weights; tower and prefill by side; streams, both sides at "
        "once; delta_over_dense, stc_over_dense, prefill_over_transformers; memory_is: of torch on a GPU, all that is "
        "resident of the process on a CPU); "
        "left_out (name, num_parameters, reason: models that have no room); repeats, machine, command, "
        "commit."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default": all shapes; or the name of one."""
        gpu_or_cpu = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(gpu_or_cpu if self.device == "auto" else self.device)
        plan = self.plan or (ON_GPU if device.type == "cuda" else ON_CPU)
        chosen = self._chosen(model)
        feature_bytes = plan.num_streams * _FEATURE_BYTES_A_STREAM
        rooms = [room_for(shape, device, cpu_bytes=self.cpu_bytes, feature_bytes=feature_bytes) for shape in chosen]
        # Enough for blocks of two frames.
        num_frames = max(2 * (1 + plan.num_blocks), plan.prefill_frames)
        moving = moving_clips(num_frames, clips) if any(room.fits for room in rooms) else []
        rows: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = []
        for shape, room in zip(chosen, rooms, strict=True):
            reason = room.reason
            if room.fits:
                _log.info("measuring %s", shape.name)
                try:
                    rows.append(_measure(shape, device, plan, moving, repeats))
                except torch.OutOfMemoryError as error:
                    reason = f"it ran out of memory: {str(error).splitlines()[0]}"
                let_go(device)
            if reason:
                left_out.append({"name": shape.name, "num_parameters": room.num_parameters, "reason": reason})
        return {
            "rows": rows,
            "left_out": left_out,
            "repeats": repeats,
            "memory_is": "allocated by torch" if device.type == "cuda" else "resident in this process",
            "machine": machine(device),
            "command": f"millpond bench real --model {model} --repeats {repeats}"
            + (" --clips FOLDER" if clips else ""),
            "commit": commit(),
        }

    def table(self, result: dict[str, Any]) -> str:
        head = f"median of {result['repeats']} passes, lowest and highest in brackets; {result['machine']}"
        parts = [f"{head}\n{result['command']}, commit {result['commit']}"]
        parts += ["\n".join(_lines(row, result["memory_is"])) for row in result["rows"]]
        parts += [f"{one['name']}: not measured: {one['reason']}" for one in result["left_out"]]
        return "\n\n".join(parts)

    def _chosen(self, model: str) -> tuple[RealShape, ...]:
        if model == "default":
            return self.shapes
        chosen = tuple(shape for shape in self.shapes if shape.name == model)
        if not chosen:
            raise ValueError(
                f"no shape has that name, got {model!r}; there are: {', '.join(s.name for s in self.shapes)}"
            )
        return chosen


def commit() -> str:
    """The commit of the checkout that this file is of, with "+" where its files differ from it; else the version."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "bench.py"], capture_output=True, check=True)
        command = [*git, "describe", "--always", "--exclude=*", "--dirty=+"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"version {version('millpond')}"


def _measure(
    shape: RealShape, device: torch.device, plan: RealPlan, moving: Sequence[Moving], repeats: int
) -> dict[str, Any]:
    """All of one model's figures; it is gone afterwards."""
    started_s = time.perf_counter()
    model = make_real(shape, device)
    wait_for(device)
    make_s = time.perf_counter() - started_s
    peak = PeakMemory(device)
    weights_bytes = peak.num_bytes
    frames = moving[0].clip.frames
    tower_bytes = measure_tower_memory(model, frames, peak)
    clips = [measure_tower(model, one, plan.num_blocks, repeats) for one in moving]
    read = measure_language(model, frames[: plan.prefill_frames], plan.num_decoded, repeats, peak)
    peak.restart()
    packed = PackedPlan(
        num_streams=(plan.num_streams,),
        num_frames=plan.stream_frames,
        recent_frames=plan.recent_frames,
        num_answers=plan.num_answers,
    )
    (streams,) = measure_packed(model, packed, repeats)["points"]
    return {
        "name": shape.name,
        "checkpoint": shape.checkpoint,
        "num_parameters": model.spec.num_parameters,
        "dtype": str(model.spec.dtype).removeprefix("torch."),
        "frames_per_block": model.spec.frames_per_block,
        "make_s": make_s,
        "clips": clips,
        "prefill": read.prefill,
        "decode": read.decode,
        "streams": streams,
        "peak_memory": {
            "weights": weights_bytes,
            "tower": tower_bytes,
            "prefill": read.peak_bytes,
            "streams": peak.num_bytes,
            "stc_over_dense": _ratio(tower_bytes["stc"], tower_bytes["dense"]),
            "delta_over_dense": _ratio(tower_bytes["delta"], tower_bytes["dense"]),
            "prefill_over_transformers": _ratio(read.peak_bytes["dense"], read.peak_bytes["transformers"]),
        },
    }


def _ratio(these_bytes: int | None, those_bytes: int | None) -> float | None:
    return None if these_bytes is None or those_bytes is None else these_bytes / those_bytes


def _lines(row: dict[str, Any], memory_is: str) -> Iterator[str]:
    yield (
        f"{row['name']}: {row['num_parameters'] / 1e6:.0f} M parameters at random, {row['dtype']}, sizes of "
        f"{row['checkpoint']}"
    )
    for one in row["clips"]:
        yield (
            f"  tower, {one['change']:6} change ({one['changed_share']:4.0%}), s a frame: dense {one['dense_s']:.4f}"
            f"   stc {one['stc_s']:.4f} {_times(one, 'speedup_stc')}   delta {one['delta_s']:.4f}"
            f" {_times(one, 'speedup_delta')}, {one['recomputed_share']:.0%} computed"
        )
    read, decode, streams = row["prefill"], row["decode"], row["streams"]
    yield (
        f"  prefill of {read['num_frames']} frames, {read['num_tokens']} tokens: {read['dense_s']:.3f} s"
        f"   transformers {read['transformers_s']:.3f} s: {_times(read, 'speedup_over_transformers')}"
        f"   with {read['quarter_tokens']} tokens {read['quarter_s']:.3f} s: {_times(read, 'speedup_quarter')}"
    )
    yield (
        f"  decoding after them, s a token: {decode['dense_token_s']:.4f}"
        f"   transformers {decode['transformers_token_s']:.4f}: {_times(decode, 'speedup_over_transformers')}"
        f"   with a quarter {decode['quarter_token_s']:.4f}: {_times(decode, 'speedup_quarter')}"
    )
    yield (
        f"  {streams['num_streams']} streams: {streams['packed_fps']:.2f} frames a second packed, "
        f"{streams['single_fps']:.2f} one at a time: {_times(streams, 'speedup')}   answers a second "
        f"{streams['packed_answers_per_s']:.2f}, {streams['single_answers_per_s']:.2f}: "
        f"{_times(streams, 'answers_speedup')}"
    )
    taken = row["peak_memory"]
    yield (
        f"  memory {memory_is}, GiB: weights {_gib(taken['weights'])}   "
        + "   ".join(
            f"{part}: " + ", ".join(f"{side} {_gib(num_bytes)}" for side, num_bytes in taken[part].items())
            for part in ("tower", "prefill")
        )
        + f"   streams {_gib(taken['streams'])}"
    )


def _times(figures: dict[str, Any], key: str) -> str:
    low, high = figures[f"{key}_range"]
    return f"{figures[key]:.2f}x ({low:.2f} to {high:.2f})"


def _gib(num_bytes: int | None) -> str:
    return "?" if num_bytes is None else f"{num_bytes / _GIB:.2f}"
