"""What must be fresh: masks, boxes and a policy's attention reach the patches, and the reuse encoder obeys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.encoders import VideoLLM
from millpond.encoders.reuse import REUSERS
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.fresh import cells_under, joined_patches, mask_of_cells
from millpond.encoders.reuse.stc import STCCacher
from millpond.encoders.towers import Layout
from millpond.pipeline.robot.choosing import choose, spread_order
from millpond.pipeline.robot.perception import View
from millpond.pipeline.robot.regions import attended_cells, box_mask

from .reuse_clips import FAMILY_NAMES, load_tiny, moving_square, still

ALL = np.ones((1, 1), bool)


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


def layout_of(rows: int, columns: int) -> Layout:
    num = rows * columns
    return Layout((rows, columns), (1.0, 1.0), torch.arange(num), torch.arange(num)[:, None])


@pytest.mark.parametrize("name", sorted(REUSERS))
def test_with_all_marked_every_reuser_is_the_dense_tower_to_the_bit(model: VideoLLM, name: str) -> None:
    recipe = DeltaReuse(falls_back=False) if name == "delta" else REUSERS[name]()
    seer = recipe.over(model)
    run = seer.start()
    run.require_fresh(ALL)
    for frame in [*moving_square(3), *still(2)]:
        block = [frame] * model.spec.frames_per_block
        ((sight,),) = seer.see([(run, block)])
        assert torch.equal(sight.tokens.x_TD, model.see(block)[0].x_TD)
    assert run.stats.recomputed_share == 1.0


def test_marked_patches_are_computed_though_nothing_changed(model: VideoLLM) -> None:
    mask = box_mask(4, 4, bottom=0.25, right=0.25)
    for recipe in (DeltaReuse(falls_back=False), STCCacher(every_blocks=8, update_share=0.05)):
        seer = recipe.over(model)
        marked, plain = seer.start(), seer.start()
        marked.require_fresh(mask, owner="gripper")
        for frame in still(3):
            block = [frame] * model.spec.frames_per_block
            seer.see([(marked, block), (plain, block)])
        assert marked.stats.num_recomputed > plain.stats.num_recomputed
        assert marked.stats.num_partial == 2


def test_stc_computes_marked_patches_from_this_frame_and_leaves_others_to_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_tiny(FAMILY_NAMES[0], tmp_path)
    tower = model.tower
    assert tower is not None
    seer = STCCacher(every_blocks=8, update_share=1e-9).over(model)
    run = seer.start()
    first, second = moving_square(2)
    seer.see([(run, [first])])
    layout = tower.layout(first.height, first.width)
    mask = box_mask(*layout.grid_hw, bottom=0.5, right=0.5)
    run.require_fresh(mask)
    rows: list[set[int]] = []
    attend = type(tower).attend

    def watched(self: object, layer: int, laid: Layout, q: object, k: object, v: object, index: object) -> object:
        assert isinstance(index, torch.Tensor), "some patches, not all"
        rows.append(set(index.tolist()))
        return attend(self, layer, laid, q, k, v, index)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tower), "attend", watched)
    seer.see([(run, [second])])
    marked = set(np.flatnonzero(joined_patches([mask], layout).ravel()[layout.raster_T.numpy()]).tolist())
    assert len(rows) == tower.num_layers
    assert all(marked <= some and len(some) == len(marked) + 1 for some in rows), "and one of the others"


def test_what_several_want_is_joined_and_each_takes_back_its_own() -> None:
    left, right = box_mask(2, 4, right=0.25), box_mask(6, 2, left=0.5)
    layout = layout_of(4, 8)
    joined = joined_patches([left, right], layout)
    assert (joined == (joined_patches([left], layout) | joined_patches([right], layout))).all() and not joined.all()
    assert not joined_patches([], layout).any()


def test_a_mask_is_copied_when_it_is_given(model: VideoLLM) -> None:
    run = DeltaReuse().over(model).start()
    mask = np.zeros((2, 2), bool)
    run.require_fresh(mask, owner="a")
    run.require_fresh(ALL, owner="b")
    mask[:] = True
    assert not run.fresh["a"].any() and run.fresh["b"].all()
    run.require_fresh(None, owner="b")
    assert list(run.fresh) == ["a"]


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 10**6),
)
def test_cells_under_a_mask_are_those_it_touches(mask_hw: tuple[int, int], grid_hw: tuple[int, int], seed: int) -> None:
    mask = np.random.default_rng(seed).random(mask_hw) < 0.3
    cells = cells_under(mask, grid_hw)
    for row in range(grid_hw[0]):
        for column in range(grid_hw[1]):
            touched = any(
                mask[r, c]
                for r in range(mask_hw[0])
                for c in range(mask_hw[1])
                if r * grid_hw[0] < (row + 1) * mask_hw[0]
                and (r + 1) * grid_hw[0] > row * mask_hw[0]
                and c * grid_hw[1] < (column + 1) * mask_hw[1]
                and (c + 1) * grid_hw[1] > column * mask_hw[1]
            )
            assert cells[row, column] == touched


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(*[st.sampled_from([1.0, 27 / 28, 378 / 384, 0.9])] * 2),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
def test_cells_are_what_lies_under_their_mask_and_so_are_all_parts_of_them(
    grid_hw: tuple[int, int], covered_hw: tuple[float, float], parts: int, seed: int
) -> None:
    cells = np.random.default_rng(seed).random(grid_hw) < 0.3
    mask = mask_of_cells(cells, covered_hw)
    assert (cells_under(mask, grid_hw, covered_hw) == cells).all()
    finer = cells_under(mask, (parts * grid_hw[0], parts * grid_hw[1]), covered_hw)
    assert (finer == np.kron(cells, np.ones((parts, parts), bool))).all()


def test_a_grid_that_leaves_an_edge_out_has_nothing_under_it() -> None:
    edge = box_mask(28, 28, top=27 / 28)
    assert cells_under(edge, (9, 9))[-1].all() and not cells_under(edge, (9, 9), (27 / 28, 27 / 28)).any()


def test_a_box_is_laid_outwards() -> None:
    assert box_mask(4, 4, top=0.5, left=0.3, right=0.6).astype(int).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
    ]
    with pytest.raises(ValueError, match="a box needs 0 <= top < bottom <= 1"):
        box_mask(4, 4, top=0.5, bottom=0.5)
    with pytest.raises(ValueError, match="a mask has a row and a column at least; got 0 and 3"):
        box_mask(0, 3)


VIEWS = (View("top", 0.0, 0.0, 0, (2, 2), 4), View("wrist", 0.0, 0.0, 0, (1, 3), 2))
KEPT = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 0, 2]])


def test_attention_marks_the_cells_that_got_most_of_it() -> None:
    weights = torch.tensor([0.1, 5.0, 0.0, 0.2, 0.0, 9.0])
    masks = attended_cells(weights, KEPT, VIEWS, share=0.3)
    assert masks["top"].tolist() == [[False, True], [False, False]]
    assert masks["wrist"].tolist() == [[False, False, True]]
    none = attended_cells(torch.zeros(6), KEPT, VIEWS, share=1.0)
    assert not any(mask.any() for mask in none.values()), "no attention marks nothing"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(5), r"a weight for each of the perception's 6 tokens; got \(5,\)"),
        (torch.tensor([1.0, -1.0, 0, 0, 0, 0]), "attention is finite and 0 or more; got -1 to 1"),
        (torch.tensor([1.0, float("nan"), 0, 0, 0, 0]), "attention is finite and 0 or more"),
    ],
)
def test_attention_that_is_none_is_refused(weights: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attended_cells(weights, KEPT, VIEWS, share=0.5)


grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3)


@given(grids, st.integers(1, 120), st.integers(0, 10**6))
def test_a_budget_is_kept_and_spent_on_what_is_marked_then_on_what_changed(
    grids_hw: list[tuple[int, int]], budget_tokens: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    fresh = [rng.random(h * w) < 0.2 for h, w in grids_hw]
    changed = [rng.random(h * w) < 0.4 for h, w in grids_hw]
    kept = choose(fresh, changed, grids_hw, budget_tokens)
    assert sum(map(len, kept)) == min(budget_tokens, sum(h * w for h, w in grids_hw))
    assert all((np.diff(places) > 0).all() for places in kept)
    is_kept = np.concatenate([np.isin(np.arange(len(one)), places) for one, places in zip(fresh, kept, strict=True)])
    rank = np.concatenate([np.where(f, 0, np.where(c, 1, 2)) for f, c in zip(fresh, changed, strict=True)])
    if not is_kept.all():
        assert rank[is_kept].max() <= rank[~is_kept].min()
    everything = choose(fresh, changed, grids_hw, None)
    assert [len(places) for places in everything] == [h * w for h, w in grids_hw]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 64))
def test_every_beginning_of_the_order_lies_over_the_whole_grid(height: int, width: int, num: int) -> None:
    order = spread_order((height, width))
    assert sorted(np.round(order * height * width).astype(int)) == list(range(height * width))
    first = np.argsort(order)[: min(num, height * width)]
    rows, columns = np.divmod(first, width)
    if len(first) >= 9 and min(height, width) >= 3:
        assert rows.min() < height / 2 <= rows.max() + 0.5 and columns.min() < width / 2 <= columns.max() + 0.5
