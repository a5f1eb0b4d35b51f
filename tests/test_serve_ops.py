"""Operation on real servers: health when the hub's thread dies or hangs, readiness, metrics of real streams, and the
logs of a server process."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("structlog")
pytest.importorskip("httpx")

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from millpond.pipeline.serve.health import health_routes

from .serve_server import STEADY, Served, ServerProcess, served, until

STREAM = {"id": "door", "source": STEADY, "as_live": True}
SETTINGS: dict[str, Any] = {
    "model": {"fps": 2.0, "max_new_tokens": 3},
    "narration": {"max_new_tokens": 3},
    "streams": [STREAM],
}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def problems(client: Any, path: str) -> tuple[int, dict[str, str]]:
    answer = client.get(path)
    return answer.status_code, {one["what"]: one["why"] for one in answer.json()["problems"]}


def series(client: Any) -> dict[tuple[str, ...], float]:
    """Every series of a scrape, by its name and its labels."""
    told = client.get("/metrics")
    assert told.status_code == 200 and told.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(told.text)
    return {(s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(SETTINGS) as running:
        running.wait_for_frame("door")
        yield running


def test_a_server_that_works_is_alive_and_ready(server: Served) -> None:
    assert problems(server.client, "/healthz") == (200, {})
    assert problems(server.client, "/readyz") == (200, {})
    assert server.client.head("/healthz").status_code == 200


def test_metrics_are_those_of_the_streams(server: Served) -> None:
    first = series(server.client)
    taken = ("millpond_stream_frames_total", "stream=door")
    assert first[("millpond_stream_up", "stream=door")] == 1
    assert first[("millpond_model_loaded",)] == 1 and 0 <= first[("millpond_hub_turn_age_seconds",)] < 60
    assert first[("millpond_streams", "state=live")] == 1
    until(lambda: series(server.client)[taken] > first[taken], "another frame")
    answer = server.client.post(
        "/v1/chat/completions",
        json={"model": "millpond/door", "messages": [{"role": "user", "content": "What is there?"}]},
    )
    assert answer.status_code == 200
    after = series(server.client)
    assert after[("millpond_stream_questions_total", "stream=door")] == 1
    assert after[("millpond_questions_in_progress",)] == 0
    asked = ("millpond_http_requests_total", "code=200", "method=POST", "route=/v1/chat/completions")
    assert after[asked] == 1
    assert after[("millpond_stream_tier_bytes", "stream=door", "tier=T0")] > 0


def test_streams_that_came_and_went_leave_no_series(server: Served) -> None:
    before = set(series(server.client))
    for number in range(5):
        stream = {"id": f"guest-{number}", "source": "synthetic://shapes?seed=1&duration_s=1&width=96&height=96"}
        assert server.client.post("/v1/streams", json=stream).status_code == 201
        assert ("millpond_stream_up", f"stream=guest-{number}") in series(server.client)
        assert server.client.delete(f"/v1/streams/guest-{number}").status_code == 204
    left = set(series(server.client)) - before
    assert left and all(name.startswith("millpond_http_") for name, *_ in left), left
    assert not [labels for labels in left if any("guest" in label for label in labels)]


def test_a_hub_that_hangs_is_found_out_and_one_that_goes_on_is_well_again(server: Served) -> None:
    app = FastAPI()
    app.include_router(health_routes(server.streams, hangs_after_s=1.0))
    client, goes_on = TestClient(app), threading.Event()
    assert problems(client, "/healthz") == (200, {})
    hub = server.streams._room.hub
    assert hub is not None
    try:
        looking = hub.look("door", lambda _: goes_on.wait(120))
        status, found = until(lambda: (told := problems(client, "/healthz"))[0] == 503 and told, "the hub to hang")
        assert status == 503 and found["hub"].startswith("its thread hangs")
        assert problems(client, "/readyz")[1]["hub"].startswith("its thread hangs")
        assert ("millpond_stream_up", "stream=door") in series(server.client), "metrics are told all the same"
    finally:
        goes_on.set()
    looking.result(60)
    until(lambda: problems(client, "/healthz") == (200, {}), "the hub to go on")


def test_a_hub_whose_thread_has_died_is_told() -> None:
    with served({**SETTINGS, "streams": []}) as running:
        assert problems(running.client, "/healthz") == (200, {})
        hub = running.streams._room.hub
        assert hub is not None

        def breaks() -> bool:
            raise RuntimeError("the model broke")

        hub._turn = breaks  # type: ignore[method-assign]
        until(lambda: running.client.get("/healthz").status_code == 503, "the hub to give up")
        assert problems(running.client, "/healthz") == (503, {"hub": "its thread has ended"})
        assert problems(running.client, "/readyz") == (503, {"hub": "its thread has ended"})


def test_what_is_not_ready_is_named_until_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the connection, and never shows a picture
        source = f"rtsp://admin:S3CRET@127.0.0.1:{mute.getsockname()[1]}/main"
        with served({**SETTINGS, "streams": [STREAM, {"id": "yard", "source": source}]}) as running:
            running.wait_for_frame("door")
            status, found = problems(running.client, "/readyz")
            assert status == 503 and list(found) == ["stream yard"] and found["stream yard"].startswith("is ")
            assert problems(running.client, "/healthz") == (200, {})
            assert "S3CRET" not in running.client.get("/readyz").text + running.client.get("/metrics").text
            assert running.client.delete("/v1/streams/yard").status_code == 204
            until(lambda: running.client.get("/readyz").status_code == 200, "the rest to be ready")


TOKEN = "t0p-S3CRET-of-the-server"
CONFIG = f"""
[server]
port = 0
token = "{TOKEN}"
log_level = "debug"
[model]
fps = 2.0
[[streams]]
id = "door"
source = "{STEADY}"
as_live = true
[[streams]]
id = "refused"
source = "rtsp://admin:S3CRET@127.0.0.1:PORT/main?token=S3CRET"
[[streams]]
id = "nowhere"
source = "nothing-S3C.mp4"
"""


def test_the_log_of_a_server_process_is_json_and_holds_no_secret(tmp_path: Path) -> None:
    config = tmp_path / "millpond.toml"
    config.write_text(CONFIG.replace("PORT", str(closed_port())))
    with ServerProcess(config) as running:
        until(lambda: "is loaded" in running.log, "the model")
        with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as client:
            refused = client.get("/v1/streams", params={"token": "S3CRET"}, headers={"Authorization": "Bearer S3CRET"})
            assert refused.status_code in (401, 403)
            client.headers["Authorization"] = f"Bearer {TOKEN}"
            assert client.get("/v1/streams").status_code == 200
            stream = {"id": "posted", "source": "rtsp://me:S3CRET@127.0.0.1:9/x"}
            assert client.post("/v1/streams", json=stream).status_code in (201, 400, 403)
            assert client.get("/nowhere?api_key=S3CRET").status_code == 404
            until(lambda: "S3CRET" not in client.get("/v1/streams").text, "streams without secrets")
            assert "S3CRET" not in client.get("/metrics").text
        assert running.end() == 0
        lines = [json.loads(line) for line in running.log.splitlines()]
    assert len(lines) > 5
    for line in lines:
        assert line["time"].endswith("Z") and line["level"] in ("debug", "info", "warning", "error"), line
        assert line["logger"] and line["event"], line
    requests = [line for line in lines if line["event"] == "request"]
    assert {(line["path"], line["status"]) for line in requests} >= {("/v1/streams", 200), ("/nowhere", 404)}
    assert any("refuse" in line["event"] for line in lines), "the camera that is not there is told of"
    assert "S3CRET" not in running.log and TOKEN not in running.log
