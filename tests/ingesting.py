"""A process whose children ingest until they are killed: `python ingesting.py`; each line a directory, a pause
in seconds and a pruner.

Loading a model takes seconds, so it is loaded once and every child is forked from it. The child answers with its
process id, then, as it goes, with `pushed N` after each frame and `rest N` when all that was read of the first N frames
is at rest.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time

import numpy as np
import torch
from transformers import AutoConfig

from millpond.encoders import VideoLLM, load_model
from millpond.encoders.load import BUILT_IN
from millpond.memory import MemoryConfig
from millpond.pipeline import Engine, EngineConfig, HistoryConfig
from millpond.stream import Frame
from millpond.stream.render import render
from millpond.stream.world import make_world

NUM_LAYERS: int = AutoConfig.from_pretrained(BUILT_IN["millpond/mini"]).text_config.num_hidden_layers
"""A block of keys and values is as large as the model is deep."""
NUM_FRAMES = 240
FLUSH_EVERY_S = 0.25


def frames_of(seed: int, num_frames: int = NUM_FRAMES) -> list[Frame]:
    """A stream of worlds, one after the other, a frame a second."""
    frames: list[Frame] = []
    while len(frames) < num_frames:
        world = make_world(seed + len(frames), duration_s=24.0, aspect=4 / 3)
        for rgb_HW3 in render(world, [float(t) for t in range(24)], width=96, height=72).rgb_NHW3:
            frames.append(Frame(np.ascontiguousarray(rgb_HW3), float(len(frames)), "cam", len(frames)))
    return frames[:num_frames]


def config(pruner: str = "live_vlm") -> EngineConfig:
    """Tiers so small that they fill, and blocks are evicted, while a child lives.

    In a slab, what came and went before decides whether one block more has room; in a dictionary only its bytes do.
    There the oldest go, so that what stays has no gap.
    """
    tier, evictor = ("slab", "least_novel") if pruner == "novel" else ("host", "oldest")
    return EngineConfig(
        memory=MemoryConfig(
            recent_frames=4,
            recall_blocks=6,
            budget_bytes=80_000 * NUM_LAYERS,
            pruner=pruner,
            tier=tier,
            evictor=evictor,
            codec="adaptive",
        ),
        history=HistoryConfig(flush_every_s=FLUSH_EVERY_S, archive_bytes=4 * 2**20, log_bytes=2**20),
        chunk_frames=2,
        reuse="none",
    )


def _say(words: str) -> None:
    """In one write, so that whoever is killed has said all of it or nothing."""
    os.write(sys.stdout.fileno(), f"{words}\n".encode())


def _ingest(model: VideoLLM, frames: list[Frame], where: str, pause_s: float, pruner: str) -> None:
    faulthandler.dump_traceback_later(20, exit=True)  # a child that hangs says where
    with Engine(config(pruner), model=model) as engine:
        session = engine.session("cam", at=where)
        _say("open")
        for number, frame in enumerate(frames, 1):
            session.push(frame)
            if number % 7 == 0:
                session.history.note(f"frame number {number} has passed", session.memory.recent[-1].span)
            stats = session.history.writer_stats
            assert stats is not None
            at_rest = f"rest {session.memory.stats.num_appended}\n" if stats.num_waiting == 0 else ""
            _say(f"{at_rest}pushed {number}")
            time.sleep(pause_s)
        while True:  # until it is killed
            _say("done")
            time.sleep(0.05)


def main() -> None:
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    model, frames = load_model("millpond/mini"), frames_of(11)
    _say("ready")
    for line in sys.stdin:
        where, pause_s, pruner = line.split()
        child = os.fork()
        if child == 0:
            _say(f"child {os.getpid()}")  # by the child, so that it stands before all else that it says
            _ingest(model, frames, where, float(pause_s), pruner)
            os._exit(0)
        os.waitpid(child, 0)
        _say("gone")


if __name__ == "__main__":
    main()
