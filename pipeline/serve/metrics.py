"""Metrics for Prometheus at /metrics: read off the streams when asked for, so that one that is gone leaves nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol, get_args

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ...stream.redact import redact
from .schemas import errors
from .views import StateName, StreamState

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_OTHER = "other"
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")}}
}
# From a status out of memory to a first token of a large model on a CPU.
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Desk(Protocol):
    """What is read at each scrape; none of it waits for the hub's thread."""

    @property
    def is_loaded(self) -> bool: ...
    @property
    def hub_turn_age_s(self) -> float | None: ...
    @property
    def num_questions(self) -> int: ...
    def states(self) -> list[StreamState]: ...


class StreamsCollector(Collector):
    """The streams as they are now, a series for each; of the labels, only `stream` is not from a short fixed list."""

    def __init__(self, streams: Desk) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        states = self._streams.states()
        yield from _whole(self._streams, states)
        yield from _each(_named(states))


def metrics_route(streams: Desk, *others: Collector) -> APIRouter:
    """GET /metrics, in whichever text format the asker prefers. others: what else is to be told of."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in (StreamsCollector(streams), *others):
        registry.register(collector)
    router = APIRouter(tags=["operation"])

    @router.get("/metrics", response_class=Response, responses={**errors(), **_TEXT})
    def metrics(request: Request) -> Response:
        """Metrics in Prometheus's text format."""
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": kind, "Cache-Control": "no-store"})

    return router


class HttpMetrics(Collector):
    """Requests by method, route and status: routes by their pattern, so that no client can make up a series.

    Used twice: its `middleware` counts, and as a collector it tells.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route")
        self._done = CounterMetric(
            "millpond_http_requests_total", "Requests answered.", (*labels, "code"), registry=self._registry
        )
        self._start_s = Histogram(
            "millpond_http_response_start_seconds",
            "From a request to the start of its answer.",
            labels,
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._open = Gauge("millpond_http_requests_in_progress", "Requests being answered.", registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            # When a series began is of use where counters outlive processes; these do not.
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The app with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            began_s = time.perf_counter()
            code = 500  # where it ends without an answer, uvicorn gives this one

            async def noted(message: Message) -> None:
                nonlocal code
                if message["type"] == "http.response.start":
                    code = message["status"]
                    self._start_s.labels(*_place(scope)).observe(time.perf_counter() - began_s)
                await send(message)

            self._open.inc()
            try:
                await app(scope, receive, noted)
            finally:
                self._open.dec()
                self._done.labels(*_place(scope), str(code)).inc()

        return counted


def _place(scope: Scope) -> tuple[str, str]:
    method = scope["method"] if scope["method"] in _METHODS else _OTHER
    path = getattr(scope.get("route"), "path", None)
    return method, path if isinstance(path, str) else _OTHER


def _whole(streams: Desk, states: list[StreamState]) -> Iterator[Metric]:
    build = InfoMetricFamily("millpond_build", "What runs here.")
    build.add_metric([], {"version": _version()})
    yield build
    yield _gauge("millpond_model_loaded", "Whether the model is loaded.", float(streams.is_loaded))
    yield _gauge("millpond_questions_in_progress", "Questions being answered or waiting.", streams.num_questions)
    age_s = streams.hub_turn_age_s
    if age_s is not None:
        yield _gauge("millpond_hub_turn_age_seconds", "Since the hub's thread last came round.", age_s)
    counts = Counter(state.state for state in states)
    by_state = GaugeMetricFamily("millpond_streams", "Streams by state.", labels=["state"])
    for name in get_args(StateName):
        by_state.add_metric([name], counts[name])
    yield by_state


def _each(states: list[tuple[str, StreamState]]) -> Iterator[Metric]:
    gauges: dict[str, tuple[str, Any]] = {
        "up": ("Whether its frames come.", lambda s: float(s.state == "live")),
        "frame_age_seconds": ("Age of the newest frame taken.", lambda s: s.lag_s),
        "changed_ratio": ("Share of the picture that changed with the newest frame.", lambda s: s.change_share),
        "recomputed_ratio": ("Share of all patches that went through the tower.", lambda s: s.recomputed_share),
        "session_bytes": ("What its session holds in this process.", lambda s: s.held_bytes),
    }
    counters: dict[str, tuple[str, Any]] = {
        "frames_total": ("Frames taken by the model.", lambda s: s.num_frames),
        "dropped_frames_total": ("Frames that were due, and overtaken or lost.", lambda s: s.num_dropped),
        "questions_total": ("Questions put to it.", lambda s: s.num_questions),
        "reconnects_total": ("Times that its peer was lost and found again.", lambda s: s.num_reconnects),
    }
    for kind, rows in ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters)):
        for name, (about, read) in rows.items():
            family = kind(f"millpond_stream_{name}", about, labels=["stream"])
            for stream, state in states:
                value = read(state)
                if value is not None:
                    family.add_metric([stream], value)
            yield family
    for name, about, read in (
        ("tier_bytes", "What each tier of it holds.", lambda s: s.bytes_by_tier),
        ("tier_budget_bytes", "What each tier of it may hold.", lambda s: s.budget_by_tier),
    ):
        tiers = GaugeMetricFamily(f"millpond_stream_{name}", about, labels=["stream", "tier"])
        for stream, state in states:
            for tier, num_bytes in read(state).items():
                tiers.add_metric([stream, tier], num_bytes)
        yield tiers


def _named(states: list[StreamState]) -> list[tuple[str, StreamState]]:
    """Each with its label: its id, masked should it be an address; what reads alike then is told apart."""
    named: dict[str, StreamState] = {}
    for state in states:
        label = name = redact(state.id)
        number = 2
        while label in named:
            label, number = f"{name}-{number}", number + 1
        named[label] = state
    return list(named.items())


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _version() -> str:
    try:
        return version("millpond")
    except PackageNotFoundError:
        return "unknown"
