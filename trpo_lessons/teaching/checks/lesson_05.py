"""Checks of lesson 05, The trust-region step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.bug_hunt import BUGS, HUNT
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.hunting import HuntCheck


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape))


def close(one: Any, other: Any) -> bool:
    """Equal up to rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=1e-9, atol=1e-9))


# ---- full_step -------------------------------------------------------------------------------------------------------

Product = Callable[[Tensor], Tensor]
StepFunction = Callable[[Tensor, Product, float, float], Tensor]


def direction_and_bowl(rng: Generator) -> tuple[Tensor, Product, float, float]:
    """A direction x [n], v -> A v with a random positive definite A, a damping and a delta."""
    size = int(rng.integers(3, 7))
    root = normal(rng, size, size)
    A = root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)
    return normal(rng, size), lambda v: A @ v, float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.005, 0.05))


full_step = Check("full_step", minutes=6, inputs=direction_and_bowl)


def damped_curvature(v: Tensor, product: Product, damping: float) -> Tensor:
    """v^T (A + damping I) v."""
    return torch.dot(v, product(v) + damping * v)


@full_step.property("The step should point along x: a positive multiple of it.")
def along_x(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    step = student(x, product, damping, delta)
    return close(step / step.norm(), x / x.norm())


@full_step.property("Only the direction of x should count: 7 x has to give the same step as x.")
def whatever_the_length_of_x(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(student(7 * x, product, damping, delta), student(x, product, damping, delta))


@full_step.property("At the end of the step the damped bowl, half of d times (A + damping I) d, should stand at delta.")
def ends_on_the_boundary(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(0.5 * damped_curvature(student(x, product, damping, delta), product, damping), delta)


@full_step.property("Without damping the bowl, half of d times A d, should stand at delta.")
def ends_on_the_boundary_without_damping(student: StepFunction, rng: Generator) -> bool:
    x, product, _, delta = direction_and_bowl(rng)
    return close(0.5 * damped_curvature(student(x, product, 0.0, delta), product, 0.0), delta)


@full_step.property(
    "A millionth of x has to give the same step as x. Is a small number added in a denominator? Where x is short, it "
    "is not small, and the step comes out too short."
)
def however_short_x_is(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(student(1e-6 * x, product, damping, delta), student(x, product, damping, delta))


@full_step.property("With x in float32 the step should be in float32, as a policy that learns has it.")
def step_keeps_the_precision(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return student(x.float(), lambda v: product(v.double()).float(), damping, delta).dtype == torch.float32


@full_step.mistake(
    "concept",
    "Your fraction is upside down: x times (A + damping I) x belongs below; tempting, because both stand under a root. "
    "Where the bowl is steep the step has to be short.",
)
def turns_the_fraction_over(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(damped_curvature(x, product, damping) / (2 * delta)) * x


@full_step.mistake(
    "concept",
    "You add the damping to every entry of A x; tempting, because product(x) + damping runs without complaint. Damping "
    "stands on the diagonal of A: product(x) + damping * x.",
)
def adds_damping_to_every_entry(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, product(x) + damping)) * x


@full_step.mistake(
    "concept",
    "You damp one entry of x only; tempting, because damping is there for the flattest axis. It stands in every place "
    "of the diagonal: the bowl that the solve believed in has damping * x.x in it, for all entries.",
)
def damps_one_entry(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (torch.dot(x, product(x)) + damping * x[0] ** 2)) * x


@full_step.mistake(
    "concept",
    "You scale the bowl's gradient, (A + damping I) x, in the place of x; tempting, because it is what was just "
    "computed. It points along g again, and the solve was for nothing. The step is along x.",
)
def steps_along_the_gradient(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / damped_curvature(x, product, damping)) * (product(x) + damping * x)


@full_step.mistake(
    "constant",
    "Your step is the square root of 2 too short; tempting, because the constraint reads like a plain quadratic form. "
    "The bowl is one HALF of d times A d: the first term of the KL's expansion that does not vanish.",
)
def forgets_the_half(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(delta / damped_curvature(x, product, damping)) * x


@full_step.mistake(
    "concept",
    "You solve with damping and scale without it; tempting, because the true KL has no damping in it. Where A is "
    "nearly flat the denominator then nearly vanishes, and the step is enormous. Solve and scale use the same matrix.",
)
def scales_without_damping(x: Tensor, product: Product, _damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, product(x))) * x


@full_step.mistake(
    "concept",
    "You forgot the square root; tempting, because 2 delta over x.Ax already looks like a length. The bowl grows with "
    "the square of the step: four times the delta, twice the step.",
)
def forgets_the_root(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return 2 * delta / damped_curvature(x, product, damping) * x


@full_step.mistake(
    "concept",
    "You give the step a fixed length in parameters; tempting, because a radius is a length. That is the trust region "
    "of the plain gradient (equation 19). Here lengths are measured by A: x.Ax in the place of x.x.",
)
def measures_in_parameters(x: Tensor, _product: Product, _damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, x)) * x


@full_step.mistake(
    "concept",
    "You add damping itself to x.Ax; tempting, because both are numbers. Damping stands on the diagonal of A, as c I, "
    "and x pays it for every entry: c times x.x comes with it.",
)
def adds_damping_once(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (torch.dot(x, product(x)) + damping)) * x


@full_step.mistake(
    "concept",
    "You divide by the squared length of (A + damping I) x; tempting, because that vector is the gradient and lies at "
    "hand. The bowl pairs it with x itself: x times (A + damping I) x.",
)
def squares_the_product(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (product(x) + damping * x).square().sum()) * x


# ---- search ----------------------------------------------------------------------------------------------------------

Scalar = Callable[[Tensor], float]
SearchFunction = Callable[[Scalar, Scalar, Tensor, Tensor, float, float, int], Tensor]


def landscape(rng: Generator) -> tuple[Scalar, Scalar, Tensor, Tensor, float, float, int]:
    """A surrogate that rises along the step and then falls, a KL that grows, and the other arguments of a search."""
    theta, step = normal(rng, 3), normal(rng, 3)
    summit, kl_at_full = float(rng.uniform(0.1, 0.9)), float(rng.uniform(0.5, 3.0))
    before = float(rng.uniform(-0.5, 0.5))

    def surrogate(at: Tensor) -> float:
        t = along(at)
        return before + t * (2 * summit - t)

    def mean_kl(at: Tensor) -> float:
        return float(kl_at_full * along(at) ** 2)

    def along(at: Tensor) -> float:
        return float(torch.dot(at - theta, step) / torch.dot(step, step))

    return (
        surrogate,
        mean_kl,
        theta,
        step,
        float(rng.uniform(0.3, 1.0)),
        float(rng.uniform(0.6, 0.8)),
        int(rng.integers(4, 8)),
    )


def rising(theta: Tensor, step: Tensor) -> Scalar:
    """A surrogate that rises all along the step."""
    return lambda at: float(torch.dot(at - theta, step))


def found_in_seven_cases(
    function: SearchFunction,
    surrogate: Scalar,
    mean_kl: Scalar,
    theta: Tensor,
    step: Tensor,
    delta: float,
    shrink: float,
    tries: int,
) -> tuple[Tensor, ...]:
    """Where KL decides, where the surrogate does, all is refused; the full step; one too few; a flat surrogate."""
    cases = [(surrogate, radius) for radius in (0.1 * delta, delta, 100.0, 1e-9)]
    cases.append((lambda _at: 0.3, 100.0))
    cases += [(rising(theta, step), 1.01 * mean_kl(theta + shrink**j * step)) for j in (0, tries)]
    return tuple(function(L, mean_kl, theta.clone(), step.clone(), radius, shrink, tries) for L, radius in cases)


search = Check("search", minutes=12, inputs=landscape, behavior=found_in_seven_cases)


@search.property("Where the full step improves the surrogate and its KL is at most delta, it should be taken whole.")
def takes_the_full_step(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    return close(student(rising(theta, step), mean_kl, theta, step, 10.0, shrink, tries), theta + step)


@search.property("Where no candidate will do, theta should come back as it was.")
def stays_where_nothing_helps(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, delta, shrink, tries = landscape(rng)
    return close(student(rising(theta, -step), mean_kl, theta, step, delta, shrink, tries), theta)


@search.property(
    "Your function changes theta or the step in place when it shrinks; whoever called it will find other numbers. Work "
    "on a copy, or write new = theta + ..., which makes a new tensor."
)
def keeps_its_arguments(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    given = theta.clone(), step.clone()
    student(rising(theta.clone(), step.clone()), mean_kl, theta, step, 0.9 * mean_kl(theta + step), shrink, tries)
    return torch.equal(theta, given[0]) and torch.equal(step, given[1])


@search.property(
    "A step whose KL is above delta has to be refused, also where it is above it by a little: at most delta is asked "
    "for, and nothing else in the update enforces it."
)
def respects_delta(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    full = mean_kl(theta + step)
    found = [student(rising(theta, step), mean_kl, theta, step, full / f, shrink, tries) for f in (2, 1.4, 1.1, 1.01)]
    return not any(close(new, theta + step) for new in found)


@search.property("Adding a number to the surrogate everywhere should change nothing: what counts is whether it rises.")
def only_the_gain_counts(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    uphill = rising(theta, step)
    shifted: list[Scalar] = [lambda at: uphill(at) - 100, lambda at: uphill(at) + 100]
    return all(close(student(L, mean_kl, theta, step, 10.0, shrink, tries), theta + step) for L in shifted)


@search.property("After a refusal the next candidate should be `shrink` times as far from theta as the one refused.")
def shrinks_by_the_factor(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    candidates = [theta + shrink**j * step for j in (1, 2)]
    uphill = rising(theta, step)
    return all(close(student(uphill, mean_kl, theta, step, 1.0001 * mean_kl(c), shrink, tries), c) for c in candidates)


@search.property("Where the KL allows the full step but the surrogate does not improve, shorter ones should be tried.")
def goes_on_where_the_surrogate_refuses(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    # A parabola that is back at its old value just beyond the second fraction after 1.
    turn = 1.01 * shrink**2
    uphill = rising(theta, step / torch.dot(step, step))
    hill: Scalar = lambda at: uphill(at) * (turn - uphill(at))  # noqa: E731
    return close(student(hill, mean_kl, theta, step, 10.0, shrink, tries), theta + shrink**2 * step)


@search.property("There should be at most `tries` candidates, the full step included.")
def counts_its_tries(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    # Exactly the last candidate's KL is allowed, or not quite.
    last = mean_kl(theta + shrink ** (tries - 1) * step)
    uphill = rising(theta, step)
    allowed = student(uphill, mean_kl, theta, step, last * 1.0001, shrink, tries)
    refused = student(uphill, mean_kl, theta, step, last * 0.9999, shrink, tries)
    return close(allowed, theta + shrink ** (tries - 1) * step) and close(refused, theta)


@search.property("With a single try there is one candidate, the full step.")
def tries_once(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, _ = landscape(rng)
    full, uphill = mean_kl(theta + step), rising(theta, step)
    taken, refused = (student(uphill, mean_kl, theta, step, f * full, shrink, 1) for f in (1.01, 0.99))
    return close(taken, theta + step) and close(refused, theta)


@search.property(
    "An improvement is one however small it is. Do you ask for more than a fixed number? Advantages come in every "
    "unit, and the surrogate with them: compare with the old value alone."
)
def takes_a_small_gain(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    uphill = rising(theta, step)
    return close(student(lambda at: 1e-12 * uphill(at), mean_kl, theta, step, 10.0, shrink, tries), theta + step)


@search.property("Where the surrogate is the same everywhere, nothing improves: theta should come back as it was.")
def refuses_a_step_that_gains_nothing(student: SearchFunction, rng: Generator) -> bool:
    _, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    return close(student(lambda _at: 0.3, mean_kl, theta, step, 10.0, shrink, tries), theta)


@search.property("A KL of exactly delta is at most delta: such a step may be taken.")
def accepts_the_edge_itself(student: SearchFunction, rng: Generator) -> bool:
    _, _, theta, step, delta, shrink, tries = landscape(rng)
    return close(student(rising(theta, step), lambda _at: delta, theta, step, delta, shrink, tries), theta + step)


@search.property("A surrogate that is NaN is no improvement: theta should come back as it was. Mind how you compare.")
def refuses_nan(student: SearchFunction, rng: Generator) -> bool:
    surrogate, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    broken: Scalar = lambda at: surrogate(at) if torch.equal(at, theta) else float("nan")  # noqa: E731
    return close(student(broken, mean_kl, theta, step, 10.0, shrink, tries), theta)


@search.property(
    "A KL that is NaN is not at most delta: theta should come back as it was. `not kl > delta` is true for NaN, "
    "`kl <= delta` is not."
)
def refuses_a_kl_that_is_nan(student: SearchFunction, rng: Generator) -> bool:
    _, _, theta, step, delta, shrink, tries = landscape(rng)
    return close(student(rising(theta, step), lambda _at: float("nan"), theta, step, delta, shrink, tries), theta)


@search.property(
    "Where the surrogate is NaN at the old theta, nothing can be said to improve on it: theta should come back as it "
    "was."
)
def refuses_to_leave_nan(student: SearchFunction, rng: Generator) -> bool:
    surrogate, mean_kl, theta, step, _, shrink, tries = landscape(rng)
    broken: Scalar = lambda at: float("nan") if torch.equal(at, theta) else surrogate(at)  # noqa: E731
    return close(student(broken, mean_kl, theta, step, 10.0, shrink, tries), theta)


@search.mistake(
    "concept",
    "You look at the surrogate only; tempting, because the step was scaled to delta already. It was scaled by the "
    "bowl, and the true KL may be larger: nothing else in the whole update checks the constraint.",
)
def never_looks_at_kl(
    surrogate: Scalar, _mean_kl: Scalar, theta: Tensor, step: Tensor, _delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        if surrogate(theta + shrink**j * step) > surrogate(theta):
            return theta + shrink**j * step
    return theta


@search.mistake(
    "concept",
    "You look at the KL only; tempting, because the direction was chosen to go uphill. Uphill at the start: further "
    "on the surrogate may have fallen below where it began, inside the trust region.",
)
def never_looks_at_the_surrogate(
    _surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        if mean_kl(theta + shrink**j * step) <= delta:
            return theta + shrink**j * step
    return theta


@search.mistake(
    "concept",
    "You accept when one of the two conditions holds; tempting, because each is a good sign. A step that is short "
    "and harmful must be refused, and so must one that is good and too long: both have to hold.",
)
def accepts_either(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) or mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "termination",
    "When every candidate was refused you return the last one; tempting, because it is the shortest and hardly "
    "differs from theta. It was refused all the same: return theta itself.",
)
def returns_the_last_candidate(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            break
    return new


@search.mistake(
    "order",
    "You go on from the candidate that was refused instead of going back; tempting, because a loop likes to update "
    "its variable. Steps then add up: every candidate has to start from the old theta.",
)
def walks_on(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    new = theta
    for j in range(tries):
        new = new + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "concept",
    "You compare each candidate with the one before it; tempting, because that is how one climbs. The question is "
    "whether the step is better than NO step: compare with the surrogate at the old theta.",
)
def compares_with_the_one_before(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    before = surrogate(theta)
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > before and mean_kl(new) <= delta:
            return new
        before = surrogate(new)
    return theta


@search.mistake(
    "concept",
    "You ask for a surrogate above zero; tempting, because with standardized advantages the old value is zero, or "
    "nearly. With others it is not: compare with the surrogate at the old theta.",
)
def compares_with_zero(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > 0 and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "concept",
    "You accept a step that gains nothing; tempting, because nothing is lost by it either. But where the batch sees "
    "no difference there is no reason to move: only a surrogate above the old one is an improvement.",
)
def takes_a_draw_for_a_win(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) >= surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "order",
    "You shrink until the KL is small enough, and ask the surrogate only then, once; tempting, because the KL is the "
    "constraint. Where the surrogate refuses, a shorter step may still improve it: go on until both conditions hold.",
)
def asks_the_surrogate_once(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if mean_kl(new) <= delta:
            return new if surrogate(new) > surrogate(theta) else theta
    return theta


@search.mistake(
    "concept",
    "You allow half as much KL again, 1.5 delta; tempting, because some programs do, so that fewer steps are refused. "
    "Then delta is not the radius that was asked for: a candidate's mean KL has to be at most delta.",
)
def allows_half_as_much_again(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= 1.5 * delta:
            return new
    return theta


@search.mistake(
    "concept",
    "You allow twice delta; tempting, because the scale has 2 delta in it. There the 2 makes up for the half in the "
    "bowl; the true KL has no half in front, and has to be at most delta.",
)
def allows_twice_delta(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= 2 * delta:
            return new
    return theta


@search.mistake(
    "sign",
    "You step the other way, theta - step; tempting, because optimizers subtract. They go down a loss; the surrogate "
    "is to rise, and x points uphill.",
)
def steps_downhill(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta - shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "sign",
    "You accept where the surrogate falls; tempting, because most searches go down a loss. Here it is to rise: above "
    "its value at the old theta.",
)
def accepts_a_fall(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) < surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "order",
    "Your factors pile up: the step is already shrunk, and you shrink it by shrink^j on top; tempting, because either "
    "way of shrinking is right on its own. Shrink a variable by one factor each time, or take powers of the full step.",
)
def shrinks_twice_over(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        step = shrink**j * step
        new = theta + step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "indexing",
    "You try one candidate too many: the full step, and then `tries` shorter ones; tempting, because the module counts "
    "backtracks. Here `tries` counts candidates, the full step included.",
)
def tries_once_too_often(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries + 1):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "concept",
    "You return the accepted step itself; tempting, because the search is about the step. What is asked for is where "
    "it leads: the new theta.",
)
def returns_the_step(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return shrink**j * step
    return theta


@search.mistake(
    "indexing",
    "You never try the full step; tempting, because a backtracking search shrinks. It shrinks after a refusal: the "
    "first fraction is 1.",
)
def skips_the_full_step(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    for j in range(1, tries + 1):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


@search.mistake(
    "concept",
    "You try every fraction and keep the best; tempting, because more surrogate is better. It costs a pass over the "
    "batch for each of them, and squeezes the last drop out of an estimate. Stop at the first that will do.",
)
def keeps_the_best(
    surrogate: Scalar, mean_kl: Scalar, theta: Tensor, step: Tensor, delta: float, shrink: float, tries: int
) -> Tensor:
    inside = [new for new in (theta + shrink**j * step for j in range(tries)) if mean_kl(new) <= delta]
    return max([theta, *inside], key=surrogate)


# ---- sampled_kl ------------------------------------------------------------------------------------------------------

Estimator = Callable[[Tensor, Tensor], Tensor]


def log_probabilities(rng: Generator) -> tuple[Tensor, Tensor]:
    """Log probabilities [N] of the actions in a batch, under the new policy and under the old one."""
    log_prob, log_q = torch.from_numpy(np.log(rng.uniform(0.05, 0.95, size=(2, int(rng.integers(4, 10))))))
    return log_prob, log_q


sampled_kl = Check("sampled_kl", minutes=8, inputs=log_probabilities)


@sampled_kl.property("Where both policies give every sample the same probability, the estimate should be 0.")
def zero_for_the_same_policy(student: Estimator, rng: Generator) -> bool:
    log_prob, _ = log_probabilities(rng)
    return close(student(log_prob, log_prob.clone()), 0)


@sampled_kl.property("Ten copies of a batch say what one says: the estimate is a mean.")
def the_same_for_copies(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q = log_probabilities(rng)
    return close(student(log_prob.repeat(10), log_q.repeat(10)), student(log_prob, log_q))


@sampled_kl.property("A KL divergence is never negative, and the estimate should not be either, whatever was drawn.")
def never_negative(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q = log_probabilities(rng)
    return all(float(student(log_prob[i : i + 1], log_q[i : i + 1])) > -1e-12 for i in range(len(log_q)))


@sampled_kl.property(
    "Old policy (1/2, 1/2), new policy (1/4, 3/4): in a batch that holds each action once, both turn up as often as "
    "they should, and the estimate should be KL(old || new) exactly, log(2) - log(3) / 2."
)
def exact_on_a_perfect_batch(student: Estimator, _rng: Generator) -> bool:
    old, new = as_float64([0.5, 0.5]), as_float64([0.25, 0.75])
    return close(student(new.log(), old.log()), np.log(2) - np.log(3) / 2)


@sampled_kl.property(
    "Where both log probabilities are near -1000 your estimate breaks down: exp makes 0 of either, and 0/0 is no "
    "ratio. Subtract the logarithms first, and then take exp."
)
def survives_small_probabilities(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q = log_probabilities(rng)
    return close(student(log_prob - 1000, log_q - 1000), student(log_prob, log_q))


@sampled_kl.mistake(
    "constant",
    "You add up where a mean is asked for; tempting, because a KL is a sum over actions. The sum over actions is done "
    "by drawing them: what is left is the mean over the samples.",
)
def adds_up(log_prob: Tensor, log_q: Tensor) -> Tensor:
    w = torch.exp(log_prob - log_q)
    return (w - 1 - torch.log(w)).sum()


@sampled_kl.mistake(
    "concept",
    "You leave out the - 1; tempting, because a constant looks harmless. The mean of w is 1, not 0: without the - 1 "
    "the estimate is 1 too high, also where both policies are the same.",
)
def leaves_out_the_one(log_prob: Tensor, log_q: Tensor) -> Tensor:
    log_w = log_prob - log_q
    return (log_w.exp() - log_w).mean()


@sampled_kl.mistake(
    "sign",
    "You make the plain mean of log q - log pi positive with an absolute value; tempting, because a KL is never "
    "negative. The noise is still there, and where it was negative it now counts as KL. Add w - 1 to every term "
    "instead.",
)
def takes_the_absolute_value(log_prob: Tensor, log_q: Tensor) -> Tensor:
    return (log_q - log_prob).mean().abs()


@sampled_kl.mistake(
    "order",
    "You take the logarithm of the mean ratio, where the mean of the logarithms belongs; tempting, because mean and "
    "log look as if they could change places. They cannot: what lies between the two is the KL.",
)
def takes_the_logarithm_of_the_mean(log_prob: Tensor, log_q: Tensor) -> Tensor:
    w = torch.exp(log_prob - log_q)
    return w.mean() - 1 - w.mean().log()


@sampled_kl.mistake(
    "concept",
    "You average log q - log pi; tempting, because that is KL(old || new) word for word, and its mean is right. But "
    "its terms have both signs: for a small step the noise is many times as large as the KL, and the estimate can be "
    "negative. Add something whose mean is zero: w - 1.",
)
def averages_the_log_ratio(log_prob: Tensor, log_q: Tensor) -> Tensor:
    return (log_q - log_prob).mean()


@sampled_kl.mistake(
    "concept",
    "You cut the plain mean of log q - log pi off at zero; tempting, because a KL is never negative. But the noise "
    "stays, and what fell below zero is hidden: the estimate is too large on average. Add w - 1 to every term instead.",
)
def cuts_off_at_zero(log_prob: Tensor, log_q: Tensor) -> Tensor:
    return (log_q - log_prob).mean().clamp(min=0)


@sampled_kl.mistake(
    "order",
    "You estimate KL(new || old): w log w, made safe by 1 - w; tempting, because samples usually get their weight. "
    "The expectation in KL(old || new) is under the old policy, which the samples came from: the logarithm needs no "
    "weight.",
)
def estimates_the_other_kl(log_prob: Tensor, log_q: Tensor) -> Tensor:
    w = torch.exp(log_prob - log_q)
    return (w * torch.log(w) + 1 - w).mean()


@sampled_kl.mistake(
    "order",
    "Your ratio is upside down, old over new; tempting, because KL(old || new) has the old policy on top. Under the "
    "old policy only the ratio new over old has the mean 1 that makes w - 1 harmless.",
)
def turns_the_ratio_over(log_prob: Tensor, log_q: Tensor) -> Tensor:
    w = torch.exp(log_q - log_prob)
    return (w - 1 - torch.log(w)).mean()


@sampled_kl.mistake(
    "concept",
    "You average half the squared log ratio; tempting, because it is never negative and right for tiny steps. It is "
    "the quadratic picture once more, and an audit should not rest on the model it is to check.",
)
def takes_half_the_square(log_prob: Tensor, log_q: Tensor) -> Tensor:
    return 0.5 * (log_prob - log_q).square().mean()


@sampled_kl.mistake(
    "sign",
    "The logarithm has the wrong sign; tempting, because w - 1 is positive where the new policy likes an action more, "
    "and so is log w. They have to pull against each other: log w is at most w - 1, and what is left is the KL.",
)
def adds_the_logarithm(log_prob: Tensor, log_q: Tensor) -> Tensor:
    log_w = log_prob - log_q
    return (torch.exp(log_w) - 1 + log_w).mean()


# ---- culprits --------------------------------------------------------------------------------------------------------


def no_arguments(_rng: Generator) -> tuple[()]:
    """The reports are on the page."""
    return ()


culprits = HuntCheck("culprits", hunt=HUNT, minutes=15, inputs=no_arguments)
KL_REVERSED, NO_ROOT, NO_DAMPING, NO_KL, ATTACHED = BUGS

culprits.hint(
    ATTACHED,
    "Without a detached old policy the KL is zero for every theta, and so is its matrix: what is left to solve is "
    "damping times x = g. How many iterations does that take?",
)
culprits.hint(NO_KL, "Look for an update that has seen a KL above delta, and was content.")
culprits.hint(
    KL_REVERSED,
    "That update believes it is inside the trust region. Where does the audit disagree, in the bold job, by more than "
    "it does for the healthy update?",
)
culprits.hint(
    NO_ROOT,
    "A step that is too short by the square root of 2 has half the KL in the careful job, where the bowl is exact, and "
    "never has to be shortened.",
)

culprits.confusion(
    KL_REVERSED,
    NO_KL,
    "order",
    "tempting, because both end outside the trust region. A search that does not look at the KL reports one above "
    "delta without a qualm. The one that measures it the wrong way round reports one below, and only the audit is "
    "above.",
)
culprits.confusion(
    NO_DAMPING,
    ATTACHED,
    "detachment",
    "tempting, because both solve with a wrong matrix and are shortened a lot. Without damping the system is harder, "
    "so the residual is larger. Without a matrix there is nothing but damping: one iteration, and done.",
)
culprits.confusion(
    NO_ROOT,
    NO_DAMPING,
    "constant",
    "tempting, because both change the length of the careful step by about the square root of 2. In opposite "
    "directions, though: the missing root makes it shorter, the missing damping longer; and only the missing damping "
    "changes the residual.",
)
culprits.confusion(
    NO_ROOT,
    NO_KL,
    "concept",
    "tempting, because neither shortens the bold step. The one has no need to, its KL is well below delta; the other "
    "has, and does not know.",
)
culprits.confusion(
    NO_ROOT,
    KL_REVERSED,
    "concept",
    "tempting, because either KL looks too small. In the careful job, where both directions of the KL agree, only the "
    "missing root halves it.",
)
