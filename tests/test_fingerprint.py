"""Fingerprints: the same weights have the same one, others another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from millpond.encoders import load_model
from millpond.encoders.fingerprint import fingerprint

from .tiny_models import TINY_MODELS


def made(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30), nn.Linear(30, 2))
    return module.requires_grad_(False)


def change_first(module: nn.Module) -> None:
    module[0].weight[0, 0] += 1e-3  # type: ignore[index]


def change_bias(module: nn.Module) -> None:
    module[2].bias[1] += 1.0  # type: ignore[index]


def reshape(module: nn.Module) -> None:
    module[0].weight = nn.Parameter(module[0].weight.view(40, 30))  # type: ignore[index]


def rename(module: nn.Module) -> None:
    module.add_module("3", module[0])  # type: ignore[index]
    del module[0]  # type: ignore[attr-defined]


def round_off(module: nn.Module) -> None:
    module.bfloat16()


def widen(module: nn.Module) -> None:
    module.double()


@pytest.mark.parametrize("change", [change_first, change_bias, reshape, rename, round_off, widen])
def test_a_change_shows(change: Callable[[nn.Module], None]) -> None:
    module = made()
    before = fingerprint(module)
    assert before == fingerprint(copy.deepcopy(module)) == fingerprint(made()) and len(before) == 64
    assert int(before, 16) >= 0
    change(module)
    assert fingerprint(module) != before


def test_a_dtype_shows_where_the_values_are_the_same() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    for parameter in (*a.parameters(), *b.parameters()):
        nn.init.ones_(parameter)
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(a) != fingerprint(b.half())


def test_another_seed_shows_and_another_loading_does_not(tmp_path: Path) -> None:
    tiny = TINY_MODELS["qwen2_vl"]
    folders = [tiny.save(tmp_path / "a"), tiny.save(tmp_path / "b"), tiny.save(tmp_path / "c", seed=1)]
    a, b, c = (load_model(folder, device="cpu", dtype=torch.float32).fingerprint for folder in folders)
    assert a == b != c
