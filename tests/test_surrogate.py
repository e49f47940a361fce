"""The sampled surrogate: its value, its gradient, and what it converges to on an MDP that is solved exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from helpers import KINDS, PROPERTY, Case, mutant, normal, seeded, small_problem
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons import mdp, surrogate
from trpo_lessons.improvement_bound import surrogate_objective
from trpo_lessons.policies import CategoricalHead, Policy, linear_policy
from trpo_lessons.surrogate import (
    Batch,
    chunks,
    importance_ratios,
    mean_over,
    sampled_surrogate,
    surrogate_gradient,
    surrogate_value,
)


def away(problem: Case, size: float = 0.3) -> Tensor:
    """A theta that is not the one that collected the batch."""
    return problem.theta + size * normal(77, problem.policy.num_parameters, dtype=problem.theta.dtype)


# ---- the value


@pytest.mark.parametrize("kind", KINDS)
def test_every_ratio_is_one_at_theta_old(kind: str) -> None:
    problem = small_problem(kind, 20)
    ratios = importance_ratios(problem.policy(problem.theta, problem.batch.obs), problem.batch)
    torch.testing.assert_close(ratios, torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-12)
    at_old = surrogate_value(problem.policy, problem.theta, problem.batch)
    assert at_old == pytest.approx(problem.batch.advantages.mean().item(), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_surrogate_is_equation_15_written_as_a_loop(kind: str) -> None:
    problem = small_problem(kind, 12)
    theta, total = away(problem), 0.0
    for obs, action, advantage, log_q in zip(*vars(problem.batch).values(), strict=True):
        log_pi = problem.policy(theta, obs[None]).log_prob(action[None]).item()
        total += math.exp(log_pi) / math.exp(log_q.item()) * advantage.item()
    assert surrogate_value(problem.policy, theta, problem.batch) == pytest.approx(total / 12, rel=1e-10)


@PROPERTY
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-100, 100))
def test_the_surrogate_is_linear_in_the_advantages(seed: int, factor: float, constant: float) -> None:
    problem = small_problem("linear-categorical", 10, seed)
    policy, theta, batch = problem.policy, away(problem), problem.batch
    changed = Batch(batch.obs, batch.actions, factor * batch.advantages + constant, batch.log_q)
    mean_ratio = importance_ratios(policy(theta, batch.obs), batch).mean().item()
    expected = factor * surrogate_value(policy, theta, batch) + constant * mean_ratio
    assert surrogate_value(policy, theta, changed) == pytest.approx(expected, rel=1e-9, abs=1e-9)


# ---- the gradient


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_autograd_and_of_finite_differences(kind: str) -> None:
    problem = small_problem(kind, 15)
    policy, batch, theta = problem.policy, problem.batch, away(problem)
    gradient = surrogate_gradient(policy, theta, batch)

    at = theta.clone().requires_grad_()
    ratio = torch.exp(policy(at, batch.obs).log_prob(batch.actions) - batch.log_q)
    (expected,) = torch.autograd.grad((ratio * batch.advantages).mean(), at)
    torch.testing.assert_close(gradient, expected, rtol=1e-11, atol=1e-13)

    h = 1e-5
    units = torch.eye(policy.num_parameters, dtype=torch.float64)
    rise = [
        surrogate_value(policy, theta + h * e, batch) - surrogate_value(policy, theta - h * e, batch) for e in units
    ]
    torch.testing.assert_close(gradient, torch.tensor(rise).double() / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_at_theta_old_is_the_policy_gradient(kind: str) -> None:
    # grad (pi / pi_old) = grad log pi at theta_old: the score-function estimator, E[grad log pi A].
    problem = small_problem(kind, 8)
    total = torch.zeros_like(problem.theta)
    for obs, action, advantage in zip(problem.batch.obs, problem.batch.actions, problem.batch.advantages, strict=True):
        at = problem.theta.clone().requires_grad_()
        (score,) = torch.autograd.grad(problem.policy(at, obs[None]).log_prob(action[None]).sum(), at)
        total += advantage * score
    gradient = surrogate_gradient(problem.policy, problem.theta, problem.batch)
    torch.testing.assert_close(gradient, total / 8, rtol=1e-10, atol=1e-12)


def test_neither_value_nor_gradient_touches_theta_or_its_grad() -> None:
    problem = small_problem("mlp-gaussian", 8)
    theta = problem.theta.clone().requires_grad_()
    value = surrogate_value(problem.policy, theta, problem.batch)
    gradient = surrogate_gradient(problem.policy, theta, problem.batch)
    assert isinstance(value, float)
    assert not gradient.requires_grad
    assert theta.grad is None
    assert torch.equal(theta, problem.theta)


# ---- sums and counts

CHUNK_SIZES = (1, 3, 7, 16, 17, 100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_chunked_equals_whole(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    problem = small_problem(kind, 17, dtype=dtype)
    policy, batch, theta = problem.policy, problem.batch, away(problem)
    value, gradient = surrogate_value(policy, theta, batch), surrogate_gradient(policy, theta, batch)
    assert gradient.dtype == dtype
    for size in CHUNK_SIZES:
        assert surrogate_value(policy, theta, batch, chunk_size=size) == pytest.approx(value, rel=tolerance)
        chunked = surrogate_gradient(policy, theta, batch, chunk_size=size)
        assert (chunked - gradient).norm() <= tolerance * gradient.norm()


def test_an_average_of_averages_over_unequal_chunks_would_be_noticed() -> None:
    mean_of_means = ".sum(0) / len(rows)"
    broken = mutant(
        surrogate,
        ("sum_of(chunk).double() for", "sum_of(chunk).double() / len(chunk) for"),
        (mean_of_means, ".sum(0) / len(list(chunks(rows, chunk_size)))"),
    )
    problem = small_problem("linear-categorical", 17)
    args = problem.policy, away(problem), problem.batch
    whole = surrogate_value(*args)
    assert broken.surrogate_value(*args) == pytest.approx(whole, rel=1e-10)
    assert broken.surrogate_value(*args, chunk_size=7) != pytest.approx(whole, rel=1e-3)


@dataclass(frozen=True)
class Rows:
    """The least that counts as samples."""

    obs: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: slice) -> Rows:
        return Rows(self.obs[index])


@PROPERTY
@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 50)))
def test_chunks_are_every_row_once_and_in_order(count: int, chunk_size: int | None) -> None:
    rows = Rows(torch.arange(count))
    parts = [part.obs for part in chunks(rows, chunk_size)]
    assert torch.equal(torch.cat(parts), rows.obs)
    assert all(len(part) == (chunk_size or count) for part in parts[:-1])
    mean = mean_over(rows, lambda chunk: chunk.obs.sum(), chunk_size)
    assert mean.dtype == torch.float64
    assert mean.item() == pytest.approx((count - 1) / 2, abs=1e-12)


def test_an_empty_batch_is_refused() -> None:
    problem = small_problem("linear-categorical", 4)
    for evaluate in (surrogate_value, surrogate_gradient):
        with pytest.raises(ValueError, match="the batch is empty"):
            evaluate(problem.policy, problem.theta, problem.batch[:0])


def test_a_batch_with_columns_of_different_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"same number of samples in every field, got .*'advantages': 4"):
        Batch(torch.zeros(5, 2), torch.zeros(5), torch.zeros(4), torch.zeros(5))


def test_a_slice_of_a_batch_holds_the_same_rows_of_every_column() -> None:
    batch = small_problem("mlp-gaussian", 11).batch
    thinned = batch[::3]
    assert len(thinned) == 4
    for name, column in vars(batch).items():
        assert torch.equal(getattr(thinned, name), column[[0, 3, 6, 9]])


# ---- what it estimates


@dataclass(frozen=True)
class SolvedProblem:
    """A small MDP, a softmax policy that is linear in one-hot states, and exact values."""

    game: mdp.TabularMDP
    policy: Policy
    theta_old: Tensor

    @property
    def old(self) -> mdp.Evaluation:
        return mdp.evaluate_policy(self.game, self.table(self.theta_old))

    def table(self, theta: Tensor) -> Tensor:
        return self.policy(theta, torch.eye(self.game.num_states, dtype=torch.float64)).parameters[0].softmax(-1)


@pytest.fixture
def solved() -> SolvedProblem:
    game = mdp.garnet(num_states=6, num_actions=3, branching=2, gamma=0.9, seed=3)
    policy = linear_policy(6, CategoricalHead(3))
    return SolvedProblem(game, policy, theta_old=normal(1, policy.num_parameters))


@pytest.mark.parametrize("sampled_from", ["the old policy", "the uniform policy"])
@pytest.mark.parametrize("weights", ["A", "Q"])
def test_it_converges_to_one_minus_gamma_times_l_plus_a_constant(
    solved: SolvedProblem, sampled_from: str, weights: str
) -> None:
    # States drawn from rho as a distribution, (1 - gamma) rho. What is left of L then is L(theta) - eta; with Q in the
    # place of A, the mean of V comes on top. Neither depends on theta.
    draws, game, old = 200_000, solved.game, solved.old
    states = torch.multinomial(old.rho, draws, replacement=True, generator=seeded(5))
    q = solved.table(solved.theta_old) if sampled_from == "the old policy" else torch.full_like(game.r, 1 / 3)
    actions = mdp.draw(q[states], torch.rand(draws, generator=seeded(6), dtype=torch.float64))
    values = getattr(old, weights)
    obs = torch.eye(game.num_states, dtype=torch.float64)[states]
    batch = Batch(obs, actions, values[states, actions], q[states, actions].log())
    constant = -old.eta if weights == "A" else -old.eta + (old.rho * old.V).sum()
    for seed in range(3):
        theta = solved.theta_old + 0.5 * normal(100 + seed, solved.policy.num_parameters)
        L = surrogate_objective(game, solved.table(solved.theta_old), solved.table(theta))
        exact = (1 - game.gamma) * (L + constant).item()
        terms = sampled_surrogate(solved.policy(theta, batch.obs), batch)
        standard_error = terms.std().item() / math.sqrt(draws)
        assert standard_error < 0.02
        assert abs(surrogate_value(solved.policy, theta, batch) - exact) < 3 * standard_error


def test_with_every_pair_in_proportion_its_gradient_is_that_of_eta(solved: SolvedProblem) -> None:
    # No sampling noise: one row for each (state, action), its weight rho pi / q put into the advantages. Equation 4.
    game, old = solved.game, solved.old
    states, actions = torch.cartesian_prod(torch.arange(6), torch.arange(3)).T
    pi = solved.table(solved.theta_old)
    weights = 18 * (old.rho[:, None] * pi)[states, actions]
    eye = torch.eye(6, dtype=torch.float64)
    batch = Batch(eye[states], actions, weights * old.A[states, actions], pi[states, actions].log())
    at = solved.theta_old.clone().requires_grad_()
    (policy_gradient,) = torch.autograd.grad(mdp.evaluate_policy(game, solved.table(at)).eta, at)
    gradient = surrogate_gradient(solved.policy, solved.theta_old, batch)
    torch.testing.assert_close(gradient, policy_gradient, rtol=1e-9, atol=1e-11)
