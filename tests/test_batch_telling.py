"""Titles and summaries: from the log, in pieces that fit the model's context, whatever the log's length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from millpond.encoders import VideoLLM
from millpond.pipeline import EngineConfig
from millpond.pipeline.batch import telling
from millpond.pipeline.batch.chapters import Chapter
from millpond.pipeline.batch.record import Said, one_line
from millpond.pipeline.batch.telling import Quoting, Recounting, teller_for
from millpond.pipeline.prompts import MINI_PROMPTS, PROMPTS
from millpond.stream import Span

from .watched import mini, tiny

CONFIG = EngineConfig(prompts=PROMPTS, max_new_tokens=6)


@pytest.fixture(scope="module", params=["llava_onevision", "qwen2_5_vl", "smolvlm"])
def model(request: pytest.FixtureRequest) -> VideoLLM:
    return tiny(request.param)


def chapter(first: int, num: int, words: str = "a dog runs") -> Chapter:
    said = tuple(Said(Span(float(n), n + 1.0), one_line(f"{words} {n}")) for n in range(first, first + num))
    return Chapter(Span(float(first), float(first + num)), said)


class Listening:
    """What a model is asked, and with how many tokens in its context."""

    def __init__(self, model: VideoLLM, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.num_tokens: list[int] = []
        real = telling.generate

        def generate(its: VideoLLM, prompts: Any) -> Any:
            generated = real(its, prompts)
            self.num_tokens += [p.context.next_position + len(p.question.ids) + p.max_new_tokens for p in prompts]
            self.asked += [its.decode(p.question.ids) for p in prompts]
            return generated

        patch.setattr(telling, "generate", generate)


def test_a_model_that_takes_notes_is_given_them(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening(model, monkeypatch)
    told = teller_for(model, CONFIG, notes_tokens=4096).tell([chapter(0, 3), chapter(3, 1, "a cat sleeps")])
    assert len(told.titles) == len(told.gists) == 2 and all(told.titles) and told.summary
    part, *titles, whole = listening.asked
    for n in range(3):
        assert f"{n} - {n + 1}: a dog runs {n}" in part
    assert told.gists[1] == "a cat sleeps 3", "one line is its own gist"
    assert len(titles) == 2 and "title" in titles[0] and "3 - 4: a cat sleeps 3" in titles[1]
    assert "Summarize the whole video" in whole and "3 - 4: a cat sleeps 3" in whole


@pytest.mark.parametrize(
    ("num_chapters", "num_lines", "words"), [(3, 40, "a dog runs"), (1, 1, "x y z " * 300), (6, 9, "w")]
)
def test_no_prompt_is_longer_than_its_room(
    model: VideoLLM, monkeypatch: pytest.MonkeyPatch, num_chapters: int, num_lines: int, words: str
) -> None:
    listening = Listening(model, monkeypatch)
    chapters = [chapter(n * num_lines, num_lines, words) for n in range(num_chapters)]
    teller = teller_for(model, CONFIG, notes_tokens=120)
    assert isinstance(teller, Recounting)
    told = teller.tell(chapters)
    assert told.summary and all(told.titles)
    overhead = max(len(model.question(p.replace("{log}", "-")).ids) for p in (PROMPTS.recount or "", telling._PART))
    assert max(listening.num_tokens) <= len(model.prefix().ids) + overhead + 120 + 24 + 16
    assert max(listening.num_tokens) <= model.spec.max_positions


def test_every_line_is_read(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening(model, monkeypatch)
    teller_for(model, CONFIG, notes_tokens=150).tell([chapter(0, 40)])
    read = "\n".join(listening.asked)
    assert all(f"{n} - {n + 1}: a dog runs {n}" in read for n in range(40))


def test_the_same_log_is_told_alike(model: VideoLLM) -> None:
    chapters = [chapter(0, 12), chapter(12, 5)]
    tellers = [teller_for(model, CONFIG, notes_tokens=150) for _ in range(2)]
    assert tellers[0].tell(chapters) == tellers[1].tell(chapters) == tellers[0].tell(chapters)


def test_a_context_that_holds_no_notes_is_refused(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "spec", replace(model.spec, max_positions=64))
    with pytest.raises(ValueError, match=r"trained for 64 positions.*got notes_tokens=4096"):
        teller_for(model, CONFIG, notes_tokens=4096)


def test_nothing_told_is_nothing(model: VideoLLM) -> None:
    silent = [Chapter(Span(0, 5), ())]
    assert teller_for(model, CONFIG, notes_tokens=4096).tell(silent) == ("", ("",), ("",))
    assert Quoting().tell(silent) == ("", ("",), ("",))


def test_a_model_that_takes_no_notes_is_quoted() -> None:
    teller = teller_for(mini(), EngineConfig(), notes_tokens=4096)
    assert isinstance(teller, Quoting) and MINI_PROMPTS.recount is None
    one = Chapter(Span(0, 65), tuple(Said(Span(n, n), text) for n, text in enumerate(["a", "b", "a"])))
    assert teller.tell([one]) == ("a; b", ("a; b",), ("a; b",))
    told = teller.tell([one, Chapter(Span(65, 70), (Said(Span(66, 66), one_line("word " * 100)),))])
    assert told.summary.startswith("0:00.0 - 1:05.0: a; b\n1:05.0 - 1:10.0: word word")
    assert all(len(title) <= 80 for title in told.titles) and told.titles[1].endswith("word…")
