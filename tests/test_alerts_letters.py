"""The file of alerts that were not told: never over its cap, the same after a death, and believed in nothing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.alerts.alert import Alert
from millpond.pipeline.alerts.dead_letter import DeadLetters

from .alert_parts import a_rule, an_alert


def held(letters: DeadLetters) -> tuple[list[Alert], list[tuple[Alert, str | None]]]:
    return list(letters.waiting), [(letter.alert, letter.problem) for letter in letters.dead]


def reopened(path: Path) -> tuple[list[Alert], list[tuple[Alert, str | None]]]:
    """What another process finds, as it is on the disk."""
    letters = DeadLetters(path).open()
    try:
        return held(letters)
    finally:
        letters.close()


def test_what_waits_and_what_is_dead_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "alerts.jsonl"
    alerts = [an_alert(at_s=float(n)) for n in range(4)]
    letters = DeadLetters(path).open()
    for alert in alerts:
        letters.keep(alert)
    letters.told(alerts[0].id)
    letters.give_up(alerts[1].id, "cam.local answered 500; tried 3 times")
    before = held(letters)
    letters.close()
    assert before == ([alerts[2], alerts[3]], [(alerts[1], "cam.local answered 500; tried 3 times")])
    assert reopened(path) == before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_what_is_revived_waits_again_and_by_rule(tmp_path: Path) -> None:
    fall, door = an_alert(a_rule(id="fall")), an_alert(a_rule(id="door"))
    letters = DeadLetters(tmp_path / "alerts.jsonl").open()
    for alert in (fall, door):
        letters.keep(alert)
        letters.give_up(alert.id, "nobody was there")
    assert letters.revive("door") == (door,)
    assert held(letters) == ([door], [(fall, "nobody was there")])
    assert letters.revive() == (fall,)
    assert letters.revive() == ()
    letters.close()
    assert {alert.id for alert in reopened(tmp_path / "alerts.jsonl")[0]} == {fall.id, door.id}


@settings(max_examples=60)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["keep", "told", "give up", "revive"]), st.integers(0, 9)), max_size=60),
    says=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=400),
)
def test_it_never_outgrows_its_caps_and_the_file_says_what_is_known(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], says: str
) -> None:
    path = tmp_path_factory.mktemp("letters") / "alerts.jsonl"
    rule = a_rule(says=("x" + says)[:400] if says.isprintable() else "x")
    letters = DeadLetters(path, budget_bytes=16 * 2**10, max_alerts=8).open()
    known: list[Alert] = []
    for what, number in steps:
        if what == "keep":
            known.append(an_alert(rule))
            letters.keep(known[-1])
            assert known[-1].id in {alert.id for alert in letters.waiting}, "the newest is never the one that goes"
        elif what == "revive":
            letters.revive()
        elif known:
            alert = known[number % len(known)]
            letters.told(alert.id) if what == "told" else letters.give_up(alert.id, "no" * number)
        assert len(letters.waiting) + len(letters.dead) <= 8
        assert letters.num_bytes == path.stat().st_size <= 16 * 2**10
    before, num_let_go = held(letters), letters.num_let_go
    letters.close()
    assert num_let_go or not known or len(known) >= len(before[0])
    assert reopened(path) == before


def test_dead_letters_go_before_those_that_wait() -> None:
    letters = DeadLetters(max_alerts=3)
    alerts = [an_alert(at_s=float(n)) for n in range(5)]
    for alert in alerts[:3]:
        letters.keep(alert)
    letters.give_up(alerts[1].id, "gone")
    letters.keep(alerts[3])
    assert letters.waiting == (alerts[0], alerts[2], alerts[3]) and not letters.dead
    letters.keep(alerts[4])
    assert letters.waiting == (alerts[2], alerts[3], alerts[4])
    assert letters.num_let_go == 2


GOOD = json.dumps({"version": 1, "problem": None, "alert": json.loads(an_alert().body)})
BAD = (
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"{}",
    b'{"version": 2, "told": "x"}',
    b'{"version": 1, "told": 7}',
    b'{"version": 1, "problem": 3, "alert": {}}',
    b'{"version": 1, "problem": null, "alert": {"id": "x"}}',
    GOOD.replace("12.5", "NaN").encode(),
    GOOD.replace('"says": "', '"says": "' + "x" * 2000).encode(),
    GOOD.replace("false", '"yes"').encode(),
    GOOD[:-30].encode(),  # torn, as a death in the middle of a line leaves it
)


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_line_that_makes_no_sense_costs_only_itself(
    tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(GOOD.encode() + b"\n" + bad + b"\n")
    waiting, dead = reopened(path)
    assert [alert.body for alert in waiting] == [json.dumps(json.loads(GOOD)["alert"]).encode()] and not dead
    assert "make no sense; they are left out" in caplog.text
    assert len(path.read_bytes().splitlines()) == 1


def test_a_huge_file_is_read_from_its_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes((b"x" * 999 + b"\n") * 9000 + GOOD.encode() + b"\n")
    assert len(reopened(path)[0]) == 1
    assert path.stat().st_size < 2000


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "alerts.jsonl").open()
    with pytest.raises(ValueError, match=r"another process writes .*; end it, or give this one a file of its own"):
        DeadLetters(tmp_path / "alerts.jsonl").open()
    letters.close()
    DeadLetters(tmp_path / "alerts.jsonl").open().close()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "alerts.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"alerts cannot be kept in .*alerts.jsonl: Too many levels of symbolic links"):
        DeadLetters(tmp_path / "alerts.jsonl").open()
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_place_where_nothing_can_be_kept_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"alerts cannot be kept in .*: (Not a directory|File exists); give another"):
        DeadLetters(tmp_path / "file" / "alerts.jsonl").open()


def test_nothing_is_touched_before_it_is_opened(tmp_path: Path) -> None:
    letters = DeadLetters(tmp_path / "alerts.jsonl")
    letters.keep(alert := an_alert())
    letters.close()
    assert not list(tmp_path.iterdir())
    letters.open().close()
    assert reopened(tmp_path / "alerts.jsonl")[0] == [alert]


def test_a_disk_that_fails_costs_nothing_but_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "alerts.jsonl"
    letters = DeadLetters(path).open()
    first, second, third = (an_alert(at_s=float(n)) for n in range(3))
    letters.keep(first)

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fails)
        letters.keep(second)
        letters.told(first.id)
        assert letters.waiting == (second,)
    assert caplog.text.count("No space left on device") == 1
    letters.keep(third)
    letters.close()
    assert reopened(path)[0] == [second, third]


@pytest.mark.parametrize("settings", [{"budget_bytes": 100}, {"max_alerts": 0}])
def test_caps_that_hold_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="dead letters need 16384 bytes and one alert or more; got"):
        DeadLetters(**settings)
