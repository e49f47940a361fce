"""Conjugate gradient against numpy's solver, against its own theory, and with matrices it must refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import PROPERTY, doubles, mutant, normal
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons import conjugate_gradient as module
from trpo_lessons.conjugate_gradient import conjugate_gradient


def spd(eigenvalues: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    q, _ = torch.linalg.qr(normal(seed, len(eigenvalues), len(eigenvalues)))
    return q @ torch.diag(eigenvalues) @ q.T


class Counted:
    """Multiplies by A, and counts how often."""

    def __init__(self, A: Tensor) -> None:
        self.A, self.calls = A, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.calls += 1
        return self.A @ v


# ---- the solution


@PROPERTY
@given(st.integers(1, 12), st.floats(0, 4), st.floats(-6, 6), st.integers(0, 10_000))
def test_it_solves_what_numpy_solves(size: int, log_condition: float, log_scale: float, seed: int) -> None:
    A = 10**log_scale * spd(torch.logspace(0, log_condition, size, dtype=torch.float64), seed)
    b = normal(seed + 1, size)
    solution = conjugate_gradient(lambda v: A @ v, b, iterations=10 * size, residual_tol=1e-9)
    assert solution.converged
    assert not solution.breakdown
    expected = np.linalg.solve(A.numpy(), b.numpy())
    assert np.linalg.norm(solution.x.numpy() - expected) <= 1e-4 * np.linalg.norm(expected)
    assert (b - A @ solution.x).norm() <= 1.1e-9 * b.norm()


@PROPERTY
@given(st.integers(1, 12), st.integers(0, 12), st.floats(0, 4), st.integers(0, 10_000))
def test_the_product_that_comes_along_is_that_of_the_solution(
    size: int, iterations: int, log_condition: float, seed: int
) -> None:
    A = spd(torch.logspace(0, log_condition, size, dtype=torch.float64), seed)
    solution = conjugate_gradient(lambda v: A @ v, normal(seed + 1, size), iterations, residual_tol=1e-12)
    torch.testing.assert_close(solution.product, A @ solution.x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("distinct", [1, 2, 5, 9])
def test_as_many_steps_as_there_are_distinct_eigenvalues(distinct: int) -> None:
    A = spd(torch.linspace(1, 5, distinct, dtype=torch.float64).repeat(20)[:20])
    b = normal(3, 20)
    product = Counted(A)
    solution = conjugate_gradient(product, b, iterations=20, residual_tol=1e-9)
    assert product.calls == distinct
    assert len(solution.residual_norms) == distinct + 1
    assert solution.residual_norms[-1] < 1e-9 * solution.residual_norms[0]
    if distinct > 1:
        assert solution.residual_norms[-2] > 1e-5 * solution.residual_norms[0]


@pytest.mark.parametrize("iterations", [1, 2, 4, 7])
def test_after_k_steps_it_is_the_best_point_of_the_krylov_space(iterations: int) -> None:
    # More than steepest descent: x_k minimizes 1/2 x^T A x - b^T x over the span of b, A b, ..., A^(k-1) b.
    A, b = spd(torch.logspace(0, 2, 15, dtype=torch.float64)), normal(4, 15)
    krylov = [b]
    for _ in range(iterations - 1):
        krylov.append(A @ krylov[-1])
    basis, _ = torch.linalg.qr(torch.stack(krylov, dim=1))
    best = basis @ torch.linalg.solve(basis.T @ A @ basis, basis.T @ b)
    x = conjugate_gradient(lambda v: A @ v, b, iterations).x
    torch.testing.assert_close(x, best, rtol=1e-7, atol=1e-9)


def test_residual_norms_are_those_of_the_true_residuals() -> None:
    A, b = spd(torch.logspace(0, 2, 15, dtype=torch.float64)), normal(5, 15)
    full = conjugate_gradient(lambda v: A @ v, b, iterations=12)
    assert len(full.residual_norms) == 13
    for k in range(13):
        part = conjugate_gradient(lambda v: A @ v, b, iterations=k)
        assert part.residual_norms == full.residual_norms[: k + 1]
        assert (b - A @ part.x).norm().item() == pytest.approx(full.residual_norms[k], rel=1e-9)


# ---- when it stops


@pytest.mark.parametrize(("settings", "products"), [({}, 10), ({"iterations": 3}, 3)])
def test_it_multiplies_at_most_iterations_times_and_says_that_it_has_not_arrived(
    settings: dict[str, int], products: int
) -> None:
    product = Counted(spd(torch.logspace(0, 3, 30, dtype=torch.float64)))
    solution = conjugate_gradient(product, normal(6, 30), **settings)
    assert product.calls == products
    assert not solution.converged
    assert not solution.breakdown


def test_it_stops_as_soon_as_the_residual_is_small_enough() -> None:
    A, b = spd(torch.logspace(0, 2, 20, dtype=torch.float64)), normal(7, 20)
    for residual_tol in (1e-1, 1e-3, 1e-8):
        solution = conjugate_gradient(lambda v: A @ v, b, iterations=100, residual_tol=residual_tol)
        assert solution.converged
        relative = [norm / solution.residual_norms[0] for norm in solution.residual_norms]
        assert relative[-1] <= residual_tol
        assert all(norm > residual_tol for norm in relative[:-1])


def test_a_right_hand_side_of_zero_needs_no_product() -> None:
    product = Counted(spd(doubles([1.0, 2.0, 3.0])))
    solution = conjugate_gradient(product, torch.zeros(3, dtype=torch.float64))
    assert product.calls == 0
    assert solution.converged
    assert torch.equal(solution.x, torch.zeros(3, dtype=torch.float64))


def test_no_iterations_return_the_starting_point_zero() -> None:
    solution = conjugate_gradient(lambda v: v, doubles([3.0, 4.0]), iterations=0)
    assert not solution.x.any()
    assert solution.residual_norms == (5.0,)
    assert not solution.converged


def test_it_does_not_change_its_input() -> None:
    A, b = spd(torch.logspace(0, 1, 6, dtype=torch.float64)), normal(8, 6)
    before = b.clone()
    conjugate_gradient(lambda v: A @ v, b)
    assert torch.equal(b, before)


# ---- precision


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_dot_products_are_in_float64(scale: float) -> None:
    # In float32 the square of 1e25 is infinite and that of 1e-25 is zero.
    b = scale * normal(9, 6, dtype=torch.float32)
    A = spd(doubles([1.0, 1, 2, 2, 3, 3])).float()
    solution = conjugate_gradient(lambda v: A @ v, b, iterations=6, residual_tol=1e-5)
    assert solution.converged, solution.breakdown
    assert solution.x.dtype == torch.float32
    expected = np.linalg.solve(A.double().numpy(), b.double().numpy())
    np.testing.assert_allclose(solution.x.double().numpy(), expected, rtol=1e-4, atol=1e-5 * scale)


def test_dot_products_in_float32_would_be_noticed() -> None:
    broken = mutant(module, ("torch.dot(u.double(), v.double())", "torch.dot(u, v)"))
    b = 1e25 * normal(9, 6, dtype=torch.float32)
    assert broken.conjugate_gradient(lambda v: v, b).breakdown == "the norm of b is inf, but must be finite"
    assert not conjugate_gradient(lambda v: v, b).breakdown


# ---- breakdowns


@pytest.mark.parametrize(
    ("eigenvalues", "b"), [([3.0, 2.0, -1.0], [1.0, 1.0, 1.0]), ([3.0, 2.0, 0.0], [0.0, 0.0, 1.0])]
)
def test_a_matrix_that_is_not_positive_definite_is_reported_at_the_last_good_x(
    eigenvalues: list[float], b: list[float]
) -> None:
    A, b = torch.diag(doubles(eigenvalues)), doubles(b)
    solution = conjugate_gradient(lambda v: A @ v, b, iterations=10)
    assert not solution.converged
    assert solution.breakdown.startswith("p^T A p is ")
    assert solution.breakdown.endswith("must be positive and finite")
    assert solution.x.isfinite().all()
    good_steps = len(solution.residual_norms) - 1
    assert torch.equal(solution.x, conjugate_gradient(lambda v: A @ v, b, iterations=good_steps).x)


def test_a_negative_definite_matrix_yields_no_step_at_all() -> None:
    solution = conjugate_gradient(lambda v: -v, doubles([1.0, 2.0]))
    assert solution.breakdown == "p^T A p is -5, but must be positive and finite"
    assert not solution.x.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at_call", [1, 3])
def test_a_product_that_is_not_finite_is_reported_at_the_last_good_x(bad: float, at_call: int) -> None:
    product = Counted(spd(torch.logspace(0, 2, 6, dtype=torch.float64)))

    def spoiled(v: Tensor) -> Tensor:
        result = product(v)
        result[0] = bad if product.calls == at_call else result[0]
        return result

    b = normal(10, 6)
    solution = conjugate_gradient(spoiled, b)
    assert "must be positive and finite" in solution.breakdown
    assert not solution.converged
    assert product.calls == at_call, "it went on after the numbers had broken down"
    assert torch.equal(solution.x, conjugate_gradient(lambda v: product.A @ v, b, iterations=at_call - 1).x)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_right_hand_side_that_is_not_finite_is_reported(bad: float) -> None:
    solution = conjugate_gradient(lambda v: v, doubles([1.0, bad]))
    assert not solution.converged
    assert solution.breakdown == f"the norm of b is {bad}, but must be finite"
    assert not solution.x.any()


@pytest.mark.parametrize(("b", "iterations"), [(torch.zeros(2, 2), 10), (torch.zeros(()), 10), (torch.zeros(3), -1)])
def test_bad_arguments_are_refused(b: Tensor, iterations: int) -> None:
    with pytest.raises(ValueError, match="need a vector b and iterations >= 0, got shape"):
        conjugate_gradient(lambda v: v, b, iterations)


# ---- known mistakes


@pytest.mark.parametrize(
    "mistake",
    [
        None,
        ("p = r + (rr / rr_before) * p", "p = r.clone()"),  # steepest descent
        ("p = r + (rr / rr_before) * p", "p = r + (rr_before / rr) * p"),
        ("alpha = rr / curvature", "alpha = rr_before / curvature if len(norms) > 1 else rr / curvature"),
        ("x = torch.zeros_like(b)", "x = torch.randn_like(b)"),  # a start from noise, with the residual of zero
        ("r = r - alpha * a_p", "r = r - alpha * p"),
    ],
)
def test_known_mistakes_would_be_noticed(mistake: tuple[str, str] | None) -> None:
    solve = mutant(module, mistake).conjugate_gradient if mistake else conjugate_gradient
    A, b = spd(torch.logspace(0, 2, 15, dtype=torch.float64)), normal(5, 15)
    x = solve(lambda v: A @ v, b, 20).x
    assert torch.allclose(x, torch.linalg.solve(A, b), rtol=1e-6, atol=1e-8) == (mistake is None)
