"""`millpond serve` in a process of its own: signals end it in order, what it knew is there when it comes back."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from .serve_server import STEADY, ServerProcess, until

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

pytestmark = pytest.mark.slow


def config_in(folder: Path, more: str = "") -> Path:
    path = folder / "millpond.toml"
    path.write_text(
        f"""
[memory]
at = "kept"

[server]
grace_s = 20

[[streams]]
id = "yard"
source = "{STEADY}"
as_live = true
{more}
""",
        encoding="utf-8",
    )
    return path


def asked(url: str, path: str) -> dict[str, object]:
    told = httpx.get(f"{url}{path}", timeout=30, trust_env=False)
    told.raise_for_status()
    return told.json()  # type: ignore[no-any-return]


def test_sigterm_flushes_what_was_seen_and_the_next_process_goes_on_from_there(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with ServerProcess(config) as server:
        server.wait_until_ready()
        until(lambda: asked(server.url, "/v1/streams/yard")["seen_until_s"], "a frame")
        until(lambda: asked(server.url, "/v1/streams/yard/events")["data"], "a narration")
        rows = asked(server.url, "/v1/streams/yard/events")["data"]
        seen = asked(server.url, "/v1/streams/yard")
        assert server.end(signal.SIGTERM) == 0, server.log
        assert "Traceback" not in server.log
        assert all(json.loads(line)["event"] for line in server.log.splitlines() if line.startswith("{"))
    assert (tmp_path / "kept" / "yard" / "log.sqlite").exists()
    with ServerProcess(config) as server:
        server.wait_until_ready()
        again = asked(server.url, "/v1/streams/yard/events")["data"]
        assert again[: len(rows)] == rows  # type: ignore[index,arg-type]
        now = until(lambda: asked(server.url, "/v1/streams/yard")["seen_until_s"], "a frame")
        assert now >= seen["seen_until_s"]
        assert server.end(signal.SIGINT) == 0, server.log


def test_followers_are_let_go_and_an_answer_on_its_way_ends(tmp_path: Path) -> None:
    with ServerProcess(config_in(tmp_path)) as server:
        server.wait_until_ready()
        until(lambda: asked(server.url, "/v1/streams/yard")["seen_until_s"], "a frame")
        follower: list[int] = []

        def follow() -> None:
            headers = {"Accept": "text/event-stream"}
            with httpx.stream("GET", f"{server.url}/v1/streams/yard/events", headers=headers, timeout=60) as response:
                follower.append(response.status_code)
                for _ in response.iter_lines():
                    pass
                follower.append(0)  # it ended in order

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        until(lambda: follower, "the follower")
        body = {"model": "millpond/yard", "stream": True, "messages": [{"role": "user", "content": "What appeared?"}]}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-1] == "data: [DONE]" or rest[-2] == "data: [DONE]", rest
        thread.join(30)
        assert follower == [200, 0]
        assert server.end() == 0, server.log


def test_a_server_that_is_told_to_end_while_it_loads_ends(tmp_path: Path) -> None:
    with ServerProcess(config_in(tmp_path)) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.end(signal.SIGTERM) == 0, server.log


def test_a_model_that_is_not_there_ends_it_with_a_sentence(tmp_path: Path) -> None:
    config = config_in(tmp_path, f'[model]\nname = "{tmp_path}/nowhere"')
    with ServerProcess(config) as server:
        assert server.process.wait(120) != 0
        assert "cannot be loaded" in server.log


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with ServerProcess(config_in(tmp_path), port=other.getsockname()[1]) as server:
            assert server.process.wait(120) != 0
            assert "nothing can listen" in server.log


def test_a_server_that_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    text = config_in(tmp_path).read_text(encoding="utf-8").replace("[server]", '[server]\nhost = "0.0.0.0"')
    (tmp_path / "millpond.toml").write_text(text, encoding="utf-8")
    with ServerProcess(tmp_path / "millpond.toml") as server:
        assert server.process.wait(120) != 0 and "needs a token" in server.log
    with ServerProcess(tmp_path / "millpond.toml", environment={"MILLPOND_TOKEN": "0123456789abcdef"}) as server:
        port = server.url.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/v1/streams", timeout=60).status_code == 401
        deadline_s = time.monotonic() + 60
        while httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code != 200:
            assert time.monotonic() < deadline_s
        assert server.end() == 0, server.log


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_answers_are_sent_at_once(host: str) -> None:
    """An answer's head and body are two small writes: Nagle's algorithm would keep the second one back."""
    from millpond.pipeline.serve.serving import _listening

    async def is_sent_at_once() -> bool:
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(bool(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        async with await asyncio.start_server(visited, sock=listening):
            _, visitor = await asyncio.open_connection(*listening.getsockname()[:2])
            visitor.close()
            return await told

    with _listening(host, 0) as listening:
        assert asyncio.run(is_sent_at_once())
