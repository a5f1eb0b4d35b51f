"""A day of stream through one session, faster than real time: bytes by tier and of the process, times of answers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..encoders import VideoLLM
from ..memory import MemoryConfig
from ..stream import Frame, Span
from ..stream.render import render
from ..stream.world import make_world
from .bench_memory_answers import novel_pruner
from .config import EngineConfig, HistoryConfig, NarrationConfig
from .engine import Engine
from .session import Session

DAY_FRAMES = 86_400
TIERS = ("T0", "T1", "T2", "T3")

# The first is answered from keys and values; the second asks for the past, and may read keyframes for it.
_QUESTIONS = {"ttft": "What color is the circle?", "ttft_of_the_past": "How many objects have appeared?"}
_NUM_QUESTIONS = 15
_NUM_SAMPLES = 288  # one in five minutes of a day
_NUM_CLIPS, _CLIP_FRAMES = 16, 16
_FIRST_CLIP = 900
_CHUNK_FRAMES = 8
_SETTLE_S = 30.0
# So much of its own most is full.
_FULL_SHARE = 0.9


class Sample(NamedTuple):
    """What is held after so many frames.

    disk_bytes: all files of the session. rss_bytes: of the process; None where the system does not tell.
    """

    hours: float
    bytes_by_tier: dict[str, int]
    disk_bytes: int
    rss_bytes: int | None


class Line(NamedTuple):
    """A least-squares line: its slope per hour, the standard error of that, and the mean."""

    slope: float
    error: float
    mean: float


def measure_day(model: VideoLLM, num_frames: int) -> dict[str, Any]:
    """One session at 1 fps of stream time, its tiers in a directory; caps are such that all fill in the first hours.

    num_frames: 86,400 is a day; at least 400. Caps shrink with it, as far as tiers allow.
    """
    if num_frames < 400:
        raise ValueError(f"a day needs at least 400 frames, to have a beginning and an end; got {num_frames}")
    memory_bytes, archive_bytes, log_bytes = _caps(num_frames)
    config = EngineConfig(
        memory=MemoryConfig(budget_bytes=memory_bytes, recall_blocks=4, pruner=novel_pruner(), codec="adaptive"),
        history=HistoryConfig(archive_bytes=archive_bytes, log_bytes=log_bytes),
        narration=NarrationConfig(min_gap_s=60.0, max_gap_s=60.0),
        chunk_frames=_CHUNK_FRAMES,
        max_new_tokens=8,
    )
    samples: list[Sample] = []
    ttft_s: dict[str, dict[str, list[float]]] = {key: {"start": [], "end": []} for key in _QUESTIONS}
    asked = _moments(num_frames)
    sampled = {round(n) for n in np.linspace(0, num_frames, _NUM_SAMPLES + 1)[1:]}
    with TemporaryDirectory() as folder, Engine(config, model=model) as engine:
        _warm_up(engine)
        session = engine.session("day", at=Path(folder))
        started_s = time.perf_counter()
        push_s = np.full(num_frames, np.nan)  # all of it is resident from the beginning
        for number, frame in enumerate(_frames(num_frames), start=1):
            push_began_s = time.perf_counter()
            session.push(frame)
            session.history.note(f"frame {number} of clip {frame.stream_id}", Span(frame.pts_s, frame.pts_s), "event")
            push_s[number - 1] = time.perf_counter() - push_began_s
            if number % 60 == 0:
                session.narrate()
            if number in asked:
                # A question is timed, not the frames that came just before it, nor their way to the disk: these come a
                # hundred times as fast as in a stream, where it is done long before the next one.
                engine.read_pending([session])
                session.history.settle(_SETTLE_S)
                for key, question in _QUESTIONS.items():
                    ttft_s[key][asked[number]].append(session.ask(question).timing.ttft_s)
            if number in sampled:
                held = session.history.bytes_by_tier()
                samples.append(Sample(number / 3600, held, _disk_bytes(Path(folder)), rss_bytes()))
        wall_s = time.perf_counter() - started_s
        at_end = _at_end(session)
    return {
        **_figures(samples, dict(zip(TIERS[1:], (memory_bytes, archive_bytes, log_bytes), strict=True))),
        **_first_tokens(ttft_s),
        # With its reading by the model, and all that moves down the tiers; a frame period is a second here.
        "longest_push_s": float(push_s.max()),
        "p99_push_s": float(np.quantile(push_s, 0.99)),
        "num_frames": num_frames,
        "num_questions": _NUM_QUESTIONS,
        "frames_per_s": num_frames / wall_s,
        **at_end,
    }


def _first_tokens(ttft_s: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Medians at both ends, and their ratio, for each question."""
    found: dict[str, float] = {}
    for key, by_end in ttft_s.items():
        start_s, end_s = statistics.median(by_end["start"]), statistics.median(by_end["end"])
        found |= {f"{key}_start_s": start_s, f"{key}_end_s": end_s, f"{key}_ratio_end_to_start": end_s / start_s}
    return found


def rss_bytes() -> int | None:
    """Resident bytes of this process; None where /proc does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def _disk_bytes(folder: Path) -> int:
    num_bytes = 0
    for path in folder.rglob("*"):
        try:
            num_bytes += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # let go by the writer's thread at this moment
            continue
    return num_bytes


def fit_line(hours: Sequence[float], values: Sequence[float]) -> Line:
    """Through at least three points."""
    if len(hours) < 3:
        raise ValueError(f"a line and its error need at least 3 points; got {len(hours)}")
    x, y = np.asarray(hours, dtype=np.float64), np.asarray(values, dtype=np.float64)
    off, spread = x - x.mean(), float(((x - x.mean()) ** 2).sum())
    slope = float((off * y).sum() / spread)
    left = y - y.mean() - slope * off
    return Line(slope, float(np.sqrt((left**2).sum() / (len(x) - 2) / spread)), float(y.mean()))


def full_from(samples: Sequence[Sample], tier: str) -> int:
    """The first sample at which the tier holds nearly as much as ever; T0, which breathes with nothing, quite so.

    T0's blocks have their time in words: one more token from 10,000 s on.
    """
    held = [sample.bytes_by_tier[tier] for sample in samples]
    least = max(held) * (1.0 if tier == "T0" else _FULL_SHARE)
    return next(n for n, num_bytes in enumerate(held) if num_bytes >= least)


def _caps(num_frames: int) -> tuple[int, int, int]:
    """Of memory, archive and log: as much as comes in the first hours of a day, or their least."""
    share = num_frames / DAY_FRAMES
    return max(2**17, round(8 * 2**20 * share)), max(2**17, round(16 * 2**20 * share)), 2**20


def _moments(num_frames: int) -> dict[int, str]:
    """After which frames it is asked: from minute 1 on, and up to the end; always after whole chunks."""
    steps = range(0, _NUM_QUESTIONS * _CHUNK_FRAMES, _CHUNK_FRAMES)
    end = num_frames // _CHUNK_FRAMES * _CHUNK_FRAMES
    return {60 + step: "start" for step in steps} | {end - step: "end" for step in steps}


def _frames(num_frames: int) -> Iterator[Frame]:
    """Clips rendered once, one after another in an order that does not repeat; a second apart."""
    clips = [_clip(seed) for seed in range(_FIRST_CLIP, _FIRST_CLIP + _NUM_CLIPS)]
    rng, number = np.random.default_rng(0), itertools.count()
    while True:
        chosen = int(rng.integers(len(clips)))
        for picture in clips[chosen]:
            at = next(number)
            if at == num_frames:
                return
            yield Frame(picture, float(at), str(chosen), at)


def _clip(seed: int) -> np.ndarray:
    times_s = [float(t) for t in range(_CLIP_FRAMES)]
    world = make_world(seed, duration_s=float(_CLIP_FRAMES), aspect=4 / 3)
    pictures: np.ndarray = render(world, times_s, width=192, height=144).rgb_NHW3
    pictures.flags.writeable = False  # so that nobody has to copy them
    return pictures


def _warm_up(engine: Engine) -> None:
    """What a process does once is in no figure."""
    session = engine.session("warm-up")
    for number, frame in enumerate(_frames(64), start=1):
        session.push(frame)
        if number % 16 == 0:
            for question in _QUESTIONS.values():
                session.ask(question)
    session.close()


def _at_end(session: Session) -> dict[str, Any]:
    """What a block takes at rest at the end, with everything that goes with it, beside its tokens in bfloat16."""
    session.memory.check()
    stats, writer = session.memory.stats, session.history.writer_stats
    whole_bytes = session.memory.recent[-1].num_tokens * session.memory.recent[-1].spec.bytes_per_token // 2
    return {
        "num_older_blocks": stats.num_older,
        "bytes_per_older_block": (stats.older_bytes + stats.index_bytes) / stats.num_older,
        "ratio_with_pages_and_index": whole_bytes * stats.num_older / (stats.older_bytes + stats.index_bytes),
        "num_keyframes": session.history.archive.num_keyframes,
        "num_lines": session.history.log.num_lines,
        "num_writes_dropped": 0 if writer is None else writer.num_dropped,
        "num_writes_failed": 0 if writer is None else writer.num_failed,
    }


def _figures(samples: Sequence[Sample], caps: dict[str, int]) -> dict[str, Any]:
    """Slopes over what comes after the last tier is full; the last third at most begins there."""
    first_full = {tier: full_from(samples, tier) for tier in TIERS}
    first = min(max(first_full.values()), len(samples) * 2 // 3)
    hours = [sample.hours for sample in samples[first:]]
    lines = {tier: fit_line(hours, [s.bytes_by_tier[tier] for s in samples[first:]]) for tier in TIERS}
    before = {tier: samples[: max(3, first_full[tier] + 1)] for tier in TIERS}
    filling = {tier: fit_line([s.hours for s in b], [s.bytes_by_tier[tier] for s in b]) for tier, b in before.items()}
    disk = fit_line(hours, [sample.disk_bytes for sample in samples[first:]])
    resident = [sample.rss_bytes for sample in samples[first:] if sample.rss_bytes is not None]
    rss = fit_line(hours, resident) if len(resident) == len(hours) else None
    return {
        "caps_bytes": caps,
        "full_after_hours": {tier: samples[n].hours for tier, n in first_full.items()},
        "slope_from_hour": hours[0],
        "slope_bytes_per_hour": {tier: line.slope for tier, line in lines.items()},
        "slope_error_bytes_per_hour": {tier: line.error for tier, line in lines.items()},
        "drift_share": {tier: line.slope * (hours[-1] - hours[0]) / line.mean for tier, line in lines.items()},
        "mean_bytes": {tier: line.mean for tier, line in lines.items()},
        "filling_bytes_per_hour": {tier: line.slope for tier, line in filling.items()},
        "disk_slope_bytes_per_hour": disk.slope,
        "disk_slope_error_bytes_per_hour": disk.error,
        "disk_mean_bytes": disk.mean,
        "rss_slope_bytes_per_hour": None if rss is None else rss.slope,
        "rss_slope_error_bytes_per_hour": None if rss is None else rss.error,
        "rss_spread": None if rss is None else (max(resident) - min(resident)) / rss.mean,
        "samples": [
            {"hours": s.hours, "bytes": s.bytes_by_tier, "disk_bytes": s.disk_bytes, "rss_bytes": s.rss_bytes}
            for s in samples
        ],
    }
