"""Solutions of lesson 07, The vine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def choose_states(lengths: Integers, uniforms: Floats) -> Integers:
    """(trajectory, step) for each number in [0, 1), [N, 2]; every step of the trunk is equally likely."""
    which = (uniforms * lengths.sum()).astype(np.int64)
    ends = np.cumsum(lengths)
    trajectory = np.searchsorted(ends, which, side="right")
    return np.stack([trajectory, which - (ends - lengths)[trajectory]], axis=1)


def branch_value(
    step: Callable[[Floats, int, float], tuple[Floats, float, bool]],
    state: Floats,
    first_action: int,
    policy: Callable[[Floats, float], int],
    noise: Floats,
    gamma: float,
    value: Callable[[Floats], float],
) -> float:
    """What a branch earns: the first action is given, the policy chooses the others; V stands for what was cut off."""
    total, discount, action = 0.0, 1.0, first_action
    for t, (number, luck) in enumerate(noise):
        if t > 0:
            action = policy(state, number)
        state, reward, terminated = step(state, action, luck)
        total += discount * reward
        discount *= gamma
        if terminated:
            return total
    return total + discount * value(state)


def random_numbers(
    fresh: Callable[..., Floats], num_states: int, num_branches: int, length: int
) -> tuple[Floats, Floats]:
    """For first actions, [N, K], each its own; for later steps, [length, N, K], common to the branches of a state."""
    first = fresh(num_states, num_branches)
    later = np.repeat(fresh(length, num_states, 1), num_branches, axis=2)
    return first, later


def self_normalised(log_pi: Tensor, log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:  # noqa: ARG001
    """The terms of equation 17, [N], for first actions that were drawn from any q."""
    weights = (log_pi - log_q).softmax(dim=1)  # exp of each, divided by their sum
    return (weights * q_values).sum(1)


def affordable_states(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    """How many states can have branches when trunk and branches together cost at most `budget` simulator steps."""
    return (budget - trunk_steps) // (num_branches * length)
