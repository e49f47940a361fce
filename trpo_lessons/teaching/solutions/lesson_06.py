"""Solutions of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trpo_lessons.envs.obs_statistics import RunningMoments


def returns(rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float) -> Tensor:
    """The reward and what is to come: nothing after a termination, a value where an episode or the record is cut."""
    found, future = [], next_values[-1]
    for t in reversed(range(len(rewards))):
        if truncated[t]:
            future = next_values[t]
        if terminated[t]:
            future = torch.zeros_like(future)
        future = rewards[t] + gamma * future
        found.append(future)
    return torch.stack(found[::-1])


def less_baseline(worth: Tensor, states: Tensor) -> Tensor:
    """Each return less the mean of the other returns from the same state."""
    alike = (states[:, None] == states[None, :]).double()
    others = alike - torch.eye(len(worth))
    return worth - others @ worth.double() / others.sum(1)


def advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """A_t = residual_t + gamma lam A_{t+1}, from the last row back; the sum stops where an episode ends."""
    found, later = [], torch.zeros_like(values[0])
    for t in reversed(range(len(rewards))):
        residual = rewards[t] + gamma * torch.where(terminated[t], 0.0, next_values[t]) - values[t]
        later = residual + gamma * lam * torch.where(terminated[t] | truncated[t], 0.0, later)
        found.append(later)
    return torch.stack(found[::-1])


def one_iteration(
    theta: Tensor,
    statistics: RunningMoments,
    collect: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor],
    update: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, RunningMoments]:
    """Collect and update with the same statistics; renew them for the next iteration."""
    raw_obs = collect(theta, statistics.normalise)
    theta = update(theta, statistics.normalise(raw_obs))
    return theta, statistics.including(raw_obs)


def miscounted() -> dict[str, str]:
    """Which bug each of the six suspects has."""
    return {
        "A": "value after a fall",
        "B": "log q of the next row",
        "C": "sum across resets",
        "D": "lambda left out",
        "E": "log q not detached",
        "F": "limit taken for an end",
    }
