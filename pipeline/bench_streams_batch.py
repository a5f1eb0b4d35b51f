"""Hours of video that a batch works through in an hour, with one worker and with two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..stream import open_source
from .bench_shapes import BUILT_IN_SHAPE
from .config import EngineConfig

_PICTURES = "synthetic://shapes?seed={seed}&duration_s={length_s}&rate_hz={rate_hz}&width=640&height=480"
_PICTURES_HZ, _FILE_HZ = 1, 10


@dataclass(frozen=True)
class BatchPlan:
    """Recordings of 640x480 at 10 fps, of which one frame a second is looked at."""

    num_videos: int = 4
    length_s: int = 240
    num_workers: Sequence[int] = (1, 2)

    def __post_init__(self) -> None:
        if self.num_videos < 1 or self.length_s < 1 or not self.num_workers:
            raise ValueError(
                f"a batch needs videos of a second or more, and workers; got {self.num_videos} of {self.length_s} s "
                f"and {self.num_workers}"
            )


def measure_batch(plan: BatchPlan, repeats: int, *, model: str = BUILT_IN_SHAPE) -> list[dict[str, Any]]:
    """For each number of workers, on this machine: hours_per_hour, of work alone, and of all with the start of Ray and
    the loading of models. Decoding, encoding, narrations, summaries and writing are in both."""
    from .batch import BatchSettings, run_batch

    config = EngineConfig(model=model, device="auto")
    settings = BatchSettings(chunk_s=60)
    with TemporaryDirectory() as name:
        folder = Path(name)
        videos = [record(folder / f"{number}.mp4", number, plan.length_s) for number in range(plan.num_videos)]
        rates: dict[int, list[tuple[float, float]]] = {num_workers: [] for num_workers in plan.num_workers}
        for repeat in range(repeats):
            for num_workers, found in rates.items():
                out = folder / f"out-{repeat}-{num_workers}"
                report = run_batch(videos, out, config=config, settings=settings, num_workers=num_workers)
                if report.num_done != plan.num_videos:
                    raise RuntimeError(f"{report.num_failed} of {plan.num_videos} videos failed; see {report.manifest}")
                found.append((report.hours_per_hour, report.video_s / report.wall_s))
    return [
        {
            "num_workers": num_workers,
            "hours_per_hour": median(work for work, _ in found),
            "hours_per_hour_with_start": median(whole for _, whole in found),
            "num_videos": plan.num_videos,
            "video_s": plan.num_videos * plan.length_s,
        }
        for num_workers, found in rates.items()
    ]


def record(path: Path, seed: int, length_s: float) -> Path:
    """A recording of a synthetic world; each of its pictures is shown for a second."""
    import av

    source = open_source(_PICTURES.format(seed=seed, length_s=length_s, rate_hz=_PICTURES_HZ))
    with source, av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=_FILE_HZ)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for frame in source:
            for number in range(_FILE_HZ // _PICTURES_HZ):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb_HW3), format="rgb24")
                picture.pts = frame.index * (_FILE_HZ // _PICTURES_HZ) + number
                picture.time_base = Fraction(1, _FILE_HZ)
                file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path
