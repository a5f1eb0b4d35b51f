"""What every selector promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.encoders.selectors import SELECTORS, Candidate, Card, Selection, Selector, compose_card
from millpond.encoders.selectors.base import MAX_SIDE_PX
from millpond.encoders.selectors.card import GridSelector, ThumbnailSelector
from millpond.encoders.selectors.change import ChangeSelector
from millpond.encoders.selectors.keyframes import KeyframeSelector
from millpond.encoders.selectors.text import TextSelector
from millpond.encoders.selectors.uniform import UniformSelector, spread, top_spread
from millpond.encoders.sight import Need
from millpond.stream import Frame

from .method_docs import missing_from_docs

SETTINGS: dict[str, list[Selector]] = {
    "change": [ChangeSelector(), ChangeSelector(still_share=0.0), ChangeSelector(still_share=1.0)],
    "grid": [GridSelector(), GridSelector(cells=2)],
    "keyframes": [KeyframeSelector(), KeyframeSelector(lead=0.1, max_depth=0), KeyframeSelector(max_depth=9)],
    "text": [TextSelector(), TextSelector(temperature=0.01), TextSelector(temperature=100.0)],
    "thumbnails": [ThumbnailSelector(), ThumbnailSelector(cells=36)],
    "uniform": [UniformSelector()],
}
EVERY = [pytest.param(one, id=f"{name}-{i}") for name in SETTINGS for i, one in enumerate(SETTINGS[name])]


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def candidates_of(num: int, seed: int = 0, *, times_s: list[float] | None = None) -> list[Candidate]:
    """Candidates that can be told apart, some of them twins of one another."""
    rng = np.random.default_rng(seed)
    looks = rng.integers(0, 256, (max(1, num // 2), 9, 16, 3), dtype=np.uint8)
    vectors = rng.normal(size=(len(looks), 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    which = rng.integers(0, len(looks), num)
    times = times_s if times_s is not None else [0.5 * i for i in range(num)]
    return [
        Candidate(7 * i, times[i], read_only(looks[look].copy()), read_only(vectors[look].copy()))
        for i, look in enumerate(which)
    ]


def still(num: int, *, step_s: float = 0.5) -> list[Candidate]:
    """One picture all the time."""
    picture, vector = np.full((9, 16, 3), 90, np.uint8), np.float32([0.6, 0.8])
    return [Candidate(i, step_s * i, picture, vector) for i in range(num)]


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(SELECTORS)
    for name, selectors in SETTINGS.items():
        assert all(type(selector) is SELECTORS[name] for selector in selectors)
        assert all(dataclasses.is_dataclass(selector) for selector in selectors)


@pytest.mark.parametrize("name", SELECTORS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(SELECTORS[name]) == []


@pytest.mark.parametrize("selector", EVERY)
@given(data=st.data())
def test_chooses_frames_in_order_none_twice_and_no_more_than_asked(selector: Selector, data: st.DataObject) -> None:
    num = data.draw(st.integers(1, 60))
    num_frames = data.draw(st.integers(1, 70))
    steps_s = data.draw(st.lists(st.sampled_from([0.0, 0.5, 90.0]), min_size=num, max_size=num))
    candidates = candidates_of(num, data.draw(st.integers(0, 3)), times_s=np.cumsum(steps_s).tolist())
    similarity_N = read_only(
        np.float32(data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.2, 0.21, 1.0]), min_size=num, max_size=num)))
    )
    selection = selector.select(candidates, num_frames, similarity_N)
    indices = selection.indices
    assert list(indices) == sorted(set(indices)) and set(indices) <= set(range(num))
    assert len(indices) == min(num, num_frames)
    assert selection.num_pictures <= len(indices)
    shown = [*selection.alone, *(i for card in selection.cards for i in card.indices)]
    assert sorted(shown) == list(indices)
    assert selector.select(candidates, num_frames, similarity_N) == selection


@pytest.mark.parametrize("selector", EVERY)
@given(num=st.integers(2, 300), num_frames=st.integers(1, 40), level=st.sampled_from([0.0, 0.1, -0.7]))
def test_what_cannot_be_told_apart_is_spread_over_time(
    selector: Selector, num: int, num_frames: int, level: float
) -> None:
    # Rounding, as a batched pass of a tower leaves it, is no difference.
    rounding_N = np.random.default_rng(num).uniform(-1e-9, 1e-9, num)
    chosen = selector.select(still(num), num_frames, level + rounding_N).indices
    if num <= num_frames:
        assert chosen == tuple(range(num))
        return
    furthest = max(min(abs(i - c) for c in chosen) for i in range(num))
    assert furthest <= num / num_frames + 1


@pytest.mark.parametrize("selector", EVERY)
def test_one_candidate_is_chosen(selector: Selector) -> None:
    selection = selector.select(still(1), 1, np.zeros(1))
    assert (selection.indices, selection.num_pictures) == ((0,), 1)


@pytest.mark.parametrize("name", SELECTORS)
def test_a_need_that_is_not_met_is_refused(name: str) -> None:
    selector = SELECTORS[name]()
    if Need.TEXT in selector.needs:
        with pytest.raises(ValueError, match=r"needs a question, which this call does not offer; take another"):
            selector.select(still(3), 2)
    else:
        assert len(selector.select(still(3), 2).indices) == 2
    assert selector.needs <= {Need.TEXT} and selector.is_offline


@pytest.mark.parametrize("selector", EVERY)
def test_what_is_no_choice_is_refused(selector: Selector) -> None:
    with pytest.raises(ValueError, match="num_frames must be a whole number, at least 1; got 0"):
        selector.select(still(3), 0, np.zeros(3))
    with pytest.raises(ValueError, match="at least one frame to choose from; got none"):
        selector.select([], 3, np.zeros(0))
    with pytest.raises(ValueError, match="in order of time; got"):
        selector.select(still(3)[::-1], 2, np.zeros(3))
    with pytest.raises(ValueError, match=r"one finite number for each of 3 candidates; got \(2,\)"):
        selector.select(still(3), 2, np.zeros(2))
    with pytest.raises(ValueError, match="1 of them not finite"):
        selector.select(still(3), 2, np.array([0.0, np.nan, 1.0]))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ChangeSelector(still_share=1.5), "still_share must be 0 to 1; got 1.5"),
        (lambda: GridSelector(cells=1), "2 to 36 cells; got 1"),
        (lambda: KeyframeSelector(lead=-0.1), "lead must be 0 to 1; got -0.1"),
        (lambda: KeyframeSelector(max_depth=-1), "max_depth must be 0 to 30; got -1"),
        (lambda: TextSelector(temperature=0.0), "above 0; got 0.0"),
        (lambda: ThumbnailSelector(cells=37), "2 to 36 cells; got 37"),
        (lambda: Candidate(0, 0.0, np.zeros((2, MAX_SIDE_PX + 1, 3), np.uint8)), "96 pixels long; got 97x2"),
        (lambda: Candidate(0, 0.0, np.zeros((2, 2), np.uint8)), "uint8 .rows, columns, 3.; got"),
        (lambda: Candidate(0, np.inf, np.zeros((2, 2, 3), np.uint8)), "finite time"),
        (lambda: Candidate(0, 0.0, np.zeros((2, 2, 3), np.uint8), np.float32([np.nan])), "finite numbers; got shape"),
        (lambda: Card((0, 1, 2), 1, 2), "got 3 frames, 1 rows and 2 columns"),
        (lambda: Card((1, 0), 1, 2), "none twice; got"),
        (lambda: Selection(()), "at least one frame; got none"),
        (lambda: Selection((0, 2), (Card((1,), 1, 1),)), "a card shows chosen frames"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()  # type: ignore[operator]


def test_uniform_takes_the_middles() -> None:
    assert UniformSelector().select(still(100), 4).indices == (12, 37, 62, 87)
    assert spread(5, 5).tolist() == [0, 1, 2, 3, 4]


def test_ties_for_the_last_places_are_taken_at_equal_steps() -> None:
    scores_N = np.array([0.0, 5, 0, 0, 0, 0, 0, 0])
    assert top_spread(scores_N, 3).tolist() == [1, 2, 6]


@pytest.mark.parametrize("noise_levels", [0, 3, 25])
def test_change_goes_where_something_happens_whatever_the_noise(noise_levels: int) -> None:
    """A still recording but for a short stretch in which a square crosses the picture."""
    candidates = []
    rng = np.random.default_rng(0)
    for i in range(200):
        picture = 100 + rng.integers(-noise_levels, noise_levels + 1, (54, 96, 3))
        if 120 <= i < 140:
            left = 4 * (i - 120)
            picture[20:32, left : left + 12] = 240
        candidates.append(Candidate(i, i / 2, picture.clip(0, 255).astype(np.uint8)))
    chosen = ChangeSelector().select(candidates, 10).indices
    assert sum(119 <= i <= 140 for i in chosen) >= 7  # a tenth of the time, most of the frames
    assert min(chosen) < 100  # and what is still is not forgotten


def test_change_takes_the_first_picture_after_a_cut() -> None:
    dark, bright = np.full((9, 16, 3), 20, np.uint8), np.full((16, 9, 3), 220, np.uint8)
    candidates = [Candidate(i, float(i), dark if i < 33 else bright) for i in range(100)]
    assert 33 in ChangeSelector().select(candidates, 5).indices


def test_change_gives_a_cut_one_frame_and_the_rest_to_the_rest() -> None:
    """One cut is most of the change there is, and slow light the rest."""
    pictures = [np.full((9, 16, 3), (0 if i < 33 else 150) + i // 2, np.uint8) for i in range(100)]
    candidates = [Candidate(i, float(i), picture) for i, picture in enumerate(pictures)]
    chosen = ChangeSelector().select(candidates, 10).indices
    assert 33 in chosen and max(np.diff((0, *chosen, 99))) <= 20


def test_text_passes_over_twins_of_what_it_has() -> None:
    """Two scenes that fit the question, one of them long: both are shown before the long one is shown again."""
    near = [np.float32([1, 0, 0]), np.float32([0, 1, 0]), np.float32([0, 0, 1])]
    scene = [0] * 20 + [2] * 40 + [1] * 2 + [2] * 38
    fit = np.array([0.30, 0.29, 0.05])
    picture = np.zeros((4, 4, 3), np.uint8)
    candidates = [Candidate(i, float(i), picture, near[s]) for i, s in enumerate(scene)]
    chosen = TextSelector().select(candidates, 2, fit[scene]).indices
    assert {scene[i] for i in chosen} == {0, 1}
    assert {scene[i] for i in TextSelector().select(candidates, 3, fit[scene]).indices} == {0, 1, 2}


def test_text_temperature_trades_relevance_for_difference() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 8)).astype(np.float32) + 2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    candidates = [Candidate(i, float(i), np.zeros((4, 4, 3), np.uint8), v) for i, v in enumerate(vectors)]
    similarity_N = rng.normal(size=50)
    sharp = list(TextSelector(temperature=0.01).select(candidates, 6, similarity_N).indices)
    flat = list(TextSelector(temperature=100.0).select(candidates, 6, similarity_N).indices)
    assert sharp == sorted(similarity_N.argsort()[-6:].tolist())

    def alike(chosen: list[int]) -> float:
        return float((vectors[chosen] @ vectors[chosen].T)[np.triu_indices(6, 1)].mean())

    assert alike(flat) < alike(sharp)


def test_text_asks_for_vectors() -> None:
    bare = [dataclasses.replace(candidate, vector_D=None) for candidate in still(4)]
    with pytest.raises(ValueError, match=r"got 0 of 4 candidates with one.*make them with a Similarity"):
        TextSelector().select(bare, 2, np.zeros(4))


def test_keyframes_take_a_peak_whole_and_cover_what_has_none() -> None:
    peak_N = np.zeros(400)
    peak_N[256:264] = 1.0
    assert KeyframeSelector().select(still(400), 8, peak_N).indices == tuple(range(256, 264))
    # One clear frame in each quarter: the recording is halved until each has its own.
    four_N = np.zeros(400)
    four_N[[30, 170, 210, 390]] = [1.0, 0.6, 0.8, 0.7]
    assert KeyframeSelector().select(still(400), 4, four_N).indices == (30, 170, 210, 390)
    # With the first level's answer taken always, only what is nearest counts.
    top = KeyframeSelector(lead=0.0).select(still(400), 2, four_N).indices
    assert top == (30, 210)


def test_grid_fills_its_cards_alike_and_in_order() -> None:
    selection = GridSelector().select(still(100), 8)
    assert [len(card.indices) for card in selection.cards] == [4, 4]
    assert sum((card.indices for card in selection.cards), ()) == selection.indices
    (card,) = GridSelector().select(still(100), 6).cards
    assert (card.rows, card.columns) == (2, 3)
    assert "6 frames of the video in 2 rows and 3 columns" in card.words


def test_thumbnails_are_from_first_to_last_and_come_last() -> None:
    selection = ThumbnailSelector().select(still(400), 16)
    (card,) = selection.cards
    assert len(card.indices) == 6 and len(selection.alone) == 10
    assert (card.indices[0], card.indices[-1]) == (selection.indices[0], selection.indices[-1])
    assert ThumbnailSelector().select(still(400), 3).cards == ()  # one frame is no overview


def coloured(color: tuple[int, int, int], height: int, width: int, pts_s: float) -> Frame:
    return Frame(np.full((height, width, 3), color, np.uint8), pts_s, "door", int(pts_s))


def test_a_card_shows_its_frames_in_reading_order() -> None:
    colors = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (250, 0, 250)]
    frames = [coloured(color, 90, 160, float(i)) for i, color in enumerate(colors)]
    picture = compose_card(frames, Card.of(range(5)))
    assert (picture.height, picture.width) == (60, 159)
    assert (picture.pts_s, picture.stream_id, picture.index) == (4.0, "door", 4)
    for place, color in enumerate([*colors, (0, 0, 0)]):
        row, column = divmod(place, 3)
        cell = picture.rgb_HW3[row * 30 : row * 30 + 30, column * 53 : column * 53 + 53]
        assert (cell == color).all()


@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=9))
def test_a_card_takes_frames_of_any_size(sizes: list[tuple[int, int]]) -> None:
    frames = [coloured((200, 100, 50), height, width, float(i)) for i, (height, width) in enumerate(sizes)]
    card = Card.of(range(len(frames)))
    picture = compose_card(frames, card)
    assert picture.height <= max(frames[0].height, card.rows)
    assert picture.width <= max(frames[0].width, card.columns)
    rows, columns = picture.height // card.rows, picture.width // card.columns
    for place in range(len(frames)):
        row, column = divmod(place, card.columns)
        assert picture.rgb_HW3[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns].any()


def test_a_card_that_lacks_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="the card has 2 frames; got 1"):
        compose_card([coloured((0, 0, 0), 4, 4, 0.0)], Card.of([0, 1]))
