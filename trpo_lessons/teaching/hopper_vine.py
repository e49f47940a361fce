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
    for number, fan in enumerate(fans, start=1):
        lines = [path[:, [X, Z]] for path in fan.paths]
        colors, ends = color.to_rgba(fan.q_values), np.array([line[-1] for line in lines])
        axes.add_collection(LineCollection(lines, colors=colors, linewidths=1.6, zorder=3))
        axes.scatter(ends[:, 0], ends[:, 1], s=14, color=colors, zorder=4)
        axes.annotate(str(number), ends[ends[:, 0].argmax()], xytext=(9, -3), textcoords="offset points", **NUMBER)
        start = fan.paths[0][0]
        axes.add_collection(PolyCollection(outlines(start), facecolors="#DDDDDD", edgecolors=GREY, zorder=1))
        axes.plot(start[X], start[Z], "o", color=VERMILION, markersize=8, zorder=5)
        beside = (-6, 7) if number % 2 else (6, -14)  # two states that are close to each other keep their numbers apart
        axes.annotate(str(number), start[[X, Z]], xytext=beside, textcoords="offset points", zorder=6, **NUMBER)
    axes.plot(trunk[:, X], trunk[:, Z], color=BLACK, linestyle="-", linewidth=2.4, zorder=2, label="trunk")
    axes.plot([], [], "o", color=VERMILION, label="rollout set")
    axes.plot([], [], color=color.to_rgba(everything.mean()), linestyle="-", label="branches, each to its end")
    axes.set(xlabel="x, m", ylabel="height, m", ylim=(-0.1, 1.95), aspect="equal")
    axes.legend(loc="upper left", fontsize=9, ncols=3)
    figure.colorbar(color, ax=axes, label="Q of the branch", shrink=0.7)


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
