"""Exercise welch_interval of lesson 08, Nine methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy import stats  # type: ignore[import-untyped]

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_08.shared import Floats, agree, nearly_right

Pair = tuple[float, float]
Interval = Callable[[Floats, Floats, float], Pair]


def two_methods(rng: Generator) -> tuple[Floats, Floats, float]:
    """Scores of one method and of another, which has another number of seeds and another spread; and a confidence."""
    sizes = rng.permutation([3, 4, 5, 7, 9])[:2]
    a, b = (rng.normal(rng.normal(), spread, size=n) for spread, n in zip((0.5, 2.0), sizes, strict=True))
    return a, b, float(rng.choice([0.8, 0.9, 0.95, 0.99]))


welch_interval = Check("welch_interval", minutes=10, inputs=two_methods)


@welch_interval.property("Your ends are right to a few digits only. Is something computed in float32 on the way?")
def has_all_digits(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    va, vb, df = parts(a, b)
    right = around(a, b, quantile(confidence, df) * math.sqrt(va + vb))
    # not more: degrees of freedom that are rounded change the third digit
    return not nearly_right(tuple(student(a, b, confidence)), right, near=1e-5)


@welch_interval.property("The middle of the interval should be mean(a) - mean(b), to the last digit.")
def is_around_the_difference(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    return agree(sum(student(a, b, confidence)) / 2, a.mean() - b.mean())


@welch_interval.property("The lower end should come first, and be lower.")
def low_comes_first(student: Interval, rng: Generator) -> bool:
    low, high = student(*two_methods(rng))
    return low < high


@welch_interval.property("More confidence should make a longer interval.")
def grows_with_confidence(student: Interval, rng: Generator) -> bool:
    a, b, _ = two_methods(rng)
    lengths = [float(np.diff(student(a, b, confidence))[0]) for confidence in (0.5, 0.9, 0.99)]
    return bool(np.all(np.diff(lengths) > 0))


@welch_interval.property("Scores in other units should give an interval in those units.")
def follows_the_units(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    expected = tuple(100 * end for end in student(a, b, confidence))
    return agree(tuple(student(100 * a, 100 * b, confidence)), expected)


@welch_interval.property(
    "With n seeds each and the same spread s, whose square has n - 1 under it, nu is 2 (n - 1), and the interval "
    "reaches t s sqrt(2 / n) to either side. Half of what the confidence leaves out lies above t."
)
def two_methods_alike(student: Interval, rng: Generator) -> bool:
    _, a, confidence = two_methods(rng)
    far = quantile(confidence, 2 * (len(a) - 1)) * a.std(ddof=1) * math.sqrt(2 / len(a))
    low, high = student(a, 1 + rng.permutation(a), confidence)
    return agree((high - low) / 2, far)


@welch_interval.property(
    "Half of the interval's length should be t sqrt(v_a + v_b), each v with its own method's variance and number of "
    "seeds; and t between the quantile of n_a + n_b - 2 degrees of freedom and that of the smaller n - 1."
)
def has_about_the_length(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    low, high = student(a, b, confidence)
    va, vb, _ = parts(a, b)
    least, most = (quantile(confidence, df) for df in (len(a) + len(b) - 2, min(len(a), len(b)) - 1))
    return bool(least - 1e-9 <= (high - low) / 2 / math.sqrt(va + vb) <= most + 1e-9)


@welch_interval.property(
    "The interval has the length of other degrees of freedom. Go through the formula of nu once more: v is s ** 2 / n "
    "also there, with n - 1 under s ** 2; the sum is squared above, each v below; and nu is not rounded."
)
def has_the_degrees_of_freedom(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    low, high = student(a, b, confidence)
    va, vb, df = parts(a, b)
    return agree((high - low) / 2, quantile(confidence, df) * math.sqrt(va + vb))


@welch_interval.property(
    "Where no score differs from another of its method, there is no spread, and 0 / 0 goes wrong: the interval should "
    "be the difference of the means, twice.",
    edge=True,
)
def no_spread(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    low, high = student(np.full_like(a, 3.0), np.full_like(b, 1.0), confidence)
    return agree((low, high), (2.0, 2.0))


@welch_interval.property(
    "Scores in millionths go wrong: a small spread is a spread. Ask whether it is 0, not whether it is small.",
    edge=True,
)
def small_units(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    small = student(1e-6 * a, 1e-6 * b, confidence)
    return agree(tuple(1e6 * end for end in small), tuple(student(a, b, confidence)))


@welch_interval.property(
    "Where one of the two methods has no spread, its part of the error is zero, and the other's is left.", edge=True
)
def one_without_spread(student: Interval, rng: Generator) -> bool:
    a, b, confidence = two_methods(rng)
    far = stats.t.ppf((1 + confidence) / 2, len(a) - 1) * a.std(ddof=1) / math.sqrt(len(a))
    middle = a.mean() - 1.0
    return agree(tuple(student(a, np.full_like(b, 1.0), confidence)), (middle - far, middle + far))


def parts(a: Floats, b: Floats) -> tuple[float, float, float]:
    """Squared standard errors of both means, and Welch's degrees of freedom."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    return va, vb, (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))


def around(a: Floats, b: Floats, far: float) -> Pair:
    """mean(a) - mean(b), less and more `far`."""
    middle = float(a.mean() - b.mean())
    return middle - far, middle + far


def quantile(confidence: float, df: float) -> float:
    """Of Student's t, so that `confidence` lies between it and its negative."""
    return float(stats.t.ppf((1 + confidence) / 2, df))


@welch_interval.mistake(
    "concept",
    "You pool the two variances; tempting, because Student's test does. It assumes that both methods spread alike, "
    "and a method that fails with one seed in five does not spread like one that never fails.",
)
def pools(a: Floats, b: Floats, confidence: float) -> Pair:
    df = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / df
    return around(a, b, quantile(confidence, df) * math.sqrt(pooled * (1 / len(a) + 1 / len(b))))


@welch_interval.mistake(
    "concept",
    "Your quantile is that of a normal distribution; tempting, because 1.96 is known by heart. The spread is itself "
    "estimated from a few seeds: Student's t has the longer tails that this costs.",
)
def uses_the_normal(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, _ = parts(a, b)
    return around(a, b, float(stats.norm.ppf((1 + confidence) / 2)) * math.sqrt(va + vb))


@welch_interval.mistake(
    "concept",
    "You leave out all on one side only; tempting, because ppf(0.95) looks like 95 %. An interval leaves out half of "
    "the rest on either side: ppf((1 + confidence) / 2).",
)
def one_sided(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, df = parts(a, b)
    return around(a, b, float(stats.t.ppf(confidence, df)) * math.sqrt(va + vb))


@welch_interval.mistake(
    "concept",
    "You do not divide the variances by the numbers of seeds; tempting, because the spread of runs is what one sees. "
    "The interval is one for a difference of means, and a mean of n seeds has a variance n times smaller.",
)
def spread_of_runs(a: Floats, b: Floats, confidence: float) -> Pair:
    _, _, df = parts(a, b)
    return around(a, b, quantile(confidence, df) * math.sqrt(a.var(ddof=1) + b.var(ddof=1)))


@welch_interval.mistake(
    "concept",
    "You add the standard errors; tempting, because each method brings its own. Seeds of one method know nothing of "
    "the other's, so that the *squares* add up.",
)
def adds_errors(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, df = parts(a, b)
    return around(a, b, quantile(confidence, df) * (math.sqrt(va) + math.sqrt(vb)))


@welch_interval.mistake(
    "sign",
    "Your interval is one for mean(b) - mean(a); tempting, because the new method is often the second one. Asked for "
    "is how much better a is.",
)
def turns_around(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, df = parts(a, b)
    return around(b, a, quantile(confidence, df) * math.sqrt(va + vb))


@welch_interval.mistake(
    "concept",
    "Your degrees of freedom are those of equal variances, the number of seeds less 2; tempting, because it is a whole "
    "number. Where one method does nearly all of the spreading, only its seeds tell how large the spread is.",
)
def counts_all_seeds(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, _ = parts(a, b)
    return around(a, b, quantile(confidence, len(a) + len(b) - 2) * math.sqrt(va + vb))


@welch_interval.mistake(
    "conditioning",
    "You take a for its true mean, and let only b be uncertain; tempting, because one's own method was run often. It "
    "was run on seeds as well.",
)
def trusts_a(a: Floats, b: Floats, confidence: float) -> Pair:
    _, vb, _ = parts(a, b)
    return around(a, b, quantile(confidence, len(b) - 1) * math.sqrt(vb))


@welch_interval.mistake(
    "numerics",
    "You add the variances instead of their roots' lengths: the root is missing; tempting, because the variances are "
    "at hand. An error has the units of the scores, a variance has their square.",
)
def forgets_the_root(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb, df = parts(a, b)
    return around(a, b, quantile(confidence, df) * (va + vb))


@welch_interval.mistake(
    "constant",
    "Your variances divide by n; tempting, because np.var does so unless it is told otherwise. With five seeds that "
    "makes them a fifth too small: ddof=1.",
)
def divides_by_n(a: Floats, b: Floats, confidence: float) -> Pair:
    va, vb = a.var() / len(a), b.var() / len(b)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return around(a, b, quantile(confidence, df) * math.sqrt(va + vb))
