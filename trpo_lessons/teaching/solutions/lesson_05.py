"""Solutions of lesson 05, The trust-region step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trpo_lessons.teaching.checks.hunts import SEED
from trpo_lessons.teaching.lesson_05.bug_hunt import HUNT


def full_step(x: Tensor, product: Callable[[Tensor], Tensor], damping: float, delta: float) -> Tensor:
    """The multiple of x at which the damped quadratic model of the KL is delta."""
    curvature = torch.dot(x, product(x) + damping * x)
    return torch.sqrt(2 * delta / curvature) * x


def search(
    surrogate: Callable[[Tensor], float],
    mean_kl: Callable[[Tensor], float],
    theta: Tensor,
    step: Tensor,
    delta: float,
    shrink: float,
    tries: int,
) -> Tensor:
    """The first of theta + step, theta + shrink step, ... that improves the surrogate within delta; or theta."""
    for j in range(tries):
        new = theta + shrink**j * step
        if surrogate(new) > surrogate(theta) and mean_kl(new) <= delta:
            return new
    return theta


def sampled_kl(log_prob: Tensor, log_q: Tensor) -> Tensor:
    """Mean of w - 1 - log w: unbiased for KL(q || pi), and never negative."""
    log_w = log_prob - log_q
    return (torch.exp(log_w) - 1 - log_w).mean()


def culprits(seed: int = SEED) -> dict[str, str]:
    """Which bug each of the five suspects has, in the line-up of this seed."""
    return HUNT.truth(seed)
