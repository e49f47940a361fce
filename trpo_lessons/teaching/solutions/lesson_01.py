"""Solutions of lesson 01, The policy-improvement bound."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trpo_lessons.improvement_bound import mixture_policy, printed_theorem_bound
from trpo_lessons.mdp import TabularMDP, evaluate_policy, random_policy


def surrogate(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    """L of equation 3."""
    old = evaluate_policy(mdp, pi_old)
    expected_advantage = (pi_new * old.A).sum(-1)  # [S]
    return old.eta + old.rho @ expected_advantage


def policy_gradient(mdp: TabularMDP, logits: Tensor) -> Tensor:
    """The gradient of eta in the logits of a softmax policy, [S, A]."""
    pi = logits.softmax(-1)
    found = evaluate_policy(mdp, pi)
    # d pi(b) / d logit(a) = pi(b) (1[a = b] - pi(a)); summed against A(b), the second part is an average of A: zero.
    return found.rho[:, None] * pi * found.A


def coupling(p: Tensor, q: Tensor) -> Tensor:
    """A joint distribution [A, A] with marginals p and q whose two actions differ as rarely as possible."""
    shared = torch.minimum(p, q)
    rest_p, rest_q = p - shared, q - shared
    return torch.diag(shared) + torch.outer(rest_p, rest_q) / rest_p.sum()


def counterexample(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    """A policy for which the theorem as printed promises more than the truth."""
    rng = np.random.default_rng(0)
    while True:
        pi_new = mixture_policy(pi_old, random_policy(mdp, rng), 0.01)
        if printed_theorem_bound(mdp, pi_old, pi_new) > evaluate_policy(mdp, pi_new).eta + 1e-7:
            return pi_new


def lower_bound(mdp: TabularMDP, pi_old: Tensor, pi_new: Tensor) -> Tensor:
    """The right-hand side of equation 9."""
    old = evaluate_policy(mdp, pi_old)
    epsilon = old.A.abs().max()
    kl = (pi_old * (pi_old / pi_new).log()).sum(-1)  # [S]
    penalty = 2 * epsilon * mdp.gamma / (1 - mdp.gamma) ** 2 * kl.max()
    return surrogate(mdp, pi_old, pi_new) - penalty
