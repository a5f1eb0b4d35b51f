"""Webhooks: told once it goes, to the machine that was checked, signed, and without a word too much in any log."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx")

from millpond.pipeline.alerts.alert import Alert
from millpond.pipeline.alerts.courier import Courier
from millpond.pipeline.alerts.dead_letter import DeadLetter, DeadLetters
from millpond.pipeline.alerts.rule import AlertRule
from millpond.pipeline.alerts.secret import Secret
from millpond.pipeline.alerts.signing import HEADER, sign, verify_signature
from millpond.pipeline.alerts.webhook import Outcome, Webhook
from millpond.pipeline.serve.url_guard import UrlRules
from millpond.stream.backoff import Backoff

from .alert_parts import AT_HOME, SECRET, SOON, WAIT_S, WORDS, a_rule, an_alert, receiving, until

LEAKS = (WORDS, "T0PSECRETPATH", "alsos3cret", "p4ssword", "cDRzc3dvcmQ")


@pytest.fixture(autouse=True)
def no_leak(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In no test of these does anything get into any log, whoever writes it and however much."""
    caplog.set_level(logging.DEBUG)
    yield
    for leak in LEAKS:
        assert leak not in caplog.text


def post(url: str, body: bytes = b"{}", urls: UrlRules = AT_HOME, *, try_s: float = WAIT_S) -> Outcome:
    outcome = asyncio.run(Webhook(urls, try_s).post(url, SECRET, body))
    assert not any(leak in str(outcome) for leak in LEAKS)
    return outcome


def told(courier: Courier, num: int = 1) -> None:
    until(lambda: courier.stats.num_told == num and not courier.stats.num_waiting, f"{num} told, {courier.stats}")


def given_up(courier: Courier, num: int = 1) -> None:
    until(lambda: courier.stats.num_given_up == num and not courier.stats.num_waiting, f"{num} dead, {courier.stats}")


# Signatures.


@given(body=st.binary(max_size=200), at_s=st.integers(0, 2**33), late_s=st.integers(-300, 300))
def test_a_signature_is_known_by_who_has_the_secret(body: bytes, at_s: int, late_s: int) -> None:
    header = sign(SECRET, body, at_s=at_s)
    assert verify_signature(SECRET, header, body, now_s=at_s + late_s)
    assert not verify_signature(SECRET, header, body + b" ", now_s=at_s)
    assert not verify_signature(Secret(WORDS + "!"), header, body, now_s=at_s)
    assert not verify_signature(SECRET, header, body, now_s=at_s + 301)
    assert not verify_signature(SECRET, header.replace(f"t={at_s}", f"t={at_s + 1}"), body, now_s=at_s)


@pytest.mark.parametrize("header", ["", "t=,v1=", "v1=" + "0" * 64, "t=1,v1=" + "0" * 63, "t=1,v1=" + "G" * 64, "t=-1"])
def test_a_header_that_is_none_is_not_believed(header: str) -> None:
    assert not verify_signature(SECRET, header, b"", now_s=1.0)


def test_a_signature_is_what_others_compute(tmp_path: Path) -> None:
    header = sign(SECRET, b'{"a": 1}', at_s=1_700_000_000)
    (tmp_path / "signed").write_bytes(b'1700000000.{"a": 1}')
    command = ["openssl", "dgst", "-sha256", "-hmac", WORDS, str(tmp_path / "signed")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert header == f"t=1700000000,v1={done.stdout.split()[-1]}"


# One try.


def test_a_message_arrives_signed_and_whole() -> None:
    alert = an_alert(a_rule(says="eine Tür steht offen"))
    with receiving(204) as receiver:
        assert post(receiver.url, alert.body) == Outcome(None)
    (got,) = receiver.got
    assert got.is_ours and got.body == alert.body
    assert got.path == "/hooks/T0PSECRETPATH?key=alsos3cret"
    assert got.headers["Content-Type"] == "application/json"
    assert json.loads(got.body) == {
        "id": alert.id,
        "stream_id": "hall",
        "rule": "fall",
        "says": "eine Tür steht offen",
        "at_s": 12.5,
        "wall": "2026-11-22T01:30:00.000Z",
        "spans": [{"start_s": 10.0, "end_s": 12.5}],
        "keyframe": "/v1/streams/hall/frames/12.500.jpg",
        "test": False,
    }
    assert Alert.read(json.loads(got.body)) == alert


@pytest.mark.parametrize(
    ("reply", "is_final"),
    [(200, None), (500, False), (503, False), (429, False), (408, False), (400, True), (401, True), (410, True)],
)
def test_what_an_answer_means(reply: int, is_final: bool | None) -> None:
    with receiving(reply) as receiver:
        outcome = post(receiver.url)
    assert outcome == Outcome(None) if is_final is None else outcome[:2] == (f"127.0.0.1 answered {reply}", is_final)


@pytest.mark.parametrize(
    ("words", "wait_s"), [("7", 7.0), ("999999", 3600.0), ("-3", 0.0), ("Wed, 21 Oct 2026", 0.0), ("²", 0.0)]
)
def test_a_receiver_may_ask_to_be_left_alone_for_a_while(words: str, wait_s: float) -> None:
    with receiving((429, {"Retry-After": words.encode("utf-8").decode("latin-1")})) as receiver:
        assert post(receiver.url).wait_s == wait_s


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nowhere(status: int) -> None:
    with receiving(200) as inner, receiving((status, {"Location": inner.url})) as receiver:
        outcome = post(receiver.url)
        assert outcome.is_final and f"127.0.0.1 answered {status}, which leads elsewhere" in str(outcome.problem)
        assert len(receiver.got) == 1 and not inner.got


@pytest.mark.parametrize("reply", ["hang", "drip"])
def test_a_receiver_that_takes_its_time_is_left(reply: str) -> None:
    with receiving(reply) as receiver:
        assert post(receiver.url, try_s=0.5) == Outcome("127.0.0.1 did not answer within 0.5 s")


def test_nobody_there_and_somebody_who_hangs_up() -> None:
    with receiving("close") as receiver:
        outcome = post(receiver.url)
        assert outcome.problem is not None and "could not be told" in outcome.problem and not outcome.is_final
    outcome = post(receiver.url)
    assert outcome == Outcome("127.0.0.1 could not be told: ConnectError")


def test_a_password_goes_to_the_receiver_and_nowhere_else() -> None:
    with receiving(200) as receiver:
        url = receiver.url.replace("http://", "http://me:p4ssword@")
        assert post(url).is_told
        assert receiver.got[0].headers["Authorization"] == "Basic bWU6cDRzc3dvcmQ="
    assert not post(url).is_told
    rule = a_rule(webhook=url, secret=SECRET)
    assert not any(leak in f"{rule!r} {rule}" for leak in LEAKS)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "0.0.0.0", "localhost"]
)
def test_a_private_address_is_not_told_unless_it_is_allowed(host: str) -> None:
    with receiving(200) as receiver:
        outcome = post(f"http://{host}:{receiver.port}/T0PSECRETPATH", urls=UrlRules())
        assert "no host that this server may be sent to" in str(outcome.problem)
        assert not receiver.got


def test_a_name_that_leads_elsewhere_a_moment_later_is_reached_where_it_was_checked() -> None:
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with receiving(200) as receiver:
        url = receiver.url.replace("127.0.0.1", "hooks.example")
        assert post(url, urls=UrlRules(networks=("127.0.0.1/32",), resolver=resolver)).is_told
        assert receiver.got[0].headers["Host"] == f"hooks.example:{receiver.port}"
    assert asked == ["hooks.example"]


def test_the_environment_s_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(200) as proxy, receiving(200) as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(receiver.url).is_told
        assert receiver.got and not proxy.got


# The courier.


def couriers(letters: DeadLetters, *rules: AlertRule, backoff: Backoff = SOON, **settings: float) -> Courier:
    return Courier(rules, letters, urls=AT_HOME, backoff=backoff, **settings)  # type: ignore[arg-type]


def test_it_is_tried_until_it_arrives(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "alerts.jsonl").open()
    with receiving(500, "close", "hang", 503, 200) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        alert = an_alert(rule)
        with couriers(letters, rule, try_s=0.5) as courier:
            courier.send(alert)
            told(courier)
        assert [got.body for got in receiver.got] == [alert.body] * 5, "the same message, with the same id"
        assert all(got.is_ours for got in receiver.got)
        assert courier.stats.num_tried == 5
    assert not letters.waiting and not letters.dead


def test_who_never_listens_ends_in_the_dead_letters_and_is_told_on_a_replay(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with receiving(500, 500, 500, 200) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        letters = DeadLetters(path).open()
        alert = an_alert(rule)
        with couriers(letters, rule, max_tries=3) as courier:
            courier.send(alert)
            given_up(courier)
            (letter,) = letters.dead
            assert letter == DeadLetter(alert, "127.0.0.1 answered 500; tried 3 times")
            assert not any(leak in path.read_text() for leak in LEAKS)
            assert courier.replay("door") == 0
            assert courier.replay("fall") == 1
            told(courier)
        assert len(receiver.got) == 4 and not letters.dead and not letters.waiting


def test_what_trying_again_does_not_mend_is_not_tried_again(tmp_path: Path) -> None:
    letters = DeadLetters()
    with receiving(404) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        with couriers(letters, rule) as courier:
            courier.send(an_alert(rule))
            given_up(courier)
        assert len(receiver.got) == 1
        assert [letter.problem for letter in letters.dead] == ["127.0.0.1 answered 404; tried 1 times"]


def test_a_receiver_that_hangs_holds_nobody_else_up() -> None:
    with receiving("hang") as slow, receiving(200) as quick:
        stuck = a_rule(id="stuck", webhook=slow.url, secret=SECRET)
        fine = a_rule(id="fine", webhook=quick.url, secret=SECRET)
        with couriers(DeadLetters(), stuck, fine) as courier:
            for n in range(20):
                courier.send(an_alert(stuck, at_s=float(n)))
            for n in range(5):
                courier.send(an_alert(fine, at_s=float(n)))
            until(lambda: len(quick.got) == 5, "the others' alerts")
            assert len(slow.got) <= 2


def test_what_waits_is_bounded_and_what_is_too_much_is_dead(tmp_path: Path) -> None:
    letters = DeadLetters()
    with receiving("hang") as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        with couriers(letters, rule, max_waiting=3) as courier:
            for n in range(8):
                courier.send(an_alert(rule, at_s=float(n)))
            assert courier.stats.num_waiting == 3 and courier.stats.num_given_up == 5
    assert len(letters.waiting) == 3 and len(letters.dead) == 5
    assert {letter.problem for letter in letters.dead} == {"3 alerts were on their way already"}


def test_closing_in_the_middle_of_a_try_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with receiving("hang", 200) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        letters = DeadLetters(path).open()
        alert = an_alert(rule)
        before = threading.active_count()
        with couriers(letters, rule) as courier:
            courier.send(alert)
            until(lambda: bool(receiver.got), "the first try")
        courier.close()
        courier.send(other := an_alert(rule, at_s=99.0))  # too late for this process
        letters.close()
        assert threading.active_count() <= before + 1, "the receiver's own thread at most"
        with couriers(letters := DeadLetters(path).open(), rule) as courier:
            told(courier, 2)
        letters.close()
    assert {got.body for got in receiver.got[1:]} == {alert.body, other.body}


CHILD = """
import sys, time
from millpond.pipeline.alerts.courier import Courier
from millpond.pipeline.alerts.dead_letter import DeadLetter, DeadLetters
from tests.alert_parts import AT_HOME, SECRET, SOON, a_rule, an_alert
path, url = sys.argv[1:]
rule = a_rule(webhook=url, secret=SECRET)
with Courier([rule], DeadLetters(path).open(), urls=AT_HOME, backoff=SOON) as courier:
    courier.send(an_alert(rule, at_s=1.0))
    courier.send(an_alert(rule, at_s=2.0))
    time.sleep(600)
"""


def test_killed_in_the_middle_of_a_delivery_it_is_told_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    with receiving("hang") as receiver:
        root = Path(__file__).parent.parent
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), receiver.url], cwd=root)
        try:
            until(lambda: len(receiver.got) == 2 or child.poll() is not None, "both tries of the child")
            child.send_signal(signal.SIGKILL)
        finally:
            child.kill()
            child.wait(WAIT_S)
        receiver.script = [200]
        letters = DeadLetters(path).open()
        assert len(letters.waiting) == 2
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        with couriers(letters, rule) as courier:
            told(courier, 2)
        letters.close()
    assert {got.body for got in receiver.got[2:]} == {got.body for got in receiver.got[:2]}
    assert all(got.is_ours for got in receiver.got)


def test_a_rule_that_is_there_no_more_leaves_its_alerts_dead(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    letters = DeadLetters(path).open()
    letters.keep(an_alert(a_rule(id="gone")))
    with couriers(letters, a_rule()) as courier:
        given_up(courier)
    assert [letter.problem for letter in letters.dead] == [
        "an alert is told by its rule's webhook; got one of 'gone', which has none"
    ]


def test_a_test_is_sent_once_and_kept_nowhere() -> None:
    with receiving(500, 200) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        letters = DeadLetters()
        with couriers(letters, rule) as courier:
            assert courier.try_once(an_alert(rule)).result(WAIT_S).problem == "127.0.0.1 answered 500"
            assert courier.try_once(an_alert(rule)).result(WAIT_S).is_told
        assert len(receiver.got) == 2 and not letters.waiting and not letters.dead
        with pytest.raises(RuntimeError, match="the courier does not run; start it"):
            courier.try_once(an_alert(rule))


def test_the_signed_time_is_that_of_the_try_not_of_the_alert() -> None:
    with receiving(200) as receiver:
        before_s = int(time.time())
        assert post(receiver.url).is_told
        signed_s = int(receiver.got[0].headers[HEADER].partition(",")[0].removeprefix("t="))
        assert before_s <= signed_s <= time.time()


def test_a_port_that_speaks_no_http_is_a_failed_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"\x00\xff" * 5000 + b"\r\n\r\n")
                connection.recv(65536)

        speaker = threading.Thread(target=speak, daemon=True)
        speaker.start()
        outcome = post(f"http://127.0.0.1:{server.getsockname()[1]}/T0PSECRETPATH")
        speaker.join(WAIT_S)
    assert outcome.problem is not None and outcome.problem.startswith("127.0.0.1 could not be told: Remote")
