"""Solutions of lesson 00, Start here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]


def discounted_returns(rewards: Floats, gamma: float) -> Floats:
    """G_t = r_t + gamma G_{t+1}, from the last step back: [T] for rewards [T]."""
    returns = np.zeros(len(rewards))
    future = 0.0
    for t in reversed(range(len(rewards))):
        future = rewards[t] + gamma * future
        returns[t] = future
    return returns


def best_candidate(L: Floats, kl: Floats, C: float) -> int:
    """The candidate with the largest L - C kl: equation 9 in rewards."""
    return int(np.argmax(L - C * kl))


def softmax_log_prob(logits: Tensor, actions: Tensor) -> Tensor:
    """log softmax(logits[n])[actions[n]] for every row n, [N]."""
    rows = torch.arange(len(actions))
    return logits[rows, actions] - torch.logsumexp(logits, dim=1)
