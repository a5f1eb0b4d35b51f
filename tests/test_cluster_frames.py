"""Frames from another process, over a real Ray: not copied twice, one on its way, none lost that must not be."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from millpond.pipeline.cluster.actors import start_source
from millpond.pipeline.cluster.names import end_all, find_actor, new_namespace, source_name
from millpond.pipeline.cluster.remote_feed import RemoteFeed
from millpond.pipeline.cluster.source_host import Place, SourceHost
from millpond.pipeline.stream_spec import StreamSpec
from millpond.stream import Frame, RateSampler

from .ray_cluster import SETTINGS, live, running_ray, wait_until

RECORDED = StreamSpec("film", "synthetic://shapes?seed=2&duration_s=4&rate_hz=10&width=64&height=48")
LARGE = "synthetic://shapes?seed=1&duration_s=600&rate_hz=10&width=640&height=480"


@pytest.fixture(scope="module", autouse=True)
def ray_() -> Iterator[Any]:
    with running_ray():
        import ray

        yield ray


@pytest.fixture
def namespace() -> Iterator[str]:
    name = new_namespace()
    yield name
    end_all(name)


def feed_of(spec: StreamSpec, namespace: str, **options: float) -> RemoteFeed:
    return RemoteFeed(spec.stream_id, partial(find_actor, source_name(spec.stream_id), namespace), **options)


def take(feed: RemoteFeed) -> Frame:
    return wait_until(feed.take, "a frame came")


def report(handle: Any) -> Any:
    import ray

    return ray.get(handle.report.remote(), timeout=60)


def same_picture(one: Frame, other: Frame) -> bool:
    return bool(np.array_equal(one.rgb_HW3, other.rgb_HW3))


# One copy.


def test_a_frame_is_copied_into_shared_memory_and_read_from_there(namespace: str) -> None:
    import ray

    source = start_source(StreamSpec("s", LARGE), 5.0, namespace, SETTINGS)
    call = source.next_frames.remote(None, 30.0)
    one, other = ray.get(call).frames[0], ray.get(call).frames[0]
    assert one.rgb_HW3.shape == (480, 640, 3)
    assert one.rgb_HW3 is not other.rgb_HW3 and np.shares_memory(one.rgb_HW3, other.rgb_HW3)
    assert not one.rgb_HW3.flags.writeable and not one.rgb_HW3.flags.owndata
    with StreamSpec("s", LARGE).open() as direct:
        assert same_picture(one, next(iter(direct)))


# One on its way, whatever the reader does.


def test_a_slow_reader_makes_the_source_drop_and_nothing_queues(namespace: str) -> None:
    spec = live("cam", seed=3)
    source = start_source(spec, 5.0, namespace, SETTINGS)
    feed = feed_of(spec, namespace)
    feed.on_news(lambda: None)
    frames = []
    for _ in range(3):
        frames.append(take(feed))
        most_waiting = 0
        until_s = time.monotonic() + 1.5
        while time.monotonic() < until_s:
            most_waiting = max(most_waiting, feed.num_waiting)
            time.sleep(0.05)
        assert most_waiting == 1
    told = report(source)
    assert told.most_asking == 1
    assert feed.num_overtaken > 0
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices)) and indices[-1] - indices[0] >= 8  # what waited was made newer
    feed.close()


def test_nothing_is_asked_for_while_a_frame_of_a_recording_waits(namespace: str) -> None:
    source = start_source(RECORDED, 10.0, namespace, SETTINGS)
    feed = feed_of(RECORDED, namespace)
    feed.on_news(lambda: None)
    wait_until(lambda: feed.num_waiting, "a frame came")
    time.sleep(1.0)
    told = report(source)
    assert told.num_handed_out == feed.num_waiting <= 4
    assert (told.num_asking, told.most_asking) == (0, 1)
    assert feed.num_overtaken == 0
    feed.close()


# What a recording must not lose.


def test_every_frame_of_a_recording_comes_in_order_and_then_the_end(namespace: str) -> None:
    start_source(RECORDED, 10.0, namespace, SETTINGS)
    feed = feed_of(RECORDED, namespace)
    feed.on_news(lambda: None)
    frames: list[Frame] = []
    wait_until(lambda: ((frame := feed.take()) is not None and frames.append(frame)) or feed.is_ended, "it ended")
    with RECORDED.open() as direct:
        expected = list(direct.sampled(RateSampler(10.0)))
    assert [frame.pts_s for frame in frames] == [frame.pts_s for frame in expected]
    assert all(same_picture(one, other) for one, other in zip(frames, expected, strict=True))
    assert feed.problem is None and feed.state == "ended"


def test_a_recording_goes_on_where_it_was_when_its_process_was_killed(namespace: str) -> None:
    source = start_source(RECORDED, 10.0, namespace, SETTINGS)
    feed = feed_of(RECORDED, namespace)
    feed.on_news(lambda: None)
    frames = [take(feed) for _ in range(12)]
    os.kill(report(source).pid, signal.SIGKILL)
    wait_until(lambda: feed.state == "lost" or feed.num_waiting, "the feed noticed, or had one already")
    wait_until(lambda: _started_again(RECORDED, namespace), "its name is free")
    wait_until(lambda: ((frame := feed.take()) is not None and frames.append(frame)) or feed.is_ended, "it ended")
    assert [frame.pts_s for frame in frames] == pytest.approx([n / 10 for n in range(40)])
    assert all(frame.gap_s == 0 for frame in frames)


def test_a_camera_goes_on_by_the_clock_when_its_process_was_killed(namespace: str) -> None:
    spec = live("cam", seed=5)
    source = start_source(spec, 5.0, namespace, SETTINGS)
    feed = feed_of(spec, namespace)
    feed.on_news(lambda: None)
    before = [take(feed) for _ in range(3)]
    began_s = time.monotonic()
    os.kill(report(source).pid, signal.SIGKILL)
    wait_until(lambda: feed.state == "lost", "the feed noticed")
    time.sleep(1.0)
    wait_until(lambda: _started_again(spec, namespace), "its name is free")
    overtaken = feed.num_overtaken
    while True:
        frame = take(feed)
        if frame.gap_s:
            break
        before.append(frame)
    passed_s = time.monotonic() - began_s
    after = [frame, *(take(feed) for _ in range(3))]
    times = [frame.pts_s for frame in before + after]
    indices = [frame.index for frame in before + after]
    assert times == sorted(set(times)) and indices == sorted(set(indices))
    assert 1.0 <= frame.gap_s <= passed_s + 1.0
    assert frame.pts_s - before[-1].pts_s == pytest.approx(frame.gap_s, abs=0.01)
    assert [frame.gap_s for frame in after[1:]] == [0, 0, 0]
    assert feed.num_overtaken >= overtaken and feed.state == "live"
    feed.close()


def _started_again(spec: StreamSpec, namespace: str) -> bool:
    try:
        start_source(spec, 10.0, namespace, SETTINGS)
    except ValueError:
        return False
    return True


# What a source says when it cannot.


def test_a_source_that_is_not_there_has_ended_and_says_why_without_secrets(namespace: str) -> None:
    spec = StreamSpec("gone", "/nowhere/clip.mp4")
    start_source(spec, 5.0, namespace, SETTINGS)
    feed = feed_of(spec, namespace)
    feed.on_news(lambda: None)
    wait_until(lambda: feed.is_ended, "it ended")
    assert "clip.mp4" in str(feed.problem)


def test_a_camera_that_is_away_is_looked_for_and_ends_no_process(namespace: str) -> None:
    spec = StreamSpec("away", "rtsp://me:S3CRET@127.0.0.1:9/cam")
    source = start_source(spec, 5.0, namespace, SETTINGS)
    told = report(source)
    assert told.state != "ended" or "S3CRET" not in str(told.problem)
    assert "S3CRET" not in repr(told)


# The host by itself, without Ray.


def indices(taken: Any) -> list[int]:
    return [frame.index for frame in taken.frames]


def test_an_answer_that_never_arrived_is_given_again() -> None:
    host = SourceHost(RECORDED, 10.0)
    first = indices(given := host.next_frames(None, 10))
    assert first and indices(host.next_frames(None, 10)) == first
    second = indices(host.next_frames(Place(given.incarnation, first[-1]), 10))
    assert second[0] == first[-1] + 1
    # A reader that has a part of what was given gets the rest of it.
    assert indices(host.next_frames(Place(given.incarnation, second[0]), 10))[0] == second[0] + 1
    host.close()


def test_what_waits_of_a_recording_comes_at_once_up_to_four_and_fewer_where_pictures_are_large(tmp_path: Path) -> None:
    for width, height, most in ((64, 48, 4), (1920, 1080, 2)):
        folder = tmp_path / str(most)
        folder.mkdir()
        for number in range(3 * most):
            Image.new("RGB", (width, height)).save(folder / f"{number:02d}.jpg")
        host = SourceHost(StreamSpec("s", str(folder)), 10.0)
        place, counts, seen = None, [], []
        while not (taken := host.next_frames(place, 10)).is_ended:
            counts.append(len(taken.frames))
            seen += indices(taken)
            place = Place(taken.incarnation, seen[-1])
            time.sleep(0.5)  # for the source to run ahead
        assert seen == list(range(3 * most)) and max(counts) == most
        host.close()


def test_a_host_that_starts_anew_skips_what_the_one_before_has_given() -> None:
    host = SourceHost(RECORDED, 10.0)
    taken = host.next_frames(Place(uuid.uuid4().hex, 30), 10)
    assert indices(taken)[0] == 31
    host.close()


def test_a_host_waits_no_longer_than_it_is_told_and_says_that_there_is_none() -> None:
    host = SourceHost(StreamSpec("slow", "synthetic://shapes?rate_hz=0.01&duration_s=900", as_live=True), 1.0)
    first = host.next_frames(None, 10)
    assert indices(first) == [0]
    began_s = time.monotonic()
    none = host.next_frames(Place(first.incarnation, 0), 0.3)
    assert not none.frames and not none.is_ended and time.monotonic() - began_s < 10
    host.close()
