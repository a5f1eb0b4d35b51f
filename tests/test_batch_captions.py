"""Captions: whatever the lines of a log are, a strict player takes them."""

from __future__ import annotations

import html
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.batch.captions import as_srt, as_vtt, cues
from millpond.pipeline.batch.record import Said, one_line
from millpond.stream import Span

from .batch_clips import check_captions

times = st.floats(0, 400_000, allow_nan=False)
words = st.text(min_size=1).map(one_line).filter(bool)
hostile = st.sampled_from(["<i>x</i>", "a --> b", "{\\an8}up", "&amp; <00:01.000>", "WEBVTT", "NOTE x", "1", "‮x"])


@st.composite
def logs(draw: Any) -> list[Said]:
    pairs = draw(st.lists(st.tuples(times, times, st.one_of(words, hostile)), max_size=12))
    return [Said(Span(min(a, b), max(a, b)), text) for a, b, text in pairs]


@given(logs())
def test_players_take_any_log(said: list[Said]) -> None:
    length_s = max((line.span.end_s for line in said), default=0.0)
    srt = check_captions(as_srt(said, length_s), is_vtt=False)
    vtt = check_captions(as_vtt(said, length_s), is_vtt=True)
    assert [one[:2] for one in srt] == [one[:2] for one in vtt] == [cue[:2] for cue in cues(said, length_s)]
    shown = " ".join(html.unescape(one[2]) for one in vtt)
    for line in said:
        assert line.text in shown, "a line is not shown"


def test_a_caption_stands_while_its_time_passes() -> None:
    said = [Said(Span(0.0, 0.0), "a"), Said(Span(2.0, 4.5), "b"), Said(Span(4.5, 6.25), "c"), Said(Span(6.5, 6.5), "d")]
    assert as_srt(said, 7.0).split("\n\n")[1] == "2\n00:00:02,000 --> 00:00:04,500\nb"
    assert [cue[:2] for cue in cues(said, 7.0)] == [(0, 1000), (2000, 4500), (4500, 6250), (6500, 7000)]
    assert as_vtt(said, 7.0).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na\n\n")


def test_no_line_is_no_caption() -> None:
    assert as_srt([], 5.0) == "" and as_vtt([], 5.0) == "WEBVTT\n"


def test_tags_are_words() -> None:
    said = [Said(Span(0.0, 2.0), "<b>5 > 3 & 2</b>")]
    assert "&lt;b&gt;5 &gt; 3 &amp; 2&lt;/b&gt;" in as_vtt(said, 2.0)
    assert "‹b›5 › 3 & 2‹/b›" in as_srt(said, 2.0)
