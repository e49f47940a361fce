"""What lesson 10 shows from recorded runs of games, whichever there are: curves, scores, diagnoses, states.

A run that is recorded later appears by itself in every picture and table that is made here.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons import zoo_names
from trpo_lessons.bench.record import seconds_of
from trpo_lessons.envs.atari.scores import RANDOM_AND_HUMAN, human_normalised
from trpo_lessons.envs.atari.settings import GAMES
from trpo_lessons.teaching.lesson_10.shared import Bytes, Floats
from trpo_lessons.training import Run, TrainConfig, load_run
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.style import BLACK, BLUE, GREY, ORANGE, VERMILION

TITLES = {
    "beam_rider": "Beam Rider",
    "breakout": "Breakout",
    "enduro": "Enduro",
    "pong": "Pong",
    "qbert": "Q*bert",
    "seaquest": "Seaquest",
    "space_invaders": "Space Invaders",
}
HEADS = {
    "beam_rider": ("Beam", "Rider"),
    "breakout": ("Break-", "out"),
    "enduro": ("", "Enduro"),
    "pong": ("", "Pong"),
    "qbert": ("", "Q*bert"),
    "seaquest": ("Sea-", "quest"),
    "space_invaders": ("Space", "Inv."),
}
WIDTHS = dict(zip(GAMES, (6, 7, 7, 6, 7, 6, 7), strict=True))  # so that a line fits a narrow window
SCHEMES = ("single path", "vine")
LOOKS = {"single path": (BLUE, "-"), "vine": (ORANGE, "--")}
COLUMNS = (
    *("total_steps", "mean_return", "mean_kl", "entropy", "explained_variance", "accepted", "backtracks"),
    *("predicted_gain", "surrogate_gain", "mean_length"),
)


@dataclass(frozen=True)
class Recorded:
    """A recorded run of a game.

    name    by which the zoo knows it, such as "pong" or "pong/vine/2"
    scheme  "single path" or "vine"
    steps   simulator steps, four frames each, those of branches too; `hours` by the clock, with one thread
    """

    folder: Path
    name: str
    game: str
    scheme: str
    seed: int
    steps: int
    hours: float

    @cached_property
    def scores(self) -> Floats:
        """Raw scores of the whole games that the trained policy was judged by, with sampled actions."""
        return self._judged_by("return")

    @cached_property
    def lengths(self) -> Floats:
        """How many steps those games took."""
        return self._judged_by("length")

    @property
    def standard_error(self) -> float:
        """Of the mean of `scores`."""
        return float(self.scores.std(ddof=1) / math.sqrt(len(self.scores)))

    @property
    def score_in_words(self) -> str:
        """Mean and standard error, as tables have them: "4030 ± 260"."""
        error = float(f"{self.standard_error:.2g}")
        return f"{in_three_digits(float(self.scores.mean()))} ± {in_three_digits(error)}"

    def _judged_by(self, column: str) -> Floats:
        with open(self.folder / "evaluation.csv", newline="") as file:
            return np.array([float(row[column]) for row in csv.DictReader(file)])

    @cached_property
    def log(self) -> Mapping[str, Floats]:
        """Columns of progress.csv, one number an iteration; nan where a cell is empty."""
        rows = RunFolder(self.folder).rows()
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in COLUMNS}

    @cached_property
    def config(self) -> TrainConfig:
        """Its settings."""
        return RunFolder(self.folder).config()[0]

    @property
    def hidden_units(self) -> int:
        """How many the policy has behind its convolutions."""
        (units,) = self.config.hidden
        return units

    @cached_property
    def hours_so_far(self) -> Floats:
        """By the clock, at the end of each iteration."""
        seconds = [seconds_of(row, self.config.threads) for row in RunFolder(self.folder).rows()]
        return np.cumsum(seconds) / 3600

    @property
    def film(self) -> Path:
        """Where its film lies, if there is one."""
        return self.folder / "animation.gif"

    def load(self) -> Run:
        """The trained policy."""
        return load_run(self.folder)

    @cached_property
    def states(self) -> Bytes:
        """The observations [E, 4, 52, 40] of all its games at the moment when training stopped."""
        tensors, _ = RunFolder(self.folder).load_checkpoint()
        return np.asarray(tensors["raw_obs"].numpy())


def recorded(zoo: Path | None = None) -> tuple[Recorded, ...]:
    """All recorded runs of games, game by game; `zoo`: another folder than the package's."""
    found, taken = [], set()
    for entry in zoo_names.read(zoo).entries:
        if entry.task in GAMES and entry.method == "trpo":
            name = entry.name if entry.kind in taken else entry.kind  # the first seed of a kind needs no number
            taken.add(entry.kind)
            hours = json.loads((entry.folder / "summary.json").read_text())["wall_seconds"] / 3600
            scheme = entry.sampling.replace("-", " ")
            found.append(Recorded(entry.folder, name, entry.task, scheme, entry.seed, entry.steps, hours))
    return tuple(sorted(found, key=lambda run: (run.game, SCHEMES.index(run.scheme), run.name)))


def games_of(runs: Iterable[Recorded]) -> list[str]:
    """The games that there are runs of, in the paper's order."""
    there = {run.game for run in runs}
    return [game for game in GAMES if game in there]


@lru_cache(maxsize=4)
def loaded(run: Recorded) -> Run:
    """The policy of a run, read once."""
    return run.load()


def untrained(run: Run) -> Run:
    """The network with which that run began: the same architecture, the theta of its seed, no update yet."""
    generator = torch.Generator().manual_seed(run.config.seed)
    return replace(run, theta=run.policy.initial_theta(generator), iteration=0)


# ---- what others score -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Scores by game, in the order of GAMES; None where there is none. `steps`: agent steps of four frames, or None."""

    who: str
    steps: str
    scores: tuple[float | None, ...]


PLAYERS = tuple(
    Row(who, "-", tuple(RANDOM_AND_HUMAN[game][i] for game in GAMES)) for i, who in enumerate(("random", "a person"))
)
# Table 1 of the paper; "steps" by its table 3: 500 iterations of 100,000 or 400,000.
PAPER = (
    Row("paper, single path", "50M", (1425.2, 10.8, 534.6, 20.9, 1973.5, 1908.6, 568.4)),
    Row("paper, vine", "200M", (859.5, 34.2, 430.8, 20.9, 7732.5, 788.4, 450.2)),
)
# Read off the learning curves of openai/baselines' benchmarks_atari10M.htm (github.com/openai/baselines), six runs each
# and to about three percent; Rainbow's off those of Dopamine (google.github.io/dopamine/baselines), sticky actions.
OTHERS = (
    Row("TRPO (baselines)", "10M", (820, 26, 20, 16, 3700, 850, 555)),
    Row("A2C (baselines)", "10M", (2500, 280, 0, 19, 4600, 1750, 695)),
    Row("PPO (baselines)", "10M", (2290, 241, 745, 20.9, 14900, 1520, 775)),
    Row("DQN (baselines)", "10M", (2750, 239, 658, 20.6, 7300, 2015, 590)),
    Row("Rainbow (Dopamine)", "10M", (5255, 48, 2152, 19, 15751, 3132, 1644)),
)
SAME_SCHEME = dict(zip(SCHEMES, PAPER, strict=True))
BASELINE = OTHERS[0]


def own_rows(runs: Sequence[Recorded]) -> list[Row]:
    """A row for each scheme: the mean over the seeds of each game, and how long the runs were."""
    rows = []
    for scheme in SCHEMES:
        of_scheme = [run for run in runs if run.scheme == scheme]
        if of_scheme:
            scores = tuple(_mean([run.scores.mean() for run in of_scheme if run.game == game]) for game in GAMES)
            lengths = sorted({millions(run.steps) for run in of_scheme})
            steps = lengths[0] if len(lengths) == 1 else f"{lengths[0]}-{lengths[-1]}"
            rows.append(Row(f"ours, {scheme}", steps, scores))
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def millions(steps: int) -> str:
    """Such as "2.5M"."""
    return f"{steps / 1e6:.1f}M"


def in_three_digits(number: float) -> str:
    """As tables have it: 7732, 568, 34.2, -20.4, 0."""
    return f"{number:.0f}" if abs(number) >= 99.95 or number == round(number) else f"{number:.1f}"


def table(rows: Iterable[Row], human_scale: bool = False) -> str:
    """Raw scores, or with `human_scale` those where a random player has 0 and a person 1."""
    lines = [
        f"{'':18}{'':>10}" + "".join(f"{HEADS[game][0]:>{WIDTHS[game]}}" for game in GAMES),
        f"{'':18}{'steps':>10}" + "".join(f"{HEADS[game][1]:>{WIDTHS[game]}}" for game in GAMES),
    ]
    for row in rows:
        cells = []
        for game, score in zip(GAMES, row.scores, strict=True):
            if score is None:
                cells.append("-")
            else:
                cells.append(f"{human_normalised(game, score):.2f}" if human_scale else in_three_digits(score))
        columns = (f"{cell:>{WIDTHS[game]}}" for game, cell in zip(GAMES, cells, strict=True))
        lines.append(f"{row.who:18}{row.steps:>10}" + "".join(columns))
    return "\n".join(lines)


# ---- curves ----------------------------------------------------------------------------------------------------------


def draw_curves(figure: Figure, runs: Sequence[Recorded]) -> None:
    """A panel for each game: the mean score of the latest 100 games against simulator steps, and what others end at."""
    games = games_of(runs)
    columns = min(4, max(2, len(games)))
    panels = figure.subplots(-(-len(games) // columns), columns, squeeze=False).ravel()
    for axes, game in zip(panels, games, strict=False):
        for run in (run for run in runs if run.game == game):
            color, dashes = LOOKS[run.scheme]
            axes.plot(run.log["total_steps"], run.log["mean_return"], color=color, linestyle=dashes, label=run.scheme)
        place = GAMES.index(game)
        for row, color, dashes in ((PAPER[0], VERMILION, ":"), (PAPER[1], VERMILION, "-."), (BASELINE, GREY, "--")):
            axes.axhline(float(row.scores[place] or 0), color=color, linestyle=dashes, linewidth=1.3, label=row.who)
        axes.relim()
        axes.autoscale_view()  # a line at the edge is seen whole
        axes.set(title=TITLES[game], xlabel="simulator steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in panels[len(games) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("score, mean over\nthe latest 100 games")
    legend_below(figure)


def legend_below(figure: Figure, columns: int = 5) -> None:
    """One legend for all panels, below them, with every label once."""
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = min(columns, len(lines))
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=columns, fontsize=9)


# ---- where results fall short ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Diagnosis:
    """A run beside its bar, the paper's score by the same scheme, and what its log says of the last tenth of training.

    still_rising  the `late_gain` of its curve
    """

    run: Recorded
    bar: float
    score: float
    standard_error: float
    kl: float
    entropy: float
    explained: float
    refused: float
    still_rising: float

    @property
    def met(self) -> bool:
        """Whether the score is at the bar, or less than two standard errors below it."""
        return self.score + 2 * self.standard_error >= self.bar


def diagnosis(run: Recorded) -> Diagnosis:
    """Of one run."""
    log = run.log
    last = slice(-max(1, len(log["total_steps"]) // 10), None)
    return Diagnosis(
        run,
        float(SAME_SCHEME[run.scheme].scores[GAMES.index(run.game)] or 0.0),
        float(run.scores.mean()),
        run.standard_error,
        float(np.nanmedian(log["mean_kl"][last])),
        float(np.nanmean(log["entropy"][last])),
        float(np.nanmean(log["explained_variance"][last])),
        float(1 - log["accepted"].mean()),
        late_gain(log["mean_return"]),
    )


def late_gain(scores: Floats) -> float:
    """What the last fifth of a curve added, as a share of all that was gained; nan where nothing was."""
    known = scores[np.isfinite(scores)]
    gained = known[-1] - known[0]
    return float((known[-1] - known[-1 - len(known) // 5]) / gained) if gained > 0 else math.nan


ENTROPY_OF_CHANCE = math.log(18)  # nats; of a joystick that is pushed at random


def symptoms(found: Diagnosis) -> list[str]:
    """What its log suggests, where a run is below its bar."""
    if found.met:
        return []
    said = []
    if found.refused > 0.05:
        said.append("updates are refused")
    if found.entropy > 0.9 * ENTROPY_OF_CHANCE:
        said.append("it still plays nearly at random")
    if found.entropy < 0.25 * ENTROPY_OF_CHANCE:
        said.append("it hardly tries anything new")
    if not found.explained > 0.3:
        said.append("V explains little")
    if found.still_rising > 0.1:
        said.append("it was still rising when it stopped")
    return said or ["its log is healthy: look at the film, at rewards, at gamma"]


def diagnosis_table(runs: Iterable[Recorded]) -> str:
    """A line for each run, and under those that are below their bar what their logs suggest."""
    lines = [
        f"{'':41}{'KL /':>6}{'entro-':>7}{'V ex-':>7}{'re-':>7}{'late':>6}",
        f"{'':20}{'score':>11}{'bar':>6}{'met':>4}{'delta':>6}{'py':>7}{'plains':>7}{'fused':>7}{'gain':>6}",
    ]
    for run in runs:
        found = diagnosis(run)
        delta = run.config.delta
        lines.append(
            f"{run.name:20}{run.score_in_words:>11}{in_three_digits(found.bar):>6}{'yes' if found.met else 'no':>4}"
            f"{found.kl / delta:>6.2f}{found.entropy:>7.2f}{found.explained:>7.2f}{100 * found.refused:>5.0f} %"
            f"{100 * found.still_rising:>4.0f} %"
        )
        lines += [f"{'':15}{word}" for word in symptoms(found)]
    return "\n".join(lines)


def draw_scale(figure: Figure, rows: Sequence[Row], runs: Sequence[Recorded]) -> None:
    """Every row on the human scale, game by game: a mark each, ours with two standard errors of its games."""
    axes = figure.subplots()
    marks = dict(zip((row.who for row in (*PAPER, *OTHERS)), "ovs^DPX", strict=True))
    for row in rows:
        ours = row.who.startswith("ours")
        color = LOOKS[row.who.removeprefix("ours, ")][0] if ours else VERMILION if row in PAPER else GREY
        places = [i for i, score in enumerate(row.scores) if score is not None]
        scaled = [human_normalised(GAMES[i], float(row.scores[i] or 0.0)) for i in places]
        size = 11 if ours else 6
        axes.plot(scaled, places, marks.get(row.who, "*"), color=color, markersize=size, linestyle="", label=row.who)
    for run in runs:
        low, high = RANDOM_AND_HUMAN[run.game]
        middle, error = diagnosis(run).score, 2 * diagnosis(run).standard_error
        ends = [human_normalised(run.game, middle + side * error) for side in (-1, 1)]
        if high > low:
            axes.plot(ends, [GAMES.index(run.game)] * 2, color=LOOKS[run.scheme][0], linestyle="-", linewidth=2.5)
    axes.axvline(1, color=BLACK, linestyle="-", linewidth=1)
    axes.set(xlabel="human scale: a random player 0, a person 1", xscale="symlog", xlim=(-0.05, 20))
    axes.set_xticks((0, 1, 2, 5, 10), ("0", "1", "2", "5", "10"))
    axes.set_yticks(range(len(GAMES)), [TITLES[game] for game in GAMES])
    axes.invert_yaxis()
    figure.legend(loc="outside right center", fontsize=9)
