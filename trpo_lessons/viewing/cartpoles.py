"""A cart and its pole, drawn with matplotlib."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from trpo_lessons.envs.base import Floats
from trpo_lessons.envs.cartpole import MAX_POSITION, CartPoleConstants
from trpo_lessons.viewing.canvas import Canvas
from trpo_lessons.viewing.style import BLACK, BLUE, ORANGE, VERMILION

CART = (0.5, 0.25)  # m, width and height
VIEW = 5.6  # m


class CartPoleDrawing:
    """Draws a state [4] = (x, dx/dt, angle, dangle/dt) as a picture [H, W, 3]; the track's ends are marked."""

    def __init__(self, constants: CartPoleConstants) -> None:
        self._length = 2 * constants.half_length
        self._canvas = Canvas("white", ground=True)
        self._canvas.aim(-VIEW / 2, -0.9, VIEW)
        axes = self._canvas.axes
        axes.vlines((-MAX_POSITION, MAX_POSITION), -0.1, 0.1, color=VERMILION, linewidth=4, zorder=3)
        self._cart = Rectangle((0, 0), *CART, facecolor=BLUE, edgecolor=BLACK, zorder=2)
        axes.add_patch(self._cart)
        (self._pole,) = axes.plot([], [], color=ORANGE, linestyle="-", linewidth=6, solid_capstyle="round", zorder=3)

    def __call__(self, state: Floats) -> NDArray[np.uint8]:
        x, angle = state[0], state[2]  # an angle above 0 leans to the right
        self._cart.set_x(x - CART[0] / 2)
        hinge = CART[1]
        self._pole.set_data([x, x + self._length * np.sin(angle)], [hinge, hinge + self._length * np.cos(angle)])
        return self._canvas.pixels()
