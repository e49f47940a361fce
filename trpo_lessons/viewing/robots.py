"""A planar robot drawn with matplotlib, from the geometry of its MuJoCo model: wherever OpenGL does not work.

Every part of the four robots is a capsule, and the shadow of a capsule on a plane is a stadium: two half circles of the
capsule's radius, joined. The walking robots are seen from the side (x to the right, z up), the swimmer from above.
"""

from __future__ import annotations

import mujoco  # type: ignore[import-untyped]
import numpy as np
from matplotlib.collections import PolyCollection
from numpy.typing import NDArray

from trpo_lessons.envs.base import Floats
from trpo_lessons.viewing.canvas import Canvas
from trpo_lessons.viewing.style import BLACK, BLUE, GREY, ORANGE

WATER = "#E8F1F7"
LIMB_COLORS = (BLUE, ORANGE)  # of the limbs that hang on the torso, in the model's order
CORNERS = 12  # of each half circle


class RobotDrawing:
    """Draws a robot [H, W, 3] at given positions [nq]; a camera follows its center of mass."""

    def __init__(self, model: mujoco.MjModel) -> None:
        """Raises ValueError for a model with parts that are no capsules."""
        self._model, self._data = model, mujoco.MjData(model)
        self._parts = np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)
        if (model.geom_type[self._parts] != mujoco.mjtGeom.mjGEOM_CAPSULE).any():
            raise ValueError("only robots made of capsules can be drawn")
        swims = bool(model.opt.viscosity > 0)
        self._plane = [0, 1] if swims else [0, 2]
        self._width = 6.0 if swims else 3.9  # m, what is seen
        self._canvas = Canvas(WATER if swims else "white", ground=not swims)
        self._bottom = None if swims else -0.5  # m, what is seen lowest; None: the camera follows up and down
        colors = part_colors(model, self._parts)
        self._bodies = PolyCollection([], facecolors=colors, edgecolors=BLACK, linewidths=1, zorder=2)
        self._canvas.axes.add_collection(self._bodies, autolim=False)

    def __call__(self, positions: Floats) -> NDArray[np.uint8]:
        self._data.qpos[:] = positions
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        self._bodies.set_verts(self.outlines())
        across, up = self._data.subtree_com[0][self._plane]
        bottom = up - self._width / 3 if self._bottom is None else self._bottom
        self._canvas.aim(across - self._width / 2, bottom, self._width)
        return self._canvas.pixels()

    def outlines(self) -> list[Floats]:
        """The stadium of every part, [2 * CORNERS, 2] each, in m."""
        half_axis = self._data.geom_xmat[self._parts].reshape(-1, 3, 3)[:, :, 2]
        half_axis = (half_axis * self._model.geom_size[self._parts, 1:2])[:, self._plane]
        center, radius = self._data.geom_xpos[self._parts][:, self._plane], self._model.geom_size[self._parts, 0]
        turn = np.linspace(-np.pi / 2, np.pi / 2, CORNERS)
        stadiums = []
        for c, h, r in zip(center, half_axis, radius, strict=True):
            angle = np.arctan2(h[1], h[0]) + np.concatenate((turn, turn + np.pi))
            ends = np.repeat((c + h, c - h), CORNERS, axis=0)
            stadiums.append(ends + r * np.column_stack((np.cos(angle), np.sin(angle))))
        return stadiums


def part_colors(model: mujoco.MjModel, parts: NDArray[np.intp]) -> list[str]:
    """A color for each part: one for the torso, one for each limb that hangs on it."""
    limbs = [_limb(model, body) for body in model.geom_bodyid[parts]]
    order = [limb for limb in dict.fromkeys(limbs) if limb is not None]
    return [GREY if limb is None else LIMB_COLORS[order.index(limb) % len(LIMB_COLORS)] for limb in limbs]


def _limb(model: mujoco.MjModel, body: int) -> int | None:
    """The body next to the torso on the way from `body` to it: what a whole limb has in common. None for the torso."""
    limb = None
    while model.body_parentid[body] != 0:
        limb, body = int(body), model.body_parentid[body]
    return limb
