"""STC-Cacher against the slow way to do what its paper says, and its interval."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from millpond.encoders import VideoLLM
from millpond.encoders.reuse.stc import STCCacher
from millpond.stream import Frame

from .reuse_clips import FAMILY_NAMES, load_tiny, moving_square, noise


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


@torch.inference_mode()
def as_published(model: VideoLLM, reference: list[Frame], current: list[Frame], share: float) -> Tensor:
    """Everything for all patches, and then, layer by layer, what the method keeps of it: no row is computed apart."""
    tower = model.tower
    assert tower is not None
    prepared_ref, prepared = tower.prepare(reference), tower.prepare(current)
    layout = prepared.layout
    x_ref, x = tower.embed(prepared_ref), tower.embed(prepared)
    num_updated = max(1, int(share * layout.num_patches))
    for layer in range(tower.num_layers):
        a_ref, a = tower.norm1(layer, x_ref), tower.norm1(layer, x)
        (q_ref, k_ref, v_ref), (q, k, v) = tower.qkv(layer, a_ref), tower.qkv(layer, a)
        lowest = F.cosine_similarity(k, k_ref, dim=-1).argsort()[:num_updated]
        updated_T1 = torch.zeros(layout.num_patches, 1, dtype=torch.bool)
        updated_T1[lowest] = True

        def attention(q: Tensor, k: Tensor, v: Tensor, layer: int = layer) -> Tensor:
            q, k = tower.rotate(layout, q, None), tower.rotate(layout, k, None)
            return tower.project(layer, tower.attend(layer, layout, q, k, v.view(k.shape), None))

        attention_ref = attention(q_ref, k_ref, v_ref)
        x = x + torch.where(updated_T1, attention(q, k, torch.where(updated_T1, v, v_ref)), attention_ref)
        x_ref = x_ref + attention_ref
        mlp_ref = tower.mlp(layer, x_ref)
        x = x + torch.where(updated_T1, tower.mlp(layer, x), mlp_ref)
        x_ref = x_ref + mlp_ref
    y_UO = tower.head(x[layout.units_UP])
    return tower.assemble(y_UO, torch.stack([y_UO] * len(tower.taps)) if tower.taps else None, layout, current).x_TD


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_it_does_what_the_paper_says(model: VideoLLM, share: float) -> None:
    step = model.spec.frames_per_block
    # Everything changes, so that no two patches have one cosine and either might be taken.
    frames = noise(4 * step)
    seer = STCCacher(every_blocks=4, update_share=share).over(model)
    run = seer.start()
    for first in range(0, 4 * step, step):
        block = frames[first : first + step]
        ((sight,),) = seer.see([(run, block)])
        if first:
            # Every one against the reference frame, which those in between do not touch.
            slow = as_published(model, frames[:step], block, share)
            torch.testing.assert_close(sight.tokens.x_TD, slow, atol=5e-4, rtol=2e-3)
        else:
            assert torch.equal(sight.tokens.x_TD, model.see(block)[0].x_TD)


def test_reference_frames_come_at_the_interval(model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    for every in (1, 2, 3):
        seer = STCCacher(every_blocks=every).over(model)
        run = seer.start()
        for number in range(6):
            block = moving_square(6 * step)[number * step : (number + 1) * step]
            ((sight,),) = seer.see([(run, block)])
            if number % every == 0:
                assert torch.equal(sight.tokens.x_TD, model.see(block)[0].x_TD)
        assert run.stats.num_full == 6 // every
        run.reset()
        seer.see([(run, block)])
        assert run.stats.num_full == 6 // every + 1, "after a reset, a reference frame"


def test_the_share_is_what_is_counted(tmp_path: Path) -> None:
    model = load_tiny("llava_onevision", tmp_path)
    seer = STCCacher(every_blocks=2, update_share=0.25).over(model)
    run = seer.start()
    seer.see([(run, moving_square(4))])
    num = run.stats.num_patches // 4
    assert run.stats.num_recomputed == 2 * num + 2 * int(0.25 * num)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="every_blocks must be a whole number, at least 1; got 0"):
        STCCacher(every_blocks=0)
    with pytest.raises(ValueError, match="update_share is a share of the patches, above 0 and up to 1; got 0"):
        STCCacher(update_share=0)
