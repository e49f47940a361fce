"""One update: its promises on random problems, its step against dense algebra, and what can be swapped in."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import KINDS, PROPERTY, Case, all_actions, normal, seeded, small_problem
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trpo_twins import (
    TO_THE_END,
    Spy,
    assert_nothing_moved,
    cosine,
    full_step,
    naive_fisher,
    naive_full_step,
    naive_gradient,
    naive_mean_kl,
    naive_surrogate,
    run,
)

from trpo_lessons import mdp
from trpo_lessons.distributions import Distribution
from trpo_lessons.kl import empirical_fisher_vector_product, fisher_vector_product
from trpo_lessons.policies import CategoricalHead, GaussianHead, Policy, linear_policy, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, sampled_surrogate
from trpo_lessons.trpo import TrustRegion, trpo_update

# ---- what every update promises


@PROPERTY
@given(
    kind=st.sampled_from(KINDS),
    num_samples=st.integers(2, 40),
    seed=st.integers(0, 10_000),
    log_delta=st.floats(-5, 0.5),
    damping=st.sampled_from([1e-4, 0.1, 1.0]),
    cg_iterations=st.integers(1, 15),
    fisher_stride=st.integers(1, 4),
    chunk_size=st.sampled_from([None, 7]),
)
def test_the_new_policy_is_better_and_within_the_trust_region_or_theta_is_what_it_was(
    kind: str, num_samples: int, seed: int, log_delta: float, **settings: Any
) -> None:
    problem, delta = small_problem(kind, num_samples, seed), 10**log_delta
    before = problem.theta.clone()
    new, report = run(problem, delta=delta, **settings)
    assert torch.equal(problem.theta, before)
    assert report.surrogate_before == pytest.approx(naive_surrogate(problem, before), rel=1e-9, abs=1e-12)
    assert report.accepted == (report.reason == "accepted")
    if report.accepted:
        assert naive_mean_kl(problem, new) <= delta * (1 + 1e-9)
        assert naive_surrogate(problem, new) > naive_surrogate(problem, before) - 1e-12
        assert report.surrogate_after > report.surrogate_before
        assert not torch.equal(new, before)
    else:
        assert new is problem.theta
        assert report.surrogate_after == report.surrogate_before
        assert_nothing_moved(report)


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_says_what_happened(kind: str) -> None:
    problem = small_problem(kind, 30)
    new, report = run(problem, delta=0.5, shrink=0.7, cg_iterations=6)
    assert report.accepted
    gradient, step = naive_gradient(problem), (new - problem.theta).numpy()
    each = problem.policy(problem.theta, problem.batch.obs).kl(problem.policy(new, problem.batch.obs))
    assert report.surrogate_before == pytest.approx(naive_surrogate(problem, problem.theta), rel=1e-10)
    assert report.surrogate_after == pytest.approx(naive_surrogate(problem, new), rel=1e-10)
    assert report.actual_gain == pytest.approx(report.surrogate_after - report.surrogate_before)
    assert report.predicted_gain == pytest.approx(gradient @ step, rel=1e-9)
    assert report.mean_kl == pytest.approx(each.mean().item(), rel=1e-10)
    assert report.max_kl == pytest.approx(each.max().item(), rel=1e-10)
    assert report.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-10)
    assert report.step_norm == pytest.approx(np.linalg.norm(step), rel=1e-10)
    assert report.step_fraction == pytest.approx(0.7**report.backtracks, rel=1e-12)
    assert len(report.residual_norms) == 7
    assert report.residual_norms[0] == pytest.approx(report.gradient_norm, rel=1e-10)
    assert set(report.seconds) == {"gradient", "cg", "search"}
    assert all(seconds >= 0 for seconds in report.seconds.values())


def test_small_steps_gain_what_the_linear_model_predicts() -> None:
    problem = small_problem("mlp-gaussian", 50)
    for delta, tolerance in ((1e-4, 0.2), (1e-6, 0.02), (1e-8, 0.002)):
        _, report = run(problem, delta=delta, damping=1e-3)
        assert report.predicted_gain > 0
        assert report.actual_gain == pytest.approx(report.predicted_gain, rel=tolerance)


def test_the_same_input_gives_the_same_bits_and_an_equal_report() -> None:
    problem = small_problem("mlp-categorical", 40, dtype=torch.float32)
    state = torch.get_rng_state()
    (first, report), (again, report_again) = (run(problem) for _ in range(2))
    assert report.accepted
    assert torch.equal(first, again)
    assert report == report_again
    assert report != replace(report, mean_kl=report.mean_kl * 2)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


@pytest.mark.parametrize("head", [GaussianHead(3), CategoricalHead(4)])
def test_it_works_in_float32_from_the_first_theta_with_the_default_settings(
    head: GaussianHead | CategoricalHead,
) -> None:
    policy = mlp_policy(11, head)
    theta, obs = policy.initial_theta(seeded(0)), normal(1, 600, 11, dtype=torch.float32)
    distribution = policy(theta, obs)
    actions = distribution.sample(seeded(2))
    batch = Batch(obs, actions, normal(3, 600, dtype=torch.float32), distribution.log_prob(actions))
    new, report = trpo_update(Problem(policy, batch), theta)
    assert report.accepted
    assert new.dtype == torch.float32
    assert len(report.residual_norms) == 11, "ten iterations"
    assert 0.003 < report.mean_kl <= 0.01, "most of the trust region is used"
    in_float64 = policy(theta.double(), obs.double()).kl(policy(new.double(), obs.double())).mean().item()
    assert report.mean_kl == pytest.approx(in_float64, rel=1e-4)
    assert 0.5 < report.actual_gain / report.predicted_gain < 1.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-2)])
def test_chunks_change_nothing(kind: str, dtype: torch.dtype, tolerance: float) -> None:
    # Looser than a single mean's 1e-10 and 1e-4: ten iterations of conjugate gradient amplify the rounding.
    problem = small_problem(kind, 23, dtype=dtype)
    whole, _ = run(problem)
    for chunk_size in (1, 8, 22, 40):
        chunked, report = run(problem, chunk_size=chunk_size)
        assert report.accepted
        assert (chunked - whole).norm() <= tolerance * (whole - problem.theta).norm()


# ---- the step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.001, 0.1])
def test_the_step_is_the_dense_solution(kind: str, damping: float) -> None:
    problem = small_problem(kind, 12)
    step = full_step(problem, delta=0.01, damping=damping, **TO_THE_END)
    expected = naive_full_step(problem, 0.01, damping)
    assert np.linalg.norm(step - expected) <= 1e-7 * np.linalg.norm(expected)


@pytest.mark.parametrize("cg_iterations", [1, 4, 1000])
@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_before_backtracking_the_damped_quadratic_model_is_exactly_delta(cg_iterations: int, damping: float) -> None:
    # Also where conjugate gradient is far from converged: the scale is measured on the x it returned.
    problem = small_problem("mlp-gaussian", 30)
    damped = naive_fisher(problem) + damping * np.eye(problem.policy.num_parameters)
    for delta in (1e-6, 0.01):
        step = full_step(problem, delta=delta, damping=damping, cg_iterations=cg_iterations)
        assert 0.5 * step @ damped @ step == pytest.approx(delta, rel=1e-8)


@pytest.mark.parametrize("kind", ["linear-gaussian", "mlp-categorical"])
def test_no_other_step_of_the_same_length_promises_more(kind: str) -> None:
    # Equation 18's subproblem: of all s with 1/2 s^T A s = delta, beta A^-1 g has the largest g^T s.
    problem, delta, damping = small_problem(kind, 20), 0.01, 0.05
    g, damped = naive_gradient(problem), naive_fisher(problem) + damping * np.eye(problem.policy.num_parameters)
    step = full_step(problem, delta=delta, damping=damping, **TO_THE_END)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1, 10.0):
        for _ in range(50):
            other = step + size * np.linalg.norm(step) * rng.standard_normal(len(step)) / math.sqrt(len(step))
            other *= math.sqrt(2 * delta / (other @ damped @ other))
            assert g @ other <= g @ step


def test_without_damping_a_tiny_step_has_the_kl_it_was_scaled_to() -> None:
    problem, delta = small_problem("linear-gaussian", 40), 1e-8
    _, report = run(problem, delta=delta, damping=0.0, shrink=0.99, **TO_THE_END)
    assert report.backtracks <= 1
    assert report.mean_kl == pytest.approx(delta * report.step_fraction**2, rel=1e-3)


# ---- invariance


@dataclass(frozen=True)
class Reparametrised:
    """The same policies under other parameters: theta = B phi."""

    policy: Policy
    B: Tensor

    @property
    def num_parameters(self) -> int:
        return self.B.shape[1]

    def __call__(self, phi: Tensor, obs: Tensor) -> Any:
        return self.policy(self.B @ phi, obs)


def two_parametrisations() -> tuple[Case, Case]:
    """A problem in 40 dimensions, and the same one seen through an ill-conditioned linear map."""
    policy = linear_policy(38, GaussianHead(1))
    theta, obs = 0.3 * normal(0, 40), normal(1, 300, 38)
    distribution = policy(theta, obs)
    actions = distribution.sample(seeded(2))
    batch = Batch(obs, actions, normal(3, 300), distribution.log_prob(actions))
    left, _ = torch.linalg.qr(normal(4, 40, 40))
    right, _ = torch.linalg.qr(normal(5, 40, 40))
    B = left @ torch.diag(torch.logspace(-1.5, 1.5, 40, dtype=torch.float64)) @ right
    phi = torch.linalg.solve(B, theta)
    return Case(policy, batch, theta=theta), Case(Reparametrised(policy, B), batch, theta=phi)  # type: ignore[arg-type]


def steps_in_theta(**settings: Any) -> tuple[Tensor, Tensor]:
    in_theta, in_phi = two_parametrisations()
    new_theta, _ = run(in_theta, **settings)
    new_phi, _ = run(in_phi, **settings)
    return new_theta - in_theta.theta, in_phi.policy.B @ (new_phi - in_phi.theta)  # type: ignore[attr-defined]


def test_the_natural_step_does_not_depend_on_the_parametrisation_once_cg_has_converged() -> None:
    here, there = steps_in_theta(damping=0.0, cg_iterations=2000, residual_tol=1e-12)
    assert (here - there).norm() < 1e-6 * here.norm()


def test_with_ten_iterations_in_forty_dimensions_it_does() -> None:
    assert cosine(*steps_in_theta(damping=0.0, cg_iterations=10)) < 0.8


def test_with_damping_it_does() -> None:
    assert cosine(*steps_in_theta(damping=0.1, cg_iterations=2000, residual_tol=1e-12)) < 0.99


# ---- what can be swapped in


def test_thinning_by_one_keeps_every_state() -> None:
    problem = small_problem("linear-categorical", 9)
    fisher = Spy(fisher_vector_product)
    run(problem, fisher=fisher)
    assert torch.equal(fisher.seen[0].obs, problem.batch.obs)


def test_kl_and_fisher_matrix_average_over_the_states_that_were_given() -> None:
    # As in the vine: the surrogate over the rollout set, the trust region over the trunk.
    problem, trunk = small_problem("mlp-gaussian", 20), small_problem("mlp-gaussian", 50, seed=90).batch
    fisher, spied_surrogate = Spy(fisher_vector_product), Spy(sampled_surrogate)
    new, report = run(problem, delta=0.05, trunk=trunk, fisher=fisher, surrogate=spied_surrogate)
    assert report.accepted
    assert fisher.seen[0].obs.shape == trunk.obs.shape
    assert all(len(samples) == 20 for samples in spied_surrogate.seen)
    assert report.mean_kl == pytest.approx(naive_mean_kl(problem, new, trunk.obs), rel=1e-10)
    assert report.mean_kl != pytest.approx(naive_mean_kl(problem, new), rel=1e-2)


@dataclass(frozen=True)
class AllActions:
    """States with a value for every action: all that equation 16 needs."""

    obs: Tensor
    q_values: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def __getitem__(self, index: slice) -> AllActions:
        return AllActions(self.obs[index], self.q_values[index])


def all_actions_terms(pi: Distribution, samples: AllActions) -> Tensor:
    """Equation 16, written out."""
    probs = [pi.log_prob(a.expand(len(samples))).exp() for a in all_actions(pi)]
    return (torch.stack(probs, dim=-1) * samples.q_values).sum(-1)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_another_surrogate_with_samples_of_its_own_can_be_swapped_in(chunk_size: int | None) -> None:
    problem = small_problem("mlp-categorical", 15)
    samples = AllActions(problem.batch.obs, normal(5, 15, 3))
    new, report = run(problem, batch=samples, surrogate=all_actions_terms, delta=0.02, chunk_size=chunk_size)
    pi_old, pi_new = (problem.policy(theta, samples.obs) for theta in (problem.theta, new))
    before, after = (all_actions_terms(pi, samples).mean().item() for pi in (pi_old, pi_new))
    assert report.accepted
    assert (report.surrogate_before, report.surrogate_after) == pytest.approx((before, after), rel=1e-10)
    assert after > before
    assert naive_mean_kl(problem, new) <= 0.02


def test_the_empirical_fisher_matrix_can_be_swapped_in() -> None:
    problem, damping = small_problem("mlp-gaussian", 25), 0.1
    outer = np.zeros(2 * problem.theta.shape)
    for obs, action in zip(problem.batch.obs, problem.batch.actions, strict=True):
        at = problem.theta.clone().requires_grad_()
        problem.policy(at, obs[None]).log_prob(action[None]).sum().backward()
        outer += np.outer(at.grad, at.grad) / 25
    damped = outer + damping * np.eye(len(outer))
    x = scipy.linalg.solve(damped, naive_gradient(problem), assume_a="pos")
    expected = math.sqrt(2 * 0.01 / (x @ damped @ x)) * x
    step = full_step(problem, delta=0.01, damping=damping, fisher=empirical_fisher_vector_product, **TO_THE_END)
    assert np.linalg.norm(step - expected) <= 1e-7 * np.linalg.norm(expected)


# ---- it learns


def test_updates_with_exact_advantages_reach_the_optimal_policy_of_an_mdp() -> None:
    game = mdp.garnet(num_states=6, num_actions=3, branching=2, gamma=0.9, seed=3)
    policy, eye = linear_policy(6, CategoricalHead(3)), torch.eye(6, dtype=torch.float64)
    states, actions = torch.cartesian_prod(torch.arange(6), torch.arange(3)).T
    best = torch.zeros(6, dtype=torch.float64)
    for _ in range(500):  # value iteration
        best = (game.r + game.gamma * game.P @ best).amax(-1)
    optimum = (game.rho0 @ best).item()

    theta, etas = torch.zeros(policy.num_parameters, dtype=torch.float64), []
    for _ in range(60):
        pi = policy(theta, eye).parameters[0].softmax(-1)
        old = mdp.evaluate_policy(game, pi)
        weights = 18 * (1 - game.gamma) * (old.rho[:, None] * pi)[states, actions]
        batch = Batch(eye[states], actions, weights * old.A[states, actions], pi[states, actions].log())
        theta, _ = trpo_update(Problem(policy, batch), theta, TrustRegion(delta=0.05, damping=1e-3))
        etas.append(old.eta.item())
    gap = optimum - etas[0]
    assert gap > 1
    assert optimum - etas[-1] < 0.01 * gap
    assert all(later > earlier - 1e-3 * gap for earlier, later in itertools.pairwise(etas))
