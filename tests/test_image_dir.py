"""Folders of pictures: order, times, orientation, and what is no picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millpond.stream import SourceError, open_source
from millpond.stream.image_dir import natural_key


def save(folder: Path, name: str, level: int = 0, mode: str = "RGB") -> Path:
    path = folder / name
    Image.new("RGB", (20, 10), (level, level, level)).convert(mode).save(path)
    return path


def levels_and_times(folder: Path, **options: object) -> list[tuple[int, float]]:
    with open_source(folder, **options) as source:
        return [(int(frame.rgb_HW3[0, 0, 0]), frame.pts_s) for frame in source]


def test_numbers_count_as_numbers(tmp_path: Path) -> None:
    for name, level in (
        ("img10.png", 10),
        ("img2.png", 2),
        ("IMG1.PNG", 1),
        ("notes.txt", 0),
        (".hidden.png", 9),
    ):
        save(tmp_path, name, level) if name != "notes.txt" else (tmp_path / name).write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert levels_and_times(tmp_path) == [(1, 0.0), (2, 1.0), (10, 2.0)]


def test_natural_order() -> None:
    names = ["b", "a10", "a9", "10", "9", "a", "a9b1", "A9a"]
    assert sorted(names, key=lambda n: natural_key(Path(n))) == [
        "9",
        "10",
        "a",
        "a9",
        "A9a",
        "a9b1",
        "a10",
        "b",
    ]


def test_a_rate_gives_the_times(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path, f"{number}.png", number)
    with open_source(tmp_path, rate_hz=4.0) as source:
        assert [frame.pts_s for frame in source] == [0.0, 0.25, 0.5, 0.75]
        assert source.duration_s == 1.0 and source.stream_id == tmp_path.name


def test_names_give_the_times(tmp_path: Path) -> None:
    for name in ("cam1_t0.5.png", "cam1_t12.25.png", "cam1_t3.png"):
        save(tmp_path, name)
    assert [t for _, t in levels_and_times(tmp_path, times="names")] == [0.5, 3.0, 12.25]
    save(tmp_path, "zebra.png")
    with pytest.raises(SourceError, match=r"zebra.png has no number in its name to take a time from; use times='rate'"):
        open_source(tmp_path, times="names")


@pytest.mark.parametrize("heading", ["", "name,seconds\n"])
def test_a_csv_gives_times_and_order(tmp_path: Path, heading: str) -> None:
    save(tmp_path, "b.png", 1)
    save(tmp_path, "a.png", 2)
    save(tmp_path, "unlisted.png", 3)
    (tmp_path / "times.csv").write_text(f"{heading}b.png,0.5\na.png,7.25\n")
    assert levels_and_times(tmp_path) == [(1, 0.5), (2, 7.25)]
    assert [t for _, t in levels_and_times(tmp_path, times="rate")] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "a.png,0\nnone.png,1\n",
            r"times.csv, row 2: wanted the name of a picture here and its seconds; got \['none.png",
        ),
        ("a.png,soon\n", "row 1: wanted the name"),
        ("a.png,-1\n", "row 1: wanted the name"),
        ("a.png\n", "row 1: wanted the name"),
        ("a.png,2\na.png,1\n", "run backwards: a.png is at 2.0 s and a.png, after it, at 1.0 s"),
        ("", "names no pictures"),
        ("name,seconds\n", "names no pictures"),
    ],
)
def test_a_wrong_csv(tmp_path: Path, text: str, sentence: str) -> None:
    save(tmp_path, "a.png")
    (tmp_path / "times.csv").write_text(text)
    with pytest.raises(SourceError, match=sentence):
        open_source(tmp_path, times="csv")


def test_a_bad_picture_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "0.png", 5)
    (tmp_path / "1.png").write_bytes(b"no picture")
    half = tmp_path / "2.png"
    Image.effect_noise((90, 90), 50).save(half)
    half.write_bytes(half.read_bytes()[:2000])
    save(tmp_path, "3.jpg", 7)
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [(f.index, f.pts_s) for f in frames] == [(0, 0.0), (3, 3.0)]
    assert source.stats.num_damaged == 2
    assert "left out" in caplog.text and "1.png" in caplog.text and "2.png" in caplog.text


def test_nothing_but_bad_pictures(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    with open_source(tmp_path) as source, pytest.raises(SourceError, match="none of the 1 pictures of"):
        list(source)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    save(tmp_path, "a.tif" if mode == "CMYK" else "a.png", 255, mode)
    with open_source(tmp_path) as source:
        (frame,) = source
    assert frame.rgb_HW3.shape == (10, 20, 3) and frame.rgb_HW3.min() >= 250


def test_a_camera_held_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.arange(20, dtype=np.uint8)[None, :, None] * 10, 10, 0).repeat(3, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    image.save(tmp_path / "a.png", exif=exif)
    with open_source(tmp_path) as source:
        (frame,) = source
    assert (frame.width, frame.height) == (10, 20)
    assert frame.rgb_HW3[0, 0, 0] == 0 and frame.rgb_HW3[-1, 0, 0] == 190


def test_one_picture(tmp_path: Path) -> None:
    assert levels_and_times(save(tmp_path, "a.png", 3)) == [(3, 0.0)]


def test_a_picture_larger_than_allowed_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    with (
        open_source(tmp_path, max_pixels=100) as source,
        pytest.raises(SourceError, match="none of the 1 pictures"),
    ):
        list(source)
    assert source.stats.num_damaged == 1


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the folder .* has no pictures in it; wanted .bmp, .jpeg, .jpg"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rate_hz": 0.0}, "above 0 Hz; got rate_hz=0.0"),
        ({"times": "guess"}, "no way to get times named 'guess'; there are: auto, csv, names, rate"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], sentence: str) -> None:
    save(tmp_path, "a.png")
    with pytest.raises(ValueError, match=sentence):
        open_source(tmp_path, **options)
