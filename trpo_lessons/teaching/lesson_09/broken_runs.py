"""Five runs of Hopper with one setting each that is off, and what their logs say: lesson 09 hunts them.

All are real: `class` preset, seed 0, half a million steps, recorded in trpo_lessons/zoo/went_wrong with their commands.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import FigureBase
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.compare import ZOO
from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.bench.policies import Kept, kept_policies
from trpo_lessons.teaching.checks.hunts import HEALTHY, Hunt
from trpo_lessons.teaching.lesson_09.live import running_median
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION

WENT_WRONG = ZOO / "went_wrong"
DELTA = 0.01
RUNS = {
    HEALTHY: "hopper-healthy",
    "one CG iteration": "hopper-cg_iterations=1",
    "damping of 10": "hopper-damping=10",
    "no search": "hopper-max_backtracks=0",
    "gamma of 0.9": "hopper-gamma=0.9",
    "V hardly fitted": "hopper-value_damping=1000",
}
LITTLE_NOISE = "hopper-initial_log_std=-3"
SHORT_SIGHT = "swimmer-gamma=0.99"


def last_policy(name: str) -> Kept:
    """What a run has learned, of LITTLE_NOISE or SHORT_SIGHT."""
    return kept_policies(WENT_WRONG)[name]


@functools.cache
def recorded(name: str) -> Curves:
    """The thinned log of a run, by its name in the recording."""
    return kept_curves(WENT_WRONG)[name]


def log_of(fault: str) -> Curves:
    """The thinned log of the run with this fault, or of the healthy one."""
    return recorded(RUNS[fault])


HUNT = Hunt(tuple(fault for fault in RUNS if fault != HEALTHY), log_of)


@dataclass(frozen=True)
class Reading:
    """What one reads off a log: return and steps of an episode at the end; medians over the second half of the run of
    KL over delta, explained variance and the residual that conjugate gradient left; the share of accepted updates;
    entropy at first and at last."""

    earns: float
    length: float
    kl: float
    accepted: float
    explained: float
    residual: float
    entropy: tuple[float, float]


def reading(run: Curves) -> Reading:
    """Of a thinned log."""
    half = slice(len(run["total_steps"]) // 2, None)
    medians = {name: float(np.nanmedian(run[name][half])) for name in ("mean_kl", "explained_variance", "cg_residual")}
    return Reading(
        run.final(),
        run.final("mean_length"),
        medians["mean_kl"] / DELTA,
        float(run["accepted"].mean()),
        medians["explained_variance"],
        medians["cg_residual"],
        (float(run["entropy"][0]), float(run["entropy"][-1])),
    )


def table(lineup: Mapping[str, Curves]) -> str:
    """A line for each log."""
    lines = [
        f"{'':8}{'at the end':>13}{'median of second half':>29}{'updates':>10}{'entropy':>12}",
        f"{'':8}return  steps  KL/delta explained  CG res.  accepted first  last",
    ]
    for name, run in lineup.items():
        r = reading(run)
        residual = f"{r.residual:.2f}" if r.residual >= 0.005 else f"{r.residual:.0e}"
        numbers = f"{r.kl:10.2f}{r.explained:10.2f}{residual:>9}{100 * r.accepted:8.0f} %"
        lines.append(f"{name:8}{r.earns:6.0f}{r.length:7.0f}{numbers}{r.entropy[0]:6.1f}{r.entropy[1]:6.1f}")
    return "\n".join(lines)


LOOKS = ((BLACK, "-"), (BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, (0, (5, 1))), (SKY, "-"))
SHOWN = {
    "mean_return": "return",
    "mean_kl": "mean KL, nats",
    "explained_variance": "explained variance",
    "entropy": "entropy, nats",
    "cg_residual": "CG residual",
    "accepted": "share accepted",
}


def draw_logs(figure: FigureBase, runs: Mapping[str, Curves], smooth: int = 5) -> None:
    """Six columns of some logs against simulator steps, running medians; the first run is black."""
    panels = figure.subplots(2, 3, sharex=True).flatten()
    for axes, (column, title) in zip(panels, SHOWN.items(), strict=True):
        for (name, run), (color, dashes) in zip(runs.items(), LOOKS, strict=False):
            values = run[column] if column == "mean_return" else running_median(run[column], smooth)
            axes.plot(run["total_steps"], values, color=color, linestyle=dashes, linewidth=1.5, label=name)
        axes.set_title(title, fontsize=10)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[1].set_ylim(0, None)
    panels[2].set_ylim(-0.1, 1.05)
    panels[4].set_ylim(0, None)
    panels[5].set_ylim(-0.1, 1.1)
    for axes in panels[3:]:
        axes.set_xlabel("simulator steps")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(runs), fontsize=10)
