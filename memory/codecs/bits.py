"""Small codes in bytes: 8, 4, 2 or 1 to a byte by their bits, or 5 of three levels to a byte."""

from __future__ import annotations

import torch
from torch import Tensor

_PER_BYTE = {2: 8, 3: 5, 4: 4, 16: 2, 256: 1}


def packed_bytes(num_codes: int, num_levels: int) -> int:
    """Bytes that `pack_codes` makes of so many codes."""
    return -(-num_codes // _per_byte(num_levels))


def pack_codes(codes: Tensor, num_levels: int) -> Tensor:
    """uint8 codes below `num_levels`, of any shape, as a 1-D uint8 tensor; the last byte is filled up with zeros."""
    per_byte = _per_byte(num_levels)
    flat = codes.reshape(-1)
    if per_byte == 1:
        return flat.clone()
    missing = -flat.numel() % per_byte
    if missing:
        flat = torch.cat([flat, flat.new_zeros(missing)])
    columns = flat.view(-1, per_byte)
    packed = columns[:, 0].clone()
    for place in range(1, per_byte):
        packed += columns[:, place] * num_levels**place
    return packed


def unpack_codes(packed: Tensor, num_levels: int, shape: tuple[int, ...]) -> Tensor:
    """The uint8 codes again; ValueError unless `packed` is uint8 and holds exactly so many."""
    per_byte = _per_byte(num_levels)
    count = int(torch.Size(shape).numel())
    wanted = packed_bytes(count, num_levels)
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (wanted,):
        raise ValueError(
            f"{count} codes of {num_levels} levels are {wanted} bytes of uint8; got {packed.dtype} "
            f"{tuple(packed.shape)}; pass what pack_codes made of them"
        )
    if per_byte == 1:
        return packed.reshape(shape)
    columns = torch.empty(wanted, per_byte, dtype=torch.uint8, device=packed.device)
    bits = num_levels.bit_length() - 1
    for place in range(per_byte):
        if num_levels == 3:  # a byte above 242 was never written; it still gives codes of 0 to 2
            columns[:, place] = packed.div(3**place, rounding_mode="floor") % 3
        else:
            columns[:, place] = (packed >> (bits * place)) & (num_levels - 1)
    return columns.view(-1)[:count].view(shape)


def _per_byte(num_levels: int) -> int:
    if num_levels not in _PER_BYTE:
        raise ValueError(f"codes have one of {sorted(_PER_BYTE)} levels; got {num_levels}")
    return _PER_BYTE[num_levels]
