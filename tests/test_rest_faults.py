"""What a session finds where another has been: another model's work, damage, no room, no directory."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from millpond.encoders import VideoLLM, load_model
from millpond.pipeline import Engine, Session
from millpond.stream import Span

from .ingesting import frames_of
from .sessions_at import COUNT, FIRST, at_rest, check, push, settings, told, until

FRAMES = frames_of(11, 72)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


@pytest.fixture(scope="module")
def other() -> VideoLLM:
    """The same model after a little more training: its shapes are the same, and its keys mean something else."""
    model = load_model("millpond/mini")
    with torch.no_grad():
        for parameter in model.model.parameters():  # type: ignore[attr-defined]
            parameter.mul_(1.01)
    return model


def spans(session: Session) -> list[Span]:
    return [*session.memory.older.values(), *(block.span for block in session.memory.recent)]


def written(model: VideoLLM, where: Path, num_frames: int = 40) -> list[Span]:
    """A session that was here; what it knew."""
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=where)
        push(session, FRAMES[:num_frames])
        session.history.note("a red circle came by", Span(3.0, 4.0))
        at_rest(session)
        return spans(session)


def test_another_model_uses_pictures_and_text_and_not_keys(model: VideoLLM, other: VideoLLM, tmp_path: Path) -> None:
    known = written(model, tmp_path / "cam")
    with Engine(settings(), model=other) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        (notice,) = [n for n in session.history.notices if "another model" in n]
        assert "pictures and text" in notice and str(tmp_path) in notice
        assert spans(session) == [] and session.seen_until_s == 39.0
        assert session.history.log.search("circle", 1) and session.history.archive.num_keyframes
        used = session.ask(FIRST, until_s=10.0).used
        assert used and used[0].start_s <= 10.0
        check(session)
    with Engine(settings(), model=model) as engine:  # nothing was written by the other: all is there
        assert spans(engine.session("cam", at=tmp_path / "cam", read_only=True)) == known


def test_the_keys_of_another_model_go_when_this_one_has_its_own(
    model: VideoLLM, other: VideoLLM, tmp_path: Path
) -> None:
    written(model, tmp_path / "cam")
    for _ in range(2):  # and it finds its own again
        with Engine(settings(), model=other) as engine:
            session = engine.session("cam", at=tmp_path / "cam")
            push(session, FRAMES[:8])
            at_rest(session)
            known = spans(session)
            check(session)
    assert [span.end_s for span in known] == [float(t) for t in range(40, 56)]
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam", read_only=True)
        assert spans(session) == [] and any("another model" in notice for notice in session.history.notices)


def test_keys_of_two_models_are_told_apart_one_by_one(model: VideoLLM, other: VideoLLM, tmp_path: Path) -> None:
    """As after a kill between the first block of a model and the last drop of the model before."""
    written(model, tmp_path / "a")
    written(other, tmp_path / "b", 8)
    with Engine(settings(), model=other) as engine:
        known = spans(engine.session("cam", at=tmp_path / "b"))
    taken = {path.name for path in (tmp_path / "a" / "kv").iterdir()}
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "a")
        writer = session.history._writer
        assert writer is not None and taken
        mine = spans(session)
        foreign = engine.session("b", at=tmp_path / "b", read_only=True).history._depot
        for number in foreign.numbers("kv"):
            data = foreign.get("kv", number)
            writer.submit("kv", 10**6 + number, lambda data=data: data, num_bytes=len(data or b""))
        at_rest(session)
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "a")
        assert spans(session) == mine and len(known) == 8
        assert any("another model" in notice for notice in session.history.notices)


def test_blocks_of_another_codec_are_refused_and_replaced(model: VideoLLM, tmp_path: Path) -> None:
    written(model, tmp_path / "cam")
    for push_first in (True, False):
        with Engine(settings(memory={"codec": "int8"}), model=model) as engine:
            session = engine.session("cam", at=tmp_path / "cam")
            if push_first:
                assert any("not used" in notice for notice in session.history.notices)
                push(session, FRAMES[:12])
                at_rest(session)
                known = spans(session)
            else:
                assert spans(session) == known and not session.history.notices
            check(session)


def segments(where: Path, kind: str) -> list[Path]:
    return sorted((where / kind).glob("*.seg"))


def test_a_torn_segment_is_told_of_and_the_rest_is_kept(model: VideoLLM, tmp_path: Path) -> None:
    known = written(model, tmp_path / "cam")
    last = segments(tmp_path / "cam", "kv")[-1]
    os.truncate(last, last.stat().st_size - 100)
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        assert any("half a record" in notice for notice in session.history.notices)
        assert session.history.kept.notices == session.history.notices
        left = spans(session)
        # A block is written as it arrives and again as it is packed: what is torn may be there in its first form.
        assert len(known) - 2 <= len(left) <= len(known) and set(left) <= set(known)
        push(session, FRAMES[:4])
        assert session.seen_until_s == 43.0 and session.ask(COUNT).text
        check(session)


@pytest.mark.parametrize("kind", ["kv", "picture", "state"])
def test_a_damaged_segment_is_told_of_and_the_rest_is_kept(model: VideoLLM, tmp_path: Path, kind: str) -> None:
    known = written(model, tmp_path / "cam")
    for path in segments(tmp_path / "cam", kind):
        data = bytearray(path.read_bytes())
        for place in range(200 if kind != "state" else 80, len(data), 20_000):
            data[place] ^= 0xFF
        path.write_bytes(data)
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        assert any("damaged" in notice or "half a record" in notice for notice in session.history.notices)
        left = spans(session)
        assert set(left) <= set(known) and (left == known or kind == "kv") and left
        assert session.history.archive.num_keyframes
        assert session.seen_until_s == 39.0
        assert session.ask(FIRST, until_s=20.0).text
        push(session, FRAMES[:4])
        check(session)


def test_a_damaged_log_is_told_of_and_begun_anew(model: VideoLLM, tmp_path: Path) -> None:
    known = written(model, tmp_path / "cam")
    (tmp_path / "cam" / "log.sqlite").write_bytes(b"SQLite format 3\0" + bytes(8000))
    with Engine(settings(), model=model) as engine:
        reader = engine.session("cam", at=tmp_path / "cam", read_only=True)
        assert reader.history.log.search("circle", 1) == [] and reader.ask(FIRST).text
        assert not (tmp_path / "cam" / "log.sqlite.bad").exists()  # who only reads sets nothing aside
        reader.close()
        session = engine.session("cam", at=tmp_path / "cam")
        assert any("log was damaged" in notice for notice in session.history.notices)
        assert spans(session) == known
        session.history.note("a blue square", Span(40.0, 41.0))
        assert session.history.log.search("square", 1)
        check(session)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    options = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(where)]
    if not mounted or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def fill(file: Path) -> None:
    """Takes all room that is left."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(fd, bytes(4096))
    os.close(fd)


def test_a_full_disk_stops_archiving_once_and_never_the_stream(
    model: VideoLLM, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    filler = small_disk / "filler"
    # Nothing is evicted: what is dropped makes room on the disk, and for that long it would not be full.
    roomy = settings(memory={"budget_bytes": 8_000_000})
    with Engine(roomy, model=model) as engine, Engine(roomy, model=model) as beside:
        session, twin = engine.session("cam", at=small_disk / "cam"), beside.session("twin")
        for frames in (FRAMES[:12], FRAMES[12:36], FRAMES[36:]):
            push(session, frames)
            push(twin, frames)
            assert told(session.ask(COUNT)) == told(twin.ask(COUNT))
            if frames is not FRAMES[36:]:
                session.history.note("a red circle came by", Span(3.0, 4.0))
            session.flush()
            if not filler.exists():
                at_rest(session)
                fill(filler)
        # It tries again by and by: between two tries it is down.
        until(lambda: (s := session.history.writer_stats) is not None and s.is_down, "the disk is full")
        stats = session.history.writer_stats
        assert stats is not None and "No space" in stats.last_error
        (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
        assert "nothing is archived until that is over" in warning
        filler.unlink()
        until(lambda: not (s := session.history.writer_stats).is_down and not s.num_waiting, "it does not come back")  # type: ignore[union-attr]
        session.flush()
        at_rest(session)
        known = spans(session)
        check(session)
    with Engine(roomy, model=model) as engine:
        session = engine.session("cam", at=small_disk / "cam")
        assert spans(session) == known and session.seen_until_s == 71.0
        assert session.history.log.search("circle", 9)
        check(session)


def test_a_session_closes_on_a_full_disk(model: VideoLLM, small_disk: Path) -> None:
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=small_disk / "cam")
        push(session, FRAMES[:8])
        at_rest(session)
        fill(small_disk / "filler")
        push(session, FRAMES[8:40])
        session.history.note("a red circle came by", Span(3.0, 4.0))
    (small_disk / "filler").unlink()
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=small_disk / "cam")
        assert len(spans(session)) >= 4 and session.ask(FIRST).text
        check(session)


def test_a_disk_that_is_read_only_may_be_read(model: VideoLLM, small_disk: Path) -> None:
    known = written(model, small_disk / "cam", 24)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Engine(settings(), model=model) as engine:
        with pytest.raises(OSError, match="cannot open the depot"):
            engine.session("cam", at=small_disk / "cam")
        session = engine.session("cam", at=small_disk / "cam", read_only=True)
        assert spans(session) == known and session.ask(FIRST).text
        assert session.history.log.search("circle", 1)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_place_that_holds_no_session_is_refused_in_a_sentence(
    model: VideoLLM, tmp_path: Path, read_only: bool
) -> None:
    file, folder, newer = tmp_path / "file", tmp_path / "folder", tmp_path / "newer"
    file.write_text("words")
    folder.mkdir()
    (folder / "thesis.txt").write_text("words")
    newer.mkdir()
    (newer / "millpond.json").write_text('{"format": "millpond depot", "version": 2}')
    with Engine(settings(), model=model) as engine:
        for where, sentence in (
            (file, "a depot is a folder; got"),
            (folder, "it is no depot; name an empty folder"),
            (newer, "has version 2 of the format, and 1 is read here; open it with the millpond that made it"),
        ):
            with pytest.raises(ValueError, match=sentence):
                engine.session("cam", at=where, read_only=read_only)
        if read_only:
            with pytest.raises(ValueError, match="there is no depot at"):
                engine.session("cam", at=tmp_path / "nothing", read_only=True)
        assert engine.sessions == () and (folder / "thesis.txt").read_text() == "words"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "newer"]


def test_a_session_that_cannot_open_leaves_nothing_locked(model: VideoLLM, tmp_path: Path) -> None:
    written(model, tmp_path / "cam", 8)
    log = tmp_path / "cam" / "log.sqlite"
    whole = log.read_bytes()
    log.write_bytes(whole[:60] + (99).to_bytes(4, "big") + whole[64:])  # user_version
    with Engine(settings(), model=model) as engine:
        with pytest.raises(ValueError, match="log of version 99"):
            engine.session("cam", at=tmp_path / "cam")
        log.write_bytes(whole)
        assert len(spans(engine.session("cam", at=tmp_path / "cam"))) == 8


def test_a_slow_disk_holds_up_no_frame(model: VideoLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(settings(queue_bytes=150_000), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        put = session.history._depot.put
        monkeypatch.setattr(session.history._depot, "put", lambda *given: (time.sleep(0.2), put(*given)))
        longest_s = 0.0
        for frame in FRAMES[:30]:
            began_s = time.monotonic()
            session.push(frame)
            longest_s = max(longest_s, time.monotonic() - began_s)
        stats = session.history.writer_stats
        assert stats is not None and stats.num_dropped > 0
        assert longest_s < 1.0  # a frame period
        monkeypatch.undo()
        assert session.ask(COUNT).text
