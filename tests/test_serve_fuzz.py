"""The API, fuzzed from its own description: whatever it is sent, it answers as it says it does, and lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .serve_server import ENDED, Served, served

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUM_EXAMPLES = 15  # of each operation, so that the time is bounded
TOKEN = "a-token-for-tests-only-0123456789"
# No name is looked up for what a fuzzer makes up.
SETTINGS = {
    "server": {"token": TOKEN},
    "streams": [{"id": "front", "source": ENDED}],
    "urls": {"schemes": ["synthetic"]},
    "limits": {"num_streams": 3, "num_questions": 2, "answer_tokens": 4, "json_depth": 12},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(SETTINGS) as running:
        running.wait_for("front")
        yield running


@pytest.fixture(scope="module")
def description(server: Served) -> Any:
    return schemathesis.openapi.from_url(
        f"{server.url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}, wait_for_schema=30
    )


def operations(description: Any) -> dict[str, Any]:
    found = [result.ok() for result in description.get_all_operations()]
    return {f"{operation.method.upper()} {operation.path}": operation for operation in found}


def is_alive(server: Served) -> bool:
    return server.client.get("/healthz").status_code == 200 and server.client.get("/v1/streams").status_code == 200


def test_the_description_is_of_what_there_is(description: Any) -> None:
    assert {
        "GET /v1/models",
        "POST /v1/chat/completions",
        "GET /v1/streams",
        "POST /v1/streams",
        "GET /v1/streams/{stream_id}",
        "DELETE /v1/streams/{stream_id}",
        "GET /v1/streams/{stream_id}/events",
        "GET /v1/search",
    } <= set(operations(description))


@pytest.mark.slow
def test_every_operation_keeps_to_its_description(server: Served, description: Any) -> None:
    found = operations(description)
    for name, operation in found.items():
        if name == "DELETE /v1/streams/{stream_id}":
            continue  # what the others are asked about stays; below, it goes

        @given(case=operation.as_strategy(), is_known=st.booleans())
        @settings(
            max_examples=NUM_EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        )
        def keeps_to_it(case: Any, is_known: bool) -> None:
            if is_known and "stream_id" in (case.path_parameters or {}):
                case.path_parameters["stream_id"] = "front"
            if is_known and isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = "millpond/front"
            case.call_and_validate(
                checks=CHECKS, headers={"Authorization": f"Bearer {TOKEN}", "Accept": "*/*"}, timeout=60
            )

        keeps_to_it()
        assert is_alive(server), name


def test_after_all_that_it_answers_as_before(server: Served) -> None:
    asked = {"model": "millpond/front", "messages": [{"role": "user", "content": "what is there?"}]}
    reply = server.client.post("/v1/chat/completions", json=asked)
    assert reply.status_code == 200 and reply.json()["choices"][0]["message"]["content"] is not None


@given(body=st.binary(max_size=300), kind=st.sampled_from(["application/json", "text/plain", "application/xml"]))
@settings(max_examples=50, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_bytes_break_it(server: Served, body: bytes, kind: str) -> None:
    for path in ("/v1/chat/completions", "/v1/streams"):
        reply = server.client.post(path, content=body, headers={"Content-Type": kind})
        assert 400 <= reply.status_code < 500 and reply.json()["error"]["message"]


@given(path=st.text("./%2eEfF\\\0abv1streamsfront-jpg~?#é", max_size=40))
@settings(max_examples=100, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_path_breaks_it_or_leads_out(server: Served, path: str) -> None:
    for start in ("/", "/v1/streams/front/frames/", "/page/"):
        reply = server.client.get(
            server.url + start + path.replace("?", "%3F").replace("#", "%23").replace("\0", "%00")
        )
        assert reply.status_code < 500 and "root:" not in reply.text


def test_a_stream_of_any_name_can_be_removed_or_is_not_there(server: Served) -> None:
    for name in ("front", "none", "%20", "..%2f", "\u00e9", "a" * 300):
        assert server.client.delete(f"/v1/streams/{name}").status_code in (204, 400, 404)
    assert is_alive(server)
