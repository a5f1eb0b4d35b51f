"""The doctor: what it finds on this machine, and what it says of each thing that is broken on purpose."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.encoders.load import BUILT_IN
from millpond.memory import MemoryConfig
from millpond.pipeline import EngineConfig, HistoryConfig, StreamSpec
from millpond.pipeline.doctor import Finding, Plan, examine, machine, servers
from millpond.pipeline.doctor.decoders import check_decoders, check_decord
from millpond.pipeline.doctor.examine import _checked
from millpond.pipeline.doctor.machine import Needed, check_clock, check_cpu, check_disk, check_memory, check_packages
from millpond.pipeline.doctor.model import check_model
from millpond.pipeline.doctor.servers import check_port, check_redis
from millpond.pipeline.doctor.sources import check_source, check_sources

from .redis_server import answering, running_redis

WORLD = "synthetic://shapes?seed=1&width=96&height=96"
NOTHING = Needed(0, 0)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def names(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in findings}


@given(
    name=st.text(max_size=8),
    verdict=st.sampled_from(["ok", "warn", "fail"]),
    found=st.text(max_size=8),
    to_do=st.text(max_size=8),
)
def test_whatever_is_not_ok_says_what_to_do(name: str, verdict: Any, found: str, to_do: str) -> None:
    is_sound = bool(name.split()) and bool(found.split()) and bool(to_do.split()) == (verdict != "ok")
    try:
        finding = Finding(name, verdict, found, to_do)
    except ValueError as error:
        assert not is_sound and "got " in str(error)
    else:
        assert is_sound and "\n" not in finding.found + finding.to_do


def test_a_finding_holds_no_credentials() -> None:
    finding = Finding("redis redis://u:S3CRET@h", "fail", "rtsp://u:S3CRET@h is lost", "see http://x/?token=S3CRET")
    assert "S3CRET" not in repr(finding)
    with pytest.raises(ValueError, match="a verdict is one of ok, warn, fail; got 'bad'"):
        Finding("x", "bad", "y", "z")  # type: ignore[arg-type]


# This machine.


@pytest.mark.slow
def test_this_machine_runs_millpond(tmp_path: Path) -> None:
    """Nothing fails here, since these very tests run; and each check had something to say."""
    spec = StreamSpec("door", WORLD, memory=str(tmp_path / "memories"))
    findings = list(examine(Plan(streams=(spec,), port=closed_port())))
    assert not [finding for finding in findings if finding.verdict == "fail"]
    verdicts = names(findings)
    told = {name.split()[0] for name in verdicts}
    assert told >= {"python", "packages", "cpu", "memory", "disk", "clock", "torch", "model", "decode", "ray", "port"}
    assert verdicts["model millpond/mini"] == verdicts["decode h264"] == verdicts["stream door"] == "ok"


def test_a_check_that_breaks_is_a_finding_and_stops_no_other() -> None:
    def breaks() -> Finding:
        raise RuntimeError("redis://:S3CRET@h is odd")

    def breaks_later() -> Iterator[Finding]:
        yield Finding("one", "ok", "well")
        raise OSError("gone")

    (finding,) = _checked("memory", breaks)
    assert finding.verdict == "fail" and "this check itself failed: RuntimeError" in finding.found
    assert "S3CRET" not in finding.found
    assert names(list(_checked("disk", breaks_later))) == {"one": "ok", "disk": "fail"}


def test_memory_that_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = machine.GIB
    for free_bytes, needed_bytes, verdict in (
        (8 * gib, 0, "ok"),
        (8 * gib, 9 * gib, "warn"),
        (gib, 0, "warn"),
        (gib // 4, 0, "fail"),
    ):
        monkeypatch.setattr(machine, "memory_bytes", lambda free_bytes=free_bytes: (16 * gib, free_bytes))
        assert check_memory(Needed(needed_bytes, 0)).verdict == verdict
    monkeypatch.setattr(machine, "memory_bytes", lambda: (0, 0))
    assert check_memory(NOTHING).verdict == "ok", "not known is not wrong"


def test_the_memory_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n",
        "/sys/fs/cgroup/memory.max": "2147483648\n",
        "/sys/fs/cgroup/memory.current": "1073741824\n",
        "/sys/fs/cgroup/cpu.max": "50000 100000\n",
        "/proc/cpuinfo": "flags\t\t: fpu avx2\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert machine.memory_bytes() == (2 * machine.GIB, machine.GIB)
    cpu = check_cpu()
    assert cpu.verdict == "warn" and cpu.found.startswith("0.5 cores, avx2")


def test_a_disk_that_cannot_be_written_to_or_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fine,) = check_disk([str(tmp_path / "not" / "there" / "yet")], NOTHING)
    assert fine.verdict == "ok"
    (short,) = check_disk([str(tmp_path)], Needed(0, 2**60))
    assert short.verdict == "warn" and "GiB" in short.found
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    (full,) = check_disk([str(tmp_path)], NOTHING)
    assert full.verdict == "fail" and "make room" in full.to_do
    (tmp_path / "file").write_text("")
    (no_folder,) = check_disk([str(tmp_path / "file")], NOTHING)
    assert no_folder.verdict == "fail" and "not a directory" in no_folder.found


def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert check_clock().verdict == "fail" and "1970-01-01" in check_clock().found


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    wanted = ["typer>=0.15", 'nowhere>=1; extra == "serve"', 'other; extra == "robot"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    finding = check_packages()
    assert (finding.verdict, finding.found) == ("warn", "nowhere none, wanted >=1")
    assert finding.to_do == "pip install --upgrade 'millpond[serve]'"
    wanted[0] = "typer>=999"
    finding = check_packages()
    assert finding.verdict == "fail" and "wanted >=999" in finding.found


def test_what_streams_may_come_to_hold_is_counted() -> None:
    engine = EngineConfig(memory=MemoryConfig(budget_bytes=100), history=HistoryConfig(queue_bytes=1, log_bytes=2**20))
    here = StreamSpec("a", WORLD)
    kept = StreamSpec("b", WORLD, memory="/tmp/x")
    away = StreamSpec("c", WORLD, memory="redis://host/0")
    plan = Plan(engine=engine, streams=(here, kept, away))
    assert plan.folders == ("/tmp/x",) and plan.servers == ("redis://host/0",)
    assert Plan(engine=engine, streams=(kept,)).needed == (101, 100 + 2**30 + 2**20)
    assert Plan(engine=engine, streams=(here,)).needed == (101 + 2**26 + 2**20, 0)
    assert plan.needed.memory_bytes == 3 * 101 + 2 * (2**26 + 2**20)
    with pytest.raises(ValueError, match="patience_s is more than 0; got 0"):
        Plan(patience_s=0)


# The model.


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    finding = check_model(EngineConfig(model=str(tmp_path)), patience_s=300)
    assert finding.verdict == "fail" and "holds no config.json" in finding.found and "checkpoint" in finding.to_do


@pytest.mark.slow
def test_a_checkpoint_whose_weights_are_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BUILT_IN["millpond/mini"], folder)
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    finding = check_model(EngineConfig(model=str(folder)), patience_s=300)
    assert finding.verdict == "fail" and "cannot be loaded" in finding.found and finding.to_do


def test_a_model_that_is_not_here_is_not_downloaded() -> None:
    finding = check_model(EngineConfig(model="nobody/nothing-like-this"), patience_s=300)
    assert finding.verdict == "warn" and "hf download nobody/nothing-like-this" in finding.to_do


def test_a_model_larger_than_memory_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millpond.pipeline.doctor import model

    (tmp_path / "model.safetensors").write_bytes(bytes(100))
    monkeypatch.setattr(model, "memory_bytes", lambda: (1000, 10))
    monkeypatch.setattr(model, "_has_gpu", lambda: False)
    finding = check_model(EngineConfig(model=str(tmp_path)), patience_s=1)
    assert finding.verdict == "fail" and "take a smaller model" in finding.to_do


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "too little memory"),
        ("import time; time.sleep(60)", "within 0.5 s"),
        ("raise SystemExit('it broke')", "it broke"),
        ("print('{')", "its process ended with 0"),
    ],
)
def test_a_model_that_takes_its_process_along(code: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from millpond.pipeline.doctor import model

    monkeypatch.setattr(model, "_CHILD", (sys.executable, "-c", code))
    finding = check_model(EngineConfig(), patience_s=0.5 if "sleep" in code else 60)
    assert finding.verdict == "fail" and found in finding.found and finding.to_do


# Decoders.


def test_decoders_read_what_they_should() -> None:
    verdicts = names(list(check_decoders()))
    assert verdicts["decode h264"] == verdicts["decode hevc"] == "ok"
    assert verdicts["decord"] in ("ok", "warn")


def test_decord_that_cannot_read_a_clip_is_told(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    (tmp_path / "clip.mp4").write_bytes(b"no clip")
    finding = check_decord(tmp_path / "clip.mp4")
    assert finding.verdict == "warn" and "does not read a clip" in finding.found and "PyAV" in finding.to_do


# Servers.


def test_a_redis_that_is_not_there() -> None:
    finding = check_redis(f"redis://u:S3CRET@127.0.0.1:{closed_port()}/0")
    assert finding.verdict == "fail" and "cannot be reached" in finding.found and "redis-server" in finding.to_do
    assert "S3CRET" not in repr(finding)


def test_an_address_that_is_none_of_redis() -> None:
    finding = check_redis("redis://host/zero")
    assert finding.verdict == "fail" and "a Redis database is a number" in finding.found


def test_something_else_where_redis_should_be() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (port, _):
        finding = check_redis(f"redis://127.0.0.1:{port}/0")
    assert finding.verdict == "fail" and finding.to_do


def test_a_redis_that_answers_evicts_or_refuses(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        finding = check_redis(server.url())
        assert finding.verdict == "ok" and finding.found.startswith("version ")
        with server.client() as client:
            client.config_set("maxmemory", "10mb")
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert check_redis(server.url()).verdict == "warn"
            client.config_set("requirepass", "S3CRET")
        finding = check_redis(server.url(":wr0ng-S3CRET"))
        assert finding.verdict == "fail" and "mend user and password" in finding.to_do and "S3CRET" not in repr(finding)


class Healthy(BaseHTTPRequestHandler):
    """Answers as a server of Millpond's does."""

    def do_GET(self) -> None:
        body = json.dumps({"service": "millpond", "status": "ok", "problems": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_port_that_is_free_taken_or_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_ANSWER_S", 0.2)
    assert check_port("127.0.0.1", closed_port()).verdict == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:  # it takes connections, and never says a word
        port = taken.getsockname()[1]
        finding = check_port("127.0.0.1", port)
    assert finding.verdict == "fail" and "set another [server] port" in finding.to_do and str(port) in finding.to_do
    if sys.platform == "linux":
        assert "process" in finding.found, "it says who: this very process"
    monkeypatch.setattr(servers, "_ANSWER_S", 10.0)
    with HTTPServer(("127.0.0.1", 0), Healthy) as ours:
        Thread(target=ours.serve_forever, daemon=True).start()
        finding = check_port("127.0.0.1", ours.server_port)
        ours.shutdown()
    assert finding.verdict == "warn" and finding.found == "a Millpond server listens there already"


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "x" * 300])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    finding = check_port(host, 8321)
    assert finding.verdict == "fail" and "[server] host" in finding.to_do


# Sources.


def test_a_camera_that_refuses_and_one_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        specs = [
            StreamSpec("refuses", f"rtsp://admin:S3CRET@127.0.0.1:{closed_port()}/main"),
            StreamSpec("mute", f"rtsp://admin:S3CRET@127.0.0.1:{mute.getsockname()[1]}/main"),
            StreamSpec("world", WORLD),
        ]
        refused, silent, world = check_sources(specs, patience_s=1.0)
    assert refused.verdict == "fail" and "refuses the connection" in refused.found and "firewall" in refused.to_do
    assert silent.verdict == "fail" and "did not answer within 1 s" in silent.found and silent.to_do
    assert world.verdict == "ok" and "96x96" in world.found
    assert "S3CRET" not in repr((refused, silent))


def test_a_camera_that_shows_a_picture(rtsp_server: Any) -> None:
    finding = check_source(StreamSpec("camera", rtsp_server().uri()), patience_s=20.0)
    assert finding.verdict == "ok" and "160x120" in finding.found


def test_a_camera_that_wants_another_password(rtsp_server: Any) -> None:
    server = rtsp_server("--user", "admin", "--password", "right")
    finding = check_source(StreamSpec("camera", server.uri("admin:S3CRET")), patience_s=20.0)
    assert finding.verdict == "fail" and "refuses the user name or password" in finding.found
    assert "user, password" in finding.to_do and "S3CRET" not in repr(finding)


def test_files_that_are_not_there_or_no_video(tmp_path: Path) -> None:
    (tmp_path / "words.mp4").write_text("words")
    for path in (tmp_path / "nothing.mp4", tmp_path / "words.mp4", tmp_path):
        finding = check_source(StreamSpec("file", str(path)), patience_s=20.0)
        assert finding.verdict == "fail" and finding.to_do, path


def test_a_source_that_hangs_does_not_hang_the_doctor(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "clip.mp4")  # opening it waits for somebody to write
    began_s = time.monotonic()
    finding = check_source(StreamSpec("pipe", str(tmp_path / "clip.mp4")), patience_s=0.2)
    assert finding.verdict == "fail" and finding.to_do
    assert time.monotonic() - began_s < 60
