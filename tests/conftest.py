"""What several test files need: one thread for torch, servers on loopback, a gateway to them, a browser.

What a fixture needs is imported when it is used, so that the files that use none stay light.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from .scheduling import as_scheduled, policy

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

    from millpond.pipeline.serve.gateway import Gateway

    from .guarded_parts import Inside, Names
    from .transport_streams import WebServer

# Tests are many and small: threads would fight over the cores. Read by torch when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Times are measured by benchmarks: no example fails because the machine was busy.
hypothesis.settings.register_profile("untimed", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("untimed")

SYSTEM_PYTHON = "/usr/bin/python3"  # GStreamer's bindings are the system's, not the environment's
SERVER = Path(__file__).parent / "rtsp_server.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who asks for the long ones has the time."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(autouse=True)
def nobody_becomes_real_time() -> Iterator[None]:
    """What a test starts is scheduled as the test is: as real time, it would keep everybody else from running."""
    before = policy()
    with as_scheduled():  # the others are not to bear what one did
        yield
        assert policy() == before, "a library changed how this thread is scheduled"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For who compares sums to the last bit, whatever OMP_NUM_THREADS says."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class RtspServer:
    """A server in a process of its own, to be stopped, frozen and killed."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline() or 0)

    def uri(self, user: str = "") -> str:
        return f"rtsp://{user}{'@' if user else ''}127.0.0.1:{self.port}/clip"

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="session")
def gstreamer() -> None:
    """Skips where there is no GStreamer RTSP server."""
    check = """import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("x264enc", "rtph264pay", "qtdemux"))"""
    if not Path(SYSTEM_PYTHON).exists() or subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode:
        pytest.skip("no GStreamer: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly")


@pytest.fixture
def rtsp_server(gstreamer: None) -> Iterator[Callable[..., RtspServer]]:
    """Starts servers, and proves them gone afterwards."""
    servers: list[RtspServer] = []

    def start(*arguments: str) -> RtspServer:
        servers.append(RtspServer(*arguments))
        assert servers[-1].port, "the RTSP server did not start"
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def web() -> Iterator[WebServer]:
    from .transport_streams import WebServer

    with WebServer() as server:
        yield server


@pytest.fixture
def inside() -> Iterator[Inside]:
    from .guarded_parts import Inside

    server = Inside()
    yield server
    server.close()


@pytest.fixture
def names() -> Names:
    from .guarded_parts import Names

    return Names(cam_example=["127.0.0.1"], inside_example=["127.0.0.2"])


@pytest.fixture
def gateway(names: Names) -> Iterator[Gateway]:
    """One by the rules of `rules_with`; proves its threads gone afterwards."""
    from millpond.pipeline.serve.gateway import Gateway

    from .guarded_parts import rules_with

    before = set(threading.enumerate())
    with Gateway(rules_with(names), connect_s=2.0) as opened:
        yield opened
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("millpond"):
            thread.join(5)
            assert not thread.is_alive(), thread.name
    assert len(set(threading.enumerate()) - before) <= 4  # the servers'


@pytest.fixture(scope="module")
def driver() -> Iterator[WebDriver]:
    """A browser for all tests of a file."""
    from .chromium import chromium

    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with the page and two streams, for all tests of a file."""
    from .page_serving import serving

    with serving() as url:
        yield url
