"""Games that were learned by single paths and by vines: curves against steps and the clock, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from trpo_lessons.teaching.lesson_10.recorded_games import LOOKS, TITLES, Recorded, games_of, millions


def in_both_schemes(runs: Sequence[Recorded]) -> dict[str, tuple[Recorded, ...]]:
    """The runs of the games that were learned by single paths and by vines, in the order of `runs`."""
    schemes = {game: {run.scheme for run in runs if run.game == game} for game in games_of(runs)}
    return {game: tuple(run for run in runs if run.game == game) for game, its in schemes.items() if len(its) > 1}


def draw(figure: Figure, runs: Sequence[Recorded]) -> None:
    """A row for each game with both: its curves against simulator steps, and against hours by the clock."""
    games = in_both_schemes(runs)
    for (game, its), row in zip(
        games.items(), figure.subplots(len(games), 2, squeeze=False, sharey="row"), strict=True
    ):
        for run in its:
            color, dashes = LOOKS[run.scheme]
            for axes, x in zip(row, (run.log["total_steps"], run.hours_so_far), strict=True):
                axes.plot(
                    x, run.log["mean_return"], color=color, linestyle=dashes, label=f"{run.scheme}, seed {run.seed}"
                )
        row[0].set(title=f"{TITLES[game]}: simulator steps", ylabel="score, mean over\nthe latest 100 games")
        row[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        row[1].set(title=f"{TITLES[game]}: hours by the clock")
        row[0].legend(fontsize=8, loc="upper left")


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
