"""A policy acts on what the robot feed shows: pi0 over real cameras, with and without its savings."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from millpond.encoders.policies import SAVINGS, Chunk, Observation, PI0Policy, PolicyRun
from millpond.encoders.policies.eyes import PI0Eyes, scattered
from millpond.encoders.reuse import Reuser
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.none import NoReuse
from millpond.pipeline.robot import Camera, Perception, RobotFeed
from millpond.stream import Frame, Source

from .robot_cameras import PATIENCE_S, HandCamera, PacedCamera, show, world_pictures
from .tiny_pi0 import TOKENS, inputs, tiny_pi0

NEAR = {"atol": 1e-4, "rtol": 1e-4}
LONG_S = 1e6
NUM_CAMERAS, NUM_WORDS, GRID_HW = 2, 5, (4, 4)
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "vla_cache": {"relevant_share": 0.2, "still_share": 0.8},
    "vla_pruner": {"prune_layer": 1, "window": 2, "keep_share": 0.4},
}
GIVEN = inputs(NUM_CAMERAS, num_words=NUM_WORDS)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy() -> PI0Policy:
    return PI0Policy(tiny_pi0())


@pytest.fixture(scope="module")
def eyes(policy: PI0Policy) -> PI0Eyes:
    return PI0Eyes(policy)


def feed_of(eyes: PI0Eyes, *sources: Source, reuse: Reuser | None = None, **settings: Any) -> RobotFeed:
    cameras = [Camera(source) for source in sources]
    return RobotFeed(cameras, eyes, fit=eyes.square, reuse=reuse or NoReuse(), pair_tolerance_s=PATIENCE_S, **settings)


def shown(feed: RobotFeed, *given: tuple[HandCamera, np.ndarray]) -> Perception:
    """What the feed has once it has seen all of these."""
    show(feed, *given)
    return feed.latest(LONG_S)


def act(policy: PI0Policy, eyes: PI0Eyes, run: PolicyRun, perception: Perception) -> Chunk:
    """As a control loop would: from nothing but the perception."""
    x_CPD, present_CP = scattered(perception.tokens_TD, perception.kept_T3, NUM_CAMERAS, GRID_HW)
    pixels_C3HW = eyes.pixels([view.frame for view in perception.views if view.frame is not None])
    seen = Observation(GIVEN["input_ids"], GIVEN["state"], x_CPD, pixels_C3HW=pixels_C3HW, present_CP=present_CP)
    return policy.act(run, seen, noise_1AJ=GIVEN["noise"])


def act_on(policy: PI0Policy, eyes: PI0Eyes, run: PolicyRun, *pictures: np.ndarray) -> Chunk:
    """The slow twin: the same pictures through the whole tower, without a feed."""
    pixels_C3HW = eyes.pixels([eyes.square(Frame(picture, 0.0)) for picture in pictures])
    seen = Observation(GIVEN["input_ids"], GIVEN["state"], policy.see(pixels_C3HW), pixels_C3HW=pixels_C3HW)
    return policy.act(run, seen, noise_1AJ=GIVEN["noise"])


@pytest.mark.parametrize("name", sorted(SAVINGS))
def test_it_acts_on_the_newest_view(policy: PI0Policy, eyes: PI0Eyes, name: str) -> None:
    saving = SAVINGS[name](**SETTINGS[name])
    run, twin = policy.start(saving), policy.start(saving)
    top, wrist = HandCamera("top"), HandCamera("wrist")
    num_tokens, old = NUM_CAMERAS * TOKENS + NUM_WORDS, None
    with feed_of(eyes, top, wrist) as feed:
        for number in range(5):
            pictures = world_pictures()[4 * number], world_pictures(seed=4)[20 + number]
            perception = shown(feed, (top, pictures[0]), (wrist, pictures[1]))
            ours, wanted = act(policy, eyes, run, perception), act_on(policy, eyes, twin, *pictures)
            torch.testing.assert_close(ours.actions_AJ, wanted.actions_AJ, **NEAR)
            assert ours.rows_per_layer == wanted.rows_per_layer and ours.rows_per_layer[0] == num_tokens
            assert old is None or not torch.allclose(ours.actions_AJ, old.actions_AJ, atol=1e-3), (
                "an older view would show"
            )
            old = ours
    assert (ours.rows_per_layer[-1] < num_tokens) == (name != "none")


@pytest.mark.parametrize("name", sorted(SAVINGS))
def test_what_it_acts_on_stays_while_cameras_and_feed_go_on(policy: PI0Policy, eyes: PI0Eyes, name: str) -> None:
    """Cameras, the feed's worker and the policy each in a thread of its own, over one model."""
    sources = [PacedCamera("top", rate_hz=20.0), PacedCamera("wrist", world_pictures(seed=4), rate_hz=15.0)]
    run = policy.start(SAVINGS[name](**SETTINGS[name]))
    twin = policy.start(run.saving)
    with feed_of(eyes, *sources) as feed:
        last = -1
        for _ in range(4):
            perception = feed.async_read(PATIENCE_S, max_age_s=LONG_S)
            assert perception.number > last
            last = perception.number
            ours = act(policy, eyes, run, perception)
            frames = [view.frame for view in perception.views]
            pictures = [source.picture(frame.index) for source, frame in zip(sources, frames, strict=True) if frame]
            wanted = act_on(policy, eyes, twin, *pictures)
            torch.testing.assert_close(ours.actions_AJ, wanted.actions_AJ, **NEAR)
            assert len(pictures) == NUM_CAMERAS
        ends_s = time.monotonic() + PATIENCE_S
        while feed.num_encoded < last + 4:  # more than there are buffers
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        torch.testing.assert_close(
            act(policy, eyes, policy.start(), perception).actions_AJ, dense_actions(policy, eyes, pictures), **NEAR
        )


def dense_actions(policy: PI0Policy, eyes: PI0Eyes, pictures: list[np.ndarray]) -> torch.Tensor:
    return act_on(policy, eyes, policy.start(), *pictures).actions_AJ


def test_where_it_looked_is_kept_fresh_in_the_pictures_to_come(policy: PI0Policy, eyes: PI0Eyes) -> None:
    top, wrist = HandCamera("top"), HandCamera("wrist")
    still = (top, world_pictures()[4]), (wrist, world_pictures(seed=4)[4])
    with feed_of(eyes, top, wrist, reuse=DeltaReuse(falls_back=False), fresh_share=0.2) as feed:
        show(feed, *still)
        perception = shown(feed, *still)
        assert sum(stats.num_partial for stats in feed.stats.values()) == 0, "nothing moved, so nothing was computed"
        chunk = act(policy, eyes, policy.start(), perception)
        feed.observe_attention(chunk.looked_CP.flatten(), perception)
        most = set(chunk.looked_CP.flatten().topk(7).indices.tolist())  # a fifth of 32
        before = {name: stats.num_recomputed for name, stats in feed.stats.items()}
        show(feed, *still)
        for camera, name in enumerate(("top", "wrist")):
            marked = [place for place in most if place // TOKENS == camera]
            assert feed.stats[name].num_recomputed - before[name] >= len(marked)
        assert sum(stats.num_partial for stats in feed.stats.values()) >= 1


def test_few_tokens_are_acted_on_as_they_are_and_not_pruned_further(policy: PI0Policy, eyes: PI0Eyes) -> None:
    top, wrist = HandCamera("top"), HandCamera("wrist")
    with feed_of(eyes, top, wrist, budget_tokens=12) as feed:
        perception = shown(feed, (top, world_pictures()[4]), (wrist, world_pictures(seed=4)[4]))
        chunk = act(policy, eyes, policy.start(), perception)
        assert perception.num_tokens == 12 and set(chunk.rows_per_layer) == {12 + NUM_WORDS}
        for name in ("vla_cache", "vla_pruner"):
            with pytest.raises(ValueError, match="chooses among whole grids; got an observation with tokens left out"):
                act(policy, eyes, policy.start(SAVINGS[name](**SETTINGS[name])), perception)
