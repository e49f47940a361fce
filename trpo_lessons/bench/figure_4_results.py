"""What came out of the comparison of figure 4: its kept curves and scores, intervals, one number for all robots.

Scores are mean returns of deterministic episodes of the last policy, at equal simulator steps. The difference between a
method and TRPO has Welch's interval (see `bench.compare` for what it covers).

For one number over tasks, every score is divided by the mean of TRPO's on its task. The number is the interquartile
mean of all of them (Agarwal et al., 2021), which neither one failed seed nor one lucky one moves much. Of fifteen
scores it is the mean of the middle nine: scipy cuts off a quarter at either end, rounded down. Its interval is a
bootstrap by `scipy.stats.bootstrap`, stratified: seeds are drawn anew within each task, TRPO's as well. Draws from n
seeds spread by sqrt((n - 1) / n) less than seeds do, so that both ends are moved apart by the inverse. Simulated with
five seeds on three tasks (1000 times), the interval covers the truth in 95 % of cases where scores are normal, and as
often where a quarter of the seeds fails on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons import zoo_names
from trpo_lessons.bench.compare import compare
from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.viewing.style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    VIOLET,
    new_figure,
    png,
    style,
)

Floats = NDArray[np.float64]
KEPT = zoo_names.ZOO / "figure_4"
TRPO = "trpo"
METHODS = (TRPO, "vine", "natural-gradient", "empirical-fim", "max-kl", "rwr", "reps", "cem", "cma")
"""By name of the method, but for the vine, which is TRPO with the other way to sample."""
LABELS: Mapping[str, str] = {
    TRPO: "TRPO, single path",
    "vine": "TRPO, vine",
    "natural-gradient": "natural gradient",
    "empirical-fim": "empirical FIM",
    "max-kl": "max KL",
    "rwr": "RWR",
    "reps": "REPS",
    "cem": "CEM",
    "cma": "CMA-ES",
}
LOOKS: Mapping[str, tuple[str, Any]] = {
    TRPO: (BLACK, "-"),
    "vine": (BLUE, "--"),
    "natural-gradient": (VERMILION, "-."),
    "empirical-fim": (GREEN, ":"),
    "max-kl": (PURPLE, (0, (5, 1))),
    "rwr": (ORANGE, "--"),
    "reps": (SKY, "-."),
    "cem": (BROWN, ":"),
    "cma": (VIOLET, (0, (5, 1))),
}
FAMILIES: Mapping[str, Sequence[str]] = {
    "steps with a matrix": METHODS[:5],
    "weighted fits and searches": (TRPO, *METHODS[5:]),
}
ROBOTS = ("swimmer", "hopper", "walker")
TASKS = ("barto-cartpole", *ROBOTS)
SIZE = (10.4, 6.0)  # of the picture, in inches
RESAMPLES = 9999
CUT = 0.25  # of the scores at either end that the interquartile mean leaves out, rounded down


@dataclass(frozen=True)
class Kept:
    """A run of the comparison: its thinned log, and what its last policy scores."""

    curves: Curves
    score: float

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.curves.facts["settings"]["seed"])


def method_of(settings: Mapping[str, Any]) -> str:
    """The name in `METHODS` of a run with these settings."""
    return "vine" if settings.get("sampling") == "vine" else str(settings["method"])


def kept_runs(folder: Path = KEPT) -> dict[tuple[str, str], list[Kept]]:
    """By task and method the runs that were kept, in order of their seeds."""
    scores = json.loads((folder / "scores.json").read_text())
    found: dict[tuple[str, str], list[Kept]] = {(task, method): [] for task in TASKS for method in METHODS}
    for name, run in kept_curves(folder).items():
        settings = run.facts["settings"]
        found[settings["task"], method_of(settings)].append(Kept(run, scores[name]["mean"]))
    return {key: sorted(runs, key=lambda run: run.seed) for key, runs in found.items() if runs}


def scores_of(runs: Mapping[tuple[str, str], Sequence[Kept]], task: str, method: str) -> Floats:
    """Of each seed the score, [seeds]."""
    return np.array([run.score for run in runs[task, method]])


# ---- one number for all robots ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aggregate:
    """Interquartile mean of normalised scores over tasks and seeds, and its interval."""

    value: float
    low: float
    high: float


def interquartile_mean(*tasks: Floats, axis: int = -1) -> Any:
    """The mean of all scores but a quarter at either end, rounded down, of tasks [..., seeds]."""
    return stats.trim_mean(np.concatenate(tasks, axis=axis), CUT, axis=axis)


def relative_mean(*groups: Floats, axis: int = -1) -> Any:
    """The interquartile mean over tasks, each in units of the reference's mean there.

    groups: scores [..., seeds] of a method on every task, then those of the reference on the same tasks.
    """
    tasks, references = groups[: len(groups) // 2], groups[len(groups) // 2 :]
    return interquartile_mean(
        *(task / reference.mean(axis, keepdims=True) for task, reference in zip(tasks, references, strict=True)),
        axis=axis,
    )


def aggregate(
    tasks: Sequence[Floats],
    references: Sequence[Floats],
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Aggregate:
    """Of the scores [seeds] of a method on each task, relative to the reference's. The bootstrap draws within groups.

    Raises ValueError when a task has less than two seeds.
    """
    groups = (*tasks, *references)
    value, seeds = float(relative_mean(*groups)), min(map(len, groups))
    if seeds < 2:
        raise ValueError(f"an interval needs two seeds of each task at least, got {seeds}")
    if all(np.ptp(group) == 0 for group in groups):
        return Aggregate(value, value, value)
    found = stats.bootstrap(
        groups,
        relative_mean,
        n_resamples=resamples,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    widening = (seeds / (seeds - 1)) ** 0.5
    return Aggregate(value, *(float(value + widening * (end - value)) for end in found))


# ---- the table -------------------------------------------------------------------------------------------------------


def table(folder: Path = KEPT) -> str:
    """Scores of every task and method, the interval of the difference to TRPO, and the number for all robots.

    The cart-pole has no intervals: with one seed of five far off, Welch's do not cover what they promise.
    """
    runs = kept_runs(folder)
    lines = []
    for task in TASKS:
        has_intervals = task in ROBOTS
        lines += [task, f"  {'':18}{'mean':>6}  {'minus TRPO, 95 %' if has_intervals else '':18}scores by seed"]
        reference = scores_of(runs, task, TRPO)
        for method in METHODS:
            if (task, method) not in runs:
                continue
            found = scores_of(runs, task, method)
            told = ""
            if has_intervals and method != TRPO:
                interval = compare(task, found.tolist(), reference.tolist())
                told = f"{interval.low:+.0f} to {interval.high:+.0f}"
            lines.append(f"  {LABELS[method]:18}{found.mean():6.0f}  {told:18}{', '.join(f'{x:.0f}' for x in found)}")
    lines += ["three robots, in units of TRPO's mean", f"  {'':18}{'IQM':>7}   95 %, stratified bootstrap"]
    of_robots = {
        method: [scores_of(runs, task, method) for task in ROBOTS]
        for method in METHODS
        if all((task, method) in runs for task in ROBOTS)
    }
    for method, each in of_robots.items():
        if method == TRPO:  # an interval of the difference to itself would say nothing
            lines.append(f"  {LABELS[method]:18}{relative_mean(*each, *each):7.2f}")
        else:
            one = aggregate(each, of_robots[TRPO])
            lines.append(f"  {LABELS[method]:18}{one.value:7.2f}   {one.low:.2f} to {one.high:.2f}")
    return "\n".join(lines)


def tried(folder: Path = KEPT) -> str:
    """What was tried of every method's setting on each robot, with its score; the chosen value in brackets."""
    facts = json.loads((folder / "tuning.json").read_text())
    every = [(method, each["setting"]) for methods in facts["tried"].values() for method, each in methods.items()]
    lines = ["of each method, this was tried:"]
    for setting in dict.fromkeys(setting for _, setting in every):
        of = dict.fromkeys(LABELS[method] for method, its in every if its == setting)
        lines.append(f"  {setting:13}of {'; '.join(of)}")
    for task, methods in facts["tried"].items():
        lines.append(f"\n{task}, {facts['step_budget']} steps, seed {', '.join(map(str, facts['seeds']))}")
        for method, each in methods.items():
            best = max(each["scores"], key=each["scores"].__getitem__)
            told = [
                f"[{value}:{x:.0f}]" if value == best else f"{value}:{x:.0f}" for value, x in each["scores"].items()
            ]
            lines.append(f"{LABELS[method]:18}{', '.join(told)}")
    return "\n".join(lines)


def tried_curve_end(task: str, method: str, value: float, folder: Path = KEPT) -> float:
    """The mean return of the latest episodes with which the run that tried this value ended; over the tuning seeds."""
    facts = json.loads((folder / "tuning.json").read_text())
    return float(facts["tried"][task][method]["curve_ends"][f"{value:g}"])


# ---- the picture -----------------------------------------------------------------------------------------------------


def mean_curve(runs: Sequence[Kept], points: int = 200) -> tuple[Floats, Floats]:
    """Simulator steps and the mean over seeds of the return there, from where every seed has one to where one ends."""
    known = [np.isfinite(run.curves["mean_return"]) for run in runs]
    lines = [
        (run.curves["total_steps"][ok], run.curves["mean_return"][ok]) for run, ok in zip(runs, known, strict=True)
    ]
    steps = np.linspace(max(line[0][0] for line in lines), min(line[0][-1] for line in lines), points)
    return steps, np.mean([np.interp(steps, *line) for line in lines], axis=0)


def draw(figure: Figure, folder: Path = KEPT) -> None:
    """A row for each family of methods, a panel for each task; a thin line is a seed, a thick one their mean."""
    runs = kept_runs(folder)
    panels = figure.subplots(len(FAMILIES), len(TASKS), sharex="col", sharey="col")
    for i, (row, (family, methods)) in enumerate(zip(panels, FAMILIES.items(), strict=True)):
        for axes, task in zip(row, TASKS, strict=True):
            for method in methods:
                if (task, method) in runs:
                    _draw_method(axes, runs[task, method], method, faint=method == TRPO and i > 0)
        row[0].set_ylabel(f"{family}\nreturn, latest 100 episodes", fontsize=10)
        handles = [line for line in row[0].get_lines() if not line.get_label().startswith("_")]
        row[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    for axes, task in zip(panels[0], TASKS, strict=True):
        axes.set_title(task, fontsize=11)
    for axes in panels[-1]:
        axes.set_xlabel("simulator steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_method(axes: Axes, runs: Sequence[Kept], method: str, faint: bool) -> None:
    color, dashes = (GREY, "-") if faint else LOOKS[method]
    if not faint:
        for run in runs:
            axes.plot(run.curves["total_steps"], run.curves["mean_return"], color=color, ls="-", lw=0.5, alpha=0.45)
    axes.plot(*mean_curve(runs), color=color, linestyle=dashes, lw=1.8, label=LABELS[method])


def drawn(folder: Path = KEPT) -> bytes:
    """The picture as the bytes of a PNG file."""
    with style():
        figure = new_figure(*SIZE)
        draw(figure, folder)
        return png(figure)
