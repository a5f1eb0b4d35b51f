"""JSON of a results page, as `millpond eval`, `bench real` and `bench mini` print it; a test chooses the figures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millpond.pipeline.bench_mini import wilson
from millpond.pipeline.eval.page import Page, page_of

SVG = "{http://www.w3.org/2000/svg}"
ORIGIN = {
    "command": "millpond eval jsonl --methods main",
    "machine": "x86_64, 2 cores, torch 2.13.0",
    "commit": "0123abc",
}


def shares(right: int, num_questions: int = 100) -> dict[str, Any]:
    low, high = wilson(right, num_questions)
    accuracy = right / num_questions
    return {"accuracy": accuracy, "interval": [low, high], "num_questions": num_questions, "num_right": right}


def method(
    name: str, right: int, *, frame_s: float | None = 0.01, kv_bytes: int = 2**20, ttft_s: float = 0.05, **more: Any
) -> dict[str, Any]:
    """A method's report; of its questions half are real-time and half look backward, unless `more` says otherwise."""
    half = {"real-time": shares(right // 2, 50), "backward": shares(right - right // 2, 50)}
    costs = {"frame_s": frame_s, "kv_bytes": kv_bytes, "ttft_s": ttft_s, "num_frames": 64}
    usual = {
        **shares(right),
        "method": name,
        "about": f"what {name} does",
        "by_category": half,
        "by_length": {"1 min": half["real-time"], "10 min": {**half["backward"], "interval": None}},
        "by_type": {"count now": half["real-time"], "first": half["backward"]},
        "num_unanswered": 0,
        "missing": [],
        "broken": [],
        "costs": costs,
        "config": {"method": name},
    }
    return {**usual, **more}


def suite(*methods: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**ORIGIN, "suite": "jsonl", "methods": {one["method"]: one for one in methods}, **more}


def mini() -> dict[str, Any]:
    lengths = {
        "16": {**shares(98), "blind_accuracy": 0.21, "by_type": {"first": {**shares(98), "blind_accuracy": 0.22}}},
        "64": {**shares(88), "blind_accuracy": 0.23, "by_type": {"first": {**shares(88), "blind_accuracy": 0.24}}},
    }
    return {**ORIGIN, **lengths["16"], "lengths": lengths, "num_worlds": 32}


def real() -> dict[str, Any]:
    def clip(change: str, dense_s: float, stc_s: float, delta_s: float) -> dict[str, Any]:
        return {
            "change": change, "changed_share": 0.25, "dense_s": dense_s, "stc_s": stc_s, "stc_every": 2,
            "delta_s": delta_s, "recomputed_share": 0.37,
            "speedup_stc": dense_s / stc_s, "speedup_stc_range": [dense_s / stc_s - 0.1, dense_s / stc_s + 0.1],
            "speedup_delta": dense_s / delta_s,
            "speedup_delta_range": [dense_s / delta_s - 0.05, dense_s / delta_s + 0.05],
        }  # fmt: skip

    def language(unit: str) -> dict[str, Any]:
        return {
            f"dense_{unit}": 0.511, f"transformers_{unit}": 0.612, f"quarter_{unit}": 0.213,
            "speedup_over_transformers": 1.21, "speedup_over_transformers_range": [1.11, 1.31],
            "speedup_quarter": 2.41, "speedup_quarter_range": [2.31, 2.51],
        }  # fmt: skip

    row = {
        "name": "smolvlm2-256m",
        "clips": [clip("little", 0.31, 0.26, 0.13), clip("much", 0.32, 0.27, 0.4)],
        "prefill": {"num_frames": 8, "num_tokens": 523, **language("s")},
        "decode": {"num_decoded": 16, **language("token_s")},
        "streams": {
            "num_streams": 8, "packed_fps": 9.1, "single_fps": 4.3, "speedup": 2.11, "speedup_range": [2.01, 2.22],
            "packed_answers_per_s": 3.14, "single_answers_per_s": 1.59, "answers_speedup": 1.97,
            "answers_speedup_range": [1.87, 2.07],
        },
        "peak_memory": {
            "weights": 2**30, "tower": {"dense": 2**31, "stc": 3 * 2**30, "delta": None},
            "prefill": {"dense": 5 * 2**30, "transformers": 6 * 2**30}, "streams": 7 * 2**30,
        },
    }  # fmt: skip
    left_out = [{"name": "qwen3-vl-8b", "num_parameters": 8_767_123_696, "reason": "it takes 17 GiB"}]
    return {**ORIGIN, "rows": [row], "left_out": left_out, "repeats": 3, "memory_is": "resident in this process"}


def write(folder: Path, **results: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def usual() -> dict[str, Any]:
    """A suite in which each kind of method is, and each beats another somewhere."""
    return suite(
        method("millpond", 80, frame_s=0.02, kv_bytes=4 * 2**20, ttft_s=0.04),
        method("last-4", 84, frame_s=0.001, kv_bytes=0, ttft_s=0.09),
        method("uniform-16", 75, frame_s=0.0012, kv_bytes=2**18, ttft_s=0.3),
        method("fifo-16", 30, frame_s=0.011, kv_bytes=3 * 2**20, ttft_s=0.035),
        method("blind", 21, frame_s=0.019, kv_bytes=4 * 2**20, ttft_s=0.041),
        method("rekv", 81, frame_s=0.022, kv_bytes=2**26, ttft_s=0.2, num_unanswered=3),
        method("codec-int8", 82, frame_s=0.021, kv_bytes=2 * 2**20, ttft_s=0.045),
    )


def page(tmp_path: Path, **results: Any) -> Page:
    folder = write(tmp_path / "docs" / "results", **results)
    return page_of(folder, tmp_path / "docs" / "results.md")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every number and every text in it."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    elif value is not None:
        yield path


def marks(svg: str) -> list[ElementTree.Element]:
    return [group for group in ElementTree.fromstring(svg).iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
