"""Why a policy that stays close to the old one can be trusted: equations 1 to 10 and Algorithm 1, exactly.

Reading order: after `mdp`. Lesson 01 (sections 2 and 3, appendices A and B of the paper).

The surrogate L of equation 3 predicts what a new policy earns from where the old one goes. Each bound subtracts from
L the most that going elsewhere can cost; in rewards, it is a *lower* bound on eta. Policies are tables [..., S, A]
and results have the leading dimensions [...] of the new policy, so a curve of mixtures takes one call. Functions that
are given the MDP raise ValueError when a table is not a policy for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import brentq  # type: ignore[import-untyped]
from torch import Tensor

from trpo_lessons.mdp import Array, TabularMDP, as_float64, draw, evaluate_policy


def surrogate_objective(mdp: TabularMDP, pi_old: Array, pi_new: Array) -> Tensor:
    """L (equation 3), [...]: what pi_new's actions would earn if the states visited stayed those of pi_old."""
    old, pi_new = evaluate_policy(mdp, pi_old), mdp.policy(pi_new)
    return old.eta + (old.rho.unsqueeze(-1) * pi_new * old.A).sum((-2, -1))


# How far apart two policies are (section 3)


def total_variation(pi_old: Array, pi_new: Array) -> Tensor:
    """Total variation in each state [..., S], in [0, 1]: half the summed absolute difference."""
    return 0.5 * (as_float64(pi_new) - as_float64(pi_old)).abs().sum(-1)


def max_total_variation(pi_old: Array, pi_new: Array) -> Tensor:
    """D_TV^max [...]: the total variation in the state where it is largest."""
    return total_variation(pi_old, pi_new).amax(-1)


def kl_divergence(pi_old: Array, pi_new: Array) -> Tensor:
    """KL(old || new) in each state [..., S], in nats; infinite where the new policy drops an action of the old one."""
    p, q = as_float64(pi_old), as_float64(pi_new)
    # Both sum to 1, so sum p log(p/q) = sum p (d - log(1 + d)) + [q where p is 0], with d = q/p - 1. No term is
    # negative, so nearly equal policies keep their digits; in the usual form they cancel to rounding noise.
    taken = p > 0
    divisor = torch.where(taken, p, 1)
    d, ratio = torch.where(taken, q - p, 0) / divisor, torch.where(taken, q, 1) / divisor
    return (p * (d - _log(ratio, d)) + torch.where(taken, 0, q)).sum(-1)


def max_kl(pi_old: Array, pi_new: Array) -> Tensor:
    """D_KL^max [...]: KL(old || new) in the state where it is largest, in nats."""
    return kl_divergence(pi_old, pi_new).amax(-1)


def _log(ratio: Tensor, d: Tensor) -> Tensor:
    """Log of a ratio, exact also near 1, where d = ratio - 1 holds more digits than the ratio."""
    return torch.where(d > -0.5, torch.log1p(d.clamp(min=-0.5)), ratio.log())


# Lower bounds on eta


def largest_expected_advantage(mdp: TabularMDP, pi_old: Array, pi: Array) -> Tensor:
    """Epsilon of equation 7, [...]: the largest over s of |E_{a ~ pi}[A_old(s, a)]|.

    There `pi` is the policy that is mixed in, pi' of equation 5, and not the mixture.
    """
    return (mdp.policy(pi) * evaluate_policy(mdp, pi_old).A).sum(-1).abs().amax(-1)


def largest_advantage(mdp: TabularMDP, pi_old: Array) -> Tensor:
    """Epsilon of Algorithm 1: the largest over s and a of |A_old(s, a)|."""
    return evaluate_policy(mdp, pi_old).A.abs().amax((-2, -1))


def penalty_coefficient(epsilon: Tensor, gamma: float) -> Tensor:
    """C = 2 epsilon gamma / (1 - gamma)^2, as in equations 8 to 10."""
    return 2 * epsilon * gamma / (1 - gamma) ** 2


def mixture_policy(pi_old: Array, pi_prime: Array, alpha: float | Tensor) -> Tensor:
    """Equation 5: with probability alpha do as pi_prime does. An alpha of shape [...] gives policies [..., S, A].

    Raises ValueError for an alpha that is not between 0 and 1.
    """
    weight = as_float64(alpha)[..., None, None]
    if not ((weight >= 0) & (weight <= 1)).all():
        raise ValueError("alpha is a mixing weight and must be between 0 and 1")
    return (1 - weight) * as_float64(pi_old) + weight * as_float64(pi_prime)


def mixture_bound(mdp: TabularMDP, pi_old: Array, pi_prime: Array, alpha: float | Tensor) -> Tensor:
    """Right-hand side of equation 6: what the mixture of equation 5 earns at least (conservative policy iteration)."""
    surrogate = surrogate_objective(mdp, pi_old, mixture_policy(pi_old, pi_prime, alpha))
    alpha, gamma, epsilon = as_float64(alpha), mdp.gamma, largest_expected_advantage(mdp, pi_old, pi_prime)
    return surrogate - 2 * epsilon * gamma / ((1 - gamma * (1 - alpha)) * (1 - gamma)) * alpha**2


def simple_mixture_bound(mdp: TabularMDP, pi_old: Array, pi_prime: Array, alpha: float | Tensor) -> Tensor:
    """Right-hand side of equation 8: equation 6 with a simpler and slightly larger penalty."""
    surrogate = surrogate_objective(mdp, pi_old, mixture_policy(pi_old, pi_prime, alpha))
    epsilon = largest_expected_advantage(mdp, pi_old, pi_prime)
    return surrogate - penalty_coefficient(epsilon, mdp.gamma) * as_float64(alpha) ** 2


def printed_theorem_bound(mdp: TabularMDP, pi_old: Array, pi_new: Array) -> Tensor:
    """Theorem 1 as printed, read for any pi_new: equation 8 with alpha = D_TV^max. It is **not** a bound.

    In equation 8 epsilon belongs to the policy that is mixed in. Here it belongs to pi_new and shrinks with alpha: the
    penalty is of order alpha^3, while L is wrong by order alpha^2.
    """
    epsilon, alpha = largest_expected_advantage(mdp, pi_old, pi_new), max_total_variation(pi_old, pi_new)
    return surrogate_objective(mdp, pi_old, pi_new) - penalty_coefficient(epsilon, mdp.gamma) * alpha**2


def total_variation_bound(mdp: TabularMDP, pi_old: Array, pi_new: Array) -> Tensor:
    """Theorem 1 as the paper's later version has it: twice the penalty, and epsilon the largest |A(s, a)| of all."""
    epsilon, alpha = largest_advantage(mdp, pi_old), max_total_variation(pi_old, pi_new)
    return surrogate_objective(mdp, pi_old, pi_new) - 2 * penalty_coefficient(epsilon, mdp.gamma) * alpha**2


def kl_bound(mdp: TabularMDP, pi_old: Array, pi_new: Array) -> Tensor:
    """Right-hand side of equation 9 with Algorithm 1's epsilon; minus infinity where the KL divergence is infinite.

    It follows from `total_variation_bound` by Pinsker's inequality, D_TV^2 <= D_KL / 2.
    """
    coefficient = penalty_coefficient(largest_advantage(mdp, pi_old), mdp.gamma)
    # Where nothing is at stake (no advantages, or no future) the largest move is free: 0 times infinity is 0 here.
    penalty = torch.where(coefficient > 0, coefficient * max_kl(pi_old, pi_new), 0)
    return surrogate_objective(mdp, pi_old, pi_new) - penalty


def linear_bound(mdp: TabularMDP, pi_old: Array, pi_new: Array) -> Tensor:
    """A bound with pi_new's own epsilon after all, for which the total variation enters linearly.

    Achiam, Held, Tamar and Abbeel, Constrained policy optimization (2017), corollary 1, here with the largest total
    variation instead of its mean.
    """
    epsilon, alpha = largest_expected_advantage(mdp, pi_old, pi_new), max_total_variation(pi_old, pi_new)
    return surrogate_objective(mdp, pi_old, pi_new) - penalty_coefficient(epsilon, mdp.gamma) * alpha


# The coupling argument (appendix A)


def maximal_coupling(p: Array, q: Array) -> Tensor:
    """A joint distribution [..., A, A] of two actions, the first from `p`, the second from `q` [..., A].

    They differ with probability D_TV(p, q). No joint distribution with these marginals does better, since both take
    action a together at most min(p(a), q(a)) of the time.
    """
    p, q = as_float64(p), as_float64(q)
    shared = torch.minimum(p, q)
    apart = (p - shared).sum(-1)[..., None, None]
    surplus = (p - shared).unsqueeze(-1) * (q - shared).unsqueeze(-2)
    return torch.diag_embed(shared) + surplus / torch.where(apart > 0, apart, 1)


def simulate_coupled(
    mdp: TabularMDP, pi_old: Array, pi_new: Array, num_trajectories: int, horizon: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Run two policies [S, A] on one source of randomness; states and actions, integers [2, trajectories, horizon].

    Each follows its own policy, but they act alike as often as possible, and the same action in the same state leads
    both to the same next state. So, while together, they part at a step with probability at most D_TV^max.
    """
    pi_old, pi_new = mdp.policy(pi_old), mdp.policy(pi_new)
    uniforms = as_float64(rng.random((2 * horizon, num_trajectories)))
    old = new = draw(mdp.rho0.expand(num_trajectories, -1), as_float64(rng.random(num_trajectories)))
    states, actions = [], []
    for t in range(horizon):
        pair = draw(maximal_coupling(pi_old[old], pi_new[new]).flatten(-2), uniforms[2 * t])
        states.append(torch.stack([old, new]))
        actions.append(torch.stack([pair // mdp.num_actions, pair % mdp.num_actions]))
        old, new = draw(mdp.P[states[-1], actions[-1]], uniforms[2 * t + 1])
    return torch.stack(states, dim=-1), torch.stack(actions, dim=-1)


# Algorithm 1


def guaranteed_policy_iteration(mdp: TabularMDP, pi: Array, iterations: int) -> Iterator[Tensor]:
    """Algorithm 1: yield `iterations` policies [S, A], each the one for which equation 9 promises most.

    Eta never falls, since standing still is allowed: L(pi) - C * 0 = eta(pi).
    """
    pi = mdp.policy(pi)
    for _ in range(iterations):
        pi = guaranteed_step(mdp, pi)
        yield pi


def guaranteed_step(mdp: TabularMDP, pi: Array) -> Tensor:
    """The policy [S, A] that maximises L - C * D_KL^max (equation 10).

    The best L within a KL radius kappa is known (`best_within_kl`), concave in kappa, and has the slope
    sum_s rho(s) lam(s). The maximum is where that slope has fallen to C; it is `pi` itself if the slope starts below C.
    """
    pi = mdp.policy(pi).detach()
    old = evaluate_policy(mdp, pi)
    C = float(penalty_coefficient(largest_advantage(mdp, pi), mdp.gamma))
    # Differences of advantages within the rounding of Q - V are none; to follow them would be to move at random.
    behind = old.A - old.A.amax(-1, keepdim=True)
    behind = torch.where(behind < -1e-13 * old.Q.abs().max(), behind, 0)
    possible_gain = -float((old.rho.unsqueeze(-1) * pi * behind).sum())
    if possible_gain == 0:
        return pi
    if C == 0:  # no future, no penalty
        return best_within_kl(pi, behind, math.inf)[0]

    def log_slope(log_kappa: float) -> float:
        _, lam = best_within_kl(pi, behind, math.exp(log_kappa))
        return math.log(max(float(old.rho @ lam) / C, 1e-300))

    # Concave, and never above possible_gain: the slope at kappa is at most possible_gain / kappa.
    upper = math.log(possible_gain / C)
    lower = upper - 70
    if log_slope(lower) <= 0:
        return pi
    return best_within_kl(pi, behind, math.exp(brentq(log_slope, lower, upper, xtol=1e-9)))[0]


def best_within_kl(pi: Tensor, advantages: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """In each state, the policy [S, A] of largest expected advantage with KL(pi || .) <= kappa, and its price [S].

    The Lagrange conditions give new(a) = lam pi(a) / (nu - A(a)) with nu >= max A; bisection finds the nu where KL =
    kappa. The price lam is the advantage that one more nat would buy. Two cases need care. A state where `pi` takes
    best actions only has nothing to gain and stays. Where `pi` never takes a best action, nu can reach max A with KL
    to spare: then lam spends the rest, and the probability it frees goes to a best action. Raises ValueError unless
    kappa > 0.
    """
    if not kappa > 0:
        raise ValueError(f"kappa is {kappa}, but a KL radius must be above 0")
    new, price = pi.clone(), torch.zeros(len(pi), dtype=torch.float64)
    behind = advantages.amax(-1, keepdim=True) - advantages
    improvable = (pi * behind).sum(-1) > 0
    pi, behind = pi[improvable], behind[improvable]
    # Bisect log x, where x = nu - max A. At the first `high` KL is below kappa (Hoeffding's lemma for log(x + behind)).
    scale = behind.amax(-1, keepdim=True).log()
    floor = scale - 600
    low, high = floor, torch.maximum(scale - 0.5 * math.log(kappa), floor)
    for _ in range(56):
        middle = (low + high) / 2
        too_far = _kl_and_price(pi, behind, middle.exp())[0] > kappa
        low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
    kl, lam = _kl_and_price(pi, behind, high.exp())
    lam = torch.where(low == floor, lam * torch.exp(kl - kappa), lam)
    # A probability that underflowed to zero would make KL infinite; the smallest positive number keeps it below kappa.
    table = torch.where(pi > 0, (lam * pi / (high.exp() + behind)).clamp(min=torch.finfo(torch.float64).tiny), 0)
    freed = torch.where(low == floor, 1 - table.sum(-1, keepdim=True), 0).clamp(min=0)
    table = table.scatter_add(-1, behind.argmin(-1, keepdim=True), freed)
    new[improvable], price[improvable] = table / table.sum(-1, keepdim=True), lam.squeeze(-1)
    return new, price


def _kl_and_price(pi: Tensor, behind: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """KL(pi || new) and lam, both [S, 1], for new(a) = lam pi(a) / (x + behind(a)) with lam such that it sums to 1."""
    # With u = (x + behind) / its mean = 1 + d: KL = E[log u] + log E[1/u]. As E[d] = 0, E[1/u] = 1 + E[d^2/u], which
    # keeps the digits of a tiny KL.
    mean = x + (pi * behind).sum(-1, keepdim=True)
    u, d = (x + behind) / mean, (x + behind - mean) / mean
    excess = (pi * d * (d / u)).sum(-1, keepdim=True)
    return (pi * _log(u, d)).sum(-1, keepdim=True) + torch.log1p(excess), mean / (1 + excess)
