"""The constraint of equation 12: no visited state may be further away than delta, where TRPO bounds their mean.

    maximise    g^T d
    subject to  1/2 d^T A_s d <= delta   in every state s

with A_s the Fisher matrix of that state alone: the problem that TRPO's step solves, with one constraint for each state
in the place of their mean. It is convex, and of thousands of constraints hardly more than there are parameters matter.
So it is solved with few of them, to which the one that is broken worst is added until none is broken: cutting planes
(Kelley, 1960). The matrices of all states are written out, and so this is not for networks.

As in TRPO, quadratic models are right only up close: a search then shrinks the step until the true largest KL is at
most delta and the true surrogate improves. The largest KL is over *sampled* states. It can only grow with the batch,
and says nothing of states that were not seen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from torch import Tensor

from trpo_lessons.policies import Policy
from trpo_lessons.problem import Candidate, Problem, Refused
from trpo_lessons.surrogate import Samples, chunks
from trpo_lessons.trpo import Stopwatch, TrustRegion, UpdateReport, search

MOST_PARAMETERS = 50
TOLERANCE = 1e-4
MOST_CUTS = 200
Floats = NDArray[np.float64]


def max_kl_update(problem: Problem, theta: Tensor, region: TrustRegion | None = None) -> tuple[Tensor, UpdateReport]:
    """One update from `theta` [num_parameters]: the new theta and a report, as of `trpo_update`.

    region   delta bounds the largest KL; damping is added to every state's matrix, shrink and max_backtracks are those
             of the search. All states count: `fisher_stride` is not used, and there is nothing for conjugate gradient
             to solve.

    Raises ValueError for a policy of more than `MOST_PARAMETERS`.
    """
    check_num_parameters(problem.policy)
    region, clock, facts = region or TrustRegion(), Stopwatch(), dict[str, Any]()
    try:
        with clock.timing("gradient"):
            start = problem.start(theta)
            facts |= start.facts
        with clock.timing("cg"):
            matrices = fisher_of_each(problem.policy, theta, problem.states, problem.chunk_size)
            matrices += region.damping * np.eye(len(theta))
            step = longest_step(matrices, start.gradient.double().cpu().numpy(), region.delta)
        with clock.timing("search"):
            full_step = torch.from_numpy(step).to(theta)
            new_theta, found = search(problem, theta, full_step, start, region, largest_kl_or_surrogate)
    except Refused as refusal:
        return theta, UpdateReport(str(refusal), **(facts | refusal.facts), seconds=clock.seconds)
    return new_theta, UpdateReport("accepted", accepted=True, **(facts | found), seconds=clock.seconds)


def check_num_parameters(policy: Policy) -> None:
    """Raises ValueError for a policy of more than `MOST_PARAMETERS`."""
    if policy.num_parameters > MOST_PARAMETERS:
        raise ValueError(
            f"max-kl needs a Fisher matrix for every state, and so a policy of at most {MOST_PARAMETERS} parameters; "
            f"this one has {policy.num_parameters}. Linear ones (hidden=()) have fewer; or use trpo"
        )


def largest_kl_or_surrogate(candidate: Candidate, surrogate_before: float, delta: float) -> str:
    """The objections of equation 12: a KL above delta in any state, or a surrogate that does not improve."""
    if not (math.isfinite(candidate.surrogate) and math.isfinite(candidate.max_kl)):
        return "the surrogate or the KL is not finite along the whole step"
    if candidate.max_kl > delta:
        return f"the largest KL is still {candidate.max_kl:.3g} > delta = {delta:.3g} at the shortest step"
    if candidate.surrogate <= surrogate_before:
        return f"the surrogate does not improve (by {candidate.surrogate - surrogate_before:.3g} at the shortest step)"
    return ""


def fisher_of_each(policy: Policy, theta: Tensor, states: Samples, chunk_size: int | None = None) -> Floats:
    """The analytic Fisher matrix at theta of every state alone, J_s^T M_s J_s: [N, num_parameters, num_parameters]."""
    return np.concatenate([_fisher_of_each(policy, theta, chunk.obs) for chunk in chunks(states, chunk_size)])


def _fisher_of_each(policy: Policy, theta: Tensor, obs: Tensor) -> Floats:
    # A column of J in all states at once is J e_j: the derivative of J^T u in u, as in `kl.gauss_newton_product`.
    at = theta.detach().requires_grad_()
    pi = policy(at, obs)
    u = tuple(torch.zeros_like(output, requires_grad=True) for output in pi.parameters)
    (pulled_back,) = torch.autograd.grad(pi.parameters, at, u, create_graph=True)
    basis = torch.eye(len(theta), device=theta.device, dtype=theta.dtype)
    columns = [torch.autograd.grad(pulled_back, u, e, retain_graph=True) for e in basis]
    with torch.no_grad():
        measured = [pi.detach().fisher_metric(column) for column in columns]
        J, MJ = (torch.stack([torch.cat(each, 1) for each in many], 2).double() for many in (columns, measured))
        return (J.transpose(1, 2) @ MJ).cpu().numpy()


def longest_step(matrices: Floats, gradient: Floats, delta: float) -> Floats:
    """The d [p] that maximises g^T d subject to 1/2 d^T A_s d <= delta for all `matrices` A_s [N, p, p].

    It keeps all constraints, and its g^T d is at most a share of `TOLERANCE` below the maximum. Raises Refused where
    the numbers break down.
    """
    try:
        # In coordinates u where the mean of all matrices is 1, and 2 delta is: so no direction is much harder to see.
        to_d = math.sqrt(2 * delta) * np.linalg.inv(np.linalg.cholesky(matrices.mean(0))).T
    except np.linalg.LinAlgError as error:
        raise Refused(f"the mean of the Fisher matrices cannot be used: {error}") from error
    lengths = to_d.T @ matrices @ to_d / (2 * delta)
    slope = to_d.T @ gradient
    slope, u, few = slope / np.linalg.norm(slope), slope / np.linalg.norm(slope), list[int]()
    for _ in range(MOST_CUTS):
        squares = (lengths @ u) @ u
        worst = int(squares.argmax())
        too_long = math.sqrt(squares[worst]) if np.isfinite(squares).all() else math.nan
        if few and too_long <= 1 + TOLERANCE:
            return np.asarray(to_d @ u / max(too_long, 1.0))
        few.append(worst)
        u = _under(lengths[few], slope, u / too_long)
    raise Refused(f"the largest step was not found with {MOST_CUTS} states' constraints")


def _under(lengths: Floats, slope: Floats, first: Floats) -> Floats:
    """The u that maximises slope . u subject to u^T B u <= 1 for all B in `lengths` [K, p, p], from a feasible u."""
    room = {"type": "ineq", "fun": lambda u: 1 - (lengths @ u) @ u, "jac": lambda u: -2 * (lengths @ u)}
    options = {"maxiter": 200, "ftol": 1e-12}
    found = minimize(
        lambda u: -(slope @ u), first, jac=lambda _: -slope, method="SLSQP", constraints=room, options=options
    )
    return np.asarray(found.x)
