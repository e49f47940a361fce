"""Exercise sampled_kl of lesson 05, The trust-region step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_05.shared import close

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
