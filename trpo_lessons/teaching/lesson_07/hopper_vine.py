"""Figure 1 of the paper, drawn from a real vine: how lesson 07's pictures of a hopping robot are made.

Nothing is computed here but where lines go: trunk and branches are what the lesson simulates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from trpo_lessons.envs.simulator import mujoco
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREY, VERMILION
from trpo_lessons.viewing.drawing import RobotDrawing

Floats = npt.NDArray[np.float64]
X, Z = 0, 1  # of the torso, in m, among a walking robot's positions
NUMBER: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": VERMILION, "ha": "center"}


@dataclass(frozen=True)
class Fan:
    """The branches of one state: positions [steps + 1, nq] of each (shorter where it ended early), and Q-values [K]."""

    paths: Sequence[Floats]
    q_values: Floats


def draw_vine(figure: Figure, model: mujoco.MjModel, trunk: Floats, fans: Sequence[Fan]) -> None:
    """The torso of a walking robot along its trunk [steps, nq], and along the branches, colored by their Q-values.

    The states are numbered from 1 in the order given; a branch ends in a dot, beside the number of its state.
    """
    axes = figure.subplots()
    axes.axhline(0, color=BLACK, linewidth=1)
    everything = np.concatenate([fan.q_values for fan in fans])
    color = ScalarMappable(Normalize(everything.min(), everything.max()), matplotlib.colormaps["viridis"])
    outlines = RobotDrawing(model).outlines
    for fan in fans:
        lines = [path[:, [X, Z]] for path in fan.paths]
        colors, ends = color.to_rgba(fan.q_values), np.array([line[-1] for line in lines])
        axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.6, zorder=3))
        axes.scatter(ends[:, 0], ends[:, 1], s=14, color=colors, zorder=4)
        start = fan.paths[0][0]
        axes.add_collection(PolyCollection(outlines(start), facecolors="#DDDDDD", edgecolors=GREY, zorder=1))
        axes.plot(start[X], start[Z], "o", color=VERMILION, markersize=8, zorder=5)
    axes.plot(trunk[:, X], trunk[:, Z], color=BLACK, linestyle="-", linewidth=2.4, zorder=2, label="trunk")
    axes.plot([], [], "o", color=VERMILION, label="rollout set")
    axes.plot([], [], color=color.to_rgba(everything.mean()), linestyle="-", label="branches, each to its end")
    axes.set(xlabel="x, m", ylabel="height, m", ylim=(-0.1, 1.95), aspect="equal")
    axes.legend(loc="upper left", fontsize=9, ncols=3)
    figure.colorbar(color, ax=axes, label="Q of the branch", shrink=0.7)
    put_numbers(axes, fans)


AROUND = [(12 * np.cos(turn), 12 * np.sin(turn)) for turn in np.arange(8) * np.pi / 4]  # points; to the right first
DOT, APART = 1.5, 3.0  # how much a number is worth keeping from a dot, and from another number


def put_numbers(axes: Axes, fans: Sequence[Fan]) -> None:
    """The number of every state where its branches begin and where they end, each on the side with most room."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # only now is it known where a meter lies
    per_point = figure.dpi / 72
    ends = [max((path[-1, [X, Z]] for path in fan.paths), key=lambda end: float(end[X])) for fan in fans]
    anchors = [
        (number, at) for number, fan in enumerate(fans, start=1) for at in (fan.paths[0][0, [X, Z]], ends[number - 1])
    ]
    dots = np.array([axes.transData.transform(at) for _, at in anchors]) / per_point
    numbers: list[Floats] = []
    for (number, at), dot in zip(anchors, dots, strict=True):

        def room(offset: tuple[float, float], dot: Floats = dot) -> float:
            place = dot + offset
            near = [np.hypot(*(place - other)) / DOT for other in dots if not np.array_equal(other, dot)]
            return float(min([*near, *(np.hypot(*(place - other)) / APART for other in numbers), 20.0]))

        offset = max(AROUND, key=room)
        numbers.append(dot + offset)
        axes.annotate(
            str(number), (at[0], at[1]), xytext=offset, textcoords="offset points", va="center", zorder=6, **NUMBER
        )


def ahead_of_the_mean(fan: Fan) -> list[Floats]:
    """How far each branch is ahead of the mean of those that still go on, in cm, at every step."""
    longest = max(len(path) for path in fan.paths)
    x = np.full((len(fan.paths), longest), np.nan)
    for row, path in zip(x, fan.paths, strict=True):
        row[: len(path)] = path[:, X]
    return [row[: len(path)] for row, path in zip(100 * (x - np.nanmean(x, axis=0)), fan.paths, strict=True)]


def draw_fans(figure: Figure, fans: Mapping[str, Fan]) -> None:
    """Beside each other, and to the same scale: how the branches of one state part."""
    panels: Sequence[Axes] = figure.subplots(1, len(fans), sharey=True, squeeze=False)[0]
    for axes, (title, fan) in zip(panels, fans.items(), strict=True):
        for distance in ahead_of_the_mean(fan):
            axes.plot(distance, color=BLUE, linestyle="-", linewidth=1.4)
        axes.set(title=title, xlabel="steps after branching")
    panels[0].set_ylabel("ahead of the mean, cm")
