"""Solutions of lesson 03, The KL constraint."""

from __future__ import annotations

import torch
from torch import Tensor

from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch


def average_kl(visits: Tensor, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    """The constraint of equation 13, from tables."""
    # xlogy(0, 0) is 0, the limit of p log p.
    kl = (torch.xlogy(pi_old, pi_old) - torch.xlogy(pi_old, pi_new)).sum(-1)  # [S]
    # What is never visited counts nothing, even where an action was given up and kl is infinite.
    return torch.where(visits > 0, visits * kl, 0).sum()


def empirical_fisher(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    """The mean of score times score transposed, at the actions that were taken."""
    scores = torch.func.jacrev(lambda new: policy(new, batch.obs).log_prob(batch.actions))(theta)  # [N, num_parameters]
    mean: Tensor = scores.T @ scores / len(batch)
    return mean


def in_other_parameters(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Fisher matrix in phi, where theta = B phi."""
    # The chain rule, once for each derivative.
    return B.T @ g, B.T @ A @ B


def matching_penalty(g: Tensor, A: Tensor, delta: float) -> Tensor:
    """The penalty coefficient whose best step lies on the edge of the trust region."""
    # d = A^-1 g / lam, so d^T A d / 2 = g^T A^-1 g / (2 lam^2), which has to be delta.
    squared: Tensor = g @ torch.linalg.solve(A, g) / (2 * delta)
    return squared.sqrt()
