"""Selected frames of recordings: chosen in one pass, fetched in another, exactly those that reading in order gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from millpond.encoders.selectors import SELECTORS, Selector, Similarity
from millpond.encoders.selectors.base import MAX_SIDE_PX
from millpond.encoders.selectors.card import GridSelector, ThumbnailSelector
from millpond.encoders.selectors.text import TextSelector
from millpond.encoders.selectors.uniform import UniformSelector
from millpond.pipeline.selecting import Choice, choose_frames, fetch_frames, thumbnail
from millpond.stream import Frame, RateSampler, Source, SourceError, open_source
from millpond.stream.synthetic import SyntheticSource
from millpond.stream.video_file import FileSource

from .clips import make_clip, number_of
from .watched import mini

SHAPES = "synthetic://shapes?seed=3&duration_s=20&width=160&height=96"


class Numbers(Similarity):
    """Knows the number in a picture, and finds the numbers that a question names."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def look(self, frames: Sequence[Frame]) -> np.ndarray:
        self.batches.append(len(frames))
        angles_N = np.array([number_of(frame.rgb_HW3) for frame in frames]) / 50
        return np.stack([np.cos(angles_N), np.sin(angles_N)], axis=1).astype(np.float32)

    def compare(self, vectors_ND: np.ndarray, question: str) -> np.ndarray:
        asked = np.array([int(word) for word in question.split()]) / 50
        return (vectors_ND @ np.stack([np.cos(asked), np.sin(asked)])).max(axis=1)


def selected_frames(source: Source, **given: Any) -> Iterator[Frame]:
    """Chosen and fetched, as the command line does it."""
    choice = choose_frames(source, **given)
    return iter(()) if choice is None else fetch_frames(source, choice)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "numbers.mp4", 100, num_b_frames=2)


def due(source: Source, fps: float) -> dict[int, Frame]:
    return {frame.index: frame for frame in source.sampled(RateSampler(fps))}


@pytest.mark.parametrize("uri", [SHAPES, "clip"])
@pytest.mark.parametrize("name", SELECTORS)
def test_the_frames_are_those_of_reading_in_order(name: str, uri: str, clip: Path) -> None:
    with open_source(clip if uri == "clip" else uri) as source:
        fps = 12.5 if uri == "clip" else 3.0
        selector: Selector = SELECTORS[name]()
        words = {"question": "30 70", "similarity": Numbers()} if selector.needs else {}
        choice = choose_frames(source, fps=fps, selector=selector, num_frames=9, **words)
        assert choice is not None
        in_order = due(source, fps)
        assert [c.index for c in choice.candidates] == list(in_order) and choice.num_seen == len(in_order)
        frames = list(selected_frames(source, fps=fps, selector=selector, num_frames=9, **words))
    assert len(frames) == choice.selection.num_pictures
    assert [f.pts_s for f in frames] == sorted(f.pts_s for f in frames)
    cards = {card.indices[-1] for card in choice.selection.cards}
    alone = {choice.candidates[i].index for i in choice.selection.alone}
    for frame in frames:
        if frame.index in alone:
            assert frame.pts_s == in_order[frame.index].pts_s
            np.testing.assert_array_equal(frame.rgb_HW3, in_order[frame.index].rgb_HW3)
        else:
            assert frame.index in {choice.candidates[i].index for i in cards}
    assert bool(choice.note) == bool(cards)


def test_text_finds_the_frames_that_are_asked_for(clip: Path) -> None:
    similarity = Numbers()
    selector = TextSelector(temperature=0.05)
    with open_source(clip) as source:
        frames = selected_frames(
            source, fps=25, selector=selector, num_frames=2, question="20 90", similarity=similarity
        )
        assert [number_of(frame.rgb_HW3) for frame in frames] == [20, 90]
    assert max(similarity.batches) <= 8 and sum(similarity.batches) == 100


def test_a_recording_of_any_length_is_remembered_at_equal_steps(clip: Path) -> None:
    with open_source(clip) as source:
        similarity = Numbers()
        choice = choose_frames(
            source,
            fps=25,
            selector=TextSelector(),
            num_frames=3,
            question="50",
            similarity=similarity,
            max_candidates=30,
        )
        assert choice is not None
        assert [c.index for c in choice.candidates] == list(range(0, 100, 4))
        assert choice.num_seen == 100 and sum(similarity.batches) < 80  # what is passed over is not looked at
        for candidate in choice.candidates:
            angle = candidate.index / 50
            np.testing.assert_allclose(candidate.vector_D, [np.cos(angle), np.sin(angle)], atol=1e-6)
            assert candidate.vector_D is not None and candidate.vector_D.base is None


@pytest.mark.parametrize("max_candidates", range(2, 12))
def test_no_more_is_remembered_than_allowed(clip: Path, max_candidates: int) -> None:
    with open_source(clip) as source:
        choice = choose_frames(source, fps=25, selector=UniformSelector(), num_frames=2, max_candidates=max_candidates)
    assert choice is not None
    indices = [c.index for c in choice.candidates]
    assert max_candidates // 2 < len(indices) <= max_candidates
    assert len(set(np.diff(indices))) <= 1 and indices[0] == 0


def test_frames_of_one_time_are_told_apart(tmp_path: Path) -> None:
    """Matroska's milliseconds give two frames one time: asked for that time, a file shows the second of them."""
    path = make_clip(tmp_path / "pairs.mkv", ticks=[1024 * (n // 2) + 3 * (n % 2) for n in range(20)])
    with open_source(path) as source:
        assert isinstance(source, FileSource)
        chosen = list(selected_frames(source, fps=25, selector=UniformSelector(), num_frames=5))
        assert [number_of(f.rgb_HW3) for f in chosen] == [f.index for f in chosen] == [2, 6, 10, 14, 18]
        assert [f.index for f in source.read_at([f.pts_s for f in chosen])] == [3, 7, 11, 15, 19]


def test_pictures_in_a_folder(tmp_path: Path) -> None:
    for n in range(8):
        Image.fromarray(np.full((6, 8, 3), 30 * n, np.uint8)).save(tmp_path / f"{n}.png")
    with open_source(tmp_path) as source:
        frames = list(selected_frames(source, fps=1, selector=UniformSelector(), num_frames=4))
    assert [int(f.rgb_HW3[0, 0, 0]) for f in frames] == [30, 90, 150, 210]


def test_cards_are_put_together_of_whole_frames(clip: Path) -> None:
    with open_source(clip) as source:
        (card,) = selected_frames(source, fps=25, selector=GridSelector(), num_frames=6)
        frames = list(selected_frames(source, fps=25, selector=ThumbnailSelector(), num_frames=12))
    assert (card.height, card.width) == (64, 159) and card.index == 91
    assert len(frames) == 7 and frames[-1].height < frames[0].height


class Live(Source):
    """A camera, of which nothing may be read."""

    def __init__(self) -> None:
        super().__init__("rtsp://me:secret@door/1", stream_id="door", is_live=True)

    def __iter__(self) -> Iterator[Frame]:
        raise AssertionError("read")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"source": Live()}, r"selected from recordings.*got the live rtsp://.*watch it instead"),
        ({"fps": 0.0}, "fps must be finite and more than 0; got 0.0"),
        ({"num_frames": 0}, "num_frames must be at least 1; got 0"),
        ({"max_candidates": 3}, "no less than num_frames; got 3 for 4"),
        ({"selector": TextSelector()}, "TextSelector needs a question, which a call without one does not offer"),
        ({"selector": TextSelector(), "question": " "}, "TextSelector needs a question"),
        ({"selector": TextSelector(), "question": "?"}, "got neither a model nor a similarity; give one"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_read(changes: dict[str, object], match: str) -> None:
    given: dict[str, object] = {
        "source": open_source(SHAPES),
        "fps": 1.0,
        "selector": UniformSelector(),
        "num_frames": 4,
    }
    with pytest.raises(ValueError, match=match) as refusal:
        selected_frames(**{**given, **changes})  # type: ignore[arg-type]
    assert "secret" not in str(refusal.value)


class Fading(Source):
    """A recording that is shorter each time it is read; `lengths` are how many frames it has."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__("fading", stream_id="fading")
        self._lengths = iter(lengths)

    def __iter__(self) -> Iterator[Frame]:
        for n in range(next(self._lengths)):
            yield Frame(np.full((4, 4, 3), n, np.uint8), float(n), index=n)


def test_a_recording_that_changes_meanwhile_is_told_of() -> None:
    frames = selected_frames(Fading([10, 6]), fps=1, selector=UniformSelector(), num_frames=3)
    assert [next(frames).index, next(frames).index] == [1, 5]
    with pytest.raises(SourceError, match=r"changed while it was read: no frame at 8.000 s any more"):
        next(frames)


def test_a_recording_without_frames_gives_none() -> None:
    assert list(selected_frames(Fading([0]), fps=1, selector=UniformSelector(), num_frames=3)) == []


def test_a_source_that_is_closed_ends_it(clip: Path) -> None:
    for uri in (clip, SHAPES):
        source = open_source(uri)
        choice = choose_frames(source, fps=5, selector=UniformSelector(), num_frames=4)
        assert isinstance(choice, Choice)
        frames = fetch_frames(source, choice)
        next(frames)
        source.close()
        assert len(list(frames)) <= 3


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 5000), (96, 96), (97, 10), (1080, 1920), (MAX_SIDE_PX, MAX_SIDE_PX + 1)]
)
def test_a_thumbnail_is_small_and_its_own(height: int, width: int) -> None:
    picture = np.full((height, width, 3), 77, np.uint8)
    small = thumbnail(picture)
    assert max(small.shape[:2]) <= MAX_SIDE_PX and (small == 77).all()
    assert not np.shares_memory(small, picture)


@pytest.mark.parametrize("name", ["text", "keyframes"])
def test_the_built_in_model_finds_what_is_asked_for(name: str) -> None:
    """One frame is shown. All objects in sight for 5 to 50 % of the time, of the first 20 worlds."""

    def share_of_hits(selector: Selector) -> float:
        hits = []
        for seed in range(20):
            source = open_source(f"synthetic://shapes?seed={seed}&duration_s=24&width=128&height=96")
            assert isinstance(source, SyntheticSource)
            for thing in source.world.things:
                if not 0.05 < (min(thing.leave_s, 24.0) - thing.appear_s) / 24 < 0.5:
                    continue
                choice = choose_frames(
                    source,
                    fps=1,
                    selector=selector,
                    num_frames=1,
                    question=f"Where is the {thing.name}?",
                    model=mini(),
                )
                assert choice is not None
                hits.append(thing.appear_s <= choice.times_s[0] < thing.leave_s)
        assert len(hits) >= 10
        return sum(hits) / len(hits)

    assert share_of_hits(SELECTORS[name]()) >= 0.8
    assert share_of_hits(UniformSelector()) < 0.5
