"""What several test files need: one thread for torch, and an RTSP server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Tests are many and small: threads would fight over the cores. Read by torch when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SYSTEM_PYTHON = "/usr/bin/python3"  # GStreamer's bindings are the system's, not the environment's
SERVER = Path(__file__).parent / "rtsp_server.py"


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
