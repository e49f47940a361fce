"""Updates that must leave theta as it was, and say why."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import Case, small_problem
from torch import Tensor
from trpo_twins import (
    assert_nothing_moved,
    run,
)

from trpo_lessons.distributions import DiagGaussian, Distribution
from trpo_lessons.kl import MatrixVectorProduct, fisher_vector_product
from trpo_lessons.surrogate import Batch, sampled_surrogate
from trpo_lessons.trpo import TrustRegion


def refused(problem: Case, **settings: Any) -> str:
    """Run an update that must leave theta alone, and return its reason."""
    before = problem.theta.clone()
    new, report = run(problem, **settings)
    assert new is problem.theta
    assert torch.equal(new.nan_to_num(7.7), before.nan_to_num(7.7))
    assert not report.accepted
    assert_nothing_moved(report)
    searched = report.reason.startswith("line search")
    assert report.backtracks == (settings.get("max_backtracks", 10) if searched else 0)
    return report.reason


@pytest.mark.parametrize(
    ("field", "bad"),
    [(field, bad) for field in ("advantages", "obs", "actions") for bad in (math.nan, math.inf, -math.inf)]
    + [("log_q", math.nan), ("log_q", -math.inf)],  # an infinite log q makes a ratio of zero, which is finite
)
def test_a_single_number_that_is_not_finite_is_refused(field: str, bad: float) -> None:
    problem = small_problem("mlp-gaussian", 20)
    getattr(problem.batch, field).view(20, -1)[13, 0] = bad
    assert refused(problem) == "the surrogate or its gradient is not finite"
    assert refused(problem, chunk_size=6) == "the surrogate or its gradient is not finite"


def test_a_theta_that_is_not_finite_is_refused() -> None:
    problem = small_problem("mlp-gaussian", 20)
    problem.theta[3] = math.nan
    assert refused(problem) == "the surrogate or its gradient is not finite"


def test_a_gradient_that_is_not_finite_is_refused_even_where_the_surrogate_is() -> None:
    def kinked(pi: DiagGaussian, batch: Batch) -> Tensor:
        return (pi.mean - pi.mean.detach()).square().sum().sqrt() + sampled_surrogate(pi, batch)

    assert refused(small_problem("linear-gaussian", 10), surrogate=kinked) == (
        "the surrogate or its gradient is not finite"
    )


def broken_product(result: Callable[[Tensor], Tensor]) -> Callable[..., MatrixVectorProduct]:
    return lambda *_: result


@pytest.mark.parametrize(
    ("product", "curvature"),
    [(lambda v: v * math.nan, "nan"), (lambda v: v * math.inf, "(nan|inf)"), (lambda v: -v, "-")],
)
def test_a_curvature_that_is_not_finite_and_positive_is_refused(
    product: Callable[[Tensor], Tensor], curvature: str
) -> None:
    reason = refused(small_problem("linear-gaussian", 10), fisher=broken_product(product))
    assert reason.startswith("conjugate gradient broke down: p^T A p is ")
    assert reason.endswith("must be positive and finite")
    assert re.search(f"is {curvature}", reason)


def test_a_product_that_breaks_down_late_is_refused() -> None:
    problem, calls = small_problem("mlp-gaussian", 10), []

    def fisher(*args: Any) -> MatrixVectorProduct:
        product = fisher_vector_product(*args)

        def spoiled(v: Tensor) -> Tensor:
            calls.append(v)
            return product(v) * (math.nan if len(calls) >= 4 else 1)

        return spoiled

    assert refused(problem, fisher=fisher) == (
        "conjugate gradient broke down: p^T A p is nan, but must be positive and finite"
    )


def test_a_bad_state_that_thinning_skips_is_still_refused() -> None:
    # Surrogate and Fisher product never see it; the KL over all states does.
    problem, trunk = small_problem("mlp-gaussian", 20), small_problem("mlp-gaussian", 20, seed=90).batch
    trunk.obs[13, 0] = math.nan
    reason = refused(problem, trunk=trunk, fisher_stride=10)
    assert reason == "line search: the surrogate or the KL is not finite along the whole step"


def test_equal_advantages_of_zero_leave_nothing_to_improve() -> None:
    problem = small_problem("mlp-gaussian", 20)
    problem.batch.advantages.zero_()
    assert refused(problem) == "the gradient is zero: nothing to improve"


def test_a_surrogate_that_falls_along_the_whole_step_is_refused() -> None:
    def deceptive(pi: Distribution, batch: Batch) -> Tensor:
        return sampled_surrogate(pi, batch) - 1e9 * old.kl(pi)

    problem = small_problem("mlp-gaussian", 20)
    old = problem.policy(problem.theta, problem.batch.obs)
    reason = refused(problem, surrogate=deceptive)
    assert reason.startswith("line search: the surrogate does not improve (by -")


def test_a_surrogate_that_overflows_along_the_whole_step_is_refused() -> None:
    def explosive(pi: DiagGaussian, batch: Batch) -> Tensor:
        cliff = torch.where((pi.mean == old.mean).all(), 0.0, math.inf)
        return sampled_surrogate(pi, batch) + cliff

    problem = small_problem("mlp-gaussian", 20)
    old = problem.policy(problem.theta, problem.batch.obs)
    reason = refused(problem, surrogate=explosive)
    assert reason == "line search: the surrogate or the KL is not finite along the whole step"


def test_a_step_that_stays_outside_the_trust_region_is_refused() -> None:
    # A Fisher product a million times too small makes the step a thousand times too long.
    def too_small(*args: Any) -> MatrixVectorProduct:
        product = fisher_vector_product(*args)
        return lambda v: 1e-6 * product(v)

    reason = refused(small_problem("mlp-gaussian", 20), fisher=too_small, damping=1e-7, max_backtracks=2)
    assert reason.startswith("line search: mean KL is still ")
    assert reason.endswith(" > delta = 0.01 at the shortest step")


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"delta": 0.0}, "delta=0.0"),
        ({"delta": -1.0}, "delta=-1.0"),
        ({"delta": math.nan}, "delta=nan"),
        ({"delta": math.inf}, "delta=inf"),
        ({"damping": -0.1}, "damping=-0.1"),
        ({"damping": math.nan}, "damping=nan"),
        ({"cg_iterations": 0}, "cg_iterations=0"),
        ({"fisher_stride": 0}, "fisher_stride=0"),
        ({"residual_tol": math.nan}, "residual_tol=nan"),
        ({"shrink": 1.0}, "shrink=1.0"),
        ({"shrink": 0.0}, "shrink=0.0"),
        ({"max_backtracks": -1}, "max_backtracks=-1"),
    ],
)
def test_a_trust_region_out_of_range_is_refused(settings: dict[str, float], got: str) -> None:
    with pytest.raises(ValueError, match=r"need 0 < delta < inf, 0 <= damping < inf, .*, got TrustRegion") as refusal:
        TrustRegion(**settings)  # type: ignore[arg-type]
    assert got in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_empty_batch_is_refused() -> None:
    problem = small_problem("linear-gaussian", 10)
    with pytest.raises(ValueError, match="the batch is empty"):
        run(problem, batch=problem.batch[:0])
    with pytest.raises(ValueError, match="the batch is empty"):
        run(problem, trunk=problem.batch[:0])
