"""Several actions in the same state: what to maximise, and how to choose the actions.

Reading order: after `single_path`. Lesson 07, section 5.2, equations 16 and 17.

A rollout set is N states with K actions in each, and an estimate of what every action is worth. The surrogate depends
on q, the distribution that the actions were drawn from: equation 16 is for every action once, equation 17 for actions
drawn from any q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trpo_lessons.distributions import Categorical, Distribution, FactoredCategorical
from trpo_lessons.surrogate import States, Surrogate

FirstActions = Callable[[Distribution, torch.Generator], tuple[Tensor, Tensor]]
"""q, as a function (pi_old in N states, generator) -> actions [N, K] or [N, K, action_dim], their log q [N, K]."""


@dataclass(frozen=True)
class RolloutSet(States):
    """N states with K actions in each, and what every action was found to be worth.

    obs       [N, *obs_shape]  observations, already normalised
    actions   [N, K] or [N, K, action_dim]
    q_values  [N, K]  estimates of Q(s, a); a constant may be added in each state, and no gradient below changes
    log_q     [N, K]  log probability (density) with which the action was drawn, in nats
    """

    actions: Tensor
    q_values: Tensor
    log_q: Tensor


def log_prob_of_each(distribution: Distribution, actions: Tensor) -> Tensor:
    """The log probabilities [N, K] of K actions in each of N states, [N, K] or [N, K, action_dim].

    A network that was asked once about a state answers for all its actions.
    """
    return torch.stack([distribution.log_prob(kth) for kth in actions.unbind(1)], dim=1)


def all_actions_surrogate(pi: Distribution, batch: RolloutSet) -> Tensor:
    """The terms of equation 16, [N]: sum_k pi_theta(a_k|s_n) Q(s_n, a_k), for every possible action once.

    Raises ValueError when the probabilities of a state's actions do not add up to 1: then these are not all actions,
    and equation 17 is needed.
    """
    probabilities = log_prob_of_each(pi, batch.actions).exp()
    if ((probabilities.detach().sum(1) - 1).abs() > 1e-3).any():
        raise ValueError("equation 16 needs every action of a state exactly once; for drawn actions use equation 17")
    return (probabilities * batch.q_values).sum(1)


def self_normalised_surrogate(pi: Distribution, batch: RolloutSet) -> Tensor:
    """The terms of equation 17, [N]: the mean of Q(s_n, a_nk) with the weights pi_theta(a_nk|s_n) / q(a_nk|s_n).

    The paper prints pi_old in the place of q, and means q = pi_old; for any other q that is inconsistent. Weights that
    are divided by their sum are a softmax of their logarithms. Its bias is of order 1/K: at theta_old, with q = pi_old,
    the expected gradient is (K - 1) / K times the true one, which the scale of the step makes up for.
    """
    weights = torch.softmax(log_prob_of_each(pi, batch.actions) - batch.log_q, dim=1)
    return (weights * batch.q_values).sum(1)


def from_the_policy(num_branches: int) -> FirstActions:
    """q = pi_old: `num_branches` independent draws. Continuous actions have hardly another choice."""

    def draw(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions = torch.stack([pi_old.sample(generator) for _ in range(num_branches)], dim=1)
        return actions, log_prob_of_each(pi_old, actions)

    return draw


def uniformly(num_branches: int) -> FirstActions:
    """q uniform, for discrete actions: `num_branches` independent draws. Explores better, says the paper, on Atari."""

    def draw(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        actions, log_q = every_action(pi_old, generator)
        picks = torch.randint(log_q.shape[1], (len(log_q), num_branches), generator=generator)
        return actions[0][picks], log_q[:, :1].expand(-1, num_branches)

    return draw


def every_action(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Every discrete action once, for equation 16; log q is that of the uniform distribution.

    Raises ValueError for continuous actions.
    """
    if isinstance(pi_old, Categorical):
        sizes = [pi_old.logits.shape[-1]]
    elif isinstance(pi_old, FactoredCategorical):
        sizes = pi_old.sizes
    else:
        raise ValueError("continuous actions cannot be listed or drawn uniformly: draw them from the policy")
    actions = torch.cartesian_prod(*map(torch.arange, sizes))
    log_q = torch.full((len(pi_old), len(actions)), -math.log(len(actions)), dtype=pi_old.parameters[0].dtype)
    return actions.expand(len(pi_old), *actions.shape), log_q


def surrogate_for(first_actions: FirstActions) -> Surrogate:
    """Equation 16 for every action once, equation 17 for any other q."""
    return all_actions_surrogate if first_actions is every_action else self_normalised_surrogate
