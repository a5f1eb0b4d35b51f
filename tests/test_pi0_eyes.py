"""pi0's vision half as reusers take it: the same tokens, for what is new in a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from millpond.encoders.policies import Observation, PI0Policy
from millpond.encoders.policies.eyes import PI0Eyes, stacked
from millpond.encoders.reuse import REUSERS
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.towers.walk import see_by_walking
from millpond.stream import Frame

from .tiny_pi0 import SIDE_PX, TOKENS, inputs, tiny_pi0

NEAR = {"atol": 1e-4, "rtol": 1e-4}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy() -> PI0Policy:
    return PI0Policy(tiny_pi0())


@pytest.fixture(scope="module")
def eyes(policy: PI0Policy) -> PI0Eyes:
    return PI0Eyes(policy)


def picture(seed: int, height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def frame(rgb_HW3: np.ndarray, number: int = 0) -> Frame:
    return Frame(rgb_HW3, float(number), "camera", number)


def over(eyes: PI0Eyes, recipe: Any) -> Any:
    return recipe.over(eyes)


def test_its_parts_make_up_transformers_own_features(policy: PI0Policy, eyes: PI0Eyes) -> None:
    shown = frame(picture(0))
    pixels = torch.from_numpy(picture(0)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    theirs = policy.model.model.vlm.get_image_features(pixels).pooler_output
    (seen,) = eyes.see([shown])
    assert seen.grid_hw == (4, 4) and seen.num_tokens == TOKENS
    torch.testing.assert_close(seen.x_TD, theirs[0], **NEAR)
    assert torch.equal(see_by_walking(eyes.tower, [shown]).x_TD, seen.x_TD)


@pytest.mark.parametrize("name", sorted(REUSERS))
def test_every_reuser_sees_a_first_frame_as_it_is_and_a_still_one_again(eyes: PI0Eyes, name: str) -> None:
    seer = over(eyes, REUSERS[name]())
    run = seer.start()
    (dense,) = eyes.see([frame(picture(1))])
    ((first,),) = seer.see([(run, [frame(picture(1))])])
    assert torch.equal(first.tokens.x_TD, dense.x_TD)
    ((again,),) = seer.see([(run, [frame(picture(1), 1)])])
    torch.testing.assert_close(again.tokens.x_TD, dense.x_TD, **NEAR)


def test_delta_computes_what_changed(eyes: PI0Eyes) -> None:
    seer = over(eyes, DeltaReuse(falls_back=False, num_buckets=TOKENS))
    run = seer.start()
    before, after = picture(1), picture(1).copy()
    after[:14, :14] = 255 - after[:14, :14] // 2
    seer.see([(run, [frame(before)])])
    ((seen,),) = seer.see([(run, [frame(after, 1)])])
    assert 0 < run.stats.num_recomputed - TOKENS < TOKENS // 2
    (dense,) = eyes.see([frame(after)])
    (old,) = eyes.see([frame(before)])
    # What changed is computed among what did not, whose features are the last frame's: near the dense one, not it.
    ours, stale = (float((one.x_TD[0] - dense.x_TD[0]).norm()) for one in (seen.tokens, old))
    assert ours < 0.7 * stale


def test_where_all_must_be_fresh_actions_are_those_of_dense_frames(policy: PI0Policy, eyes: PI0Eyes) -> None:
    seer = over(eyes, DeltaReuse(falls_back=False))
    runs = [seer.start() for _ in range(2)]
    given = inputs(2)
    for number in range(2):
        frames = [frame(picture(10 * number + camera), number) for camera in range(2)]
        for run in runs:
            run.require_fresh(np.ones((1, 1), bool))
        seen = [sights[0].tokens for sights in seer.see(list(zip(runs, [[one] for one in frames], strict=True)))]
        dense = eyes.see(frames)
        actions = [
            policy.act(
                policy.start(),
                Observation(given["input_ids"], given["state"], stacked(tokens)),
                noise_1AJ=given["noise"],
            ).actions_AJ
            for tokens in (seen, dense)
        ]
        torch.testing.assert_close(actions[0], actions[1], **NEAR)


@pytest.mark.parametrize("shape", [(90, 120), (120, 90), (20, 30), (56, 56), (1, 300)], ids=str)
def test_a_picture_is_fitted_into_the_square_at_its_top_left(eyes: PI0Eyes, shape: tuple[int, int]) -> None:
    shown = frame(picture(3, *shape))
    squared = eyes.square(shown)
    assert squared.rgb_HW3.shape == (SIDE_PX, SIDE_PX, 3) and squared.pts_s == shown.pts_s
    scale = SIDE_PX / max(shape)
    height, width = (max(1, int(edge * scale)) for edge in shape)
    wanted = np.asarray(Image.fromarray(picture(3, *shape)).resize((width, height), Image.Resampling.BICUBIC))
    assert np.abs(squared.rgb_HW3[:height, :width].astype(int) - wanted).max() <= 2
    assert (squared.rgb_HW3[height:] == 128).all() and (squared.rgb_HW3[:, width:] == 128).all()
    # transformers fills up with 0 after normalising
    below = eyes.pixels([squared])[0, :, height:]
    assert not below.numel() or float(below.abs().max()) <= 0.51 / 127.5


def test_frames_that_are_not_square_are_refused(eyes: PI0Eyes) -> None:
    with pytest.raises(ValueError, match=r"square frames; got 120x90 pixels; hand it PI0Eyes.square\(frame\)"):
        eyes.see([frame(picture(3, 90, 120))])


def test_only_whole_grids_are_stacked(eyes: PI0Eyes) -> None:
    from dataclasses import replace

    (seen,) = eyes.see([frame(picture(0))])
    assert tuple(stacked([seen, seen]).shape) == (2, TOKENS, 32)
    pruned = replace(seen, x_TD=seen.x_TD[:5], kept_T=seen.kept_T[:5], pos_3T=seen.pos_3T[:, :5])
    with pytest.raises(ValueError, match="a place for every token; got FrameTokens"):
        stacked([seen, pruned])
    with pytest.raises(ValueError, match="one camera at least; got none"):
        stacked([])
