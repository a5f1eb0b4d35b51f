"""Sessions over a real Redis server: one process ingests, another answers, and the server comes and goes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millpond.encoders import VideoLLM, load_model
from millpond.memory.depots import DepotError, DepotTaken
from millpond.pipeline import Engine, EngineConfig, Session
from millpond.stream import Span

from .ingesting import NUM_LAYERS, frames_of
from .redis_server import RedisServer, running_redis
from .sessions_at import COUNT, FIRST, at_rest, check, push, settings, told, until

FRAMES, FRAMES_LATER = frames_of(11, 74)[:72], frames_of(11, 74)[72:]
PASSWORD = "hunter2secret"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path, keeps=True) as server:
        yield server


@contextmanager
def opened(
    model: VideoLLM, url: str, *, read_only: bool = False, config: EngineConfig | None = None
) -> Iterator[Session]:
    # Who writes holds the cap; who reads has room for all that is there.
    config = config or (settings(memory={"budget_bytes": 2**22}) if read_only else settings())
    with Engine(config, model=model) as engine:
        yield engine.session("cam", at=url, read_only=read_only)


def spans(session: Session) -> list[Span]:
    return [*session.memory.older.values(), *(block.span for block in session.memory.recent)]


def follow(session: Session) -> list[Span]:
    session.refresh()
    return spans(session)


class Child:
    """A process that ingests."""

    def __init__(self, where: str, errors: Path) -> None:
        self._errors = errors
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ingesting.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
            bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._line() == "ready" and self._parent.stdin is not None
        self._parent.stdin.write(f"{where} 0.01 live_vlm\n")
        self.pid = int(self._line().removeprefix("child "))
        assert self._line() == "open", errors.read_text()

    def wait_for(self, num_pushed: int) -> int:
        """Until it has pushed so many; how many it says are at rest then."""
        at_rest = 0
        while True:
            word, _, number = self._line().partition(" ")
            at_rest = int(number) if word == "rest" else at_rest
            if word == "done" or (word == "pushed" and int(number) >= num_pushed):
                return at_rest

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        while self._line() != "gone":
            pass

    def close(self) -> None:
        if self._parent.poll() is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._parent.kill()
        self._parent.wait()

    def _line(self) -> str:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, self._errors.read_text()
        return line.strip()


@contextmanager
def ingesting_into(url: str, folder: Path) -> Iterator[Child]:
    child = Child(url, folder / "errors")
    try:
        yield child
    finally:
        child.close()


def check_as_twin(model: VideoLLM, session: Session, number: int) -> None:
    """Another session that has pushed so many frames recalls the same."""
    with Engine(settings(), model=model) as engine:
        twin = engine.session("twin")
        push(twin, frames_of(11)[:number])
        engine.read_pending()
        assert spans(session) == spans(twin)
        for question in (FIRST, COUNT):
            assert told(session.ask(question, until_s=number - 1.0)) == told(twin.ask(question, until_s=number - 1.0))


def test_one_process_ingests_and_another_answers(model: VideoLLM, server: RedisServer, tmp_path: Path) -> None:
    with ingesting_into(server.url(), tmp_path) as child:
        child.wait_for(20)
        with opened(model, server.url(), read_only=True) as reader:
            seen_s: list[float] = []
            for number in (40, 70, 100):
                child.wait_for(number)
                assert reader.ask(COUNT).text
                check(reader)
                seen_s.append(reader.seen_until_s or -1.0)
            assert seen_s[0] < seen_s[1] < seen_s[2]
            until(lambda: bool(follow(reader)) and spans(reader)[-1].end_s >= 99.0, "what came since")
            starts_s = [span.start_s for span in spans(reader)]
            assert starts_s == [starts_s[0] + i for i in range(len(starts_s))]  # no gap
            assert reader.history.log.search("passed", 3)
            with pytest.raises(ValueError, match="read_only=True"):
                reader.push(FRAMES[0])


def test_writer_and_reader_recall_the_same(model: VideoLLM, server: RedisServer) -> None:
    with opened(model, server.url()) as writer, opened(model, server.url(), read_only=True) as reader:
        with pytest.raises(ValueError, match="push a frame before asking"):
            reader.ask(FIRST)
        for first in (0, 24, 48):
            push(writer, FRAMES[first : first + 24])
            writer.history.note(f"the zebra number {first} crosses", Span(first + 1.0, first + 2.0))
            at_rest(writer)
            for question in (FIRST, COUNT, "When did the zebra cross?"):
                assert told(reader.ask(question)) == told(writer.ask(question))
            assert spans(reader) == spans(writer) and reader.seen_until_s == first + 23.0
            assert len(reader.history.log.search("zebra", 9)) == first // 24 + 1
            check(reader)
            check(writer)


def test_lines_of_several_lives_are_all_there_and_under_their_cap(model: VideoLLM, server: RedisServer) -> None:
    for life in range(3):
        with opened(model, server.url()) as writer:
            writer.history.note(f"the zebra of life {life}", Span(float(life), life + 1.0))
            at_rest(writer)
            assert len(writer.history.log.search("zebra", 9)) == life + 1
    config = settings(log_bytes=2**20)
    with opened(model, server.url(), config=config) as writer:
        for number in range(700):
            writer.history.note("words " * 300 + str(number), Span(float(number), number + 1.0))
            if number % 100 == 0:
                at_rest(writer)
        at_rest(writer)
        at_rest(writer)
        assert 0 < writer.history._depot.num_bytes("line") <= 2**20
        assert "699" in writer.history.log.lines()[-1].text
    with opened(model, server.url(), read_only=True, config=config) as reader:
        assert "699" in reader.history.log.lines()[-1].text


def test_the_server_goes_and_comes_back_and_nothing_is_lost(
    model: VideoLLM, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(model, server.url()) as writer, opened(model, server.url(), read_only=True) as reader:
        push(writer, FRAMES[:20])
        at_rest(writer)
        before = told(reader.ask(FIRST))
        server.stop()
        push(writer, FRAMES[20:50])
        writer.history.note("the zebra crosses", Span(30.0, 31.0))
        writer.flush()
        assert writer.ask(COUNT).text and writer.ask(FIRST, until_s=10.0).used
        assert told(reader.ask(FIRST)) == before and reader.history.is_behind
        assert reader.ask(FIRST, until_s=10.0).used
        until(lambda: stats(writer).is_down, "nobody noticed")
        server.start()
        until(lambda: not stats(writer).is_down and not stats(writer).num_waiting, "it does not come back")
        push(writer, FRAMES[50:])
        at_rest(writer)
        assert stats(writer).num_dropped == stats(writer).num_failed == 0
        until(lambda: follow(reader) == spans(writer), "the reader stays behind")
        assert not reader.history.is_behind
        assert told(reader.ask(COUNT)) == told(writer.ask(COUNT))
        assert reader.history.log.search("zebra", 1)
        assert writer.history._writer is not None
        writer.history._writer.check()
        writer.history._depot.check()
        check(writer)
        known = spans(writer)
    downs = [r.message for r in caplog.records if "nothing is archived" in r.message]
    assert len(downs) == 1, downs
    with opened(model, server.url()) as again:
        assert spans(again) == known and again.seen_until_s == 71.0


def test_what_finds_no_room_while_the_server_is_away_is_counted(model: VideoLLM, server: RedisServer) -> None:
    with opened(model, server.url(), config=settings(queue_bytes=200_000)) as writer:
        push(writer, FRAMES[:12])
        at_rest(writer)
        server.stop()
        push(writer, FRAMES[12:])
        assert stats(writer).waiting_bytes <= 200_000 and stats(writer).num_dropped > 0
        server.start()
        until(lambda: not stats(writer).is_down and not stats(writer).num_waiting, "it does not come back")
        at_rest(writer)
        counts = stats(writer)
        ended = counts.num_written + counts.num_dropped + counts.num_failed + counts.num_superseded
        assert counts.num_submitted == ended
        push(writer, FRAMES_LATER)
        at_rest(writer)  # drops that found no room are made up for
        known = set(spans(writer))
    with opened(model, server.url()) as again:
        assert set(spans(again)) <= known and again.seen_until_s == 73.0
        assert again.ask(COUNT).text
        check(again)


def test_a_server_that_hangs_holds_up_no_frame(model: VideoLLM, server: RedisServer) -> None:
    with opened(model, server.url()) as writer, opened(model, server.url(), read_only=True) as reader:
        push(writer, FRAMES[:20])
        at_rest(writer)
        expected = told(reader.ask(FIRST))
        server.freeze()
        try:
            longest_s = 0.0
            for frame in FRAMES[20:60]:
                began_s = time.monotonic()
                writer.push(frame)
                longest_s = max(longest_s, time.monotonic() - began_s)
            assert longest_s < 1.0  # a frame period
            assert told(reader.ask(FIRST)) == expected and reader.history.is_behind
            assert writer.ask(FIRST, until_s=20.0).text
        finally:
            server.thaw()
        until(lambda: not stats(writer).is_down and not stats(writer).num_waiting, "it does not come back")
        at_rest(writer)
        until(lambda: follow(reader) == spans(writer), "the reader stays behind")


def test_the_command_line_says_so_in_a_line(server: RedisServer) -> None:
    server.stop()
    command = [sys.executable, "-c", "from millpond.pipeline.cli import main; main()", "recall"]
    said = subprocess.run([*command, server.url(f"ann:{PASSWORD}")], capture_output=True, text=True)
    (line,) = [line for line in said.stderr.splitlines() if "cannot be reached" in line]
    assert said.returncode == 2 and line.startswith("millpond: ")
    assert "Traceback" not in said.stderr and PASSWORD not in said.stderr + said.stdout


@pytest.mark.parametrize("read_only", [False, True])
def test_opening_while_the_server_is_away_says_so(model: VideoLLM, server: RedisServer, read_only: bool) -> None:
    url = server.url(f"ann:{PASSWORD}")
    server.stop()
    with Engine(settings(), model=model) as engine:
        with pytest.raises(DepotError, match=f"127.0.0.1:{server.port}.* cannot be reached") as refused:
            engine.session("cam", at=url, read_only=read_only)
        assert PASSWORD not in str(refused.value) and engine.sessions == ()
        server.start()
        engine.session("cam", at=server.url(), read_only=read_only)


def test_a_server_that_evicts_leaves_gaps_and_raises_nothing(
    model: VideoLLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(memory={"budget_bytes": 4 * 2**20, "codec": "plain"})
    with running_redis(tmp_path, "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru") as server:
        with server.client() as client:
            base_mb = int(client.info("memory")["used_memory"]) / 2**20
            client.config_set("maxmemory", f"{int(base_mb * 2**20) + 1_200_000}")
        with (
            opened(model, server.url(), config=config) as writer,
            opened(model, server.url(), read_only=True, config=config) as reader,
        ):
            for first in range(0, 72, 8):
                push(writer, FRAMES[first : first + 8])
                writer.history.note(f"the zebra number {first} crosses", Span(first + 1.0, first + 2.0))
                writer.flush()
                assert writer.ask(COUNT).text
                reader.refresh()
                if reader.seen_until_s is not None:
                    assert reader.ask(COUNT).text and reader.ask("Did a red zebra appear first?").text
            until(lambda: stats(writer).num_waiting == 0 or stats(writer).is_down, "it still writes")
            with server.client() as client:
                assert int(client.info("stats")["evicted_keys"]) > 0
            assert not any("damaged" in notice for notice in reader.history.notices)
            assert set(spans(reader)) < set(spans(writer))  # who writes has its own, whatever the server does
            check(writer)
            check(reader)
        with opened(model, server.url(), config=config) as again:
            assert set(spans(again)) <= {Span(frame.pts_s, frame.pts_s) for frame in FRAMES}
            push(again, FRAMES[:8])
            assert again.ask(COUNT).text
            check(again)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_pictures_that_the_server_let_go_are_counted(model: VideoLLM, server: RedisServer) -> None:
    config = settings(memory={"budget_bytes": 12_000 * NUM_LAYERS})
    with (
        opened(model, server.url(), config=config) as writer,
        opened(model, server.url(), read_only=True, config=config) as reader,
    ):
        push(writer, FRAMES)
        at_rest(writer)
        reader.refresh()
        with server.client() as client:  # as an eviction would: the values, and no entry of a set
            gone = [key for key in client.scan_iter("millpond:cam:picture:*") if int(key.rpartition(b":")[2]) % 2]
            assert gone and client.delete(*gone)
        for session in (writer, reader):
            asked = session._engine.model.question(FIRST)
            recall = session._recalling.recall(FIRST, asked, session.context(), Span(0.0, 23.0))
            assert recall.num_missed == config.history.num_reads and recall.blocks == ()
            assert session.ask(FIRST).text


def test_a_second_writer_is_refused_and_the_first_goes_on(model: VideoLLM, server: RedisServer, tmp_path: Path) -> None:
    with ingesting_into(server.url(), tmp_path) as child:
        child.wait_for(10)
        with Engine(settings(), model=model) as engine:
            with pytest.raises(DepotTaken, match=f"pid {child.pid}"):
                engine.session("cam", at=server.url())
            engine.session("other", at=server.url())
            assert engine.session("cam", at=server.url(), read_only=True).ask(COUNT).text
        child.wait_for(40)


@pytest.mark.parametrize("num_pushed", [7, 28])
def test_a_session_goes_on_after_its_writer_was_killed(
    model: VideoLLM, server: RedisServer, tmp_path: Path, num_pushed: int
) -> None:
    with ingesting_into(server.url(), tmp_path) as child:
        num_at_rest = child.wait_for(num_pushed)
        child.kill()
        with opened(model, server.url()) as session:
            num_known = int(spans(session)[-1].end_s) + 1
            assert num_known >= max(num_at_rest, 1)
            check_as_twin(model, session, num_known)
            push(session, FRAMES[:8])
            assert session.seen_until_s is not None and session.seen_until_s >= num_known + 7.0
            check(session)


def test_the_password_is_never_told(
    model: VideoLLM, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with running_redis(tmp_path, "--requirepass", PASSWORD) as server:
        said: list[str] = []
        for url in (server.url(f":{PASSWORD[:-1]}"), server.url()):
            with Engine(settings(), model=model) as engine, pytest.raises(DepotError) as refused:
                engine.session("cam", at=url)
            said.append(str(refused.value))
        with opened(model, server.url(f":{PASSWORD}")) as writer:
            push(writer, FRAMES[:8])
            at_rest(writer)
            server.stop()
            push(writer, FRAMES[8:20])
            until(lambda: stats(writer).is_down, "nobody noticed")
            history = writer.history
            said += [repr(writer), repr(history._depot), repr(history._writer), str(stats(writer)), str(history.kept)]
            with Engine(settings(), model=model) as engine, pytest.raises(DepotError) as refused:
                engine.session("cam", at=server.url(f":{PASSWORD}"), read_only=True)
            said.append(str(refused.value))
    said += [record.getMessage() for record in caplog.records]
    said += [*capfd.readouterr()]
    assert not [words for words in said if PASSWORD[:-1] in words]


def stats(session: Session):  # type: ignore[no-untyped-def]
    stats = session.history.writer_stats
    assert stats is not None
    return stats
