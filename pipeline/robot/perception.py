"""Perception: what a policy is given at a tick: tokens of the newest views, where they stand, and how old they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ...stream import Frame

# Shapes: T tokens of all cameras, D channels of the language model, 3 numbers for each of them.


@dataclass(frozen=True, slots=True)
class View:
    """One camera's part in a perception. Made by a RobotFeed, read by policies, written by nobody.

    camera_id: whose view it is.
    pts_s: the camera's own time of the picture, jumps of its clock taken out.
    captured_s: when it was captured, on `time.monotonic`'s clock.
    number: of the picture, counted by its camera.
    grid_hw: rows and columns of tokens that the whole picture has.
    num_tokens: how many of those are here.
    changed_share: share of the picture's places that look different from when they were last encoded, 0 to 1.
    clock_jumped: whether the camera's clock jumped at this picture.
    num_jumps: how often it had jumped by then.
    frame: what the model was shown: the picture, made to fit; for savings that compare pictures. None where a view was
        made by hand.
    """

    camera_id: str
    pts_s: float
    captured_s: float
    number: int
    grid_hw: tuple[int, int]
    num_tokens: int
    changed_share: float = 1.0
    clock_jumped: bool = False
    num_jumps: int = 0
    frame: Frame | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_tokens <= self.grid_hw[0] * self.grid_hw[1]:
            raise ValueError(
                f"a view has 0 to {self.grid_hw[0] * self.grid_hw[1]} tokens of its grid; got {self.num_tokens}"
            )
        if not 0 <= self.changed_share <= 1:
            raise ValueError(f"changed_share is a share, 0 to 1; got {self.changed_share}")


@dataclass(frozen=True, slots=True, eq=False)
class Perception:
    """Made by `RobotFeed.latest`, read by policies, written by nobody.

    Its tensors are views of the feed's buffers: they hold until `latest` has been called `num_held` more times, which
    is the feed's setting; who wants to keep them longer copies them. Cameras stand in the feed's order, and a camera's
    tokens in raster order.

    tokens_TD: visual tokens in the language model's space, those that stand on the grids; on the model's device.
    kept_T3: int64, camera index, row and column of each token in its camera's grid; on the CPU.
    changed_T: bool, whether the picture changed under each token since it was last encoded; on the CPU.
    views: one for each camera.
    age_s: of the oldest view, from its capture to the moment at which `latest` returned.
    num_dropped: pictures that came since the perception before this one, and are in none: newer ones overtook them.
    number: counts what the feed published: the same number is the same perception.
    is_stale: whether it is older than was asked for, or not paired in time; only where the feed flags instead of
        raising. `problem` then says why.
    clock_jumped: whether a camera's clock jumped since the perception before this one, were it at a picture that was
        overtaken.
    """

    tokens_TD: Tensor
    kept_T3: Tensor
    changed_T: Tensor
    views: tuple[View, ...]
    age_s: float
    num_dropped: int
    number: int
    is_stale: bool = False
    problem: str | None = None
    clock_jumped: bool = False

    def __post_init__(self) -> None:
        num_tokens = self.tokens_TD.shape[0]
        if tuple(self.kept_T3.shape) != (num_tokens, 3) or tuple(self.changed_T.shape) != (num_tokens,):
            raise ValueError(
                f"{num_tokens} tokens need as many places and marks; got kept_T3 of shape {tuple(self.kept_T3.shape)}, "
                f"changed_T of shape {tuple(self.changed_T.shape)}"
            )
        if not self.views:
            raise ValueError(f"a perception is of one camera at least; got {len(self.views)} views")
        if math.isnan(self.age_s) or self.age_s < 0:
            raise ValueError(f"age_s is a number of seconds, 0 or more; got {self.age_s}")

    @property
    def num_tokens(self) -> int:
        return int(self.tokens_TD.shape[0])

    @property
    def camera_ids(self) -> tuple[str, ...]:
        return tuple(view.camera_id for view in self.views)

    @property
    def pts_s(self) -> tuple[float, ...]:
        """Each camera's own time of its view."""
        return tuple(view.pts_s for view in self.views)

    @property
    def grids_hw(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each camera's grid."""
        return tuple(view.grid_hw for view in self.views)

    @property
    def changed_share(self) -> float:
        """Share of all cameras' places that changed, 0 to 1."""
        places = [view.grid_hw[0] * view.grid_hw[1] for view in self.views]
        changed = sum(view.changed_share * num for view, num in zip(self.views, places, strict=True))
        return changed / max(1, sum(places))

    def __repr__(self) -> str:
        stale = ", stale" if self.is_stale else ""
        return (
            f"Perception({self.num_tokens} tokens of {', '.join(self.camera_ids)[:60]}, {self.age_s:.3f} s old{stale})"
        )
