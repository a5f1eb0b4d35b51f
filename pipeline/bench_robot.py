"""`millpond bench robot`: how old a robot's view is when it is used, what a question beside it costs, what is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..encoders import VideoLLM, load_model
from .bench import Bench
from .bench_robot_loop import LoopPlan, Measured, measure_loops
from .bench_robot_model import save_llava
from .bench_robot_vit import measure_vit
from .bench_shapes import BUILT_IN_SHAPE, machine
from .config import EngineConfig
from .engine import Engine
from .robot.memory import HubMemory, RobotMemory
from .robot.memory_process import ProcessMemory, ProcessMemoryConfig

REAL_SHAPE = "llava-onevision-0.5b"

_NUM_ANSWER_TOKENS = 16
_CAMERAS = {1: "", 2: "_two_cameras", 3: "_three_cameras"}
_ASKED = "_with_question"


@dataclass(frozen=True)
class RobotBench(Bench):
    """The built-in model, and LLaVA-OneVision-0.5B's shape with random weights where there is a GPU.

    loops: the control loops. kept_share: of all cameras' tokens, how many a policy is given. vit_frames: of each scene.
    held_rate_hz: at which the two kinds of memory are held against each other.
    """

    loops: LoopPlan = field(default_factory=LoopPlan)
    kept_share: float = 0.5
    vit_frames: int = 61
    held_rate_hz: float = 30.0

    about = (
        "robot: control loops of 10, 30 and 50 Hz over cameras of 30 Hz, by their own clock. Keys: age_s_10hz, "
        "age_s_30hz, age_s_50hz (age of the view at the moment of use, from the capture of its oldest picture: p50, "
        "p95, p99; one camera), each also _with_question (the memory beside the feed always answers one), "
        "_three_cameras, and _three_cameras_with_question; jitter_s, missed_ticks and num_ticks, by the same names (a "
        "tick is missed where nothing younger than max_age_s was there before the next was due); inline (the same of a "
        "loop that encodes each camera's newest picture whole, for itself: age_s, jitter_s, missed, ticks); "
        "p99_with_question_ratio by rate and cameras, and memory, the worst of these with the memory in a process of "
        "its own and in a thread of this one; answers and answer_s beside the feed; tokens_kept of num_places, with "
        "half of them as the budget; vit_saved_fixed and vit_saved_wrist (share of the dense tower's time that reuse "
        "saves, with a camera that stands still and one that never does; vit: dense_s, delta_s, recomputed_share, "
        "saved_range); models, the same for each model measured; camera_rate_hz, repeats, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default": the built-in one, and on a GPU a real shape too; the object's own figures are the last
        one's. clips: not looked at: cameras show synthetic worlds."""
        if repeats < 1:
            raise ValueError(f"there must be one repeat or more; got {repeats}")
        names = [BUILT_IN_SHAPE if model == "default" else model]
        if model == "default" and torch.cuda.is_available():
            names.append(REAL_SHAPE)
        models: dict[str, dict[str, Any]] = {}
        with TemporaryDirectory() as folder:
            for name in names:
                path = str(save_llava(Path(folder) / name)) if name == REAL_SHAPE else name
                dtype = "bfloat16" if name == REAL_SHAPE else "auto"
                models[name] = self._measure(load_model(path, dtype=dtype), path, dtype, repeats)
        return {
            **models[names[-1]],
            "models": models,
            "camera_rate_hz": self.loops.camera_rate_hz,
            "max_age_s": self.loops.max_age_s,
            "repeats": repeats,
            "machine": machine(load_device()),
        }

    def _measure(self, model: VideoLLM, path: str, dtype: str, repeats: int) -> dict[str, Any]:
        def process() -> RobotMemory:
            config = ProcessMemoryConfig(model=path, dtype=dtype, max_new_tokens=_NUM_ANSWER_TOKENS)
            return ProcessMemory(config)

        def thread() -> RobotMemory:
            return HubMemory(Engine(EngineConfig(model=path, dtype=dtype, max_new_tokens=_NUM_ANSWER_TOKENS, fps=1.0)))

        kinds: dict[str, Callable[[], RobotMemory]] = {"process": process, "thread": thread}
        by_cameras = {
            num: measure_loops(model, self.loops, num, process, repeats=repeats) for num in self.loops.num_cameras
        }
        held_plan = replace(self.loops, rates_hz=(self.held_rate_hz,), num_cameras=(1,))
        held = {
            kind: measure_loops(model, held_plan, 1, make, repeats=repeats, has_inline=False)
            for kind, make in kinds.items()
        }
        most = max(by_cameras)
        budget_tokens = max(1, int(self.kept_share * by_cameras[most].num_places))
        short = replace(self.loops, rates_hz=(self.held_rate_hz,), num_cameras=(most,), warm_s=0.0)
        kept = measure_loops(model, short, most, process, repeats=1, budget_tokens=budget_tokens, has_inline=False)
        vit = measure_vit(model, num_frames=self.vit_frames, repeats=repeats)
        return {
            **_loop_keys(by_cameras),
            "memory": {kind: _worst_ratio(measured) for kind, measured in held.items()},
            "answers": sum(measured.num_answers for measured in by_cameras.values()),
            "answer_s": by_cameras[most].answer_s,
            "tokens_kept": kept.tokens_kept,
            "num_places": kept.num_places,
            "vit_saved_fixed": vit["fixed"]["saved"],
            "vit_saved_wrist": vit["wrist"]["saved"],
            "vit": vit,
        }

    def table(self, result: dict[str, Any]) -> str:
        return "\n".join(
            [
                f"cameras of {result['camera_rate_hz']:g} Hz; {result['machine']}",
                *(line for name, figures in result["models"].items() for line in _lines(name, figures)),
            ]
        )


def load_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def case_name(rate_hz: float, num_cameras: int, *, is_asked: bool) -> str:
    """What the figures of one loop are called: "10hz", "10hz_three_cameras_with_question"."""
    return f"{rate_hz:g}hz{_CAMERAS[num_cameras]}{_ASKED if is_asked else ''}"


def _loop_keys(by_cameras: Mapping[int, Measured]) -> dict[str, Any]:
    """The figures of all loops, by their names."""
    rows = {
        case_name(rate_hz, num, is_asked=is_asked): row
        for num, measured in by_cameras.items()
        for is_asked, part in ((False, measured.alone), (True, measured.asked))
        for rate_hz, row in part.items()
    }
    inline = {
        case_name(rate_hz, num, is_asked=False): row
        for num, measured in by_cameras.items()
        for rate_hz, row in measured.inline.items()
    }
    ratios = {
        case_name(rate_hz, num, is_asked=False): measured.asked[rate_hz]["age_s"]["p99"] / row["age_s"]["p99"]
        for num, measured in by_cameras.items()
        for rate_hz, row in measured.alone.items()
    }
    return {
        **{f"age_s_{name}": row["age_s"] for name, row in rows.items()},
        "jitter_s": {name: row["jitter_s"] for name, row in rows.items()},
        "missed_ticks": {name: row["missed"] for name, row in rows.items()},
        "num_ticks": {name: row["ticks"] for name, row in rows.items()},
        "p99_with_question_ratio": ratios,
        "inline": inline,
    }


def _worst_ratio(measured: Measured) -> float:
    return max(measured.asked[rate]["age_s"]["p99"] / row["age_s"]["p99"] for rate, row in measured.alone.items())


def _lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: age of the view when it is used, p50 / p95 / p99, and jitter p99, in seconds; missed ticks"
    for case, num_ticks in figures["num_ticks"].items():
        yield _line(case, figures[f"age_s_{case}"], figures["jitter_s"][case], figures["missed_ticks"][case], num_ticks)
    yield "  a loop that encodes for itself"
    for case, row in figures["inline"].items():
        yield _line(case, row["age_s"], row["jitter_s"], row["missed"], row["ticks"])
    ratios = ", ".join(f"{case} {ratio:.2f}x" for case, ratio in figures["p99_with_question_ratio"].items())
    yield f"  p99 with a question beside it: {ratios}"
    held = ", ".join(f"in a {kind} {ratio:.2f}x" for kind, ratio in figures["memory"].items())
    yield f"  with the memory {held}; an answer takes {figures['answer_s']:.2f} s"
    yield f"  {figures['tokens_kept']} of {figures['num_places']} tokens kept"
    for scene, row in figures["vit"].items():
        yield (
            f"  tower, {scene} camera: dense {row['dense_s']:.4f} s, delta {row['delta_s']:.4f} s, saved "
            f"{row['saved']:.1%}, computed {row['recomputed_share']:.1%}"
        )


def _line(case: str, age_s: Mapping[str, float | None], jitter_s: Mapping[str, float], missed: int, ticks: int) -> str:
    ages = " / ".join("     -" if age is None else f"{age:6.3f}" for age in age_s.values())
    return f"  {case:34} {ages}   {jitter_s['p99']:7.4f}   {missed} of {ticks}"
