"""A run to look at while it learns, to stop at any moment, and to go on with; lesson 09.

`training.train` and `training.resume` do all of the work. They call a function after every iteration, and this is one
that draws.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import EngFormatter

from trpo_lessons.teaching.pictures import BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION, LivePicture
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running.run_folder import RunFolder

Row = Mapping[str, Any]
SECONDS_BETWEEN_DRAWINGS = 2.0  # a drawing takes a third of a second
PANELS = (
    ("mean_return", "return, latest 100 episodes", BLUE),
    ("mean_kl", "mean KL / delta", VERMILION),
    ("explained_variance", "explained variance of V", GREEN),
    ("entropy", "entropy, nats", PURPLE),
    ("cg_residual", "CG: residual that is left", ORANGE),
    ("accepted", "accepted", GREY),
)


class Screen:
    """Draws the report of a run as it grows; hand it to `train` and `resume` as their callback.

    rows  what it was told, a row an iteration; those that a folder holds already come first

    A folder that holds a run has that run's settings, and they count: who runs a cell again, far down in a notebook,
    has given the name `config` to another run by then.
    """

    def __init__(self, config: TrainConfig, folder: Path | str | None = None) -> None:
        begun = folder is not None and RunFolder(Path(folder)).has_begun
        self.config = RunFolder(Path(folder)).config()[0] if folder is not None and begun else config
        alt = f"Six curves of {self.config.task} against simulator steps, while it learns: " + ", ".join(
            title for _, title, _ in PANELS
        )
        self._live, self._drawn = LivePicture(alt + ".", 9.0, 4.6), -math.inf
        self.rows: list[Row] = rows_of(folder) if folder and Path(folder).exists() else []

    def __call__(self, row: Row) -> None:
        """Take note of a row, and draw if the last drawing is some time ago."""
        self.rows.append(dict(row))
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_DRAWINGS:
            self.draw()

    def draw(self) -> None:
        """Draw all that is known. Call it once more when training has ended."""
        self._live.redraw(lambda figure: draw_report(figure, self.rows, self.config))
        self._drawn = time.monotonic()


def rows_of(folder: Path | str) -> list[Row]:
    """The rows of a run folder's progress.csv, numbers as numbers."""
    return [{name: _number(text) for name, text in row.items()} for row in RunFolder(Path(folder)).rows()]


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def draw_report(figure: FigureBase, rows: Sequence[Row], config: TrainConfig) -> None:
    """Six panels against simulator steps: return, KL, explained variance, entropy, CG's residual, acceptance."""
    panels = figure.subplots(2, 3, sharex=True).flatten()
    steps = np.array([row["total_steps"] for row in rows])
    for axes, (name, title, color) in zip(panels, PANELS, strict=True):
        column = np.array([float(row[name]) for row in rows]) / (config.delta if name == "mean_kl" else 1.0)
        draw_panel(axes, name, steps, column, title, color)
    for axes in panels[3:]:
        axes.set_xlabel("simulator steps")


SEED_LOOKS = ((BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1))))


def draw_columns(figure: FigureBase, logs: Sequence[Sequence[Row]], delta: float, smooth: int = 25) -> None:
    """The same six panels for several seeds of a run, a line each; running medians of all but the return."""
    panels = figure.subplots(2, 3, sharex=True).flatten()
    for seed, (rows, (color, dashes)) in enumerate(zip(logs, SEED_LOOKS, strict=False)):
        steps = np.array([row["total_steps"] for row in rows])
        for axes, (name, title, _) in zip(panels, PANELS, strict=True):
            column = np.array([float(row[name]) for row in rows]) / (delta if name == "mean_kl" else 1.0)
            shown = column if name == "mean_return" else running_median(column, smooth)
            draw_panel(axes, name, steps, shown, title, color, dashes, f"seed {seed}")
    for axes in panels[3:]:
        axes.set_xlabel("simulator steps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(logs), fontsize=10)


def draw_panel(
    axes: Axes, name: str, steps: Any, column: Any, title: str, color: str, dashes: Any = "-", label: str = ""
) -> None:
    """One column of a log against simulator steps, with the limits that suit it."""
    known = np.isfinite(column)
    marker = "o" if len(steps) < 40 else ""
    look = {"color": color, "linestyle": dashes, "marker": marker, "markersize": 3, "linewidth": 1.4, "label": label}
    axes.plot(steps[known], column[known], **look)
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if name == "mean_kl":
        axes.axhline(1, color=GREY, linestyle="--", linewidth=1)
        axes.set_ylim(0, 1.15)
    elif name == "explained_variance":
        axes.set_ylim(-0.1, 1.05)
    elif name == "accepted":
        axes.set_ylim(-0.1, 1.1)
    elif name == "cg_residual":
        axes.set_ylim(0, 1)


def running_median(values: Any, width: int) -> Any:
    """Of each value with its neighbors, fewer of them at the ends; NaN where all of them are."""
    half = width // 2
    groups = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return np.array([np.nanmedian(group) if np.isfinite(group).any() else np.nan for group in groups])


CPU_SECONDS_BEFORE_THE_PRESS = 0.02  # an iteration of lesson 09's Hopper takes ten times as many


def pressing_stop(screen: Callable[[Row], None], after: int) -> Callable[[Row], None]:
    """A callback that does as `screen`, and presses the stop button in the midst of the iteration after that one.

    Jupyter's button sends the signal that Ctrl-C sends, at any moment. Where a page has to run by itself somebody must
    press it: the clock that counts what this process computes, so that the moment comes on a busy machine as well.
    """

    def press(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGPROF, before)
        signal.raise_signal(signal.SIGINT)

    before: Any = signal.SIG_DFL

    def call(row: Row) -> None:
        nonlocal before
        screen(row)
        if row["iteration"] == after:
            before = signal.signal(signal.SIGPROF, press)
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_BEFORE_THE_PRESS)

    return call
