"""`millpond bench profile`: where the time of a frame goes on its whole way, without reuse and with it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..encoders import Row, VideoLLM
from ..encoders.reuse.base import Reuser
from ..encoders.reuse.delta import DeltaReuse
from ..encoders.reuse.none import NoReuse
from ..memory import Memory, MemoryConfig
from ..stream import RateSampler, open_source
from .bench import Bench
from .bench_shapes import BUILT_IN_SHAPE, machine, make_model, real_clips, wait_for

# In the order of a frame's way. "reuse" is what a reuser does itself: caches, choosing, how far features moved.
STAGES = ("decode", "pixels", "change map", "tower", "reuse", "head", "language", "memory", "other")

_REUSERS: dict[str, Reuser] = {"none": NoReuse(), "delta": DeltaReuse()}
_FPS = 2.0
_NUM_TEXT_LAYERS = 24  # with the so400m tower: LLaVA-OneVision-0.5B
_RANDOM_SHAPE = "so400m-384"
_DEMO = Path(__file__).parent / "demo.mp4"
_LIKED = "vtest.avi"

# What of a tower belongs to which stage.
_TOWER_STAGES = {
    "pixels": ("prepare",),
    "tower": ("embed", "norm1", "qkv", "key", "query_value", "rotate", "attend", "project", "mlp"),
    "head": ("head", "tap", "assemble"),
}


class Stopwatch:
    """Seconds by stage: each moment counts for the innermost stage that is running. Not thread-safe.

    seconds: where they are added up; whoever steps several streams in turn puts another one here.
    """

    def __init__(self, wait: Callable[[], None]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._wait = wait
        self._running: list[str] = []
        self._since_s = 0.0

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time counted as that stage's."""

        def timed_call(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self._running.append(stage)
            try:
                return call(*args, **kwargs)
            finally:
                self._charge()
                self._running.pop()

        return timed_call

    def _charge(self) -> None:
        """The time up to now, to the stage that was running."""
        self._wait()
        now_s = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now_s - self._since_s
        self._since_s = now_s


@dataclass(frozen=True)
class ProfileBench(Bench):
    """A recording's frames, one by one, from the file to the memory, without reuse and with it, in turn.

    max_frames: timed frames.
    """

    max_frames: int = 24

    about = (
        "profile: where the time of a frame goes on its way from a file at 2 fps to the memory, one at a time, "
        "before (reuse none: every frame whole) and after (delta), in turn frame by frame; the first frame is in no "
        "figure. Models: the built-in one, and LLaVA-OneVision-0.5B's shape with random weights in bfloat16; or "
        "--model. Clip: vtest.avi of the folder of clips, or its first; else the demo. Keys: rows, each with shape, "
        "clip, reuse, num_frames, wall_s (a frame's, mean), stages (s, and share of wall_s, of decode, pixels, "
        "change map, tower, reuse (its own work: caches, choosing), head, language, memory, other (in no stage)); "
        "repeats (passes; a row is the one of median wall_s), machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """clips: a folder with recordings."""
        clip = _DEMO if clips is None else _choose(clips)
        rows: list[dict[str, Any]] = []
        for shape in (BUILT_IN_SHAPE, _RANDOM_SHAPE) if model == "default" else (model,):
            made = make_model(shape, num_text_layers=_NUM_TEXT_LAYERS)
            passes = [_one_pass(made, clip, self.max_frames) for _ in range(repeats)]
            for name in _REUSERS:
                ranked = sorted((one[name] for one in passes), key=lambda row: row["wall_s"])
                rows.append({"shape": shape, "clip": clip.name, "reuse": name, **ranked[(len(ranked) - 1) // 2]})
        return {"rows": rows, "repeats": repeats, "machine": machine(made.spec.device)}

    def table(self, result: dict[str, Any]) -> str:
        lines = [f"seconds a frame and their share, median of {result['repeats']}; {result['machine']}"]
        for before, after in zip(result["rows"][::2], result["rows"][1::2], strict=True):
            titles = (f"{when}: {row['reuse']}" for when, row in (("before", before), ("after", after)))
            lines.append(f"{before['shape']}, {before['clip']} at {_FPS:g} fps, {before['num_frames']} frames")
            lines.append(" ".join([f"  {'':12}", *(f"{title:>18}" for title in titles)]))
            for stage in STAGES:
                measured = (row["stages"][stage] for row in (before, after))
                lines.append(" ".join([f"  {stage:12}", *(f"{m['s']:10.5f} {m['share']:7.1%}" for m in measured)]))
            lines.append(" ".join([f"  {'all':12}", *(f"{row['wall_s']:10.5f} {'':7}" for row in (before, after))]))
        return "\n".join(lines)


class _Lane:
    """One stream on its whole way, with everything that is its own."""

    def __init__(self, model: VideoLLM, reuser: Reuser, clip: Path, watch: Stopwatch) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.wall_s = 0.0
        self.num_frames = 0
        self._model, self._watch = model, watch
        self._source = open_source(str(clip))
        self._frames = self._source.sampled(RateSampler(_FPS))
        self._next = watch.timed("decode", lambda: next(self._frames, None))
        seer = reuser.over(model)
        self._run: Any = seer.start()
        self._run.watch.compare = watch.timed("change map", self._run.watch.compare)
        self._see = watch.timed("reuse", seer.see)
        self._memory = Memory(MemoryConfig())
        self._append = watch.timed("memory", self._memory.append)
        self._context = model.new_context()
        ((prefix,),) = model.read([Row(self._context, (model.prefix(),))])
        self._memory.add_sink(prefix)

    def step(self, is_timed: bool) -> bool:
        """One block of frames, from the source to the memory. False: the source has ended."""
        self._watch.seconds = self.seconds if is_timed else defaultdict(float)
        started_s = time.perf_counter()
        frames = [self._next() for _ in range(self._model.spec.frames_per_block)]
        if None in frames:
            return False
        (sights,) = self._see([(self._run, frames)])
        (blocks,) = self._model.read([Row(self._context, tuple(sight.tokens for sight in sights))])
        if any([self._append(block).left_recent for block in blocks]):
            self._model.fill(self._context, self._memory.context())
        if is_timed:
            self.wall_s += time.perf_counter() - started_s
            self.num_frames += len(frames)
        return True

    def close(self) -> None:
        self._source.close()

    def figures(self) -> dict[str, Any]:
        took_s = dict(self.seconds)
        took_s["other"] = self.wall_s - sum(took_s.values())
        stages = {
            stage: {"s": took_s.get(stage, 0.0) / self.num_frames, "share": took_s.get(stage, 0.0) / self.wall_s}
            for stage in STAGES
        }
        return {"num_frames": self.num_frames, "wall_s": self.wall_s / self.num_frames, "stages": stages}


def _one_pass(model: VideoLLM, clip: Path, max_frames: int) -> dict[str, dict[str, Any]]:
    """All reusers over one clip, taking turns at each frame."""
    watch = Stopwatch(lambda: wait_for(model.spec.device))
    with _watched(model, watch):
        lanes = {name: _Lane(model, reuser, clip, watch) for name, reuser in _REUSERS.items()}
        try:
            for number in range(1 + max_frames // model.spec.frames_per_block):
                if not all([lane.step(is_timed=number > 0) for lane in lanes.values()]):
                    break
        finally:
            for lane in lanes.values():
                lane.close()
    if any(not lane.num_frames for lane in lanes.values()):
        raise ValueError(
            f"a profile needs two blocks of frames at {_FPS:g} fps; got fewer in {clip}; take a longer clip"
        )
    return {name: lane.figures() for name, lane in lanes.items()}


@contextmanager
def _watched(model: VideoLLM, watch: Stopwatch) -> Iterator[None]:
    """The model's parts report to the stopwatch as long as this lasts."""
    parts: list[tuple[Any, str, str]] = [
        (model, "see", "tower"),
        (model, "read", "language"),
        (model, "fill", "memory"),
    ]
    parts += [(model.tower, name, stage) for stage, names in _TOWER_STAGES.items() for name in names]
    # What the dense way goes through, where the family lets it be seen.
    inner = getattr(getattr(model, "model", None), "model", None)
    parts += [(model, "pixels", "pixels"), (inner, "apply_pooling", "head")]
    parts += [(getattr(inner, "multi_modal_projector", None), "forward", "head")]
    parts = [part for part in parts if hasattr(part[0], part[1])]
    for owner, name, stage in parts:
        setattr(owner, name, watch.timed(stage, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, _ in parts:
            delattr(owner, name)  # the class's own shows again


def _choose(folder: Path) -> Path:
    """The recording with a still background, or the first there is."""
    if (folder / _LIKED).is_file():
        return folder / _LIKED
    return folder / real_clips(folder, 1)[0].name
