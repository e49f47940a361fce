"""Exercise estimate of lesson 02, The surrogate loss."""

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
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_02.shared import close

Estimator = Callable[[Tensor, Tensor, Tensor], Tensor]


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
