"""Explorers of lesson 09: curves against steps and the clock, gaits while they are learned, sizes of a step."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from trpo_lessons.bench.curves import Curves
from trpo_lessons.bench.policies import Kept
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops, upright
from trpo_lessons.teaching.lesson_01.explorers import text
from trpo_lessons.teaching.lesson_08.recorded_runs import DELTA, PENALTY, step_size_runs
from trpo_lessons.teaching.lesson_09 import film
from trpo_lessons.teaching.lesson_09.recorded_runs import (
    AXES,
    LOOKS,
    OURS,
    PEER,
    STEPS,
    TASKS,
    VINE,
    Floats,
    first_at,
    last_policy,
    learned,
    mean_and_interval,
    places,
    stages_of,
)
from trpo_lessons.teaching.pictures import BLUE, GREY, VERMILION

# ---- learning curves -------------------------------------------------------------------------------------------------

NOTHING = "nothing"
POINTS = 60


@dataclass(frozen=True)
class Band:
    """One scheme: by seed, where its points lie and what it returned there; the mean, its interval, where it is known.

    first  by seed, where the mean of the latest 100 episodes first reached the level; infinite for never
    """

    where: tuple[Floats, ...]
    returns: tuple[Floats, ...]
    at: Floats
    mean: Floats
    low: Floats
    high: Floats
    first: tuple[float, ...]


@dataclass(frozen=True)
class Race:
    """One task, one axis, our single paths and perhaps something beside them."""

    task: str
    axis: str
    level: int
    bands: Mapping[str, Band]


def compute_race(task: str, beside: str, axis: str) -> Race:
    """Recorded runs. The level is half of what our single paths score on average."""
    level = round_to_two(float(np.mean([run.score for run in learned(task, OURS)])) / 2)
    schemes = [OURS, *([beside] if beside != NOTHING and learned(task, beside) else [])]
    return Race(task, axis, level, {scheme: _band(task, scheme, axis, level) for scheme in schemes})


def round_to_two(number: float) -> int:
    """To two digits."""
    return int(float(f"{number:.2g}"))


def _band(task: str, scheme: str, axis: str, level: int) -> Band:
    where, returns = places(task, scheme, axis), [run.returns for run in learned(task, scheme)]
    at = np.linspace(max(x[0] for x in where), min(x[-1] for x in where), POINTS)
    mean, low, high = mean_and_interval(where, returns, at)
    return Band(tuple(where), tuple(returns), at, mean, low, high, tuple(first_at(task, scheme, level, axis)))


def facts_of_race(numbers: Race) -> str:
    """When the level was reached, by seed; the mean at the end with its interval; where an interval is widest."""
    lines = []
    for scheme, band in numbers.bands.items():
        when = ", ".join("never" if math.isinf(x) else _number(x, numbers.axis) for x in sorted(band.first))
        end = f"at {_place(float(band.at[-1]), numbers.axis)}: {band.mean[-1]:.0f}"
        interval = f"95 %: {band.low[-1]:.0f} to {band.high[-1]:.0f}"
        widest = int(np.argmax(band.high - band.low))
        width = f"widest at {_number(float(band.at[widest]), numbers.axis)}: {band.high[widest] - band.low[widest]:.0f}"
        lines.append(f"{scheme}, {len(band.first)} seeds: {numbers.level} after {when}")
        lines.append(f"their mean {end} ({interval}; {width})")
        lines += _cut_short(scheme, numbers.task)
    missing = [scheme for scheme in (VINE, PEER) if not learned(numbers.task, scheme)]
    if len(numbers.bands) == 1 and missing:
        lines.append(f"not recorded for this task: {', '.join(missing)}")
    return "\n".join(lines)


def _cut_short(scheme: str, task: str) -> list[str]:
    # A curve that begins late or breaks off needs its reason; otherwise one would take it for the run's own end.
    runs = learned(task, scheme)
    longest = max(float(run.steps[-1]) for run in runs)
    return [
        f"seed {run.seed} of {scheme}: its log is whole from {_number(run.steps[0], STEPS)} to "
        f"{_number(run.steps[-1], STEPS)} steps only"
        for run in runs
        if run.steps[-1] < 0.95 * longest
    ]


def _number(x: float, axis: str) -> str:
    return f"{x / 1000:.0f}k" if axis == STEPS else f"{x:.0f}"


def _place(x: float, axis: str) -> str:
    return f"{_number(x, axis)} {'steps' if axis == STEPS else 's'}"


def draw_race(numbers: Race, figure: FigureBase) -> None:
    """Every seed as a thin line, the mean as a thick one, its interval as a band."""
    axes = figure.subplots()
    top = max(float(np.nanmax(y)) for band in numbers.bands.values() for y in band.returns)
    for scheme, band in numbers.bands.items():
        color, dashes = LOOKS[scheme]
        for x, y in zip(band.where, band.returns, strict=True):
            axes.plot(x, y, color=color, linestyle=dashes, linewidth=0.8, alpha=0.7)
        axes.fill_between(band.at, band.low, band.high, color=color, alpha=0.15, linewidth=0)
        label = f"{scheme}, {len(band.where)} seeds"
        axes.plot(band.at, band.mean, color=color, linestyle=dashes, linewidth=2.6, label=label)
    axes.axhline(numbers.level, color=GREY, linewidth=1, linestyle=":")
    axes.set(xlabel=numbers.axis, ylabel=f"return on {numbers.task},\nlatest 100 episodes")
    axes.set_ylim(-0.12 * top, 1.25 * top)
    axes.set_xlim(0, None)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(loc="upper left", fontsize=9)


def alt_of_race(numbers: Race) -> str:
    """What the picture shows."""
    ends = ", ".join(f"{scheme} {band.mean[-1]:.0f}" for scheme, band in numbers.bands.items())
    return (
        f"Return on {numbers.task} against {numbers.axis}: a thin line for each seed, a thick one for their mean, a "
        f"band for its interval. The means end at {ends}."
    )


def race_explorer() -> Explorer[Race]:
    """Tasks, schemes and axes against recorded learning curves."""
    return Explorer(
        "Who learns faster: by steps, and by the clock?",
        compute=compute_race,
        facts=facts_of_race,
        draw=draw_race,
        alt=alt_of_race,
        controls=[
            Choice("task", "task", TASKS, "hopper"),
            Choice("beside", "beside our single paths", (NOTHING, VINE, PEER), NOTHING),
            Choice("axis", "against", AXES, STEPS),
        ],
        size=(8.4, 3.9),
        panel_height=3.6,
    )


# ---- gaits while they are learned ------------------------------------------------------------------------------------

SHOWN = {"swimmer": 4.0, "hopper": 1.8, "walker": 1.8, "halfcheetah": 2.4}  # s of a strip


@functools.lru_cache(maxsize=256)
def scene_of(kept: Kept, seconds: float) -> film.Scene:
    """What a kept policy does from one and the same start. Reader and tests may ask again and again."""
    return film.act_out(kept.run, seconds)


@functools.cache
def figures_of(task: str) -> film.Figures:
    """The drawing of a robot."""
    return film.Figures(task)


@dataclass(frozen=True)
class Gait:
    """A stage of a run: what the policy does, and where in the learning curve it stands."""

    task: str
    number: int
    kept: Kept
    scene: film.Scene
    steps: Floats
    returns: Floats


def compute_gait(task: str, stage: int) -> Gait:
    """The policy of that stage, from 1, let loose."""
    kept = stages_of(task)[stage - 1]
    (run,) = (run for run in learned(task, OURS) if run.seed == kept.run.config.seed)
    return Gait(task, stage, kept, scene_of(kept, SHOWN[task]), run.steps, run.returns)


def facts_of_gait(numbers: Gait) -> str:
    """What the policy scored when it was recorded."""
    facts = numbers.kept.facts
    return (
        f"{numbers.task}, seed {numbers.kept.run.config.seed}, after {facts['total_steps'] / 1000:.0f} thousand steps: "
        f"20 episodes of {facts['mean_length']:.0f} steps earn {facts['mean_return']:.0f} on average"
    )


def draw_gait(numbers: Gait, figure: FigureBase) -> None:
    """The strip above, the learning curve below."""
    strip, curve = figure.subplots(2, 1, height_ratios=(1.4, 1) if not upright(figure) else (1, 1))
    shown = 9 if not upright(figure) else 6
    film.draw_strip(strip, numbers.scene, figures_of(numbers.task), shown, SHOWN[numbers.task])
    curve.plot(numbers.steps, numbers.returns, color=BLUE, linestyle="-", linewidth=1.6)
    here = numbers.kept.facts["total_steps"]
    curve.plot(here, np.interp(here, numbers.steps, numbers.returns), "o", color=VERMILION, markersize=9)
    curve.set(xlabel="simulator steps", ylabel="return while\nlearning", xlim=(0, None))
    curve.xaxis.set_major_formatter(EngFormatter(sep=""))


def alt_of_gait(numbers: Gait) -> str:
    """What the picture shows."""
    return (
        f"Pictures of the {numbers.task} side by side, one every so many tenths of a second, as its policy of stage "
        f"{numbers.number} moves it; below, where that stage lies on the learning curve."
    )


def gait_explorer() -> Explorer[Gait]:
    """Stages of training against what the robot does."""
    return Explorer(
        "What does the robot do meanwhile?",
        compute=compute_gait,
        facts=facts_of_gait,
        draw=draw_gait,
        alt=alt_of_gait,
        controls=[
            Choice("task", "task", TASKS, "hopper"),
            Slider("stage", "stage of training", 1, min(len(stages_of(task)) for task in TASKS), 1, 1),
        ],
        size=(8.4, 4.2),
        panel_height=3.7,
    )


# ---- sizes of a step -------------------------------------------------------------------------------------------------

NAMES = {DELTA: "delta", PENALTY: "lambda"}
COLORS = {DELTA: (BLUE, "-"), PENALTY: (VERMILION, "--")}
DIAGNOSTICS = {
    "mean_kl": "mean KL, nats",
    "entropy": "entropy, nats",
    "explained_variance": "explained variance",
    "accepted": "share accepted",
}


@dataclass(frozen=True)
class StepSize:
    """For a DELTA and a PENALTY: the value, the runs of three seeds, the last policy of seed 0, and what it does."""

    chosen: Mapping[str, float]
    runs: Mapping[str, tuple[Curves, ...]]
    last: Mapping[str, Kept]
    scenes: Mapping[str, film.Scene]


def compute_step_size(delta: float, penalty: float) -> StepSize:
    """The recorded runs with these two."""
    chosen = {DELTA: delta, PENALTY: penalty}
    last = {kind: last_policy(kind, value) for kind, value in chosen.items()}
    return StepSize(
        chosen,
        {kind: step_size_runs(kind)[value] for kind, value in chosen.items()},
        last,
        {kind: scene_of(kept, SHOWN["hopper"]) for kind, kept in last.items()},
    )


def facts_of_step_size(numbers: StepSize) -> str:
    """What came out, and what the updates reported on the way."""
    lines = []
    for kind, runs in numbers.runs.items():
        kl = float(np.nanmedian(np.concatenate([run["mean_kl"] for run in runs])))
        accepted = 100 * float(np.mean([run["accepted"].mean() for run in runs]))
        entropy = float(np.mean([run["entropy"][-1] for run in runs]))
        earned = ", ".join(f"{run.final():.0f}" for run in runs)
        lines.append(
            f"{NAMES[kind]} {text(numbers.chosen[kind])}: earns {earned} in the end; KL {kl:.2g}, {accepted:.0f} % "
            f"accepted, entropy {entropy:.1f} at last"
        )
    return "\n".join(lines)


def draw_step_size(numbers: StepSize, figure: FigureBase) -> None:
    """Curves of all seeds, four diagnostics, and a strip of what seed 0 has learned, for either."""
    if upright(figure):
        top, *strips = _rows(figure, (1.6, 0.62, 0.62))
        (curves, kl), (entropy, explained) = top.subplots(2, 2)
        panels = {"mean_kl": kl, "entropy": entropy, "explained_variance": explained}
    else:
        top, *strips = _rows(figure, (1.7, 0.8, 0.8))
        grid = top.add_gridspec(2, 4)
        curves = top.add_subplot(grid[:, :2])
        cells = (grid[0, 2], grid[0, 3], grid[1, 2], grid[1, 3])
        panels = {name: top.add_subplot(cell) for name, cell in zip(DIAGNOSTICS, cells, strict=True)}
    for kind, runs in numbers.runs.items():
        color, dashes = COLORS[kind]
        for i, run in enumerate(runs):
            label = f"{NAMES[kind]} {text(numbers.chosen[kind])}" if i == 0 else ""
            curves.plot(run["total_steps"], run["mean_return"], color=color, linestyle=dashes, lw=1.4, label=label)
            for name, axes in panels.items():
                axes.plot(run["total_steps"], run[name], color=color, linestyle=dashes, linewidth=1.0)
    _finish(curves, panels, legend=not upright(figure))
    for part, (kind, scene) in zip(strips, numbers.scenes.items(), strict=True):
        axes = part.subplots()
        shown = 9 if not upright(figure) else 6
        film.draw_strip(axes, scene, figures_of("hopper"), shown, SHOWN["hopper"])
        look: Any = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 9, "color": COLORS[kind][0]}
        axes.set_ylabel(f"{NAMES[kind]}\n{text(numbers.chosen[kind])}", **look)


def _rows(figure: FigureBase, ratios: Sequence[float]) -> list[FigureBase]:
    parts: Any = cast("Figure", figure).subfigures(len(ratios), 1, height_ratios=ratios)
    return list(parts)


def _finish(curves: Axes, panels: Mapping[str, Axes], *, legend: bool) -> None:
    curves.set(ylim=(0, 3900), ylabel="return", xlabel="simulator steps")
    if legend:  # where there is no room, the strips' labels tell which color is which
        curves.legend(loc="upper left", fontsize=9)
    for name, axes in panels.items():
        axes.set_title(DIAGNOSTICS[name], fontsize=9)
        axes.tick_params(labelsize=8)
    _show_decades(panels["mean_kl"])
    panels["explained_variance"].set_ylim(-0.2, 1.05)
    if "accepted" in panels:
        panels["accepted"].set_ylim(-0.05, 1.1)
    for axes in (curves, *panels.values()):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _show_decades(axes: Axes) -> None:
    # Within one decade matplotlib labels 2, 3, 4 times a power as well, and in a panel so small they overlap.
    axes.set_yscale("log")
    bottom, top = axes.dataLim.minposy, axes.dataLim.y1
    axes.set_ylim(10 ** math.floor(math.log10(bottom)), 10 ** math.ceil(math.log10(top)))
    axes.yaxis.set_major_locator(LogLocator(numticks=4))
    axes.yaxis.set_minor_formatter(NullFormatter())


def alt_of_step_size(numbers: StepSize) -> str:
    """What the picture shows."""
    delta, penalty = (text(numbers.chosen[kind]) for kind in NAMES)
    ends = {kind: np.mean([run.final() for run in runs]) for kind, runs in numbers.runs.items()}
    return (
        f"Hopper learns with delta {delta} and with lambda {penalty}: curves of three seeds each, which end at "
        f"{ends[DELTA]:.0f} and {ends[PENALTY]:.0f} on average, four diagnostics of their updates, and pictures of "
        "what seed 0 does in the end."
    )


def step_size_explorer() -> Explorer[StepSize]:
    """Delta and lambda against the whole of a run."""
    return Explorer(
        "What does the size of a step do to a run?",
        compute=compute_step_size,
        facts=facts_of_step_size,
        draw=draw_step_size,
        alt=alt_of_step_size,
        controls=[
            Stops("delta", "delta (TRPO)", list(step_size_runs(DELTA)), 0.01),
            Stops("penalty", "lambda (fixed penalty)", list(step_size_runs(PENALTY))[::-1], 1.5),
        ],
        size=(8.4, 4.9),
        panel_height=6.6,
    )
