"""Our recorded runs beside those of sb3-contrib's TRPO, seed by seed.

    python -m trpo_lessons.bench.compare

Both are scored by the mean return of deterministic episodes after a million simulator steps. The interval is that of
the difference between the two means over seeds, by Welch's t. Simulated with five seeds of each, it covers the true
difference in 95 to 96 % of cases where scores are normal, and in 96 % where a quarter of the seeds fails on both sides;
where the failures of one side cost four times as much, in 87 to 93 %. A bootstrap of percentiles covers 81 to 89 % of
all these: the spread of so few is too small.

An interval of a mean is not the spread of runs: the scores by seed are in the README.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons import zoo_names
from trpo_lessons.bench.sb3_peer import TASKS

ZOO = zoo_names.ZOO


@dataclass(frozen=True)
class Comparison:
    """Scores by seed of one task, and the interval of mean(ours) - mean(theirs)."""

    task: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    low: float
    high: float

    def __str__(self) -> str:
        scores = "  ".join(f"{f'{mean(s):.0f} ({median(s):.0f})':>14}" for s in (self.ours, self.theirs))
        return (
            f"{self.task:<12}{scores}   {mean(self.ours) - mean(self.theirs):+6.0f} [{self.low:+.0f}, {self.high:+.0f}]"
        )


def scores(folder: Path, task: str) -> tuple[float, ...]:
    """The mean returns that are recorded for a task, in order of the seeds."""
    found = [json.loads(path.read_text()) for path in folder.glob(f"{task}-seed*/summary.json")]
    return tuple(run["mean_return"] for run in sorted(found, key=lambda run: run["seed"]))


def compare(task: str, ours: Sequence[float], theirs: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Welch's interval for the difference between two means, whose seeds may spread differently.

    Raises ValueError when one of them has fewer than two seeds: nothing is known about the spread then.
    """
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(
            f"{task} needs two seeds of each at least, and has {len(ours)} of ours, {len(theirs)} of theirs"
        )
    low = high = mean(ours) - mean(theirs)
    if max(len(set(ours)), len(set(theirs))) > 1:  # otherwise nothing spreads, and t is 0 / 0
        with warnings.catch_warnings():
            # Where all seeds of one of them score the same, its variance is 0: exact here, and no loss of precision.
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
            interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(confidence)
        low, high = float(interval.low), float(interval.high)
    return Comparison(task, tuple(ours), tuple(theirs), low, high)


def main() -> None:
    """Print the table of all tasks with recorded runs."""
    print(f"{'':12}{'ours':>14}  {'sb3-contrib':>14}   difference of means, 95 % (Welch's t)")
    for task in TASKS:
        ours, theirs = scores(ZOO / "class_preset", task), scores(ZOO / "sb3_contrib", task)
        print(compare(task, ours, theirs) if min(len(ours), len(theirs)) > 1 else f"{task:<12}not enough runs")
    print("mean (median) over seeds of the mean return of 20 deterministic episodes")


if __name__ == "__main__":
    main()
