"""Exercise self_normalised of lesson 07, The vine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_07.shared import agree, close, nearly_right

Terms = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rollout_set(rng: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log probabilities [N, K] of first actions under pi, pi_old and q, and Q-values [N, K]; N is not K."""
    num_states = int(rng.integers(2, 6))
    shape = (num_states, num_states + int(rng.integers(1, 3)))
    log_pi, log_pi_old, log_q = (torch.from_numpy(np.log(rng.uniform(0.05, 0.9, size=shape))) for _ in range(3))
    return log_pi, log_pi_old, log_q, torch.from_numpy(2 + rng.normal(size=shape))


def terms_and_slope(function: Terms, log_pi: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """The terms, and the gradient of a mixture of them in log_pi."""
    at = log_pi.clone().requires_grad_()
    terms = function(at, *others)
    mixed = (terms * torch.linspace(1, 2, len(terms), dtype=torch.float64)).sum()
    if not mixed.requires_grad:
        return terms.detach(), torch.zeros_like(log_pi)
    (slope,) = torch.autograd.grad(mixed, at, allow_unused=True, materialize_grads=True)
    return terms.detach(), slope


self_normalised = Check("self_normalised", minutes=8, inputs=rollout_set, behavior=terms_and_slope)


@self_normalised.property(
    "Your terms are right in their first digits and not in their last ones. Is something float32 on the way, or is a "
    "small number added to the sum of the weights? That sum is never 0: once the largest weight of a state is made 1, "
    "it is at least 1."
)
def all_digits(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    return not nearly_right(student(log_pi, log_pi_old, log_q, q_values), weighted_means(log_pi, log_q, q_values))


@self_normalised.property("If all K Q-values of a state are the same, the term of that state should be that value.")
def constant_values_come_back(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    return close(student(log_pi, log_pi_old, log_q, q_values[:, :1].expand_as(q_values).clone()), q_values[:, 0])


@self_normalised.property("A term should lie between the smallest and the largest Q-value of its state: it is a mean.")
def terms_are_means(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    terms = student(log_pi, log_pi_old, log_q, q_values)
    return bool((terms > q_values.min(1).values - 1e-9).all() and (terms < q_values.max(1).values + 1e-9).all())


@self_normalised.property(
    "With uniform q and every action once, the term should be the sum of pi times Q: equation 16. Which two of the "
    "three log probabilities does that leave?"
)
def agrees_with_equation_16(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    log_pi = torch.log_softmax(log_pi, dim=1)
    uniform = torch.full_like(log_q, -float(np.log(log_q.shape[1])))
    return close(student(log_pi, log_pi_old, uniform, q_values), (log_pi.exp() * q_values).sum(1))


@self_normalised.property("Where log_pi changes, the terms should change with it, so that their gradient is not zero.")
def has_a_gradient(student: Terms, rng: Generator) -> bool:
    _, slope = terms_and_slope(student, *rollout_set(rng))
    return bool(slope.abs().max() > 1e-9)


@self_normalised.property(
    "What is easy to test holds, but the terms are still others. Go through equation 17 again, for a q of its own."
)
def equation_17(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    found = student(log_pi, log_pi_old, log_q, q_values)
    return close(found, weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "The terms are right, and their gradient in log_pi is not. Is a part of the quotient cut off from it?"
)
def has_the_right_gradient(student: Terms, rng: Generator) -> bool:
    arguments = rollout_set(rng)
    return close(terms_and_slope(student, *arguments)[1], terms_and_slope(self_normalised.reference, *arguments)[1])


@self_normalised.property("With a single branch the term should be its Q-value: a mean of one.", edge=True)
def a_single_branch(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = (each[:, :1] for each in rollout_set(rng))
    return close(student(log_pi, log_pi_old, log_q, q_values), q_values[:, 0])


@self_normalised.property(
    "Log probabilities near -800 go wrong; exp(log_pi) / exp(log_q) is tempting, because the formula has a quotient of "
    "probabilities. But exp(-800) is 0 on a computer, and the density of a long action can be that small: subtract the "
    "logarithms, as they are, before anything else.",
    edge=True,
)
def small_densities(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    found = student(log_pi - 800, log_pi_old - 800, log_q - 800, q_values)
    return close(found, weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "A state whose log ratios are all near -800, or all near 800, goes wrong; exp of them is tempting, and is 0 or "
    "infinite. A factor common to all weights of a state drops out: take the largest log ratio off first. Weights "
    "that are divided by their sum are a softmax of their logarithms.",
    edge=True,
)
def ratios_of_any_size(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    right = weighted_means(log_pi, log_q, q_values)
    found = [student(log_pi + shift, log_pi_old, log_q, q_values) for shift in (-800.0, 800.0)]
    return all(close(each, right) for each in found)


@self_normalised.property(
    "An action that the new policy never takes, with log_pi = -inf, goes wrong: its weight is 0, and the others share "
    "the mean.",
    edge=True,
)
def an_action_that_is_gone(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    gone = log_pi.clone()
    gone[:, 0] = -math.inf
    right = weighted_means(log_pi[:, 1:], log_q[:, 1:], q_values[:, 1:])
    # A large negative number in the place of -inf is not small enough where all ratios are small.
    return all(close(student(gone + shift, log_pi_old, log_q, q_values), right) for shift in (0.0, -800.0))


@self_normalised.property(
    "States whose log ratios are of unlike size, near -800 in one and near 800 in another, go wrong. Take off the "
    "largest log ratio of each state, and not the largest of all.",
    edge=True,
)
def unlike_states(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    shifts = 800 * torch.linspace(-1, 1, len(log_pi), dtype=torch.float64)[:, None]
    return close(student(log_pi + shifts, log_pi_old, log_q, q_values), weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "Branches of one state whose densities are of unlike size go wrong, although their ratios are ordinary numbers. "
    "Subtract log_q from log_pi, action by action, before anything else is done to either.",
    edge=True,
)
def unlike_densities(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    shifts = -800 * torch.linspace(0, 1, log_pi.shape[1], dtype=torch.float64)
    found = student(log_pi + shifts, log_pi_old + shifts, log_q + shifts, q_values)
    return close(found, weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "A Q-value of exactly 0 goes wrong. It is a value like any other, and its weight belongs into the sum.", edge=True
)
def a_worth_of_zero(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    q_values[:, 1] = 0.0
    return close(student(log_pi, log_pi_old, log_q, q_values), weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "The small weight of a large Q-value is lost. No weight is too small to count: what it counts for is its product "
    "with Q.",
    edge=True,
)
def no_weight_is_too_small(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    log_pi[:, -1] -= 20
    q_values[:, -1] = 1e10  # so large that who computes with differences of Q-values keeps fewer digits
    found = student(log_pi, log_pi_old, log_q, q_values)
    return agree(found, weighted_means(log_pi, log_q, q_values), 1e-5)


@self_normalised.property("Hundreds of branches go wrong. Is there a number of fixed size?", edge=True)
def many_branches(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = (each.repeat(1, 200) for each in rollout_set(rng))
    q_values = q_values + torch.linspace(0, 1, q_values.shape[1], dtype=torch.float64)
    return close(student(log_pi, log_pi_old, log_q, q_values), weighted_means(log_pi, log_q, q_values))


def weighted_means(log_pi: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    """The terms, from weights of ordinary size."""
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "detachment",
    "Your weights are detached; tempting, because weights are often constants. Here theta is in nothing but the "
    "weights: without their gradient the update does not move at all.",
)
def detaches_the_weights(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return weighted_means(log_pi.detach(), log_q, q_values)


@self_normalised.mistake(
    "concept",
    "You divide by K; tempting, because a mean divides by the count. The sum of the weights is K only on average: "
    "dividing by the sum itself is what makes a constant in the Q-values harmless.",
)
def divides_by_the_count(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return ((log_pi - log_q).exp() * q_values).mean(1)


@self_normalised.mistake(
    "concept",
    "Your weights are pi over pi_old; tempting, because equation 17 is printed like that. It means q = pi_old. These "
    "actions came from another q, and importance weights divide by whatever drew the sample.",
)
def as_printed(log_pi: Tensor, log_pi_old: Tensor, _log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_pi_old).exp()
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "order",
    "Your weights are upside down, q over pi; tempting, because q is what we have samples of. A sample counts more "
    "if pi likes it more than q did.",
)
def turns_weights_over(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_q - log_pi, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "concept",
    "Your weights are pi alone; tempting, because equation 16 has just pi. There every action occurs once; drawn "
    "actions occur as often as q draws them, and dividing by q takes that back.",
)
def forgets_q(log_pi: Tensor, _log_pi_old: Tensor, _log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_pi, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "indexing",
    "You divide by a sum over states; tempting, because axis 0 comes first. Each state has its own sum, over its K "
    "branches: axis 1.",
)
def normalises_over_states(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_pi - log_q, dim=0) * q_values).sum(1)


@self_normalised.mistake(
    "detachment",
    "You hold the sum of the weights fixed; tempting, because it looks like a normalising constant. It depends on "
    "theta. Its gradient is what takes the mean Q of each state off, so that only differences count.",
)
def holds_the_sum_fixed(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum(1).detach()


@self_normalised.mistake(
    "numerics",
    "You average the log ratios instead of the ratios; tempting, because logarithms are what you were given. Weights "
    "are ratios of probabilities: exp of the difference.",
)
def weights_are_logarithms(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = log_pi - log_q
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "concept",
    "You take the mean off the Q-values first; tempting, because a baseline removes noise. The quotient does that "
    "already: the gradient stays as it is. But the value of the term is no longer that of the objective.",
)
def takes_the_mean_off(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    centered = q_values - q_values.mean(1, keepdim=True)
    return (torch.softmax(log_pi - log_q, dim=1) * centered).sum(1)


@self_normalised.mistake(
    "sign",
    "Your terms have the wrong sign; tempting, because the paper minimises costs, and optimisers minimise losses. Q is "
    "made of rewards here, and L is made as large as possible.",
)
def minimises(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return -(torch.softmax(log_pi - log_q, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "indexing",
    "You divide all terms by one sum, over states and branches together; tempting, because sum() without an axis adds "
    "up everything. Each state has its own sum, over its K branches.",
)
def divides_by_one_sum(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum()
