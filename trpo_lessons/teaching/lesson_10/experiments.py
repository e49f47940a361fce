"""Runs in which one setting of the class preset was another, beside the recorded run of the same game.

What a log suggests is a hypothesis; these runs test it. Their curves are kept by `bench.curves`, without policies.
"""

from __future__ import annotations

import functools
import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.bench.record import as_option, command_of
from trpo_lessons.envs.atari.settings import GAMES
from trpo_lessons.teaching.lesson_10.recorded_games import (
    LOOKS,
    TITLES,
    Recorded,
    in_three_digits,
    legend_below,
    millions,
)
from trpo_lessons.teaching.lesson_10.shared import Floats
from trpo_lessons.training import preset
from trpo_lessons.viewing.style import BLACK, GREEN, GREY, PURPLE, VERMILION
from trpo_lessons.zoo_names import ZOO

EXPERIMENTS = ZOO / "game_experiments"
PANELS_IN_A_ROW = 3
_NOT_TOLD = ("--sampling", "--preset", "--seed", "--iterations", "threads")  # told apart, or of no weight here
_LOOKS = (
    *((VERMILION, (0, (4, 1, 1, 1, 1, 1))), (GREEN, "-."), (PURPLE, ":"), (BLACK, (0, (5, 1))), (GREY, (0, (8, 2)))),
    *((PURPLE, "-"), (BLACK, ":"), (GREEN, (0, (1, 3)))),
)


@dataclass(frozen=True)
class Experiment:
    """A run with settings of its own.

    scheme   "single path" or "vine"
    changed  the settings that are not the class preset's, such as {"delta": "0.03"}
    """

    game: str
    scheme: str
    seed: int
    changed: Mapping[str, str]
    curve: Curves

    @property
    def label(self) -> str:
        """Such as "delta 0.03, seed 1"."""
        return self.told_by(self.changed)

    def told_by(self, settings: Mapping[str, str]) -> str:
        """A label that names these settings."""
        return f"{'vine, ' * (self.scheme == 'vine')}{told(settings)}, seed {self.seed}"


@functools.cache
def experiments(folder: Path = EXPERIMENTS) -> tuple[Experiment, ...]:
    """All that are kept, game by game; of a game those with the fewest changes first."""
    if not (folder / "runs.json").exists():
        return ()
    found = []
    for curve in kept_curves(folder).values():
        settings, command = curve.facts["settings"], curve.facts["command"]
        scheme = "vine" if "--sampling vine" in command else "single path"
        found.append(Experiment(settings["task"], scheme, settings["seed"], changed(command), curve))
    return tuple(sorted(found, key=lambda each: (GAMES.index(each.game), len(each.changed), each.label)))


def changed(command: str) -> dict[str, str]:
    """The settings of a command that are not the preset's: {"delta": "0.03", "hidden": "128"}."""
    words = shlex.split(command)[3:]  # trpo-lessons train GAME
    found = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name, setting = value.split("=", 1) if option == "--set" else (option, value)
        if name not in _NOT_TOLD:
            found[name.removeprefix("--").replace("-", "_")] = setting
    return found


def told(settings: Mapping[str, str]) -> str:
    """In words: "20 units" where policy and value function have as many, "256 x 4 steps" of branches that begin
    in 256 states, "256 states" where an iteration has as many more steps, "delta 0.03", or "the same".
    """
    rest = dict(settings)
    words = []
    if rest.keys() >= {"vine_states", "rollout_length"}:
        words.append(f"{rest.pop('vine_states')} x {rest.pop('rollout_length')} steps")
    if rest.keys() >= {"vine_states", "steps_per_iteration"}:
        words.append(f"{rest.pop('vine_states')} states")
        del rest["steps_per_iteration"]
    if "first_actions" in rest:
        words.append(rest.pop("first_actions"))
    if "hidden" in rest and rest["hidden"] == rest.get("value_hidden"):
        words.append(f"{rest.pop('hidden')} units")
        del rest["value_hidden"]
    return ", ".join([*words, *(f"{name} {value}" for name, value in rest.items())]) or "the same"


def over_the_same_steps(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """For two curves (steps, scores): how many steps both have, and the mean score of each in their last tenth."""
    steps = float(min(one[0][-1], other[0][-1]))
    means = [float(np.nanmean(y[(x > 0.9 * steps) & (x <= steps)])) for x, y in (one, other)]
    return steps, means[0], means[1]


@dataclass(frozen=True)
class Control:
    """The run that an experiment stands beside.

    settings  those of its own that are not the class preset's
    """

    seed: int
    settings: Mapping[str, str]
    curve: Curves | Mapping[str, Floats]


def controls(experiment: Experiment, found: Sequence[Experiment], runs: Sequence[Recorded]) -> list[Control]:
    """The runs of the same game and scheme to compare an experiment with: the one that it differs from in as few
    settings as possible, and the recorded one of its seed.

    The first is another experiment where there is one whose changes are a part of this one's; else it is the recorded
    run. Of several, one of the same seed, else of the first.
    """
    same = [each for each in found if (each.game, each.scheme) == (experiment.game, experiment.scheme)]
    fewer = [each for each in same if each.changed.items() < experiment.changed.items()]
    beside = []
    if fewer:
        nearest = max(len(each.changed) for each in fewer)
        kept = min(
            (each for each in fewer if len(each.changed) == nearest), key=lambda each: _strange(each, experiment)
        )
        beside.append(Control(kept.seed, kept.changed, kept.curve))
    run = recorded_control(experiment, runs)
    if not beside or run.seed == experiment.seed:
        beside.append(run)
    return beside


def recorded_control(experiment: Experiment, runs: Sequence[Recorded]) -> Control:
    """The recorded run of the same game and scheme: that of the experiment's seed, else of the first one."""
    recorded = [run for run in runs if (run.game, run.scheme) == (experiment.game, experiment.scheme)]
    run = min(recorded, key=lambda run: _strange(run, experiment))
    return Control(run.seed, changed(command_of(run.config)), run.log)


def its_own(experiment: Experiment, beside: Control) -> dict[str, str]:
    """The settings of an experiment that are not those of the run beside it, the preset's where it kept those."""
    usual = preset(experiment.game, "class", sampling=experiment.scheme.replace(" ", "-")).to_json()
    back = {name: as_option(usual[name]) for name in beside.settings if name not in experiment.changed}
    return back | {name: x for name, x in experiment.changed.items() if beside.settings.get(name) != x}


def _strange(run: Experiment | Recorded, experiment: Experiment) -> tuple[bool, int]:
    return run.seed != experiment.seed, run.seed


def experiment_table(found: Sequence[Experiment], runs: Sequence[Recorded]) -> str:
    """A line for each of its `controls`: what was changed, and both scores over the last tenth of common steps.

    A seed is told where it is not that of the other run.
    """
    lines = [f"{'':16}{'with':24}{'without it':15}{'steps':>5}{'with':>6}{'without':>8}"]
    for each, other in ((tried, beside) for tried in found for beside in controls(tried, found, runs)):
        steps, with_it, without = over_the_same_steps(_points(each.curve), _points(other.curve))
        scores = f"{in_three_digits(with_it):>6}{in_three_digits(without):>8}"
        label = told(its_own(each, other)) + f", seed {each.seed}" * (each.seed != other.seed)
        game = f"{each.game}{'/vine' * (each.scheme == 'vine')}"
        beside = told(other.settings) if other.settings else "the preset"
        lines.append(f"{game:16}{label:23} {beside:15}{millions(round(steps)):>5}{scores}")
    return "\n".join(lines)


def draw_experiments(figure: Figure, found: Sequence[Experiment], runs: Sequence[Recorded]) -> None:
    """A panel for each game that was tried, three in a row: recorded runs, and one line for each experiment.

    An experiment is told by what differs from the recorded run beside it.
    """
    games = [game for game in GAMES if any(each.game == game for each in found)]
    told_as = [each.told_by(its_own(each, recorded_control(each, runs))) for each in found]
    labels = dict.fromkeys(told_as)
    looks = dict(zip(labels, itertools.cycle(_LOOKS), strict=False))
    columns = min(PANELS_IN_A_ROW, len(games))
    panels = figure.subplots(math.ceil(len(games) / columns), columns, squeeze=False).ravel()
    for axes, game in zip(panels, games, strict=False):
        for run in runs:
            if run.game == game and any((each.game, each.scheme) == (game, run.scheme) for each in found):
                color, line = LOOKS[run.scheme]
                label = "recorded" if run.scheme == "single path" else f"recorded, {run.scheme}"
                axes.plot(*_points(run.log), color=color, linestyle=line, label=label)
        for each, label in zip(found, told_as, strict=True):
            if each.game == game:
                color, dashes = looks[label]
                axes.plot(*_points(each.curve), color=color, linestyle=dashes, label=label)
        axes.set(title=TITLES[game], xlabel="simulator steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels[len(games) :]:
        axes.remove()
    panels[0].set_ylabel("score, mean over\nthe latest 100 games")
    legend_below(figure, columns=3)


def _points(log: Curves | Mapping[str, Floats]) -> tuple[Floats, Floats]:
    return log["total_steps"], log["mean_return"]
