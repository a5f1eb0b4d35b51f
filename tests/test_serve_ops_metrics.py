"""Metrics: what prometheus_client's own parser makes of them, their names, and that no series outlives its stream."""

from __future__ import annotations

import re
from typing import get_args

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from millpond.pipeline.serve.metrics import HttpMetrics, metrics_route
from millpond.pipeline.serve.views import StateName

from .serve_desk import PlainDesk, a_state

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# https://prometheus.io/docs/practices/naming: base units, in the plural, last but for what a counter ends with.
UNITS = ("seconds", "bytes", "ratio", "info")
UNITLESS = {
    "millpond_model_loaded",
    "millpond_streams",
    "millpond_stream_up",
    "millpond_questions_in_progress",
    "millpond_http_requests_in_progress",
}


def make_client(desk: PlainDesk) -> TestClient:
    """An app with metrics, of its requests too, and a route with a part that a client chooses."""
    http = HttpMetrics()
    app = FastAPI()
    app.include_router(metrics_route(desk, http))

    @app.get("/v1/streams/{stream_id}")
    def show(stream_id: str) -> dict[str, str]:
        if stream_id == "broken":
            raise RuntimeError("no")
        return {"id": stream_id}

    app.add_middleware(http.middleware)
    return TestClient(app, raise_server_exceptions=False)


def scraped(client: TestClient, accept: str = "text/plain") -> list[Metric]:
    told = client.get("/metrics", headers={"accept": accept})
    assert told.status_code == 200
    parse = parse_openmetrics if "openmetrics" in told.headers["content-type"] else parse_text
    return list(parse(told.text))


def values(metrics: list[Metric], name: str) -> dict[tuple[str, ...], float]:
    """By the values of the labels, in the order of the labels' names."""
    return {
        tuple(value for _, value in sorted(s.labels.items())): s.value
        for m in metrics
        for s in m.samples
        if s.name == name
    }


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_what_the_streams_say_is_what_is_told(accept: str) -> None:
    desk = PlainDesk([a_state("door"), a_state("yard", state="retrying", lag_s=None)], num_questions=2)
    told = scraped(make_client(desk), accept)
    assert values(told, "millpond_stream_up") == {("door",): 1, ("yard",): 0}
    assert values(told, "millpond_stream_frame_age_seconds") == {("door",): 0.25}, "none before the first frame"
    assert values(told, "millpond_stream_frames_total") == {("door",): 7, ("yard",): 7}
    assert values(told, "millpond_stream_dropped_frames_total")[("door",)] == 2
    assert values(told, "millpond_stream_questions_total")[("door",)] == 3
    assert values(told, "millpond_stream_reconnects_total")[("door",)] == 1
    assert values(told, "millpond_stream_changed_ratio")[("door",)] == 0.125
    tiers = values(told, "millpond_stream_tier_bytes")
    assert tiers[("door", "T3")] == 4 and len(tiers) == 8
    assert values(told, "millpond_stream_tier_budget_bytes")[("yard", "T2")] == 30
    states = values(told, "millpond_streams")
    assert states == {(name,): float(name in ("live", "retrying")) for name in get_args(StateName)}
    assert values(told, "millpond_questions_in_progress") == {(): 2}
    assert values(told, "millpond_hub_turn_age_seconds") == {(): 0.1}
    assert values(told, "process_resident_memory_bytes")[()] > 2**20


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_names_keep_to_the_conventions(accept: str) -> None:
    client = make_client(PlainDesk([a_state("door")]))
    client.get("/v1/streams/door")
    told = scraped(client, accept)
    ours = [metric for metric in told if not metric.name.startswith("process_")]
    assert len(ours) > 15
    for metric in ours:
        assert re.fullmatch(r"millpond_[a-z][a-z_]*[a-z]", metric.name), metric.name
        assert metric.documentation, f"{metric.name} says nothing about itself"
        # The parser takes a counter's _total, and an info's _info, off the family's name.
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_created")), metric.name
        assert not any(part in metric.name for part in ("_ms", "_mb", "milli", "minutes", "percent")), metric.name
        if metric.type == "counter":
            assert {sample.name for sample in metric.samples} == {f"{metric.name}_total"}
        elif metric.type == "gauge" and not metric.name.endswith("_info"):
            is_share = metric.name.endswith("_ratio")
            assert metric.name in UNITLESS or metric.name.rpartition("_")[2] in UNITS, metric.name
            assert not is_share or all(0 <= sample.value <= 1 for sample in metric.samples)
        labels = {key for sample in metric.samples for key in sample.labels}
        assert labels <= {"stream", "tier", "state", "version", "method", "route", "code", "le"}, labels


def test_a_thousand_streams_come_and_go_and_leave_no_series() -> None:
    desk = PlainDesk([a_state("stays")])
    client = make_client(desk)
    client.get("/v1/streams/x")
    scraped(client)
    before = {(s.name, *sorted(s.labels.items())) for m in scraped(client) for s in m.samples}
    for number in range(1000):
        stream_id = f"comes-{number}"
        desk.shown.append(a_state(stream_id))
        client.get(f"/v1/streams/{stream_id}")
        if number % 100 == 0:
            assert (stream_id,) in values(scraped(client), "millpond_stream_up"), "it is there while it is"
        desk.shown.pop()
    after = {(s.name, *sorted(s.labels.items())) for m in scraped(client) for s in m.samples}
    assert after == before
    assert values(scraped(client), "millpond_http_requests_total")[("200", "GET", "/v1/streams/{stream_id}")] == 1001


def test_no_client_can_make_up_a_series() -> None:
    client = make_client(PlainDesk())
    for number in range(50):
        client.get(f"/nowhere/{number}")
        client.request(f"VERB{number}", "/metrics")
    client.get("/v1/streams/broken")
    done = values(scraped(client), "millpond_http_requests_total")
    assert done[("404", "GET", "other")] == 50
    assert done[("500", "GET", "/v1/streams/{stream_id}")] == 1
    assert {method for _, method, _ in done} == {"GET", "other"}
    assert len(done) <= 5
    assert values(scraped(client), "millpond_http_requests_in_progress") == {(): 1}, "the scrape itself"


@settings(max_examples=50)
@given(ids=st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=6))
def test_whatever_streams_are_called_the_parsers_read_it(ids: list[str]) -> None:
    client = make_client(PlainDesk([a_state(stream_id) for stream_id in ids]))
    for accept in ("text/plain", OPENMETRICS):
        assert len(values(scraped(client, accept), "millpond_stream_up")) == len(ids)


def test_credentials_are_in_no_metric() -> None:
    ids = ["rtsp://admin:S3CRET@cam/a", "rtsp://other:S3CRET@cam/a"]
    desk = PlainDesk([a_state(name, source=name, problem=f"{name} was lost") for name in ids])
    desk.load_problem = "https://me:S3CRET@hub/model"
    told = make_client(desk).get("/metrics").text
    assert "S3CRET" not in told and "admin" not in told
    assert len(values(list(parse_text(told)), "millpond_stream_up")) == 2, "told apart all the same"
