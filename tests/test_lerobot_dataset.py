"""LeRobot datasets as sources: both layouts, pictures with their rows, and what is missing, damaged or hostile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond.stream import RateSampler, SourceError, open_source
from millpond.stream.robot_log import RobotFrame

from .clips import RATE_HZ, number_of, scratch
from .robot_logs import CAMERA_KEY, STATE_NAMES, write_v2, write_v3

pytest.importorskip("pyarrow")

Writer = Callable[..., Path]
LENGTHS = (20, 60, 30)


@pytest.fixture(scope="module", params=[write_v2, write_v3], ids=["v2.1", "v3.0"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A dataset of three episodes, and at which number the pictures of each begin: in v2.1 each at 0."""
    made: Path = request.param(tmp_path_factory.mktemp("sets") / "arm", LENGTHS)
    return made, int(request.param is write_v3)


def of(uri: object, **options: Any) -> list[RobotFrame]:
    with open_source(uri, **options) as source:  # type: ignore[arg-type]
        return list(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_an_episode_has_its_own_pictures_and_rows(dataset: tuple[Path, int], episode: int) -> None:
    folder, is_joined = dataset
    with open_source(f"lerobot://{folder}?episode={episode}&camera={CAMERA_KEY}") as source:
        frames: list[Any] = list(source)
        assert source.stream_id == f"arm/{episode}/{CAMERA_KEY}" and source.tasks == (f"task {episode}",)  # type: ignore[attr-defined]
        assert source.duration_s == pytest.approx(LENGTHS[episode] / RATE_HZ)
        assert source.state_names == STATE_NAMES and source.action_names == ("a", "b")  # type: ignore[attr-defined]
        assert source.stats.num_gaps == source.stats.num_damaged == 0
        assert source.stats.num_frames == LENGTHS[episode]
    begin = is_joined * sum(LENGTHS[:episode])
    assert [number_of(frame.rgb_HW3) for frame in frames] == list(range(begin, begin + LENGTHS[episode]))
    assert [frame.index for frame in frames] == list(range(LENGTHS[episode])) and frames[0].pts_s == 0
    for number, frame in enumerate(frames):
        assert frame.pts_s == pytest.approx(number / RATE_HZ, abs=1e-6) and frame.gap_s == 0
        assert frame.state.values_D.tolist() == [episode, number] and frame.state.names == STATE_NAMES
        assert frame.action.values_D.tolist() == [number, -number]
        assert 0 <= frame.state.age_s(frame.pts_s) < 1e-3


def test_a_folder_is_a_dataset_and_its_first_episode_the_default(dataset: tuple[Path, int]) -> None:
    folder, _ = dataset
    with open_source(folder) as source:
        assert type(source).__name__ == "EpisodeSource" and source.episode == 0  # type: ignore[attr-defined]
    assert len(of(folder, episode=2)) == 30


def test_what_is_due_is_what_a_sampler_takes_of_all(dataset: tuple[Path, int]) -> None:
    folder, _ = dataset
    with open_source(folder, episode=1) as source:
        wanted = [(f.pts_s, f.index) for f in RateSampler(4.0).filter(source)]
        got = [(f.pts_s, f.index) for f in source.sampled(RateSampler(4.0))]
    assert got == wanted and 8 <= len(got) <= 12


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_an_episode_without_video_is_an_error(write: Writer, tmp_path: Path) -> None:
    folder = write(tmp_path / "arm")
    shutil.rmtree(folder / "videos")
    with pytest.raises(SourceError, match=rf"episode 0 of .* has no video of {CAMERA_KEY}: .*mp4 is missing"):
        open_source(folder)


def test_other_ways_to_have_no_video(tmp_path: Path) -> None:
    pictures = write_v2(tmp_path / "pictures", (5,), dtype="image")
    with pytest.raises(SourceError, match="none of its features is one"):
        open_source(pictures)
    with pytest.raises(SourceError, match="as pictures in its tables and has no video of it"):
        open_source(pictures, camera=CAMERA_KEY)
    change_info(pictures, features={"observation.state": {"dtype": "float32"}})
    with pytest.raises(SourceError, match=r"has no video: none of its features is one \(observation\.state\)"):
        open_source(pictures)
    told = write_v2(tmp_path / "told", (5,))
    change_info(told, video_path=None)
    with pytest.raises(SourceError, match=r"has no video: meta/info.json has no video_path"):
        open_source(told)
    empty = write_v2(tmp_path / "empty", (5,))
    next(empty.rglob("*.mp4")).write_bytes(b"")
    with pytest.raises(SourceError, match=r"is empty \(0 bytes\)"):
        open_source(empty)
    none = write_v3(tmp_path / "none", (5,))
    drop_columns(none, f"videos/{CAMERA_KEY}/chunk_index")
    with pytest.raises(SourceError, match=f"episode 0 of .* has no videos/{CAMERA_KEY}: .* does not say where"):
        open_source(none)


def change_info(folder: Path, **told: Any) -> None:
    path = folder / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **told}))


def drop_columns(folder: Path, *names: str) -> None:
    import pyarrow.parquet as pq

    path = next((folder / "meta" / "episodes").rglob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(list(names)), path)


def test_pictures_that_are_missing_are_flagged(tmp_path: Path) -> None:
    folder = write_v2(tmp_path / "arm", (40,))
    path = next(folder.rglob("*.mp4"))
    shutil.move(scratch(path, 0.3, 0.4), path)
    with open_source(folder) as source:
        frames: list[Any] = list(source)
    numbers = [round(frame.pts_s * RATE_HZ) for frame in frames]
    for before, frame, number in zip([-1, *numbers[:-1]], frames, numbers, strict=True):
        assert frame.gap_s == pytest.approx((number - before - 1) / RATE_HZ, abs=1e-6)
        assert frame.state.values_D[1] == number  # the row of its own time
    assert source.stats.num_damaged > 0


def test_a_video_that_ends_before_its_rows_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long, short = write_v2(tmp_path / "long", (40,)), write_v2(tmp_path / "short", (20,))
    shutil.copy(next(short.rglob("*.mp4")), next(long.rglob("*.mp4")))
    with open_source(long) as source:
        assert len(list(source)) == 20 and source.stats.num_gaps == 1
    assert source.stats.gap_s == pytest.approx(20 / RATE_HZ, abs=0.01) and "without a picture" in caplog.text


def test_rows_without_any_picture_are_an_error(tmp_path: Path) -> None:
    folder = write_v3(tmp_path / "arm", (20, 20))
    shutil.copy(next(write_v2(tmp_path / "short", (20,)).rglob("*.mp4")), next(folder.rglob("*.mp4")))
    with pytest.raises(SourceError, match=r"episode 1 of .* has 20 rows and no picture of .* that can be decoded"):
        of(folder, episode=1)


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_two_cameras_share_the_episodes_clock(write: Writer, tmp_path: Path) -> None:
    folder = write(tmp_path / "arm", (6, 5), ("observation.images.top", "observation.images.wrist"))
    with pytest.raises(SourceError, match=r"has several cameras: .*top, .*wrist; choose one with camera="):
        open_source(folder)
    top, wrist = (of(folder, episode=1, camera=f"observation.images.{name}") for name in ("top", "wrist"))
    assert [frame.pts_s for frame in top] == [frame.pts_s for frame in wrist] and len(top) == 5


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("episode=9", "has no episode 9"),
        ("episode=-1", "an episode is a whole number from 0; got '-1'"),
        ("episode=one", "an episode is a whole number from 0; got 'one'"),
        ("camera=left", f"has no camera 'left'; it has: {CAMERA_KEY}"),
        ("topic=/cam", "no setting 'topic'; it has: episode"),
    ],
)
def test_what_is_not_there_gets_one_sentence(dataset: tuple[Path, int], query: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence) as caught:
        open_source(f"lerobot://{dataset[0]}?{query}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"codebase_version": "v1.6"}, "of version 'v1.6'; wanted v2.0, v2.1 or v3.x"),
        ({"fps": 0}, "fps=0; wanted a number above 0"),
        ({"fps": "fast"}, "fps='fast'"),
        ({"features": ["x"]}, "tells no features"),
        ({"chunks_size": 0}, "chunks_size=0"),
        ({"video_path": "../../{video_key}.mp4"}, "leads to '../../.*which is no path in it"),
        ({"video_path": "/etc/passwd"}, "leads to '/etc/passwd', which is no path in it"),
        ({"data_path": "{episode_index.__class__}"}, "is no path in it"),
        ({"data_path": "{secret}"}, "asks for 'secret'; known are"),
        ({"data_path": "{episode_index:0999999999d}"}, "is no path in it"),
    ],
)
def test_hostile_facts_are_refused(tmp_path: Path, told: dict[str, Any], sentence: str) -> None:
    folder = write_v2(tmp_path / "arm", (3,))
    change_info(folder, **told)
    with pytest.raises(SourceError, match=sentence):
        open_source(folder)


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write_v2(tmp_path / "arm", (5,))
    path = next(folder.rglob("*.parquet"))
    good = pq.read_table(path)
    ragged = [[1.0], [1.0, 2.0], [1.0], [1.0], [1.0]]
    for table, sentence in [
        (good.drop_columns(["timestamp"]), "has no column 'timestamp'"),
        (good.drop_columns(["observation.state"]), r"has no column 'observation\.state'"),
        (good.set_column(0, "observation.state", pa.array(ragged)), r"have \[1, 2\] numbers; wanted one count"),
        (good.set_column(0, "observation.state", pa.array(["a"] * 5)), "has no numbers in it"),
        (good.slice(0, 0), "has no rows of episode 0"),
        (good.set_column(2, "timestamp", pa.array([0.0, 0.2, 0.1, 0.3, 0.4])), "do not increase"),
        (good.set_column(2, "timestamp", pa.array([0.0, float("nan"), 0.1, 0.3, 0.4])), "do not increase"),
    ]:
        pq.write_table(table, path)
        with pytest.raises(SourceError, match=sentence):
            open_source(folder)
    path.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(SourceError, match=r"the table .* is damaged"):
        open_source(folder)
    path.unlink()
    with pytest.raises(SourceError, match=r"has no rows: .* is missing"):
        open_source(folder)
    (folder / "meta" / "episodes.jsonl").write_text("{")
    with pytest.raises(SourceError, match="is damaged"):
        open_source(folder)
    (folder / "meta" / "info.json").write_text("[1]")
    with pytest.raises(SourceError, match="is damaged: it holds no object"):
        open_source(folder)
    (folder / "meta" / "info.json").write_text("[" * 100_000)
    with pytest.raises(SourceError, match="is damaged"):
        open_source(folder)
    with pytest.raises(SourceError, match=r"is no LeRobot dataset: it has no meta/info.json"):
        open_source(f"lerobot://{tmp_path}")


def test_a_table_says_how_large_it_is_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millpond.stream import lerobot_meta

    folder = write_v2(tmp_path / "arm", (5,))
    monkeypatch.setattr(lerobot_meta, "_MAX_TABLE_BYTES", 10)
    with pytest.raises(SourceError, match=r"says 5 rows of .* bytes; it is damaged or hostile"):
        open_source(folder)


def test_numbers_that_are_packed_to_nothing_count_as_what_they_unpack_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from millpond.stream import lerobot_meta

    folder = write_v2(tmp_path / "arm", (5,))
    path = next(folder.rglob("*.parquet"))
    pq.write_table(pq.read_table(path).set_column(1, "action", pa.array([[0.0] * 4000] * 5)), path)
    assert path.stat().st_size < 100_000 < 8 * 4000 * 5
    monkeypatch.setattr(lerobot_meta, "_MAX_TABLE_BYTES", 100_000)
    with pytest.raises(SourceError, match=r"says 5 rows of .* bytes; it is damaged or hostile"):
        open_source(folder)


def test_one_number_a_row_needs_no_list(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = write_v2(tmp_path / "arm", (5,))
    path = next(folder.rglob("*.parquet"))
    pq.write_table(pq.read_table(path).set_column(1, "action", pa.array(np.arange(5.0))), path)
    frames = of(folder)
    assert [frame.action and frame.action.values_D.tolist() for frame in frames] == [[n] for n in range(5)]
    assert frames[0].action is not None and frames[0].action.names == ("0",)
