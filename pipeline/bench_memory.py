"""`millpond bench memory`: what is remembered, what it costs in bytes, and that it does not grow in a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bench import Bench
from .bench_memory_answers import LONG_FRAMES, SHORT_FRAMES, TARGET, measure_answers
from .bench_memory_day import DAY_FRAMES, TIERS, measure_day
from .bench_memory_shapes import measure_recall, measure_reopening, measure_shapes
from .bench_shapes import BUILT_IN_SHAPE, machine, make_model
from .bench_worlds import NUM_WORLDS

_GIB = 2**30


@dataclass(frozen=True)
class MemoryBench(Bench):
    """Answers against bytes on the built-in model, a day of stream through one session, and real models' shapes.

    num_frames: frames of the day, at 1 fps; at least 400.
    num_worlds: worlds that are asked about, for each repeat.
    """

    num_frames: int = DAY_FRAMES
    num_worlds: int = NUM_WORLDS

    about = (
        "memory: bytes and answers. Keys: compression_ratio (bfloat16 keys and values over what the target method "
        "keeps of them, positions and scales included), answers_kept (right answers over those of the full cache), "
        "target; methods (each codec, pruner and way of recalling: kv_bytes_per_block, index_bytes_per_block, "
        "compression_ratio, accuracy, interval, answers_kept, agreement, num_lost, num_won, num_questions, on worlds "
        "of 16 and of 32 frames); day (86,400 frames through one session: samples by time, caps, frames_per_s), from "
        "it slope_bytes_per_hour (by tier, once all are full), rss_slope_bytes_per_hour and ttft_ratio_end_to_start, "
        "beside ttft_of_the_past_ratio_end_to_start, of a question for which keyframes may be read; "
        "shapes (LLaVA-OneVision-7B and Qwen3-VL-8B, random weights: bytes an hour by tier and codec, dequantize_s "
        "and reread_s of a block), from it bytes_per_hour; recall (the index of 100,000 blocks), from it "
        "recall_ms_at_100k; reopening (reopen_s of a directory with a full T1); num_worlds, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" is the built-in one. repeats: how many times num_worlds worlds, and timings."""
        tried = make_model(BUILT_IN_SHAPE if model == "default" else model)
        # First, while the process is small: what else is measured would be in its resident memory.
        day = measure_day(tried, self.num_frames)
        num_worlds = self.num_worlds * repeats
        methods = measure_answers(tried, num_worlds, SHORT_FRAMES)
        methods += measure_answers(tried, max(1, num_worlds // 2), LONG_FRAMES)
        target = next(row for row in methods if row["name"] == TARGET)
        shapes, recall = measure_shapes(repeats, tried.spec.device), measure_recall(repeats)
        reopening = measure_reopening(repeats)
        return {
            "compression_ratio": target["compression_ratio"],
            "answers_kept": target["answers_kept"],
            "target": TARGET,
            "slope_bytes_per_hour": day["slope_bytes_per_hour"],
            "rss_slope_bytes_per_hour": day["rss_slope_bytes_per_hour"],
            "ttft_ratio_end_to_start": day["ttft_ratio_end_to_start"],
            "ttft_of_the_past_ratio_end_to_start": day["ttft_of_the_past_ratio_end_to_start"],
            "recall_ms_at_100k": recall["recall_ms"],
            "bytes_per_hour": {
                row["shape"]: {
                    "T0": 0,
                    **{f"T1 {name}": kept["t1_bytes_per_hour"] for name, kept in row["kept"].items()},
                    "ReKV at 0.5 fps": row["rekv_bytes_per_hour_at_half_fps"],
                }
                for row in shapes
            },
            "methods": methods,
            "day": day,
            "shapes": shapes,
            "recall": recall,
            "reopening": reopening,
            "num_worlds": num_worlds,
            "machine": machine(tried.spec.device),
        }

    def table(self, result: dict[str, Any]) -> str:
        parts: tuple[Callable[[dict[str, Any]], Iterator[str]], ...] = (_headline, _methods, _day, _shapes)
        return "\n\n".join("\n".join(part(result)) for part in parts)


def _headline(result: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{result['target']}: {result['compression_ratio']:.1f} times smaller than bfloat16, "
        f"{result['answers_kept']:.1%} of the full cache's right answers; {result['machine']}"
    )


def _methods(result: dict[str, Any]) -> Iterator[str]:
    title = f"{'method':32} {'bytes a block':>13} {'smaller':>8} {'right':>7}  {'95 % interval':>15}"
    for num_frames in sorted({row["num_frames"] for row in result["methods"]}):
        rows = [row for row in result["methods"] if row["num_frames"] == num_frames]
        yield f"{rows[0]['num_questions']} questions on worlds of {num_frames} frames, the newest 4 exact"
        yield f"{title} {'kept':>7} {'same':>7} lost/won"
        for row in rows:
            low, high = row["interval"]
            ratio = "" if row["compression_ratio"] is None else f"{row['compression_ratio']:.1f}x"
            yield (
                f"{row['name']:32} {row['kv_bytes_per_block']:13.0f} {ratio:>8} {row['accuracy']:7.3f}  "
                f"{low:.3f} to {high:.3f} {row['answers_kept']:7.1%} {row['agreement']:7.1%} "
                f"{row['num_lost']:4d}/{row['num_won']}"
            )


def _day(result: dict[str, Any]) -> Iterator[str]:
    day = result["day"]
    speed = f"{day['frames_per_s']:.0f} frames a second"
    yield f"{day['num_frames'] / 3600:.1f} hours at 1 fps, {speed}; slopes from hour {day['slope_from_hour']:.1f}"
    yield f"{'tier':5} {'cap':>12} {'full after':>11} {'mean':>12} {'slope an hour':>14} {'error':>9} {'in all':>9}"
    for tier in TIERS:
        cap = day["caps_bytes"].get(tier)
        yield (
            f"{tier:5} {'' if cap is None else cap:>12} {day['full_after_hours'][tier]:9.2f} h "
            f"{day['mean_bytes'][tier]:12.0f} {day['slope_bytes_per_hour'][tier]:14.1f} "
            f"{day['slope_error_bytes_per_hour'][tier]:9.1f} {day['drift_share'][tier]:9.3%}"
        )
    yield (
        f"disk  {'':12} {'':11} {day['disk_mean_bytes']:12.0f} {day['disk_slope_bytes_per_hour']:14.1f} "
        f"{day['disk_slope_error_bytes_per_hour']:9.1f}"
    )
    if day["rss_slope_bytes_per_hour"] is not None:
        yield (
            f"resident memory: {day['rss_slope_bytes_per_hour']:.0f} bytes an hour "
            f"(error {day['rss_slope_error_bytes_per_hour']:.0f}), within {day['rss_spread']:.2%}"
        )
    yield (
        f"pushing a frame, with its reading and all that it moves down the tiers: 99 of 100 within "
        f"{day['p99_push_s']:.3f} s, {day['longest_push_s']:.3f} s at the longest; "
        f"{day['num_writes_dropped']} writes dropped"
    )
    for key, about in (("ttft", ""), ("ttft_of_the_past", ", where keyframes may be read")):
        start, end = (f"{1000 * day[f'{key}_{when}_s']:.1f} ms" for when in ("start", "end"))
        ratio = day[f"{key}_ratio_end_to_start"]
        yield f"first token after {start} at minute 1, {end} at the end: {ratio:.3f}{about}"


def _shapes(result: dict[str, Any]) -> Iterator[str]:
    recall, reopening = result["recall"], result["reopening"]
    yield (
        f"a directory with {reopening['num_blocks']} blocks of int4 in {reopening['t1_bytes'] / 2**20:.0f} MiB is "
        f"opened in {reopening['reopen_s']:.2f} s"
    )
    yield (
        f"recall of {recall['num_recalled']} of {recall['num_blocks']} blocks, LLaVA-OneVision-7B: "
        f"{recall['recall_ms']:.1f} ms, {recall['index_bytes'] / 2**20:.0f} MiB of index"
    )
    for row in result["shapes"]:
        yield (
            f"{row['shape']}, {row['tokens_per_block']} tokens of {row['picture']}: GiB an hour at 1 fps; "
            f"ReKV at 0.5 fps {row['rekv_bytes_per_hour_at_half_fps'] / _GIB:.1f}"
        )
        title = f"  {'T1':12} {'T0, all':>9} {'T1, an hour':>12} {'smaller':>8} {'when full':>10}"
        yield f"{title} {'unpack':>10} {'read again':>11}"
        for name, kept in row["kept"].items():
            took = row["dequantize"].get(name)
            times = f"{1000 * took['dequantize_s']:7.1f} ms {1000 * took['reread_s']:8.0f} ms" if took else ""
            yield (
                f"  {name:12} {kept['t0_bytes'] / _GIB:9.2f} {kept['t1_bytes_per_hour'] / _GIB:12.2f} "
                f"{kept['ratio']:7.1f}x {kept['growth_when_full_bytes']:+10d} {times}"
            )
