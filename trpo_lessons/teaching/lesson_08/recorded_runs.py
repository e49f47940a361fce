"""What lesson 08 shows from recordings: delta and lambda on Hopper, TRPO's own lambdas, and three sizes of a policy."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.compare import ZOO
from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION

Floats = npt.NDArray[np.float64]

# ---- section 2: delta and lambda -------------------------------------------------------------------------------------

STEP_SIZE = ZOO / "step_size"
WITH_RETURNS = ZOO / "figure_4" / "returns"  # the same robot, without value function and GAE
DELTA, PENALTY = "delta", "penalty"
METHOD_OF = {DELTA: "trpo", PENALTY: "natural-gradient"}


@functools.cache
def step_size_runs(kind: str, folder: Path = STEP_SIZE) -> Mapping[float, tuple[Curves, ...]]:
    """Hopper's runs with every `kind` of step size, DELTA or PENALTY: by value, from small to large, a run a seed."""
    found: dict[float, list[Curves]] = {}
    runs = [run for run in kept_curves(folder).values() if run.facts["settings"]["method"] == METHOD_OF[kind]]
    for run in sorted(runs, key=lambda run: run.facts["settings"]["seed"]):
        found.setdefault(run.facts["settings"][kind], []).append(run)
    return {value: tuple(found[value]) for value in sorted(found)}


def finals(kind: str, folder: Path = STEP_SIZE) -> Mapping[float, tuple[float, ...]]:
    """By value, what the latest episodes earned at the end of each run: the mean over the last tenth of training."""
    return {value: tuple(run.final() for run in runs) for value, runs in step_size_runs(kind, folder).items()}


# ---- section 2: the lambda that TRPO finds ---------------------------------------------------------------------------

TASKS = ("cartpole", "swimmer", "hopper", "walker", "halfcheetah")
LOOKS = dict(zip(TASKS, (BLACK, BLUE, VERMILION, GREEN, PURPLE), strict=True))


@functools.cache
def found_penalties(task: str) -> tuple[tuple[Floats, Floats], ...]:
    """Of every recorded seed of the class preset: simulator steps [n], and the lambda of each accepted update [n].

    A step of TRPO is x / lambda with (A + damping I) x = g, as far as conjugate gradient gets; on its iterates g . x is
    x . (A + damping I) x to the last digit. So the full step, at delta, promises g . x / lambda = 2 delta lambda.
    """
    found = []
    for folder in sorted((ZOO / "class_preset").glob(f"{task}-seed*")):
        delta = json.loads((folder / "config.json").read_text())["settings"]["delta"]
        rows = [row for row in RunFolder(folder).rows() if row["accepted"] == "1"]
        columns = ("total_steps", "predicted_gain", "step_fraction")
        steps, gains, fractions = np.array([[float(row[name]) for name in columns] for row in rows]).T
        found.append((steps, gains / fractions / (2 * delta)))
    return tuple(found)


@dataclass(frozen=True)
class Penalties:
    """Medians over a tenth of a run, and over all seeds of a task."""

    first: float
    last: float


def penalties(task: str) -> Penalties:
    """The lambda that TRPO finds at the beginning and at the end of training."""
    parts = [np.array_split(found, 10) for _, found in found_penalties(task)]
    first, last = (float(np.median([np.median(part[place]) for part in parts])) for place in (0, -1))
    return Penalties(first, last)


def draw_penalties(figure: Figure) -> None:
    """A line for each seed of each task: running medians of lambda against the share of training that is over."""
    axes = figure.subplots()
    for task in TASKS:
        for i, (_, found) in enumerate(found_penalties(task)):
            medians = [np.median(part) for part in np.array_split(found, 20)]
            share = (np.arange(20) + 0.5) * 5
            axes.plot(share, medians, color=LOOKS[task], linewidth=1.3, linestyle="-", label="" if i else task)
    axes.set(yscale="log", xlabel="share of training, %", ylabel="lambda, running median", xlim=(0, 100))
    axes.set_yticks((0.2, 0.5, 1, 2, 5), ("0.2", "0.5", "1", "2", "5"))
    axes.minorticks_off()
    figure.legend(loc="outside right center", fontsize=10)


# ---- section 7: the same task with more parameters -------------------------------------------------------------------

PARAMETER_COUNT = ZOO / "parameter_count"
SIZES = (6, 62, 982)
LEVEL = 400  # of 500
METHODS = ("trpo", "cem")


def count_of(hidden: Sequence[int]) -> int:
    """Parameters of a Gaussian policy for the cart-pole's four numbers and one force, log sigma included."""
    widths = [4, *hidden, 1]
    return sum(a * b + b for a, b in itertools.pairwise(widths)) + 1


@functools.cache
def size_runs(method: str) -> Mapping[int, tuple[Curves, ...]]:
    """Barto's cart-pole, learned by `method` with policies of different size: by number of parameters, a run a seed."""
    found: dict[int, list[Curves]] = {}
    for run in kept_curves(PARAMETER_COUNT).values():
        settings = run.facts["settings"]
        if settings["method"] == method:
            found.setdefault(count_of(settings["hidden"]), []).append(run)
    return {size: tuple(sorted(found[size], key=lambda run: run.facts["settings"]["seed"])) for size in sorted(found)}


def steps_to(run: Curves, level: float = LEVEL) -> float:
    """Simulator steps until the mean return of the latest 100 episodes reached `level`; infinite where it never did."""
    there = run["mean_return"] >= level
    return float(run["total_steps"][there.argmax()]) if there.any() else float("inf")


def draw_sizes(figure: Figure) -> None:
    """A panel for each method: the mean return of the latest 100 episodes against simulator steps, a line a seed."""
    looks = dict(zip(SIZES, ((BLUE, "-"), (ORANGE, "--"), (VERMILION, ":")), strict=True))
    titles = {"trpo": "TRPO", "cem": "CEM"}
    panels = figure.subplots(1, len(METHODS), sharey=True)
    for axes, method in zip(panels, METHODS, strict=True):
        for size, runs in size_runs(method).items():
            color, dashes = looks[size]
            for i, run in enumerate(runs):
                label = "" if i else f"{size} parameters"
                axes.plot(run["total_steps"], run["mean_return"], color=color, linestyle=dashes, lw=1.6, label=label)
        axes.set(title=titles[method], xlabel="simulator steps", ylim=(0, 520))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[0].set_ylabel("return, mean over\nthe latest 100 episodes")
    panels[1].legend(loc="lower right", fontsize=9)
