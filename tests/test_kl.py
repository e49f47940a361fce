"""KL between policies, and Fisher-vector products against matrices that are built the long way."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from helpers import KINDS, Case, convolutional_policy, mutant, normal, seeded, small_problem, weighted_actions
from torch import Tensor

from trpo_lessons import kl
from trpo_lessons.kl import (
    MatrixVectorProduct,
    distributions_in,
    empirical_fisher_vector_product,
    fisher_matrix,
    fisher_product,
    fisher_vector_product,
    gauss_newton_product,
    max_kl,
    mean_kl,
)
from trpo_lessons.policies import FactoredHead, Policy
from trpo_lessons.surrogate import Batch

NUM_STATES = 5


def problem_of(kind: str, dtype: torch.dtype = torch.float64, num_samples: int = NUM_STATES) -> Case:
    return small_problem(kind, num_samples, seed=20, dtype=dtype)


# ---- naive twins


@functools.cache
def hessian_of_mean_kl(kind: str) -> Tensor:
    """Differentiate the mean KL twice, one row at a time."""
    problem = problem_of(kind)
    old = problem.policy(problem.theta, problem.batch.obs)
    theta = problem.theta.clone().requires_grad_()
    mean = old.kl(problem.policy(theta, problem.batch.obs)).mean()
    (gradient,) = torch.autograd.grad(mean, theta, create_graph=True)
    assert gradient.abs().max() < 1e-12, "KL has its minimum at theta_old"
    rows = [torch.autograd.grad(entry, theta, retain_graph=True)[0] for entry in gradient]
    return torch.stack(rows)


def score(policy: Policy, theta: Tensor, obs: Tensor, action: Tensor) -> Tensor:
    """grad log pi(a|s) for one state and one action."""
    at = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(policy(at, obs[None]).log_prob(action[None]).sum(), at)
    return gradient


@functools.cache
def expected_outer_product_of_scores(kind: str) -> Tensor:
    """(1/N) sum_n E_a[grad log pi grad log pi^T], the expectation summed over actions."""
    problem = problem_of(kind)
    total = torch.zeros(2 * problem.theta.shape, dtype=torch.float64)
    for actions, weights in weighted_actions(problem.policy(problem.theta, problem.batch.obs)):
        for obs, action, weight in zip(problem.batch.obs, actions, weights, strict=True):
            g = score(problem.policy, problem.theta, obs, action)
            total += weight * torch.outer(g, g)
    return total / NUM_STATES


def mean_outer_product_of_scores(problem: Case) -> Tensor:
    """(1/N) sum_n grad log pi grad log pi^T at the actions that were taken."""
    scores = [
        score(problem.policy, problem.theta, obs, action)
        for obs, action in zip(problem.batch.obs, problem.batch.actions, strict=True)
    ]
    return sum(torch.outer(g, g) for g in scores) / len(scores)


def matrix_of(product: MatrixVectorProduct, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrix whose products these are: its columns are the products with unit vectors."""
    return torch.stack([product(unit) for unit in torch.eye(size, dtype=dtype)], dim=1)


def analytic(problem: Case, chunk_size: int | None = None) -> Tensor:
    product = fisher_vector_product(problem.policy, problem.theta, problem.batch, chunk_size)
    return matrix_of(product, problem.policy.num_parameters, problem.theta.dtype)


def empirical(problem: Case, chunk_size: int | None = None) -> Tensor:
    product = empirical_fisher_vector_product(problem.policy, problem.theta, problem.batch, chunk_size)
    return matrix_of(product, problem.policy.num_parameters, problem.theta.dtype)


# ---- the Fisher matrix


@pytest.mark.parametrize("kind", KINDS)
def test_the_analytic_product_is_the_hessian_of_kl(kind: str) -> None:
    torch.testing.assert_close(analytic(problem_of(kind)), hessian_of_mean_kl(kind), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_analytic_product_is_the_expected_outer_product_of_scores(kind: str) -> None:
    matrix = expected_outer_product_of_scores(kind)
    torch.testing.assert_close(analytic(problem_of(kind)), matrix, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_empirical_product_is_the_mean_outer_product_of_scores(kind: str) -> None:
    problem = problem_of(kind)
    torch.testing.assert_close(empirical(problem), mean_outer_product_of_scores(problem), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_matrix_is_the_hessian_of_kl(kind: str) -> None:
    problem = problem_of(kind)
    dense = fisher_matrix(problem.policy, problem.theta, problem.batch.obs)
    short_form = functools.partial(fisher_product, problem.policy, problem.theta, problem.batch.obs)
    short = matrix_of(short_form, len(problem.theta))
    torch.testing.assert_close(short, dense, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dense, hessian_of_mean_kl(kind), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [analytic, empirical])
def test_both_are_symmetric_and_positive_semi_definite(kind: str, build: Callable[..., Any]) -> None:
    matrix = build(problem_of(kind))
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    assert eigenvalues[-1] > 0


def test_the_paper_s_convolutional_policy_agrees_with_differentiating_kl_twice() -> None:
    policy = convolutional_policy((2, 12, 10), FactoredHead((3, 3, 2)), hidden=4)
    theta, obs = 0.2 * normal(0, policy.num_parameters), 255 * normal(1, 3, 2, 12, 10)
    old = policy(theta, obs).detach()
    at = theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(old.kl(policy(at, obs)).mean(), at, create_graph=True)
    product = fisher_vector_product(policy, theta, Batch(obs, *normal(2, 3, 3)))
    for seed in range(3):
        v = normal(10 + seed, policy.num_parameters)
        (expected,) = torch.autograd.grad(gradient, at, v, retain_graph=True)
        torch.testing.assert_close(product(v), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [fisher_vector_product, empirical_fisher_vector_product])
def test_a_product_is_linear_repeatable_and_free_of_graphs(kind: str, build: Callable[..., Any]) -> None:
    problem = problem_of(kind)
    theta = problem.theta.clone().requires_grad_()
    u, v = normal(1, len(theta)), normal(2, len(theta))
    product = build(problem.policy, theta, problem.batch)
    combined = product(2 * u - 3 * v)
    torch.testing.assert_close(combined, 2 * product(u) - 3 * product(v), rtol=1e-10, atol=1e-11)
    assert torch.equal(product(u), product(u))
    assert not combined.requires_grad
    assert theta.grad is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("build", [fisher_vector_product, empirical_fisher_vector_product])
def test_chunked_products_equal_whole_ones(
    kind: str, dtype: torch.dtype, tolerance: float, build: Callable[..., Any]
) -> None:
    problem = problem_of(kind, dtype, num_samples=13)
    v = normal(3, len(problem.theta), dtype=dtype)
    whole = build(problem.policy, problem.theta, problem.batch)(v)
    for chunk_size in (1, 4, 12, 13, 50):
        chunked = build(problem.policy, problem.theta, problem.batch, chunk_size)(v)
        assert chunked.dtype == dtype
        assert (chunked - whole).norm() <= tolerance * whole.norm()


def test_two_threads_can_multiply_at_the_same_time() -> None:
    # torch has one forward mode for all threads, and refuses to enter it twice.
    problem = problem_of("mlp-gaussian")
    product = fisher_vector_product(problem.policy, problem.theta, problem.batch, chunk_size=1)
    vectors = [normal(seed, len(problem.theta)) for seed in range(8)]
    alone = [product(v) for v in vectors]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda i: product(vectors[i % 8]), range(80)))
    assert all(torch.equal(found, alone[i % 8]) for i, found in enumerate(together))


@pytest.mark.parametrize("kind", ["linear-categorical", "mlp-factored", "mlp-gaussian"])
def test_the_empirical_matrix_converges_to_the_analytic_one(kind: str) -> None:
    # v^T A v is the mean over states of E[(v . score)^2]; in a sample it has a standard error.
    draws, states = 40_000, problem_of(kind).batch.obs
    problem = problem_of(kind)
    obs = states.repeat(draws // NUM_STATES, *[1] * (states.ndim - 1))
    actions = problem.policy(problem.theta, obs).sample(seeded(4))
    batch = Batch(obs, actions, torch.zeros(draws), torch.zeros(draws))
    product = empirical_fisher_vector_product(problem.policy, problem.theta, batch)
    A = hessian_of_mean_kl(kind)
    for seed in range(5):
        v = normal(30 + seed, len(problem.theta))
        _, along_v = torch.func.jvp(lambda theta: problem.policy(theta, obs).log_prob(actions), (problem.theta,), (v,))
        standard_error = along_v.square().std().item() / math.sqrt(draws)
        assert abs((v @ product(v) - v @ A @ v).item()) < 4 * standard_error
        assert standard_error < 0.05 * (v @ A @ v).item()


def test_the_gauss_newton_product_is_the_jacobian_twice() -> None:
    problem = problem_of("mlp-gaussian")
    jacobian = torch.func.jacrev(lambda theta: problem.policy(theta, problem.batch.obs).parameters[0])(problem.theta)
    J = jacobian.flatten(0, 1)
    theta = problem.theta.clone().requires_grad_()
    outputs = problem.policy(theta, problem.batch.obs).parameters[:1]
    plain = matrix_of(gauss_newton_product(theta, outputs), len(theta))
    torch.testing.assert_close(plain, J.T @ J, rtol=1e-10, atol=1e-12)
    tripled = matrix_of(gauss_newton_product(theta, outputs, lambda _, tangents: (3 * tangents[0],)), len(theta))
    torch.testing.assert_close(tripled, 3 * J.T @ J, rtol=1e-10, atol=1e-12)


# ---- KL


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_max_kl_are_a_loop_over_states(kind: str) -> None:
    problem = problem_of(kind)
    new = problem.theta + 0.3 * normal(8, len(problem.theta))
    each = [
        problem.policy(problem.theta, obs[None]).kl(problem.policy(new, obs[None])).item() for obs in problem.batch.obs
    ]
    for chunk_size in (None, 1, 2, 5, 9):
        args = problem.policy, problem.theta, new, problem.batch, chunk_size
        assert mean_kl(*args) == pytest.approx(sum(each) / NUM_STATES, rel=1e-10)
        assert max_kl(*args) == pytest.approx(max(each), rel=1e-10)


def test_the_old_policy_comes_first() -> None:
    # A Gaussian that doubles its spread: log 2 + 1/8 - 1/2 per dimension; one that halves it: -log 2 + 2 - 1/2.
    problem = problem_of("linear-gaussian")
    wider = problem.theta.clone()
    wider[-2:] += math.log(2)
    to_wider = mean_kl(problem.policy, problem.theta, wider, problem.batch)
    to_narrower = mean_kl(problem.policy, wider, problem.theta, problem.batch)
    assert to_wider == pytest.approx(2 * (math.log(2) + 1 / 8 - 1 / 2), rel=1e-12)
    assert to_narrower == pytest.approx(2 * (-math.log(2) + 2 - 1 / 2), rel=1e-12)
    assert max_kl(problem.policy, problem.theta, wider, problem.batch) == pytest.approx(to_wider, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_no_kl(kind: str) -> None:
    problem = problem_of(kind)
    assert mean_kl(problem.policy, problem.theta, problem.theta, problem.batch) == 0
    assert max_kl(problem.policy, problem.theta, problem.theta, problem.batch) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_half_the_quadratic_form_is_kl_up_to_third_order(kind: str) -> None:
    # KL(theta, theta + h d) = h^2/2 d^T A d + O(h^3): when h is halved, what remains shrinks to an eighth.
    problem = problem_of(kind)
    d = normal(9, len(problem.theta))
    product = fisher_vector_product(problem.policy, problem.theta, problem.batch)
    quadratic = 0.5 * torch.dot(d, product(d)).item()

    def remainder(h: float) -> float:
        return abs(mean_kl(problem.policy, problem.theta, problem.theta + h * d, problem.batch) - h**2 * quadratic)

    assert remainder(1e-3) < 1e-2 * 1e-6 * quadratic
    assert 6 < remainder(4e-3) / remainder(2e-3) < 20


def test_a_state_that_is_not_finite_makes_kl_not_finite() -> None:
    problem = problem_of("mlp-categorical")
    problem.batch.obs[2, 1] = math.nan
    new = problem.theta + 0.1
    for chunk_size in (None, 2):
        assert math.isnan(mean_kl(problem.policy, problem.theta, new, problem.batch, chunk_size))
        assert math.isnan(max_kl(problem.policy, problem.theta, new, problem.batch, chunk_size))


def test_no_states_are_refused() -> None:
    problem = problem_of("mlp-categorical")
    with pytest.raises(ValueError, match="the batch is empty"):
        mean_kl(problem.policy, problem.theta, problem.theta, problem.batch[:0])
    with pytest.raises(ValueError, match="the batch is empty"):
        max_kl(problem.policy, problem.theta, problem.theta, problem.batch[:0])
    with pytest.raises(ValueError, match="the batch is empty"):
        distributions_in(problem.policy, problem.theta, problem.batch[:0])


# ---- known mistakes


@pytest.mark.parametrize(
    ("mistake", "chunk_size"),
    [
        (("return kind.with_parameters(*parameters).fisher_metric(tangents)", "return tangents"), None),  # J^T J
        (("return kind.with_parameters(*parameters).fisher_metric(tangents)", "return tangents"), 2),
        (("lambda _: whole(v)", "lambda _: whole(v) * len(states)"), None),  # a sum, not a mean
        (("forward_ad.make_dual(at, v)", "forward_ad.make_dual(at, 2 * v)"), 2),
    ],
)
def test_a_wrong_product_would_be_noticed(mistake: tuple[str, str], chunk_size: int | None) -> None:
    problem = problem_of("mlp-categorical")
    product = mutant(kl, mistake).fisher_vector_product(problem.policy, problem.theta, problem.batch, chunk_size)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            matrix_of(product, len(problem.theta)), hessian_of_mean_kl("mlp-categorical"), rtol=1e-10, atol=1e-10
        )


def test_an_old_policy_that_moves_along_would_be_noticed() -> None:
    # Without detaching it, KL(theta || theta) is zero everywhere, and so is its Hessian.
    broken = mutant(kl, ("lambda new: old.kl(policy(new, obs))", "lambda new: policy(new, obs).kl(policy(new, obs))"))
    problem = problem_of("mlp-categorical")
    assert broken.fisher_matrix(problem.policy, problem.theta, problem.batch.obs).abs().max() < 1e-10
    assert hessian_of_mean_kl("mlp-categorical").abs().max() > 1e-2


def test_kl_the_wrong_way_round_would_be_noticed() -> None:
    broken = mutant(
        kl,
        (
            "return policy(theta_old, states.obs).kl(policy(theta_new, states.obs))",
            "return policy(theta_new, states.obs).kl(policy(theta_old, states.obs))",
        ),
    )
    problem = problem_of("linear-gaussian")
    wider = problem.theta.clone()
    wider[-2:] += math.log(2)
    reverse = broken.mean_kl(problem.policy, problem.theta, wider, problem.batch)
    assert reverse == pytest.approx(2 * (-math.log(2) + 2 - 1 / 2), rel=1e-6)
