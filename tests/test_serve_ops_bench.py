"""`millpond bench serve`: small, on a real server process; its keys, and what must hold of its figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("fastapi")

from millpond.pipeline.bench_serve import FollowPlan, ServeBench
from millpond.pipeline.bench_serve_answers import AnswersPlan
from millpond.pipeline.bench_serve_load import LoadPlan, measure_load
from millpond.pipeline.bench_serve_process import Server, running_server


@pytest.mark.parametrize(
    ("plan", "given", "match"),
    [
        (LoadPlan, {"num_clients": 0}, "num_clients must be more than 0; got 0"),
        (LoadPlan, {"length_s": 0}, "length_s must be more than 0; got 0"),
        (FollowPlan, {"num_clients": 0}, "at least one client, for a while; got 0"),
        (AnswersPlan, {"num_questions": 0}, "num_questions must be more than 0; got 0"),
        (AnswersPlan, {"pause_s": -1}, "pause_s must be 0 or more; got -1"),
    ],
)
def test_a_plan_checks_itself(plan: Any, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        plan(**given)


def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(ConnectionError, match=r"the server ended with 2 before it was ready: .*no config\.json"),
        running_server("/dev", num_streams=1, fps=1.0, narrated_every_s=2.0, num_followers=1),
    ):
        pass


def test_a_path_that_is_not_there_is_no_figure() -> None:
    with pytest.raises(ConnectionError, match="a request for /v1 failed"):
        measure_load(Server(1, ["a"]), "/v1", LoadPlan(num_clients=1, length_s=0.1))


@pytest.mark.slow
def test_all_of_it_small() -> None:
    bench = ServeBench(
        load=LoadPlan(num_clients=2, length_s=5.0, max_requests=6),
        follow=FollowPlan(num_clients=3, length_s=3.0),
        answers=AnswersPlan(num_questions=2, num_tokens=2),
        num_streams=1,
        num_lines=1,
    )
    result = bench.run(model="default", repeats=1)
    assert json.loads(json.dumps(result)) == result
    assert {row["kind"] for row in result["load"]} == {"status", "events", "search"}
    for row in result["load"]:
        assert 0 < row["num_requests"] <= 6 and row["requests_per_s"] > 0 and row["num_bytes"] > 10
        assert 0 < row["p50_s"] <= row["p95_s"] <= row["p99_s"]
    (follow,) = result["follow"]
    assert follow["num_clients"] == 3 and 0 <= follow["num_lines"][0] <= follow["num_lines"][1]
    for key in ("before", "with", "after"):
        assert follow[key]["num_looks"] > 0 and follow[key]["age_s"]["p50"] >= 0 and follow[key]["num_dropped"] >= 0
    (answers,) = result["answers"]
    assert answers["num_questions"] == 2
    assert 0 < answers["engine_s"]["p50"] < answers["first_words_s"]["p50"], "no client knows before the engine does"
    assert 0 < answers["first_byte_s"]["p50"] <= answers["first_words_s"]["p50"]
    assert 0 < result["overhead_p95_s"] == answers["overhead_s"]["p95"]
    for key in ("load", "follow", "answers", "overhead_p95_s", "overhead_p95_range", "repeats", "machine"):
        assert key in result and (key in bench.about), key
    table = bench.table(result)
    assert "status" in table and "overhead p95" in table and "with: 3 clients" in table
