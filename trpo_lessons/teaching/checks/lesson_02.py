"""Checks of lesson 02, The surrogate loss."""

from __future__ import annotations

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


samples_needed = Check("samples_needed", minutes=12, inputs=two_policies)


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


@samples_needed.property(
    "The unit in which advantages are counted should not matter: the gain and its error scale alike."
)
def any_unit(student: CountFunction, rng: Generator) -> bool:
    visits, pi_old, pi, advantages = two_policies(rng)
    return student(visits, pi_old, pi, 16 * advantages) == student(visits, pi_old, pi, advantages)


@samples_needed.property("It should not matter whether the promised change is a gain or a loss of the same size.")
def up_or_down(student: CountFunction, rng: Generator) -> bool:
    visits, pi_old, pi, advantages = two_policies(rng)
    return student(visits, pi_old, pi, -advantages) == student(visits, pi_old, pi, advantages)


def count_for(gain: Tensor, variance: Tensor) -> int:
    """The smallest N at which |gain| is two standard errors."""
    return int(torch.ceil(4 * variance / gain.square()))


def moments(pairs: Tensor, terms: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `terms` [S, A] when a pair is drawn with probability `pairs` [S, A]."""
    mean = (pairs * terms).sum()
    return mean, (pairs * (terms - mean).square()).sum()


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
    "indexing",
    "You round down; tempting, because that is what int does. With that many samples the gain is still a little less "
    "than two standard errors.",
)
def rounds_down(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    gain, variance = moments(visits[:, None] * pi_old, (pi / pi_old - 1) * advantages)
    return int(4 * variance / gain.square())


# ---- effective_sample_size -------------------------------------------------------------------------------------------

SizeFunction = Callable[[Tensor], Tensor]


def log_ratios_of_a_batch(rng: Generator) -> tuple[Tensor]:
    """Log ratios [N] of a batch."""
    return (normal(rng, int(rng.integers(5, 30))),)


effective_sample_size = Check("effective_sample_size", minutes=8, inputs=log_ratios_of_a_batch)


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
    "A step counts gamma^t, t steps after its episode began. One episode of T steps with all ratios and advantages 1 "
    "should give (1 - gamma^T) / (1 - gamma)."
)
def ones_add_up(student: StreamFunction, rng: Generator) -> bool:
    _, _, _, gamma = stream(rng)
    ones = torch.ones(int(rng.integers(2, 9)), dtype=torch.float64)
    answer = student(ones, ones.clone(), torch.arange(len(ones)) == 0, gamma)
    return near(answer, (1 - gamma ** len(ones)) / (1 - gamma))


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


CHECKS = (estimate, samples_needed, effective_sample_size, from_stream)
