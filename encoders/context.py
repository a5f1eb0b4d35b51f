"""Context: what one session's language half can attend to, as rotated keys and values on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..memory import KVBlock, KVSpec

# Shapes: L layers, K key/value heads, C capacity in tokens, T tokens, D channels per head.

_GRANULE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Mark:
    """Made by `Context.mark`, read by `Context.rewind`: an end of the context to come back to."""

    length: int
    next_position: int
    num_fills: int


def rotate(x: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Rotary position embedding (arXiv:2104.09864), operation for operation as transformers applies it."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos_TD + turned * sin_TD


class Context:
    """Made by `VideoLLM.new_context`, written by its `fill`, `read` and `step`: rotated keys, and values.

    Only the first `length` tokens count; the buffers grow by half at a time, so appending costs a constant.
    A call that fails leaves the context as it was, because tokens count only once all layers have them.

    k_LKCD: keys, rotated to the positions at which they stand.
    owner: the model that made it, the only one that can use it.
    """

    def __init__(self, spec: KVSpec, device: torch.device, *, owner: object) -> None:
        self.spec = spec
        self.device = device
        self.owner = owner
        self.length = 0
        self.next_position = 0
        self._num_fills = 0
        self.k_LKCD = self._allocate(0)
        self.v_LKCD = self._allocate(0)

    @property
    def capacity(self) -> int:
        """How many tokens fit before the buffers grow."""
        return int(self.k_LKCD.shape[2])

    @property
    def num_bytes(self) -> int:
        """What the buffers hold on the device, room that is not used yet included."""
        return sum(t.numel() * t.element_size() for t in (self.k_LKCD, self.v_LKCD))

    def mark(self) -> Mark:
        """The present end, for `rewind`."""
        return Mark(self.length, self.next_position, self._num_fills)

    def rewind(self, mark: Mark) -> None:
        """Takes back everything that was read after `mark`; what stood before it is untouched."""
        if mark.num_fills != self._num_fills or mark.length > self.length:
            raise ValueError(
                f"cannot rewind to {mark}: {self!r} was filled anew or rewound further since; take a new mark"
            )
        self.length = mark.length
        self.next_position = mark.next_position

    def clear(self) -> None:
        """Forgets all tokens; buffers stay for the next ones."""
        self.length = 0
        self.next_position = 0
        self._num_fills += 1

    def reserve(self, num_tokens: int) -> None:
        """Makes room for `num_tokens` more."""
        if num_tokens < 0:
            raise ValueError(f"num_tokens must not be negative; got {num_tokens}")
        wanted = self.length + num_tokens
        if wanted <= self.capacity:
            return
        capacity = max(wanted, self.capacity + self.capacity // 2)
        capacity = -(-capacity // _GRANULE_TOKENS) * _GRANULE_TOKENS
        # One after the other, so that no more than one old buffer stands beside the new ones.
        self.k_LKCD = self._grown(self.k_LKCD, capacity)
        self.v_LKCD = self._grown(self.v_LKCD, capacity)

    def fill(self, blocks: Sequence[KVBlock], cos_TD: Tensor, sin_TD: Tensor, *, next_position: int) -> None:
        """Makes the context hold these blocks; cos and sin are those of their tokens' positions, in order."""
        num_tokens = sum(block.num_tokens for block in blocks)
        if cos_TD.shape != (num_tokens, self.spec.head_dim) or sin_TD.shape != cos_TD.shape:
            raise ValueError(
                f"{num_tokens} tokens of {self.spec.head_dim} channels need cos and sin of that shape; "
                f"got {tuple(cos_TD.shape)} and {tuple(sin_TD.shape)}"
            )
        for block in blocks:
            if block.spec != self.spec:
                raise ValueError(f"{block} is of {block.spec}; this context holds {self.spec}")
        self.clear()
        self.reserve(num_tokens)
        stop = 0
        for block in blocks:
            start, stop = stop, stop + block.num_tokens
            k_LKTD = block.k_LKTD.to(self.device, non_blocking=True)
            self.k_LKCD[:, :, start:stop] = rotate(k_LKTD, cos_TD[start:stop], sin_TD[start:stop])
            self.v_LKCD[:, :, start:stop] = block.v_LKTD
        self.commit(num_tokens, next_position)

    def commit(self, num_tokens: int, advance: int) -> None:
        """Counts `num_tokens` more, which all layers have written behind the present end."""
        if self.length + num_tokens > self.capacity:
            raise ValueError(f"{num_tokens} tokens more do not fit {self!r}; call reserve() and write them first")
        self.length += num_tokens
        self.next_position += advance

    def check(self) -> None:
        """Recounts: raises AssertionError where the context contradicts itself."""
        shape = (self.spec.num_layers, self.spec.num_kv_heads, self.capacity, self.spec.head_dim)
        for buffer in (self.k_LKCD, self.v_LKCD):
            if tuple(buffer.shape) != shape or buffer.dtype != self.spec.dtype:
                raise AssertionError(
                    f"a buffer is {tuple(buffer.shape)} {buffer.dtype}; wanted {shape} {self.spec.dtype}"
                )
        if not 0 <= self.length <= self.capacity:
            raise AssertionError(f"{self.length} tokens in buffers for {self.capacity}")
        accounted_bytes = self.capacity * self.spec.bytes_per_token
        if self.num_bytes != accounted_bytes:
            raise AssertionError(f"{self.num_bytes} bytes held; {accounted_bytes} accounted for")
        if not (0 <= self.next_position and (self.length > 0 or self.next_position == 0)):
            raise AssertionError(f"next position {self.next_position} after {self.length} tokens")

    def __repr__(self) -> str:
        return f"Context({self.length} tokens of {self.capacity}, next position {self.next_position})"

    def _allocate(self, capacity: int) -> Tensor:
        spec = self.spec
        return torch.empty(
            (spec.num_layers, spec.num_kv_heads, capacity, spec.head_dim),
            dtype=spec.dtype,
            device=self.device,
        )

    def _grown(self, old_LKCD: Tensor, capacity: int) -> Tensor:
        new_LKCD = self._allocate(capacity)
        new_LKCD[:, :, : self.length] = old_LKCD[:, :, : self.length]
        return new_LKCD
