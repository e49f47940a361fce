"""Solutions of lesson 04, Conjugate gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trpo_lessons.policies import Policy


def softmax_fisher_product(W: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    """A v [D, num_actions] for the policy softmax(obs @ W): J v, then M, then J^T."""
    probs = (obs @ W).softmax(-1)
    pushed_forward = obs @ v  # [N, num_actions]
    expected = (probs * pushed_forward).sum(-1, keepdim=True)
    measured = probs * (pushed_forward - expected)
    return obs.T @ measured / len(obs)


def fisher_product(policy: Policy, theta: Tensor, obs: Tensor, v: Tensor) -> Tensor:
    """A v [num_parameters]: the mean KL differentiated twice, the second time along v."""
    old = policy(theta, obs).detach()
    new = theta.detach().requires_grad_()
    mean_kl = old.kl(policy(new, obs)).mean()
    (slope,) = torch.autograd.grad(mean_kl, new, create_graph=True)
    (result,) = torch.autograd.grad(torch.dot(slope, v), new)
    return result


def solve(matvec: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Conjugate gradient on A x = b [n], from x = 0."""
    x = torch.zeros_like(b)
    r, p = b.clone(), b.clone()
    rr = torch.dot(r, r)
    for _ in range(iterations):
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        x = x + alpha * p
        r = r - alpha * a_p
        rr, rr_before = torch.dot(r, r), rr
        p = r + rr / rr_before * p
    return x


def enough_iterations(smallest: float, largest: float, damping: float, tolerance: float) -> int:
    """After so many iterations the bound on the error is at most `tolerance`."""
    root = math.sqrt((largest + damping) / (smallest + damping))
    return max(0, math.ceil(math.log(tolerance / 2) / math.log((root - 1) / (root + 1))))
