"""Slots: the buffers that a feed writes perceptions into, and how a reader takes the newest without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .perception import View

# Shapes: T tokens, D channels of the language model, 3 numbers for each token.


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One perception's buffers. Made by a SlotRing, written by the feed's worker alone, and only while nobody reads."""

    tokens_TD: Tensor
    kept_T3: Tensor
    changed_T: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """What the worker hands over: a written slot, cut to its tokens, and what is known of it. Never written again.

    captured_s: of the oldest view, on `time.monotonic`'s clock.
    num_passed: pictures, of all cameras, that had come until then and are in no perception.
    num_jumps: how often the clocks of all cameras had jumped until then.
    problem: why it must not pass for fresh, however young it is; None where it may.
    """

    slot: Slot
    tokens_TD: Tensor
    kept_T3: Tensor
    changed_T: Tensor
    views: tuple[View, ...]
    captured_s: float
    num_passed: int
    number: int
    problem: str | None = None
    num_jumps: int = 0


class SlotRing:
    """Buffers that go round between one writer and one reader, neither of which ever waits for the other.

        slots       [a] [b] [c] [d]        num_held + 2 of them
        held         a   b                 what the reader took the last `num_held` times
        newest               c             published, and not taken yet
        free                     d         where the writer writes next; always one

    The reader first puts what it is about to take among what is held, then looks whether it is still the newest: the
    writer, who publishes first and looks for a free slot afterwards, has either seen it there, or is seen to have
    published. So no slot is written that somebody may read. Both steps are single assignments.

    num_held: for how many calls of `take` what was taken stays as it is: 1 or more.
    """

    def __init__(self, num_held: int) -> None:
        if isinstance(num_held, bool) or not isinstance(num_held, int) or num_held < 1:
            raise ValueError(f"num_held is how many takes a perception outlives, 1 or more; got {num_held!r}")
        self.num_held = num_held
        self._held: list[Published | None] = [None] * num_held
        self._next_held = 0
        self._newest: Published | None = None
        self._slots: tuple[Slot, ...] = ()

    @property
    def num_places(self) -> int:
        """How many tokens a slot has room for."""
        return self._slots[0].tokens_TD.shape[0] if self._slots else 0

    @property
    def num_bytes(self) -> int:
        tensors = [t for slot in self._slots for t in (slot.tokens_TD, slot.kept_T3, slot.changed_T)]
        return sum(t.numel() * t.element_size() for t in tensors)

    @property
    def newest(self) -> Published | None:
        """What was published last. Its tensors may be written at any moment, until it is taken."""
        return self._newest

    def may_be_written(self, kept_T3: Tensor) -> bool:
        """Whether these places lie in a buffer that is written again, and are not held any more. Places that were
        copied, and those of a buffer that was given up for a larger one, stay as they are."""
        at = kept_T3.untyped_storage().data_ptr()
        if all(slot.kept_T3.untyped_storage().data_ptr() != at for slot in self._slots):
            return False
        # By the tensor itself: the buffer may be held again, with other places in it.
        return not any(held is not None and held.kept_T3 is kept_T3 for held in self._held)

    # The writer's.

    def make_room(self, num_tokens: int, like_TD: Tensor) -> None:
        """Buffers for so many tokens of this kind, where there are none; what was taken before keeps its own."""
        if self._slots and self.num_places >= num_tokens and self._slots[0].tokens_TD.dtype == like_TD.dtype:
            return
        self._slots = tuple(
            Slot(
                torch.zeros(num_tokens, like_TD.shape[1], dtype=like_TD.dtype, device=like_TD.device),
                torch.zeros(num_tokens, 3, dtype=torch.int64),
                torch.zeros(num_tokens, dtype=torch.bool),
            )
            for _ in range(self.num_held + 2)
        )

    def free(self) -> Slot:
        """A slot that nobody reads, nor will."""
        in_use = [published.slot for published in (*self._held, self._newest) if published is not None]
        return next(slot for slot in self._slots if not any(slot is used for used in in_use))

    def publish(self, published: Published) -> None:
        """From now on this is the newest."""
        self._newest = published

    # The reader's.

    def take(self) -> Published | None:
        """The newest, which stays as it is until this was called `num_held` times more; None before the first."""
        while True:
            newest = self._newest
            # Another was published in between: that takes an encoding, so once more is enough.
            if newest is None or self.hold(newest):
                return newest

    def hold(self, newest: Published) -> bool:
        """Takes this, which was the newest just now; False, and it must not be read, where it is not any more."""
        self._held[self._next_held] = newest
        if self._newest is not newest:
            return False
        self._next_held = (self._next_held + 1) % self.num_held
        return True


def publication(
    slot: Slot, views: Sequence[View], captured_s: float, num_passed: int, number: int, problem: str | None
) -> Published:
    """A written slot, cut to the tokens of its views."""
    num_tokens = sum(view.num_tokens for view in views)
    return Published(
        slot,
        slot.tokens_TD[:num_tokens],
        slot.kept_T3[:num_tokens],
        slot.changed_T[:num_tokens],
        tuple(views),
        captured_s,
        num_passed,
        number,
        problem,
        sum(view.num_jumps for view in views),
    )
