"""The plan of a batch: what is meant, what is the same, what is broken, and where videos are cut."""

from __future__ import annotations

import logging
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.batch.plan import Video, find, plan

from .clips import cut, make_clip, make_sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("videos")
    make_clip(made / "a.mp4", 50)
    make_clip(made / "b.mkv", 30)
    (made / "deep").mkdir()
    shutil.copy(made / "a.mp4", made / "deep" / "again.MP4")
    (made / "notes.md").write_text("no video")
    return made


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


def test_files_folders_patterns_and_lists(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(find([folder])) == ["a.mp4", "b.mkv", "again.MP4"]
    assert names(find([folder / "*.m*"])) == ["a.mp4", "b.mkv", "notes.md"]
    assert names(find([folder / "**" / "*.MP4"])) == ["again.MP4"]
    assert names(find([folder / "b.mkv", folder / "a.mp4", folder / "b.mkv"])) == ["b.mkv", "a.mp4"]
    assert find([(folder / "a.mp4").as_uri()]) == [str(folder / "a.mp4")]
    listed = tmp_path / "list.txt"
    listed.write_text(f"# two\n{folder}/b.mkv\n\n  a.mp4 \n{folder}/deep\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert find([listed]) == [str(folder / "b.mkv"), str(folder / "a.mp4"), str(folder / "deep" / "again.MP4")]


def test_a_file_whose_name_is_a_pattern_is_a_file(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.mp4", tmp_path / "a[1].mp4")
    assert names(find([tmp_path / "a[1].mp4"])) == ["a[1].mp4"]


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ([], "there is no video in what was given; got nothing"),
        (["/nowhere/*.mp4"], "there is no video"),
        (["rtsp://me:secret@camera/1"], "takes recordings in files; got rtsp://"),
    ],
)
def test_nothing_to_do_is_refused(given_: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        find(given_)
    assert "secret" not in str(caught.value)


def test_lists_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no path; write one a line"):
        find([tmp_path / "empty.txt"])
    (tmp_path / "video.txt").write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(ValueError, match="is no text; got a zero byte"):
        find([tmp_path / "video.txt"])


def test_what_is_the_same_is_done_once(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    made = plan([folder], chunk_s=120, on_look=lambda n, of: seen.append((n, of)))
    assert [video.name for video in made.videos] == ["a.mp4", "b.mkv"] and not made.broken
    assert names(list(made.videos[0].also)) == ["again.MP4"] and not made.videos[1].also
    assert seen == [(1, 3), (2, 3), (3, 3)]
    first = made.videos[0]
    assert first.folder == f"a-{first.content[:8]}" and first.length_s == pytest.approx(2.0)
    assert first.is_as_planned()


def test_what_is_broken_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.mp4", tmp_path / "a.mp4")
    bad = [
        cut(tmp_path / "a.mp4", 0.4),
        make_sound(tmp_path / "sound.mp4"),
        tmp_path / "missing.mp4",
        folder / "notes.md",
        tmp_path / "empty.mp4",
    ]
    bad[-1].touch()
    made = plan([*bad, folder / "b.mkv"], chunk_s=120)
    assert [video.name for video in made.videos] == ["b.mkv"]
    assert [Path(one.path).name for one in made.broken] == [path.name for path in bad]
    words = ["cut off or damaged", "no video in it, only audio", "no file or folder", "is not a video", "is empty"]
    for one, word in zip(made.broken, words, strict=True):
        assert word in one.reason and "\n" not in one.reason


def test_times_that_run_too_far_are_a_damaged_file(folder: Path) -> None:
    made = plan([folder / "a.mp4"], chunk_s=120)
    assert made.videos
    far = make_clip(folder.parent / "far.mkv", ticks=[0, 512, 12800 * 2_000_000])
    (broken,) = plan([far], chunk_s=120).broken
    assert "more than 10000 chunks of 120 s" in broken.reason


def test_a_known_hash_is_not_computed_again(folder: Path) -> None:
    path = str(folder / "a.mp4")
    facts = os.stat(path)
    hashes = {(path, facts.st_size, facts.st_mtime): "ab" * 32}
    (video,) = plan([path], chunk_s=120, hashes=hashes, folders={"ab" * 32: "before-abababab"}).videos
    assert video.content == "ab" * 32 and video.folder == "before-abababab"
    (video,) = plan([path], chunk_s=120, hashes={(path, facts.st_size + 1, facts.st_mtime): "ab" * 32}).videos
    assert video.content != "ab" * 32


def test_a_file_without_times_is_one_chunk(tmp_path: Path) -> None:
    raw = make_clip(tmp_path / "raw.avi", 50, num_b_frames=2)
    (video,) = plan([raw], chunk_s=1).videos
    assert video.in_order and len(video.stretches(1)) == 1


@pytest.mark.parametrize(
    "name", ["..", "...mp4", "-x.mp4", "a/../b.mp4", "Ünï cödé 圆.mp4", "x" * 200 + ".mp4", "$(rm).mp4"]
)
def test_folders_have_names_of_their_own(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / Path(name).name
    if path.name in ("..", ""):
        path = tmp_path / "...."
    shutil.copy(folder / "a.mp4", path)
    (video,) = plan([path], chunk_s=120).videos
    assert Path(video.folder).name == video.folder and not video.folder.startswith((".", "-"))
    assert len(os.fsencode(video.folder)) < 255 and "$" not in video.folder


def test_pattern_without_a_match_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        find([folder / "a.mp4", folder / "*.webm"])
    assert "nothing matches" in caplog.text


@given(st.floats(0, 10_000), st.integers(1, 400))
def test_stretches_cover_a_video(length_s: float, chunk_s: int) -> None:
    spans = Video("/v.mp4", "ab" * 32, 1, 1, length_s, False, "v-abababab").stretches(chunk_s)
    assert spans[0].start_s == 0 and spans[-1].end_s == length_s
    assert all(one.end_s == following.start_s == round(one.end_s) for one, following in pairwise(spans))
    assert all(span.end_s - span.start_s == chunk_s for span in spans[:-1])
    if len(spans) > 1:
        assert 0.5 * chunk_s <= spans[-1].end_s - spans[-1].start_s <= 1.5 * chunk_s
