"""The simulated robot: a table with a red square block and a blue round mat, and an arm with a suction cup, in MuJoCo.

Seen from above, the block is the "red square" and the mat the "blue circle" that the built-in model knows.
"""

from __future__ import annotations

import math
import os
import sys
from typing import NamedTuple

import numpy as np

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    # Without a screen, MuJoCo renders through EGL: on the CPU where Mesa is, on a GPU where its driver brings EGL.
    os.environ.setdefault("MUJOCO_GL", "egl")
try:
    import mujoco
except (ImportError, AttributeError) as error:  # AttributeError: how PyOpenGL says that a library is not there
    raise ImportError(
        "the simulated robot needs mujoco (pip install 'millpond[robot]') and OpenGL to render with (without a screen, "
        f"Debian: libegl1, libgl1 and libgl1-mesa-dri): {error}"
    ) from error

BLOCK, MAT = "red square", "blue circle"
TOP, WRIST, VIEWER = "top", "wrist", "viewer"
BLOCK_HALF_M, MAT_RADIUS_M = 0.035, 0.06
BASE_Y_M = -0.44
SHOULDER_Z_M = 0.28
UPPER_M, FORE_M = 0.37, 0.37
TOOL_M = 0.14
"""From the wrist down to the face of the suction cup."""
WRIST_CAMERA_M = 0.07
"""How far the wrist's camera stands beside the cup, away from the base."""
WRIST_CAMERA_UP_M, WRIST_FOV_DEG = 0.04, 62.0
"""How far below the wrist's joint it looks out."""
TOP_CAMERA_Z_M, TOP_FOV_DEG = 2.0, 15.4
HOME_M = (0.0, -0.22, 0.34)
STEP_S = 0.004
JOINTS = ("yaw", "shoulder", "elbow", "pitch", "roll")

_ARM = '<geom type="capsule" size="{r}" fromto="{a}" rgba=".16 .17 .19 1" contype="0" conaffinity="0" mass="{m}"/>'
_XML = f"""
<mujoco model="block and mat">
  <compiler angle="radian"/>
  <option timestep="{STEP_S}" integrator="implicitfast"/>
  <visual>
    <global offwidth="480" offheight="360"/>
    <quality shadowsize="0" offsamples="0"/>
    <headlight ambient=".45 .45 .45" diffuse=".5 .5 .5" specular="0 0 0"/>
  </visual>
  <worldbody>
    <light pos="0 0 2.5" dir="0 0 -1" diffuse=".3 .3 .3" specular="0 0 0"/>
    <geom name="table" type="box" size=".6 .6 .02" pos="0 0 -.02" rgba=".22 .24 .27 1" friction="1 .02 .001"/>
    <camera name="{TOP}" pos="0 0 {TOP_CAMERA_Z_M}" fovy="{TOP_FOV_DEG}"/>
    <camera name="{VIEWER}" pos=".8 -.82 .72" xyaxes=".72 .69 0 -.36 .375 .854" fovy="46"/>
    <body name="mat" mocap="true" pos="-.14 .05 .002">
      <geom name="mat" type="cylinder" size="{MAT_RADIUS_M} .002" rgba=".16 .34 .92 1" friction="1 .02 .001"/>
    </body>
    <body name="block" pos=".12 -.06 {BLOCK_HALF_M}">
      <freejoint name="block"/>
      <geom name="block" type="box" size="{BLOCK_HALF_M} {BLOCK_HALF_M} {BLOCK_HALF_M}" rgba=".92 .1 .1 1" mass=".08"
            friction="1 .05 .001" condim="4"/>
    </body>
    <body name="base" pos="0 {BASE_Y_M} 0" gravcomp="1">
      <geom type="cylinder" size=".06 .11" pos="0 0 .11" rgba=".16 .17 .19 1" contype="0" conaffinity="0"/>
      <joint name="yaw" axis="0 0 1" range="-2 2"/>
      <body name="upper" pos="0 0 {SHOULDER_Z_M}" gravcomp="1">
        <joint name="shoulder" axis="1 0 0" range="-1.5 2.6"/>
        {_ARM.format(r=0.028, a=f"0 0 0 0 {UPPER_M} 0", m=0.6)}
        <body name="fore" pos="0 {UPPER_M} 0" gravcomp="1">
          <joint name="elbow" axis="1 0 0" range="-2.9 0"/>
          {_ARM.format(r=0.022, a=f"0 0 0 0 {FORE_M} 0", m=0.4)}
          <body name="tool" pos="0 {FORE_M} 0" gravcomp="1">
            <joint name="pitch" axis="1 0 0" range="-3 3"/>
            <geom type="sphere" size=".024" rgba=".16 .17 .19 1" contype="0" conaffinity="0" mass=".1"/>
            <body name="hand" gravcomp="1">
              <joint name="roll" axis="0 0 1" range="-3 3"/>
              {_ARM.format(r=0.012, a=f"0 0 0 0 0 {0.02 - TOOL_M}", m=0.1)}
              <geom type="box" size=".008 .035 .006" pos="0 .035 -.03" rgba=".16 .17 .19 1" contype="0" conaffinity="0"
                    mass=".01"/>
              <camera name="{WRIST}" pos="0 {WRIST_CAMERA_M} {-WRIST_CAMERA_UP_M}" fovy="{WRIST_FOV_DEG}"/>
              <body name="cup" pos="0 0 {0.005 - TOOL_M}" gravcomp="1">
                <geom name="cup" type="cylinder" size=".016 .005" rgba=".3 .3 .32 1" mass=".02" friction="2 .1 .01"
                      condim="4" solref=".01 1"/>
                <site name="cup" pos="0 0 -.005" size=".003" rgba="0 0 0 0"/>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position joint="yaw" kp="60" kv="12"/>
    <position joint="shoulder" kp="120" kv="20"/>
    <position joint="elbow" kp="80" kv="10"/>
    <position joint="pitch" kp="12" kv="1"/>
    <position joint="roll" kp="6" kv=".6"/>
    <adhesion name="suction" body="cup" gain="12" ctrlrange="0 1"/>
  </actuator>
</mujoco>
"""


class Command(NamedTuple):
    """What the arm is to do: hold its cup at this place of the table, in metres, and suck or not."""

    x_m: float
    y_m: float
    z_m: float
    sucks: bool = False


class Felt(NamedTuple):
    """What the arm itself knows: where its cup is, and whether it touches something."""

    x_m: float
    y_m: float
    z_m: float
    touches: bool


class Posture(NamedTuple):
    """A moment of the world, enough to render it elsewhere."""

    time_s: float
    qpos: np.ndarray
    mat_pos: np.ndarray


def joint_angles(command: Command) -> tuple[float, float, float, float, float]:
    """Yaw, shoulder, elbow, pitch and roll, in radians, that hold the cup there, upright and square to the table.

    Places out of reach are drawn in to where the arm is all but stretched.
    """
    dx, dy = command.x_m, command.y_m - BASE_Y_M
    yaw = math.atan2(-dx, dy)
    out, up = math.hypot(dx, dy), command.z_m + TOOL_M - SHOULDER_Z_M
    far = math.hypot(out, up)
    least, most = abs(UPPER_M - FORE_M) + 0.12, UPPER_M + FORE_M - 0.005
    shrink = min(max(far, least), most) / max(far, 1e-9)
    out, up, far = out * shrink, up * shrink, far * shrink
    inner = math.acos((UPPER_M**2 + FORE_M**2 - far**2) / (2 * UPPER_M * FORE_M))
    lift = math.acos((UPPER_M**2 + far**2 - FORE_M**2) / (2 * UPPER_M * far))
    shoulder = math.atan2(up, out) + lift
    elbow = inner - math.pi
    return yaw, shoulder, elbow, -(shoulder + elbow), -yaw


class Scene:
    """The world: physics, the arm's motors, and a hand that moves things while nobody expects it.

    Not thread-safe: it belongs to the control loop. `posture()` is what others get of it.
    """

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(_XML)
        self._data = mujoco.MjData(self.model)
        self._block = int(self.model.joint("block").qposadr[0])
        self._block_speed = int(self.model.joint("block").dofadr[0])
        self._mat = int(self.model.body("mat").mocapid[0])
        self._geoms = (int(self.model.geom("cup").id), int(self.model.geom("block").id))
        angles = joint_angles(Command(*HOME_M))
        for name, angle in zip(JOINTS, angles, strict=True):
            self._data.joint(name).qpos[0] = angle
        self._data.ctrl[:5] = angles
        mujoco.mj_forward(self.model, self._data)

    @property
    def time_s(self) -> float:
        return float(self._data.time)

    def act(self, command: Command, for_s: float) -> None:
        """Time goes on by `for_s`, the motors pulling to where the command wants the cup."""
        self._data.ctrl[:5] = joint_angles(command)
        self._data.ctrl[5] = float(command.sucks)
        for _ in range(max(1, round(for_s / STEP_S))):
            mujoco.mj_step(self.model, self._data)

    def felt(self) -> Felt:
        x_m, y_m, z_m = (float(value) for value in self._data.site("cup").xpos)
        contacts = self._data.contact
        touches = any({int(c.geom1), int(c.geom2)} == set(self._geoms) and c.dist < 1e-3 for c in contacts)
        return Felt(x_m, y_m, z_m, touches)

    def place(
        self, *, block_xy_m: tuple[float, float] | None = None, mat_xy_m: tuple[float, float] | None = None
    ) -> None:
        """A hand puts the block, or the mat, somewhere else on the table."""
        if block_xy_m is not None:
            self._data.qpos[self._block : self._block + 7] = (*block_xy_m, BLOCK_HALF_M + 0.005, 1, 0, 0, 0)
            self._data.qvel[self._block_speed : self._block_speed + 6] = 0
        if mat_xy_m is not None:
            self._data.mocap_pos[self._mat, :2] = mat_xy_m
        mujoco.mj_forward(self.model, self._data)

    def truth_m(self, name: str) -> tuple[float, float, float]:
        """Where the block's or the mat's middle really is: for judging only, the controller never asks."""
        place = self._data.body("block" if name == BLOCK else "mat").xpos
        return float(place[0]), float(place[1]), float(place[2])

    def posture(self) -> Posture:
        """The world as it is now."""
        return Posture(self.time_s, self._data.qpos.copy(), self._data.mocap_pos.copy())

    def imagined(
        self, command: Command, block_m: tuple[float, float, float], turn_rad: float, mat_xy_m: tuple[float, float]
    ) -> Posture:
        """The world as it would look with all at these places; nothing moves."""
        qpos, mocap_pos = self._data.qpos.copy(), self._data.mocap_pos.copy()
        for name, angle in zip(JOINTS, joint_angles(command), strict=True):
            qpos[self.model.joint(name).qposadr[0]] = angle
        qpos[self._block : self._block + 7] = (*block_m, math.cos(turn_rad / 2), 0, 0, math.sin(turn_rad / 2))
        mocap_pos[self._mat, :2] = mat_xy_m
        return Posture(0.0, qpos, mocap_pos)


class Eye:
    """Renders what a camera of the scene sees. Made, used and closed by one thread: OpenGL wants it so."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, height, width)

    def look(self, posture: Posture, camera: str) -> np.ndarray:
        """The picture, uint8 (height, width, 3), of its own."""
        self._aim(posture, camera)
        return self._renderer.render().copy()

    def what_is_where(self, posture: Posture, camera: str) -> dict[str, np.ndarray]:
        """For the block and the mat, which pixels show it: bool (height, width). What a policy is taught from."""
        self._aim(posture, camera)
        self._renderer.enable_segmentation_rendering()
        try:
            ids = self._renderer.render()[..., 0]
        finally:
            self._renderer.disable_segmentation_rendering()
        return {name: ids == self._model.geom(geom).id for name, geom in ((BLOCK, "block"), (MAT, "mat"))}

    def _aim(self, posture: Posture, camera: str) -> None:
        self._data.qpos[:] = posture.qpos
        self._data.mocap_pos[:] = posture.mat_pos
        self._data.time = posture.time_s
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, camera)

    def close(self) -> None:
        self._renderer.close()
