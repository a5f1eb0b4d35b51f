"""Streams over worker processes on a real Ray: they run, they answer, and what dies is replaced."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from millpond.memory.depots import open_depot
from millpond.pipeline import Answer, EngineConfig, HistoryConfig, Question
from millpond.pipeline.cluster.names import SUPERVISOR, end_all, find_actor, source_name, worker_name
from millpond.pipeline.cluster.run import Cluster, ClusterError
from millpond.pipeline.hub_events import Ended, Narrated
from millpond.pipeline.stream_spec import StreamSpec

from .ray_cluster import (
    CONFIG,
    command,
    descendants,
    kill,
    live,
    report_of,
    running,
    running_ray,
    until_open,
    wait_until,
)
from .redis_server import running_redis

WHAT, LIST = Question("What shapes are there?"), Question("What appeared?")
FLUSHES = replace(CONFIG, history=HistoryConfig(flush_every_s=0.2))


@pytest.fixture(scope="module", autouse=True)
def ray_() -> Iterator[Any]:
    with running_ray():
        import ray

        yield ray


def processed(cluster: Cluster, stream_id: str) -> int:
    stats = cluster.stats().get(stream_id)
    return 0 if stats is None else stats.num_processed


def goes_on(cluster: Cluster, *stream_ids: str) -> None:
    """Each of them is seen to take new frames from now on."""
    before = {stream_id: processed(cluster, stream_id) for stream_id in stream_ids}
    for stream_id in stream_ids:
        # Fewer than before: another worker has begun anew.
        wait_until(
            lambda s=stream_id: processed(cluster, s) not in (0, before[s]), f"{stream_id} goes on: {cluster.overview}"
        )


def lines_in(memory: str, stream_id: str) -> int:
    with_depot = open_depot(memory, session=stream_id, read_only=True)
    try:
        return len(with_depot.numbers("line")) + len(with_depot.numbers("picture")) + len(with_depot.numbers("kv"))
    finally:
        with_depot.close()


def test_streams_run_are_asked_watched_added_and_removed() -> None:
    film = StreamSpec("film", "synthetic://shapes?seed=4&duration_s=6&rate_hz=5&width=160&height=120")
    with running(live("a", 1), live("b", 2), film, num_workers=2) as cluster:
        until_open(cluster, "a", "b", "film")
        homes = list(cluster.overview.homes.values())
        assert sorted(homes.count(worker_name(n)) for n in range(2)) == [1, 2]
        goes_on(cluster, "a", "b")
        answer = cluster.ask("a", WHAT)
        assert isinstance(answer, Answer) and answer.text and answer.used
        with ThreadPoolExecutor(6) as asking:
            answers = list(asking.map(lambda n: cluster.ask("ab"[n % 2], WHAT), range(6)))
        assert all(answer.text for answer in answers)

        told: list[Any] = []
        wait_until(lambda: told.extend(cluster.events(0.5)) or "film" in cluster.ended, "the film ended")
        told += cluster.events()
        assert cluster.ended == {"film": None} and not cluster.wait_until_ended(0)
        assert [event for event in told if isinstance(event, Ended)] == [Ended("film", None)]
        narrated = [event for event in told if isinstance(event, Narrated)]
        assert narrated and {event.stream_id for event in narrated} == {"film"}  # the others are not narrated
        spans = [event.narration.span for event in narrated]
        assert spans == sorted(set(spans))  # none is told twice
        whole = cluster.ask("film", LIST)
        assert whole.seen_until_s == pytest.approx(5.8)  # no frame of it was lost
        heard: list[str] = []
        assert cluster.ask("film", LIST, on_text=heard.append).text == whole.text == heard[-1]
        assert len(heard) > 1 and heard == sorted(set(heard), key=len)
        assert all(later.startswith(text) for text, later in pairwise(heard))

        with pytest.raises(ValueError, match="remembered") as refused:
            cluster.ask("a", Question("What was there?", since_s=10_000.0, until_s=20_000.0))
        assert "Traceback" not in str(refused.value)
        with pytest.raises(ValueError, match="remembered"):
            cluster.ask("a", Question("What was there?", since_s=10_000.0, until_s=20_000.0), on_text=heard.append)
        with pytest.raises(ValueError, match="already"):
            cluster.add(live("a"))
        cluster.add(live("c", 3))
        assert cluster.ask("c", WHAT).text
        cluster.remove("b")
        wait_until(lambda: "b" not in cluster.overview.homes, "b is let go")
        wait_until(lambda: "b" not in cluster.overview.sources, "nobody reads b")
        with pytest.raises(ValueError, match="no stream 'b'"):
            cluster.ask("b", WHAT)
        with pytest.raises(LookupError):
            find_actor(source_name("b"), cluster.namespace)
        assert cluster.overview.num_restarts == 0


def test_a_worker_killed_in_mid_answer_is_replaced_and_the_question_answered() -> None:
    with running(live("a"), live("b", 2), num_workers=2) as cluster:
        until_open(cluster, "a", "b")
        goes_on(cluster, "a", "b")
        home = cluster.overview.homes["a"]
        pid = report_of(cluster, home).pid
        os.kill(pid, signal.SIGSTOP)  # so that the question is with it for sure, and unanswered
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(cluster.ask("a", WHAT)), daemon=True)
        asking.start()
        time.sleep(1.0)
        assert not answers
        os.kill(pid, signal.SIGKILL)
        asking.join(60)
        assert answers and answers[0].text
        assert cluster.overview.homes["a"] != home  # the worker that lives took it
        goes_on(cluster, "a", "b")
        wait_until(lambda: set(cluster.overview.workers.values()) == {"running"}, "there are two workers again")
        assert report_of(cluster, home).pid != pid
        assert cluster.overview.num_restarts == 1


def test_what_was_told_of_an_answer_is_never_taken_back() -> None:
    """The worker dies when its first words are there; another, which has seen less, takes the stream."""
    heard: list[str] = []
    with running(live("a"), live("b", 2), num_workers=2) as cluster:
        until_open(cluster, "a", "b")
        goes_on(cluster, "a")
        home = cluster.overview.homes["a"]
        pid = report_of(cluster, home).pid

        def hear(text: str) -> None:
            if not heard:
                os.kill(pid, signal.SIGKILL)
            heard.append(text)

        try:
            answer = cluster.ask("a", LIST, on_text=hear)
        except ClusterError as error:
            assert "answers otherwise; ask again" in str(error)
        else:
            assert answer.text.startswith(heard[-1])
        assert heard and all(later.startswith(text) for text, later in pairwise(heard))
        wait_until(lambda: cluster.overview.homes.get("a", home) != home, "another worker took it")
        assert cluster.ask("a", WHAT).text


def test_where_the_only_worker_dies_for_good_a_question_fails_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # A worker may be started once a minute here: the second time it stays away for long.
    with running(live("a"), restarts_per_minute=1) as cluster:
        until_open(cluster, "a")
        kill(cluster, worker_name(0))
        with pytest.raises(ClusterError, match=r"stream 'a' gave no answer within 3 s: .*(died|no worker)"):
            cluster.ask("a", WHAT, timeout_s=3)
        wait_until(lambda: "worker 0 died" in caplog.text, "it is said in the program's own log")
        assert "keeps dying" in caplog.text


def test_a_source_that_is_killed_is_started_again_and_its_stream_goes_on() -> None:
    with running(live("a"), live("b", 2)) as cluster:
        until_open(cluster, "a", "b")
        goes_on(cluster, "a", "b")
        answered = cluster.ask("a", WHAT).seen_until_s
        pid = kill(cluster, source_name("a"))
        wait_until(lambda: cluster.overview.num_restarts == 1, "it was started again")
        wait_until(lambda: cluster.overview.sources.get("a") == "running", "it runs")
        assert report_of(cluster, source_name("a")).pid != pid
        goes_on(cluster, "a", "b")
        assert cluster.ask("a", WHAT).seen_until_s > answered  # the session is the same, and its time went on


def test_a_supervisor_that_is_killed_comes_back_and_finds_all_as_it_was() -> None:
    import ray

    with running(live("a"), live("b", 2), num_workers=2) as cluster:
        until_open(cluster, "a", "b")
        homes, before = cluster.overview.homes, cluster.overview.incarnation
        pids = {name: report_of(cluster, name).pid for name in (worker_name(0), worker_name(1), source_name("a"))}
        ray.kill(find_actor(SUPERVISOR, cluster.namespace), no_restart=False)
        assert cluster.ask("a", WHAT).text  # nobody needs it for that
        wait_until(lambda: cluster.overview.incarnation != before, "there is another")
        until_open(cluster, "a", "b")
        assert cluster.overview.homes == homes
        assert {name: report_of(cluster, name).pid for name in pids} == pids  # nothing was started again
        kill(cluster, worker_name(0))  # and it does its work
        wait_until(lambda: cluster.overview.num_restarts == 1, "it starts again what died")
        until_open(cluster, "a", "b")
        goes_on(cluster, "a", "b")


def test_a_supervisor_that_stood_still_for_longer_than_its_lease_ends_nothing() -> None:
    with running(live("a"), lease_s=2.0) as cluster:
        until_open(cluster, "a")
        before, worker = cluster.overview.incarnation, report_of(cluster, worker_name(0)).pid
        [supervisor] = [pid for pid in descendants() if command(pid).startswith("ray::Supervisor")]
        for _ in range(3):
            os.kill(supervisor, signal.SIGSTOP)
            time.sleep(3.0)
            os.kill(supervisor, signal.SIGCONT)
            time.sleep(0.5)
        assert cluster.ask("a", WHAT).text
        assert (cluster.overview.incarnation, report_of(cluster, worker_name(0)).pid) == (before, worker)


def test_a_program_that_comes_back_after_its_lease_starts_all_again() -> None:
    with running(live("a")) as cluster:
        until_open(cluster, "a")
        before = cluster.overview.incarnation
        assert end_all(cluster.namespace) == 3  # as the supervisor does when nobody asks for anything
        wait_until(lambda: cluster.overview.incarnation != before, "there is another supervisor")
        assert cluster.ask("a", WHAT, timeout_s=120).text
        goes_on(cluster, "a")


@pytest.mark.parametrize("kind", ["directory", "redis"])
def test_a_dead_workers_stream_goes_on_elsewhere_with_its_memory(kind: str, tmp_path: Path) -> None:
    redis_folder = tmp_path / "redis"
    redis_folder.mkdir()
    with running_redis(redis_folder) as server:
        memory = str(tmp_path / "kept") if kind == "directory" else server.url()
        spec = live("a", 1, memory=memory, narrate=True)
        with running(spec, num_workers=2, config=FLUSHES) as cluster:
            until_open(cluster, "a")
            first = cluster.ask("a", WHAT)
            wait_until(lambda: lines_in(memory, "a") >= 5, "some of it is at rest")
            home = cluster.overview.homes["a"]
            rested = lines_in(memory, "a")
            seen_until_s = cluster.ask("a", WHAT).seen_until_s
            kill(cluster, home)
            wait_until(lambda: cluster.overview.homes.get("a", home) != home, "another worker has it", 90)
            goes_on(cluster, "a")
            after = cluster.ask("a", WHAT)
            # Its time goes on from what was flushed, and did not begin again; nothing that was at rest is gone.
            assert after.seen_until_s > first.seen_until_s and after.seen_until_s > seen_until_s - 3.0
            assert lines_in(memory, "a") >= rested
            past = cluster.ask("a", Question("What was there?", since_s=0.0, until_s=first.seen_until_s))
            assert past.used and past.used[0].start_s <= first.seen_until_s


def test_a_model_that_is_not_there_is_said_and_not_tried_for_ever() -> None:
    config = EngineConfig(model="/nowhere/at/all", device="cpu")
    with running(live("a"), config=config) as cluster:
        with pytest.raises(ClusterError, match="/nowhere/at/all"):
            cluster.ask("a", WHAT, timeout_s=120)
        assert cluster.overview.num_restarts == 0


def test_a_memory_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    memory = str(tmp_path / "kept")
    holder = open_depot(memory, session="a")
    try:
        with running(live("a", memory=memory)) as cluster:
            wait_until(lambda: "a" in cluster.overview.problems, "it is said")
            assert "a" not in cluster.overview.homes
            holder.close()
            assert cluster.ask("a", WHAT).text
            until_open(cluster, "a")
            assert "a" not in cluster.overview.problems
    finally:
        holder.close()


def test_no_secret_of_a_source_is_told_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="millpond")
    spec = StreamSpec("cam", "rtsp://me:S3CRET@127.0.0.1:9/cam", memory=None)
    with running(spec, live("a")) as cluster:
        until_open(cluster, "cam", "a")
        goes_on(cluster, "a")  # a camera that is away keeps no other from running
        with pytest.raises((ClusterError, ValueError)) as refused:
            cluster.ask("cam", WHAT, timeout_s=2)
        shown = repr((cluster, cluster.overview, cluster.stats(), report_of(cluster, source_name("cam"))))
        assert "S3CRET" not in shown + str(refused.value) + caplog.text
