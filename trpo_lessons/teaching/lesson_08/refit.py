"""Exercise refit of lesson 08, Nine methods."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_08.shared import Floats, agree, nearly_right

Gaussian = tuple[Floats, Floats]
Refit = Callable[[Floats, Floats, int, float], Gaussian]


def generation(rng: Generator) -> tuple[Floats, Floats, int, float]:
    """Thetas [P, n], their returns [P], how many are the elite, and the extra variance."""
    num, n = int(rng.integers(8, 14)), int(rng.integers(2, 5))
    thetas = rng.normal(size=n) + rng.uniform(0.5, 2.0, size=n) * rng.normal(size=(num, n))
    return thetas, rng.uniform(1, 5, size=num), int(rng.integers(3, 6)), float(rng.uniform(0.05, 0.6))


def best(returns: Floats, count: int) -> npt.NDArray[np.intp]:
    """Which are the elite."""
    return np.argsort(returns)[-count:]


refit = Check("refit", minutes=8, inputs=generation)


@refit.property("Your numbers are right to a few digits only. Is something rounded, or computed in float32?")
def has_all_digits(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    return not nearly_right(student(thetas, returns, count, extra), of(thetas[best(returns, count)], extra))


@refit.property("The new mean should be the mean of the `count` thetas that earned most.")
def mean_of_the_elite(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    return agree(student(thetas, returns, count, extra)[0], thetas[best(returns, count)].mean(0))


@refit.property("The order in which the population is listed should not matter.")
def order_does_not_matter(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    shuffled = rng.permutation(len(returns))
    return agree(student(thetas[shuffled], returns[shuffled], count, extra), student(thetas, returns, count, extra))


@refit.property("Only the order of the returns should count: with their cubes the elite is the same.")
def only_ranks_count(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    return agree(student(thetas, returns**3, count, extra), student(thetas, returns, count, extra))


@refit.property("Every variance should grow by exactly the extra noise.")
def extra_is_added(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    without, with_it = (student(thetas, returns, count, e)[1] for e in (0.0, extra))
    return agree(with_it - without, extra)


@refit.property(
    "Without extra noise, each parameter's variance should be the mean of (theta - mean) ** 2 over the elite: squared "
    "distances from the elite's own mean, one parameter at a time."
)
def variance_of_the_elite(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, _ = generation(rng)
    return agree(student(thetas, returns, count, 0.0)[1], thetas[best(returns, count)].var(0))


@refit.property("An elite of one has no spread: its variance should be the extra noise alone.", edge=True)
def an_elite_of_one(student: Refit, rng: Generator) -> bool:
    thetas, returns, _, extra = generation(rng)
    mean, variance = student(thetas, returns, 1, extra)
    return agree(mean, thetas[returns.argmax()]) and agree(variance, extra)


@refit.property(
    "Equal returns at the border of the elite go wrong; on a task with a highest score half a population may have it. "
    "`count` thetas belong to the elite, whichever of equals they are: a threshold lets in all of them, or none.",
    edge=True,
)
def equal_returns(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    order = np.argsort(returns)[::-1]
    alike = order[count - 1 : count + 2]  # one of them is in, two are not
    thetas[alike], returns[alike] = thetas[alike[0]], returns[alike[0]]
    return agree(student(thetas, returns, count, extra), of(thetas[order[:count]], extra))


@refit.property(
    "Two thetas that earned the same are two thetas, and both count. Look thetas up by place, not by their return.",
    edge=True,
)
def equals_within_the_elite(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    order = np.argsort(returns)[::-1]
    returns[order[1]] = returns[order[0]]
    return agree(student(thetas, returns, count, extra), of(thetas[order[:count]], extra))


@refit.property(
    "Returns below zero go wrong. Is there an absolute value, or a number that stands for the worst?", edge=True
)
def negative_returns(student: Refit, rng: Generator) -> bool:
    thetas, returns, count, extra = generation(rng)
    return agree(student(thetas, returns - 1e6, count, extra), student(thetas, returns, count, extra), 1e-6)


def of(elite: Floats, extra: float) -> Gaussian:
    """Mean, and variance with the extra noise."""
    return elite.mean(0), elite.var(0) + extra


@refit.mistake(
    "sign",
    "Your elite is the worst of the population; tempting, because argsort begins with the smallest, and costs are to "
    "be small. These are returns.",
)
def keeps_the_worst(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    return of(thetas[np.argsort(returns)[:count]], extra)


@refit.mistake(
    "concept",
    "You add the extra noise to the standard deviation; tempting, because a spread is what one sees. Szita and "
    "Lorincz add it to the variance; on a small standard deviation yours weighs far more.",
)
def adds_to_the_deviation(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    elite = thetas[best(returns, count)]
    return elite.mean(0), (elite.std(0) + extra) ** 2


@refit.mistake(
    "concept",
    "You measure the elite's spread around the mean of the whole population; tempting, because CMA-ES does. Fitted to "
    "the elite alone, a Gaussian has the variance around the elite's own mean.",
)
def spreads_around_the_population(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    elite = thetas[best(returns, count)]
    return elite.mean(0), np.square(elite - thetas.mean(0)).mean(0) + extra


@refit.mistake(
    "concept",
    "Your variance is that of the whole population; tempting, because the elite is small. Then nothing ever narrows: "
    "what the elite agrees about would not be learned.",
)
def keeps_the_variance(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    return thetas[best(returns, count)].mean(0), thetas.var(0) + extra


@refit.mistake(
    "concept",
    "You make one variance for all parameters; tempting, because the first Gaussian has one. Some parameters matter "
    "more than others, and each should narrow as the elite agrees about it.",
)
def shares_one_variance(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    elite = thetas[best(returns, count)]
    return elite.mean(0), np.full(thetas.shape[1], elite.var(0).mean() + extra)


@refit.mistake(
    "concept",
    "The extra noise is your floor and not an addition; tempting, because both keep the spread from collapsing. Asked "
    "for is the sum: the spread of the elite and the noise are independent.",
)
def takes_the_larger(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    elite = thetas[best(returns, count)]
    return elite.mean(0), np.maximum(elite.var(0), extra)


@refit.mistake(
    "concept",
    "You weigh the thetas by their returns; tempting, because more should count more. That is reward-weighted "
    "regression, which needs positive returns and notices their units. CEM counts who is in the elite, and no more.",
)
def weighs_by_return(thetas: Floats, returns: Floats, _count: int, extra: float) -> Gaussian:
    weights = returns / returns.sum()
    mean = weights @ thetas
    return mean, weights @ np.square(thetas - mean) + extra


@refit.mistake(
    "termination",
    "You leave the extra noise out; tempting, because a fit of maximum likelihood has none. Without it the spread "
    "falls with every generation, also in directions that returns have told nothing about.",
)
def forgets_the_noise(thetas: Floats, returns: Floats, count: int, _extra: float) -> Gaussian:
    return of(thetas[best(returns, count)], 0.0)


@refit.mistake(
    "order",
    "You take the first of the population, not the best; tempting, if one sorts the returns and forgets the thetas. "
    "Sort indices, with argsort, and take thetas by them.",
)
def takes_the_first(thetas: Floats, _returns: Floats, count: int, extra: float) -> Gaussian:
    return of(thetas[:count], extra)


@refit.mistake(
    "indexing",
    "You sort each parameter by itself and keep its largest values; tempting, because np.sort does that to a matrix. "
    "A theta is a whole: the returns say which rows are good.",
)
def sorts_parameters(thetas: Floats, _returns: Floats, count: int, extra: float) -> Gaussian:
    return of(np.sort(thetas, axis=0)[-count:], extra)


@refit.mistake(
    "numerics",
    "You return standard deviations; tempting, because a Gaussian is drawn with them. Asked for are the mean and the "
    "*variance*, to which the noise is added.",
)
def returns_deviations(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    mean, variance = of(thetas[best(returns, count)], extra)
    return mean, np.sqrt(variance)


@refit.mistake(
    "constant",
    "You divide by one less than the elite's size; tempting, because a sample variance does. The fit of maximum "
    "likelihood divides by the size; an elite of one would have no variance at all.",
)
def divides_by_one_less(thetas: Floats, returns: Floats, count: int, extra: float) -> Gaussian:
    elite = thetas[best(returns, count)]
    return elite.mean(0), elite.var(0, ddof=1) + extra
