"""Where figures come from: a command that can be typed again, without the password that was typed."""

from __future__ import annotations

import shlex

from millpond.pipeline.eval.origin import asked, command, origin


def test_the_command_is_one_line_that_can_be_typed_again() -> None:
    words = ["/somewhere/bin/millpond", "eval", "jsonl", "--questions", "my questions.jsonl"]
    assert command(words) == "millpond eval jsonl --questions 'my questions.jsonl'"
    assert shlex.split(command(words)) == ["millpond", *words[1:]]


def test_no_password_is_in_it() -> None:
    told = command(["millpond", "ask", "rtsp://me:secret@camera/1?token=hidden"])
    assert "secret" not in told and "hidden" not in told and "camera/1" in told


def test_hardware_and_commit_stand_beside_it() -> None:
    told = origin(["millpond", "eval", "shapes"], "cpu")
    assert set(told) == {"command", "machine", "commit"}
    assert "cores" in told["machine"] and "torch" in told["machine"] and told["commit"]


def test_what_was_asked_is_plain() -> None:
    told = asked("shapes", {"minutes": 1}, limit=8)
    assert told == {"suite": "shapes", "settings": {"minutes": 1}, "questions": None, "limit": 8}
