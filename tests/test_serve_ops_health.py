"""Health: each thing that can be wrong makes it fail, and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from millpond.pipeline.serve import health
from millpond.pipeline.serve.health import health_routes
from millpond.pipeline.serve.views import StreamState

from .serve_desk import PlainDesk, a_state


def make_client(desk: PlainDesk, **options: float) -> TestClient:
    app = FastAPI()
    app.include_router(health_routes(desk, **options))
    return TestClient(app)


def told(client: TestClient, path: str) -> tuple[int, dict[str, str]]:
    answer = client.get(path)
    body: dict[str, Any] = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.status_code == 200) == (body["status"] in ("ok", "ready")) == (not body["problems"])
    assert client.head(path).status_code == answer.status_code
    return answer.status_code, {problem["what"]: problem["why"] for problem in body["problems"]}


def test_all_is_well() -> None:
    client = make_client(PlainDesk([a_state("door")], declared=("door",)))
    assert told(client, "/healthz") == (200, {})
    assert told(client, "/readyz") == (200, {})


def wrong(**changes: Any) -> Callable[[PlainDesk], None]:
    def change(desk: PlainDesk) -> None:
        for name, value in changes.items():
            setattr(desk, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (wrong(hub_turn_age_s=None), "hub", "its thread has ended"),
        (wrong(hub_turn_age_s=31.0), "hub", "its thread hangs, for 31 s now"),
        (wrong(is_loaded=False, load_problem="no config.json"), "model", "could not be loaded"),
    ],
)
def test_what_cannot_mend_itself_fails_both(change: Callable[[PlainDesk], None], what: str, why: str) -> None:
    desk = PlainDesk()
    client = make_client(desk, hangs_after_s=30.0)
    assert told(client, "/healthz")[0] == 200
    change(desk)
    assert told(client, "/healthz") == (503, {what: why})
    assert told(client, "/readyz") == (503, {what: why})


@pytest.mark.parametrize(
    ("change", "what", "why"),
    [
        (wrong(is_loaded=False, hub_turn_age_s=None), "model", "is being loaded"),
        (wrong(is_closing=True, hub_turn_age_s=None), "server", "is shutting down"),
        (wrong(shown=[a_state("door", state="connecting", was_live=False)]), "stream door", "is connecting"),
        (wrong(shown=[a_state("door", state="retrying", was_live=False)]), "stream door", "is retrying"),
    ],
)
def test_what_passes_fails_readiness_alone(change: Callable[[PlainDesk], None], what: str, why: str) -> None:
    desk = PlainDesk([a_state("door")], declared=("door",))
    change(desk)
    client = make_client(desk)
    assert told(client, "/healthz") == (200, {})
    assert told(client, "/readyz") == (503, {what: why})


@pytest.mark.parametrize(
    "state",
    [
        a_state("door", state="retrying", was_live=True),
        a_state("door", state="failed", was_live=False),
        a_state("door", state="ended", was_live=False),
        a_state("added later", state="connecting", was_live=False),
    ],
    ids=lambda state: f"{state.id}-{state.state}",
)
def test_a_stream_is_waited_for_once_and_only_if_it_was_declared(state: StreamState) -> None:
    assert told(make_client(PlainDesk([state], declared=("door",))), "/readyz") == (200, {})


def test_a_desk_that_hangs_takes_no_more_than_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ANSWERS_WITHIN_S", 0.1)
    desk, goes_on, num_asked = PlainDesk(), threading.Event(), 0

    def hangs() -> list[StreamState]:
        nonlocal num_asked
        num_asked += 1
        assert goes_on.wait(60)
        return []

    monkeypatch.setattr(desk, "states", hangs)
    with make_client(desk) as client:  # one event loop for all requests
        try:
            for _ in range(5):
                status, problems = told(client, "/readyz")
                assert status == 503 and problems == {"streams": "do not say how they are"}
            assert num_asked == 1, "those who ask later wait for the first, and not in threads of their own"
            assert told(client, "/healthz") == (200, {})
        finally:
            goes_on.set()


def test_a_desk_that_breaks_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = PlainDesk()

    def breaks() -> list[StreamState]:
        raise RuntimeError("no")

    monkeypatch.setattr(desk, "states", breaks)
    assert told(make_client(desk), "/readyz") == (503, {"streams": "do not say how they are"})


def test_a_wrong_patience_is_refused() -> None:
    with pytest.raises(ValueError, match="hangs_after_s is more than 0; got 0"):
        health_routes(PlainDesk(), hangs_after_s=0)
