"""One trust-region update: where to step, how far, and whether to step at all.

Reading order: after `line_search`. Lesson 05, section 6 and appendix C.

    maximise    L(theta)                        the surrogate, equation 15
    subject to  mean KL(old || new) <= delta    equation 13

Near theta_old the surrogate is linear, g^T (theta - theta_old), and the KL quadratic, 1/2 d^T A d with
d = theta - theta_old. The solution of that simpler problem is beta x, with x = A^-1 g and
beta = sqrt(2 delta / x^T A x). Conjugate gradient finds x; a line search then shrinks the step until the true surrogate
improves and the true KL is at most delta.

Theta goes in, a new theta and a report come out, and nothing is changed in place.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trpo_lessons.conjugate_gradient import conjugate_gradient
from trpo_lessons.distributions import Distribution
from trpo_lessons.kl import MatrixVectorProduct, distributions_in, fisher_vector_product
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import (
    Samples,
    StatesAnd,
    Surrogate,
    asked_already,
    mean_over,
    sampled_surrogate,
    surrogate_value,
    value_and_gradient,
)

Fisher = Callable[..., MatrixVectorProduct]


@dataclass(frozen=True)
class UpdateReport:
    """What one update did, and why. KL in nats; the surrogate in units of the advantages.

    accepted           whether theta moved
    reason             "accepted", or why theta was left as it was
    surrogate_before   L(theta_old)
    surrogate_after    L at the returned theta
    predicted_gain     g^T step for the returned step: what the linear model promised
    mean_kl, max_kl    KL(old || new) over all states in the batch, at the returned theta
    gradient_norm      ||g||
    residual_norms     of conjugate gradient, before the first iteration and after each one
    step_norm          ||theta_new - theta_old||
    step_fraction      accepted fraction of the full step beta x; 0 when none was
    backtracks         how often the step was shrunk
    seconds            wall time of "gradient", "cg" and "search"; two reports that differ only here compare equal
    """

    surrogate_before: float
    accepted: bool = False
    reason: str = ""
    surrogate_after: float = math.nan
    predicted_gain: float = 0.0
    mean_kl: float = 0.0
    max_kl: float = 0.0
    gradient_norm: float = math.nan
    residual_norms: tuple[float, ...] = ()
    step_norm: float = 0.0
    step_fraction: float = 0.0
    backtracks: int = 0
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def actual_gain(self) -> float:
        """By how much the surrogate really rose."""
        return self.surrogate_after - self.surrogate_before


@dataclass(frozen=True)
class Direction:
    """The natural gradient, before it is scaled.

    x               [num_parameters]  solution of (A + damping I) x = g
    curvature       x^T (A + damping I) x: twice the KL, by the quadratic model, of stepping by x itself
    residual_norms  of conjugate gradient
    problem         why x must not be used; "" when it may
    """

    x: Tensor
    curvature: float
    residual_norms: tuple[float, ...]
    problem: str


@dataclass(frozen=True)
class Candidate:
    """A point on the line search's path, with what decides about it; KL from the old policy."""

    theta: Tensor
    surrogate: float
    mean_kl: float
    max_kl: float


@dataclass(frozen=True)
class Remembered(StatesAnd):
    """The states of an update, and what the old policy says in them: it is asked once, not for every candidate."""

    old: Distribution


def trpo_update(
    policy: Policy,
    theta: Tensor,
    batch: Samples,
    *,
    delta: float = 0.01,
    damping: float = 0.1,
    cg_iterations: int = 10,
    residual_tol: float = 1e-10,
    shrink: float = 0.5,
    max_backtracks: int = 10,
    surrogate: Surrogate = sampled_surrogate,
    fisher: Fisher = fisher_vector_product,
    fisher_stride: int = 1,
    states: Samples | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, UpdateReport]:
    """One TRPO step from `theta` [num_parameters]: the new theta and a report.

    `batch` feeds the surrogate. KL and Fisher matrix average over `states`, by default the batch itself (the vine
    gives its trunk); `fisher_stride` thins them for the Fisher products alone (section 6: a tenth is enough), never for
    the gradient or the search. `damping` is added to the Fisher matrix's diagonal, in the solve and in the scale alike.
    `chunk_size` bounds how many states are processed at once.

    The update is refused, with theta unchanged and the reason in the report, when anything is not finite, when there is
    nothing to improve, or when no candidate improves the surrogate with mean KL <= delta.

    Raises ValueError for settings out of range.
    """
    _check_settings(delta, damping, cg_iterations, fisher_stride)
    states = batch if states is None else states
    clock = Stopwatch()

    surrogate_before, gradient, old = value_and_gradient(policy, theta, batch, surrogate, chunk_size)
    report = UpdateReport(surrogate_before, surrogate_after=surrogate_before, gradient_norm=gradient.norm().item())
    clock.lap("gradient")
    if not (math.isfinite(surrogate_before) and math.isfinite(report.gradient_norm)):
        return theta, _refused(report, "the surrogate or its gradient is not finite", clock)
    if report.gradient_norm == 0:
        return theta, _refused(report, "the gradient is zero: nothing to improve", clock)

    product = fisher(policy, theta, states[::fisher_stride], chunk_size)
    direction = natural_direction(product, gradient, damping, cg_iterations, residual_tol)
    report = replace(report, residual_norms=direction.residual_norms)
    clock.lap("cg")
    if direction.problem:
        return theta, _refused(report, f"conjugate gradient broke down: {direction.problem}", clock)
    full_step = math.sqrt(2 * delta / direction.curvature) * direction.x

    if states is not batch:
        old = distributions_in(policy, theta, states, chunk_size)
    remembered = Remembered(states, old)

    def evaluate(fraction: float) -> Candidate:
        return candidate_at(theta + fraction * full_step, policy, batch, surrogate, remembered, chunk_size)

    def acceptable(candidate: Candidate) -> bool:
        # Written so that a NaN on either side refuses the candidate.
        return surrogate_before < candidate.surrogate < math.inf and candidate.mean_kl <= delta

    search = backtracking_line_search(evaluate, acceptable, shrink, max_backtracks)
    report = replace(report, backtracks=search.backtracks, step_fraction=search.fraction)
    clock.lap("search")
    if not search.accepted:
        return theta, _refused(report, _why_rejected(search.facts, surrogate_before, delta), clock)
    new = search.facts.theta
    return new, replace(
        report,
        accepted=True,
        reason="accepted",
        surrogate_after=search.facts.surrogate,
        predicted_gain=torch.dot(gradient.double(), (new - theta).double()).item(),
        mean_kl=search.facts.mean_kl,
        max_kl=search.facts.max_kl,
        step_norm=(new - theta).norm().item(),
        seconds=clock.seconds,
    )


def candidate_at(
    theta: Tensor,
    policy: Policy,
    batch: Samples,
    surrogate: Surrogate,
    remembered: Remembered,
    chunk_size: int | None = None,
) -> Candidate:
    """The candidate `theta` [num_parameters]: its surrogate over the batch, its KL over the remembered states.

    Where these are the batch, as on a single path, one pass of the network serves both.
    """
    shared = remembered.states is batch
    largest = []

    def sums(chunk: Remembered) -> Tensor:
        new = policy(theta, chunk.obs)
        kl = chunk.old.kl(new)
        largest.append(kl.max())
        terms = surrogate(asked_already(new), theta, chunk.states) if shared else torch.zeros_like(kl)
        return torch.stack([terms.double().sum(), kl.double().sum()])

    with torch.no_grad():
        value, mean_kl = mean_over(remembered, sums, chunk_size).tolist()
    if not shared:
        value = surrogate_value(policy, theta, batch, surrogate, chunk_size)
    return Candidate(theta, value, mean_kl, torch.stack(largest).max().item())


def natural_direction(
    fisher_product: MatrixVectorProduct,
    gradient: Tensor,
    damping: float,
    cg_iterations: int = 10,
    residual_tol: float = 1e-10,
) -> Direction:
    """Solve (A + damping I) x = `gradient` [num_parameters], given v -> A v (appendix C)."""

    def damped(v: Tensor) -> Tensor:
        return fisher_product(v) + damping * v

    solution = conjugate_gradient(damped, gradient, cg_iterations, residual_tol)
    curvature = torch.dot(solution.x.double(), solution.product.double()).item()
    problem = solution.breakdown
    if not problem and not 0 < curvature < math.inf:
        problem = f"x^T A x is {curvature:.3g}, but must be positive and finite"
    return Direction(solution.x, curvature, solution.residual_norms, problem)


def _check_settings(delta: float, damping: float, cg_iterations: int, fisher_stride: int) -> None:
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be positive and finite, got {delta}")
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping must be non-negative and finite, got {damping}")
    if cg_iterations < 1 or fisher_stride < 1:
        raise ValueError(f"cg_iterations and fisher_stride must be at least 1, got {cg_iterations} and {fisher_stride}")


def _refused(report: UpdateReport, reason: str, clock: Stopwatch) -> UpdateReport:
    return replace(report, reason=reason, seconds=clock.seconds)


def _why_rejected(last: Candidate, surrogate_before: float, delta: float) -> str:
    if not (math.isfinite(last.surrogate) and math.isfinite(last.mean_kl)):
        return "line search: the surrogate or the KL is not finite along the whole step"
    if last.mean_kl > delta:
        return f"line search: mean KL is still {last.mean_kl:.3g} > delta = {delta:.3g} at the shortest step"
    gain = last.surrogate - surrogate_before
    return f"line search: the surrogate does not improve (by {gain:.3g} at the shortest step)"


class Stopwatch:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now
