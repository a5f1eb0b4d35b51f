"""`millpond bench streams`: what many streams on one model take, together and apart, and how fresh answers are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .bench import Bench
from .bench_models import LLAVA_SHAPE, SMOLVLM_SHAPE, make_streams_model
from .bench_shapes import BUILT_IN_SHAPE, machine
from .bench_streams_batch import BatchPlan, measure_batch
from .bench_streams_latency import latency_plans, measure_latency
from .bench_streams_packed import measure_packed, packed_plans
from .bench_streams_ray import RayPlan, measure_ray


@dataclass(frozen=True)
class StreamsBench(Bench):
    """The built-in model and SmolVLM2-256M's shape, or an 8B shape where there is a GPU; batches on the built-in one.

    ray, batch: how much of these is measured.
    """

    ray: RayPlan = field(default_factory=RayPlan)
    batch: BatchPlan = field(default_factory=BatchPlan)

    about = (
        "streams: many streams on one model. Keys: aggregate_fps and packed_speedup by number of streams, of the "
        "largest model measured (frames a second of all streams, from pixels in memory to keys and values, one frame "
        "of every stream in one packed pass; and that over the same frames one stream at a time, in the same run); "
        "packed (the same for each model: points with packed_fps, single_fps, speedup and speedup_range, likewise "
        "packed_answers_per_s, single_answers_per_s, answers_speedup for answers of 16 tokens); glass_to_token_s p50, "
        "p95 and p99, drop_share and age_s with 8 cameras, of the first model of latency (each with num_streams, "
        "rate_hz, glass_to_token_s, question_to_token_s, age_s of the newest processed frame, drop_share of the frames "
        "that were due, frames_per_s; glass to token is from the moment at which the newest frame that an answer has "
        "seen is due, a picture in memory, to the id of the answer's first token: all waiting is in it, exposure, "
        "network and decoding are not; cameras keep to the wall clock, in threads of this process); ray_overhead_share "
        "of the largest model measured (what a frame of 640x480 takes longer where one actor a stream decodes, than "
        "where threads of this process do, over what the model takes for it at batch size 8), from ray (each model's "
        "model_s_per_frame, process_s_per_frame, ray_s_per_frame, ray_overhead_range, hand_over_s of a frame that "
        "waits, is_view: whether pixels arrive uncopied); batch (hours_per_hour of video with 1 and 2 workers, "
        "hours_per_hour_with_start); repeats, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default": the built-in one, then SmolVLM2-256M's shape, or the 8B shape where there is a GPU."""
        large = LLAVA_SHAPE if torch.cuda.is_available() else SMOLVLM_SHAPE
        names: Sequence[str] = (BUILT_IN_SHAPE, large) if model == "default" else (model,)
        packed, latency, models = [], [], []
        for name in names:
            made = make_streams_model(name)
            models.append(made)
            packed += [measure_packed(made, plan, repeats) for plan in packed_plans(made)]
            latency += [measure_latency(made, plan) for plan in latency_plans(made)]
        ray = measure_ray(models, self.ray, repeats)
        batch = measure_batch(self.batch, repeats, model=names[0])
        points = {str(point["num_streams"]): point for point in packed[-1]["points"]}
        headline = next((row for row in latency if row["num_streams"] == 8), latency[0])
        return {
            "aggregate_fps": {number: point["packed_fps"] for number, point in points.items()},
            "packed_speedup": {number: point["speedup"] for number, point in points.items()},
            "glass_to_token_s": headline["glass_to_token_s"],
            "drop_share": headline["drop_share"],
            "age_s": headline["age_s"],
            "ray_overhead_share": ray[-1]["ray_overhead_share"],
            "packed": packed,
            "latency": latency,
            "ray": ray,
            "batch": batch,
            "repeats": repeats,
            "machine": machine(models[0].spec.device),
        }

    def table(self, result: dict[str, Any]) -> str:
        parts = (_packed, _latency, _apart)
        title = f"median of {result['repeats']}; {result['machine']}"
        return "\n\n".join([title, *("\n".join(part(result)) for part in parts)])


def _packed(result: dict[str, Any]) -> Iterator[str]:
    for model in result["packed"]:
        kept = f", {model['keep_tokens']} tokens kept of a frame" if model["keep_tokens"] else ""
        yield (
            f"{model['shape']}, {model['num_parameters'] / 1e6:.0f} M parameters, {model['dtype']}{kept}: "
            "frames, and answers, a second"
        )
        title = f"{'packed':>9} {'single':>9} {'speedup':>8}"
        yield f"  {'streams':>7} {title}   {title}"
        for point in model["points"]:
            line = (
                f"  {point['num_streams']:7d} {point['packed_fps']:9.1f} {point['single_fps']:9.1f} "
                f"{point['speedup']:7.2f}x"
            )
            if "answers_speedup" in point:
                line += (
                    f"   {point['packed_answers_per_s']:9.2f} {point['single_answers_per_s']:9.2f} "
                    f"{point['answers_speedup']:7.2f}x"
                )
            yield line


def _latency(result: dict[str, Any]) -> Iterator[str]:
    yield "glass to first token, question to first token, age of the newest frame: seconds, p50 / p95 / p99"
    for row in result["latency"]:
        times = "   ".join(
            f"{row[key]['p50']:6.3f} /{row[key]['p95']:6.3f} /{row[key]['p99']:6.3f}"
            for key in ("glass_to_token_s", "question_to_token_s", "age_s")
        )
        yield (
            f"  {row['shape']:16.16} {row['num_streams']:3d} at {row['rate_hz']:g} Hz   {times}   "
            f"dropped {row['drop_share']:6.1%}, {row['frames_per_s']:.1f} frames a second"
        )


def _apart(result: dict[str, Any]) -> Iterator[str]:
    for row in result["ray"]:
        low, high = row["ray_overhead_range"]
        yield (
            f"  {row['shape']:16.16} {row['num_streams']} streams from Ray's actors: {row['ray_s_per_frame']:.4f} s a "
            f"frame, from this process {row['process_s_per_frame']:.4f}, in memory {row['model_s_per_frame']:.4f}: "
            f"{row['ray_overhead_share']:.1%} more ({low:.1%} to {high:.1%})"
        )
    yield f"  a frame that waits in its actor is here in {1000 * result['ray'][0]['hand_over_s']:.2f} ms"
    for row in result["batch"]:
        yield (
            f"  batch, {row['num_workers']} workers: {row['hours_per_hour']:.1f} hours of video an hour, "
            f"{row['hours_per_hour_with_start']:.1f} with the start"
        )
