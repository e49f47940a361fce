"""Robots and cart-poles in the plane, drawn with matplotlib: needs no OpenGL, so there is always a picture.

Every part of the four robots is a capsule, and the shadow of a capsule on a plane is a stadium: two half circles of the
capsule's radius, joined. The walking robots are seen from the side (x to the right, z up), the swimmer from above.
"""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from trpo_lessons.envs.base import Floats
from trpo_lessons.envs.cartpole import MAX_POSITION, CartPoleConstants
from trpo_lessons.envs.simulator import mujoco
from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.style import BLACK, BLUE, GREY, ORANGE, PIXELS_PER_INCH, VERMILION, style

WATER = "#E8F1F7"
GROUND = "#D9D9D9"
LIMB_COLORS = (BLUE, ORANGE)  # of the limbs that hang on the torso, in the model's order
CORNERS = 12  # of each half circle of a stadium
CART = (0.5, 0.25)  # m, width and height
TRACK_SEEN = 5.6  # m


class Canvas:
    """One pair of axes that fill the picture, the same number of pixels for a meter across and up, a mark each meter.

    ground  draw the ground, below a height of 0
    """

    def __init__(self, background: str, *, ground: bool) -> None:
        with style():
            figure = Figure(figsize=(WIDTH / PIXELS_PER_INCH, HEIGHT / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
            self._canvas = FigureCanvasAgg(figure)
            self.axes = figure.add_axes((0, 0, 1, 1), facecolor=background)
        self.axes.spines[:].set_visible(False)
        self.axes.xaxis.set_major_locator(MultipleLocator(1))
        self.axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:z.0f} m"))
        self.axes.yaxis.set_major_locator(MultipleLocator(1))
        self.axes.tick_params(length=0, labelleft=False, labelsize=9, pad=-14)  # labels inside the picture
        self.axes.grid(color=GREY, alpha=0.4, linestyle="-", linewidth=0.8)
        if ground:
            self.axes.axhspan(-100, 0, color=GROUND, zorder=0.2)  # under the marks and their labels
            self.axes.axhline(0, color=BLACK, linewidth=1, linestyle="-", zorder=1.6)

    def aim(self, left: float, bottom: float, width: float) -> None:
        """Show `width` meters from `left`, and from `bottom` upward what fills the picture."""
        self.axes.set(xlim=(left, left + width), ylim=(bottom, bottom + width * HEIGHT / WIDTH))

    def pixels(self) -> NDArray[np.uint8]:
        """The picture as it is now, [HEIGHT, WIDTH, 3]."""
        self._canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(self._canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


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
        self._bodies.set_verts(self.outlines(positions))
        mujoco.mj_comPos(self._model, self._data)
        across, up = self._data.subtree_com[0][self._plane]
        bottom = up - self._width / 3 if self._bottom is None else self._bottom
        self._canvas.aim(across - self._width / 2, bottom, self._width)
        return self._canvas.pixels()

    def outlines(self, positions: Floats) -> list[Floats]:
        """The stadium of every part, [2 * CORNERS, 2] each, in m, for a robot at `positions` [nq]."""
        self._data.qpos[:] = positions
        mujoco.mj_kinematics(self._model, self._data)
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


class CartPoleDrawing:
    """Draws a state [4] = (x, dx/dt, angle, dangle/dt) as a picture [H, W, 3]; the track's ends are marked."""

    def __init__(self, constants: CartPoleConstants) -> None:
        self._length = 2 * constants.half_length
        self._canvas = Canvas("white", ground=True)
        self._canvas.aim(-TRACK_SEEN / 2, -0.9, TRACK_SEEN)
        axes = self._canvas.axes
        axes.vlines((-MAX_POSITION, MAX_POSITION), -0.1, 0.1, color=VERMILION, linewidth=4, zorder=3)
        self._cart = Rectangle((0, 0), *CART, facecolor=BLUE, edgecolor=BLACK, zorder=2)
        axes.add_patch(self._cart)
        (self._pole,) = axes.plot([], [], color=ORANGE, linestyle="-", linewidth=6, solid_capstyle="round", zorder=3)

    def __call__(self, state: Floats) -> NDArray[np.uint8]:
        self._cart.set_x(state[0] - CART[0] / 2)
        self._pole.set_data(*self.pole(state))
        return self._canvas.pixels()

    def pole(self, state: Floats) -> tuple[Floats, Floats]:
        """Where hinge and tip are, in m: across [2] and up [2]."""
        x, angle = state[0], state[2]  # an angle above 0 leans to the right
        tip = x + self._length * np.sin(angle), CART[1] + self._length * np.cos(angle)
        return np.array([x, tip[0]]), np.array([CART[1], tip[1]])
