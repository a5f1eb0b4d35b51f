"""Processes that learn together: each takes its part of every batch, and all take the same step.

A step on two threads is not twice as fast as on one: what lies between the large products runs on one. Two processes
of a thread each share all of it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


class Team(NamedTuple):
    """rank: which of the processes this one is. size: how many there are. Made by `run_together`."""

    rank: int = 0
    size: int = 1

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Gradients become their mean over the team. What has none in any process still has none.

        DistributedDataParallel wants one module with one forward pass; a step here has the model's halves and heads,
        and leaves the tower out of it in some stages."""
        if self.size == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters])
        dist.all_reduce(has, dist.ReduceOp.MAX)
        learning = [p for p, one in zip(parameters, has.tolist(), strict=True) if one]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = torch.cat([grad.flatten() for grad in grads]).div_(self.size)
        dist.all_reduce(flat)
        for p, grad in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
            p.grad = grad.view_as(p)


def run_together(size: int, work: Callable[..., None], *args: Any) -> None:
    """Calls `work(team, *args)` in so many processes, which end together; in this one where it is alone."""
    if size == 1:
        work(Team(), *args)
        return
    with TemporaryDirectory() as folder:
        mp.spawn(_join, (size, Path(folder) / "meet", work, args), nprocs=size)


def _join(rank: int, size: int, meet: Path, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    # Torch sends it to whoever outlives the one that spawned them; a shell has what runs behind it ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
    try:
        work(Team(rank, size), *args)
    finally:
        dist.destroy_process_group()
