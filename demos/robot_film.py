"""The film of a run: the scene from aside, what both cameras showed, and what of that the controller was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from robot_scene import VIEWER, Eye, Posture, Scene

FILM_HZ = 6.0
_HEIGHT, _WIDTH, _INSET = 360, 480, 156
_SHEET = (_WIDTH + _INSET + 4, _HEIGHT)
_INK, _ALARM, _PAPER = (235, 235, 235), (255, 120, 90), (16, 17, 20)


@dataclass(frozen=True, slots=True)
class Shot:
    """A moment of a run.

    pictures, kept: by camera, what it showed, and which cells of that the controller got tokens of.
    says: what the controller does. note: of the view that it had; an alarm where it had none that was fresh.
    """

    posture: Posture
    pictures: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]
    says: str
    note: str
    is_alarm: bool


def write_film(shots: Sequence[Shot], scene: Scene, path: Path) -> None:
    """Writes an animated GIF, or by its suffix an MP4. Raises ValueError for another suffix, or without a shot."""
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ValueError(f"a film is a .gif or an .mp4; got {path.name}")
    if not shots:
        raise ValueError(f"a film needs a shot; got none for {path.name}")
    if path.suffix.lower() == ".mp4":
        _write_mp4(_developed(shots, scene), path)
        return
    pictures = [picture.quantize(64, method=Image.Quantize.FASTOCTREE) for picture in _developed(shots, scene)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / FILM_HZ), loop=0)


def _write_mp4(pictures: Iterator[Image.Image], path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(FILM_HZ))
        video.width, video.height, video.pix_fmt = *_SHEET, "yuv420p"
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode())


def _developed(shots: Sequence[Shot], scene: Scene) -> Iterator[Image.Image]:
    eye = Eye(scene.model, _HEIGHT, _WIDTH)
    try:
        for shot in shots:
            yield _developed_one(shot, eye.look(shot.posture, VIEWER))
    finally:
        eye.close()


def _developed_one(shot: Shot, seen_from_aside: np.ndarray) -> Image.Image:
    sheet = Image.new("RGB", _SHEET, _PAPER)
    sheet.paste(Image.fromarray(seen_from_aside), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((8, 6), f"{shot.posture.time_s:4.1f} s   the arm {shot.says}", fill=_INK, font=font)
    draw.text((8, _HEIGHT - 20), shot.note, fill=_ALARM if shot.is_alarm else _INK, font=font)
    for number, (name, picture) in enumerate(shot.pictures.items()):
        top = number * (_HEIGHT // 2)
        inset = Image.fromarray(_dimmed(picture, shot.kept[name])).resize((_INSET, _INSET), Image.Resampling.NEAREST)
        sheet.paste(inset, (_WIDTH + 2, top + 20))
        draw.text((_WIDTH + 4, top + 3), f"{name} camera", fill=_INK, font=font)
    return sheet


def _dimmed(picture: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The picture with the cells dark of which no token was kept."""
    rows, columns = (side // cells for side, cells in zip(picture.shape, kept.shape, strict=False))
    lit = np.kron(kept, np.ones((rows, columns), bool))[..., None]
    return np.where(lit, picture, picture // 3)
