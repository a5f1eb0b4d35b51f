"""Rules on streams: what appears is told, once; what does not is not; and what fails stops nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx")

from millpond.pipeline import Engine, EngineConfig, Hub
from millpond.pipeline.alerts import Alerts, NoRule
from millpond.pipeline.alerts.alert import Alert
from millpond.pipeline.alerts.machine import Phase
from millpond.pipeline.alerts.rule import AlertRule
from millpond.pipeline.alerts.watcher import Watcher
from millpond.pipeline.alerts.words import checks_for, read_yes_no
from millpond.pipeline.question import NothingRemembered
from millpond.stream import Frame
from millpond.stream.render import render
from millpond.stream.world import COLORS, SHAPES, World, make_world

from .alert_desk import HubDesk, LookedAtFeed, Now, Row, WrittenDesk, an_answer
from .alert_parts import AT_HOME, SECRET, a_rule, receiving, until
from .watched import mini

LENGTH_S = 16
YES, NO = "yes", "no"


def worlds() -> Iterator[tuple[World, int]]:
    """Worlds in which a thing that pops up comes after a while, stays for more than three seconds and goes again; and
    which one it is."""
    for seed in range(1000):
        world = make_world(seed, duration_s=float(LENGTH_S), aspect=4 / 3)
        for number, thing in enumerate(world.things):
            if thing.entry == "pop" and 3 <= thing.appear_s <= 6 and max(8, thing.appear_s + 4) <= thing.leave_s <= 10:
                yield world, number


def test_what_appears_in_a_world_is_told_once_to_the_webhook_and_nothing_else_is(tmp_path: Path) -> None:
    world, number = next(worlds())
    thing, names = world.things[number], {thing.name for thing in world.things}
    absent = next(f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in names and c == thing.color)
    pictures = render(world, [float(n) for n in range(LENGTH_S)], width=320, height=240).rgb_NHW3
    with receiving(500, 200) as receiver:
        told = {"webhook": receiver.url, "secret": SECRET}
        rules = [
            a_rule(id="comes", says=f"a {thing.name} appears", **told),
            a_rule(id="timed", says=f"a {thing.name} is there", every_s=2.0),
            a_rule(id="stays", says=f"a {thing.name} is there for 3 seconds", window_s=1.0),
            a_rule(id="never", says=f"a {absent} appears", **told),
        ]
        feed = LookedAtFeed("hall")
        with Engine(EngineConfig(reuse="none"), model=mini()) as engine, Hub(engine) as hub:
            hub.add(feed, narrate=False).result(60)
            desk = HubDesk(hub, {"hall": feed})
            alerts = Alerts(desk, rules, model_name="millpond/mini", kept_at=tmp_path / "alerts.jsonl", urls=AT_HOME)
            with alerts:
                for n, picture in enumerate(pictures):
                    desk.show("hall", Frame(picture, float(n), "hall", n), len(rules))
                until(lambda: alerts.deliveries.num_told == 1, "the webhook is told")
                fired = {alert.rule: alert for alert in alerts.recent}
                now = {one.rule.id: one for one in alerts.rules()}
    assert sorted(alert.rule for alert in alerts.recent) == ["comes", "stays", "timed"], "each once"
    assert thing.appear_s <= fired["comes"].at_s <= thing.appear_s + 1
    assert thing.appear_s <= fired["timed"].at_s <= thing.appear_s + 3
    assert thing.appear_s + 3 <= fired["stays"].at_s <= thing.appear_s + 5
    assert [got.is_ours for got in receiver.got] == [True, True]
    assert [got.body for got in receiver.got] == [fired["comes"].body] * 2
    assert now["comes"].phase is Phase.QUIET, "it has gone again"
    assert now["never"].num_fired == now["never"].num_failed == 0 < now["never"].num_asked < LENGTH_S
    assert now["timed"].num_asked == LENGTH_S / 2
    assert all(one.problem is None and one.num_unclear == 0 for one in now.values())


@contextmanager
def watching(desk: WrittenDesk, *rules: AlertRule, **settings: Any) -> Iterator[tuple[Watcher, list[Alert]]]:
    told: list[Alert] = []
    checked = [(rule, checks_for(rule, "a/model")) for rule in rules or (a_rule(cooldown_s=5.0, releases=1),)]
    with Watcher(desk, checked, lambda _, alert: told.append(alert), **{"look_s": 0.005, **settings}) as watcher:
        yield watcher, told


def test_two_questions_fire_and_the_second_decides() -> None:
    desk = WrittenDesk(YES, NO, YES, "Yes, clearly.")
    with watching(desk) as (watcher, told):
        desk.see(1.0)
        assert not told
        desk.see(2.0)
        until(lambda: bool(told), "the alert")
        (now,) = watcher.rules()
    assert [question.max_new_tokens for question in desk.asked] == [8] * 4
    assert [question.since_s for question in desk.asked] == [-3.0, -3.0, -2.0, -2.0]
    assert desk.asked[0].text != desk.asked[1].text and all("a person falls" in one.text for one in desk.asked)
    assert (now.num_asked, now.num_verified, now.num_refused, now.num_fired) == (2, 2, 1, 1)
    assert (told[0].at_s, told[0].stream_id, told[0].rule) == (2.0, "hall", "fall")
    assert told[0].keyframe == "/v1/streams/hall/frames/2.000.jpg" and told[0].wall.endswith("Z")


def test_a_still_stream_is_asked_nothing_until_something_is_told_of_it() -> None:
    desk = WrittenDesk(NO, NO, NO)
    with watching(desk):
        desk.see(1.0)
        for n in range(9):
            desk.see(2.0 + n, change_share=0.0)
        assert len(desk.asked) == 2, "at first, and when what it showed then is past"
        desk.callback("yard", Row("narration"))
        desk.callback("hall", Row("trace"))
        desk.wait()
        assert len(desk.asked) == 2
        desk.callback("hall", Row("narration"))
        until(lambda: len(desk.asked) == 3, "the question after the narration")


def test_no_answer_is_an_answer() -> None:
    desk = WrittenDesk("Perhaps.", "There is no person, so yes", YES, "I cannot say yes or no", YES, "")
    with watching(desk) as (watcher, told):
        for n in range(4):
            desk.see(1.0 + 2 * n)
        (now,) = watcher.rules()
    assert not told and (now.num_unclear, now.num_asked, now.num_verified) == (4, 4, 2)


def test_where_nothing_of_the_stretch_is_kept_everything_is_asked_about() -> None:
    desk = WrittenDesk(NothingRemembered("nothing; ask about another"), YES, NothingRemembered("no; ask"), YES)
    with watching(desk) as (_, told):
        desk.see(1.0)
        until(lambda: bool(told), "the alert")
    assert [question.since_s for question in desk.asked] == [-3.0, None, -3.0, None]


def test_a_stream_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    desk = WrittenDesk(YES, YES)
    desk.now = KeyError("there is no stream 'hall', rtsp://me:s3cret@cam")
    with watching(desk) as (watcher, told):
        desk.wait()
        assert "rtsp://***@cam" in str(watcher.rules()[0].problem)
        desk.now = Now(None, 0, 0.0)
        desk.wait()
        assert watcher.rules()[0].problem is None
        desk.see(1.0)
        until(lambda: bool(told), "the alert")
    assert caplog.text.count("cannot be watched now") == 1 and "s3cret" not in caplog.text


def test_what_cannot_be_asked_now_is_asked_later() -> None:
    desk = WrittenDesk(RuntimeError("the hub gave up"), CancelledError(), YES, YES)  # type: ignore[arg-type]
    desk.refuses = RuntimeError("8 questions are being answered; try again")
    with watching(desk) as (watcher, told):
        desk.see(1.0)
        assert watcher.rules()[0].problem == "8 questions are being answered; try again"
        desk.refuses = None
        for n in range(3):
            desk.see(2.0 + n, change_share=0.0)
        until(lambda: bool(told), "the alert")
        (now,) = watcher.rules()
    assert now.num_failed == 3 and now.problem is None


def test_an_answer_that_never_comes_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    desk = WrittenDesk(None, YES, YES)
    with watching(desk, answer_s=0.05) as (_, told):
        desk.see(1.0)
        until(lambda: desk.futures[0].cancelled(), "it is given up")
        desk.see(3.0, change_share=0.0)
        until(lambda: bool(told), "the alert")
    assert "no answer within 0.05 s" in caplog.text


def test_many_rules_ask_few_questions_at_once_and_each_in_its_turn() -> None:
    desk = WrittenDesk()
    rules = [a_rule(id=f"r{n}", says=f"number {n} comes", every_s=1.0) for n in range(10)]
    with watching(desk, *rules, max_questions=2) as (watcher, _):
        desk.now = Now(1.0, 1, 1.0)
        for num_answered in range(0, 10, 2):
            until(lambda n=num_answered: len(desk.futures) == n + 2, "two more questions")  # type: ignore[misc]
            for _ in range(3):
                desk.wait()
            assert len(desk.futures) == num_answered + 2
            for future in desk.futures[num_answered:]:
                future.set_result(an_answer(NO, 1.0))
        until(lambda: all(one.num_asked == 1 for one in watcher.rules()), "each was asked once")


def test_whoever_is_told_cannot_stop_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    desk, told = WrittenDesk(YES, YES, NO, YES, YES), []

    def fails(_: AlertRule, alert: Alert) -> None:
        told.append(alert)
        raise LookupError("whose fault is this?")

    rule = a_rule(cooldown_s=0.0, releases=1)
    with Watcher(desk, [(rule, checks_for(rule, "a/model"))], fails, look_s=0.005):
        for n in range(3):
            desk.see(1.0 + 2 * n)
        until(lambda: len(told) == 2, "both alerts")
    assert caplog.text.count("looking after the alerts failed") == 2


def test_closing_gives_up_what_is_asked_and_is_quick() -> None:
    desk = WrittenDesk(None)
    with watching(desk) as (watcher, _):
        desk.see(1.0)
        started_s = time.monotonic()
        watcher.close()
        watcher.close()
    assert desk.futures[0].cancelled() and time.monotonic() - started_s < 30


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Yes", True), ("yes.", True), ("YES, a man lies there.", True), ("no", False), ("No, nobody falls.", False),
        ("", None), ("nothing", None), ("yesterday", None), ("It says yes", None), ("Yes and no", None), ("true", None),
        ("not yes", None), ("**Yes**", True), (" \n no\n", False), ("<b>yes</b>", None),
    ],
)  # fmt: skip
def test_only_yes_is_yes(text: str, says: bool | None) -> None:
    assert read_yes_no(text) is says


def test_the_built_in_model_is_asked_what_it_knows_and_nothing_else() -> None:
    checks = checks_for(a_rule(says="a red circle appears"), "millpond/mini")
    assert (checks.trigger.text, checks.verifier.text) == ("Did a red circle appear?", "Is there a red circle now?")
    checks = checks_for(a_rule(says="a red circle is there for 2 seconds"), "millpond/mini")
    assert checks.trigger.text == "Can you see a red circle right now?", "it may have appeared long ago"
    with pytest.raises(ValueError, match=r"the built-in model knows coloured shapes.*got the rule 'a person falls'"):
        checks_for(a_rule(), "millpond/mini")
    own = checks_for(a_rule(ask="Is it red?", confirm="Is it really?"), "millpond/mini")
    assert (own.trigger.text, own.verifier.text) == ("Is it red?", "Is it really?")


def test_rules_that_are_not_there_are_named_and_tests_are_sent() -> None:
    with receiving(200) as receiver:
        rule = a_rule(webhook=receiver.url, secret=SECRET)
        with Alerts(WrittenDesk(), [rule, a_rule(id="quiet")], model_name="a/model", urls=AT_HOME) as alerts:
            with pytest.raises(NoRule, match="there is no alert 'door'; there are: fall, quiet"):
                alerts.test("door")
            with pytest.raises(NoRule, match="there is no alert 'door'"):
                alerts.replay("door")
            with pytest.raises(ValueError, match="got one of 'quiet', which has none"):
                alerts.test("quiet")
            assert alerts.test("fall").result(60).is_told
            assert alerts.replay() == 0 and not alerts.recent
    assert b'"test": true' in receiver.got[0].body and receiver.got[0].is_ours
