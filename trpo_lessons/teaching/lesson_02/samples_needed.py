"""Exercise samples_needed of lesson 02, The surrogate loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal


def rows(rng: Generator, count: int, outcomes: int) -> Tensor:
    """`count` random distributions over `outcomes` outcomes, none of them impossible."""
    return torch.from_numpy(rng.dirichlet(np.full(outcomes, 2.0), size=count))


CountFunction = Callable[[Tensor, Tensor, Tensor, Tensor], int]


def two_policies(rng: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How often each of four states is drawn [S]; an old and a new policy and the old one's advantages [S, A]."""
    visits, pi_old, pi, values = rows(rng, 1, 4)[0], rows(rng, 4, 3), rows(rng, 4, 3), normal(rng, 4, 3)
    return visits, pi_old, pi, values - (pi_old * values).sum(1, keepdim=True)


def count_for(gain: Tensor, variance: Tensor) -> int:
    """The smallest N at which |gain| is two standard errors."""
    return int(torch.ceil(4 * variance / gain.square()))


def moments(pairs: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `terms` [S, A] when a pair is drawn with probability `pairs` [S, A]."""
    mean = (pairs * terms).sum()
    return mean, (pairs * (terms - mean).square()).sum()


samples_needed = Check("samples_needed", minutes=12, inputs=two_policies)


@samples_needed.property(
    "With that many samples the gain is still a little less than two standard errors. You round down; tempting, "
    "because that is what int does. Round up."
)
def rounds_up(student: CountFunction, rng: Generator) -> bool:
    visits, pi_old, pi, advantages = two_policies(rng)
    gain, variance = moments(visits[:, None] * pi_old, (pi / pi_old - 1) * advantages)
    return int(student(visits, pi_old, pi, advantages)) != int(4 * variance / gain.square())


@samples_needed.property(
    "One state, old policy (0.3, 0.7), new (0.6, 0.4), advantages (1, 0). A sample says 1 or 0 about the gain, 1 with "
    "probability 0.3: the mean is 0.3, the variance 0.21, and it takes 10 samples until 0.3 is two standard errors."
)
def ten_for_a_coin(student: CountFunction, _rng: Generator) -> bool:
    visits, pi_old, pi, advantages = (as_float64(x) for x in ([1.0], [[0.3, 0.7]], [[0.6, 0.4]], [[1.0, 0.0]]))
    return student(visits, pi_old, pi, advantages) == 10


@samples_needed.property(
    "A state counts as often as it is visited: split a state into two alike, each with half of its visits, and the "
    "answer should stay what it is."
)
def splits_a_state(student: CountFunction, rng: Generator) -> bool:
    visits, *tables = two_policies(rng)
    split = torch.cat([visits[:1] / 2, visits[:1] / 2, visits[1:]])
    twice = (torch.cat([table[:1], table]) for table in tables)
    return student(split, *twice) == student(visits, *tables)


@samples_needed.property("It should not matter whether the promised change is a gain or a loss of the same size.")
def up_or_down(student: CountFunction, rng: Generator) -> bool:
    visits, pi_old, pi, advantages = two_policies(rng)
    return student(visits, pi_old, pi, -advantages) == student(visits, pi_old, pi, advantages)


@samples_needed.property(
    "The unit in which advantages are counted should not matter, be it a millionth or a million: the gain and its "
    "error scale alike. A small number added somewhere for safety has a unit too."
)
def any_unit(student: CountFunction, rng: Generator) -> bool:
    visits, pi_old, pi, advantages = two_policies(rng)
    here = student(visits, pi_old, pi, advantages)
    # Powers of two scale without rounding.
    return all(student(visits, pi_old, pi, unit * advantages) == here for unit in (2.0**-30, 16.0, 2.0**20))


@samples_needed.property(
    "Two states, visited equally often; a fair coin lands on heads with probability 0.51 now, which is good in one of "
    "them, advantages (1, -1), and bad in the other, (-0.97, 0.97). The mean is 0.0003, the standard deviation 0.0197: "
    "it takes 17249 samples. If you try one number after the other and give up early, solve for N instead."
)
def many_thousands(student: CountFunction, _rng: Generator) -> bool:
    visits, pi_old, pi = as_float64([0.5, 0.5]), as_float64([[0.5, 0.5]] * 2), as_float64([[0.51, 0.49]] * 2)
    return student(visits, pi_old, pi, as_float64([[1.0, -1.0], [-0.97, 0.97]])) == 17249


@samples_needed.property(
    "One state, a fair coin that lands on heads always now, advantages (1, 0). A sample says 1 or 0, with the mean 1/2 "
    "and the variance 1/4: with exactly 4 samples the gain is two standard errors, and 'at least' two are asked for."
)
def exactly_four(student: CountFunction, _rng: Generator) -> bool:
    visits, pi_old, pi, advantages = (as_float64(x) for x in ([1.0], [[0.5, 0.5]], [[1.0, 0.0]], [[1.0, 0.0]]))
    return student(visits, pi_old, pi, advantages) == 4


@samples_needed.mistake(
    "concept",
    "You take the spread of ratio times advantage; tempting, because that is the term of equation 15. The gain is a "
    "difference of two values on the same samples, and their common noise cancels: its terms are (ratio - 1) times "
    "advantage.",
)
def ignores_the_common_noise(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    return count_for(*moments(visits[:, None] * pi_old, pi / pi_old * advantages))


@samples_needed.mistake(
    "conditioning",
    "You average the variance within each state; tempting, because the actions are what is weighed. The state is "
    "sampled too: how much the states' own means differ counts as well (the law of total variance).",
)
def forgets_that_states_are_sampled(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    terms = (pi / pi_old - 1) * advantages
    means = (pi_old * terms).sum(1, keepdim=True)
    within = (visits * (pi_old * (terms - means).square()).sum(1)).sum()
    return count_for((visits[:, None] * pi_old * terms).sum(), within)


@samples_needed.mistake(
    "concept",
    "You take the variance over the actions of the new policy; tempting, because the gain is about it. The samples "
    "come from the old one: how often a term turns up is decided by pi_old, how large it is by the ratio.",
)
def averages_over_the_new_policy(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    terms = (pi / pi_old - 1) * advantages
    _, variance = moments(visits[:, None] * pi, terms)
    return count_for((visits[:, None] * pi_old * terms).sum(), variance)


@samples_needed.mistake(
    "concept",
    "You divide two standard deviations by the gain and leave it at that; tempting, because more samples mean less "
    "error. But the error falls with the square root of N only: square the quotient.",
)
def forgets_the_square(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    gain, variance = moments(visits[:, None] * pi_old, (pi / pi_old - 1) * advantages)
    return int(torch.ceil(2 * variance.sqrt() / gain.abs()))


@samples_needed.mistake(
    "concept",
    "You leave the weights out and take the spread of the advantages; tempting, because near the old policy all "
    "weights are 1. What a sample says about the gain is (ratio - 1) times its advantage, which is small there.",
)
def leaves_out_the_weights(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    _, variance = moments(visits[:, None] * pi_old, advantages)
    return count_for((visits[:, None] * pi * advantages).sum(), variance)


@samples_needed.mistake(
    "concept",
    "You multiply the number by the mean squared weight; tempting, because that is what effective sample size is for. "
    "But the variance of the weighted terms already holds the price of the weights: you charge it twice.",
)
def charges_twice(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    pairs, ratios = visits[:, None] * pi_old, pi / pi_old
    gain, variance = moments(pairs, (ratios - 1) * advantages)
    return count_for(gain, variance * (pairs * ratios.square()).sum())


@samples_needed.mistake(
    "constant",
    "You stop where the gain is one standard error; tempting, because that is what an error bar shows. Two are asked "
    "for, and that takes four times as many samples.",
)
def stops_at_one_error(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    gain, variance = moments(visits[:, None] * pi_old, (pi / pi_old - 1) * advantages)
    return count_for(2 * gain, variance)


@samples_needed.mistake(
    "concept",
    "You take the mean square of the terms for their variance; tempting, because after a small step the two are nearly "
    "the same. The square of the mean has to come off: the spread is about the mean, not about zero.",
)
def forgets_to_subtract_the_mean(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    pairs, terms = visits[:, None] * pi_old, (pi / pi_old - 1) * advantages
    return count_for((pairs * terms).sum(), (pairs * terms.square()).sum())


@samples_needed.mistake(
    "concept",
    "You add the variances of the two estimates, at the new and at the old policy; tempting, because that is the "
    "variance of a difference. It is so for independent batches. Here the samples are the same: their noise cancels.",
)
def adds_the_two_variances(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    pairs = visits[:, None] * pi_old
    gain, of_new = moments(pairs, pi / pi_old * advantages)
    return count_for(gain, of_new + moments(pairs, advantages)[1])


@samples_needed.mistake(
    "conditioning",
    "You take the variance of the table, every pair of state and action once; tempting, because .var() does. A pair "
    "counts as often as it is drawn: visits times pi_old.",
)
def counts_all_pairs_alike(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    terms = (pi / pi_old - 1) * advantages
    return count_for((visits[:, None] * pi_old * terms).sum(), terms.var(correction=0))
