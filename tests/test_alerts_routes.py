"""Alerts over HTTP: what is watched, what fired, whether a webhook works; and no webhook's address or secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")

from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest

from millpond.pipeline.alerts import Alerts
from millpond.pipeline.serve.alert_metrics import AlertsCollector
from millpond.pipeline.serve.errors import install_errors
from millpond.pipeline.serve.routes_alerts import alert_routes

from .alert_desk import WrittenDesk
from .alert_parts import AT_HOME, SECRET, WORDS, Receiver, a_rule, receiving, until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving(200) as one:
        yield one


@pytest.fixture
def desk() -> WrittenDesk:
    return WrittenDesk("yes", "yes")


@pytest.fixture
def alerts(receiver: Receiver, desk: WrittenDesk, tmp_path: Path) -> Iterator[Alerts]:
    rules = [
        a_rule(webhook=receiver.url, secret=SECRET, says="a person lies there for 0 seconds"),
        a_rule(id="quiet", stream_id="yard", says="the gate stays open for a minute", every_s=30.0),
    ]
    with Alerts(desk, rules, model_name="a/model", kept_at=tmp_path / "alerts.jsonl", urls=AT_HOME) as one:
        yield one


@pytest.fixture
def client(alerts: Alerts) -> Iterator[TestClient]:
    app = FastAPI()
    install_errors(app)
    app.include_router(alert_routes(alerts))
    with TestClient(app) as one:
        yield one


def test_rules_are_listed_with_what_fired_and_without_the_webhook_s_address(
    client: TestClient, alerts: Alerts, desk: WrittenDesk, receiver: Receiver
) -> None:
    desk.see(2.0)
    until(lambda: alerts.deliveries.num_told == 1, "the webhook is told")
    answer = client.get("/v1/alerts")
    told = answer.json()
    assert answer.status_code == 200
    assert not any(leak in answer.text for leak in (WORDS, "T0PSECRETPATH", "alsos3cret"))
    fall, quiet = told["data"]
    assert (fall["id"], fall["webhook"], fall["phase"], fall["num_fired"]) == ("fall", "127.0.0.1", "standing", 1)
    assert "there is no stream 'yard'" in quiet["problem"] and fall["problem"] is None
    assert (quiet["webhook"], quiet["lasts_s"], quiet["every_s"]) == (None, 60.0, 30.0)
    assert told["recent"] == [json.loads(receiver.got[0].body)] and told["dead"] == []
    assert told["deliveries"] == {"num_told": 1, "num_tried": 1, "num_given_up": 0, "num_waiting": 0}


def test_a_test_says_whether_the_webhook_works(client: TestClient, receiver: Receiver) -> None:
    assert client.post("/v1/alerts/fall/test").json() == {"delivered": True, "problem": None}
    assert json.loads(receiver.got[0].body)["test"] is True and receiver.got[0].is_ours
    receiver.script = [500]
    answer = client.post("/v1/alerts/fall/test")
    assert (answer.status_code, answer.json()) == (
        200,
        {"delivered": False, "problem": "127.0.0.1 answered 500"},
    )


def test_what_could_not_be_told_is_shown_and_told_again(
    client: TestClient, alerts: Alerts, desk: WrittenDesk, receiver: Receiver
) -> None:
    receiver.script = [404, 200]
    desk.see(2.0)
    until(lambda: alerts.deliveries.num_given_up == 1, "it is given up")
    (dead,) = client.get("/v1/alerts").json()["dead"]
    assert (dead["problem"], dead["alert"]["rule"]) == ("127.0.0.1 answered 404; tried 1 times", "fall")
    assert client.post("/v1/alerts/fall/replay").json() == {"num_replayed": 1}
    until(lambda: alerts.deliveries.num_told == 1, "it is told")
    assert client.get("/v1/alerts").json()["dead"] == []
    assert client.post("/v1/alerts/fall/replay").json() == {"num_replayed": 0}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/alerts/door/test", 404, "alert_not_found"),
        ("/v1/alerts/door/replay", 404, "alert_not_found"),
        ("/v1/alerts/quiet/test", 400, "bad_request"),
        ("/v1/alerts/%00/test", 400, "bad_request"),
        ("/v1/alerts/" + "x" * 65 + "/replay", 400, "bad_request"),
    ],
)
def test_what_is_not_there_is_said(client: TestClient, path: str, status: int, code: str) -> None:
    answer = client.post(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_server_that_ends_says_so(client: TestClient, alerts: Alerts) -> None:
    alerts.close()
    assert client.post("/v1/alerts/fall/test").status_code == 503
    assert client.get("/v1/alerts").status_code == 200


def test_prometheus_is_told_of_every_rule_and_of_the_webhooks(
    alerts: Alerts, desk: WrittenDesk, receiver: Receiver
) -> None:
    desk.see(2.0)
    until(lambda: alerts.deliveries.num_told == 1, "the webhook is told")
    registry = CollectorRegistry()
    registry.register(AlertsCollector(alerts))
    read = registry.get_sample_value
    fall, quiet = {"alert": "fall"}, {"alert": "quiet"}
    assert read("millpond_alert_fired_total", fall) == 1 and read("millpond_alert_fired_total", quiet) == 0
    assert read("millpond_alert_watched", fall) == 1 and read("millpond_alert_watched", quiet) == 0
    now = alerts.rules()[0]
    assert now.num_asked > 0
    assert read("millpond_alert_questions_total", fall) == now.num_asked
    assert read("millpond_alert_verifications_total", fall) == now.num_verified
    assert read("millpond_webhook_tries_total") == len(receiver.got) == 1
    assert read("millpond_webhook_deliveries_total") == 1
    assert read("millpond_webhook_waiting") == 0
    text = generate_latest(registry).decode()
    assert not any(leak in text for leak in (WORDS, "T0PSECRETPATH", "alsos3cret", SECRET.reveal().decode()))
