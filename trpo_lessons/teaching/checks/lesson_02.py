"""Checks of lesson 02, The surrogate loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check

Estimator = Callable[[Tensor, Tensor, Tensor], Tensor]


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape))


def rows(rng: Generator, count: int, outcomes: int) -> Tensor:
    """`count` random distributions over `outcomes` outcomes, none of them impossible."""
    return torch.from_numpy(rng.dirichlet(np.full(outcomes, 2.0), size=count))


def close(one: Any, other: Any) -> bool:
    """Equal up to rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=1e-9, atol=1e-9))


# ---- estimate --------------------------------------------------------------------------------------------------------


def samples(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities [N] under pi_theta and under q, and advantages [N]."""
    count = int(rng.integers(4, 10))
    log_prob, log_q = torch.from_numpy(np.log(rng.uniform(0.05, 0.95, size=(2, count))))
    return log_prob, log_q, normal(rng, count)


def value_and_gradient(function: Estimator, log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Any:
    """The value, and its gradient in the log probabilities of pi_theta: zero if the graph is lost."""
    log_prob = log_prob.clone().requires_grad_()
    value = function(log_prob, log_q, advantages)
    if not value.requires_grad:
        return value, torch.zeros_like(log_prob)
    return value.detach(), torch.autograd.grad(value, log_prob)[0]


estimate = Check("estimate", minutes=8, inputs=samples, behavior=value_and_gradient)


@estimate.property("When pi_theta is q, every ratio is 1: the estimate should be the mean of the advantages.")
def estimate_on_policy(student: Estimator, rng: Generator) -> bool:
    log_prob, _, advantages = samples(rng)
    return close(student(log_prob, log_prob.clone(), advantages), advantages.mean())


@estimate.property(
    "One sample, twice as likely under pi_theta as under q, with the advantage 3: its term is 2 times 3, so the "
    "estimate should be 6."
)
def estimate_of_one_sample(student: Estimator, rng: Generator) -> bool:
    log_prob, _, advantages = (x[:1] for x in samples(rng))
    return close(student(log_prob, log_prob - math.log(2), torch.full_like(advantages, 3)), 6)


@estimate.property("Make every action twice as likely under pi_theta and nothing else: the estimate should double.")
def estimate_doubles(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q, advantages = samples(rng)
    twice = student(log_prob + np.log(2), log_q, advantages)
    return close(twice, 2 * as_float64(student(log_prob, log_q, advantages)))


@estimate.property(
    "The derivative in the log probability of a sample should be its own term, ratio times advantage, over N: theta "
    "must reach the result through the ratio, with the graph kept."
)
def estimate_has_a_gradient(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q, advantages = samples(rng)
    _, gradient = value_and_gradient(student, log_prob, log_q, advantages)
    return close(gradient, (log_prob - log_q).exp() * advantages / len(advantages))


@estimate.property(
    "A robot's action has many coordinates, and the log of its density may well be -800 or 800. exp of either is 0 or "
    "infinite to a float64, and a quotient of two such numbers is none. Subtract the logarithms first, then take exp."
)
def estimate_of_improbable_actions(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q, advantages = samples(rng)
    here = student(log_prob, log_q, advantages)
    return all(close(student(log_prob + shift, log_q + shift, advantages), here) for shift in (-800, 800))


@estimate.property(
    "Games pay whole numbers, so values may come as integers. The estimate is a real number all the same: let the "
    "ratios decide its type."
)
def estimate_of_whole_numbers(student: Estimator, rng: Generator) -> bool:
    log_prob, log_q, _ = samples(rng)
    whole = torch.from_numpy(rng.integers(-9, 10, size=len(log_q)))
    return close(student(log_prob, log_q, whole), student(log_prob, log_q, whole.double()))


@estimate.mistake(
    "order",
    "Your ratio is upside down, q over pi; tempting, because q is the policy that the samples came from. The samples "
    "stand for q, and the weight has to turn them into samples of pi_theta: divide q out, multiply pi_theta in.",
)
def divides_by_the_new(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_q - log_prob) * advantages).mean()


@estimate.mistake(
    "concept",
    "You average log pi times advantage, the loss of the policy gradient; tempting, because its gradient at theta_old "
    "is the right one. But only there, and its value estimates nothing: L needs the ratio itself.",
)
def takes_the_policy_gradient_loss(log_prob: Tensor, _log_q: Tensor, advantages: Tensor) -> Tensor:
    return (log_prob * advantages).mean()


@estimate.mistake(
    "concept",
    "You use the difference of the log probabilities as the weight; tempting, because the logarithm of a ratio is a "
    "difference. It still has to go through exp: at q = pi the weight is 1, not 0.",
)
def forgets_the_exponential(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return ((log_prob - log_q) * advantages).mean()


@estimate.mistake(
    "detachment",
    "You divide by pi_theta itself, detached, instead of q; tempting, because in the first step the two are equal, and "
    "the gradient is right there. After a step the value stays the mean of the advantages, whatever the policy does.",
)
def divides_by_itself(log_prob: Tensor, _log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_prob.detach()) * advantages).mean()


@estimate.mistake(
    "detachment",
    "The value is right, but the weights are constants to automatic differentiation; tempting, because importance "
    "weights correct data and data has no gradient. Here theta enters through the weights and nowhere else.",
)
def detaches_the_weights(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q).detach() * advantages).mean()


@estimate.mistake(
    "concept",
    "You divide by the sum of the weights; tempting, because weights that add up to 1 make a proper average. That is "
    "the self-normalized estimator, equation 17. It is a good one, but not this one: it is biased, and adding the same "
    "number to all advantages no longer changes its gradient.",
)
def normalizes_the_weights(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    ratios = torch.exp(log_prob - log_q)
    return (ratios * advantages).sum() / ratios.sum()


@estimate.mistake(
    "sign",
    "Your estimate has the opposite sign; tempting, because optimizers minimize. Advantages are gains here, so the "
    "estimate is to be made large.",
)
def returns_a_loss(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return -(torch.exp(log_prob - log_q) * advantages).mean()


@estimate.mistake(
    "order",
    "You divide one logarithm by the other; tempting, because a ratio is asked for. The ratio is one of probabilities: "
    "its logarithm is the difference of the two, and exp brings it back.",
)
def divides_the_logarithms(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (log_prob / log_q * advantages).mean()


@estimate.mistake(
    "conditioning",
    "You leave q out and weigh with the new probability alone; tempting, because the sum of (14) has pi_theta times "
    "advantage in it. There every action comes once. In samples the likely ones come up more often: divide by q.",
)
def leaves_out_q(log_prob: Tensor, _log_q: Tensor, advantages: Tensor) -> Tensor:
    return (log_prob.exp() * advantages).mean()


@estimate.mistake(
    "detachment",
    "The gradient is right, the value is not: you multiply the detached ratio by log pi; tempting, because ratio times "
    "score is what the derivative looks like. A line search compares values, so differentiate the ratio itself.",
)
def weighs_the_logarithm(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q).detach() * log_prob * advantages).mean()


@estimate.mistake(
    "concept",
    "Your terms are (ratio - 1) times advantage, which estimate the gain over q; tempting, because that is what an "
    "optimizer is after. Equation 15 is the objective itself, with the ratio as it is.",
)
def takes_away_the_old_value(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return ((torch.exp(log_prob - log_q) - 1) * advantages).mean()


@estimate.mistake(
    "concept",
    "You subtract the batch's mean from the advantages; tempting, because many programs do, for less noise. It is "
    "another estimate: the ratios of a batch do not average to 1, so what you take away does not cancel.",
)
def centers_the_advantages(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q) * (advantages - advantages.mean())).mean()


@estimate.mistake(
    "concept",
    "You bring the advantages to mean 0 and standard deviation 1; tempting, because many programs do before a gradient "
    "step. The estimate is then in units of this batch's spread, and says nothing about the return.",
)
def standardizes_the_advantages(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q) * (advantages - advantages.mean()) / advantages.std()).mean()


@estimate.mistake(
    "concept",
    "You clip the ratios and take the smaller of two terms; tempting, because PPO does, a later method that has no "
    "constraint on the KL divergence. In TRPO the constraint keeps the ratios in place, and L has them as they are.",
)
def clips_the_ratios(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    ratios = torch.exp(log_prob - log_q)
    return torch.minimum(ratios * advantages, ratios.clamp(0.8, 1.2) * advantages).mean()


@estimate.mistake(
    "constant",
    "You add the terms up; tempting, because equation 14 is a sum. Equation 15 is an expectation, and is estimated by "
    "the mean: more samples make it more precise, not larger.",
)
def adds_up(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q) * advantages).sum()


# ---- samples_needed --------------------------------------------------------------------------------------------------

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


# ---- effective_sample_size -------------------------------------------------------------------------------------------

SizeFunction = Callable[[Tensor], Tensor]


def log_ratios_of_a_batch(rng: Generator) -> tuple[Tensor]:
    """Log ratios [N] of a batch."""
    return (normal(rng, int(rng.integers(5, 30))),)


effective_sample_size = Check("effective_sample_size", minutes=8, inputs=log_ratios_of_a_batch)


@effective_sample_size.property(
    "Two samples, one with three times the weight of the other: the sum is 1 + 3 and the sum of squares 1 + 9, so they "
    "are worth 16/10."
)
def size_of_one_and_three(student: SizeFunction, rng: Generator) -> bool:
    log_weights = as_float64([0.0, math.log(3)])
    return close(student(log_weights), 1.6) and close(student(log_weights + rng.normal()), 1.6)


@effective_sample_size.property(
    "Every sample twice over is worth twice as much: the definition has two sums over the samples, and no N of its own."
)
def size_of_everything_twice(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.cat([log_ratios, log_ratios])), 2 * as_float64(student(log_ratios)))


@effective_sample_size.property("N samples of equal weight are worth N, also where the weight is not 1.")
def size_of_equal_weights(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.full_like(log_ratios, rng.normal())), len(log_ratios))


@effective_sample_size.property(
    "Adding 1000 to all log ratios multiplies every weight by the same factor and should change nothing, but exp(1000) "
    "is too large for a float64. Subtract the largest log ratio before you take exp."
)
def size_without_overflow(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return all(close(student(log_ratios + shift), student(log_ratios)) for shift in (1000, -1000))


@effective_sample_size.property(
    "One sample that outweighs all others by far leaves you with one, also when its log ratio is 2000."
)
def size_of_one_heavy_weight(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    log_ratios[2] = 2000
    return close(student(log_ratios), 1)


@effective_sample_size.property("A single sample is worth one, whatever its weight.")
def size_of_one_sample(student: SizeFunction, rng: Generator) -> bool:
    return close(student(normal(rng, 1)), 1)


@effective_sample_size.property(
    "An action that the new policy never takes has the log ratio -inf and the weight 0: it should count for nothing, "
    "and not turn the answer into NaN."
)
def size_with_a_weight_of_zero(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.cat([log_ratios, as_float64([-math.inf])])), student(log_ratios))


@effective_sample_size.mistake(
    "concept",
    "You divide N by the mean squared weight; tempting, because weights average 1, so their sum is N. They do so in "
    "the long run; in this batch they add up to something else. Take the sum they really have.",
)
def assumes_a_mean_of_one(log_ratios: Tensor) -> Tensor:
    return len(log_ratios) / torch.exp(2 * log_ratios).mean()


@effective_sample_size.mistake(
    "order",
    "Your fraction is upside down: the more unequal your weights, the larger it gets; tempting, because the formula "
    "has a square above and a square below. The square of the sum goes on top.",
)
def upside_down(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return weights.square().sum()


@effective_sample_size.mistake(
    "concept",
    "You measure how many samples match the heaviest one; tempting, because a single heavy weight is the worst case. "
    "Two weights of the same size would then already hide all others; squares count every weight.",
)
def counts_in_units_of_the_heaviest(log_ratios: Tensor) -> Tensor:
    return torch.exp(log_ratios - log_ratios.max()).sum()


@effective_sample_size.mistake(
    "concept",
    "You take exp of the entropy of the normalized weights; tempting, because that is an effective number too. But it "
    "is not the one that the variance of a weighted mean is governed by, which has squared weights in it.",
)
def takes_the_entropy(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return torch.exp(-(weights * weights.log()).sum())


@effective_sample_size.mistake(
    "concept",
    "You put the log ratios themselves in the place of the weights; tempting, because they are what you are given. A "
    "weight is exp of its log ratio.",
)
def forgets_to_exponentiate(log_ratios: Tensor) -> Tensor:
    return log_ratios.sum().square() / log_ratios.square().sum()


@effective_sample_size.mistake(
    "concept",
    "The sum on top is not squared; tempting, because for weights that add up to 1 the square is 1 as well. Yours do "
    "not add up to 1, and without the square a common factor no longer cancels.",
)
def forgets_the_square_on_top(log_ratios: Tensor) -> Tensor:
    weights = torch.exp(log_ratios)
    return weights.sum() / weights.square().sum()


@effective_sample_size.mistake(
    "constant",
    "You go by the variance of the weights and let it divide by N - 1, as .var() and .std() do; tempting, because "
    "N / (1 + variance / squared mean) is the same formula. It is so for the plain mean of the squares, over N.",
)
def divides_by_one_less(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return len(weights) / (1 + weights.var() / weights.mean().square())


@effective_sample_size.mistake(
    "constant",
    "You return what one sample is worth, a share between 0 and 1; tempting, because shares compare batches of "
    "different sizes. Asked for is a number of samples.",
)
def returns_the_share(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return 1 / weights.square().sum() / len(weights)


# ---- from_stream -----------------------------------------------------------------------------------------------------

StreamFunction = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def stream(rng: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Ratios and advantages [T] of several episodes in a row, where an episode starts [T], and a discount."""
    starts = torch.cat([torch.arange(n) == 0 for n in rng.integers(2, 6, size=int(rng.integers(2, 5)))])
    ratios, advantages = torch.exp(0.5 * normal(rng, len(starts))), normal(rng, len(starts))
    return ratios, advantages, starts, float(rng.uniform(0.5, 0.95))


# A number to the power of a tensor of integers has float32's precision in torch; whoever writes that shall pass.
from_stream = Check("from_stream", minutes=12, inputs=stream, tolerance=1e-5)


def near(one: Any, other: Any) -> bool:
    """Equal up to float32's rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=1e-5, atol=1e-5))


def ages(starts: Tensor) -> Tensor:
    """Steps [T] since the episode began."""
    now = torch.arange(len(starts), dtype=torch.float64)
    return now - torch.where(starts, now, 0).cummax(0).values


def along_each_episode(ratios: Tensor, starts: Tensor) -> Tensor:
    """Product [T] of an episode's ratios up to and including each step."""
    return torch.cat([part.cumprod(0) for part in torch.split(ratios, episode_lengths(starts))])


def episode_lengths(starts: Tensor) -> list[int]:
    """How many steps each episode has."""
    found: list[int] = torch.bincount(starts.long().cumsum(0) - 1).tolist()
    return found


@from_stream.property(
    "Two episodes of one step each, which bring 1 and 3: L is about one episode, so the estimate should be the mean, 2."
)
def mean_of_two(student: StreamFunction, rng: Generator) -> bool:
    _, _, _, gamma = stream(rng)
    ones = torch.ones(2, dtype=torch.float64)
    return near(student(ones, as_float64([1.0, 3.0]), torch.tensor([True, True]), gamma), 2)


@from_stream.property(
    "A step counts gamma^t, t steps after its episode began. One episode of T steps with all ratios and advantages 1 "
    "should give (1 - gamma^T) / (1 - gamma)."
)
def ones_add_up(student: StreamFunction, rng: Generator) -> bool:
    _, _, _, gamma = stream(rng)
    ones = torch.ones(int(rng.integers(2, 9)), dtype=torch.float64)
    answer = student(ones, ones.clone(), torch.arange(len(ones)) == 0, gamma)
    return near(answer, (1 - gamma ** len(ones)) / (1 - gamma))


@from_stream.property(
    "A ratio should touch its own step only: change the ratio of a step without advantage, and nothing should change."
)
def ratios_touch_their_own_step(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, gamma = stream(rng)
    advantages[starts] = 0
    other = torch.where(starts, 2 * ratios, ratios)
    return near(student(other, advantages, starts, gamma), student(ratios, advantages, starts, gamma))


@from_stream.property(
    "Each episode starts anew: the same episodes written down twice in a row should give the same estimate."
)
def twice_is_the_same(student: StreamFunction, rng: Generator) -> bool:
    *columns, gamma = stream(rng)
    ratios, advantages, starts = columns
    twice = student(ratios.repeat(2), advantages.repeat(2), starts.repeat(2), gamma)
    return near(twice, student(ratios, advantages, starts, gamma))


@from_stream.property(
    "At gamma = 0 only the first step of each episode counts, and at gamma = 1 all steps count alike. If you get NaN "
    "there, look for a logarithm of gamma, or for a division by one of its powers."
)
def both_ends_of_gamma(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, _ = stream(rng)
    terms = ratios * advantages
    at_ends = [student(ratios, advantages, starts, gamma) for gamma in (0.0, 1.0)]
    return near(at_ends[0], terms[starts].sum() / starts.sum()) and near(at_ends[1], terms.sum() / starts.sum())


@from_stream.property(
    "A stream may be long: after some thousand steps gamma^t is 0 to a float64. If later episodes then count nothing, "
    "or NaN comes out, you count time from the start of the stream and put it right by a division."
)
def thousands_of_steps(student: StreamFunction, rng: Generator) -> bool:
    starts = (torch.arange(3000) % 1000) == 0
    ratios, advantages = torch.exp(0.5 * normal(rng, 3000)), normal(rng, 3000)
    return near(student(ratios, advantages, starts, 0.5), (0.5 ** ages(starts) * ratios * advantages).sum() / 3)


@from_stream.property(
    "Games pay whole numbers, so values may come as integers. The estimate is a real number all the same: let the "
    "ratios decide its type."
)
def whole_numbers(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, gamma = stream(rng)
    whole = (10 * advantages).round()
    return near(student(ratios, whole.long(), starts, gamma), student(ratios, whole, starts, gamma))


@from_stream.mistake(
    "concept",
    "You multiply the ratios up along the episode; tempting, because that is how likely the whole way is under the new "
    "policy. It corrects the states as well, so it estimates the right-hand side of equation 1, the truth, at a price "
    "that grows exponentially with time. L keeps the old states: one ratio a step.",
)
def multiplies_along_the_way(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    terms = gamma ** ages(starts) * along_each_episode(ratios, starts) * advantages
    return terms.sum() / starts.sum()


@from_stream.mistake(
    "termination",
    "Your discount goes on falling from one episode to the next; tempting, because the stream is one array. Time "
    "starts anew with every episode, so later episodes hardly count in your sum, and they are as good as the first.",
)
def never_restarts(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** torch.arange(len(ratios), dtype=torch.float64) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You count all steps alike; tempting, because most code does. Then states are weighed with how often they are "
    "visited, not with rho, which counts a visit at time t gamma^t.",
)
def forgets_the_discount(ratios: Tensor, advantages: Tensor, starts: Tensor, _gamma: float) -> Tensor:
    return (ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "order",
    "You discount from the end: the last step of an episode counts 1; tempting, because returns are summed up from "
    "behind. Here gamma^t belongs to the time t since the start.",
)
def discounts_from_the_end(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    lengths = torch.tensor(episode_lengths(starts))
    to_go = lengths.repeat_interleave(lengths) - 1 - ages(starts)
    return (gamma**to_go * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You leave out the ratios; tempting, because the advantages along the way are what the gain is made of. But under "
    "the old policy they average to zero, in every state: without the new policy's actions there is no gain to see.",
)
def leaves_out_the_ratios(_ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "Your terms are (ratio - 1) times advantage. In expectation that is the same, and less noisy, because the "
    "advantages that you take away average to zero; tempting, and often wise. Asked for is the plain estimate, ratio "
    "times advantage, which has the noise of the old policy's own advantages in it.",
)
def takes_away_the_old(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * (ratios - 1) * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You add the episodes up; tempting, because the terms of one episode are added up. L is what one episode brings on "
    "average: every first step in the stream opens another one, so divide by how many there are.",
)
def adds_the_episodes_up(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios * advantages).sum()


@from_stream.mistake(
    "concept",
    "You divide by the number of steps; tempting, because a mean is over all samples. L is what one *episode* brings: "
    "its sum over time stays a sum, and only the episodes are averaged.",
)
def averages_over_steps(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios * advantages).mean()


@from_stream.mistake(
    "indexing",
    "Your first step counts gamma; tempting, because loops like to discount before they add. The first step of an "
    "episode is at time 0 and counts gamma^0 = 1: nobody has had to wait for it.",
)
def discounts_the_first_step(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** (ages(starts) + 1) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You multiply by 1 - gamma; tempting, because (1 - gamma) rho is the distribution that this lesson draws from. "
    "Asked for are units of eta, the sum over rho as it is, which adds up to 1 / (1 - gamma).",
)
def normalizes_the_visits(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (1 - gamma) * (gamma ** ages(starts) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You divide by the sum of the discounts, for a weighted average; tempting, because weights of a mean add up to 1. "
    "L is a sum over time: a longer way brings more. Divide by the number of episodes only.",
)
def divides_by_the_discounts(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    discounts = gamma ** ages(starts)
    return (discounts * ratios * advantages).sum() / discounts.sum()


@from_stream.mistake(
    "termination",
    "Your last episode is missing; tempting, because an episode seems to end where the next one starts, and after the "
    "last one nothing starts. The end of the stream ends it.",
)
def drops_the_last_episode(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    complete = starts.long().cumsum(0) < starts.sum()
    return (gamma ** ages(starts) * ratios * advantages)[complete].sum() / (starts.sum() - 1)


@from_stream.mistake(
    "concept",
    "You divide the ratios by their mean; tempting, because they should average to 1, and then they do. That is the "
    "idea of equation 17. The plain estimate is asked for, which leaves the ratios as they are.",
)
def divides_by_the_mean_ratio(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios / ratios.mean() * advantages).sum() / starts.sum()


CHECKS = (estimate, samples_needed, effective_sample_size, from_stream)
