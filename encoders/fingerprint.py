"""Fingerprint: whether keys and values come from the same weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

_VALUES_EACH = 16


@torch.inference_mode()
def fingerprint(module: nn.Module) -> str:
    """64 hexadecimal digits that differ where names, shapes, dtypes or weights differ.

    A few evenly spaced values of every parameter are looked at: enough to tell checkpoints and fine-tunings apart, and
    read in a second where hashing all of them takes minutes.
    """
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        flat = parameter.detach().flatten()
        step = max(1, flat.numel() // _VALUES_EACH)
        values = flat[::step][:_VALUES_EACH].to(device="cpu", dtype=torch.float32)
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
