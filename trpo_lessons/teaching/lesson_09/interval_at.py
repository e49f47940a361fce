"""Exercise interval_at of lesson 09, Locomotion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_09.shared import Floats, agree

Pair = tuple[float, float]
Interval = Callable[[list[Floats], list[Floats], float, float], Pair]


class Curves(NamedTuple):
    """What is handed to `interval_at`."""

    steps: list[Floats]
    returns: list[Floats]
    at: float
    confidence: float

    def here(self) -> Floats:
        """What each seed returns at `at`, on the line between its two points."""
        return np.array([np.interp(self.at, x, y) for x, y in zip(self.steps, self.returns, strict=True)])

    def row(self, seed: int) -> int:
        """The last point of a seed that is not beyond `at`."""
        return int(np.searchsorted(self.steps[seed], self.at, side="right")) - 1


def curves(rng: Generator) -> Curves:
    """Three to seven seeds with points of their own, all of which go beyond `at`."""
    seeds = int(rng.integers(3, 8))
    steps = [np.cumsum(rng.uniform(10, 60, size=int(rng.integers(9, 14)))) for _ in range(seeds)]
    returns = [np.cumsum(rng.normal(40, 60, size=len(each))) + 50 * rng.normal() for each in steps]
    low, high = max(each[0] for each in steps), min(each[-1] for each in steps)
    at = float(low + rng.uniform(0.3, 0.7) * (high - low))
    return Curves(steps, returns, at, float(rng.choice([0.8, 0.9, 0.95, 0.99])))


def around(values: Floats, far: float) -> Pair:
    """Their mean, less and more `far`."""
    return float(values.mean()) - far, float(values.mean()) + far


def by_t(values: Floats, confidence: float) -> Pair:
    """Student's interval for the mean of what the seeds say."""
    share = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1))
    return around(values, share * float(values.std(ddof=1)) / math.sqrt(len(values)))


interval_at = Check("interval_at", minutes=12, inputs=curves, arguments=Curves)


@interval_at.property("The middle of the interval should be the mean of what the seeds return there.")
def is_around_the_mean(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    return agree(sum(student(*x)) / 2, x.here().mean())


@interval_at.property("The lower end should come first, and more confidence should make a longer interval.")
def grows_with_confidence(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    lengths = [float(np.diff(student(*x._replace(confidence=share)))[0]) for share in (0.5, 0.9, 0.99)]
    return lengths[0] > 0 and bool(np.all(np.diff(lengths) > 0))


@interval_at.property("Steps counted in thousands should change nothing.")
def units_of_steps_do_not_matter(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    return agree(student([each / 1000 for each in x.steps], x.returns, x.at / 1000, x.confidence), student(*x))


@interval_at.property("More points on the same curve are no more evidence: an interval should not change by them.")
def points_are_no_seeds(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    finer = [np.sort(np.concatenate([each, (each[1:] + each[:-1]) / 2])) for each in x.steps]
    between = [np.interp(fine, a, b) for fine, a, b in zip(finer, x.steps, x.returns, strict=True)]
    return agree(student(finer, between, x.at, x.confidence), student(*x), 1e-7)


@interval_at.property("Returns that are three times as large should make everything three times as large.")
def units_of_returns(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    return agree(student(*x._replace(returns=[3 * each for each in x.returns])), 3 * np.array(student(*x)), 1e-7)


@interval_at.property(
    "A t-test at either end of the interval should find a p-value of 1 - confidence. The middle is right; go through "
    "the length: the quantile and its degrees of freedom, the spread of the seeds, and the root of their number."
)
def ends_are_those_of_a_t_test(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    found = [stats.ttest_1samp(x.here(), end).pvalue for end in student(*x)]
    return agree(found, [1 - x.confidence] * 2, 1e-7)


@interval_at.property(
    "Where all seeds agree there is no spread, and the interval should be that number, twice (stats.t.interval says "
    "nan there).",
    edge=True,
)
def no_spread(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    level = [np.full_like(each, 7.0) for each in x.returns]
    return agree(student(*x._replace(returns=level)), (7.0, 7.0))


@interval_at.property(
    "`at` may be the very place of a point, the first or the last one, too: nothing but that point is needed there.",
    edge=True,
)
def on_a_point(student: Interval, rng: Generator) -> bool:
    x = curves(rng)
    first, last = ([each[i] for each in x.returns] for i in (0, -1))
    begun = [each - each[0] for each in x.steps]
    ended = [each / each[-1] for each in x.steps]  # the last place is 1 to the bit
    return survives(
        lambda: (
            agree(student(begun, x.returns, 0.0, 0.9), by_t(np.array(first), 0.9))
            and agree(student(ended, x.returns, 1.0, 0.9), by_t(np.array(last), 0.9))
        )
    )


@interval_at.mistake(
    "concept",
    "Your quantile is that of a normal distribution; tempting, because 1.96 is known by heart. The spread comes from a "
    "handful of seeds and is uncertain itself: Student's t, with one degree of freedom less than seeds.",
)
def uses_the_normal(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.norm.ppf((1 + x.confidence) / 2))
    return around(values, share * float(values.std(ddof=1)) / math.sqrt(len(values)))


@interval_at.mistake(
    "concept",
    "You leave out all on one side only; tempting, because ppf(0.95) looks like 95 %. Half of the rest lies on either "
    "side: ppf((1 + confidence) / 2).",
)
def one_sided(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.t.ppf(x.confidence, len(values) - 1))
    return around(values, share * float(values.std(ddof=1)) / math.sqrt(len(values)))


@interval_at.mistake(
    "concept",
    "You show the spread of the seeds; tempting, because that is what one sees in the picture. Asked for is how sure "
    "their *mean* is, and a mean of n seeds spreads less, by the root of n.",
)
def spread_of_seeds(x: Curves) -> Pair:
    values = x.here()
    return around(values, float(stats.t.ppf((1 + x.confidence) / 2, len(values) - 1)) * float(values.std(ddof=1)))


@interval_at.mistake(
    "concept",
    "You take all points up to there together; tempting, because many numbers make a narrow interval. Points of one "
    "run depend on each other and on its seed: the seeds are the sample, and there are only so many of them.",
)
def pools_points(x: Curves) -> Pair:
    values = np.concatenate([y[a <= x.at] for a, y in zip(x.steps, x.returns, strict=True)])
    return by_t(values, x.confidence)


@interval_at.mistake(
    "order",
    "You take the last point before `at`; tempting, because nothing later was known then. A grid that is coarse then "
    "looks slower than a fine one: take the line between the two points.",
)
def last_known(x: Curves) -> Pair:
    return by_t(np.array([y[x.row(i)] for i, y in enumerate(x.returns)]), x.confidence)


@interval_at.mistake(
    "indexing",
    "You take the same row of every seed; tempting, because all logs have an iteration 50. Iterations of different "
    "runs take different numbers of steps, as a vine's do: look each seed up on its own grid.",
)
def same_row(x: Curves) -> Pair:
    return by_t(np.array([y[min(x.row(0), len(y) - 1)] for y in x.returns]), x.confidence)


@interval_at.mistake(
    "conditioning",
    "You compare the ends of the runs; tempting, because that is the final result. Asked for is the mean at `at`, "
    "where every seed has taken the same number of steps.",
)
def at_the_end(x: Curves) -> Pair:
    return by_t(np.array([y[-1] for y in x.returns]), x.confidence)


@interval_at.mistake(
    "concept",
    "Your ends are the lowest and the highest seed; tempting, because everything that was seen lies between them. "
    "That is a range: it grows with every seed, where an interval for the mean shrinks.",
)
def lowest_and_highest(x: Curves) -> Pair:
    values = x.here()
    return float(values.min()), float(values.max())


@interval_at.mistake(
    "constant",
    "Your variance divides by n; tempting, because np.std does so unless it is told otherwise. With five seeds that "
    "makes it a fifth too small: ddof=1.",
)
def divides_by_n(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.t.ppf((1 + x.confidence) / 2, len(values) - 1))
    return around(values, share * float(values.std()) / math.sqrt(len(values)))


@interval_at.mistake(
    "concept",
    "You count as many degrees of freedom as seeds; tempting, because there are so many numbers. One of them is spent "
    "on the mean: n - 1.",
)
def one_degree_too_many(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.t.ppf((1 + x.confidence) / 2, len(values)))
    return around(values, share * float(values.std(ddof=1)) / math.sqrt(len(values)))


@interval_at.mistake(
    "concept",
    "You divide by the number of seeds; tempting, because a mean does. The *variance* of a mean is the n-th part of "
    "that of a seed, so that its standard deviation is smaller by the root of n.",
)
def divides_by_the_number(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.t.ppf((1 + x.confidence) / 2, len(values) - 1))
    return around(values, share * float(values.std(ddof=1)) / len(values))


@interval_at.mistake(
    "concept",
    "You take the mean off twice, in ddof=1 and again under the root; tempting, because n - 1 is in both formulas that "
    "one remembers. Either std(ddof=1) / sqrt(n) or std() / sqrt(n - 1).",
)
def takes_off_two(x: Curves) -> Pair:
    values = x.here()
    share = float(stats.t.ppf((1 + x.confidence) / 2, len(values) - 1))
    return around(values, share * float(values.std(ddof=1)) / math.sqrt(len(values) - 1))
