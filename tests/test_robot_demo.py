"""The simulated robot does its work on what the feed says, and on nothing else; its parts, and a whole run of it."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from millpond.pipeline.robot import Perception, View

DEMOS = Path(__file__).parents[1] / "demos"
if not DEMOS.is_dir():
    pytest.skip("not in a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def demo() -> Iterator[SimpleNamespace]:
    """The demo's modules, which import one another by name as programs in one folder do."""
    names = ("eyes", "reading", "controller", "film", "arm")
    modules: dict[str, ModuleType] = {}
    sys.path.insert(0, str(DEMOS))
    try:
        try:
            modules["scene"] = importlib.import_module("robot_scene")
        except ImportError as error:  # no mujoco, or no OpenGL for it
            pytest.skip(str(error))
        for name in names:
            modules[name] = importlib.import_module(f"robot_{name}")
    finally:
        sys.path.remove(str(DEMOS))
    try:
        yield SimpleNamespace(**modules)
    finally:
        for name in modules:
            sys.modules.pop(f"robot_{name}", None)


@pytest.fixture(scope="module")
def rendering(demo: SimpleNamespace) -> None:
    """Skips where nothing can be rendered without a screen."""
    try:
        demo.scene.Eye(demo.scene.Scene().model, 32, 32).close()
    except (ImportError, AttributeError, RuntimeError, demo.scene.mujoco.FatalError) as error:
        pytest.skip(f"OpenGL does not come up: {error}")


def test_the_arm_goes_where_it_is_told(demo: SimpleNamespace) -> None:
    """The angles of every place on the table that is in reach, put back through MuJoCo's own kinematics."""
    scene, mujoco = demo.scene.Scene(), demo.scene.mujoco
    data = mujoco.MjData(scene.model)
    for x_m, y_m, z_m in np.random.default_rng(0).uniform((-0.22, -0.22, 0.07), (0.22, 0.22, 0.34), (50, 3)):
        command = demo.scene.Command(x_m, y_m, z_m)
        data.qpos[:] = scene.imagined(command, (0.0, 0.0, 1.0), 0.0, (0.0, 0.0)).qpos
        mujoco.mj_kinematics(scene.model, data)
        assert math.dist(data.site("cup").xpos, (x_m, y_m, z_m)) < 1e-6
        # Upright, and square to the table, so that the wrist's picture lies as the table does.
        assert np.abs(data.body("cup").xmat.reshape(3, 3) - np.eye(3)).max() < 1e-6


def test_the_cup_lifts_the_block_and_lets_go(demo: SimpleNamespace) -> None:
    scene, command = demo.scene.Scene(), demo.scene.Command
    x_m, y_m, _ = scene.truth_m(demo.scene.BLOCK)
    for z_m, sucks in ((0.12, False), (0.08, False), (0.066, True), (0.066, True)):
        scene.act(command(x_m, y_m, z_m, sucks), 0.6)
    assert scene.felt().touches
    for z_m in (0.1, 0.14, 0.18):
        scene.act(command(x_m, y_m, z_m, True), 0.5)
    assert scene.felt().touches and scene.truth_m(demo.scene.BLOCK)[2] > 0.12
    scene.act(command(x_m, y_m, 0.18, False), 1.0)
    assert not scene.felt().touches and scene.truth_m(demo.scene.BLOCK)[2] < 0.04


def reading_of(demo: SimpleNamespace, number: int, pts_s: float, cells: float, u: float, v: float) -> Any:
    spots = {(c, t): demo.reading.Spot(u, v, cells) for c in ("top", "wrist") for t in demo.reading.THINGS}
    return demo.reading.Reading(spots, {"top": pts_s, "wrist": pts_s}, number)


seen_or_not = st.one_of(
    st.none(), st.tuples(st.floats(0, 36), st.floats(0, 1), st.floats(0, 1), st.floats(0, 2), st.booleans())
)


@settings(max_examples=60)
@given(st.lists(seen_or_not, max_size=80))
def test_whatever_it_is_shown_it_moves_no_faster_than_it_may_and_never_blindly(
    demo: SimpleNamespace, ticks: list[tuple[float, float, float, float, bool] | None]
) -> None:
    """No view: the last command again, to the last bit, in the same phase. Any view: a step the arm can follow."""
    controller = demo.controller.Controller(rate_hz=20.0)
    command = demo.scene.Command(*demo.scene.HOME_M)
    for number, tick in enumerate(ticks):
        phase, time_s = controller.phase, number / 20
        touches = tick is not None and tick[4]
        felt = demo.scene.Felt(*command[:3], touches)
        if tick is None:
            assert controller.step(None, felt, time_s) == command
            assert controller.phase is phase
            continue
        cells, u, v, late_s, _ = tick
        after = controller.step(reading_of(demo, number, time_s - late_s, cells, u, v), felt, time_s)
        assert math.dist(after[:3], command[:3]) <= demo.controller.FAST_M_S / 20 + 1e-9
        assert {mask.dtype for mask in controller.must_be_fresh().values()} == {np.dtype(bool)}
        command = after
    assert controller.num_held == sum(tick is None for tick in ticks)


def test_pictures_from_before_do_not_tell_that_it_is_done(demo: SimpleNamespace) -> None:
    """Back home, it waits for pictures taken from there; old ones, of the block on the mat or not, decide nothing."""
    controller = demo.controller.Controller(rate_hz=20.0)
    controller.mat, controller.block = (0.0, 0.0), (0.0, 0.0)
    controller._turn_to(demo.controller.Phase.CHECK, 5.0)
    felt = demo.scene.Felt(*demo.scene.HOME_M, False)
    for number in range(40):
        controller.step(reading_of(demo, number, 4.9, 1.0, 0.5, 0.5), felt, 5.0 + number / 20)
    assert controller.phase is demo.controller.Phase.CHECK
    for number in range(40, 50):
        controller.step(reading_of(demo, number, 5.0 + number / 20, 1.0, 0.5, 0.5), felt, 5.0 + number / 20)
    assert controller.phase is demo.controller.Phase.DONE


def test_of_what_was_not_kept_nothing_is_read(demo: SimpleNamespace) -> None:
    """Two tokens of a grid of 6 by 6: what they say counts, at their places; all else is not made up."""
    taught = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    reader = demo.reading.Reader({"top": taught})
    view = View("top", 1.5, 0.0, 0, (6, 6), 2)
    perception = Perception(
        torch.tensor([[1.0, 0.0], [0.5, 0.0]]),
        torch.tensor([[0, 1, 2], [0, 1, 3]]),
        torch.ones(2, dtype=torch.bool),
        (view,),
        0.01,
        0,
        7,
    )
    read = reader.read(perception)
    block = read.spots["top", demo.scene.BLOCK]
    assert block.cells == pytest.approx(1.5)
    assert (block.u, block.v) == pytest.approx(((2.5 + 0.5 * 3.5) / 1.5 / 6, 1.5 / 6))
    assert read.spots["top", demo.scene.MAT].cells == 0
    assert (read.pts_s, read.number) == ({"top": 1.5}, 7)


def test_a_film_of_another_kind_is_refused(demo: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a \.gif or an \.mp4; got film\.avi"):
        demo.film.write_film([], demo.scene.Scene(), tmp_path / "film.avi")
    with pytest.raises(ValueError, match="got none"):
        demo.film.write_film([], demo.scene.Scene(), tmp_path / "film.gif")


@pytest.mark.slow
@pytest.mark.usefixtures("rendering")
def test_it_puts_the_block_on_the_mat(demo: SimpleNamespace, tmp_path: Path) -> None:
    """For real: somebody moves the block on the way, and a camera is unplugged for longer than a view may be old. The
    block ends on the mat; while there was no fresh view, the arm was told nothing new."""
    said: list[str] = []
    run = demo.arm.Run(demo.arm.Settings(max_age_s=3.0, unplugged_s=6.0, num_lessons=40, limit_s=150.0), said.append)
    report, phase = run.go(), demo.controller.Phase
    assert report.phases[-1] is phase.DONE, "\n".join(said)
    assert report.away_m < 0.03
    assert [one for one in report.phases if one in (phase.APPROACH, phase.CARRY, phase.CHECK)][:3] == [
        phase.APPROACH,
        phase.CARRY,
        phase.CHECK,
    ]
    assert report.num_refused > 0 and report.num_moved_blind == 0
    assert all(" s old, and at most 3 s were asked for" in reason for reason in report.reasons)
    assert max(report.ages_s) <= 3.0
    assert set(report.num_tokens) == {48}
    assert [answer.question for answer in report.answers] == [demo.arm.QUESTION] * 2
    assert all(answer.text for answer in report.answers)
    assert "cm from the middle of the mat" in demo.arm.summary(report)

    demo.film.write_film(report.shots, run.scene, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames > 10 and film.size == (640, 360)  # frames that do not differ are joined
    demo.film.write_film(report.shots[:5], run.scene, tmp_path / "film.mp4")
    import av

    with av.open(str(tmp_path / "film.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
