"""Our recorded runs beside those of sb3-contrib's TRPO, seed by seed.

    python -m trpo_lessons.bench.compare

Both are scored by the mean return of deterministic episodes after a million simulator steps. The interval is that of
the difference between the two means over seeds: seeds are few and their returns far from normal, so it is found by
drawing seeds again and again, with replacement (Efron's bootstrap).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons.bench.sb3_peer import TASKS

ZOO = Path(__file__).parents[1] / "zoo"


@dataclass(frozen=True)
class Comparison:
    """Scores by seed of one task, and the bootstrap interval of mean(ours) - mean(theirs)."""

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
    """Raises ValueError when one of them has fewer than two seeds: nothing is known about the spread then."""
    if min(len(ours), len(theirs)) < 2:
        raise ValueError(
            f"{task} needs two seeds of each at least, and has {len(ours)} of ours, {len(theirs)} of theirs"
        )

    def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        found: np.ndarray = np.mean(a, axis=axis) - np.mean(b, axis=axis)
        return found

    interval = stats.bootstrap(
        (np.array(ours), np.array(theirs)),
        difference,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Comparison(task, tuple(ours), tuple(theirs), float(interval.low), float(interval.high))


def main() -> None:
    """Print the table of all tasks with recorded runs."""
    print(f"{'':12}{'ours':>14}  {'sb3-contrib':>14}   difference of means, 95 %")
    for task in TASKS:
        ours, theirs = scores(ZOO / "class_preset", task), scores(ZOO / "sb3_contrib", task)
        print(compare(task, ours, theirs) if min(len(ours), len(theirs)) > 1 else f"{task:<12}not enough runs")
    print("mean (median) over seeds of the mean return of 20 deterministic episodes")


if __name__ == "__main__":
    main()
