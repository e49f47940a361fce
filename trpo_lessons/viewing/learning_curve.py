"""How a run went: the return against all simulator steps, and what the updates did."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from trpo_lessons.training import RunError, TrainConfig
from trpo_lessons.training.running import log_file
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.methods import SETTINGS_OF
from trpo_lessons.viewing.style import BLUE, GREEN, GREY, VERMILION, new_figure, style

COLUMNS = ("total_steps", "mean_return", "accepted")
OF_UPDATES = ("mean_kl", "explained_variance")
OF_POPULATIONS = ("best_return", "population_spread")
Log = Mapping[str, NDArray[np.float64]]


def logged(folder: RunFolder, iterations: int) -> Log:
    """What the first `iterations` rows of progress.csv say, a column of numbers [iterations] each.

    Raises RunError (one line) when there is no progress.csv or it is damaged.
    """
    path = log_file.path_in(folder.path)
    remedy = "restore it from a copy, or there is no learning curve"
    try:
        rows = folder.rows()[:iterations]  # a later one may be half written
        columns = COLUMNS + (OF_POPULATIONS if rows and OF_POPULATIONS[0] in rows[0] else OF_UPDATES)
        log = {name: np.array([float(row[name]) for row in rows]) for name in columns}
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}); {remedy}") from error
    if len(rows) < iterations:
        raise RunError(f"{path} has {len(rows)} of {iterations} rows; {remedy}")
    return log


def learning_curve(config: TrainConfig, log: Log) -> Figure:
    """Curves over `total_steps`: mean return, mean KL, and explained variance where there is a value function; of a
    search with populations also the best return, and the spread of the population.
    """
    steps, searching = log["total_steps"], "population_spread" in log
    explained = log.get("explained_variance", np.array(np.nan))
    has_value = bool(np.isfinite(explained).any())
    with style():
        figure = new_figure(7.0, 5.6 if has_value else 4.6)
        ratios = [3, 1, 1] if has_value else [3, 1]
        panels = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
        how = config.method if searching else config.sampling + f", {config.method}" * (config.method != "trpo")
        panels[0].set_title(f"{config.task}, seed {config.seed}: preset {config.preset}, {how}", fontsize=11)
        if searching:
            _draw_search(panels, log)
        else:
            delta = config.delta if config.method in SETTINGS_OF["delta"] else None
            _draw_kl(panels[1], steps, log["mean_kl"], log["accepted"] == 0, delta)
        _draw_return(panels[0], steps, log["mean_return"])
        if has_value:
            panels[2].plot(steps, explained, color=GREEN, linestyle="-")
            panels[2].set(ylim=(min(0.0, max(-1.0, float(np.nanmin(explained)))), 1.05), ylabel="explained\nvariance")
        panels[-1].set_xlabel("simulator steps")
        panels[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.align_ylabels(list(panels))
    return figure


def _draw_search(panels: Sequence[Axes], log: Log) -> None:
    panels[0].plot(log["total_steps"], log["best_return"], color=GREY, linestyle=":", label="best of a generation")
    panels[0].legend(loc="lower right", fontsize=8)
    panels[1].plot(log["total_steps"], log["population_spread"], color=VERMILION, linestyle="-")
    panels[1].set(ylabel="spread of\nparameters")
    panels[1].set_ylim(bottom=0.0)


def _draw_return(axes: Axes, steps: NDArray[np.float64], returns: NDArray[np.float64]) -> None:
    axes.plot(steps, returns, color=BLUE, linestyle="-")
    axes.set_ylabel("return, mean over\nthe latest 100 episodes")
    if np.isfinite(returns).any():
        last = np.flatnonzero(np.isfinite(returns))[-1]
        axes.annotate(
            f"{returns[last]:.0f}", (steps[last], returns[last]), (6, 0), textcoords="offset points", va="center"
        )
    else:
        axes.text(0.5, 0.5, "no episode has ended yet", transform=axes.transAxes, ha="center", color=GREY)


def _draw_kl(
    axes: Axes, steps: NDArray[np.float64], kl: NDArray[np.float64], refused: NDArray[np.bool_], delta: float | None
) -> None:
    axes.plot(steps, kl, color=VERMILION, linestyle="-")
    axes.set_ylabel("mean KL\n(nats)")
    if delta is None:  # nothing bounds the steps of a method without one
        axes.set_ylim(bottom=0.0)
    else:
        axes.axhline(delta, color=GREY, linestyle="--", linewidth=1, label="delta")
        axes.set_ylim(-0.1 * delta, 1.2 * delta)
    if refused.any():
        at = np.zeros(int(refused.sum()))
        (crosses,) = axes.plot(steps[refused], at, color=GREY, linestyle="none", marker="x", label="update refused")
        crosses.set_clip_on(False)  # whole, also on the lower edge
    if delta is not None or refused.any():
        axes.legend(loc="lower right", ncols=2, fontsize=8)
