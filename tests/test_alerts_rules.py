"""Rules as they are written: read whole, refused in words, and never with their secret in these."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.alerts.reading import read_rules
from millpond.pipeline.alerts.rule import read_words
from millpond.pipeline.alerts.secret import Secret

from .alert_parts import SECRET, WORDS, a_rule

TABLE = {
    "id": "fall",
    "stream": "hall",
    "says": "a person falls",
    "webhook": "https://hooks.example/T0PSECRETPATH",
    "secret": WORDS,
}


def test_a_table_is_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rule,) = read_rules([{**TABLE, "every_s": 5, "cooldown_s": 600}])
    expected = a_rule(every_s=5, cooldown_s=600, webhook=TABLE["webhook"], secret=SECRET)
    assert rule == expected
    plain = {key: value for key, value in TABLE.items() if key != "secret"}
    (tmp_path / "secret").write_text(WORDS + "\n")
    monkeypatch.setenv("HALL_SECRET", WORDS)
    for also in ({"secret_file": "secret"}, {"secret_env": "HALL_SECRET"}):
        (other,) = read_rules([{**plain, **also}], folder=tmp_path)
        assert other.secret == SECRET


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cooldwon_s": 3}, r"there is no setting 'cooldwon_s'; did you mean 'cooldown_s'\?"),
        ({"xyz": 3}, r"there is no setting 'xyz'; there are: id, stream, says, .*secret_env"),
        ({"id": "a/b"}, r"an alert's id has letters.*got 'a/b'"),
        ({"stream": ""}, "'fall' watches a stream; got stream ''"),
        ({"says": " "}, "1 to 500 printable characters; got ' '"),
        ({"says": "x\r\nSet-Cookie: a"}, "printable characters"),
        ({"says": "x" * 501}, "1 to 500 printable characters"),
        ({"ask": 7}, "'ask' of alert 'fall' is 1 to 500 printable"),
        ({"every_s": 0}, "every_s of alert 'fall' is 0.1 seconds or more; got 0"),
        ({"cooldown_s": "1 h"}, "cooldown_s of alert 'fall' is 0 seconds or more; got '1 h'"),
        ({"cooldown_s": True}, "got True"),
        ({"window_s": float("nan")}, "window_s of alert 'fall' is 0.1 seconds or more; got nan"),
        ({"change_share": 2}, "a share, 0 to 1; got 2"),
        ({"releases": 0}, "a whole number, 1 or more; got 0"),
        ({"webhook": "ftp://hooks.example/x"}, "ftp: is not let through here; there are: http, https"),
        ({"webhook": "http://user:p4ss@[bad/T0PSECRETPATH"}, "is not written as http://host:port/path"),
        ({"webhook": "file:///etc/passwd"}, "file: is not let through"),
        ({"secret": "short"}, "a secret has 16 bytes or more; make one with: openssl rand -hex 32"),
        ({"secret": 5}, "secret is written as words; got int"),
        ({"secret_env": "NO_SUCH"}, "a secret comes from one place; got secret and secret_env"),
    ],
)
def test_what_is_wrong_is_said_and_where(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"cams.toml, number 2: .*{words}") as caught:
        read_rules([{**TABLE, "id": "other"}, {**TABLE, **change}], where="cams.toml")
    told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value}"
    assert not any(leak in told for leak in (WORDS, "p4ss@", "short"))


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {key: value for key, value in TABLE.items() if key != "secret"}
    with pytest.raises(ValueError, match="settings are missing; got id; add stream, says"):
        read_rules([{"id": "x"}])
    with pytest.raises(ValueError, match="the webhook of alert 'fall' got no secret"):
        read_rules([plain])
    with pytest.raises(ValueError, match="secret_env names a variable that is set; got 'NO_SUCH'"):
        read_rules([{**plain, "secret_env": "NO_SUCH"}])
    with pytest.raises(ValueError, match="secret_file 'nowhere' cannot be read: No such file"):
        read_rules([{**plain, "secret_file": "nowhere"}], folder=tmp_path)
    with pytest.raises(ValueError, match="two alerts have the id 'fall'"):
        read_rules([TABLE, TABLE])
    for given_ in ({}, "alerts", [3], 7):
        if given_ != {}:
            with pytest.raises(ValueError, match=r"alerts are written as tables, \[\[alerts\]\]"):
                read_rules(given_)


def test_a_secret_shows_itself_to_nobody() -> None:
    for shown in (repr(SECRET), str(SECRET), f"{SECRET}", repr([SECRET]), repr(a_rule(secret=SECRET))):
        assert WORDS not in shown
    assert not hasattr(SECRET, "__dict__")
    for write in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a secret is not written anywhere"):
            write(SECRET)
    with pytest.raises(TypeError):
        json.dumps(SECRET)
    assert Secret(WORDS) == SECRET != Secret(WORDS + "!") and SECRET != WORDS


@pytest.mark.parametrize(
    ("says", "condition", "lasts_s"),
    [
        ("a person falls", "a person falls", 0),
        ("the door stays open for a minute", "the door stays open", 60),
        ("the door stays open for at least 90 seconds.", "the door stays open", 90),
        ("a car stands there for more than half an hour", "a car stands there", 1800),
        ("it is dark for 1.5 hours", "it is dark", 5400),
        ("it waits for ten minutes", "it waits", 600),
        ("someone waits for a taxi", "someone waits for a taxi", 0),
        ("for a minute", "for a minute", 0),
        ("for 5 seconds it is dark", "for 5 seconds it is dark", 0),
    ],
)
def test_words_say_for_how_long(says: str, condition: str, lasts_s: float) -> None:
    assert read_words(says) == (condition, lasts_s)


@given(st.text(max_size=200))
def test_any_words_can_be_taken_apart(says: str) -> None:
    condition, lasts_s = read_words(says)
    assert condition in says and lasts_s >= 0
