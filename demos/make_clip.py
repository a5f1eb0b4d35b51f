"""Paints a synthetic world into an H.264 file, as the clip that `millpond demo` plays was made.

python demos/make_clip.py "synthetic://shapes?seed=334&duration_s=14" pipeline/demo.mp4
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import typer

from millpond.stream import open_source


def main(source: str, out: Path) -> None:
    with open_source(source) as frames, av.open(str(out), "w") as container:
        video = None
        for frame in frames:
            if video is None:
                video = container.add_stream("libx264", rate=Fraction(frames.rate_hz).limit_denominator(1000))
                video.width, video.height, video.pix_fmt = frame.width, frame.height, "yuv420p"
                video.options = {"crf": "23", "preset": "slow"}
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame.rgb_HW3, format="rgb24")))
        if video is not None:
            container.mux(video.encode())


if __name__ == "__main__":
    typer.run(main)
