"""Exercise search of lesson 05, The trust-region step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_05.shared import close

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
