"""The scripted controller: at each tick, from what the feed says and the arm feels, where the arm goes next."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import Enum

import numpy as np
from robot_reading import Reading
from robot_scene import (
    BLOCK,
    BLOCK_HALF_M,
    HOME_M,
    MAT,
    TOOL_M,
    TOP,
    TOP_CAMERA_Z_M,
    TOP_FOV_DEG,
    WRIST,
    WRIST_CAMERA_M,
    WRIST_CAMERA_UP_M,
    WRIST_FOV_DEG,
    Command,
    Felt,
)

# Shapes: H rows and W columns of a mask.

HOVER_M, CARRY_M = 0.18, 0.2
BLOCK_TOP_M = 2 * BLOCK_HALF_M
FAST_M_S, SLOW_M_S, DOWN_M_S = 0.45, 0.3, 0.12
_TOP_SEES, _TOP_SEES_MAT, _WRIST_SEES = 0.3, 0.7, 1.2
"""Cells that a thing covers at least where it counts as seen."""
_MASK = 12
"""Rows and columns of the masks that say what must be fresh."""
Place = tuple[float, float]


class Phase(Enum):
    SEEK = "looks for the block"
    APPROACH = "goes above the block"
    DESCEND = "goes down on it"
    LIFT = "lifts it"
    CARRY = "carries it to the mat"
    LOWER = "puts it down"
    RETREAT = "lets go and leaves"
    CHECK = "looks whether it is there"
    DONE = "is done"


class Controller:
    """Puts the block on the mat. It knows where its cameras stand and what its joints say; where things are, it knows
    from the feed alone.

    A tick without a fresh view is given as None: then the arm holds still, and nothing is decided.
    """

    def __init__(self, rate_hz: float) -> None:
        self.phase = Phase.SEEK
        self.block: Place | None = None
        self.mat: Place | None = None
        self.num_held = 0
        self._tick_s = 1 / rate_hz
        self._command = Command(*HOME_M)
        self._felt: deque[tuple[float, Felt]] = deque(maxlen=1024)
        self._since_s = 0.0  # when this phase began, in the world's time
        self._still_s = 0.0  # for how long the arm has been where it is to be
        self._seen_at_s = 0.0  # of the last picture that shows the block
        self._num_views = 0  # pictures of this phase that show it
        self._last_number = -1

    def step(self, reading: Reading | None, felt: Felt, time_s: float) -> Command:
        """The next command. time_s: the world's time, which pictures' `pts_s` is in too."""
        self._felt.append((time_s, felt))
        if reading is None:
            self.num_held += 1
            return self._command
        if reading.number != self._last_number:
            self._last_number = reading.number
            self._look(reading)
        goal, speed_m_s = self._decide(felt, time_s)
        self._command = _towards(self._command, goal, speed_m_s * self._tick_s)
        is_there = math.dist(self._command[:3], goal[:3]) < 1e-9 and math.dist(felt[:3], goal[:3]) < 0.012
        self._still_s = self._still_s + self._tick_s if is_there else 0.0
        return self._command

    def must_be_fresh(self) -> Mapping[str, np.ndarray]:
        """By camera, what the controller acts on now: around what it knows, or all over where it has to look."""
        nothing, everything = np.zeros((_MASK, _MASK), bool), np.ones((_MASK, _MASK), bool)
        if self.phase in (Phase.SEEK, Phase.CHECK) or self.block is None or self.mat is None:
            return {TOP: everything, WRIST: nothing}
        if self.phase in (Phase.APPROACH, Phase.DESCEND):
            return {TOP: _around(_in_top(self.block)), WRIST: everything}
        return {TOP: _around(_in_top(self.mat)), WRIST: nothing}

    def _look(self, reading: Reading) -> None:
        """Takes over what the cameras show. A picture from before this phase counts for nothing in it."""
        spot = reading.spots[TOP, MAT]
        if spot.cells > _TOP_SEES_MAT and self.phase in (Phase.SEEK, Phase.APPROACH):
            self.mat = _from_top(spot.u, spot.v, 0.0)
        block = self._block_in(reading)
        if block is not None:
            self.block, seen_at_s = block
            self._seen_at_s = max(self._seen_at_s, seen_at_s)
            self._num_views += seen_at_s >= self._since_s

    def _block_in(self, reading: Reading) -> tuple[Place, float] | None:
        """Where the block lies and when that was: by the wrist's camera where it is in full view, else by the top's."""
        spot, pts_s = reading.spots[WRIST, BLOCK], reading.pts_s[WRIST]
        cup = self._cup_at(pts_s)
        if self.phase in (Phase.APPROACH, Phase.DESCEND) and cup is not None and cup.z_m > 0.11:
            away_m = cup.z_m + TOOL_M - WRIST_CAMERA_UP_M - BLOCK_TOP_M
            wide_m = 2 * away_m * math.tan(math.radians(WRIST_FOV_DEG / 2))
            full = (2 * BLOCK_HALF_M * 6 / wide_m) ** 2
            if spot.cells > max(_WRIST_SEES, 0.6 * full):
                dx, dy = (spot.u - 0.5) * wide_m, WRIST_CAMERA_M + (0.5 - spot.v) * wide_m
                return (cup.x_m + dx, cup.y_m + dy), pts_s
        spot = reading.spots[TOP, BLOCK]
        if spot.cells > _TOP_SEES:
            return _from_top(spot.u, spot.v, BLOCK_TOP_M), reading.pts_s[TOP]
        return None

    def _cup_at(self, pts_s: float) -> Felt | None:
        """Where the cup was when that picture was taken: the arm has moved on since."""
        return next((felt for time_s, felt in reversed(self._felt) if time_s <= pts_s + 1e-6), None)

    def _decide(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        """Where to, and how fast; goes on to the next phase where this one is over."""
        decide = getattr(self, f"_{self.phase.name.lower()}")
        return decide(felt, time_s)

    def _turn_to(self, phase: Phase, time_s: float) -> None:
        self.phase, self._since_s, self._num_views, self._still_s = phase, time_s, 0, 0.0

    def _seek(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        if self._seen_from_home(time_s) and self.mat is not None:
            self._turn_to(Phase.APPROACH, time_s)
        return Command(*HOME_M), FAST_M_S

    def _seen_from_home(self, time_s: float) -> bool:
        """Whether three pictures showed the block since the arm is home, where it hides nothing from above."""
        if self._still_s <= 0.1:
            self._since_s, self._num_views = time_s, 0
        return self._num_views >= 3

    def _approach(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.block is not None
        if time_s - max(self._seen_at_s, self._since_s) > 3.0:
            self._turn_to(Phase.SEEK, time_s)  # neither camera has seen it for long
        elif self._still_s > 0.15 and self._num_views >= 2 and self._seen_at_s > time_s - 1.0:
            self._turn_to(Phase.DESCEND, time_s)
        return Command(*self.block, HOVER_M), FAST_M_S

    def _descend(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.block is not None
        if felt.touches:
            self._turn_to(Phase.LIFT, time_s)
        elif math.dist(self.block, felt[:2]) > 0.04:
            self._turn_to(Phase.APPROACH, time_s)  # it was moved away under the cup
        elif self._still_s > 0.3:
            self._turn_to(Phase.SEEK, time_s)  # all the way down, and there is nothing
        return Command(*self.block, BLOCK_TOP_M - 0.004, True), DOWN_M_S

    def _lift(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.block is not None
        if time_s - self._since_s < 0.2:  # the cup takes hold
            return self._command._replace(sucks=True), DOWN_M_S
        if felt.z_m > CARRY_M - 0.012:
            self._turn_to(Phase.CARRY if felt.touches else Phase.SEEK, time_s)
        return Command(self._command.x_m, self._command.y_m, CARRY_M, True), SLOW_M_S

    def _carry(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.mat is not None
        if not felt.touches:
            self._turn_to(Phase.SEEK, time_s)  # it fell
        elif self._still_s > 0.2:
            self._turn_to(Phase.LOWER, time_s)
        return Command(*self.mat, CARRY_M, True), SLOW_M_S

    def _lower(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.mat is not None
        if self._still_s > 0.15:
            self._turn_to(Phase.RETREAT, time_s)
        return Command(*self.mat, BLOCK_TOP_M + 0.005, True), DOWN_M_S

    def _retreat(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.mat is not None
        if time_s - self._since_s < 0.3:  # the cup lets go
            return self._command._replace(sucks=False), DOWN_M_S
        if felt.z_m > HOVER_M - 0.01:
            self._turn_to(Phase.CHECK, time_s)
        return Command(*self.mat, HOVER_M), SLOW_M_S

    def _check(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        assert self.mat is not None
        if self._seen_from_home(time_s) and self.block is not None:
            is_there = math.dist(self.block, self.mat) < 0.03
            self._turn_to(Phase.DONE if is_there else Phase.SEEK, time_s)
        return Command(*HOME_M), FAST_M_S

    def _done(self, felt: Felt, time_s: float) -> tuple[Command, float]:
        return Command(*HOME_M), FAST_M_S


def _towards(now: Command, goal: Command, step_m: float) -> Command:
    """A step of at most this length."""
    away_m = math.dist(now[:3], goal[:3])
    share = 1.0 if away_m <= step_m else step_m / away_m
    x_m, y_m, z_m = (a + (b - a) * share for a, b in zip(now[:3], goal[:3], strict=True))
    return Command(x_m, y_m, z_m, goal.sucks)


def _half_width_m(z_m: float) -> float:
    """How far the top camera sees to each side, on a plane this high above the table."""
    return (TOP_CAMERA_Z_M - z_m) * math.tan(math.radians(TOP_FOV_DEG / 2))


def _from_top(u: float, v: float, z_m: float) -> Place:
    half_m = _half_width_m(z_m)
    return (2 * u - 1) * half_m, (1 - 2 * v) * half_m


def _in_top(place: Place) -> tuple[float, float]:
    half_m = _half_width_m(0.0)
    return (place[0] / half_m + 1) / 2, (1 - place[1] / half_m) / 2


def _around(spot: tuple[float, float], reach: float = 0.14) -> np.ndarray:
    """A mask that is True about a spot of the picture."""
    at = (np.arange(_MASK) + 0.5) / _MASK
    mask_HW: np.ndarray = (np.abs(at - spot[1]) < reach)[:, None] & (np.abs(at - spot[0]) < reach)[None]
    return mask_HW
