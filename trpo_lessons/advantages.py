"""How much better an action was than usual: returns, generalised advantage estimation.

Reading order: after `envs`. Lesson 06, section 5.1.

All arrays are [T, E]: T steps of E environments side by side. A step can be the last one of its episode for two reasons
that mean opposite things. After a **termination** there is no future, and its value is zero. After a **truncation** (a
time limit, or simply the end of our sampling) the future exists and nobody has seen it: its value is estimated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trpo_lessons.envs.obs_statistics import unit_of


def discounted_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> Tensor:
    """Discounted sum of rewards from every step to the end of its episode, [T, E], float64.

    `next_values` [T, E] is the value of the state that each step led to, before any reset. It is used where an episode
    is truncated and at the last row, never after a termination; pass zeros for returns without a value function, as in
    the paper.
    """
    rows = torch.empty_like(rewards, dtype=torch.float64)
    future = next_values[-1]
    for t in reversed(range(len(rewards))):
        future = torch.where(truncated[t], next_values[t], future)
        future = rewards[t].double() + gamma * torch.where(terminated[t], 0.0, future)
        rows[t] = future
    return rows


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimates, [T, E], float64: Schulman et al. (2016), equation 16.

    A_t = sum_k (gamma lam)^k residual_{t+k}, with residual_t = r_t + gamma V(s_{t+1}) - V(s_t), within one episode.
    `values` [T, E] is V(s_t); `next_values` [T, E] is V of the state that the step led to, before any reset,
    and may be anything after a termination.
    lam = 1 gives discounted returns minus values (no bias from V, but where a path is cut), lam = 0 the one-step
    residual (as a rule with less variance; not where V varies more than the returns).
    """
    # Chosen by torch.where, not multiplied by 0: what does not count may be anything, and NaN times 0 is NaN.
    residuals = rewards.double() + gamma * torch.where(terminated, 0.0, next_values) - values
    ended = terminated | truncated
    rows = torch.empty_like(residuals)
    later = torch.zeros_like(residuals[0])
    for t in reversed(range(len(rewards))):
        later = residuals[t] + torch.where(ended[t], 0.0, gamma * lam * later)
        rows[t] = later
    return rows


def standardised(advantages: Tensor) -> Tensor:
    """Advantages with mean 0 and standard deviation 1: the update's direction does not depend on their scale."""
    mean = advantages.mean()
    return (advantages - mean) / unit_of(advantages.std(), mean)
