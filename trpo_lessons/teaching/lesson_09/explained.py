"""Exercise explained of lesson 09, Locomotion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_09.shared import Floats, agree

Pair = tuple[float, float]
Explain = Callable[[Floats, Floats], Pair]


def values_and_targets(rng: Generator) -> tuple[Floats, Floats]:
    """What V said of the states of a batch [T, E], and the returns it is compared with: off by a level, and noisy."""
    shape = int(rng.integers(6, 12)), int(rng.integers(2, 5))
    targets = 100 * rng.normal() + rng.normal(0, 3, size=shape) + rng.normal(0, 4, size=shape[1])
    level, slope = rng.normal(0, 10), rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)
    return level + slope * targets + rng.normal(0, 2, size=shape), targets


explained = Check("explained", minutes=8, inputs=values_and_targets)


@explained.property("A V that is right in every state should explain everything, and be off by nothing.")
def the_right_v(student: Explain, rng: Generator) -> bool:
    _, targets = values_and_targets(rng)
    return agree(student(targets, targets), (1.0, 0.0))


@explained.property("A V that says the same in every state should explain nothing: a share of 0.")
def the_constant_v(student: Explain, rng: Generator) -> bool:
    values, targets = values_and_targets(rng)
    return agree(student(np.full_like(values, values[0, 0]), targets)[0], 0.0)


@explained.property("A constant added to V should not change the share that it explains: `off` tells of it.")
def a_level_is_no_variance(student: Explain, rng: Generator) -> bool:
    values, targets = values_and_targets(rng)
    return agree(student(values, targets)[0], student(values + 50, targets)[0], 1e-7)


@explained.property(
    "How far V is off should be V less target, averaged over all states, low ones taken off high ones, and divided by "
    "np.std(targets)."
)
def off_on_average(student: Explain, rng: Generator) -> bool:
    _, targets = values_and_targets(rng)
    errors = rng.choice([-1, 1]) * (rng.normal(size=targets.shape) + 5 * (rng.random(targets.shape) < 0.2))
    return agree(student(targets + errors, targets)[1], errors.mean() / targets.std(), 1e-7)


@explained.property("A V that says the opposite should be worse than one that says nothing: a share below 0.")
def the_opposite(student: Explain, rng: Generator) -> bool:
    _, targets = values_and_targets(rng)
    return student(-targets, targets)[0] < -1


@explained.property(
    "It should make no difference which state stands in which row and copy: asked for is the spread of all numbers."
)
def places_do_not_matter(student: Explain, rng: Generator) -> bool:
    values, targets = values_and_targets(rng)
    order = rng.permutation(targets.size)
    elsewhere = (each.ravel()[order].reshape(each.shape) for each in (values, targets))
    return agree(student(*elsewhere), student(values, targets), 1e-7)


@explained.property("In other units of reward, both numbers should be the same.", edge=True)
def units(student: Explain, rng: Generator) -> bool:
    values, targets = values_and_targets(rng)
    return agree(student(1000 * values, 1000 * targets), student(values, targets), 1e-7)


def off(values: Floats, targets: Floats) -> float:
    """How far V is above the targets on average, in their standard deviations."""
    return float((values - targets).mean() / targets.std())


def share(values: Floats, targets: Floats) -> float:
    """Which part of the targets' variance V explains."""
    return float(1 - (targets - values).var() / targets.var())


@explained.mistake(
    "concept",
    "Your share is the squared correlation; tempting, because regression calls that explained variance. It forgives a "
    "V that is twice as steep as the returns, or upside down; advantages do not.",
)
def correlation(values: Floats, targets: Floats) -> Pair:
    return float(np.corrcoef(values.ravel(), targets.ravel())[0, 1] ** 2), off(values, targets)


@explained.mistake(
    "concept",
    "Your share takes the mean square of the error instead of its variance; tempting, because V is fitted by least "
    "squares. A level that is off shifts all advantages alike and is gone when they are standardized; `off` tells it.",
)
def mean_square(values: Floats, targets: Floats) -> Pair:
    return float(1 - np.square(targets - values).mean() / targets.var()), off(values, targets)


@explained.mistake(
    "concept",
    "You divide by the variance of V; tempting, because V is what is judged. The question is which part of the "
    "*returns'* variance is left over.",
)
def of_values(values: Floats, targets: Floats) -> Pair:
    return float(1 - (targets - values).var() / values.var()), off(values, targets)


@explained.mistake(
    "concept",
    "You compare the spread of V with that of the returns; tempting, because a good V spreads as they do. So does one "
    "that says the right things about the wrong states: look at the error.",
)
def spreads(values: Floats, targets: Floats) -> Pair:
    return float(values.var() / targets.var()), off(values, targets)


@explained.mistake(
    "sign",
    "You return the share that is *not* explained; tempting, because that is the fraction one computes. Take it from "
    "1: more is better.",
)
def unexplained(values: Floats, targets: Floats) -> Pair:
    return 1 - share(values, targets), off(values, targets)


@explained.mistake(
    "conditioning",
    "You take variances within each copy of the robot, and average; tempting, because the columns are there. How the "
    "copies differ is something that V has to know as well.",
)
def within_copies(values: Floats, targets: Floats) -> Pair:
    left = (targets - values).var(0).mean() / targets.var(0).mean()
    return float(1 - left), off(values, targets)


@explained.mistake(
    "sign",
    "Your `off` is positive where V is too low; tempting, because an error is often target less guess. Above 0 should "
    "mean that V promises too much.",
)
def too_low(values: Floats, targets: Floats) -> Pair:
    return share(values, targets), -off(values, targets)


@explained.mistake(
    "concept",
    "Your `off` is a share of the mean return; tempting, because percent are familiar. What matters is how it compares "
    "with the differences between states: standard deviations of the returns.",
)
def off_in_means(values: Floats, targets: Floats) -> Pair:
    return share(values, targets), float((values - targets).mean() / abs(targets.mean()))


@explained.mistake(
    "constant",
    "In `off` you divide by a standard deviation with n - 1 in it; tempting after exercise 3. There five seeds stood "
    "for all that there could be; here these numbers are all that is asked about, and np.std alone is their spread.",
)
def one_less(values: Floats, targets: Floats) -> Pair:
    return share(values, targets), float((values - targets).mean() / targets.std(ddof=1))


@explained.mistake(
    "numerics",
    "You cut the share off at 0; tempting, because a share is not negative. This one is, where V does harm, and that "
    "is what you would want to know.",
)
def cut_at_zero(values: Floats, targets: Floats) -> Pair:
    return max(0.0, share(values, targets)), off(values, targets)
