"""Other methods are other uses of the same problem: each is a line or two away from TRPO, and is what it should be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import Case, small_problem
from torch import Tensor
from trpo_twins import TO_THE_END, full_step, naive_fisher, naive_gradient, naive_mean_kl, naive_surrogate

from trpo_lessons.kl import empirical_fisher_vector_product
from trpo_lessons.problem import Candidate, Problem
from trpo_lessons.trpo import TrustRegion, natural_direction, trpo_update

# ---- the methods


def natural_gradient(problem: Problem, theta: Tensor, region: TrustRegion, penalty: float) -> Tensor:
    """Equation 18 with a fixed penalty: no search, no delta."""
    return theta + natural_direction(problem.fisher_product(theta), problem.gradient(theta), region).x / penalty


EMPIRICAL = TrustRegion(fisher=empirical_fisher_vector_product, **TO_THE_END)  # type: ignore[arg-type]


def largest_kl(candidate: Candidate, surrogate_before: float, delta: float) -> str:
    """Equation 12: no state may be further away than delta."""
    return "" if candidate.max_kl <= delta and candidate.surrogate > surrogate_before else "too far, or no better"


def weighted_likelihood(problem: Problem, weights: Tensor) -> Problem:
    """What reward-weighted regression and REPS maximise: mean of w log pi. Samples keep their weights as advantages."""
    weighted = replace(problem.batch, advantages=weights)  # type: ignore[type-var]
    return replace(problem, batch=weighted, surrogate=lambda pi, batch: batch.advantages * pi.log_prob(batch.actions))


# ---- are what they should be


@pytest.fixture(params=["linear-categorical", "mlp-gaussian"])
def problem(request: pytest.FixtureRequest) -> Case:
    return small_problem(request.param, 25)


def test_the_natural_gradient_is_the_dense_solution_over_the_penalty(problem: Case) -> None:
    region = TrustRegion(damping=0.05, **TO_THE_END)  # type: ignore[arg-type]
    step = (natural_gradient(problem, problem.theta, region, penalty=30.0) - problem.theta).numpy()
    damped = naive_fisher(problem) + 0.05 * np.eye(len(step))
    np.testing.assert_allclose(step, scipy.linalg.solve(damped, naive_gradient(problem)) / 30.0, rtol=1e-7, atol=1e-12)


def test_the_empirical_fisher_matrix_makes_another_step_of_the_same_size(problem: Case) -> None:
    new, report = trpo_update(problem, problem.theta, EMPIRICAL)
    assert report.accepted
    analytic = full_step(problem, **TO_THE_END)
    empirical = ((new - problem.theta) / report.step_fraction).numpy()
    assert np.linalg.norm(empirical - analytic) > 0.05 * np.linalg.norm(analytic)
    scores = np.stack([score(problem, n) for n in range(25)])
    damped = scores.T @ scores / 25 + 0.1 * np.eye(len(empirical))
    assert 0.5 * empirical @ damped @ empirical == pytest.approx(0.01, rel=1e-6)


def score(problem: Case, n: int) -> np.ndarray:
    at = problem.theta.clone().requires_grad_()
    row = problem.batch[n : n + 1]
    return torch.autograd.grad(problem.policy(at, row.obs).log_prob(row.actions).sum(), at)[0].numpy()


def test_another_acceptance_rule_is_another_function(problem: Case) -> None:
    new, report = trpo_update(problem, problem.theta, objection=largest_kl)
    assert report.accepted
    assert 0 < report.mean_kl < report.max_kl <= 0.01
    assert naive_mean_kl(problem, new) == pytest.approx(report.mean_kl, rel=1e-9)
    assert naive_surrogate(problem, new) > naive_surrogate(problem, problem.theta)
    usual, report = trpo_update(problem, problem.theta)
    assert report.max_kl > 0.01, "otherwise the rule made no difference"
    assert not torch.equal(usual, new)


def test_what_the_rule_says_of_the_shortest_step_is_the_reason(problem: Case) -> None:
    new, report = trpo_update(problem, problem.theta, objection=lambda *_: "never")
    assert new is problem.theta
    assert report.reason == "line search: never"
    assert report.backtracks == 10


def test_the_most_likely_parameters_are_where_the_weighted_likelihood_is_flat() -> None:
    """One state, three actions: with weights w the best probabilities are in proportion to the weights."""
    case = small_problem("linear-categorical", 3)
    one_state = replace(case.batch, obs=torch.ones_like(case.batch.obs), actions=torch.arange(3))
    weights, theta = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64), torch.zeros_like(case.theta)
    fit = weighted_likelihood(Problem(case.policy, one_state), weights)
    for _ in range(200):
        theta = natural_gradient(fit, theta, TrustRegion(damping=1e-4), penalty=weights.mean().item() * 3)
    log_probs = case.policy(theta, one_state.obs).log_prob(torch.arange(3))
    torch.testing.assert_close(log_probs.exp(), weights / weights.sum(), rtol=1e-6, atol=1e-6)
