"""The parts of a cluster that need no Ray: the wheel, the rules of restarting and placing, what is told when."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.cluster.connect import connect
from millpond.pipeline.cluster.event_ring import EventRing
from millpond.pipeline.cluster.lease import Lease
from millpond.pipeline.cluster.reconcile import Steps, WorkerSight, next_steps
from millpond.pipeline.cluster.restarts import RestartLimit
from millpond.pipeline.cluster.settings import ClusterSettings
from millpond.pipeline.cluster.wheel import made_wheel

# The wheel.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_all_packages_and_their_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"millpond/stream/frame.py", "millpond/memory/depots/base.py", "millpond/pipeline/cluster/wheel.py"} <= names
    assert any(name.startswith("millpond/encoders/mini/") and name.endswith(".safetensors") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or name.startswith("tests")]


def test_the_wheels_record_is_true(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (record,) = [name for name in opened.namelist() if name.endswith(".dist-info/RECORD")]
        rows = [line.rsplit(",", 2) for line in opened.read(record).decode().splitlines()]
        assert {name for name, _, _ in rows} == set(opened.namelist())
        for name, digest, num_bytes in rows:
            if name != record:
                data = opened.read(name)
                told = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
                assert (told, int(num_bytes)) == (hashlib.sha256(data).digest(), len(data)), name
        metadata = opened.read(record.replace("RECORD", "METADATA")).decode()
    assert "Requires-Dist" not in metadata


def test_the_same_code_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again = made_wheel(tmp_path)
    assert again.name == wheel.name and again.read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_pip_installs_it_and_it_comes_before_the_checkout(wheel: Path, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--target", str(tmp_path / "there"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    look = "import millpond.stream, millpond.memory as m; print(millpond.stream.__file__, m.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", look], env={"PYTHONPATH": str(tmp_path / "there")}, capture_output=True, text=True
    )
    assert run.stdout.count(str(tmp_path / "there")) == 2, run.stdout + run.stderr


# Restarts.


def test_a_few_restarts_go_at_once_and_more_wait_longer_each_time() -> None:
    limit, now_s, waits = RestartLimit(3), 0.0, []
    for _ in range(8):
        now_s += limit.wait_s(now_s)
        waits.append(limit.wait_s(now_s))
        limit.started(now_s)
        now_s += 1.0
        waits[-1] = limit.wait_s(now_s)
    assert waits[:2] == [0.0, 0.0]
    assert waits[2:] == [59.0, 119.0, 239.0, 479.0, 599.0, 599.0]


@given(st.integers(1, 6), st.lists(st.floats(0.0, 200.0), max_size=60))
def test_never_more_than_so_many_in_a_minute(most: int, lives_s: list[float]) -> None:
    limit, now_s, starts = RestartLimit(most), 0.0, []
    for life_s in lives_s:
        now_s += limit.wait_s(now_s)
        limit.started(now_s)
        starts.append(now_s)
        now_s += life_s
    for begin_s in starts:
        assert sum(begin_s <= start_s < begin_s + 59.9 for start_s in starts) <= most + 1


def test_what_lives_long_begins_anew() -> None:
    limit = RestartLimit(2)
    limit.started(0.0)
    assert limit.started(1.0)
    limit.started(61.0)
    assert limit.wait_s(61.0) == 120.0
    assert not limit.started(10_000.0)
    assert limit.wait_s(10_000.0) == 0.0


# What a supervisor does next.

WORKERS = st.dictionaries(
    st.sampled_from(["w0", "w1", "w2"]),
    st.builds(
        WorkerSight,
        st.none() | st.frozensets(st.sampled_from("abcde"), max_size=3),
        st.frozensets(st.sampled_from("abcde"), max_size=1),
    ),
)


@given(st.dictionaries(st.sampled_from("abcde"), st.booleans()), st.frozensets(st.sampled_from("abcde")), WORKERS)
def test_steps_never_open_a_stream_twice(
    wanted: dict[str, bool], sources: frozenset[str], workers: dict[str, WorkerSight]
) -> None:
    steps = next_steps(wanted, sources, workers)
    carried = {s for one in workers.values() for s in (one.streams or frozenset()) | one.adding}
    unknown = any(one.streams is None for one in workers.values())
    assert len({s for s, _ in steps.add}) == len(steps.add)
    for stream_id, name in steps.add:
        assert stream_id in wanted and stream_id not in carried and not unknown and name in workers
    for stream_id, name in steps.remove:
        streams = workers[name].streams
        assert streams is not None and stream_id in streams
    for stream_id, has_memory in wanted.items():  # what would be forgotten is moved off no living worker
        heard = {name: one.streams | one.adding for name, one in workers.items() if one.streams is not None}
        at = [name for name, streams in heard.items() if stream_id in streams]
        if at and not has_memory:
            assert steps.homes[stream_id] in at
    assert set(steps.start_sources) == wanted.keys() - sources and set(steps.stop_sources) == sources - wanted.keys()


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.booleans(), min_size=1),
    st.lists(st.tuples(st.sampled_from(["die", "live"]), st.sampled_from(["w0", "w1", "w2"])), max_size=6),
)
def test_steps_come_to_an_end_with_every_stream_open_once(
    wanted: dict[str, bool], happenings: list[tuple[str, str]]
) -> None:
    workers: dict[str, set[str]] = {"w0": set(), "w1": set()}
    for what, name in [*happenings, ("live", "w0")]:
        if what == "die":
            workers.pop(name, None)
        else:
            workers.setdefault(name, set())
        for _ in range(2 * len(wanted) + 2):
            steps = _steps(wanted, workers)
            if not steps.add and not steps.remove:
                break
            for stream_id, at in steps.remove:
                workers[at].discard(stream_id)
            for stream_id, at in steps.add:
                workers[at].add(stream_id)
        else:
            pytest.fail(f"no end to it: {_steps(wanted, workers)}")
        if workers:
            assert sorted(s for streams in workers.values() for s in streams) == sorted(wanted)


def _steps(wanted: dict[str, bool], workers: dict[str, set[str]]) -> Steps:
    sights = {name: WorkerSight(frozenset(streams)) for name, streams in workers.items()}
    return next_steps(wanted, frozenset(wanted), sights)


# What is told when.


@given(st.integers(1, 5), st.lists(st.integers(0, 4), max_size=20))
def test_a_ring_tells_each_event_once_or_counts_it(capacity: int, bursts: list[int]) -> None:
    ring: EventRing[int] = EventRing(capacity)
    told: list[int] = []
    number = num_lost = num_put = 0
    for burst in bursts:
        for _ in range(burst):
            ring.put(num_put)
            num_put += 1
        heard = ring.since(number)
        told += heard.events
        number, num_lost = heard.last, num_lost + heard.num_lost
        assert len(heard.events) <= capacity
    assert told == sorted(set(told)) and len(told) + num_lost == num_put


def test_who_waits_for_an_event_is_woken_by_it() -> None:
    ring: EventRing[str] = EventRing()
    assert asyncio.run(ring.wait_since(0, 0.01)).events == ()
    threading.Timer(0.1, ring.put, ["now"]).start()
    began_s = time.monotonic()
    assert asyncio.run(ring.wait_since(0, 60)).events == ("now",)
    assert time.monotonic() - began_s < 30
    assert asyncio.run(ring.wait_since(0, 60)).last == 1


# How long what nobody asks for is kept.


def test_a_lease_is_over_when_nobody_renews_it_and_not_sooner() -> None:
    now_s = 100.0
    lease = Lease(2.0, 1.0, lambda: now_s)
    for _ in range(20):
        now_s += 0.5
        assert not lease.is_over()
        lease.renew()
    for _ in range(4):
        now_s += 0.5
        assert not lease.is_over()
    now_s += 0.5
    assert lease.is_over()
    lease.renew()
    assert not lease.is_over()


@given(waits_s=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=30))
def test_a_lease_counts_no_time_in_which_nobody_looked(waits_s: list[float]) -> None:
    now_s = 0.0
    lease = Lease(2.0, 1.0, lambda: now_s)
    for number, wait_s in enumerate(waits_s, 1):
        now_s += wait_s
        is_over = lease.is_over()
        assert not is_over or number > 2, "two looks are too few to say so"
        assert is_over or sum(min(one, 1.0) for one in waits_s[:number]) <= 2.0 + 1e-9


# What is refused.


@pytest.mark.parametrize(
    ("given_settings", "match"),
    [
        ({"num_workers": 0}, "at least 1"),
        ({"num_workers": True}, "whole number"),
        ({"worker_gpus": -1.0}, "0 or more"),
        ({"object_store_bytes": 1000}, "object_store_bytes"),
        ({"lease_s": float("inf")}, "finite"),
        ({"lease_s": 1.0}, "four looks"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given_settings: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ClusterSettings(**given_settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["", "here", "ray://host:10001", "http://host:1/", "me:secret@host:1", "host:"])
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give host:port"):
        connect(address, ClusterSettings())
