"""Exercise reps_weights of lesson 08, Nine methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy.optimize import brentq  # type: ignore[import-untyped]
from scipy.special import softmax, xlogy  # type: ignore[import-untyped]

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_08.shared import Floats, agree

Weights = Callable[[Floats, float], Floats]
CLOSE = 1e-4  # a minimum that is searched for has half the digits of its value


def generation(rng: Generator) -> tuple[Floats, float]:
    """Returns [P] of a population, and an epsilon below log P."""
    returns = rng.uniform(0.5, 4.0) * rng.normal(size=int(rng.integers(6, 13))) + rng.normal()
    return returns, float(rng.uniform(0.1, 0.9))


def kl_from_uniform(weights: Floats) -> float:
    """KL(weights || 1/P), in nats."""
    return float(xlogy(weights, weights * len(weights)).sum())


def kl_to_uniform(weights: Floats) -> float:
    """KL(1/P || weights), the other way round."""
    return float(-np.log(weights * len(weights)).mean())


def temperature(returns: Floats, distance: Callable[[Floats], float], target: float) -> float:
    """The eta at which softmax(returns / eta) is `target` away from uniform weights."""
    spread = float(np.ptp(returns))

    def excess(log_eta: float) -> float:
        return distance(np.asarray(softmax(returns / (spread * math.exp(log_eta))))) - target

    return spread * math.exp(brentq(excess, -4.5, 7.0, xtol=1e-13))


reps_weights = Check("reps_weights", minutes=12, inputs=generation, tolerance=CLOSE)


@reps_weights.property(
    "Some returns make your weights NaN: a search without bounds steps to an eta of 0 or below, where the dual means "
    "nothing. Keep eta above 0 with bounds, or search for its logarithm."
)
def are_numbers(student: Weights, rng: Generator) -> bool:
    return not np.isnan(student(*generation(rng))).any()


@reps_weights.property("Weights should not be negative, and should add up to 1.")
def are_a_distribution(student: Weights, rng: Generator) -> bool:
    weights = student(*generation(rng))
    return bool((weights >= 0).all()) and agree(weights.sum(), 1.0, CLOSE)


@reps_weights.property("A theta that earned more should not weigh less.")
def better_ones_weigh_more(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    weights = student(returns, epsilon)
    return bool((np.diff(weights[np.argsort(returns)]) > -1e-9).all())


@reps_weights.property(
    "Your weights are all but the same: your eta went as far up as you search for it. It does where eta * epsilon is "
    "left out of the dual, for the other term falls as eta grows, and where the dual is maximised."
)
def are_not_uniform(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    return kl_from_uniform(student(returns, epsilon)) > epsilon / 100


@reps_weights.property(
    "The KL of the weights from uniform ones, sum of w log(P w), should be epsilon: the bound is used up. Is your eta "
    "the minimum of the dual, and is it searched for far and closely enough?"
)
def use_up_the_bound(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    return abs(kl_from_uniform(student(returns, epsilon)) - epsilon) < CLOSE


@reps_weights.property("The logarithm of a weight should be a straight line in the return: w is exp(J / eta).")
def are_exponential(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    slopes = np.diff(np.log(student(returns, epsilon))) / np.diff(returns)
    return agree(slopes, slopes[0], 1e-3)


@reps_weights.property("The same number added to all returns should change nothing.")
def shifts_do_not_matter(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    return agree(student(returns + 3, epsilon), student(returns, epsilon), CLOSE)


@reps_weights.property(
    "Returns counted in thousandths go wrong, or in thousands. Epsilon is in nats and has no unit of reward; eta has: "
    "search for it in the scale of the returns.",
    edge=True,
)
def units_do_not_matter(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    right = student(returns, epsilon)
    return all(agree(student(scale * returns, epsilon), right, CLOSE) for scale in (1e-3, 1e3))


@reps_weights.property(
    "Returns near 100000 go wrong, although they differ by as little as before. exp(J / eta) overflows there: "
    "subtract the largest return first, which changes no weight.",
    edge=True,
)
def large_returns(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    return agree(student(returns + 1e5, epsilon), student(returns, epsilon), CLOSE)


@reps_weights.property(
    "Returns near -100000 go wrong, although they differ by as little as before. Without a shift every exp(J / eta) is "
    "0 there, and 0 / 0 is no weight; and dividing by the largest return turns the order around where it is negative. "
    "Subtract the largest instead.",
    edge=True,
)
def very_negative_returns(student: Weights, rng: Generator) -> bool:
    returns, epsilon = generation(rng)
    return agree(student(returns - 1e5, epsilon), student(returns, epsilon), CLOSE)


@reps_weights.property(
    "One return far below all others goes wrong; a robot that falls at once earns one. With the smallest or the mean "
    "subtracted, what is left is large, and exp of it overflows: after subtracting the largest nothing is above 0. And "
    "eta may be far smaller than the range of the returns: search there too.",
    edge=True,
)
def one_far_below(student: Weights, rng: Generator) -> bool:
    returns, _ = generation(rng)
    returns = returns / returns.std()
    returns[0] = -5000.0
    # 0.6 nats are more than it takes to do without that one; how closely eta is searched for is asked elsewhere
    return abs(kl_from_uniform(student(returns, 0.6)) - 0.6) < 0.1


@reps_weights.mistake(
    "concept",
    "Epsilon is your temperature; tempting, because both say how bold one is. Epsilon bounds a KL. The temperature at "
    "which that bound is met depends on the returns, and has to be found.",
)
def epsilon_as_temperature(returns: Floats, epsilon: float) -> Floats:
    return np.asarray(softmax(returns / epsilon))


@reps_weights.mistake(
    "order",
    "You multiply the returns by eta; tempting, because RWR has exp(beta J). Eta is a temperature, the inverse of "
    "that beta: the returns are divided by it.",
)
def multiplies_by_eta(returns: Floats, epsilon: float) -> Floats:
    return np.asarray(softmax(returns * temperature(returns, kl_from_uniform, epsilon)))


@reps_weights.mistake(
    "concept",
    "All your weight is with the best: your eta went to 0. It does where the dual has the logarithm of the sum; "
    "tempting, because softmax divides by a sum, but distance is measured from 1/P, and that makes it the mean. It "
    "does as well where eta does not multiply the logarithm, or multiplies the largest return.",
)
def takes_the_sum(returns: Floats, _epsilon: float) -> Floats:
    return np.asarray(np.arange(len(returns)) == returns.argmax(), dtype=np.float64)


@reps_weights.mistake(
    "order",
    "You bound the KL the other way round, from uniform weights to yours; tempting, because elsewhere in this course "
    "the old one comes first. REPS bounds KL(new || old), and its exponential weights are the solution of that.",
)
def bounds_the_other_kl(returns: Floats, epsilon: float) -> Floats:
    return np.asarray(softmax(returns / temperature(returns, kl_to_uniform, epsilon)))


@reps_weights.mistake(
    "sign",
    "Your weights prefer what earned least; tempting, because optimisers minimise. Returns are rewards: the exponent "
    "is J / eta, without a minus.",
)
def prefers_the_worst(returns: Floats, epsilon: float) -> Floats:
    return np.asarray(softmax(-returns / temperature(-returns, kl_from_uniform, epsilon)))


@reps_weights.mistake(
    "sign",
    "Your weights are all the same: your eta went to infinity. It does if one maximises the dual; tempting, because "
    "the primal is a maximum, but the dual of a maximum is minimised. It does as well if eta * epsilon is left out, "
    "for the other term falls as eta grows.",
)
def maximises_the_dual(returns: Floats, _epsilon: float) -> Floats:
    return np.full(len(returns), 1 / len(returns))


@reps_weights.mistake(
    "concept",
    "You divide the returns by their standard deviation, and leave it at that; tempting, because it makes units "
    "harmless. But epsilon is not in it: the same weights come out for every bound.",
)
def standardises_instead(returns: Floats, _epsilon: float) -> Floats:
    return np.asarray(softmax(returns / returns.std()))


@reps_weights.mistake(
    "concept",
    "These are the weights of CEM: an elite that is epsilon nats away from the whole. It is tempting, because the KL "
    "is right up to rounding. But among all weights within epsilon, those that earn most are exponential.",
)
def takes_an_elite(returns: Floats, epsilon: float) -> Floats:
    count = max(1, round(len(returns) * math.exp(-epsilon)))
    return (np.argsort(np.argsort(-returns)) < count) / count


@reps_weights.mistake(
    "indexing",
    "Your weights add up to P, and not to 1; tempting, because their mean is then 1, as a step's weight was in "
    "section 5. A mean and a variance made with them would be P times too large.",
)
def adds_up_to_the_population(returns: Floats, epsilon: float) -> Floats:
    eta = temperature(returns, kl_from_uniform, epsilon)
    return len(returns) * np.asarray(softmax(returns / eta))


@reps_weights.mistake(
    "constant",
    "Your KL is in bits; tempting, because information is measured so. Epsilon is in nats: the natural logarithm.",
)
def counts_in_bits(returns: Floats, epsilon: float) -> Floats:
    return np.asarray(softmax(returns / temperature(returns, kl_from_uniform, epsilon * math.log(2))))
