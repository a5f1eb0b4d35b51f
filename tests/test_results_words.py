"""What the results page says in words follows from its figures, also where Millpond loses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.eval.page_read import Share, SuiteResult, read_result
from millpond.pipeline.eval.page_words import difference, findings

from . import result_files as made


def told(*methods: dict[str, Any], tmp_path: Path) -> str:
    """What is said in words of these methods."""
    path = made.write(tmp_path / "told", told=made.suite(*methods)) / "told.json"
    result = read_result(path)
    assert isinstance(result, SuiteResult)
    return re.sub("</?code>", "", "\n".join(findings(result)))


def test_a_simple_baseline_that_is_not_beaten_is_said(tmp_path: Path) -> None:
    words = told(made.method("millpond", 60), made.method("last-4", 61), tmp_path=tmp_path)
    assert "**Not beaten: the simple baseline last-4 (0.610)**" in words
    assert "None of these is better beyond the 95 % interval." in words
    words = told(made.method("millpond", 30), made.method("last-4", 61), tmp_path=tmp_path)
    assert "Better than the defaults beyond the 95 % interval: last-4 (0.610)." in words
    # As often right is not beaten either.
    assert "Not beaten" in told(made.method("millpond", 60), made.method("timer", 60), tmp_path=tmp_path)


def test_a_baseline_that_is_beaten_is_said_with_its_certainty(tmp_path: Path) -> None:
    words = told(
        made.method("millpond", 90), made.method("fifo-16", 86), made.method("uniform-16", 40), tmp_path=tmp_path
    )
    assert "Ahead of the simple baseline fifo-16 (0.860) by less than the 95 % interval can tell." in words
    assert "Better, beyond the 95 % interval, than the simple baseline uniform-16 (0.400)." in words
    assert "Not beaten" not in words


def test_a_category_in_which_a_baseline_is_ahead_is_said(tmp_path: Path) -> None:
    ours = made.method("millpond", 80)
    ours["by_category"] = {"real-time": made.shares(30, 50), "backward": made.shares(50, 50)}
    words = told(ours, made.method("last-4", 70), tmp_path=tmp_path)
    assert re.search(r"In real-time questions, .* not beaten: last-4 0\.700", words)
    assert "In backward questions" not in words


def test_peers_variants_black_frames_and_everything_kept_are_said(tmp_path: Path) -> None:
    words = told(
        made.method("millpond", 60),
        made.method("rekv", 90),
        made.method("stc", 20),
        made.method("pruner-novel", 65),
        made.method("blind", 58),
        made.method("dense", 95, num_unanswered=5),
        tmp_path=tmp_path,
    )
    assert "Not beaten: the peer rekv" in words and "than the peer stc" in words
    assert "with a part changed: pruner-novel (0.650)**; none of them beyond" in words
    assert "not better than that beyond the 95 % interval" in words
    assert "the defaults lose to it; it had no answer to 5 questions" in words
    assert "No simple baseline was in this run." in words


def test_defaults_that_are_beaten_in_cost_are_off_the_front(tmp_path: Path) -> None:
    ours = made.method("millpond", 80, frame_s=0.02, kv_bytes=100, ttft_s=0.04)
    other = made.method("last-4", 80, frame_s=0.01, kv_bytes=200, ttft_s=0.04)
    words = told(ours, other, tmp_path=tmp_path)
    assert re.search(
        r"\*\*On wall time per frame the defaults .* are not on the front\*\*.* last-4 \(0.800, 10.0", words
    )
    assert re.search(r"On keys and values kept the defaults .* are on the front: \*\*millpond\*\*\.", words)
    assert re.search(r"On time to first token the defaults .* are on the front", words)  # both: they are equal


def test_without_the_defaults_nothing_is_claimed(tmp_path: Path) -> None:
    assert told(made.method("last-4", 61), tmp_path=tmp_path) == "Millpond's defaults have no figures in this run."


def test_where_real_shapes_lose_it_is_said(tmp_path: Path) -> None:
    text = made.page(tmp_path, one=made.real()).text
    assert re.search(r"\*\*Ours is slower than the dense tower\*\*: .* with much change \(0\.800\)", text)
    assert re.search(r"Ours is faster than the dense tower: .* with little change \(2\.38\)", text)
    assert "was not measured: it takes 17 GiB." in text


def test_where_the_built_in_model_falls_short_it_is_said(tmp_path: Path) -> None:
    text = made.page(tmp_path, one=made.mini()).text
    assert "On 16 frames 98.0% are right; 97% are wanted." in text
    assert "**On 64 frames 88.0% are right: short of the 95% that are wanted.**" in text
    assert "**On 64 frames these types are short of 90%**: first (88.0%)." in text


@given(st.integers(0, 60), st.integers(0, 60))
def test_an_interval_of_a_difference_holds_it_and_turns_with_it(right: int, other: int) -> None:
    one, two = (Share(n / 60, *made.shares(n, 60)["interval"], 60) for n in (right, other))
    low, high = difference(one, two)
    assert low - 1e-9 <= one.accuracy - two.accuracy <= high + 1e-9
    assert difference(two, one) == pytest.approx((-high, -low))
    # Where both intervals are apart, so are the two.
    assert low > 0 or one.low <= two.high
