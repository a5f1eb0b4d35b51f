"""Delta reuse: what is computed is computed right, what is not is what it was, and nothing grows old."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders import FrameTokens, VideoLLM, load_model
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.delta_seer import DeltaRun, DeltaSeer
from millpond.encoders.reuse.delta_step import Part, lay_rows, step
from millpond.encoders.reuse.fresh import joined_patches
from millpond.encoders.reuse.ledger import Ledger
from millpond.encoders.towers import Layout, Prepared, Tower
from millpond.pipeline import Engine, EngineConfig
from millpond.stream import Frame
from millpond.stream.change import ChangeRule

from .reuse_clips import FAMILY_NAMES, background, load_tiny, moving_square, noise, still

EXACT = DeltaReuse(falls_back=False)
# Whatever is not the same to the bit counts as changed, and no number of changes makes a block whole.
EAGER = DeltaReuse(
    falls_back=False,
    full_share=1.0,
    max_drift=10.0,
    rule=ChangeRule(floor_levels=0.0, ceiling_levels=0.0, flicker_levels=0.0, cut_share=1.0),
)


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


def blocks(model: VideoLLM, frames: list[Frame]) -> list[list[Frame]]:
    """As many blocks as there are frames, each of one frame as often as the tower takes it."""
    return [[frame] * model.spec.frames_per_block for frame in frames]


def see(seer: DeltaSeer, run: DeltaRun, block: list[Frame]) -> FrameTokens:
    ((sight,),) = seer.see([(run, block)])
    return sight.tokens


def assert_near(ours: FrameTokens, theirs: FrameTokens) -> None:
    torch.testing.assert_close(ours.x_TD, theirs.x_TD, atol=2e-4, rtol=1e-3)
    if theirs.deep_ETD is not None:
        torch.testing.assert_close(ours.deep_ETD, theirs.deep_ETD, atol=2e-4, rtol=1e-3)


def test_all_units_computed_as_rows_are_the_dense_tower(model: VideoLLM) -> None:
    seer = EAGER.over(model)
    run = seer.start()
    run.require_fresh(np.ones((1, 1), bool))
    for block in blocks(model, moving_square(3)):
        assert_near(see(seer, run, block), model.see(block)[0])
    assert (run.stats.num_full, run.stats.num_partial) == (1, 2), "by rows, not as a whole"
    assert run.stats.recomputed_share == 1.0


def test_nothing_changed_is_copied_to_the_bit(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    run = seer.start()
    first, *others = (see(seer, run, block) for block in blocks(model, still(4)))
    for other in others:
        assert torch.equal(other.x_TD, first.x_TD) and other.x_TD.data_ptr() != first.x_TD.data_ptr()
        if first.deep_ETD is not None:
            assert other.deep_ETD is not None and torch.equal(other.deep_ETD, first.deep_ETD)
    assert [tokens.span.start_s for tokens in others] == [1.0, 2.0, 3.0]
    assert (run.stats.num_full, run.stats.num_copied) == (1, 3)


@torch.inference_mode()
def slow_twin(tower: Tower, before: list[tuple[Tensor, Tensor]], prepared: Prepared, is_new_T: Tensor) -> Tensor:
    """All patches through all layers at full length; where a patch is not new, keys and values are the ones before."""
    layout, x_TC = prepared.layout, tower.embed(prepared)
    keep_T11 = ~is_new_T[:, None, None]
    for layer, (k_before, v_before) in enumerate(before):
        q, k, v = tower.qkv(layer, tower.norm1(layer, x_TC))
        q, k = tower.rotate(layout, q, None), tower.rotate(layout, k, None)
        k = torch.where(keep_T11, k_before, k)
        v = torch.where(keep_T11, v_before, v.view(k.shape))
        x_TC = x_TC + tower.project(layer, tower.attend(layer, layout, q, k, v, None))
        x_TC = x_TC + tower.mlp(layer, x_TC)
    return tower.head(x_TC[layout.units_UP])


def test_some_units_are_what_the_slow_way_gives(model: VideoLLM) -> None:
    seer, tower = EXACT.over(model), model.tower
    assert tower is not None
    run = seer.start()
    first, second = blocks(model, moving_square(2))
    see(seer, run, first)
    cache, ledger = run.cache, run.ledger
    assert cache is not None and ledger is not None
    before = [(k.clone(), v.clone()) for k, v in zip(cache.k_THD, cache.v_THD, strict=True)]
    y_before = cache.y_UO.clone()
    see(seer, run, second)
    assert run.stats.num_partial == 1
    is_new_U = torch.from_numpy(ledger.age_U == 0)
    assert 0 < int(is_new_U.sum()) < len(is_new_U)
    is_new_T = torch.zeros(cache.layout.num_patches, dtype=torch.bool)
    is_new_T[cache.layout.units_UP[is_new_U].flatten()] = True
    y_UO = slow_twin(tower, before, tower.prepare(second), is_new_T)
    torch.testing.assert_close(cache.y_UO[is_new_U], y_UO[is_new_U], atol=2e-4, rtol=1e-3)
    assert torch.equal(cache.y_UO[~is_new_U], y_before[~is_new_U]), "what is not computed is what it was"


def test_where_something_moves_is_computed(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    run = seer.start()
    for block in blocks(model, moving_square(8)):
        see(seer, run, block)
    assert (run.stats.num_full, run.stats.num_partial) == (1, 7)
    assert run.stats.num_recomputed < 0.8 * run.stats.num_patches


def test_a_cut_is_computed_whole(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    run = seer.start()
    for block in blocks(model, [*still(2, seed=1), *still(2, seed=2), *still(1, seed=1)]):
        assert_near(see(seer, run, block), model.see(block)[0])
    assert (run.stats.num_full, run.stats.num_copied) == (3, 2)


def test_noise_and_two_pictures_in_turn_are_what_dense_gives(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    a, b = background(1), background(2)
    turns = [Frame((a, b)[n % 2], float(n)) for n in range(4)]
    for frames in (noise(4), turns):
        run = seer.start()
        for block in blocks(model, frames):
            assert_near(see(seer, run, block), model.see(block)[0])
        assert run.stats.num_full == 4


def test_drift_makes_a_block_whole(model: VideoLLM) -> None:
    seer = DeltaReuse(falls_back=False, max_drift=1e-9, max_age_blocks=2).over(model)
    run = seer.start()
    for block in blocks(model, moving_square(4)):
        see(seer, run, block)
    assert run.stats.num_full >= 2, "refreshed patches had moved, as what they attend to had"


def test_what_must_be_fresh_is(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    run = seer.start()
    corner = np.zeros((8, 8), bool)
    corner[:2, :2] = True
    run.require_fresh(corner)
    for block in blocks(model, still(3)):
        see(seer, run, block)
    assert run.ledger is not None and run.cache is not None and run.stats.num_partial == 2
    layout = run.cache.layout
    under_T = joined_patches([corner], layout).ravel()[layout.raster_T.numpy()]
    under_U = under_T[layout.units_UP.numpy()].any(axis=1)
    assert under_U.any() and (run.ledger.age_U[under_U] == 0).all() and (run.ledger.age_U > 0).any()
    run.require_fresh(None)
    see(seer, run, blocks(model, still(1))[0])
    assert run.stats.num_copied == 1
    with pytest.raises(ValueError, match="a mask of what must be fresh is a bool array of rows and columns; got float"):
        run.require_fresh(np.ones((2, 2)))


@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99), covered=st.sampled_from([1.0, 27 / 28])
)
def test_a_mask_covers_each_patch_that_it_touches(rows: int, columns: int, seed: int, covered: float) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.2
    layout = Layout((4, 6), (covered, covered), torch.arange(24), torch.arange(24)[:, None])
    # The slow way: a picture of many pixels, each asked for its patch and its place in the mask.
    fine = 504
    at = (np.arange(fine) + 0.5) / fine
    patch_row, patch_column = (np.floor(at / covered * n).astype(int) for n in (4, 6))
    slow = np.zeros((4, 6), bool)
    under = mask[np.ix_(np.floor(at * rows).astype(int), np.floor(at * columns).astype(int))]
    for r in range(4):
        for c in range(6):
            slow[r, c] = under[np.ix_(patch_row == r, patch_column == c)].any()
    fast = joined_patches([mask], layout)
    assert not (slow & ~fast).any()
    assert covered < 1 or (slow == fast).all()


@settings(max_examples=50)
@given(
    num_units=st.integers(1, 60),
    max_age_blocks=st.integers(1, 12),
    num_buckets=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_no_unit_is_older_than_allowed(num_units: int, max_age_blocks: int, num_buckets: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ledger = Ledger(num_units, max_age_blocks=max_age_blocks, num_buckets=num_buckets)
    counts = set()
    for _ in range(60):
        needed_U = rng.random(num_units) < rng.choice([0.0, 0.05, 0.3])
        units = ledger.choose(needed_U)
        assert len(units) == ledger.num_planned(int(needed_U.sum())) and (np.diff(units) > 0).all()
        assert needed_U[np.setdiff1d(np.arange(num_units), units)].sum() == 0
        ledger.computed(units)
        assert ledger.age_U.max() <= max_age_blocks
        counts.add(len(units))
    assert len(counts) <= num_buckets, "a bounded number of shapes"


def test_features_that_are_no_numbers_are_not_kept(model: VideoLLM) -> None:
    seer = EXACT.over(model)
    run = seer.start()
    one, two, three, four = blocks(model, moving_square(4))
    see(seer, run, one)
    tower = model.tower
    assert tower is not None
    head = tower.head
    tower.head = lambda x_VPC: head(x_VPC) * torch.nan  # type: ignore[method-assign]
    try:
        assert bool(see(seer, run, two).x_TD.isnan().any())
    finally:
        del tower.head
    assert_near(see(seer, run, three), model.see(three)[0])
    assert run.stats.num_full == 2, "the block after it was computed whole"
    assert not bool(see(seer, run, four).x_TD.isnan().any())


def test_a_pass_that_fails_half_way_leaves_nothing_half_written(model: VideoLLM) -> None:
    seer, tower = EXACT.over(model), model.tower
    assert tower is not None
    run = seer.start()
    one, two = blocks(model, moving_square(2))
    see(seer, run, one)

    def fail(layer: int, x: Tensor) -> Tensor:
        raise RuntimeError(f"no memory left in layer {layer}")

    tower.mlp = fail  # type: ignore[method-assign]
    try:
        with pytest.raises(RuntimeError, match="no memory left"):
            see(seer, run, two)
    finally:
        del tower.mlp
    assert_near(see(seer, run, two), model.see(two)[0])
    assert run.ledger is not None and run.ledger.num_units == tower.layout(two[0].height, two[0].width).num_units


def test_after_a_failure_a_picture_may_have_another_size(model: VideoLLM) -> None:
    seer, tower = EXACT.over(model), model.tower
    assert tower is not None
    run = seer.start()
    large, small = blocks(model, moving_square(2)), blocks(model, moving_square(3, height=64, width=96))
    see(seer, run, large[0])
    head = tower.head
    tower.head = lambda x_VPC: head(x_VPC) * torch.nan  # type: ignore[method-assign]
    try:
        see(seer, run, large[1])
    finally:
        del tower.head
    assert_near(see(seer, run, small[0]), model.see(small[0])[0])
    see(seer, run, small[1])
    see(seer, run, small[2])
    assert run.stats.num_partial == 3 and run.cache is not None


def test_the_step_is_one_graph_for_each_number_of_rows(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = load_tiny("llava_onevision", tmp_path_factory.mktemp("graph"))
    seer, tower = EXACT.over(model), model.tower
    assert tower is not None
    run = seer.start()
    (block,) = blocks(model, still(1))
    see(seer, run, block)
    cache = run.cache
    assert cache is not None
    prepared = tower.prepare(block)
    graphs = []

    def capture(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    captured = torch.compile(step, backend=capture, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        for units in ([0, 1, 2, 3], [2, 5, 7, 11], [1, 2, 3, 14]):
            part_rows = lay_rows([Part(cache, prepared, torch.tensor(units))], tower.device)
            x_NC = tower.embed(prepared, part_rows.index_N)
            ours = captured(tower, cache.layout, [cache], part_rows, x_NC).y_VO
            torch.testing.assert_close(ours, step(tower, cache.layout, [cache], part_rows, x_NC).y_VO)
    assert len(graphs) == 1, "which units they are changes no shape and no graph"


COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 220, 50),
    "purple": (150, 60, 190),
    "white": (245, 245, 245),
}


def test_32_streams_in_one_engine_each_name_their_own_colour() -> None:
    names = [list(COLOURS)[n % len(COLOURS)] for n in range(32)]
    config = EngineConfig(reuse=EXACT, chunk_frames=2, max_new_tokens=4)
    with Engine(config, model=load_model("millpond/mini", device="cpu", dtype="float32")) as engine:
        sessions = [engine.session(f"camera-{n}") for n in range(32)]
        for time_s in range(4):
            for session, name in zip(sessions, names, strict=True):
                rgb = np.full((120, 160, 3), 30, np.uint8)
                rgb[30:90, 30 + 5 * time_s : 90 + 5 * time_s] = COLOURS[name]
                session.push(Frame(rgb, float(time_s), session.stream_id, time_s))
        answers = [session.ask("What color is the square?").text for session in sessions]
    assert answers == names


def test_a_session_keeps_fresh_what_it_is_told_to() -> None:
    with Engine(EngineConfig(reuse=EXACT, chunk_frames=1)) as engine:
        session = engine.session()
        stats = session.intake.eyes.stats
        mask = np.zeros((2, 2), bool)
        mask[0, 0] = True
        session.require_fresh(mask)
        for frame in still(3):
            session.push(frame)
        assert (stats.num_full, stats.num_partial) == (1, 2)
        session.require_fresh(None)
        session.push(Frame(background(), 3.0))
        assert stats.num_copied == 1


def test_settings_that_make_no_sense_are_refused() -> None:
    for name, value, message in (
        ("max_age_blocks", 0, "max_age_blocks must be a whole number, at least 1; got 0"),
        ("num_buckets", 1.5, "num_buckets must be a whole number, at least 1; got 1.5"),
        ("full_share", 1.5, "full_share is a share of the units, 0 to 1; got 1.5"),
        ("max_drift", 0.0, "max_drift must be above 0; got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            DeltaReuse(**{name: value})
