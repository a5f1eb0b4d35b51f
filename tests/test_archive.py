"""Archive: keyframes by event, found again by likeness and time, under caps that hold, after a restart as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.archive import Archive
from millpond.memory.depots import DepotWriter
from millpond.memory.depots.directory import DirectoryDepot
from millpond.memory.depots.ram import RamDepot
from millpond.memory.no_archive import NoArchive
from millpond.memory.picture_index import PictureIndex
from millpond.memory.shelf import GoneEvent
from millpond.stream import Span
from millpond.stream.jpeg import decode_jpeg

from .archive_parts import NUM_CHANNELS, Direct, Lazy, noise, picture, vector, watch

# Shapes: D channels of a picture's vector.


@pytest.fixture
def store() -> Direct:
    return Direct(RamDepot())


def test_every_scene_leaves_its_first_frame(store: Direct) -> None:
    archive = Archive(store)
    watch(archive, [3, 1, 4, 1, 5])
    archive.close()
    found = archive.between(Span(0, 1000))
    assert [f.span.start_s for f in found] == [0, 6, 12, 18, 24]
    assert [f.event for f in found] == [0, 1, 2, 3, 4]
    for f, scene in zip(found, [3, 1, 4, 1, 5], strict=True):
        keyframe = archive.get(f.number)
        assert keyframe is not None and keyframe.span == f.span and keyframe.event == f.event
        assert np.abs(keyframe.picture_HW3.astype(int) - picture(scene)).max() < 6
        assert keyframe.vector_D is not None
        assert (
            float(keyframe.vector_D @ torch.nn.functional.normalize(vector(scene, int(f.span.start_s)), dim=0)) > 0.99
        )
    archive.check()


def test_a_frame_unlike_the_last_keyframe_is_one_within_an_event(store: Direct) -> None:
    archive = Archive(store, keyframe_similarity=0.9, min_blocks=30)
    for t in range(20):  # turning slowly: no step is a cut
        turn = torch.tensor([np.cos(t / 8), np.sin(t / 8), 0.0])
        archive.see(picture(t), Span(t, t + 1), turn)
    archive.close()
    found = archive.between(Span(0, 100))
    assert {f.event for f in found} == {0}
    assert [f.span.start_s for f in found] == [0, 4, 8, 12, 16]  # cos(4 / 8) is the first below 0.9


def test_a_still_scene_leaves_one_picture_an_event(store: Direct) -> None:
    archive = Archive(store, max_blocks=10)
    for t in range(40):
        archive.see(picture(0), Span(t, t + 1), vector(0))
    archive.close()
    assert [f.span.start_s for f in archive.between(Span(0, 100))] == [0, 10, 20, 30]


def test_the_frame_before_is_decided_on_once_its_event_is_known(store: Direct) -> None:
    archive = Archive(store)
    results = [archive.see(picture(t // 6), Span(t, t + 1), vector(t // 6, t)) for t in range(12)]
    assert [seen.kept for seen in results] == [None, 0] + [None] * 5 + [1] + [None] * 4
    assert [seen.closed.span if seen.closed else None for seen in results] == [None] * 7 + [Span(0, 6)] + [None] * 4
    assert archive.close().closed is not None
    assert archive.close() == (None, None, ())


def test_a_picture_that_is_written_over_afterwards_is_kept_as_it_was() -> None:
    store = Lazy(RamDepot())
    archive = Archive(store)
    shared_HW3 = picture(1).copy()
    archive.see(shared_HW3, Span(0, 1), vector(1))
    shared_HW3[:] = 0
    archive.close()
    store.write()
    keyframe = archive.get(0)
    assert keyframe is not None and np.abs(keyframe.picture_HW3.astype(int) - picture(1)).max() < 6


def test_extras_come_back(store: Direct) -> None:
    archive = Archive(store)
    tokens = torch.arange(12, dtype=torch.int8).view(3, 4)
    archive.see(picture(0), Span(0, 1), vector(0), {"tokens": tokens, "scale": torch.ones(3, dtype=torch.bfloat16)})
    archive.close()
    keyframe = archive.get(0)
    assert keyframe is not None and set(keyframe.extra) == {"tokens", "scale"}
    assert torch.equal(keyframe.extra["tokens"], tokens) and keyframe.extra["scale"].dtype == torch.bfloat16


def test_a_question_finds_the_scene_and_changes_nothing(store: Direct) -> None:
    archive = Archive(store)
    watch(archive, list(range(12)))
    archive.close()
    for scene in range(12):
        best = archive.find(vector(scene, 10_000), 3)
        assert best[0].span.start_s == 6 * scene
        assert best[0].score > best[1].score >= best[2].score
        assert archive.find(vector(scene, 10_000), 3) == best
    assert [f.span.start_s for f in archive.find(vector(3), 12, Span(30, 49))] == sorted(
        [30, 36, 42, 48], key=lambda s: [f.span.start_s for f in archive.find(vector(3), 12)].index(s)
    )
    assert archive.find(vector(3), 0) == []


def test_what_all_pictures_share_does_not_drown_what_they_differ_in(store: Direct) -> None:
    shared_D = 30 * torch.ones(NUM_CHANNELS)
    archive = Archive(store, keyframe_similarity=1.0, min_blocks=1)
    for scene in range(20):
        archive.see(picture(scene), Span(scene, scene + 1), shared_D + vector(scene))
    archive.close()
    # A query of another kind, which shares nothing: a text's.
    found = [archive.find(vector(scene) - vector(scene).mean(), 1)[0] for scene in range(20)]
    assert sum(f.span.start_s == scene for scene, f in enumerate(found)) >= 18
    assert min(f.score for f in found) > 0.5


def test_the_nearest_in_time_is_found(store: Direct) -> None:
    archive = Archive(store)
    assert archive.nearest(3) is None
    watch(archive, [0, 1, 2])
    archive.close()
    near = {time_s: archive.nearest(time_s) for time_s in (-5, 0.5, 3, 4, 100)}
    assert [f.span.start_s for f in near.values() if f is not None] == [0, 0, 0, 6, 12]


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ((picture(0), Span(1, 2), torch.full((NUM_CHANNELS,), float("nan"))), "got NaN or infinity at Span"),
        ((picture(0), Span(1, 2), torch.ones(3)), "one length; got 3 after 16"),
        ((np.zeros((4, 4, 3)), Span(1, 2), vector(0)), "got float64"),
    ],
)
def test_what_cannot_be_archived_is_refused_and_changes_nothing(
    store: Direct, given_: tuple[Any, Any, Any], sentence: str
) -> None:
    archive = Archive(store)
    archive.see(picture(0), Span(0, 1), vector(0))
    with pytest.raises(ValueError, match=sentence):
        archive.see(*given_)
    archive.close()
    assert [f.span for f in archive.between(Span(0, 9))] == [Span(0, 1)]


def test_questions_are_checked(store: Direct) -> None:
    archive = Archive(store)
    assert archive.find(vector(0), 3) == [] and archive.between(Span(0, 1)) == [] and archive.get(0) is None
    archive.see(picture(0), Span(0, 1), vector(0))
    with pytest.raises(ValueError, match="16 channels here; got 3"):
        archive.find(torch.ones(3), 1)
    with pytest.raises(ValueError, match="got -1"):
        archive.find(vector(0), -1)


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"budget_bytes": 100}, "at least 65536 bytes; got 100"),
        ({"keyframe_similarity": 2.0}, "got 2.0"),
        ({"jpeg_quality": 99}, "got 99"),
        ({"vectors": "x" * 200}, "got 200"),
    ],
)
def test_settings_are_checked(store: Direct, settings_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Archive(store, **settings_)


def test_an_index_too_small_for_its_vectors_is_refused(store: Direct) -> None:
    archive = Archive(store, index_budget_bytes=1000)
    with pytest.raises(ValueError, match="index_budget_bytes=1000; raise it"):
        archive.see(picture(0), Span(0, 1), vector(0))


# Caps


@settings(max_examples=25)
@given(
    sides=st.lists(st.integers(1, 60), min_size=1, max_size=120),
    change=st.integers(1, 9),
    budget_bytes=st.integers(2**16, 2**18),
)
def test_the_cap_holds_after_any_sequence(sides: list[int], change: int, budget_bytes: int) -> None:
    store = Direct(RamDepot())
    archive = Archive(store, budget_bytes=budget_bytes, keyframe_similarity=1.0)
    kept, gone = set(), []
    for t, side in enumerate(sides):
        seen = archive.see(noise(t, side), Span(t, t + 1), vector(t // change, t))
        kept |= {seen.kept} - {None}
        gone += seen.gone
        archive.check()
        assert store.depot.num_bytes("picture") <= budget_bytes
    gone += archive.close().gone
    archive.check()
    found = archive.between(Span(0, 1000))
    here = {f.number for f in found}
    assert all(archive.get(number) is not None for number in here), "what it names is there"
    assert store.numbers("picture") == sorted(n for number in here for n in (2 * number, 2 * number + 1))
    events = {f.event for f in found}
    assert not events & {event.number for event in gone}, "an event that is gone has no picture"
    assert events | {event.number for event in gone} == set(range(max(events, default=-1) + 1)) or not found
    assert len(gone) == len({event.number for event in gone}), "each leaves once"


def test_the_past_is_thinned_to_events_before_it_is_dropped(store: Direct) -> None:
    archive = Archive(store, budget_bytes=2**17, keyframe_similarity=1.0)
    gone: list[GoneEvent] = []
    for t in range(400):
        gone += archive.see(noise(t, 32), Span(t, t + 1), vector(t // 8, t)).gone
    found = archive.between(Span(0, 1000))
    oldest = [f for f in found if f.number < found[0].number + 100]
    assert len({f.event for f in oldest}) == len(oldest) > 3, "one picture an event"
    assert len({f.event for f in found[-8:]}) < 4, "the newest are whole"
    assert gone == [GoneEvent(n, Span(8 * n, 8 * n + 8)) for n in range(len(gone))] and len(gone) > 3


def test_the_index_has_a_cap_of_its_own(store: Direct) -> None:
    chunk_bytes = PictureIndex(NUM_CHANNELS).chunk_bytes
    archive = Archive(store, index_budget_bytes=2 * chunk_bytes, keyframe_similarity=1.0)
    for t in range(1500):
        archive.see(picture(0, 1), Span(t, t + 1), vector(t // 5, t))
        assert archive.index_bytes <= 2 * chunk_bytes + 3
    archive.check()
    assert 250 < archive.num_keyframes <= 512
    assert archive.between(Span(0, 2000))[-1].span.start_s == 1498


def test_the_cap_holds_in_a_directory_with_a_writer(tmp_path: Path) -> None:
    budget_bytes = 2**19
    depot = DirectoryDepot(tmp_path / "depot", segment_bytes=2**16)
    writer = DepotWriter(depot)
    archive = Archive(writer, budget_bytes=budget_bytes, keyframe_similarity=1.0)
    peak_bytes = 0
    try:
        for t in range(800):
            archive.see(noise(t, 24 + t % 32), Span(t, t + 1), vector(t // 6, t))
            if t % 10 == 0:
                assert writer.flush(20)
                archive.check()
                peak_bytes = max(peak_bytes, archive.num_bytes)
        archive.close()
        assert writer.flush(20)
        archive.check()
        at_rest = sum(path.stat().st_size for path in (tmp_path / "depot" / "picture").iterdir())
        assert at_rest <= budget_bytes
        assert archive.num_lost == 0
        assert peak_bytes > budget_bytes * 3 // 4
        assert archive.num_keyframes > 60, "and it is made use of"
        assert all(archive.get(f.number) is not None for f in archive.between(Span(0, 1000)))
    finally:
        writer.close()
        depot.close()


def test_a_keyframes_jpeg_is_given_as_it_is_kept(store: Direct) -> None:
    archive = Archive(store)
    watch(archive, [3, 1])
    archive.close()
    found = archive.between(Span(0, 100))[0]
    jpeg, keyframe = archive.jpeg(found.number), archive.get(found.number)
    assert jpeg is not None and keyframe is not None
    assert np.array_equal(decode_jpeg(jpeg), keyframe.picture_HW3)
    assert archive.jpeg(10**6) is None and Archive(store).jpeg(found.number) is None
    store.depot.put("picture", 2 * found.number + 1, b"no picture")
    assert archive.jpeg(found.number) is None and NoArchive().jpeg(0) is None
