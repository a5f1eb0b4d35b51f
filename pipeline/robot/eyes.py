"""Eyes: several cameras' newest pictures to tokens in a slot, each picture costing what is new in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...encoders import FrameTokens, VisionHalf
from ...encoders.reuse import Reuser, ReuseStats
from ...encoders.reuse.base import SeerRun
from ...encoders.reuse.evidence import PixelWatch
from ...encoders.reuse.fresh import cells_under, mask_of_cells
from ...stream import Frame
from ...stream.change import ChangeMap, ChangeRule
from .camera import Picture
from .choosing import choose
from .perception import View
from .slots import Slot

# Shapes: T places of one camera's grid, H rows and W columns of it.


class Seen(NamedTuple):
    """One camera's newest picture, encoded.

    frame: as the model was shown it. changed_T: bool, by place of the grid. covered_hw: share of the frame's height and
    width that the grid covers.
    """

    picture: Picture
    frame: Frame
    tokens: FrameTokens
    changed_T: np.ndarray
    covered_hw: tuple[float, float]


class RobotEyes:
    """What the cameras of one robot showed last, encoded. Not thread-safe: the feed's worker's; `require_fresh` and
    `require_fresh_cells` alone may be called by one other thread at a time.

    fit: makes of a frame what the model takes, such as a square; places and masks are those of what comes out.
    """

    def __init__(
        self,
        model: VisionHalf,
        camera_ids: Sequence[str],
        reuse: Reuser,
        *,
        budget_tokens: int | None,
        fit: Callable[[Frame], Frame] | None,
    ) -> None:
        if budget_tokens is not None and budget_tokens < 1:
            raise ValueError(f"budget_tokens is 1 or more, or None for all there are; got {budget_tokens}")
        self._model, self._fit = model, fit or _as_it_is
        self._budget_tokens = budget_tokens
        self._seer = reuse.over(model)
        self._runs: dict[str, SeerRun] = {camera_id: self._seer.start() for camera_id in camera_ids}
        self._watches = {camera_id: PixelWatch(ChangeRule()) for camera_id in camera_ids}
        self._seen: dict[str, Seen] = {}

    @property
    def stats(self) -> Mapping[str, ReuseStats]:
        """How each camera's pictures were encoded."""
        return {camera_id: run.stats for camera_id, run in self._runs.items()}

    def require_fresh(self, camera_id: str, mask_HW: np.ndarray | None, owner: str) -> None:
        """From the camera's next picture on, what lies under True is computed anew, and its tokens are kept."""
        if camera_id not in self._runs:
            raise ValueError(f"there is no camera {camera_id!r}; got {', '.join(self._runs)}")
        self._runs[camera_id].require_fresh(mask_HW, owner=owner)

    def require_fresh_cells(self, camera_id: str, cells_HW: np.ndarray, owner: str) -> None:
        """The same by cells of the camera's grid: bool."""
        seen = self._seen.get(camera_id)
        self.require_fresh(camera_id, cells_HW if seen is None else mask_of_cells(cells_HW, seen.covered_hw), owner)

    @torch.inference_mode()
    def see(self, pictures: Sequence[Picture]) -> None:
        """Encodes those of these pictures that were not encoded yet, all in one call."""
        new = [one for one in pictures if self._number(one.camera_id) != one.number]
        if not new:
            return
        frames = {one.camera_id: self._fit(one.frame) for one in new}
        sights = self._seer.see([(self._runs[one.camera_id], [frames[one.camera_id]]) for one in new])
        for picture, (sight,) in zip(new, sights, strict=True):
            frame, camera_id = frames[picture.camera_id], picture.camera_id
            changed_T = self._changed(camera_id, frame, sight.tokens.grid_hw)
            self._seen[camera_id] = Seen(picture, frame, sight.tokens, changed_T, self._covered_hw(frame))

    @property
    def num_places(self) -> int:
        """How many tokens a slot needs room for."""
        places = sum(len(seen.changed_T) for seen in self._seen.values())
        return places if self._budget_tokens is None else min(places, self._budget_tokens)

    @property
    def tokens_like(self) -> torch.Tensor:
        """Tokens of the kind that slots are to hold."""
        return next(iter(self._seen.values())).tokens.x_TD

    @torch.inference_mode()
    def write(self, slot: Slot) -> tuple[View, ...]:
        """Puts the tokens of what all cameras showed last into a slot, and says what they are."""
        shown = [(camera_id, self._seen[camera_id]) for camera_id in self._runs]
        kept = choose(
            [self._fresh(camera_id, seen) for camera_id, seen in shown],
            [seen.changed_T for _, seen in shown],
            [seen.tokens.grid_hw for _, seen in shown],
            self._budget_tokens,
        )
        views, start = [], 0
        for index, ((_, seen), places) in enumerate(zip(shown, kept, strict=True)):
            part, grid_hw = slice(start, start + len(places)), seen.tokens.grid_hw
            x_TD = seen.tokens.x_TD
            slot.tokens_TD[part] = x_TD[torch.from_numpy(places).to(x_TD.device)]
            rows, columns = np.divmod(places, grid_hw[1])
            slot.kept_T3[part] = torch.from_numpy(np.stack((np.full(len(places), index), rows, columns), axis=1))
            slot.changed_T[part] = torch.from_numpy(seen.changed_T[places])
            views.append(_view(seen, len(places)))
            start = part.stop
        if slot.tokens_TD.device.type == "cuda":
            # What is published is there: a policy's own stream need not know of this one.
            torch.cuda.current_stream(slot.tokens_TD.device).synchronize()
        return tuple(views)

    def _number(self, camera_id: str) -> int | None:
        seen = self._seen.get(camera_id)
        return None if seen is None else seen.picture.number

    def _covered_hw(self, frame: Frame) -> tuple[float, float]:
        tower = self._model.tower
        return (1.0, 1.0) if tower is None else tower.layout(frame.height, frame.width).covered_hw

    def _fresh(self, camera_id: str, seen: Seen) -> np.ndarray:
        fresh_HW = np.zeros(seen.tokens.grid_hw, bool)
        for mask_HW in self._runs[camera_id].fresh.values():
            fresh_HW |= cells_under(mask_HW, seen.tokens.grid_hw, seen.covered_hw)
        return fresh_HW.ravel()

    def _changed(self, camera_id: str, frame: Frame, grid_hw: tuple[int, int]) -> np.ndarray:
        """Where the picture differs from what was encoded before. A run that does not look is looked after."""
        change, watch = self._runs[camera_id].change, self._watches[camera_id]
        if change is not None:
            watch.reset()
        else:
            change = self._compared(watch, frame)
        return np.ones(grid_hw[0] * grid_hw[1], bool) if change is None else _pooled(change, grid_hw).ravel()

    def _compared(self, watch: PixelWatch, frame: Frame) -> ChangeMap | None:
        tower = self._model.tower
        if tower is None:
            return None
        change = watch.compare(tower.layout(frame.height, frame.width), [frame])
        watch.detector.encoded(None)
        return change


def _pooled(change: ChangeMap, grid_hw: tuple[int, int]) -> np.ndarray:
    """Patches to the places of tokens, which cover the same: one has changed where any of its patches has."""
    return cells_under(change.changed_HW, grid_hw)


def _view(seen: Seen, num_tokens: int) -> View:
    picture = seen.picture
    return View(
        picture.camera_id,
        picture.pts_s,
        picture.captured_s,
        picture.number,
        seen.tokens.grid_hw,
        num_tokens,
        float(seen.changed_T.mean()),
        picture.clock_jumped,
        picture.num_jumps,
        seen.frame,
    )


def _as_it_is(frame: Frame) -> Frame:
    return frame
