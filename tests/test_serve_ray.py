"""The service over a real Ray: streams and the model in other processes, the same API in front of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from millpond.stream.jpeg import decode_jpeg

from .ray_cluster import running_ray
from .serve_server import ENDED, STEADY, Served, served, until

pytest.importorskip("fastapi")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    streams = [{"id": "yard", "source": ENDED}, {"id": "street", "source": STEADY, "as_live": True}]
    with running_ray(), served({"model": {"device": "cpu"}, "streams": streams}, ray="local") as running:
        running.wait_for("yard")
        running.wait_for_frame("street")
        yield running


def test_it_shows_and_answers_as_a_single_process_does(server: Served) -> None:
    def states() -> list[tuple[str, str]]:
        return [(one["id"], one["state"]) for one in server.client.get("/v1/streams").json()["data"]]

    # What a worker tells comes by way of the supervisor, after the first frames.
    until(lambda: states() == [("yard", "ended"), ("street", "live")], "both to be told of")
    until(lambda: server.client.get("/v1/streams/yard").json()["num_frames"] == 12, "all frames to be counted")
    rows = until(lambda: server.client.get("/v1/streams/yard/events").json()["data"], "a narration")
    word = rows[0]["text"].split()[0].strip(",")
    assert server.client.get("/v1/search", params={"q": word}).json()["data"][0]["stream"] == "yard"
    for path in ("snapshot.jpg", "frames/3.jpg"):
        picture = server.client.get(f"/v1/streams/yard/{path}")
        assert decode_jpeg(picture.content).shape == (240, 320, 3)
    overlay = server.client.get("/v1/streams/yard/overlay").json()
    assert overlay["rows"] > 0 and overlay["pts_s"] == 11.0
    body = {"model": "millpond/yard", "messages": [{"role": "user", "content": "What appeared first?"}]}
    whole = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert whole["content"] and whole["millpond"]["seen_until_s"] == 11.0
    with server.client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
        chunks = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert chunks[-1] == "[DONE]"
    texts = [json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]]
    assert "".join(texts) == whole["content"] and len([text for text in texts if text]) > 1  # word by word
    assert server.client.get("/readyz").status_code == 200


def test_streams_come_and_go(server: Served) -> None:
    assert server.client.post("/v1/streams", json={"id": "new", "source": ENDED}).status_code == 201
    server.wait_for("new")
    assert server.client.delete("/v1/streams/new").status_code == 204
    assert server.client.get("/v1/streams/new").status_code == 404
    far = {"id": "far", "source": "rtsp://93.184.216.34/main"}
    assert "declared in the config" in server.client.post("/v1/streams", json=far).json()["error"]["message"]
