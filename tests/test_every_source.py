"""The promises of Source, held for every row of SOURCES, and the door that picks the row."""

from __future__ import annotations

import gc
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millpond.stream import SOURCES, RateSampler, Source, SourceError, SourceLost, open_source

from .clips import make_clip
from .robot_logs import write_log, write_v3

LIMIT_S = 2.0


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server on loopback with clip.mp4 and page.html."""
    folder = tmp_path_factory.mktemp("web")
    make_clip(folder / "clip.mp4", 30, num_b_frames=2)
    (folder / "page.html").write_text("<html>no video here</html>" * 50)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=sorted(SOURCES))
def uri(request: pytest.FixtureRequest, tmp_path: Path, web: str) -> str:
    """A source of each kind with 30 frames or so; live things over RTSP are in test_live.py."""
    if request.param == "folder":
        for number in range(30):
            Image.new("RGB", (32, 24), (8 * number, 0, 0)).save(tmp_path / f"{number}.png")
        return str(tmp_path)
    for package in {"mcap": ("mcap", "mcap_ros2"), "lerobot": ("pyarrow",)}.get(request.param, ()):
        pytest.importorskip(package)
    return {
        "lerobot": lambda: str(write_v3(tmp_path / "arm", (30,))),
        "mcap": lambda: str(write_log(tmp_path / "run.mcap", with_joints=False)),
        "file": lambda: str(make_clip(tmp_path / "clip.mp4", 30)),
        "live": lambda: f"http://bob:QXsecret@{web}/clip.mp4",
        "synthetic": lambda: "synthetic://shapes?seed=1&duration_s=3&rate_hz=10&width=64&height=48",
    }[request.param]()


def test_every_source_has_settings_and_says_what_it_reads() -> None:
    assert set(SOURCES) == {"file", "folder", "lerobot", "live", "mcap", "synthetic"}
    for name in SOURCES:
        first_line = (SOURCES[name].__doc__ or "").splitlines()[0]
        assert ": " in first_line and first_line.endswith("."), f"{name}: one line, with what it reads"


def test_frames_come_in_order(uri: str) -> None:
    with open_source(uri, stream_id="door") as source:
        assert source.stream_id == "door"
        frames = list(source)
    assert len(frames) == 30
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(times_s) and times_s[0] == 0.0
    assert [frame.index for frame in frames] == list(range(30))
    assert {frame.stream_id for frame in frames} == {"door"}
    assert not any(frame.rgb_HW3.flags.writeable for frame in frames)
    assert source.duration_s == pytest.approx(times_s[-1] + times_s[1], abs=0.06)
    assert source.stats.num_frames == 30 and not source.stats.num_damaged


def test_sampled_is_the_sampler_over_all_frames(uri: str) -> None:
    sampler = RateSampler(3.0)
    with open_source(uri) as source:
        wanted = list(sampler.filter(source))
    with open_source(uri) as source:
        got = list(source.sampled(sampler))
    assert [(f.pts_s, f.index) for f in got] == [(f.pts_s, f.index) for f in wanted]
    assert all(np.array_equal(a.rgb_HW3, b.rgb_HW3) for a, b in zip(got, wanted, strict=True))
    assert len(got) < 30 or source.duration_s == 30.0  # the folder has one picture a second


def test_a_recording_starts_again(uri: str) -> None:
    if uri.startswith("http"):
        pytest.skip("what comes over a connection goes on")
    with open_source(uri) as source:
        first = [f.pts_s for f, _ in zip(source, range(3), strict=False)]
        assert [f.pts_s for f, _ in zip(source, range(3), strict=False)] == first


def test_close_ends_an_iteration_from_another_thread(uri: str) -> None:
    source = open_source(uri)
    assert source.state in ("live", "connecting")
    started, ended = threading.Event(), threading.Event()

    def watch() -> None:
        for _ in source:
            started.set()
            time.sleep(0.001)
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    assert started.wait(10)
    source.close()
    assert ended.wait(LIMIT_S)
    source.close()
    assert source.state == "ended"
    with pytest.raises(ValueError, match="was closed; open it again"):
        next(iter(source))


def test_nothing_stays_behind(uri: str) -> None:
    """Threads and files of a source that was left in the middle are gone after close()."""
    opened = Path("/proc/self/fd")
    if not opened.is_dir():
        pytest.skip("no /proc to count open files in")
    list(open_source(uri))  # what is loaded once
    gc.collect()
    before = (threading.active_count(), len(os.listdir(opened)))
    for _ in range(5):
        with open_source(uri) as source:
            frames = iter(source)
            next(frames)
        del frames
    gc.collect()
    deadline_s = time.monotonic() + LIMIT_S
    while (threading.active_count(), len(os.listdir(opened))) > before and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert (threading.active_count(), len(os.listdir(opened))) <= before


def test_repr_is_short_and_masked(uri: str) -> None:
    with open_source(uri) as source:
        for text in (repr(source), str(source.uri), str(vars(source)), source.stream_id):
            assert "QXsecret" not in text and "bob" not in text
        assert len(repr(source)) < 120
        assert repr(source).startswith(type(source).__name__)


def test_a_wrong_option_lists_the_right_ones(uri: str) -> None:
    with pytest.raises(ValueError, match=r"Source has no option 'colour'; it has: "):
        open_source(uri, colour="red")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        (
            "gopher://u:QXsecret@h/x",
            r"no source reads gopher:// \(gopher://\*\*\*@h/x\); there are: device://, file://",
        ),
        ("rtsp:/u:QXsecret@h/x", r"rtsp:/\*\*\*@h/x is no uri; write two slashes, rtsp://"),
        ("rtsp://", "rtsp:// is no address; wanted rtsp://host:port/path"),
        ("http://[bad/x", "is no address"),
        ("", "the source is empty; give a file"),
        ("nothing/here.mp4", "no file or folder at nothing/here.mp4; check the path"),
        ("file:///nothing%20here.mp4", "no file or folder at /nothing here.mp4"),
        ("nul\0.mp4", "is no path"),
        ("/dev/zero", "is no regular file"),
        ("/dev/video87", "no camera can be opened at /dev/video87"),
        ("device://front", "device://front names no camera; write device://0"),
        ("mcap://", "names no place; write mcap://path"),
        ("nothing/here.mcap", "no file or folder at nothing/here.mcap; check the path"),
        ("lerobot://nothing/here", "is no LeRobot dataset: it has no meta/info.json"),
        ("synthetic://clowns", "no synthetic world is called 'clowns'"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(uri: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence) as caught:
        open_source(uri)
    message = str(caught.value)
    assert "QXsecret" not in message and "\n" not in message and len(message) < 250


def test_the_row_is_picked_by_scheme_path_and_suffix(tmp_path: Path, web: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.PNG")
    clip = make_clip(tmp_path / "a clip.mp4", 5)

    def kind(what: str | Path) -> str:
        with open_source(what) as source:
            return type(source).__name__

    assert kind(tmp_path) == kind(tmp_path.as_uri()) == kind(tmp_path / "one.PNG") == "ImageDirSource"
    assert kind(clip) == kind(str(clip)) == kind(clip.as_uri()) == "FileSource"
    assert kind(f"http://{web}/clip.mp4") == "LiveSource"
    assert kind("synthetic://shapes?seed=3") == "SyntheticSource"


def test_the_web(web: str) -> None:
    with open_source(f"http://{web}/clip.mp4") as source:
        assert not source.is_live and source.duration_s == pytest.approx(1.2, abs=0.01)
        frames = list(source)
    assert len(frames) == 30 and frames[-1].pts_s == pytest.approx(1.16)
    with pytest.raises(SourceError, match="does not exist: the server answers 404"):
        open_source(f"http://{web}/missing.mp4")
    with pytest.raises(SourceError, match="answers, but not with video that can be read"):
        open_source(f"http://{web}/page.html")
    with pytest.raises(SourceLost, match="refuses the connection"):
        open_source("http://127.0.0.1:9/clip.mp4")


def test_importing_brings_nothing_heavy() -> None:
    look = "import millpond.stream, sys; print({'av', 'decord', 'PIL', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("kind", [SourceError, SourceLost])
def test_an_error_masks_its_own_message(kind: Callable[[str], Exception]) -> None:
    assert str(kind("rtsp://a:QX@h/x went away")) == "rtsp://***@h/x went away"


def test_a_source_of_ones_own_keeps_the_contract_with_little() -> None:
    class Nothing(Source):
        """Nothing at all: nothing."""

        def __iter__(self):  # type: ignore[no-untyped-def]
            self.check_open()
            return iter(())

    source = Nothing("rtsp://a:QX@h/x", stream_id=None)
    assert list(source.sampled(RateSampler(1.0))) == []
    assert repr(source) == "Nothing(rtsp://***@h/x, ?)" and source.stream_id == "stream"
