"""Reuser: how frames become tokens when those before them are known. The contract, and the list of what there is."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ...stream import Frame
from ...stream.change import ChangeMap
from ...stream.table import Table
from ..model import VisionHalf
from ..sight import Need, Sight
from ..towers import Tower

# Shapes: H rows and W columns of a mask.


@dataclass(slots=True)
class ReuseStats:
    """How one stream's blocks of frames were encoded. Kept by a run, read by benchmarks and metrics.

    num_copied: blocks in which nothing had changed.
    num_partial: blocks of which some patches were computed.
    num_full: blocks computed whole, and kept to be used again.
    num_dense: blocks computed whole without keeping anything, because that is faster for this stream.
    num_patches, num_recomputed: patches of all blocks, and those of them that went through the tower.
    """

    num_copied: int = 0
    num_partial: int = 0
    num_full: int = 0
    num_dense: int = 0
    num_patches: int = 0
    num_recomputed: int = 0

    @property
    def num_blocks(self) -> int:
        return self.num_copied + self.num_partial + self.num_full + self.num_dense

    @property
    def recomputed_share(self) -> float:
        """Share of the patches that went through the tower; 1 before the first."""
        return self.num_recomputed / self.num_patches if self.num_patches else 1.0


class Computed(NamedTuple):
    """What of a stream's newest block went through the tower. Made by a seer, read by whoever shows it.

    pts_s: of its last frame. mask_HW: bool, rows by columns of patches; None: all of them.
    """

    pts_s: float
    grid_hw: tuple[int, int]
    mask_HW: np.ndarray | None

    @property
    def patches(self) -> list[int]:
        """Raster indices of those that were computed."""
        num_patches = self.grid_hw[0] * self.grid_hw[1]
        return list(range(num_patches)) if self.mask_HW is None else np.flatnonzero(self.mask_HW).tolist()


class SeerRun:
    """One stream's state. Made by `Seer.start`, given back to `Seer.see` with the stream's next frames.

    Not thread-safe, and not to be shared: one per stream. `require_fresh` alone may be called by any thread: what it
    says holds from the next frame on.

    fresh: masks of what must be fresh, by who wants it; bool, each laid over the whole picture. Replaced, never
        written.
    change: how the last block's pixels differ from what their patches were last encoded from; None where that was not
        looked at.
    computed: of the newest block; None before the first. Replaced and never changed, so that any thread may read it.
    """

    def __init__(self) -> None:
        self.stats = ReuseStats()
        self.computed: Computed | None = None
        self.fresh: dict[str, np.ndarray] = {}
        self.change: ChangeMap | None = None
        self.last_call = 0

    def require_fresh(self, mask_HW: np.ndarray | None, *, owner: str = "caller") -> None:
        """From now on, whatever lies under True is computed anew in every frame; None: nothing has to be.

        mask_HW: bool, of any shape: it is laid over the whole picture.
        owner: who wants it: what several want is joined, and each takes back what is its own.
        """
        others = {name: mask for name, mask in self.fresh.items() if name != owner}
        self.fresh = others if mask_HW is None else others | {owner: checked_mask(mask_HW)}

    def reset(self) -> None:
        """Forgets what was seen: the next frame is computed whole."""

    @property
    def num_bytes(self) -> int:
        """What is held for this stream."""
        return 0


R = TypeVar("R", bound=SeerRun)


class Seer(ABC, Generic[R]):
    """A reuser over one model: makes runs, and sees with them. Not thread-safe: it belongs to an engine's thread.

    Between calls all runs together hold at most `budget_bytes`: those not seen for longest forget.
    """

    def __init__(self, budget_bytes: int) -> None:
        if isinstance(budget_bytes, bool) or not isinstance(budget_bytes, int) or budget_bytes < 0:
            raise ValueError(f"budget_bytes must be a whole number, not negative; got {budget_bytes!r}")
        self.budget_bytes = budget_bytes
        # Weak: a stream that ended takes what it held along.
        self._runs: weakref.WeakSet[R] = weakref.WeakSet()
        self._num_calls = 0

    @abstractmethod
    def start(self) -> R:
        """A fresh state for one stream."""

    @abstractmethod
    def see(
        self, asked: Sequence[tuple[R, Sequence[Frame]]], needs: frozenset[Need] = frozenset()
    ) -> list[list[Sight]]:
        """The next frames of some streams, each with its run, to what is seen: for each stream, a Sight for each block.

        needs: what the sights must hold besides tokens. Every stream may be asked for once in a call.
        """

    @property
    def num_bytes(self) -> int:
        """What all runs hold together."""
        return sum(run.num_bytes for run in self._runs)

    def _enroll(self, run: R) -> R:
        self._runs.add(run)
        return run

    def _keep_to_budget(self, seen: Iterable[R]) -> None:
        """Marks runs as just seen, and lets others forget until all fit."""
        self._num_calls += 1
        for run in seen:
            run.last_call = self._num_calls
        held_bytes = self.num_bytes
        for run in sorted(self._runs, key=lambda run: run.last_call):
            if held_bytes <= self.budget_bytes:
                return
            held_bytes -= run.num_bytes
            run.reset()
            held_bytes += run.num_bytes


class Reuser(ABC):
    """A frozen recipe that says what of the work on earlier frames is used again.

    Promises, checked for every row of REUSERS on every family: a stream's first frame gives what `VideoLLM.see`
    gives; tokens are the caller's own, and writing into them changes nothing later; streams do not touch each
    other, seen together or apart; chunks of any length give the same tokens as frames one by one; a picture that
    changes its size starts anew; state is bounded in bytes.
    """

    @abstractmethod
    def over(self, model: VisionHalf, *, budget_bytes: int = 2 * 2**30) -> Seer[Any]:
        """This recipe on that model.

        budget_bytes: cap on what all runs hold; over it, the run not seen for longest forgets.
        Raises ValueError for a model whose tower cannot be taken apart, where the recipe needs that.
        """


REUSERS: Table[Reuser] = Table(
    "reuser", __package__ or "", {"delta": "delta:DeltaReuse", "none": "none:NoReuse", "stc": "stc:STCCacher"}
)


def tower_of(model: VisionHalf, who: str) -> Tower:
    """The model's tower, or a ValueError that says who wants it."""
    if model.tower is None:
        raise ValueError(
            f"{who} needs a vision tower that can be taken apart, and {model.spec.name} ({model.spec.family}) has "
            "none; take reuse='none' and a compressor that looks at tokens alone"
        )
    return model.tower


def blocks_of(model: VisionHalf, frames: Sequence[Frame]) -> list[Sequence[Frame]]:
    """Frames in the groups that the tower takes together; the last one may be short."""
    step = model.spec.frames_per_block
    return [frames[i : i + step] for i in range(0, len(frames), step)]


def check_once(asked: Sequence[tuple[SeerRun, Sequence[Frame]]]) -> None:
    """ValueError where one stream is asked for twice in a call: it has one state, and its frames one order."""
    if len({id(run) for run, _ in asked}) < len(asked):
        raise ValueError(f"a stream may be seen once in a call; got {len(asked)} requests, two of them of one run")


def checked_mask(mask_HW: np.ndarray) -> np.ndarray:
    """A copy of a mask of what must be fresh. Raises ValueError for what is none."""
    given = np.asarray(mask_HW)
    if given.ndim != 2 or given.dtype != np.bool_ or not given.size:
        raise ValueError(
            f"a mask of what must be fresh is a bool array of rows and columns; got {given.dtype} {given.shape}"
        )
    return given.copy()
