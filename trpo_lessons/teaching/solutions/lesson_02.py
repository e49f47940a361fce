"""Solutions of lesson 02, The surrogate loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def estimate(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    """Equation 15's objective from N samples."""
    ratios = torch.exp(log_prob - log_q)
    return (ratios * advantages).mean()


def samples_needed(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> int:
    """How many samples of the old policy it takes to see the change that L promises at two standard errors."""
    pairs = visits[:, None] * pi_old  # [S, A], how often each state-action pair is drawn
    terms = (pi / pi_old - 1) * advantages  # [S, A], what it says about the gain: the term here less the one at pi_old
    gain = (pairs * terms).sum()
    variance = (pairs * (terms - gain).square()).sum()
    return math.ceil(4 * variance / gain.square())


def effective_sample_size(log_ratios: Tensor) -> Tensor:
    """(sum of w)^2 / (sum of w^2)."""
    # A common factor cancels, so the largest weight may be made 1: then exp cannot overflow.
    weights = torch.exp(log_ratios - log_ratios.max())
    return weights.sum().square() / weights.square().sum()


def from_stream(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    """An estimate of L - eta(theta_old) from episodes written one after the other."""
    total, discount = torch.zeros((), dtype=ratios.dtype), 1.0
    for ratio, advantage, first in zip(ratios, advantages, starts, strict=True):
        discount = 1.0 if first else discount * gamma
        total = total + discount * ratio * advantage
    return total / starts.sum()
