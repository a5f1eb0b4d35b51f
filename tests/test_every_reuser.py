"""Promises of Reuser, for every row of REUSERS on every family, and for delta with all its short cuts forced."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from millpond.encoders import FrameTokens, VideoLLM
from millpond.encoders.reuse import REUSERS, Reuser, Seer
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.sight import Need
from millpond.stream import Frame

from .method_docs import missing_from_docs
from .reuse_clips import FAMILY_NAMES, HEIGHT, WIDTH, load_tiny, moving_square, noise, still

# Every row, with settings by which the same frames give the same tokens.
RECIPES: dict[str, Reuser] = {
    "none": REUSERS["none"](),
    "stc": REUSERS["stc"](),
    "delta": DeltaReuse(falls_back=False),
}


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=sorted(REUSERS))
def seer(request: pytest.FixtureRequest, model: VideoLLM) -> Iterator[Seer]:
    yield RECIPES[request.param].over(model)


def test_every_row_is_tested() -> None:
    assert RECIPES.keys() == REUSERS.keys()


@pytest.mark.parametrize("name", sorted(REUSERS))
def test_docs_say_where_it_comes_from(name: str) -> None:
    assert not missing_from_docs(REUSERS[name])


def seen_by(seer: Seer, frames: list[Frame], chunk: int) -> list[FrameTokens]:
    run = seer.start()
    chunks = [frames[i : i + chunk] for i in range(0, len(frames), chunk)]
    return [sight.tokens for part in chunks for sight in seer.see([(run, part)])[0]]


def equal(ours: FrameTokens, theirs: FrameTokens) -> bool:
    same_deep = (ours.deep_ETD is None) == (theirs.deep_ETD is None)
    if ours.deep_ETD is not None and theirs.deep_ETD is not None:
        same_deep = torch.equal(ours.deep_ETD, theirs.deep_ETD)
    return same_deep and torch.equal(ours.x_TD, theirs.x_TD) and ours.span == theirs.span


def test_the_first_block_is_what_the_model_sees(seer: Seer, model: VideoLLM) -> None:
    frames = moving_square(model.spec.frames_per_block)
    (theirs,) = model.see(frames)
    (ours,) = seen_by(seer, frames, len(frames))
    assert equal(ours, theirs)
    assert torch.equal(ours.kept_T, theirs.kept_T) and torch.equal(ours.pos_3T, theirs.pos_3T)
    assert (ours.grid_hw, ours.advance) == (theirs.grid_hw, theirs.advance)


def test_chunks_of_any_length_give_the_same(seer: Seer, model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    frames = moving_square(6 * step)
    whole = seen_by(seer, frames, len(frames))
    for chunk in (step, 2 * step):
        for a, b in zip(seen_by(seer, frames, chunk), whole, strict=True):
            # A family's own batches may round otherwise than single pictures.
            torch.testing.assert_close(a.x_TD, b.x_TD, atol=2e-5, rtol=1e-4)


def test_streams_do_not_touch_each_other(seer: Seer, model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    # Of different lengths, sizes and content, one of them still, so that plans of all kinds meet in one call.
    streams = [
        moving_square(4 * step, seed=1),
        moving_square(5 * step, seed=2),
        still(5 * step, seed=3),
        noise(3 * step, seed=4),
        moving_square(4 * step, seed=5, height=64, width=64),
    ]
    alone = [seen_by(seer, frames, step) for frames in streams]
    runs = [seer.start() for _ in streams]
    together: list[list[FrameTokens]] = [[] for _ in streams]
    for first in range(0, 5 * step, step):
        asked = [(i, frames[first : first + step]) for i, frames in enumerate(streams) if frames[first:]]
        for (i, _), sights in zip(asked, seer.see([(runs[i], part) for i, part in asked]), strict=True):
            together[i] += [sight.tokens for sight in sights]
    for ours, theirs in zip(together, alone, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            # Products over the rows of several streams may round otherwise than over those of one.
            torch.testing.assert_close(a.x_TD, b.x_TD, atol=2e-5, rtol=1e-4)


def test_tokens_are_the_callers_own(seer: Seer, model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    frames = [*moving_square(2 * step), *moving_square(2 * step)[-step:]]
    untouched = seen_by(seer, frames, step)
    run = seer.start()
    for number, first in enumerate(range(0, 3 * step, step)):
        ((sight,),) = seer.see([(run, frames[first : first + step])])
        assert equal(sight.tokens, untouched[number])
        with torch.inference_mode():
            sight.tokens.x_TD.fill_(torch.nan)
            if sight.tokens.deep_ETD is not None:
                sight.tokens.deep_ETD.fill_(torch.nan)


def test_a_picture_of_another_size_starts_anew(seer: Seer, model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    large, small = moving_square(3 * step), moving_square(2 * step, height=64, width=64)
    run = seer.start()
    for part in (large[:step], large[step : 2 * step]):
        seer.see([(run, part)])
    ((sight,),) = seer.see([(run, small[:step])])
    assert equal(sight.tokens, model.see(small[:step])[0])


@pytest.mark.parametrize(
    "picture",
    [np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)],
    ids=["one black pixel", "one grey pixel", "all black"],
)
def test_pictures_with_nothing_in_them_are_seen(seer: Seer, model: VideoLLM, picture: np.ndarray) -> None:
    step = model.spec.frames_per_block
    frames = [Frame(picture, float(n)) for n in range(3 * step)]
    for tokens in seen_by(seer, frames, step):
        torch.testing.assert_close(tokens.x_TD, model.see(frames[:step])[0].x_TD)


def test_runs_together_keep_to_the_budget(model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    for name, recipe in RECIPES.items():
        probe = recipe.over(model)
        seen_by(probe, moving_square(2 * step), step)
        one = probe.start()
        probe.see([(one, moving_square(step))])
        seer = recipe.over(model, budget_bytes=int(2.5 * one.num_bytes))
        runs = [seer.start() for _ in range(5)]
        for turn in range(3):
            for seed, run in enumerate(runs):
                frames = moving_square(3 * step, seed=seed)[turn * step : (turn + 1) * step]
                ((sight,),) = seer.see([(run, frames)])
                assert seer.num_bytes <= seer.budget_bytes, name
                if name == "delta":
                    # Those that had to forget saw the block whole.
                    torch.testing.assert_close(sight.tokens.x_TD, model.see(frames)[0].x_TD)
        runs.clear()
        del run
        assert seer.num_bytes == 0, "a stream that ended takes what it held along"


@pytest.mark.parametrize("name", ["delta", "stc"])
def test_a_budget_for_nothing_is_kept(model: VideoLLM, name: str) -> None:
    step = model.spec.frames_per_block
    seer = RECIPES[name].over(model, budget_bytes=0)
    frames = moving_square(3 * step)
    for ours, first in zip(seen_by(seer, frames, step), range(0, 3 * step, step), strict=True):
        torch.testing.assert_close(ours.x_TD, model.see(frames[first : first + step])[0].x_TD)
    with pytest.raises(ValueError, match="budget_bytes must be a whole number, not negative; got -1"):
        RECIPES[name].over(model, budget_bytes=-1)


def test_evidence_is_there_when_it_is_asked_for(seer: Seer, model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    needs = frozenset({Need.PIXELS, Need.CLS, Need.RECEIVED, Need.FEATURES})
    run = seer.start()
    frames = moving_square(3 * step)
    first, second = (seer.see([(run, frames[i : i + step])], needs)[0][0] for i in (0, step))
    places = first.tokens.grid_hw[0] * first.tokens.grid_hw[1]
    for sight in (first, second):
        assert sight.cls_T is not None and sight.received_RT is not None and sight.features_TC is not None
        assert tuple(sight.received_RT.shape) == (2, places)
        torch.testing.assert_close(sight.cls_T.sum(), torch.tensor(1.0))
        torch.testing.assert_close(sight.received_RT.sum(dim=-1), torch.ones(2))
        assert bool((sight.cls_T > 0).all()) and bool((sight.received_RT > 0).all())
        assert tuple(sight.features_TC.shape) == (places, model.tower.num_channels)  # type: ignore[union-attr]
    assert first.change_T is not None and bool(first.change_T.isinf().all()), "there was nothing to compare with"
    assert second.change_T is not None and bool(second.change_T.isfinite().all())
    assert float(second.change_T.max()) > 20 and float(second.change_T.median()) < 1
    plain = seer.see([(run, frames[2 * step :])])[0][0]
    assert plain.cls_T is plain.received_RT is plain.features_TC is plain.change_T is None


def test_one_stream_is_asked_for_once_in_a_call(seer: Seer, model: VideoLLM) -> None:
    run = seer.start()
    frames = moving_square(model.spec.frames_per_block)
    with pytest.raises(ValueError, match="a stream may be seen once in a call; got 2 requests"):
        seer.see([(run, frames), (run, frames)])


def test_a_tower_that_cannot_be_taken_apart_is_refused(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(model), "tower", None)
    for name in ("delta", "stc"):
        with pytest.raises(ValueError, match=f"{name} reuse needs a vision tower that can be taken apart"):
            RECIPES[name].over(model)
    run = (seer := RECIPES["none"].over(model)).start()
    assert seer.see([(run, moving_square(model.spec.frames_per_block))])


def test_what_was_computed_of_the_newest_block_is_what_the_counts_say(seer: Seer, model: VideoLLM) -> None:
    run, step = seer.start(), model.spec.frames_per_block
    assert run.computed is None
    for start in range(0, 6 * step, step):
        before = run.stats.num_recomputed
        block = moving_square(6 * step)[start : start + step]
        seer.see([(run, block)])
        computed = run.computed
        assert computed is not None and computed.pts_s == block[-1].pts_s
        num_patches = computed.grid_hw[0] * computed.grid_hw[1]
        assert computed.patches == sorted(set(computed.patches)) and all(p < num_patches for p in computed.patches)
        num_counted = run.stats.num_recomputed - before
        # STC-Cacher takes others in each layer: those of any layer are told, and they are as many at least.
        assert len(computed.patches) >= num_counted if run.stats.num_partial else len(computed.patches) == num_counted


def test_where_something_moved_is_among_what_was_computed(model: VideoLLM) -> None:
    step = model.spec.frames_per_block
    seer = RECIPES["delta"].over(model)
    run = seer.start()
    seer.see([(run, still(step))])
    assert run.computed is not None and len(run.computed.patches) == run.computed.grid_hw[0] * run.computed.grid_hw[1]
    seer.see([(run, still(step))])
    assert run.computed.patches == []
