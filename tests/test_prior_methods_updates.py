"""Methods as other uses of TRPO's problem: each against a twin that shares nothing with it, and told from mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import Case, all_actions, mutant, normal, small_problem
from scipy.optimize import minimize
from trpo_twins import (
    TO_THE_END,
    assert_nothing_moved,
    full_step,
    naive_fisher,
    naive_gradient,
    naive_mean_kl,
    naive_surrogate,
)

from trpo_lessons.distributions import DiagGaussian
from trpo_lessons.kl import empirical_fisher_vector_product, fisher_matrix
from trpo_lessons.policies import CategoricalHead, GaussianHead, linear_policy
from trpo_lessons.prior_methods import max_kl, natural_gradient, reps, rwr, weighted_fit
from trpo_lessons.prior_methods.weighted_fit import weighted_likelihood
from trpo_lessons.problem import Candidate, Problem, Refused
from trpo_lessons.surrogate import Batch
from trpo_lessons.trpo import TrustRegion, trpo_update

EMPIRICAL = TrustRegion(fisher=empirical_fisher_vector_product, **TO_THE_END)  # type: ignore[arg-type]
EXACT = TrustRegion(damping=0.05, **TO_THE_END)  # type: ignore[arg-type]


@pytest.fixture(params=["linear-categorical", "mlp-gaussian"])
def problem(request: pytest.FixtureRequest) -> Case:
    return small_problem(request.param, 25)


@pytest.fixture(params=["linear-categorical", "linear-gaussian"])
def linear_problem(request: pytest.FixtureRequest) -> Case:
    return small_problem(request.param, 40)


# ---- natural gradient


def check_natural_gradient(problem: Case, module: ModuleType = natural_gradient) -> None:
    new, report = module.natural_gradient_update(problem, problem.theta, EXACT, penalty=30.0)
    step = (new - problem.theta).numpy()
    damped = naive_fisher(problem) + 0.05 * np.eye(len(step))
    np.testing.assert_allclose(step, scipy.linalg.solve(damped, naive_gradient(problem)) / 30.0, rtol=1e-7, atol=1e-12)
    assert (report.accepted, report.reason, report.step_fraction, report.backtracks) == (True, "accepted", 1.0, 0)
    assert report.surrogate_before == pytest.approx(naive_surrogate(problem, problem.theta), rel=1e-9)
    assert report.surrogate_after == pytest.approx(naive_surrogate(problem, new), rel=1e-9)
    assert report.mean_kl == pytest.approx(naive_mean_kl(problem, new), rel=1e-9)
    assert report.predicted_gain == pytest.approx(naive_gradient(problem) @ step, rel=1e-9)
    assert report.step_norm == pytest.approx(np.linalg.norm(step), rel=1e-9)


def test_the_natural_gradient_is_the_dense_solution_over_the_penalty(problem: Case) -> None:
    check_natural_gradient(problem)


@pytest.mark.parametrize(
    "mistake",
    [
        ("direction.x / penalty", "direction.x * penalty"),
        ("theta + direction.x", "theta - direction.x"),
        ("theta + direction.x / penalty", "theta + start.gradient / penalty"),
        ("problem.fisher_product(theta, region.fisher, region.fisher_stride)", "lambda v: 2 * v"),
    ],
)
def test_mistakes_in_the_natural_gradient_are_caught(mistake: tuple[str, str], problem: Case) -> None:
    with pytest.raises(AssertionError):
        check_natural_gradient(problem, mutant(natural_gradient, mistake))


def test_a_penalty_in_place_of_delta(problem: Case) -> None:
    """There is one penalty with which the step is TRPO's full step: the multiplier of its constraint."""
    x = full_step(problem, **TO_THE_END)
    damped = naive_fisher(problem) + 0.1 * np.eye(len(x))
    penalty = math.sqrt(naive_gradient(problem) @ scipy.linalg.solve(damped, naive_gradient(problem)) / (2 * 0.01))
    region = TrustRegion(**TO_THE_END)  # type: ignore[arg-type]
    new, _ = natural_gradient.natural_gradient_update(problem, problem.theta, region, penalty)
    np.testing.assert_allclose((new - problem.theta).numpy(), x, rtol=1e-6, atol=1e-12)


def test_nothing_holds_the_natural_gradient_back(problem: Case) -> None:
    _, report = natural_gradient.natural_gradient_update(problem, problem.theta, EXACT, penalty=0.05)
    assert report.accepted
    assert report.mean_kl > 0.5


def test_the_natural_gradient_stays_where_there_is_no_direction(problem: Case) -> None:
    flat = replace(problem, batch=replace(problem.batch, advantages=0 * problem.batch.advantages))
    downward = replace(EXACT, damping=0.0, fisher=lambda *_: lambda v: -v)
    for case, region, why in ((flat, EXACT, "the gradient is zero"), (problem, downward, "conjugate gradient broke")):
        new, report = natural_gradient.natural_gradient_update(case, problem.theta, region)
        assert new is problem.theta
        assert report.reason.startswith(why)
        assert_nothing_moved(report)


@pytest.mark.parametrize("penalty", [0.0, -1.0, math.nan, math.inf])
def test_a_penalty_out_of_range(penalty: float, problem: Case) -> None:
    with pytest.raises(ValueError, match="the penalty must be above 0 and finite"):
        natural_gradient.natural_gradient_update(problem, problem.theta, EXACT, penalty)


# ---- empirical Fisher matrix


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


# ---- max KL


def test_another_acceptance_rule_is_another_function(problem: Case) -> None:
    rule = max_kl.largest_kl_or_surrogate
    new, report = trpo_update(problem, problem.theta, objection=rule)
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


@pytest.mark.parametrize(
    ("surrogate", "largest", "told"),
    [
        (1.0, 0.01, ""),
        (1.0, 0.0101, "the largest KL is still 0.0101 > delta = 0.01 at the shortest step"),
        (0.0, 0.001, "the surrogate does not improve (by 0 at the shortest step)"),
        (math.nan, 0.001, "the surrogate or the KL is not finite along the whole step"),
        (1.0, math.inf, "the surrogate or the KL is not finite along the whole step"),
    ],
)
def test_objections_to_the_largest_kl(surrogate: float, largest: float, told: str) -> None:
    candidate = Candidate(torch.zeros(1), surrogate, mean_kl=0.001, max_kl=largest)
    assert max_kl.largest_kl_or_surrogate(candidate, 0.0, 0.01) == told


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_every_state_has_a_fisher_matrix_of_its_own(linear_problem: Case, chunk_size: int | None) -> None:
    policy, theta, batch = linear_problem.policy, linear_problem.theta, linear_problem.batch
    found = max_kl.fisher_of_each(policy, theta, batch, chunk_size)
    expected = torch.stack([fisher_matrix(policy, theta, obs[None]) for obs in batch.obs])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9, atol=1e-12)


def matrices_of(problem: Case) -> tuple[np.ndarray, np.ndarray]:
    found = max_kl.fisher_of_each(problem.policy, problem.theta, problem.batch)
    return found + 0.1 * np.eye(len(problem.theta)), naive_gradient(problem)


def gain_of_the_dual(matrices: np.ndarray, gradient: np.ndarray, delta: float) -> float:
    """min over multipliers >= 0 of 1/2 g^T (sum of multipliers A_s)^-1 g + delta times their sum: the same number."""

    def value(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        x = np.linalg.solve(np.tensordot(multipliers, matrices, 1), gradient)
        return 0.5 * gradient @ x + delta * multipliers.sum(), delta - 0.5 * ((matrices @ x) @ x)

    first = np.full(len(matrices), np.linalg.norm(gradient) / len(matrices))
    options = {"maxiter": 20_000, "maxfun": 100_000, "ftol": 1e-14, "gtol": 1e-10}
    bounds = [(1e-12, None)] * len(first)
    return float(minimize(value, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun)


def check_longest_step(problem: Case, module: ModuleType = max_kl) -> None:
    matrices, gradient = matrices_of(problem)
    d = module.longest_step(matrices, gradient, 0.01)
    lengths = 0.5 * np.einsum("nij,i,j->n", matrices, d, d)
    assert lengths.max() == pytest.approx(0.01, rel=1e-3)
    assert lengths.max() <= 0.01 * (1 + 1e-9)
    assert gradient @ d == pytest.approx(gain_of_the_dual(matrices, gradient, 0.01), rel=1e-3)


def test_the_longest_step_has_the_gain_of_the_dual_problem(linear_problem: Case) -> None:
    check_longest_step(linear_problem)


@pytest.mark.parametrize(
    "mistake",
    [
        ("int(squares.argmax())", "int(squares.argmin())"),
        ("_under(lengths[few], slope, u / too_long)", "u / too_long"),
        ("/ (2 * delta)", "/ delta"),
        ("slope = to_d.T @ gradient", "slope = to_d @ gradient"),
        ("few.append(worst)", "few = [worst]"),
        ("to_d @ u / max(too_long, 1.0)", "-to_d @ u"),
    ],
)
def test_mistakes_in_the_longest_step_are_caught(mistake: tuple[str, str], linear_problem: Case) -> None:
    with pytest.raises((AssertionError, Refused)):
        check_longest_step(linear_problem, mutant(max_kl, mistake))


def test_max_kl_gains_more_than_trpo_s_direction_shortened_until_it_fits(linear_problem: Case) -> None:
    """It is not TRPO with a stricter search: another direction fits better between the states."""
    matrices, gradient = matrices_of(linear_problem)
    shortened = np.linalg.solve(matrices.mean(0), gradient)
    shortened *= math.sqrt(0.01 / (0.5 * np.einsum("nij,i,j->n", matrices, shortened, shortened)).max())
    assert gradient @ max_kl.longest_step(matrices, gradient, 0.01) > 1.05 * gradient @ shortened


def test_a_max_kl_update_keeps_every_state_within_delta(linear_problem: Case) -> None:
    region = TrustRegion(delta=0.02, damping=0.1, shrink=0.9, max_backtracks=50)
    new, report = max_kl.max_kl_update(linear_problem, linear_problem.theta, region)
    assert report.accepted
    old, after = (linear_problem.policy(theta, linear_problem.batch.obs) for theta in (linear_problem.theta, new))
    assert report.max_kl == pytest.approx(old.kl(after).max().item(), rel=1e-9)
    assert 0.5 * 0.02 < report.max_kl <= 0.02
    assert naive_surrogate(linear_problem, new) > naive_surrogate(linear_problem, linear_problem.theta)
    matrices = max_kl.fisher_of_each(linear_problem.policy, linear_problem.theta, linear_problem.batch)
    full = max_kl.longest_step(matrices + 0.1 * np.eye(len(new)), naive_gradient(linear_problem), 0.02)
    step = (new - linear_problem.theta).numpy()
    np.testing.assert_allclose(step, report.step_fraction * full, rtol=1e-6, atol=1e-9)


def test_max_kl_is_not_for_networks() -> None:
    network = small_problem("mlp-gaussian", 25)
    told = f"a policy of at most 50 parameters; this one has {network.policy.num_parameters}. Linear ones"
    with pytest.raises(ValueError, match=told):
        max_kl.max_kl_update(network, network.theta)


# ---- weighted maximum likelihood


def test_the_most_likely_probabilities_are_in_proportion_to_the_weights() -> None:
    """One state, three actions."""
    case = small_problem("linear-categorical", 3)
    one_state = replace(case.batch, obs=torch.ones_like(case.batch.obs), actions=torch.arange(3))
    weights = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    fit = weighted_likelihood(Problem(case.policy, one_state), weights)
    theta, facts = weighted_fit.fit(fit, torch.zeros_like(case.theta), 100)
    log_probs = case.policy(theta, one_state.obs).log_prob(torch.arange(3))
    torch.testing.assert_close(log_probs.exp(), weights / weights.sum(), rtol=1e-4, atol=1e-4)
    shares = weights / weights.sum()
    best = (weights * shares.log()).mean().item() - (weights * math.log(1 / 3)).mean().item()
    assert facts["likelihood_gain"] == pytest.approx(best, rel=1e-6)


def test_a_gaussian_is_fitted_by_weighted_least_squares() -> None:
    """The mean is the weighted regression on the observations, the variance the weighted mean of the squared errors."""
    case = small_problem("linear-gaussian", 60)
    weights = normal(9, 60).exp()
    theta, _ = weighted_fit.fit(weighted_likelihood(case, weights / weights.mean()), case.theta, 500)
    X = np.column_stack([case.batch.obs.numpy(), np.ones(60)])
    root = weights.sqrt().numpy()[:, None]
    coefficients = np.linalg.lstsq(root * X, root * case.batch.actions.numpy(), rcond=None)[0]
    errors = case.batch.actions.numpy() - X @ coefficients
    variance = np.average(errors**2, axis=0, weights=weights.numpy())
    pi = case.policy(theta, case.batch.obs)
    assert isinstance(pi, DiagGaussian)
    np.testing.assert_allclose(pi.mean.numpy(), X @ coefficients, atol=1e-3)
    np.testing.assert_allclose(pi.log_std[0].exp().numpy() ** 2, variance, rtol=1e-3)


def test_what_weights_say_of_themselves() -> None:
    equal = weighted_fit.Weights.of(torch.full((7,), 3.0, dtype=torch.float64), temperature=2.0)
    assert equal.values.tolist() == [1.0] * 7
    assert equal.facts == {"weights_kl": 0.0, "effective_samples": 1.0, "temperature": 2.0}
    one_of_ten = weighted_fit.Weights.of(torch.eye(10, dtype=torch.float64)[0])
    assert one_of_ten.kl == pytest.approx(math.log(10))
    assert one_of_ten.effective_samples == pytest.approx(0.1)


def updates_by_weights() -> dict[str, Callable[..., Any]]:
    return {
        "rwr": partial(rwr.rwr_update, temperature=0.5),
        "reps": partial(reps.reps_update, epsilon=0.2),
        "reps with the flow": partial(reps.reps_update, epsilon=0.2, constraint=partial(reps.flow, num_steps=5)),
    }


@pytest.mark.parametrize("name", updates_by_weights())
@pytest.mark.parametrize("kind", ["linear-categorical", "mlp-gaussian"])
def test_a_fitted_policy_s_report(name: str, kind: str) -> None:
    problem = small_problem(kind, 100)
    new, report = updates_by_weights()[name](problem, problem.theta, fit_iterations=7)
    assert report.accepted
    assert report.mean_kl == pytest.approx(naive_mean_kl(problem, new), rel=1e-9)
    assert report.surrogate_after == pytest.approx(naive_surrogate(problem, new), rel=1e-9)
    assert set(report.facts) == set(rwr.RWR_FACTS if name == "rwr" else reps.REPS_FACTS)
    assert report.facts["likelihood_gain"] > 0
    assert 1 <= report.facts["fit_iterations"] <= 7
    if name != "rwr":
        assert report.facts["weights_kl"] == pytest.approx(0.2, rel=1e-3), "what epsilon bounds"
        assert report.facts["constraint_gap"] < 1e-4


def test_epsilon_does_not_bound_the_fitted_policy() -> None:
    """A few samples that a policy can fit well take it further than the weights went."""
    case = small_problem("linear-gaussian", 8)
    _, report = reps.reps_update(case, case.theta, epsilon=0.01, fit_iterations=300)
    assert report.facts["weights_kl"] <= 0.0101
    assert report.mean_kl > 0.1


@pytest.mark.parametrize("name", updates_by_weights())
def test_what_is_not_finite_never_reaches_theta(name: str, problem: Case) -> None:
    bad = replace(problem, batch=replace(problem.batch, advantages=problem.batch.advantages * math.nan))
    new, report = updates_by_weights()[name](bad, problem.theta)
    assert new is problem.theta
    assert report.reason == "the surrogate or its gradient is not finite"
    assert_nothing_moved(report)


def test_settings_of_the_fits_out_of_range(problem: Case) -> None:
    for bad in ({"temperature": 0.0}, {"temperature": math.inf}, {"largest_weight": 0.5}, {"fit_iterations": 0}):
        with pytest.raises(ValueError, match=r"need a finite temperature|fit_iterations must be"):
            rwr.rwr_update(problem, problem.theta, **bad)  # type: ignore[arg-type]
    for epsilon in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="epsilon must be above 0"):
            reps.reps_update(problem, problem.theta, epsilon)
    with pytest.raises(ValueError, match="25 states are not rows of 4"):
        reps.reps_update(problem, problem.theta, constraint=partial(reps.flow, num_steps=4))
    with pytest.raises(ValueError, match="features of vectors"):
        reps.features(torch.zeros(3, 4, 5, 5))


# ---- RWR


def check_rwr_weights(module: ModuleType = rwr) -> None:
    advantages = torch.tensor([-3.0, -0.5, 0.0, 1.0, 40.0], dtype=torch.float64)
    batch = Batch(torch.zeros(5, 2), torch.zeros(5), advantages, torch.zeros(5))
    expected = np.minimum(np.exp(advantages.numpy() / 0.8), 20.0)
    weights = module.exponential_weights(batch, 0.8, 20.0)
    np.testing.assert_allclose(weights.values.numpy(), expected / expected.mean(), rtol=1e-12)
    unlimited = module.exponential_weights(replace(batch, advantages=100 * advantages), 1.0)
    np.testing.assert_allclose(unlimited.values.numpy(), [0, 0, 0, 0, 5], atol=1e-12)


def test_rwr_s_weights_are_exponential_up_to_a_limit() -> None:
    check_rwr_weights()


@pytest.mark.parametrize(
    "mistake",
    [
        ("advantages.double() / temperature", "advantages.double() * temperature"),
        ("exponents - exponents.max()", "exponents"),
        ("clamp(max=math.log(largest_weight))", "clamp(max=largest_weight)"),
        ("clamp(max=math.log(largest_weight))", "clamp(min=0)"),
    ],
)
def test_mistakes_in_rwr_s_weights_are_caught(mistake: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        check_rwr_weights(mutant(rwr, mistake))


@pytest.mark.parametrize("head", [CategoricalHead(3), GaussianHead(1)])
def test_at_a_high_temperature_rwr_is_the_natural_gradient(head: Any) -> None:
    """With the temperature as penalty; where every action counts by its probability, so that the old policy fits."""
    policy = linear_policy(2, head)
    theta, obs = 0.3 * normal(1, policy.num_parameters), normal(2, 12, 2)
    pi = policy(theta, obs)
    if isinstance(pi, DiagGaussian):
        nodes, node_weights = np.polynomial.hermite_e.hermegauss(8)
        choices = [pi.sample_from(torch.full((12, 1), x, dtype=torch.float64)) for x in nodes]
        shares = [torch.full((12,), w / math.sqrt(2 * math.pi), dtype=torch.float64) for w in node_weights]
    else:
        choices = [action.expand(12) for action in all_actions(pi)]
        shares = [pi.log_prob(actions).exp() for actions in choices]
    worth = torch.stack([torch.sin(3 * obs[:, 0] + actions.flatten()) for actions in choices])
    advantages = worth - (torch.stack(shares) * worth).sum(0)
    share = torch.cat(shares) * len(choices)
    batch = Batch(obs.repeat(len(choices), 1), torch.cat(choices), advantages.flatten(), torch.zeros(12 * len(choices)))
    gradient = weighted_likelihood(Problem(policy, batch), share * batch.advantages).gradient(theta)
    natural = torch.linalg.pinv(fisher_matrix(policy, theta, obs), rtol=1e-9) @ gradient  # a softmax has no zero
    weights = share * rwr.exponential_weights(batch, 30.0).values
    fitted, _ = weighted_fit.fit(weighted_likelihood(Problem(policy, batch), weights), theta, 1000)
    step = 30.0 * (fitted - theta)
    assert (step - natural).norm() < 0.08 * natural.norm()


# ---- REPS


def check_reps_weights(constraint: str, module: ModuleType = reps) -> None:
    """Against the primal: weights found directly, by a method that knows nothing of a dual."""
    num, epsilon = 24, 0.15
    case = small_problem("linear-gaussian", num)
    c_of = module.visited if constraint == "visited" else partial(module.flow, num_steps=6)
    batch = replace(case.batch, obs=case.batch.obs[:, :2])
    found = module.relative_entropy_weights(batch, epsilon, c_of).values.numpy()
    advantages, c = batch.advantages.numpy(), naive_constraint(batch.obs.numpy(), constraint)
    rules = [
        {"type": "eq", "fun": lambda w: w.mean() - 1},
        {"type": "eq", "fun": lambda w: w @ c / num},
        {"type": "ineq", "fun": lambda w: epsilon - np.mean(w * np.log(w))},
    ]
    options = {"maxiter": 1000, "ftol": 1e-13}
    bounds = [(1e-9, None)] * num
    first = np.ones(num)
    primal = minimize(
        lambda w: -np.mean(w * advantages), first, method="SLSQP", bounds=bounds, constraints=rules, options=options
    )
    assert primal.success
    np.testing.assert_allclose(found, primal.x, atol=2e-3)


def naive_constraint(obs: np.ndarray, constraint: str) -> np.ndarray:
    phi = np.column_stack([obs, obs**2])
    phi = phi / phi.std(0)
    if constraint == "visited":
        return phi.mean(0) - phi
    c = np.zeros_like(phi)
    for n in range(len(phi)):
        if n % 6 != 5:
            c[n] = phi[n + 1] - phi[n]
    return c


def check_both(module: ModuleType) -> None:
    for constraint in ("visited", "flow"):
        check_reps_weights(constraint, module)


@pytest.mark.parametrize("constraint", ["visited", "flow"])
def test_reps_weights_solve_the_primal_problem(constraint: str) -> None:
    check_reps_weights(constraint)


@pytest.mark.parametrize(
    "mistake",
    [
        ("log_sum - math.log(len(scaled))", "log_sum"),
        ("eta * bound, np.concatenate", "bound, np.concatenate"),
        ("bound - weights @ scaled", "bound"),
        ("log_w = (advantages + c @ v) / eta", "log_w = advantages / eta"),
        ("log_w = (advantages + c @ v) / eta", "log_w = advantages + c @ v"),
        ("rows[:, 1:] - rows[:, :-1]", "rows[:, 1:] + rows[:, :-1]"),
        ("phi.reshape(-1, num_steps, ", "phi.reshape(1, -1, "),  # follows from one environment into another
        ("phi - phi.mean(0)", "phi"),
    ],
)
def test_mistakes_in_reps_are_caught(mistake: tuple[str, str]) -> None:
    wrong = mutant(reps, mistake)
    with pytest.raises((AssertionError, Refused)):
        check_both(wrong)


def test_a_constraint_that_no_weights_hold_is_refused() -> None:
    """States that only ever rise: no weighting comes to each of them as often as it leaves it."""
    batch = small_problem("linear-gaussian", 24).batch
    rising = replace(batch, obs=torch.arange(24.0, dtype=torch.float64)[:, None])
    with pytest.raises(Refused, match="no weights within epsilon"):
        reps.relative_entropy_weights(rising, 0.15, partial(reps.flow, num_steps=24))
    reps.relative_entropy_weights(rising, 0.15)


def test_the_dual_s_gradient_is_that_of_its_value() -> None:
    advantages, c = normal(0, 30).numpy(), normal(1, 30, 3).numpy()
    at = np.array([0.7, 0.3, -0.2, 0.5])
    _, gradient = reps.dual(at, advantages, c, 0.2)
    for i, e in enumerate(1e-6 * np.eye(4)):
        slope = (reps.dual(at + e, advantages, c, 0.2)[0] - reps.dual(at - e, advantages, c, 0.2)[0]) / 2e-6
        assert slope == pytest.approx(gradient[i], rel=1e-6, abs=1e-8)


def test_large_advantages_do_not_overflow() -> None:
    value, gradient = reps.dual(np.array([1e-3, 0.0]), np.array([1e3, 0.0, -1e3]), np.ones((3, 1)), 0.1)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_the_lowest_temperature_ends_where_one_sample_would_take_all() -> None:
    """With epsilon above log N the constraint on the KL cannot be met: eta would go to 0."""
    batch = Batch(torch.zeros(6, 2), torch.zeros(6), normal(0, 6), torch.zeros(6))
    weights = reps.relative_entropy_weights(batch, 5.0)
    assert weights.facts["temperature"] == reps.LOWEST_TEMPERATURE
    assert weights.values.argmax() == batch.advantages.argmax()
    assert weights.kl == pytest.approx(math.log(6), rel=1e-6)


def test_the_flow_takes_away_what_is_a_change_of_features() -> None:
    """Such as the advantage of a step in which only the state's value changes; the visited states leave it."""
    obs, num_steps = normal(0, 600, 2), 200
    worth = obs @ torch.tensor([1.0, -2.0], dtype=torch.float64) + obs.square() @ torch.tensor([0.5, 1.0]).double()
    rows = worth.view(-1, num_steps)
    advantages = torch.cat([rows[:, 1:] - rows[:, :-1], torch.zeros(3, 1, dtype=torch.float64)], 1).flatten()
    batch = Batch(obs, torch.zeros(600), advantages, torch.zeros(600))
    left = reps.relative_entropy_weights(batch, 0.2, partial(reps.flow, num_steps=num_steps))
    assert left.effective_samples > 0.999
    assert reps.relative_entropy_weights(batch, 0.2).effective_samples < 0.8


def test_several_actions_in_a_state_cannot_be_weighed() -> None:
    class Vine:
        obs = torch.zeros(3, 2)

        def __len__(self) -> int:
            return 3

    problem = Problem(linear_policy(2, CategoricalHead(2)), Vine())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one action in every state; a vine has several"):
        weighted_likelihood(problem, torch.ones(3))
