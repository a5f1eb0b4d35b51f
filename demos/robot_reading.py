"""What the controller makes of a perception: where the block and the mat are, read out of the feed's tokens.

The read-out is one linear map per camera from a token to how much of its cell each thing covers. It is taught in
seconds, from some dozens of pictures of the scene whose truth is known, as a policy's first layer would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from robot_eyes import PICTURE_PIXELS
from robot_scene import BLOCK, BLOCK_HALF_M, MAT, TOP, WRIST, Command, Eye, Posture, Scene

from millpond.encoders import VideoLLM
from millpond.pipeline.robot import Perception
from millpond.stream import Frame

# Shapes: N tokens, D channels of one, C of them and a 1.

THINGS = (BLOCK, MAT)
_LEAST_COVER = 0.06
"""What is read below this much of a cell is noise."""


class Spot(NamedTuple):
    """A thing in a picture. u, v: its middle, as shares of the picture from the left and from the top.
    cells: how many cells it covers, in all; 0 where it is not seen."""

    u: float
    v: float
    cells: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one perception says. Made by a Reader, read by the controller.

    spots: by camera and thing. pts_s: by camera, the world's time of its picture. number: of the perception.
    """

    spots: Mapping[tuple[str, str], Spot]
    pts_s: Mapping[str, float]
    number: int


class Reader:
    """Reads perceptions. taught: by camera, a map (channels + 1, things) from tokens to cover."""

    def __init__(self, taught: Mapping[str, np.ndarray]) -> None:
        self._taught = dict(taught)

    def read(self, perception: Perception) -> Reading:
        """Only the tokens that are there speak: of what was not kept, nothing is known, and nothing is made up."""
        tokens_ND = perception.tokens_TD.float().cpu().numpy()
        places = perception.kept_T3.numpy()
        spots = {}
        for index, view in enumerate(perception.views):
            own = places[:, 0] == index
            cover = self.cover(view.camera_id, tokens_ND[own])
            rows, columns = view.grid_hw
            at_v, at_u = (places[own, 1] + 0.5) / rows, (places[own, 2] + 0.5) / columns
            for thing, part in zip(THINGS, cover.T, strict=True):
                cells = float(part.sum())
                middle = (float(part @ at_u) / cells, float(part @ at_v) / cells) if cells else (0.5, 0.5)
                spots[view.camera_id, thing] = Spot(*middle, cells)
        pts_s = {view.camera_id: view.pts_s for view in perception.views}
        return Reading(spots, pts_s, perception.number)

    def cover(self, camera: str, tokens_ND: np.ndarray) -> np.ndarray:
        """How much of each token's cell each thing covers, 0 to 1: (tokens, things)."""
        read = _with_one(tokens_ND) @ self._taught[camera]
        return np.where(read < _LEAST_COVER, 0.0, np.minimum(read, 1.0))


def teach(model: VideoLLM, scene: Scene, *, num_pictures: int = 64, seed: int = 0) -> Reader:
    """Teaches a reader from pictures of the scene with all at random places; the scene itself does not move.

    Nobody else may use the model, nor render, meanwhile in this thread.
    """
    rng = np.random.default_rng(seed)
    postures = [_random_posture(scene, rng) for _ in range(num_pictures)]
    eye = Eye(scene.model, PICTURE_PIXELS, PICTURE_PIXELS)
    try:
        return Reader({camera: _taught(model, eye, camera, postures) for camera in (TOP, WRIST)})
    finally:
        eye.close()


def _taught(model: VideoLLM, eye: Eye, camera: str, postures: Sequence[Posture]) -> np.ndarray:
    seen, covered = [], []
    for posture in postures:
        (tokens,) = model.see([Frame(eye.look(posture, camera), 0.0)])
        rows, columns = tokens.grid_hw
        seen.append(tokens.x_TD[: rows * columns].float().cpu().numpy())
        masks = eye.what_is_where(posture, camera)
        covered.append(np.stack([_per_cell(masks[thing], rows, columns) for thing in THINGS], axis=-1))
    x_NC, y = _with_one(np.concatenate(seen)), np.concatenate(covered)
    ridge = 0.003 * len(x_NC) * np.eye(x_NC.shape[1])
    taught: np.ndarray = np.linalg.solve(x_NC.T @ x_NC + ridge, x_NC.T @ y)
    return taught


def _with_one(tokens_ND: np.ndarray) -> np.ndarray:
    return np.concatenate([tokens_ND.astype(np.float64), np.ones((len(tokens_ND), 1))], axis=1)


def _per_cell(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Share of each cell that is True, in raster order."""
    height, width = mask.shape
    return mask.reshape(rows, height // rows, columns, width // columns).mean(axis=(1, 3)).ravel()


def _random_posture(scene: Scene, rng: np.random.Generator) -> Posture:
    """Block and mat anywhere, the arm anywhere: beside the block, above it, with it in the hand."""
    block, mat = rng.uniform(-0.2, 0.2, 2), rng.uniform(-0.2, 0.2, 2)
    arm = Command(*rng.uniform(-0.22, 0.22, 2), rng.uniform(0.07, 0.35))
    block_z, kind = BLOCK_HALF_M, rng.random()
    if kind < 0.2:
        block = mat + rng.uniform(-0.02, 0.02, 2)
    elif kind < 0.4:
        block = np.array([arm.x_m, arm.y_m]) + rng.uniform(-0.01, 0.01, 2)
        block_z = arm.z_m - BLOCK_HALF_M - 0.001
    elif kind < 0.75:
        arm = Command(*(block + rng.uniform(-0.1, 0.1, 2)), rng.uniform(0.12, 0.25))
    turn_rad = float(rng.uniform(-0.8, 0.8))
    return scene.imagined(
        arm, (float(block[0]), float(block[1]), float(block_z)), turn_rad, (float(mat[0]), float(mat[1]))
    )
