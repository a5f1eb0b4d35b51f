"""Novel: what is new at a place stays, what was there before goes, and noise is not new."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM, load_model
from millpond.encoders.model import Row
from millpond.memory import KVBlock
from millpond.memory.pruners import Pruner
from millpond.memory.pruners.held import MOST_PLACES
from millpond.memory.pruners.novel import Novel
from millpond.stream import Frame
from millpond.stream.render import render
from millpond.stream.world import make_world

from .blocks import make_block

# Shapes: T tokens, D channels per head, N frames, H height, W width.

SHAPE_LKD = (3, 2, 8)
SEEN = 24
WORDS = 3


def frame(number: int, picture_TD: torch.Tensor, *, num_before: int = WORDS) -> KVBlock:
    """A block whose first layer shows the picture; all above is chance, as context makes it."""
    num_layers, num_heads, head_dim = SHAPE_LKD
    num_tokens = num_before + picture_TD.shape[0]
    k_LKTD, v_LKTD = torch.randn(2, num_layers, num_heads, num_tokens, head_dim)
    width = num_heads * head_dim
    for x_LKTD, part_TD in ((k_LKTD, picture_TD[:, :width]), (v_LKTD, picture_TD[:, width:])):
        x_LKTD[0, :, num_before:] = part_TD.unflatten(1, (num_heads, head_dim)).transpose(0, 1)
    return make_block(
        float(number),
        shape_LKD=SHAPE_LKD,
        num_tokens=num_tokens,
        num_before=num_before,
        k_LKTD=k_LKTD,
        v_LKTD=v_LKTD,
    )


def picture(num_tokens: int = SEEN) -> torch.Tensor:
    return torch.randn(num_tokens, 2 * SHAPE_LKD[1] * SHAPE_LKD[2])


def kept_places(pruner: Pruner, pictures: list[torch.Tensor]) -> list[list[int]]:
    """Places that are kept, picture by picture; the number of words before changes on the way."""
    run, places = pruner.start(), []
    for number, picture_TD in enumerate(pictures):
        block = frame(number, picture_TD, num_before=WORDS + number % 2)
        kept = run.prune(block)
        run.check()
        assert kept is not None
        places.append((kept.pos_3T[0, kept.visual] - kept.num_before).tolist())
    return places


def test_what_was_there_goes_and_what_is_new_stays() -> None:
    torch.manual_seed(0)
    first = picture()
    second = first.clone()
    second[[4, 17]] = picture(2)
    kept = kept_places(Novel(keep_tokens=SEEN), [first, first, second, second, first])
    assert kept[0] == list(range(SEEN))
    assert len(kept[1]) == len(kept[3]) == 1, "a block keeps one visual token at least"
    assert kept[2] == kept[4] == [4, 17]


def test_noise_is_not_new_and_what_moves_in_it_is() -> None:
    torch.manual_seed(1)
    scene = picture()
    pictures = [scene + 0.15 * torch.randn_like(scene) for _ in range(20)]
    pictures[12] = pictures[12].clone()
    pictures[12][7] = picture(1)[0]
    kept = kept_places(Novel(keep_tokens=SEEN, refresh_blocks=1000), pictures)
    assert kept[12] == [7]
    assert all(len(places) == 1 for places in kept[2:12])
    # The same noise with no eye for it: most places seem new.
    deaf = kept_places(Novel(keep_tokens=SEEN, refresh_blocks=1000, most=0.05), pictures)
    assert min(len(places) for places in deaf[1:]) > SEEN // 2


def test_slow_drift_adds_up() -> None:
    torch.manual_seed(2)
    start, end = picture(), picture()
    pictures = [start + (end - start) * step / 200 for step in range(201)]
    kept = kept_places(Novel(keep_tokens=SEEN, refresh_blocks=10**6), pictures)
    spoke = [sum(place in places for places in kept[1:]) for place in range(SEEN)]
    # Each step is a 200th of the way, under the lowest threshold; each place is heard again on it.
    assert min(spoke) >= 4


def test_the_cap_holds_and_what_waits_asks_again() -> None:
    torch.manual_seed(3)
    scene = picture()
    kept = kept_places(Novel(keep_tokens=5), [scene] * 6)
    assert [len(places) for places in kept] == [5, 5, 5, 5, 4, 1]
    assert sorted(place for places in kept[:5] for place in places) == list(range(SEEN))


def test_nobody_is_silent_for_longer_than_refresh_blocks() -> None:
    torch.manual_seed(4)
    scene = picture()
    kept = kept_places(Novel(keep_tokens=SEEN, refresh_blocks=8), [scene] * 40)
    for place in range(SEEN):
        heard = [number for number, places in enumerate(kept) if place in places]
        assert max(b - a for a, b in zip(heard, [*heard[1:], 40], strict=True)) <= 8
    assert max(len(places) for places in kept[1:]) <= SEEN // 8 + 2, "all are refreshed at once"


def test_agrees_with_a_slow_twin() -> None:
    torch.manual_seed(5)
    scene, pictures = picture(), []
    for number in range(30):
        scene = scene + 0.02 * torch.randn_like(scene)
        scene[number % SEEN] = picture(1)[0]
        pictures.append(scene)
    pruner = Novel(keep_tokens=6, refresh_blocks=20)
    run, kept, blocks = pruner.start(), [], []
    for number, picture_TD in enumerate(pictures):
        blocks.append(frame(number, picture_TD))
        left = run.prune(blocks[-1])
        assert left is not None
        kept.append((left.pos_3T[0, left.visual] - left.num_before).tolist())
    assert kept == slow_twin(pruner, blocks)


def slow_twin(pruner: Novel, blocks: list[KVBlock]) -> list[list[int]]:
    """Token by token, in Python: for pictures of one size."""

    def first(x: torch.Tensor, token: int) -> list[float]:
        return x[0, :, token].flatten().double().tolist()

    def square(a: list[float], b: list[float]) -> float:
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    held: dict[int, tuple[list[float], list[float]]] = {}
    silent: dict[int, float] = {}
    noise: list[float] = []
    last: list[tuple[list[float], list[float]]] = []
    chosen: list[list[int]] = []
    for block in blocks:
        everything = [(first(block.k_LKTD, t), first(block.v_LKTD, t)) for t in range(block.num_tokens)]
        now = everything[block.visual]
        spread = []
        for part in (0, 1):
            middle = [sum(c) / len(everything) for c in zip(*(one[part] for one in everything), strict=True)]
            spread.append(sum(square(one[part], middle) for one in everything) / len(everything))

        def far(a: tuple[list[float], ...], b: tuple[list[float], ...], spread: list[float] = spread) -> float:
            return math.sqrt(sum(square(a[part], b[part]) / spread[part] for part in (0, 1)) / 2)

        if last:
            steps = sorted(far(a, b) for a, b in zip(now, last, strict=True))
            noise = [*noise, steps[int(0.25 * (len(steps) - 1))]][-64:]
        floor = sorted(noise)[int(0.25 * (len(noise) - 1))] if noise else 0.0
        threshold = min(pruner.most, max(pruner.least, pruner.noise_multiple * floor))
        middle = tuple([sum(c) / len(now) for c in zip(*(one[part] for one in now), strict=True)] for part in (0, 1))
        urge = []
        for token, one in enumerate(now):
            if token in held:
                urge.append(max(far(one, held[token]) / threshold, (silent[token] + 1.5) / pruner.refresh_blocks))
            else:
                urge.append(1 + (1 + far(one, middle)) / threshold)
        ranked = sorted(range(len(now)), key=lambda t: -urge[t])
        num_due = max(1, sum(one > 1 for one in urge))
        picked = sorted(ranked[: min(num_due, pruner.keep_tokens)])
        silent = {token: blocks_silent + 1 for token, blocks_silent in silent.items()}
        for token in picked:
            silent[token] = 0 if token in held else token * pruner.refresh_blocks // len(now)
            held[token] = now[token]
        last = now
        chosen.append(picked)
    return chosen


def test_places_are_found_whatever_is_missing() -> None:
    torch.manual_seed(6)
    scene = picture()
    run = Novel(keep_tokens=SEEN).start()
    run.prune(frame(0, scene))
    # A compressor left every other place out; the rest was seen before.
    whole = frame(1, scene)
    index = torch.cat([torch.arange(WORDS), torch.arange(WORDS, WORDS + SEEN, 2)])
    thin = make_block(
        1.0,
        shape_LKD=SHAPE_LKD,
        num_tokens=len(index),
        num_before=WORDS,
        k_LKTD=whole.k_LKTD[:, :, index],
        v_LKTD=whole.v_LKTD[:, :, index],
        pos_3T=whole.pos_3T[:, index],
    )
    kept = run.prune(thin)
    assert kept is not None and kept.num_tokens == WORDS + 1


def test_places_without_end_are_not_held() -> None:
    run = Novel(keep_tokens=700).start()
    for number in range(9):
        block = make_block(float(number), num_tokens=700, shape_LKD=(1, 1, 2))
        block.pos_3T[:] += 1000 * number
        run.prune(block)
        run.check()
    assert run.num_bytes < MOST_PLACES * (3 * 8 + 8 + 2 * 2 * 4) + 700 * (3 * 8 + 2 * 2 * 4) + 1000


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"refresh_blocks": 0}, "refresh_blocks must be at least 1; got 0"),
        ({"noise_multiple": 0.5}, "noise_multiple must be at least 1; got 0.5"),
        ({"noise_multiple": math.nan}, "noise_multiple must be at least 1; got nan"),
        ({"least": 0.0}, r"in \(0, 2\]; got 0.0 and 0.75"),
        ({"least": 0.9}, r"in \(0, 2\]; got 0.9 and 0.75"),
    ],
)
def test_refuses_bad_settings(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Novel(**wrong)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


def read(model: VideoLLM, pictures_NHW3: np.ndarray) -> list[KVBlock]:
    """Blocks of frames, each read after all before it."""
    frames = [Frame(rgb, float(n), "w", n) for n, rgb in enumerate(pictures_NHW3)]
    (blocks,) = model.read([Row(model.new_context(), tuple(model.see(frames)))])
    return blocks


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_still_scene_costs_hardly_more_than_its_words(model: VideoLLM, noise: float) -> None:
    still = render(make_world(3, aspect=4 / 3), [8.0], width=320, height=240).rgb_NHW3[0]
    rng = np.random.default_rng(0)
    pictures = np.clip(still + rng.normal(0, 255 * noise, (16, *still.shape)), 0, 255).astype(np.uint8)
    run = Novel(keep_tokens=64).start()
    kept = [run.prune(block) for block in read(model, pictures)]
    counts = [block.num_tokens - block.num_before for block in kept if block is not None]
    assert counts[0] == 37
    assert counts[2:] == [1] * 14


def test_a_scene_that_changes_keeps_the_changes(model: VideoLLM) -> None:
    world = make_world(3, aspect=4 / 3)
    pictures = render(world, [float(t) for t in range(16)], width=320, height=240).rgb_NHW3
    changed_by = np.abs(np.diff(pictures.astype(int), axis=0)).max(-1)
    run = Novel(keep_tokens=64).start()
    num_changed = num_kept = 0
    for number, block in enumerate(read(model, pictures)):
        kept = run.prune(block)
        assert kept is not None
        places = (kept.pos_3T[0, kept.visual] - kept.num_before).tolist()
        if number:
            cells = changed_by[number - 1].reshape(6, 40, 320)
            for place in range(36):
                column = slice(place % 6 * 320 // 6, (place % 6 + 1) * 320 // 6)
                if cells[place // 6, :, column].mean() > 25:
                    num_changed += 1
                    num_kept += place in places
    assert num_changed >= 10
    assert num_kept >= 0.9 * num_changed
