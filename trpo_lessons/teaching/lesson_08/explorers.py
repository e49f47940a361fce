"""Explorers of lesson 08: delta against lambda on recorded runs of Hopper, and a cloud of parameters weighed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import Ellipse
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.curves import Curves
from trpo_lessons.teaching.explorers import Explorer, Slider, Stops
from trpo_lessons.teaching.lesson_01.explorers import text
from trpo_lessons.teaching.lesson_08 import cloud
from trpo_lessons.teaching.lesson_08.cloud import METHODS, Generation
from trpo_lessons.teaching.lesson_08.recorded_runs import DELTA, PENALTY, finals, step_size_runs
from trpo_lessons.teaching.pictures import BLACK, BLUE, ORANGE, SKY, VERMILION

# ---- delta and lambda ------------------------------------------------------------------------------------------------

NAMES = {DELTA: "delta", PENALTY: "lambda"}
COLORS = {DELTA: (BLUE, "-"), PENALTY: (VERMILION, "--")}


@dataclass(frozen=True)
class StepSizes:
    """One delta and one lambda, among all that were run.

    chosen  DELTA and PENALTY -> the value
    runs    DELTA and PENALTY -> the runs with that value, a run a seed
    finals  DELTA and PENALTY -> by value, the final return of each seed
    """

    chosen: Mapping[str, float]
    runs: Mapping[str, tuple[Curves, ...]]
    finals: Mapping[str, Mapping[float, tuple[float, ...]]]


def compute_step_sizes(delta: float, penalty: float) -> StepSizes:
    """The recorded runs with these two."""
    chosen = {DELTA: delta, PENALTY: penalty}
    runs = {kind: step_size_runs(kind)[value] for kind, value in chosen.items()}
    return StepSizes(chosen, runs, {kind: finals(kind) for kind in chosen})


def facts_of_step_sizes(numbers: StepSizes) -> str:
    """Final returns by seed, and what KL the updates had."""
    lines = []
    for kind, runs in numbers.runs.items():
        earned = ", ".join(f"{run.final():.0f}" for run in runs)
        kl = np.concatenate([run["mean_kl"] for run in runs])
        lines.append(
            f"{NAMES[kind]} {text(numbers.chosen[kind])}: earns {earned} in the end; mean KL of an update: "
            f"median {float(np.nanmedian(kl)):.2g}, largest {float(np.nanmax(kl)):.2g}"
        )
    return "\n".join(lines)


def draw_step_sizes(numbers: StepSizes, figure: FigureBase) -> None:
    """Final returns against delta and against lambda, longer steps to the right; and the curves of the two."""
    panels = figure.subplots(1, 3)
    for axes, kind in zip(panels, NAMES, strict=False):
        color, dashes = COLORS[kind]
        by_value = numbers.finals[kind]
        axes.plot(list(by_value), [np.mean(x) for x in by_value.values()], color=color, linestyle=dashes)
        for value, earned in by_value.items():
            axes.plot([value] * len(earned), earned, "o", color=color, markersize=4)
        here = numbers.chosen[kind]
        axes.plot([here] * len(by_value[here]), by_value[here], "o", color=BLACK, markersize=9, fillstyle="none")
        axes.set(xscale="log", ylim=(0, 3900), xlabel=NAMES[kind], ylabel="return in the end")
        axes.minorticks_off()
    panels[1].invert_xaxis()
    _draw_curves(numbers, panels[2])


def _draw_curves(numbers: StepSizes, axes: Axes) -> None:
    for kind, runs in numbers.runs.items():
        color, dashes = COLORS[kind]
        for i, run in enumerate(runs):
            label = "" if i else f"{NAMES[kind]} {text(numbers.chosen[kind])}"
            axes.plot(run["total_steps"], run["mean_return"], color=color, linestyle=dashes, lw=1.4, label=label)
    axes.set(xlabel="simulator steps", ylabel="return", ylim=(0, 3900))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(loc="upper left", fontsize=9)


def alt_of_step_sizes(numbers: StepSizes) -> str:
    """What the picture shows."""
    best = {kind: max(found, key=lambda value: np.mean(found[value])) for kind, found in numbers.finals.items()}
    delta, penalty = (text(numbers.chosen[kind]) for kind in NAMES)
    return (
        f"Three panels. Final return against delta, highest at {text(best[DELTA])}; final return against lambda, "
        f"highest at {text(best[PENALTY])}; and learning curves of the runs with delta {delta} and with lambda "
        f"{penalty}."
    )


def step_size_explorer() -> Explorer[StepSizes]:
    """Delta and lambda against what recorded runs of Hopper earned."""
    return Explorer(
        "Which delta, and which lambda, makes a Hopper hop?",
        compute=compute_step_sizes,
        facts=facts_of_step_sizes,
        draw=draw_step_sizes,
        alt=alt_of_step_sizes,
        controls=[
            Stops("delta", "delta (TRPO)", list(step_size_runs(DELTA)), 0.01),
            Stops("penalty", "lambda (natural gradient)", list(step_size_runs(PENALTY))[::-1], 1.5),
        ],
        size=(8.4, 3.4),
        wide_panels=True,
    )


# ---- the cloud -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clouds:
    """The same generation of three methods; the first is number 1."""

    number: int
    by_method: Mapping[str, Generation]


def compute_clouds(share: float, temperature: float, epsilon: float, spread: float, number: int) -> Clouds:
    """What CEM, RWR and REPS have come to."""
    strengths = dict(zip(METHODS, (share, temperature, epsilon), strict=True))
    found = {method: cloud.generations(method, strength, spread)[number - 1] for method, strength in strengths.items()}
    return Clouds(number, found)


def facts_of_clouds(numbers: Clouds) -> str:
    """What the weights are worth in thetas, how far they are from uniform ones, and where the next Gaussian is."""
    return "\n".join(
        f"{method}: weights worth {each.counting:.1f} of {cloud.POPULATION} thetas, {each.kl:.2f} nats from equal; "
        f"next spread {each.spread:.2g}, its middle earns {text(round(each.mean_return, 2))}"
        for method, each in numbers.by_method.items()
    )


def draw_clouds(numbers: Clouds, figure: FigureBase) -> None:
    """Thetas over the landscape, as large as they weigh; the Gaussian that drew them, and the one fitted to them."""
    edge, eta = cloud.landscape()
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    for axes, (method, each) in zip(panels, numbers.by_method.items(), strict=True):
        axes.contourf(edge, edge, eta, 14, cmap="Greys_r", alpha=0.75)
        heaviest = each.weights.max()
        axes.scatter(*each.thetas.T, s=4, color=SKY)
        axes.scatter(*each.thetas.T, s=70 * each.weights / heaviest, color=ORANGE, edgecolors=BLACK, linewidths=0.5)
        for mean, std, color, dashes in ((each.mean, each.std, SKY, "--"), (each.next_mean, each.next_std, BLUE, "-")):
            axes.add_patch(Ellipse(tuple(mean), *(4 * std), fill=False, color=color, linestyle=dashes, linewidth=2))
        axes.plot(*each.next_mean, "+", color=VERMILION, markersize=11, markeredgewidth=2.5)
        axes.set(title=method, xlim=(-cloud.REACH, cloud.REACH), ylim=(-cloud.REACH, cloud.REACH))
        axes.grid(visible=False)


def alt_of_clouds(numbers: Clouds) -> str:
    """What the picture shows."""
    where = ", ".join(f"{name} {text(round(each.mean_return, 2))}" for name, each in numbers.by_method.items())
    return (
        f"Three panels of generation {numbers.number} over the true landscape, bright where much is earned: a cloud of "
        f"thetas, each as large as it weighs, with the Gaussian that drew it and the one fitted to it. The middles of "
        f"the fitted ones earn {where}."
    )


def cloud_explorer() -> Explorer[Clouds]:
    """Elite share, temperature and bound against what becomes of the cloud."""
    return Explorer(
        "How greedy may a cloud of parameters be?",
        compute=compute_clouds,
        facts=facts_of_clouds,
        draw=draw_clouds,
        alt=alt_of_clouds,
        controls=[
            Stops("share", "elite share (CEM)", [0.05, 0.1, 0.2, 0.5], 0.2),
            Stops("temperature", "temperature (RWR)", [0.1, 0.3, 1.0, 3.0, 10.0], 1.0),
            Stops("epsilon", "epsilon (REPS)", [0.1, 0.25, 0.5, 1.0, 2.0], 0.5),
            Stops("spread", "spread at the start", [0.5, 1.0, 2.0], 1.0),
            Slider("number", "generation", 1, cloud.GENERATIONS, 1, 1),
        ],
        size=(8.4, 3.1),
        wide_panels=True,
    )
