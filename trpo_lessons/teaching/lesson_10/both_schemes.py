"""Games that were learned by single paths and by vines: curves against steps and the clock, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.teaching.lesson_10.recorded_games import LOOKS, TITLES, Recorded, games_of, legend_below, millions

GAMES_IN_A_ROW = 2


def in_both_schemes(runs: Sequence[Recorded]) -> dict[str, tuple[Recorded, ...]]:
    """The runs of the games that were learned by single paths and by vines, in the order of `runs`."""
    schemes = {game: {run.scheme for run in runs if run.game == game} for game in games_of(runs)}
    return {game: tuple(run for run in runs if run.game == game) for game, its in schemes.items() if len(its) > 1}


def draw(figure: Figure, runs: Sequence[Recorded]) -> None:
    """Two panels for each game with both: its curves against simulator steps, and against hours by the clock."""
    games = in_both_schemes(runs)
    panels = figure.subplots(math.ceil(len(games) / GAMES_IN_A_ROW), 2 * GAMES_IN_A_ROW, squeeze=False)
    pairs = panels.reshape(-1, 2)
    for (game, its), (by_steps, by_clock) in zip(games.items(), pairs, strict=False):
        for run in its:
            color, dashes = LOOKS[run.scheme]
            for axes, x in ((by_steps, run.log["total_steps"]), (by_clock, run.hours_so_far)):
                axes.plot(x, run.log["mean_return"], color=color, linestyle=dashes, label=run.scheme)
        by_steps.set_title(f"{TITLES[game]}: steps", fontsize=10)
        by_steps.xaxis.set_major_formatter(EngFormatter(sep=""))
        by_clock.set_title(f"{TITLES[game]}: hours", fontsize=10)
        by_clock.sharey(by_steps)
        by_clock.tick_params(labelleft=False)
    for axes in pairs[len(games) :].ravel():
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("score, mean over\nthe latest 100 games")
    legend_below(figure)


def table(runs: Sequence[Recorded]) -> str:
    """A line for each run of those games: score, steps, milliseconds of a step, what an update promised and gained.

    The last three are medians over iterations, which a core that had other work for a while hardly moves.
    """
    lines = [f"{'':15}{'':12}{'score':>12}{'steps':>7}{'ms/step':>9}{'promised':>10}{'gained':>8}"]
    for its in in_both_schemes(runs).values():
        for run in its:
            promised, gained = (np.nanmedian(run.log[name]) for name in ("predicted_gain", "surrogate_gain"))
            hours, steps = (np.diff(x, prepend=0.0) for x in (run.hours_so_far, run.log["total_steps"]))
            cost = f"{millions(run.steps):>7}{np.median(3.6e6 * hours / steps):>9.2f}"
            lines.append(f"{run.game:15}{run.scheme:12}{run.score_in_words:>12}{cost}{promised:>10.3f}{gained:>8.3f}")
    return "\n".join(lines)
