"""A short run of a game that is stopped and goes on, in view; lesson 10, section 4."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator

from trpo_lessons.teaching.lesson_10.recorded_games import ENTROPY_OF_CHANCE
from trpo_lessons.teaching.pictures import BLUE, GREEN, GREY, ORANGE, VERMILION, LivePicture
from trpo_lessons.training import Run, TrainConfig, load_run, resume, train
from trpo_lessons.training.running.run_folder import RunFolder

Row = Mapping[str, Any]
COLUMNS = ("iteration", "mean_return", "mean_kl", "entropy", "explained_variance", "accepted")


def go_on(folder: Path, config: TrainConfig, iterations: int) -> tuple[Run, list[dict[str, float]]]:
    """Train by `config` in `folder` up to so many iterations, drawing each; a run that is there already goes on, or is
    as it was where it has as many.

    The policy, and a row for each iteration since the first. Interrupting the cell loses nothing but the iteration in
    progress: call it again.
    """
    before = folder.exists()
    rows = [_numbers(row) for row in RunFolder(folder).rows()] if before else []
    alt = f"Four curves over the iterations on {config.task}: score, mean KL, entropy, and explained variance."
    live = LivePicture(alt, 8.4, 4.4)

    def show(row: Row) -> None:
        rows.append(_numbers(row))
        live.redraw(lambda figure: draw_rows(figure, rows, config.delta))

    if len(rows) >= iterations:
        live.redraw(lambda figure: draw_rows(figure, rows, config.delta))
        run = load_run(folder)
    elif before:
        run, _ = resume(folder, iterations=iterations, callback=show)
    else:
        run = train(TrainConfig.from_json({**config.to_json(), "iterations": iterations}), folder, callback=show)
    return run, rows


def _numbers(row: Row) -> dict[str, float]:
    return {name: float(row[name] if row[name] != "" else math.nan) for name in COLUMNS}


def draw_rows(figure: FigureBase, rows: Sequence[Mapping[str, float]], delta: float) -> None:
    """Score, mean KL, entropy and explained variance against iterations."""
    iterations = np.array([row["iteration"] for row in rows])
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, name, color, unit, title in zip(
        panels,
        ("mean_return", "mean_kl", "entropy", "explained_variance"),
        (BLUE, VERMILION, ORANGE, GREEN),
        (1.0, delta, 1.0, 1.0),
        ("score of the games that ended", "mean KL / delta", "entropy, nats", "explained variance of V"),
        strict=True,
    ):
        column = np.array([row[name] for row in rows]) / unit
        known = np.isfinite(column)
        axes.plot(iterations[known], column[known], color=color, linestyle="-", marker="o", ms=4)
        axes.set_title(title, fontsize=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].axhline(1, color=GREY, linestyle="--", linewidth=1.2)
    panels[1].set_ylim(0, 1.15)
    panels[2].axhline(ENTROPY_OF_CHANCE, color=GREY, linestyle="--", linewidth=1.2)
    panels[2].set_ylim(0, 1.1 * ENTROPY_OF_CHANCE)
    for axes in panels[2:]:
        axes.set_xlabel("iteration")
