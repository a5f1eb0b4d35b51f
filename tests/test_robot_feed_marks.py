"""A feed obeys what is marked: by masks, by the caller's settings, and by the policy's own attention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.fresh import cells_under
from millpond.pipeline.robot import Camera, RobotFeed
from millpond.pipeline.robot.regions import box_mask

from .reuse_clips import load_tiny, moving_square, still
from .robot_cameras import HandCamera, dense, show

LONG_S = 1e6
EXACT = DeltaReuse(falls_back=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))


@pytest.fixture
def source() -> Iterator[HandCamera]:
    yield HandCamera("top")


def test_with_all_marked_the_tokens_are_those_of_the_dense_tower(model: VideoLLM, source: HandCamera) -> None:
    with RobotFeed([Camera(source)], model, reuse=EXACT, always_fresh={"top": np.ones((1, 1), bool)}) as feed:
        for frame in moving_square(4):
            show(feed, (source, frame.rgb_HW3))
            assert torch.equal(feed.latest(LONG_S).tokens_TD, dense(model, frame.rgb_HW3))


def test_without_marks_a_still_picture_costs_nothing_and_with_them_what_is_marked(
    model: VideoLLM, source: HandCamera
) -> None:
    with RobotFeed([Camera(source)], model, reuse=EXACT) as feed:
        stats = feed.stats["top"]
        for frame in still(2):
            show(feed, (source, frame.rgb_HW3))
        assert stats.num_copied == 1 and feed.latest(LONG_S).changed_share == 0.0
        feed.mark_fresh("top", box_mask(4, 4, right=0.25))
        show(feed, (source, still(1)[0].rgb_HW3))
        assert (stats.num_copied, stats.num_partial) == (1, 1)
        feed.mark_fresh("top", None)
        show(feed, (source, still(1)[0].rgb_HW3))
        assert stats.num_copied == 2
        with pytest.raises(ValueError, match="there is no camera 'left'; got top"):
            feed.mark_fresh("left", None)
        with pytest.raises(ValueError, match="a mask of what must be fresh is a bool array"):
            feed.mark_fresh("top", np.zeros((2, 2)))


def test_what_is_marked_is_kept_in_a_budget(model: VideoLLM, source: HandCamera) -> None:
    mask = box_mask(8, 8, top=0.75, left=0.75)
    with RobotFeed([Camera(source)], model, reuse=EXACT, budget_tokens=3, always_fresh={"top": mask}) as feed:
        frames = still(2)
        show(feed, (source, frames[0].rgb_HW3))
        show(feed, (source, frames[1].rgb_HW3))
        perception = feed.latest(LONG_S)
        rows, columns = perception.grids_hw[0]
        assert model.tower is not None
        covered_hw = model.tower.layout(frames[0].height, frames[0].width).covered_hw
        marked = {(int(r), int(c)) for r, c in np.argwhere(cells_under(mask, (rows, columns), covered_hw))}
        kept = {(row, column) for _, row, column in perception.kept_T3.tolist()}
        assert perception.num_tokens == 3 == len(kept) and (kept <= marked or marked <= kept)
        places = perception.kept_T3[:, 1] * columns + perception.kept_T3[:, 2]
        expected = dense(model, frames[0].rgb_HW3)[places]  # computed by rows, so within rounding
        torch.testing.assert_close(perception.tokens_TD, expected, atol=2e-4, rtol=1e-3)


def test_what_changed_is_told_by_place(model: VideoLLM, source: HandCamera) -> None:
    with RobotFeed([Camera(source)], model, reuse=EXACT) as feed:
        first, second = moving_square(2)
        show(feed, (source, first.rgb_HW3))
        assert feed.latest(LONG_S).changed_T.all(), "all is new at first"
        show(feed, (source, second.rgb_HW3))
        perception = feed.latest(LONG_S)
        changed = perception.changed_T.view(perception.grids_hw[0])
        assert changed.any() and not changed.all() and 0 < perception.changed_share < 1
        assert not changed[-1].any(), "the square moves in the upper half"


def test_the_policys_attention_marks_patches(model: VideoLLM, source: HandCamera) -> None:
    with RobotFeed([Camera(source)], model, reuse=EXACT, fresh_share=0.01) as feed:
        with pytest.raises(ValueError, match=r"attention is paid to a perception; got \(4,\) weights before any"):
            feed.observe_attention(torch.ones(4))
        show(feed, (source, still(1)[0].rgb_HW3))
        perception = feed.latest(LONG_S)
        weights = torch.zeros(perception.num_tokens)
        weights[0] = 1.0
        feed.observe_attention(weights)
        show(feed, (source, still(1)[0].rgb_HW3))
        assert feed.stats["top"].num_partial == 1
        feed.observe_attention(torch.zeros(perception.num_tokens), perception)
        show(feed, (source, still(1)[0].rgb_HW3))
        assert feed.stats["top"].num_copied == 1, "nothing is attended to any more"
        with pytest.raises(ValueError, match="attention has a weight for each"):
            feed.observe_attention(torch.ones(1))


def test_attention_on_what_is_held_no_longer_is_refused(model: VideoLLM, source: HandCamera) -> None:
    with RobotFeed([Camera(source)], model, reuse=EXACT, num_held=2) as feed:
        frames = moving_square(4)
        show(feed, (source, frames[0].rgb_HW3))
        first = feed.latest(LONG_S)
        copied = replace(first, kept_T3=first.kept_T3.clone())
        weights = torch.ones(first.num_tokens)
        show(feed, (source, frames[1].rgb_HW3))
        feed.latest(LONG_S)
        feed.observe_attention(weights, first)  # it is held for one more
        for frame in frames[2:]:
            show(feed, (source, frame.rgb_HW3))
            feed.latest(LONG_S)
            with pytest.raises(ValueError, match=r"latest\(\) was called 2 times more; got attention on number 0"):
                feed.observe_attention(weights, first)
        feed.observe_attention(weights, copied)
        feed.observe_attention(weights)
