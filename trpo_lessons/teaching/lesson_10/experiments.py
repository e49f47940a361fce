"""Runs in which one setting of the class preset was another, beside the recorded run of the same game.

What a log suggests is a hypothesis; these runs test it. Their curves are kept by `bench.curves`, without policies.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.bench.curves import Curves, kept_curves
from trpo_lessons.envs.atari.settings import GAMES
from trpo_lessons.teaching.lesson_10.recorded_games import TITLES, Recorded, in_three_digits, millions
from trpo_lessons.teaching.lesson_10.shared import Floats
from trpo_lessons.viewing.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION
from trpo_lessons.zoo_names import ZOO

EXPERIMENTS = ZOO / "game_experiments"
_NOT_TOLD = ("--sampling", "--preset", "--seed", "--iterations", "threads")  # told apart, or of no weight here
_LOOKS = ((VERMILION, "--"), (ORANGE, "-."), (GREEN, ":"), (PURPLE, (0, (5, 1))), (BLACK, (0, (1, 2))))


@dataclass(frozen=True)
class Experiment:
    """A run with settings of its own.

    scheme   "single path" or "vine"
    changed  the settings that are not the class preset's, such as "delta 0.03"
    """

    game: str
    scheme: str
    seed: int
    changed: str
    curve: Curves

    @property
    def label(self) -> str:
        """Such as "delta 0.03, seed 1"."""
        return f"{'vine, ' * (self.scheme == 'vine')}{self.changed or 'the same'}, seed {self.seed}"


@functools.cache
def experiments(folder: Path = EXPERIMENTS) -> tuple[Experiment, ...]:
    """All that are kept, game by game."""
    if not (folder / "runs.json").exists():
        return ()
    found = []
    for curve in kept_curves(folder).values():
        settings, command = curve.facts["settings"], curve.facts["command"]
        scheme = "vine" if "--sampling vine" in command else "single path"
        found.append(Experiment(settings["task"], scheme, settings["seed"], changed(command), curve))
    return tuple(sorted(found, key=lambda each: (GAMES.index(each.game), each.changed, each.seed)))


def changed(command: str) -> str:
    """The settings of a command that are not the preset's: "delta 0.03, hidden 128"."""
    words = shlex.split(command)[3:]  # trpo-lessons train GAME
    told = []
    for option, value in zip(words[::2], words[1::2], strict=True):
        name, setting = value.split("=", 1) if option == "--set" else (option, value)
        if name not in _NOT_TOLD:
            told.append(f"{name.removeprefix('--').replace('-', '_')} {setting}")
    return ", ".join(told)


def over_the_same_steps(one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """For two curves (steps, scores): how many steps both have, and the mean score of each in their last tenth."""
    steps = float(min(one[0][-1], other[0][-1]))
    means = [float(np.nanmean(y[(x > 0.9 * steps) & (x <= steps)])) for x, y in (one, other)]
    return steps, means[0], means[1]


def experiment_table(found: Sequence[Experiment], runs: Sequence[Recorded]) -> str:
    """A line for each: what was changed, and both scores over the last tenth of the steps that both runs have."""
    lines = [f"{'':15}{'changed':37}{'steps':>6}{'with':>8}{'without':>8}"]
    for each in found:
        steps, with_it, without = over_the_same_steps(_points(each.curve), _points(control(each, runs).log))
        scores = f"{in_three_digits(with_it):>8}{in_three_digits(without):>8}"
        lines.append(f"{each.game:15}{each.label:37}{millions(round(steps)):>6}{scores}")
    return "\n".join(lines)


def control(experiment: Experiment, runs: Sequence[Recorded]) -> Recorded:
    """The recorded run of the same game and scheme: of the same seed where there is one, else the first."""
    same = [run for run in runs if (run.game, run.scheme) == (experiment.game, experiment.scheme)]
    return min(same, key=lambda run: (run.seed != experiment.seed, run.seed))


def draw_experiments(figure: Figure, found: Sequence[Experiment], runs: Sequence[Recorded]) -> None:
    """A panel for each game that was tried: its recorded run in blue, and one line for each experiment."""
    games = [game for game in GAMES if any(each.game == game for each in found)]
    panels = figure.subplots(1, len(games), squeeze=False).ravel()
    for axes, game in zip(panels, games, strict=True):
        tried = [each for each in found if each.game == game]
        recorded = control(tried[0], runs)
        axes.plot(*_points(recorded.log), color=BLUE, label=f"as recorded, seed {recorded.seed}")
        for each, (color, dashes) in zip(tried, itertools.cycle(_LOOKS), strict=False):
            axes.plot(*_points(each.curve), color=color, linestyle=dashes, label=each.label)
        axes.set(title=TITLES[game], xlabel="simulator steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.legend(fontsize=8, loc="lower right")
    panels[0].set_ylabel("score, mean over\nthe latest 100 games")


def _points(log: Curves | Mapping[str, Floats]) -> tuple[Floats, Floats]:
    return log["total_steps"], log["mean_return"]
