"""SlabTier: packed blocks in the pages of a slab, and a directory of where they are in a few arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stream import Span
from .block import BlockId, KVSpec, PackedBlock
from .slab import Slab
from .tiers import Tier

_FIRST_ROWS = 8
_GROWTH = 48
_ROW = np.dtype(
    [
        *(("id", "i8"), ("start_s", "f8"), ("end_s", "f8"), ("advance", "i8")),
        *(("num_before", "i4"), ("num_after", "i4"), ("form", "i4"), ("first_page", "i4")),
    ]
)


class _Row(NamedTuple):
    """What differs from block to block; of a free row, `first_page` is the next free one, -1 at the end."""

    id: int = -1
    start_s: float = 0.0
    end_s: float = 0.0
    advance: int = 0
    num_before: int = 0
    num_after: int = 0
    form: int = -1
    first_page: int = -1


class _Buffer(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    num_bytes: int


class _Form(NamedTuple):
    """What blocks of one length have in common."""

    codec: str
    spec: KVSpec
    kind: Literal["frame", "text"]
    num_tokens: int
    buffers: tuple[_Buffer, ...]

    @property
    def num_bytes(self) -> int:
        return sum(buffer.num_bytes for buffer in self.buffers)


class _Forms:
    """The forms of all blocks held, each once, by number."""

    def __init__(self) -> None:
        self.num_uses: dict[int, int] = {}
        self._forms: dict[int, _Form] = {}
        self._numbers: dict[_Form, int] = {}

    def __getitem__(self, number: int) -> _Form:
        return self._forms[number]

    def use(self, form: _Form) -> int:
        number = self._numbers.get(form)
        if number is None:
            number = next(n for n in range(len(self._forms) + 1) if n not in self._forms)
            self._numbers[form] = number
            self._forms[number] = form
        self.num_uses[number] = self.num_uses.get(number, 0) + 1
        return number

    def let_go(self, number: int) -> None:
        self.num_uses[number] -= 1
        if not self.num_uses[number]:
            del self.num_uses[number], self._numbers[self._forms.pop(number)]


class SlabTier(Tier):
    """Blocks in pages of a few large tensors, on the host or on an accelerator.

    Nothing is allocated for a block that comes when another has gone. `num_bytes` is what the pages take, with
    their links and the directory: within a tenth of the bytes kept where blocks have about one length (1 KB or
    more), half a page more a block where they differ. `get` gives a copy, in storage of its own.

    Paper: Efficient Memory Management for Large Language Model Serving with PagedAttention (arXiv 2309.06180)
    Differs from the paper: pages hold bytes at rest, of any codec, and attention does not read them in place; they
        are found by links, not by a table, and pages move so that memory can be given back.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._slab = Slab(self._device)
        self._rows = np.empty(0, _ROW)
        self._free_row = -1
        self._row_by_id: dict[BlockId, int] = {}
        self._forms = _Forms()

    @property
    def device(self) -> torch.device:
        """Where the pages are."""
        return self._device

    @property
    def ids(self) -> Set[BlockId]:
        return self._row_by_id.keys()

    @property
    def num_bytes(self) -> int:
        return self._slab.num_bytes + self._rows.nbytes

    def num_bytes_with(self, block: PackedBlock) -> int:
        return self.num_bytes_with_all([block.num_bytes])

    def num_bytes_with_all(self, lengths_bytes: Iterable[int]) -> int:
        """What `num_bytes` will be after blocks of so many bytes, put one after the other."""
        lengths_bytes = list(lengths_bytes)
        num_rows = len(self._rows)
        for num_used in range(len(self._row_by_id), len(self._row_by_id) + len(lengths_bytes)):
            if num_used == num_rows:
                num_rows += _more_rows(num_rows)
        return self._slab.num_bytes_with(*lengths_bytes) + num_rows * _ROW.itemsize

    def num_bytes_alone(self, block: PackedBlock) -> int:
        return self._slab.num_bytes_alone(block.num_bytes) + _FIRST_ROWS * _ROW.itemsize

    def num_to_drop_for(self, block: PackedBlock, ids: Iterable[BlockId]) -> int:
        """How many of these blocks, that are here, must go until this one fits without growing."""
        if not self._row_by_id:
            return 0
        lengths_bytes = (self.length_bytes(block_id) for block_id in ids)
        num_gone = self._slab.num_strings_to_drop(lengths_bytes, block.num_bytes)
        return max(num_gone, int(len(self._row_by_id) == len(self._rows)))

    def length_bytes(self, block_id: BlockId) -> int:
        """Bytes of the block's buffers; KeyError where it is not here."""
        return self._forms[int(self._rows["form"][self._row_by_id[block_id]])].num_bytes

    def put(self, block: PackedBlock) -> None:
        if block.id in self._row_by_id:
            raise ValueError(f"block {block.id} is in this tier already; drop it before putting it again")
        form, pieces = _taken_apart(block)
        if self._free_row < 0:
            self._resize(len(self._rows) + _more_rows(len(self._rows)))
        row, following = self._free_row, int(self._rows["first_page"][self._free_row])
        first_page = self._slab.put(pieces, row)  # may run out of memory: the books are not touched before
        self._free_row = following
        self._row_by_id[block.id] = row
        self._rows[row] = _Row(
            id=block.id,
            start_s=block.span.start_s,
            end_s=block.span.end_s,
            advance=block.advance,
            num_before=block.num_before,
            num_after=block.num_after,
            form=self._forms.use(form),
            first_page=first_page,
        )

    def get(self, block_id: BlockId) -> PackedBlock | None:
        row = self._row_by_id.get(block_id)
        if row is None:
            return None
        entry = _Row(*self._rows[row].item())
        form = self._forms[entry.form]
        raws = [torch.empty(buffer.num_bytes, dtype=torch.uint8, device=self._device) for buffer in form.buffers]
        self._slab.read(entry.first_page, raws)
        return PackedBlock(
            codec=form.codec,
            spec=form.spec,
            buffers={b.name: raw.view(b.dtype).view(b.shape) for b, raw in zip(form.buffers, raws, strict=True)},
            num_tokens=form.num_tokens,
            advance=entry.advance,
            span=Span(entry.start_s, entry.end_s),
            kind=form.kind,
            id=BlockId(entry.id),
            num_before=entry.num_before,
            num_after=entry.num_after,
        )

    def drop(self, block_id: BlockId) -> None:
        self.drop_untidily(block_id)
        self.tidy()

    def drop_untidily(self, block_id: BlockId) -> None:
        """Lets the block go, and keeps the room that it leaves, unless it was the last one."""
        row = self._row_by_id.pop(block_id, None)
        if row is None:
            return
        if not self._row_by_id:
            self._clear()
            return
        self._slab.drop(int(self._rows["first_page"][row]))
        self._forms.let_go(int(self._rows["form"][row]))
        self._rows[row] = _Row(first_page=self._free_row)
        self._free_row = row

    def tidy(self) -> None:
        """Gives back room that the next blocks will hardly need."""
        for tag, first_page in self._slab.tidy():
            self._rows["first_page"][tag] = first_page
        num_used = len(self._row_by_id)
        if 2 * num_used < len(self._rows) > _FIRST_ROWS:
            self._resize(num_used + _more_rows(num_used))

    def check(self) -> None:
        used = {int(self._rows["id"][row]): row for row in self._row_by_id.values()}
        if used != self._row_by_id:
            raise RuntimeError(f"the directory has {len(self._row_by_id)} blocks; its rows name {len(used)}, or others")
        free = list(self._free_rows())
        if sorted([*free, *used.values()]) != list(range(len(self._rows))):
            raise RuntimeError(f"of {len(self._rows)} rows {len(used)} are used and {len(free)} free, or others")
        num_uses: dict[int, int] = {}
        for row in used.values():
            form = int(self._rows["form"][row])
            num_uses[form] = num_uses.get(form, 0) + 1
        if num_uses != self._forms.num_uses:
            raise RuntimeError(f"{len(num_uses)} forms are used; the books say {len(self._forms.num_uses)}, or others")
        first_pages = self._rows["first_page"]
        self._slab.check((row, int(first_pages[row]), self.length_bytes(BlockId(i))) for i, row in used.items())

    def _clear(self) -> None:
        self._slab = Slab(self._device)
        self._rows = np.empty(0, _ROW)
        self._free_row = -1
        self._row_by_id.clear()
        self._forms = _Forms()

    def _free_rows(self) -> Iterator[int]:
        row = self._free_row
        while row >= 0:
            yield row
            row = int(self._rows["first_page"][row])

    def _resize(self, num_rows: int) -> None:
        """Moves all blocks to the first of so many rows."""
        rows = np.empty(num_rows, _ROW)
        num_used = len(self._row_by_id)
        if num_used == len(self._rows):  # it grows: every block stays in its row
            rows[:num_used] = self._rows
        else:
            rows[:num_used] = self._rows[list(self._row_by_id.values())]
            for row, block_id in enumerate(self._row_by_id):
                self._row_by_id[block_id] = row
                self._slab.retag(int(rows["first_page"][row]), row)
        rows[num_used:] = _Row()
        rows["first_page"][num_used:-1] = np.arange(num_used + 1, num_rows)
        self._rows = rows
        self._free_row = num_used


def _more_rows(num_rows: int) -> int:
    return max(_FIRST_ROWS, num_rows // _GROWTH)


def _taken_apart(block: PackedBlock) -> tuple[_Form, list[Tensor]]:
    buffers: list[_Buffer] = []
    pieces: list[Tensor] = []
    for name, tensor in block.buffers.items():
        pieces.append(tensor.detach().contiguous().reshape(-1).view(torch.uint8))
        buffers.append(_Buffer(name, tensor.dtype, tuple(tensor.shape), len(pieces[-1])))
    return _Form(block.codec, block.spec, block.kind, block.num_tokens, tuple(buffers)), pieces
