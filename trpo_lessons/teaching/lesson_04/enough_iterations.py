"""Exercise enough_iterations of lesson 04, Conjugate gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check

Count = Callable[[float, float, float, float], int]


def spectrum_and_tolerance(rng: Generator) -> tuple[float, float, float, float]:
    """Smallest and largest eigenvalue, damping, and the error that is allowed."""
    smallest, largest = float(rng.uniform(0.001, 0.004)), float(rng.uniform(1, 3))
    return smallest, largest, smallest * float(rng.uniform(0.5, 2)), float(rng.uniform(0.001, 0.05))


def in_four_cases(
    function: Count, smallest: float, largest: float, damping: float, tolerance: float
) -> tuple[int, int, int, int]:
    """As drawn; with eigenvalues close together and a strict tolerance; with large damping; with both."""
    return (
        function(smallest, largest, damping, tolerance),
        function(largest / 3, largest, damping, tolerance**3),
        function(smallest, largest, largest / 2, tolerance**3),
        function(largest / 3, largest, largest / 2, tolerance**9),
    )


enough_iterations = Check("enough_iterations", minutes=8, inputs=spectrum_and_tolerance, behavior=in_four_cases)


def error_bound(k: float, condition: float) -> float:
    """2 ((sqrt(condition) - 1) / (sqrt(condition) + 1))^k."""
    root = math.sqrt(condition)
    return float(2 * ((root - 1) / (root + 1)) ** k)


def is_the_smallest(k: float, smallest: float, largest: float, damping: float, tolerance: float) -> tuple[bool, bool]:
    """Whether k iterations are enough, by the bound, and whether one less would not be."""
    k = float(k)  # a tensor's powers would be in float32
    condition = (largest + damping) / (smallest + damping)
    enough = error_bound(k, condition) <= tolerance * (1 + 1e-9)
    return enough, k == 0 or error_bound(k - 1, condition) > tolerance * (1 - 1e-9)


@enough_iterations.property("Your function answers yes or no (True or False). Asked is how many iterations it takes.")
def is_a_count(student: Count, rng: Generator) -> bool:
    return not isinstance(student(*spectrum_and_tolerance(rng)), bool | np.bool_)


@enough_iterations.property("A number of iterations is a whole number.")
def is_whole(student: Count, rng: Generator) -> bool:
    return float(student(*spectrum_and_tolerance(rng))).is_integer()


@enough_iterations.property("After as many iterations as you say, the bound should be at or below the tolerance.")
def is_enough(student: Count, rng: Generator) -> bool:
    given = spectrum_and_tolerance(rng)
    return is_the_smallest(student(*given), *given)[0]


@enough_iterations.property("One iteration less should not be enough: you were asked for the smallest number.")
def is_no_more_than_enough(student: Count, rng: Generator) -> bool:
    given = spectrum_and_tolerance(rng)
    return is_the_smallest(student(*given), *given)[1]


@enough_iterations.property("Without damping it should be right as well.")
def counts_without_damping(student: Count, rng: Generator) -> bool:
    smallest, largest, _, tolerance = spectrum_and_tolerance(rng)
    given = smallest, largest, 0.0, tolerance
    return all(is_the_smallest(student(*given), *given))


@enough_iterations.property(
    "Where it takes thousands of iterations, your number is too small. Does a loop of yours end at a fixed count?"
)
def counts_to_thousands(student: Count, rng: Generator) -> bool:
    given = 1e-7, float(rng.uniform(1, 3)), 1e-7, 1e-6
    return all(is_the_smallest(student(*given), *given))


@enough_iterations.property(
    "Where the tolerance is 2 or more, 0 iterations should be enough: that is where the bound starts, and no number of "
    "iterations is negative."
)
def counts_from_zero(student: Count, rng: Generator) -> bool:
    smallest, largest, damping, _ = spectrum_and_tolerance(rng)
    return all(student(smallest, largest, damping, tolerance) == 0 for tolerance in (2.0, 50.0))


def iterations_for(bound_factor: float, root: float, tolerance: float) -> float:
    """The k, not rounded, for which bound_factor ((root - 1) / (root + 1))^k is the tolerance."""
    return math.log(tolerance / bound_factor) / math.log((root - 1) / (root + 1))


@enough_iterations.mistake(
    "concept",
    "You put the condition number where its square root belongs; tempting, because that is the count for steepest "
    "descent. The root is what conjugate gradient wins: with a condition number of 10,000, hundreds of iterations "
    "instead of tens of thousands.",
)
def forgets_the_root(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, (largest + damping) / (smallest + damping), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You leave the damping out; tempting, because the eigenvalues given are those of A. What is solved is "
    "(A + damping I) x = b, and its smallest eigenvalue is much larger.",
)
def leaves_out_the_damping(smallest: float, largest: float, _damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / smallest), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You take the damping itself as the smallest eigenvalue, and leave the largest as it is; tempting, because next to "
    "the damping the smallest hardly counts. Damping moves every eigenvalue up by the same amount: add it to both.",
)
def replaces_the_smallest(_smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / damping), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the smallest eigenvalue only; tempting, because next to the largest it hardly counts. It "
    "does where damping is large: A + damping I moves every eigenvalue up by the same amount.",
)
def damps_the_smallest_only(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the largest eigenvalue only; tempting, because the condition number has it on top. Damping "
    "helps at the bottom: A + damping I moves every eigenvalue up by the same amount.",
)
def damps_the_largest_only(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt((largest + damping) / smallest), tolerance))


@enough_iterations.mistake(
    "concept",
    "You count with half the root of the condition number times log(2 / tolerance); tempting, because the lesson says "
    "that the count is about that. About, for large condition numbers: turn the bound itself around.",
)
def takes_the_approximation(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    root = math.sqrt((largest + damping) / (smallest + damping))
    return math.ceil(0.5 * root * math.log(2 / tolerance))


@enough_iterations.mistake(
    "conditioning",
    "You add the damping to the condition number; tempting, because the condition number is what the formula holds. "
    "Damping is added to A, that is, to each eigenvalue: it makes the condition number smaller.",
)
def damps_the_condition_number(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt(largest / smallest + damping), tolerance))


@enough_iterations.mistake(
    "order",
    "You take the logarithm of a negative number: your condition number is upside down, or the two terms of the rate's "
    "numerator are; tempting, because one divides by the other either way. The largest eigenvalue goes on top: the "
    "condition number is at least 1, and the rate lies between 0 and 1.",
)
def turns_the_condition_number_over(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(2, math.sqrt((smallest + damping) / (largest + damping)), tolerance))


@enough_iterations.mistake(
    "order",
    "You take the square roots first and add the damping to them; tempting, because the roots are what the formula "
    "holds. Damping is added to A, that is, to each eigenvalue; the root comes last.",
)
def damps_the_roots(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    root = (math.sqrt(largest) + damping) / (math.sqrt(smallest) + damping)
    return math.ceil(iterations_for(2, root, tolerance))


@enough_iterations.mistake(
    "indexing",
    "You round to the nearest whole number; tempting, because that is what round() does. Half of the time the bound is "
    "then still a little above the tolerance: a number of iterations that is enough is rounded up.",
)
def rounds_to_the_nearest(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return round(iterations_for(2, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "indexing",
    "You are one short: you round down, as int() does, or your loop ends at the last number that is not enough; "
    "tempting, because either looks like the place where the bound meets the tolerance. There it is still a little "
    "above: a number of iterations that is enough is rounded up.",
)
def rounds_down(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.floor(iterations_for(2, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "order",
    "You multiply the tolerance by the factor 2; tempting, because it stood in front. Brought to the other side it "
    "divides: 2 rate^k is at most the tolerance where rate^k is at most half of it.",
)
def brings_the_two_across(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(0.5, math.sqrt((largest + damping) / (smallest + damping)), tolerance))


@enough_iterations.mistake(
    "constant",
    "You leave out the factor 2 in front; tempting, because constants rarely matter. Here it costs a number of "
    "iterations that grows with the root of the condition number.",
)
def leaves_out_the_two(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    return math.ceil(iterations_for(1, math.sqrt((largest + damping) / (smallest + damping)), tolerance))
