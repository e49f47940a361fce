"""One trust-region update: where to step, how far, and whether to step at all.

Reading order: after `line_search`. Lesson 05, section 6 and appendix C.

Near theta_old the surrogate of a `Problem` is linear, g^T (theta - theta_old), and the KL quadratic, 1/2 d^T A d with
d = theta - theta_old. The solution of that simpler problem is beta x, with x = A^-1 g and
beta = sqrt(2 delta / x^T A x). Conjugate gradient finds x; a line search then shrinks the step until the true surrogate
improves and the true KL is at most delta.

Theta goes in, a new theta and a report come out, and nothing is changed in place. Whoever sees that there is nothing to
be done raises `Refused`, and `trpo_update` makes a report of it. Other methods are other uses of the same parts: the
natural gradient is `theta + natural_direction(...).x / penalty`. They are in `prior_methods`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trpo_lessons.conjugate_gradient import Solution, conjugate_gradient
from trpo_lessons.kl import MatrixVectorProduct, fisher_vector_product
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.problem import Candidate, Fisher, Problem, Refused, Start

Objection = Callable[[Candidate, float, float], str]
"""An acceptance rule: a candidate, L(theta_old), delta -> why not to take it, at the shortest step; "" to take it."""


@dataclass(frozen=True)
class TrustRegion:
    """How far an update may go, and how the way there is found.

    delta           largest mean KL(old || new), in nats
    damping         is added to the Fisher matrix's diagonal, in the solve and in the scale alike: a full step has a
                    KL of at most delta by the undamped model
    cg_iterations, residual_tol  of `conjugate_gradient`
    shrink, max_backtracks       of `backtracking_line_search`
    fisher          which Fisher matrix: analytic or empirical, see `kl`
    fisher_stride   thins the states for its products alone (section 6: a tenth is enough)

    Raises ValueError for values out of range.
    """

    delta: float = 0.01
    damping: float = 0.1
    cg_iterations: int = 10
    residual_tol: float = 1e-10
    shrink: float = 0.5
    max_backtracks: int = 10
    fisher: Fisher = fisher_vector_product
    fisher_stride: int = 1

    def __post_init__(self) -> None:
        reals = 0 < self.delta < math.inf and 0 <= self.damping < math.inf and 0 < self.shrink < 1
        counts = self.cg_iterations >= 1 and self.max_backtracks >= 0 and self.fisher_stride >= 1
        if not (reals and counts and self.residual_tol >= 0):
            raise ValueError(
                "need 0 < delta < inf, 0 <= damping < inf, 0 < shrink < 1, cg_iterations and fisher_stride >= 1, "
                f"max_backtracks and residual_tol >= 0, got {self}"
            )


@dataclass(frozen=True)
class UpdateReport:
    """What one update did, and why. KL in nats; the surrogate in units of the advantages.

    reason             "accepted", or why theta was left as it was
    accepted           whether the step was taken
    surrogate_before   L(theta_old)
    surrogate_after    L at the returned theta
    predicted_gain     g^T step for the returned step: what the linear model promised
    mean_kl, max_kl    KL(old || new) over all states of the problem, at the returned theta
    gradient_norm      ||g||
    residual_norms     of conjugate gradient, before the first iteration and after each one
    step_norm          ||theta_new - theta_old||
    step_fraction      accepted fraction of the full step beta x; 0 when none was
    backtracks         how often the step was shrunk
    facts              what only one method has to say, by name; those of `prior_methods` do
    seconds            wall time of "gradient", "cg" and "search"; two reports that differ only here compare equal,
                       unless they hold NaNs
    """

    reason: str
    accepted: bool = False
    surrogate_before: float = math.nan
    surrogate_after: float = math.nan
    predicted_gain: float = 0.0
    mean_kl: float = 0.0
    max_kl: float = 0.0
    gradient_norm: float = math.nan
    residual_norms: tuple[float, ...] = ()
    step_norm: float = 0.0
    step_fraction: float = 0.0
    backtracks: int = 0
    facts: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def actual_gain(self) -> float:
        """By how much the surrogate really rose."""
        return self.surrogate_after - self.surrogate_before


def trpo_update(
    problem: Problem, theta: Tensor, region: TrustRegion | None = None, objection: Objection | None = None
) -> tuple[Tensor, UpdateReport]:
    """One TRPO step from `theta` [num_parameters]: the new theta and a report.

    The region is `TrustRegion()` unless another is given, and candidates of the line search are judged by
    `kl_or_surrogate`. Of an objection's reasons, only the last is reported: that to the shortest step.

    The update is refused, with theta unchanged and the reason in the report, when anything is not finite, when there is
    nothing to improve, or when there is an objection to every candidate. An empty batch is a mistake of the caller's:
    ValueError.
    """
    region, clock, facts = region or TrustRegion(), Stopwatch(), dict[str, Any]()
    try:
        with clock.timing("gradient"):
            start = problem.start(theta)
            facts |= start.facts
        with clock.timing("cg"):
            product = problem.fisher_product(theta, region.fisher, region.fisher_stride)
            direction = natural_direction(product, start.gradient, region)
            facts["residual_norms"] = direction.residual_norms
        with clock.timing("search"):
            full_step = math.sqrt(2 * region.delta / direction.curvature) * direction.x
            new_theta, found = search(problem, theta, full_step, start, region, objection or kl_or_surrogate)
    except Refused as refusal:
        return theta, UpdateReport(str(refusal), **(facts | refusal.facts), seconds=clock.seconds)
    return new_theta, UpdateReport("accepted", accepted=True, **(facts | found), seconds=clock.seconds)


def natural_direction(product: MatrixVectorProduct, gradient: Tensor, region: TrustRegion) -> Solution:
    """Solve (A + damping I) x = `gradient` [num_parameters], given v -> A v (appendix C).

    The solution's curvature, x^T (A + damping I) x, is what the full step is scaled by: without damping it is twice the
    KL, by the quadratic model, of stepping by x itself. `region` gives damping and limits, not delta. Raises Refused
    when the numbers break down.
    """

    def damped(v: Tensor) -> Tensor:
        return product(v) + region.damping * v

    found = conjugate_gradient(damped, gradient, region.cg_iterations, region.residual_tol)
    why = found.breakdown
    if not why and not 0 < found.curvature < math.inf:
        why = f"x^T A x is {found.curvature:.3g}, but must be positive and finite"
    if why:
        raise Refused(f"conjugate gradient broke down: {why}", residual_norms=found.residual_norms)
    return found


def kl_or_surrogate(candidate: Candidate, surrogate_before: float, delta: float) -> str:
    """TRPO's objections: mean KL above delta, or a surrogate that does not improve (appendix C)."""
    if not (math.isfinite(candidate.surrogate) and math.isfinite(candidate.mean_kl)):
        return "the surrogate or the KL is not finite along the whole step"
    if candidate.mean_kl > delta:
        return f"mean KL is still {candidate.mean_kl:.3g} > delta = {delta:.3g} at the shortest step"
    if candidate.surrogate <= surrogate_before:
        return f"the surrogate does not improve (by {candidate.surrogate - surrogate_before:.3g} at the shortest step)"
    return ""


def search(
    problem: Problem, theta: Tensor, full_step: Tensor, start: Start, region: TrustRegion, objection: Objection
) -> tuple[Tensor, dict[str, Any]]:
    """The first theta without an objection on the way back from `theta + full_step`, and what a report says of it.

    `full_step` is beta x, [num_parameters].

    Raises Refused when there is none.
    """

    def evaluate(fraction: float) -> Candidate:
        return problem.candidate(theta + fraction * full_step, start.old)

    def against(candidate: Candidate) -> str:
        return objection(candidate, start.surrogate, region.delta)

    result = backtracking_line_search(evaluate, lambda c: not against(c), region.shrink, region.max_backtracks)
    if not result.accepted:
        raise Refused(f"line search: {against(result.facts)}", backtracks=result.backtracks)
    taken = {"step_fraction": result.fraction, "backtracks": result.backtracks}
    return result.facts.theta, moved(theta, result.facts, start) | taken


def moved(theta: Tensor, new: Candidate, start: Start) -> dict[str, Any]:
    """What a report says of a step from `theta` to `new`; the whole one, unless a search says otherwise.

    Raises Refused when the new policy is not one: its surrogate or a KL is not finite.
    """
    if not (math.isfinite(new.surrogate) and math.isfinite(new.max_kl)):
        raise Refused("the surrogate or the KL is not finite after the step")
    return {
        "surrogate_after": new.surrogate,
        "predicted_gain": torch.dot(start.gradient.double(), (new.theta - theta).double()).item(),
        "mean_kl": new.mean_kl,
        "max_kl": new.max_kl,
        "step_norm": (new.theta - theta).norm().item(),
        "step_fraction": 1.0,
    }


class Stopwatch:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """The time that the block takes, also where it ends in an exception."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = time.perf_counter() - start
