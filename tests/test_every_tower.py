"""The promises of Tower, for every row of FAMILIES, on small random models: its parts make up the family's `see`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders import FAMILIES, FrameTokens, VideoLLM, load_model
from millpond.encoders.towers import Prepared, Tower
from millpond.encoders.towers.walk import see_by_walking, walk
from millpond.stream import Frame

from .test_every_family import make_frames
from .tiny_models import TINY_MODELS

# Shapes: T patches of a picture in the tower's order, S some of them, U units, C channels of the tower, H heads,
# D channels per head, O channels of the language model, E DeepStack taps.

SIZES = [(48, 80), (90, 40), (64, 64), (200, 300), (57, 113)]
NEAR = {"atol": 1e-5, "rtol": 1e-5}


class Full(NamedTuple):
    """A full pass, kept: inputs of the layers and what comes after the last, keys and values, results."""

    tower: Tower
    prepared: Prepared
    x_TC: list[Tensor]
    k_THD: list[Tensor]
    v_THD: list[Tensor]
    y_UO: Tensor
    deep_EUO: Tensor | None


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param].save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoLLM:
    return load_model(folder, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def full(model: VideoLLM) -> Full:
    return walked(model, make_frames(1, 90, 130))


def tower_of(model: VideoLLM) -> Tower:
    assert model.tower is not None
    return model.tower


@torch.inference_mode()
def walked(model: VideoLLM, frames: list[Frame]) -> Full:
    tower = tower_of(model)
    prepared = tower.prepare(frames)
    x_TC: list[Tensor] = []
    k_THD: list[Tensor] = []
    v_THD: list[Tensor] = []

    def keep(layer: int, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
        assert layer == len(x_TC) and q.shape == k.shape
        for kept, one in zip((x_TC, k_THD, v_THD), (x, k, v), strict=True):
            kept.append(one)

    done = walk(tower, prepared, keep)
    return Full(tower, prepared, [*x_TC, done.x_TC], k_THD, v_THD, done.y_UO, done.deep_EUO)


def layer_by_rows(
    tower: Tower, prepared: Prepared, layer: int, x_SC: Tensor, index_S: Tensor, k_THD: Tensor, v_THD: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Some rows through one layer, among the keys and values of all: their output, keys and values."""
    layout = prepared.layout
    q_SC, k_SC, v_SC = tower.qkv(layer, tower.norm1(layer, x_SC))
    q_SHD, k_SHD = tower.rotate(layout, q_SC, index_S), tower.rotate(layout, k_SC, index_S)
    x_SC = x_SC + tower.project(layer, tower.attend(layer, layout, q_SHD, k_THD, v_THD, index_S))
    return x_SC + tower.mlp(layer, x_SC), k_SHD, v_SC.view_as(k_SHD)


def assert_same_tokens(ours: FrameTokens, theirs: FrameTokens) -> None:
    """Equal to the bit, and in everything that is said about them."""
    assert torch.equal(ours.x_TD, theirs.x_TD)
    assert torch.equal(ours.kept_T, theirs.kept_T)
    assert torch.equal(ours.pos_3T, theirs.pos_3T)
    assert (ours.grid_hw, ours.advance, ours.span) == (theirs.grid_hw, theirs.advance, theirs.span)
    assert (ours.deep_ETD is None) == (theirs.deep_ETD is None)
    if ours.deep_ETD is not None and theirs.deep_ETD is not None:
        assert torch.equal(ours.deep_ETD, theirs.deep_ETD)


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_a_full_walk_is_see_to_the_bit(model: VideoLLM, shape: tuple[int, int]) -> None:
    for num in range(1, model.spec.frames_per_block + 1):
        frames = make_frames(num, *shape, seed=num)
        assert_same_tokens(see_by_walking(tower_of(model), frames), model.see(frames)[0])


@torch.inference_mode()
@settings(max_examples=25)
@given(data=st.data())
def test_rows_given_apart_equal_those_of_the_full_walk(full: Full, data: st.DataObject) -> None:
    tower, prepared = full.tower, full.prepared
    num_patches = prepared.layout.num_patches
    chosen = data.draw(st.sets(st.integers(0, num_patches - 1)), label="patches")
    index_S = torch.tensor(sorted(chosen), dtype=torch.int64)
    torch.testing.assert_close(tower.embed(prepared, index_S), full.x_TC[0][index_S], **NEAR)
    for layer, (x_TC, k_THD, v_THD) in enumerate(zip(full.x_TC[:-1], full.k_THD, full.v_THD, strict=True)):
        x_SC, k_SHD, v_SHD = layer_by_rows(tower, prepared, layer, x_TC[index_S], index_S, k_THD, v_THD)
        torch.testing.assert_close(k_SHD, k_THD[index_S], **NEAR)
        torch.testing.assert_close(v_SHD, v_THD[index_S], **NEAR)
        torch.testing.assert_close(x_SC, full.x_TC[layer + 1][index_S], **NEAR)


@torch.inference_mode()
@settings(max_examples=15)
@given(data=st.data())
def test_units_given_apart_equal_those_of_the_full_walk(full: Full, data: st.DataObject) -> None:
    tower, units_UP = full.tower, full.prepared.layout.units_UP
    chosen = data.draw(st.sets(st.integers(0, len(units_UP) - 1)), label="units")
    units = torch.tensor(sorted(chosen), dtype=torch.int64)
    y_VO = tower.head(full.x_TC[-1][units_UP[units]])
    assert y_VO.shape == (len(units), tower.out_channels)
    torch.testing.assert_close(y_VO, full.y_UO[units], **NEAR)
    for number, layer in enumerate(tower.taps):
        assert full.deep_EUO is not None
        tapped = tower.tap(number, full.x_TC[layer + 1][units_UP[units]])
        torch.testing.assert_close(tapped, full.deep_EUO[number, units], **NEAR)


def test_there_is_no_tap_beyond_the_last(full: Full) -> None:
    for number in (-1, len(full.tower.taps)):
        with pytest.raises(ValueError, match=f"got {number} of {len(full.tower.taps)}"):
            full.tower.tap(number, torch.zeros(1, 1, full.tower.num_channels))


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_units_cover_every_patch_once_and_are_neighbours(model: VideoLLM, shape: tuple[int, int]) -> None:
    layout = tower_of(model).layout(*shape)
    every = list(range(layout.num_patches))
    assert layout.grid_hw[0] * layout.grid_hw[1] == layout.num_patches
    assert sorted(layout.raster_T.tolist()) == every
    assert sorted(layout.units_UP.flatten().tolist()) == every
    side = round(layout.units_UP.shape[1] ** 0.5)
    rows, columns = (
        layout.raster_T[layout.units_UP] // layout.grid_hw[1],
        layout.raster_T[layout.units_UP] % layout.grid_hw[1],
    )
    for along in (rows // side, columns // side):
        assert (along == along[:, :1]).all()
    assert sum(layout.window_lengths) in (0, layout.num_patches)
    if layout.window_T is not None:
        assert layout.window_T.bincount().tolist() == list(layout.window_lengths)
        assert (layout.window_T.diff() >= 0).all()


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(96, 160), (150, 90)], ids=str)
def test_raster_says_where_in_the_picture_a_patch_is(model: VideoLLM, shape: tuple[int, int]) -> None:
    tower = tower_of(model)
    layout = tower.layout(*shape)
    (rows, columns), (covered_h, covered_w) = layout.grid_hw, layout.covered_hw
    grey = np.full((*shape, 3), 90, dtype=np.uint8)
    plain = tower.embed(tower.prepare([Frame(grey, 0.0)]))
    for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns - 1), (rows - 1, columns // 3)}:
        top, bottom = (round(shape[0] * covered_h * r / rows) for r in (row, row + 1))
        left, right = (round(shape[1] * covered_w * c / columns) for c in (column, column + 1))
        spotted = grey.copy()
        spotted[top:bottom, left:right] = 200
        changed_T = (tower.embed(tower.prepare([Frame(spotted, 0.0)])) - plain).square().sum(1)
        assert layout.raster_T[changed_T.argmax()] == row * columns + column
        assert changed_T.max() > 0.3 * changed_T.sum()


@torch.inference_mode()
def test_queries_keys_and_values_come_apart(full: Full) -> None:
    tower = full.tower
    for layer, x_TC in enumerate(full.x_TC[:-1]):
        a_TC = tower.norm1(layer, x_TC)
        q_TC, k_TC, v_TC = tower.qkv(layer, a_TC)
        torch.testing.assert_close(tower.key(layer, a_TC), k_TC, **NEAR)
        for ours, theirs in zip(tower.query_value(layer, a_TC), (q_TC, v_TC), strict=True):
            torch.testing.assert_close(ours, theirs, **NEAR)


def test_what_may_be_kept_has_memory_of_its_own(full: Full) -> None:
    """A view of something larger would keep all of it alive."""
    for kept in (*full.x_TC, *full.k_THD, *full.v_THD, full.y_UO):
        assert kept.is_contiguous()
        assert kept.untyped_storage().nbytes() == kept.nbytes


@torch.inference_mode()
def test_tokens_have_memory_of_their_own(full: Full, model: VideoLLM) -> None:
    frames = make_frames(1, 90, 130)
    expected = model.see(frames)[0]
    y_UO, deep_EUO = full.y_UO.clone(), None if full.deep_EUO is None else full.deep_EUO.clone()
    tokens = full.tower.assemble(y_UO, deep_EUO, full.prepared.layout, frames)
    for given_, made in ((y_UO, tokens.x_TD), (deep_EUO, tokens.deep_ETD)):
        if given_ is not None and made is not None:
            assert made.untyped_storage().nbytes() == made.nbytes
            made.fill_(7.0)
    assert torch.equal(y_UO, full.y_UO)
    assert deep_EUO is None or (full.deep_EUO is not None and torch.equal(deep_EUO, full.deep_EUO))
    assert_same_tokens(see_by_walking(full.tower, frames), expected)


def test_layouts_are_made_once(model: VideoLLM) -> None:
    tower = tower_of(model)
    assert tower is model.tower
    layouts = [tower.layout(*shape) for shape in SIZES]
    assert all(tower.layout(*shape) is layout for shape, layout in zip(SIZES, layouts, strict=True))
    assert tower.prepare(make_frames(1, *SIZES[0])).layout is layouts[0]


def test_a_tower_says_what_it_is(full: Full, model: VideoLLM) -> None:
    tower = full.tower
    assert tower.frames_per_block == model.spec.frames_per_block
    assert (tower.dtype, tower.device) == (model.spec.dtype, model.spec.device)
    assert full.x_TC[0].shape == (full.prepared.layout.num_patches, tower.num_channels)
    assert full.k_THD[0].shape[1:] == (tower.num_heads, tower.head_dim)
    assert full.prepared.pixels.dtype == tower.dtype
    assert tower.out_channels == model.see(make_frames(1))[0].x_TD.shape[1]
    assert tower.patches_side_px == model.model.config.vision_config.patch_size


def test_what_is_not_one_block_is_refused(full: Full) -> None:
    step = full.tower.frames_per_block
    for frames in ([], make_frames(step + 1)):
        with pytest.raises(ValueError, match=f"1 to {step} frames; got {len(frames)}"):
            full.tower.prepare(frames)
        with pytest.raises(ValueError, match=f"1 to {step} frames; got {len(frames)}"):
            full.tower.assemble(full.y_UO, full.deep_EUO, full.prepared.layout, frames)


@torch.inference_mode()
def test_windowed_layers_read_their_own_window_only(full: Full) -> None:
    tower, prepared = full.tower, full.prepared
    window_T = prepared.layout.window_T
    if window_T is None:
        return
    assert int(window_T[-1]) > 1
    for layer, windowed in ((0, True), (1, False), (2, True)):
        index_S = torch.tensor([5, 6, prepared.layout.num_patches - 1])
        seen_T = torch.isin(window_T, window_T[index_S])
        k_THD, v_THD = (x[layer].clone() for x in (full.k_THD, full.v_THD))
        k_THD[~seen_T], v_THD[~seen_T] = torch.nan, torch.nan
        given_ = full.x_TC[layer][index_S], index_S, k_THD, v_THD
        assert bool(layer_by_rows(tower, prepared, layer, *given_)[0].isfinite().all()) == windowed


@torch.inference_mode()
def test_bfloat16_is_as_close_to_float32_as_see_is(folder: Path, model: VideoLLM) -> None:
    """Root mean square error over tokens, of the walk and of the last layer by rows: at most 1.25 times that of see."""
    coarse = load_model(folder, device="cpu", dtype=torch.bfloat16)
    frames = make_frames(coarse.spec.frames_per_block, 90, 130)
    exact = model.see(frames)[0].x_TD

    def error(tokens: FrameTokens) -> float:
        return float((tokens.x_TD.float() - exact).square().mean().sqrt())

    full = walked(coarse, frames)
    allowed = 1.25 * error(coarse.see(frames)[0])
    assert error(see_by_walking(full.tower, frames)) <= allowed
    y_UO = full.tower.head(full.x_TC[-1][full.prepared.layout.units_UP])
    assert error(full.tower.assemble(y_UO, full.deep_EUO, full.prepared.layout, frames)) <= allowed


def test_features_of_an_earlier_layer_need_fewer_layers(tmp_path: Path) -> None:
    folder = TINY_MODELS["llava_onevision"].save(tmp_path)
    for chosen, num_layers in ((-2, 1), (1, 1), (-1, 2), (2, 2)):
        _edit(folder / "config.json", vision_feature_layer=chosen)
        model = load_model(folder, device="cpu", dtype=torch.float32)
        assert tower_of(model).num_layers == num_layers
        frames = make_frames(1)
        assert_same_tokens(see_by_walking(tower_of(model), frames), model.see(frames)[0])


@pytest.mark.parametrize("setting", [{"vision_feature_layer": [-1]}, {"vision_feature_select_strategy": "default"}])
def test_features_that_are_not_each_patchs_own_make_no_tower(tmp_path: Path, setting: dict[str, object]) -> None:
    folder = TINY_MODELS["llava_onevision"].save(tmp_path)
    _edit(folder / "config.json", **setting)
    assert load_model(folder, device="cpu", dtype=torch.float32).tower is None


def test_an_edge_that_no_patch_covers_is_left_out(tmp_path: Path) -> None:
    folder = TINY_MODELS["llava_onevision"].save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    _edit(folder / "config.json", vision_config={**config["vision_config"], "image_size": 60})
    _edit(folder / "preprocessor_config.json", size={"height": 60, "width": 60})
    model = load_model(folder, device="cpu", dtype=torch.float32)
    tower, frames = tower_of(model), make_frames(1)
    assert tower.layout(48, 80).grid_hw == (7, 7)
    assert tower.layout(48, 80).covered_hw == (56 / 60, 56 / 60)
    assert_same_tokens(see_by_walking(tower, frames), model.see(frames)[0])
    with torch.inference_mode():
        prepared, index_S = tower.prepare(frames), torch.tensor([0, 6, 7, 48])
        torch.testing.assert_close(tower.embed(prepared, index_S), tower.embed(prepared)[index_S], **NEAR)


def test_pictures_smaller_than_the_table_of_positions_spread_over_it(tmp_path: Path) -> None:
    folder = TINY_MODELS["smolvlm"].save(tmp_path)
    _edit(folder / "preprocessor_config.json", max_image_size={"longest_edge": 48})
    model, frames = load_model(folder, device="cpu", dtype=torch.float32), make_frames(1)
    assert tower_of(model).layout(48, 80).grid_hw == (6, 6)
    assert_same_tokens(see_by_walking(tower_of(model), frames), model.see(frames)[0])


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
