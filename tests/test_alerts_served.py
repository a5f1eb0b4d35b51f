"""Alerts of a real server: from a config's words to a signed message whose keyframe can be fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("structlog")

from millpond.stream.synthetic import SyntheticSource
from millpond.stream.world import COLORS, SHAPES

from .alert_parts import WORDS, receiving, until
from .serve_server import served

SOURCE = "synthetic://shapes?seed={}&duration_s=12&rate_hz=1"


def a_world() -> tuple[str, str, str]:
    """A source, a thing that is there when it ends, and one that never is."""
    for seed in range(100):
        with SyntheticSource(SOURCE.format(seed)) as source:
            things = source.world.things
            here = [thing.name for thing in things if thing.appear_s <= 8 and thing.leave_s > 12 and not thing.outline]
            names = {thing.name for thing in things}
            if here:
                never = next(f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in names)
                return SOURCE.format(seed), here[0], never
    raise AssertionError("no such world")


@pytest.mark.slow
def test_a_server_tells_what_its_config_asks_for(tmp_path: Path) -> None:
    source, here, never = a_world()
    with receiving(503, 200) as receiver:
        told = {"stream": "hall", "webhook": receiver.url, "secret": WORDS}
        given = {
            "server": {"dead_letters": str(tmp_path / "alerts.jsonl")},
            "streams": [{"id": "hall", "source": source, "narrate": False}],
            "urls": {"networks": ["127.0.0.0/8"]},
            "alerts": [
                {"id": "here", "says": f"a {here} is there", **told},
                {"id": "never", "says": f"a {never} appears", "every_s": 1.0, **told},
                {"id": "nowhere", "stream": "yard", "says": f"a {here} appears"},
            ],
        }
        with served(given) as server:
            server.wait_for("hall")
            until(lambda: len(receiver.got) >= 2, "the message, and once more")
            until(lambda: server.client.get("/v1/alerts").json()["deliveries"]["num_told"] == 1, "it is told")
            answer = server.client.get("/v1/alerts")
            message = json.loads(receiver.got[0].body)
            picture = server.client.get(message["keyframe"])
            tried = server.client.post("/v1/alerts/never/test").json()
    shown = {rule["id"]: rule for rule in answer.json()["data"]}
    assert all(got.is_ours for got in receiver.got) and receiver.got[0].body == receiver.got[1].body
    assert (message["rule"], message["stream_id"], message["test"]) == ("here", "hall", False)
    assert picture.status_code == 200 and picture.content.startswith(b"\xff\xd8")
    assert (shown["here"]["num_fired"], shown["never"]["num_fired"]) == (1, 0) and shown["never"]["num_asked"] > 0
    assert "there is no stream 'yard'" in shown["nowhere"]["problem"]
    assert tried == {"delivered": True, "problem": None} and b'"test": true' in receiver.got[-1].body
    assert WORDS not in answer.text and "T0PSECRETPATH" not in answer.text
    assert (tmp_path / "alerts.jsonl").read_bytes().count(b'"told"') == 1
