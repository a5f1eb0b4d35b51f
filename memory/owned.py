"""Tensors that pin no more memory than they show: what is kept, and counted, has a storage of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from .block import KVBlock


def owned(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """The same values on `device`, in a storage exactly as large; the tensor itself where that holds already.

    A slice of a large buffer keeps the whole buffer alive, whatever its own size says: it is copied out.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    tensor = tensor.to(device or tensor.device)
    if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def owned_block(block: KVBlock) -> KVBlock:
    """The block, on its device, with every tensor owned; the block itself where that holds already."""
    k, v, pos = owned(block.k_LKTD), owned(block.v_LKTD), owned(block.pos_3T)
    q = None if block.q_LKPD is None else owned(block.q_LKPD)
    if k is block.k_LKTD and v is block.v_LKTD and pos is block.pos_3T and q is block.q_LKPD:
        return block
    return replace(block, k_LKTD=k, v_LKTD=v, pos_3T=pos, q_LKPD=q)


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind the tensors: the recount that `num_bytes` is held to."""
    return sum(t.untyped_storage().nbytes() for t in tensors)
