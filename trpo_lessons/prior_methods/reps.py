"""Relative entropy policy search, step-based (Peters, Muelling and Altun, 2010): an exact bound on the *samples*.

Among all ways to weigh the samples of states and actions, REPS takes

    max over w of  mean of w A     subject to  mean of w log w <= epsilon   near the samples that were drawn
                                               mean of w c = 0              with a distribution of states that may be
                                               mean of w = 1

The solution is w = exp(delta_v / eta), up to a factor, with delta_v = A + c^T v, where eta and v minimise the dual

    g(eta, v) = eta epsilon + eta log mean exp(delta_v / eta)

The policy is then fitted to the weighted samples. Epsilon bounds the KL of the weights, over states and actions. How
far the fitted policy goes, nothing bounds: it depends on what the policy can express and on how well it is fitted.

What a distribution of states may be, two constraints can say, both of features phi of the state:

    flow     c = phi(s') - phi(s)           as often as a state is come to, so often it is left: the original
    visited  c = mean of phi - phi(s)       the states stay as they were visited: what the surrogate of equation 3
                                            assumes, and contextual REPS (Kupcsik et al., 2013)

The flow is that of a chain in which a new episode follows the last one at no cost. There the mean of w r is the reward
of a step, averaged over all steps, and not the return of an episode. Where each step is paid 1 until the pole falls, it
is 1 for every policy: nothing is left to be improved. An advantage knows what a fall costs, but its part that actions
decide is, near enough, a change of features, and v takes that away. So `visited` is what training uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import logsumexp  # type: ignore[import-untyped]
from torch import Tensor

from trpo_lessons.prior_methods.weighted_fit import FIT_FACTS, Weights, weighted_fit_update
from trpo_lessons.problem import Problem, Refused
from trpo_lessons.surrogate import Batch
from trpo_lessons.trpo import UpdateReport

REPS_FACTS = (*FIT_FACTS, "temperature", "constraint_gap")
LOWEST_TEMPERATURE = 1e-3  # of advantages with standard deviation 1; the dual is not smooth at 0
LARGEST_EXCESS = 1.05  # of KL over epsilon, where the dual counts as solved
Floats = NDArray[np.float64]
Constraint = Callable[[Tensor], Floats]
"""Observations [N, obs_dim] -> c [N, num_features], whose weighted mean must be 0."""


def visited(obs: Tensor) -> Floats:
    """No feature's mean may change: mean of phi - phi(s), for `obs` [N, obs_dim]."""
    return -features(obs)  # which have mean 0


def flow(obs: Tensor, num_steps: int) -> Floats:
    """In every feature flow in is flow out: phi(s') - phi(s), for `obs` [N, obs_dim].

    `obs` holds `num_steps` states in a row for every environment, one environment after the other. So s' of a step is
    the state of the following row: the next one, or the first one of the next episode. The last step of an environment
    has no follower, and constrains nothing. Raises ValueError where rows are not so long.
    """
    if len(obs) % num_steps:
        raise ValueError(f"{len(obs)} states are not rows of {num_steps}")
    phi = features(obs)
    rows = phi.reshape(-1, num_steps, phi.shape[1])
    changes = np.zeros_like(rows)
    changes[:, :-1] = rows[:, 1:] - rows[:, :-1]
    return changes.reshape(len(obs), -1)


def features(obs: Tensor) -> Floats:
    """phi: every component of `obs` [N, obs_dim] and its square, made uncorrelated: [N, at most 2 obs_dim].

    Each has mean 0 and standard deviation 1. What they can say together is the same as before, and so are the weights;
    but the dual is as steep in one direction as in another, which spares most iterations. Raises ValueError for
    observations that are no vectors.
    """
    if obs.ndim != 2:
        raise ValueError(f"REPS needs features of vectors, got observations {tuple(obs.shape)}")
    obs = obs.double().cpu()
    phi = torch.cat([obs, obs.square()], 1).numpy()
    phi = phi - phi.mean(0)
    spread = phi.std(0)
    basis, sizes, _ = np.linalg.svd(phi / np.where(spread > 1e-9, spread, 1.0), full_matrices=False)
    return np.asarray(basis[:, sizes > 1e-6 * sizes.max(initial=1e-9)] * math.sqrt(len(phi)))


def reps_update(
    problem: Problem,
    theta: Tensor,
    epsilon: float = 0.25,
    fit_iterations: int = 20,
    constraint: Constraint = visited,
) -> tuple[Tensor, UpdateReport]:
    """One update from `theta` [num_parameters]: weights by the dual, the policy fitted to them, and a report.

    epsilon     largest KL(weighted samples || samples), in nats
    constraint  of the states' distribution: `visited`, or `partial(flow, num_steps=...)`

    The report's facts, beside those of `weighted_fit_update`: `temperature`, eta; `constraint_gap`, the largest
    |mean of w c| that is left, in standard deviations of a feature.

    Raises ValueError unless epsilon is above 0, observations are vectors, and there is one action in every state.
    """
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be above 0 and finite, got {epsilon}")
    weigh = partial(relative_entropy_weights, epsilon=epsilon, constraint=constraint)
    return weighted_fit_update(problem, theta, weigh, fit_iterations)


def relative_entropy_weights(batch: Batch, epsilon: float, constraint: Constraint = visited) -> Weights:
    """REPS' weights of the samples; see `reps_update`. Raises Refused where the dual was not solved."""
    advantages, c = batch.advantages.double().cpu().numpy(), constraint(batch.obs)
    eta, v = solve_dual(advantages, c, epsilon)
    log_w = (advantages + c @ v) / eta
    w = np.exp(log_w - logsumexp(log_w))
    gap = float(np.abs(w @ c).max(initial=0.0))
    weights = Weights.of(torch.from_numpy(w), temperature=eta, constraint_gap=gap)
    if not weights.kl <= LARGEST_EXCESS * epsilon:
        raise Refused(f"REPS' dual was not solved: the weights' KL is {weights.kl:.3g}, with epsilon {epsilon:.3g}")
    return weights


def solve_dual(advantages: Floats, c: Floats, epsilon: float) -> tuple[float, Floats]:
    """(eta, v) that minimise the dual, for `advantages` [N] and `c` [N, num_features].

    Raises Refused where no weights within epsilon hold the constraint: the dual has no minimum then, and falls below
    every mean of w A that there could be.
    """
    first = np.zeros(1 + c.shape[1])
    first[0] = max(LOWEST_TEMPERATURE, advantages.std() / math.sqrt(2 * epsilon))  # exact for normal advantages
    bounds = [(LOWEST_TEMPERATURE, None)] + [(None, None)] * c.shape[1]
    options = {"maxiter": 1000, "maxfun": 2000, "ftol": 1e-12, "gtol": 1e-6}
    found = minimize(dual, first, (advantages, c, epsilon), "L-BFGS-B", jac=True, bounds=bounds, options=options)
    if found.fun < advantages.min():
        raise Refused(f"no weights within epsilon = {epsilon:.3g} nats of the samples hold REPS' constraint")
    return float(found.x[0]), np.asarray(found.x[1:])


def dual(parameters: Floats, advantages: Floats, c: Floats, epsilon: float) -> tuple[float, Floats]:
    """g(eta, v) and its gradient, at `parameters` = (eta, v)."""
    eta, v = parameters[0], parameters[1:]
    scaled = (advantages + c @ v) / eta
    log_sum = logsumexp(scaled)  # subtracts the maximum
    weights = np.exp(scaled - log_sum)
    bound = epsilon + log_sum - math.log(len(scaled))
    return eta * bound, np.concatenate([[bound - weights @ scaled], weights @ c])
