"""What comes of runs: intervals, costs, the front, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.bench_mini import wilson
from millpond.pipeline.eval import Item, Said, Scored, Suite
from millpond.pipeline.eval.figure import check_figure, draw
from millpond.pipeline.eval.front import Point, front
from millpond.pipeline.eval.progress import LeftOut
from millpond.pipeline.eval.record import Answered, item_digest
from millpond.pipeline.eval.report import AXES, costs, interval_of, points, report, table
from millpond.pipeline.eval.run import Results
from millpond.pipeline.eval.suites import groups, mean

from .eval_parts import GivenSuite, Telling, item, method

costs_and_scores = st.tuples(st.integers(0, 8), st.integers(0, 8))
several = st.lists(costs_and_scores, max_size=12).map(
    lambda pairs: [Point(str(number), float(cost), score / 8) for number, (cost, score) in enumerate(pairs)]
)


# The front.


@given(several)
def test_the_front_is_all_that_nobody_beats(given_points: list[Point]) -> None:
    on_front = set(front(given_points))
    assert on_front == {one for one in given_points if not any(other.beats(one) for other in given_points)}


@given(several)
def test_on_the_front_more_cost_buys_more_accuracy(given_points: list[Point]) -> None:
    kept = front(given_points)
    for before, after in pairwise(kept):
        is_twin = (before.cost, before.accuracy) == (after.cost, after.accuracy)
        assert is_twin or (before.cost < after.cost and before.accuracy < after.accuracy)


@given(several, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(given_points: list[Point], rng: Any) -> None:
    mixed = list(given_points)
    rng.shuffle(mixed)
    assert set(front(mixed)) == set(front(given_points))
    assert set(front(front(mixed))) == set(front(mixed))


@given(several)
def test_the_cheapest_and_the_best_are_on_the_front(given_points: list[Point]) -> None:
    kept = front(given_points)
    assert bool(kept) == bool(given_points)
    if kept:
        assert kept[0].cost == min(one.cost for one in given_points)
        assert kept[-1].accuracy == max(one.accuracy for one in given_points)


@given(costs_and_scores, costs_and_scores)
def test_no_two_beat_each_other(one: tuple[int, int], other: tuple[int, int]) -> None:
    a, b = Point("a", *one), Point("b", *other)
    assert not (a.beats(b) and b.beats(a))
    assert not a.beats(a)


def test_what_was_not_measured_is_no_point() -> None:
    with pytest.raises(ValueError, match=r"finite cost and accuracy; got nan and 0\.5"):
        Point("a", float("nan"), 0.5)


# Intervals.


class Weighing(GivenSuite):
    """Its accuracy is the mean over types, as OVO-Bench's is."""

    def summary(self, scored: Sequence[Scored]) -> dict[str, Any]:
        by_type = groups(scored, lambda one: one.item.kind)
        return {**super().summary(scored), "accuracy": mean(one["accuracy"] for one in by_type.values())}


def scored(kind: str, hits: int, num: int) -> list[Scored]:
    return [Scored(item(f"{kind}{n}", kind=kind), Said(""), float(n < hits)) for n in range(num)]


def test_a_plain_share_has_the_score_interval() -> None:
    assert interval_of(GivenSuite(), scored("a", 7, 10)) == wilson(7, 10)
    assert interval_of(GivenSuite(), []) is None


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=5))
def test_a_weighted_mean_lies_in_its_interval(pairs: list[tuple[int, int]]) -> None:
    given_scores = [one for kind, (num, hits) in enumerate(pairs) for one in scored(str(kind), min(hits, num), num)]
    suite = Weighing()
    low, high = interval_of(suite, given_scores) or (1.0, 0.0)
    assert 0 <= low <= suite.summary(given_scores)["accuracy"] <= high <= 1
    assert low < high


def test_a_type_of_few_questions_makes_the_interval_of_a_mean_over_types_wide() -> None:
    many = scored("a", 80, 100) + scored("b", 80, 100)
    few = scored("a", 80, 100) + scored("b", 4, 5)
    widths = [high - low for low, high in (interval_of(Weighing(), one) or (0, 0) for one in (many, few))]
    assert widths[1] > 1.3 * widths[0]


def test_the_interval_of_a_mean_over_types_holds_the_truth_as_often_as_it_says() -> None:
    rng, suite, shares, nums = np.random.default_rng(0), Weighing(), (0.9, 0.5, 0.7), (60, 12, 30)
    inside = 0
    for _ in range(300):
        drawn = [rng.binomial(num, share) for num, share in zip(nums, shares, strict=True)]
        given_scores = [
            one
            for kind, (hits, num) in enumerate(zip(drawn, nums, strict=True))
            for one in scored(str(kind), hits, num)
        ]
        low, high = interval_of(suite, given_scores) or (1.0, 0.0)
        inside += low <= 0.7 <= high
    assert 0.91 <= inside / 300 <= 0.99


# Reports.


def answered(one: Item, score: float, **given: Any) -> Answered:
    usual = {"num_frames": 4, "ingest_s": 0.4, "ttft_s": 0.2, "total_s": 0.5, "kv_bytes": 100, "held_bytes": 300}
    return Answered(
        id=one.id,
        item=item_digest(one, one.video),
        video=one.video,
        kind=one.kind,
        category=one.category,
        form=one.form,
        at_s=one.at_s,
        question=one.question,
        answer=one.answer,
        asked=one.question,
        text="",
        score=score,
        **{"seen_until_s": 1.0, **usual, **given},
    )


def results(name: str = "telling", suite: Suite | None = None, hits: int = 3, **given: Any) -> Results:
    items = [item(str(n), kind="when" if n % 2 else "where") for n in range(4)]
    return Results(
        suite=suite or GivenSuite(),
        method=method(Telling(), name),
        settings={"method": name},
        answered=tuple(answered(one, float(n < hits), **given) for n, one in enumerate(items)),
        scored=tuple(Scored(one, Said(""), float(n < hits)) for n, one in enumerate(items)),
        num_kept=0,
        left_out=(LeftOut("gone.mp4", "is not there", 2, True), LeftOut("b.mp4", "cannot be read: no", 1, False)),
    )


def test_a_report_says_what_the_command_promises_and_is_json() -> None:
    found = report(results())
    assert json.loads(json.dumps(found, allow_nan=False))
    assert list(found)[:4] == ["accuracy", "interval", "by_type", "num_questions"]
    assert (found["accuracy"], found["interval"], found["num_questions"]) == (0.75, wilson(3, 4), 4)
    assert found["by_type"]["where"] == {
        "accuracy": 1.0,
        "num_questions": 2,
        "num_right": 2.0,
        "interval": wilson(2, 2),
    }
    assert found["config"] == {"method": "telling"}
    assert found["missing"] == [{"video": "gone.mp4", "num_questions": 2}]
    assert found["broken"] == [{"video": "b.mp4", "num_questions": 1, "reason": "cannot be read: no"}]
    assert found["num_left_out"] == 3


def test_costs_are_per_frame_and_in_the_middle() -> None:
    one = results().answered[0]
    made = [answered(item("1"), 1.0, ttft_s=ttft_s, kv_bytes=int(1000 * ttft_s)) for ttft_s in (0.1, 0.3, 9.0)]
    made.append(answered(item("2"), 0.0, seen_until_s=None, problem="full", ttft_s=0.0, total_s=0.0, kv_bytes=0))
    found = costs(made)
    assert found["frame_s"] == pytest.approx(0.1) and found["num_frames"] == 16
    assert (found["ttft_s"], found["ttft_p95_s"], found["kv_bytes"]) == (0.3, 9.0, 9000)  # of those with an answer
    assert found["all_s"] == pytest.approx((1.6 + 1.5) / 16)
    assert costs([one])["ttft_s"] == 0.2


def test_nothing_scored_is_none_and_no_fault() -> None:
    nothing = results()
    empty = Results(nothing.suite, nothing.method, {}, (), (), 0, nothing.left_out)
    found = report(empty)
    assert (found["accuracy"], found["interval"], found["num_questions"]) == (None, None, 0)
    assert found["costs"]["frame_s"] is None
    assert "missing, not scored: gone.mp4 (2 questions)" in table({"telling": found})
    assert points({"telling": found}, "frame_s") == []


def reports() -> dict[str, dict[str, Any]]:
    made = {
        "millpond": results("millpond", hits=3),
        "dense": results("dense", hits=3, ttft_s=0.1, ingest_s=0.8, kv_bytes=10**6),
        "last": results("last", hits=2, ingest_s=0.0),
    }
    return {name: report(one) for name, one in made.items()}


def test_the_table_has_a_row_for_each_type_and_a_column_for_each_method() -> None:
    lines = table(reports()).splitlines()
    assert lines[0].split() == ["millpond", "dense", "last"]
    low, high = wilson(3, 4)
    assert f"0.750 ({low:.3f} to {high:.3f})" in next(line for line in lines if line.startswith("all"))
    assert [line.split()[0] for line in lines[1:4]] == ["where", "when", "all"]
    per_frame = next(line for line in lines if line.startswith(AXES["frame_s"][0]))
    assert per_frame.removeprefix(AXES["frame_s"][0]).split() == ["100.00*", "200.00", "0.00*"]
    first_token = next(line for line in lines if line.startswith(AXES["ttft_s"][0]))
    assert first_token.removeprefix(AXES["ttft_s"][0]).split() == ["200.00", "100.00*", "200.00"]
    assert sum(line.startswith("missing") for line in lines) == 1  # the same for all methods
    assert "*" not in table({"dense": reports()["dense"]})  # one alone is no comparison


def test_of_many_methods_each_has_a_row() -> None:
    one = reports()["dense"]
    lines = table({f"m{number}": one for number in range(7)}).splitlines()
    assert [line.split()[0] for line in lines[1:8]] == [f"m{number}" for number in range(7)]
    assert "report.json" in lines[8] and max(map(len, lines[:8])) < 160


def test_a_method_without_answers_is_told() -> None:
    found = report(results(problem="it does not fit"))
    assert found["num_unanswered"] == 4
    assert "telling had no answer to 4 questions; they count as wrong" in table({"telling": found})


def test_a_cost_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no cost is called 'joy'; there are: frame_s, kv_bytes, ttft_s"):
        points(reports(), "joy")


# The figure.


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_a_figure_is_drawn(name: str, begins: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "deeper" / name
    draw(reports(), path, title="shapes")
    data = path.read_bytes()
    assert data.startswith(begins) and len(data) > 2000


def test_the_figure_has_a_point_for_each_method_and_marks_the_front(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.append(self))
    draw(reports(), tmp_path / "a.png")
    (figure,) = drawn
    assert [panel.get_xlabel() for panel in figure.axes] == [label for label, _ in AXES.values()]
    for panel, cost in zip(figure.axes, AXES, strict=True):
        assert {text.get_text() for text in panel.texts} == {"millpond", "dense", "last"}
        step = panel.lines[0]
        kept = front(points(reports(), cost))
        assert list(step.get_xdata()) == [point.cost / AXES[cost][1] for point in kept]
        assert list(step.get_ydata()) == [point.accuracy for point in kept]


def test_a_figure_of_nothing_scored_is_empty_and_no_fault(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nothing = results()
    empty = Results(nothing.suite, nothing.method, {}, (), (), 0, ())
    draw({"telling": report(empty)}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_a_figure_that_cannot_be_drawn_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"a figure is a file of \.png, \.svg, \.pdf; got 'a\.bmp'"):
        check_figure(Path("a.bmp"))
    monkeypatch.setattr("millpond.pipeline.eval.figure.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs matplotlib, for 'a\.png'; pip install 'millpond\[plot\]'"):
        check_figure(Path("a.png"))
