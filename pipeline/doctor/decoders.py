"""Decoders: what cameras and files are encoded with today, tried on clips that are made for it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...stream import open_source
from ...stream.random_access import WORKER_COMMAND, WorkerFailed, receive
from .finding import Finding

# Shapes: H rows, W columns, 3 colours.

_CODECS = {"h264": "libx264", "hevc": "libx265"}
_COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 200))
_HEIGHT, _WIDTH = 96, 128
_MAX_ERROR = 20.0  # levels of 255, on the average: a lossy codec at its default quality has less than 5
_WORKER_S = 30.0
_MEND = "pip install --upgrade --force-reinstall av: its wheels bring their own FFmpeg"


def check_decoders() -> Iterator[Finding]:
    """PyAV for each codec, and decord."""
    try:
        import av
    except ImportError as error:
        yield Finding("decoders", "fail", f"PyAV cannot be imported: {error}", "pip install --upgrade av")
        return
    with tempfile.TemporaryDirectory(prefix="millpond-doctor-") as folder:
        made: dict[str, Path] = {}
        for codec, encoder in _CODECS.items():
            path = Path(folder) / f"{codec}.mp4"
            if encoder in av.codecs_available:
                _make_clip(path, encoder)
                made[codec] = path
            yield _check_codec(codec, made.get(codec))
        yield check_decord(made.get("h264"))


def check_decord(clip: Path | None) -> Finding:
    """decord reads the clip, in a process of its own, as it does at work."""
    name = "decord"
    if importlib.util.find_spec("decord") is None:
        return Finding(
            name, "warn", "not installed", "pip install decord, or do without: recordings are read with PyAV"
        )
    if clip is None:
        return Finding(name, "ok", "installed; not tried, as there is no clip to try it on")
    places = list(range(len(_COLOURS)))
    request = {"path": str(clip), "num_frames": len(_COLOURS), "places": places}
    process = subprocess.Popen(WORKER_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    alarm = threading.Timer(_WORKER_S, process.kill)
    alarm.start()
    try:
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.close()
        pictures = [receive(process.stdout, place, _HEIGHT * _WIDTH).rgb_HW3 for place in places]
    except WorkerFailed as error:
        to_do = "pip install --force-reinstall decord, or do without: recordings are read with PyAV then"
        return Finding(name, "warn", f"does not read a clip: {error}", to_do)
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if not _are_right(pictures):
        return Finding(name, "warn", "reads a clip wrong", "pip install --force-reinstall decord, or remove it")
    return Finding(name, "ok", f"reads all {len(pictures)} pictures of a clip")


def _check_codec(codec: str, clip: Path | None) -> Finding:
    import av

    name = f"decode {codec}"
    if codec not in av.codecs_available:
        return Finding(name, "fail", f"PyAV {av.__version__} has no decoder for it", _MEND)
    if clip is None:
        return Finding(name, "ok", f"PyAV {av.__version__} has a decoder; not tried, as it has no encoder")
    with open_source(clip) as source:
        pictures = [frame.rgb_HW3 for frame in source]
    if len(pictures) != len(_COLOURS):
        return Finding(name, "fail", f"{len(pictures)} pictures of {len(_COLOURS)} come out of a clip", _MEND)
    if not _are_right(pictures):
        return Finding(name, "fail", "the pictures that come out of a clip are not those that went in", _MEND)
    return Finding(name, "ok", f"PyAV {av.__version__} reads all {len(pictures)} pictures of a clip")


def _make_clip(path: Path, encoder: str) -> None:
    """One picture of each colour."""
    import av

    quiet = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=4, options={"preset": "ultrafast", "bf": "0", **quiet})
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for colour in _COLOURS:
            rgb_HW3 = np.full((_HEIGHT, _WIDTH, 3), colour, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb_HW3, format="rgb24")))
        container.mux(stream.encode(None))


def _are_right(pictures: list[np.ndarray]) -> bool:
    return all(
        np.abs(rgb_HW3.astype(float) - colour).mean() <= _MAX_ERROR
        for rgb_HW3, colour in zip(pictures, _COLOURS, strict=True)
    )
