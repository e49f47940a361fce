"""What lesson 08 shows, computed a second time by other means."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse.linalg import cg
from teaching_contract import line_of

from trpo_lessons.advantages import gae, standardised
from trpo_lessons.bench.compare import compare
from trpo_lessons.distributions import DiagGaussian
from trpo_lessons.envs.barto_cartpole import BartoCartPole
from trpo_lessons.kl import empirical_fisher_vector_product, fisher_matrix, fisher_vector_product
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.policies import CategoricalHead, GaussianHead, linear_policy, mlp_policy
from trpo_lessons.prior_methods.cem import cem
from trpo_lessons.prior_methods.gaussian_search import bounded_kl, elite, exponential
from trpo_lessons.prior_methods.max_kl import fisher_of_each, longest_step
from trpo_lessons.prior_methods.natural_gradient import natural_gradient_update
from trpo_lessons.prior_methods.rwr import rwr_update
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.lesson_08 import check as checks
from trpo_lessons.teaching.lesson_08 import cloud, explorers, recorded_runs
from trpo_lessons.teaching.solutions import lesson_08 as solutions
from trpo_lessons.trpo import TrustRegion, natural_direction, trpo_update

# ---- section 2: the lambda that TRPO finds


@pytest.mark.parametrize("delta", [1e-4, 0.01])
def test_a_full_step_promises_twice_delta_times_lambda(delta: float) -> None:
    policy, theta, batch = hopper_batch()
    region = TrustRegion(delta=delta, damping=0.1)
    _, report = trpo_update(Problem(policy, batch), theta, region)
    product = fisher_vector_product(policy, theta, batch)
    direction = natural_direction(product, surrogate_gradient(policy, theta, batch), region)
    penalty = math.sqrt(direction.curvature / (2 * delta))
    assert report.predicted_gain / report.step_fraction == pytest.approx(2 * delta * penalty, rel=1e-9)


def test_what_the_lesson_says_of_the_penalties_is_so() -> None:
    found = {task: recorded_runs.penalties(task) for task in recorded_runs.TASKS}
    ratios = {task: each.last / each.first for task, each in found.items()}
    assert 0.2 < ratios.pop("cartpole") < 0.3, "a quarter"
    assert abs(ratios["swimmer"] - 1) < 0.02
    assert abs(ratios["hopper"] - 1) < 0.1
    assert all(0.5 < ratio < 2 for ratio in ratios.values())
    assert 1.4 < ratios["walker"] < 1.6
    assert 1.6 < ratios["halfcheetah"] < 2
    robots = [found[task].last for task in ratios]
    assert 3.5 < max(robots) / min(robots) < 4.5
    assert found["cartpole"].last < min(robots), "smaller still"


@pytest.mark.parametrize(("task", "most"), [("swimmer", 1.3), ("hopper", 1.4), ("walker", 2.1), ("halfcheetah", 2.3)])
def test_for_a_robot_lambda_is_one_number_up_to_a_factor_of_two(task: str, most: float) -> None:
    for _, found in recorded_runs.found_penalties(task):
        medians = [np.median(part) for part in np.array_split(found, 20)]
        assert max(medians) / min(medians) < most


def mean_finals(kind: str) -> dict[float, float]:
    return {value: float(np.mean(earned)) for value, earned in recorded_runs.finals(kind).items()}


def test_the_sweep_is_whole() -> None:
    for kind, ends in ((recorded_runs.DELTA, (1e-4, 1.0)), (recorded_runs.PENALTY, (0.017, 120.0))):
        runs = recorded_runs.step_size_runs(kind)
        assert len(runs) == 9
        assert (min(runs), max(runs)) == ends
        for value, of_value in runs.items():
            assert [run.facts["settings"]["seed"] for run in of_value] == [0, 1, 2], value


def test_what_the_lesson_says_of_delta_and_lambda_is_so() -> None:
    deltas, penalties = mean_finals(recorded_runs.DELTA), mean_finals(recorded_runs.PENALTY)
    assert [value for value, mean in deltas.items() if mean > 2000] == [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
    assert [value for value, mean in penalties.items() if mean > 2000] == [0.5, 1.5, 4.5]
    assert penalties[1.5] == pytest.approx(deltas[0.01], rel=0.05), "hops as well as TRPO does"
    assert deltas[0.0001] == pytest.approx(1200, abs=50)
    assert penalties[13.5] == pytest.approx(1700, abs=50)
    kls = {
        kind: {value: np.median([np.median(run["mean_kl"]) for run in runs]) for value, runs in by_value.items()}
        for kind in (recorded_runs.DELTA, recorded_runs.PENALTY)
        for by_value in [recorded_runs.step_size_runs(kind)]
    }
    for penalty, delta, kl, earned in ((4.5, 0.001, 7e-4, 3050), (1.5, 0.01, 8e-3, 3300), (0.5, 0.1, 0.1, 2900)):
        assert kls[recorded_runs.PENALTY][penalty] == pytest.approx(kl, rel=0.1)
        assert kls[recorded_runs.DELTA][delta] == pytest.approx(kl, rel=0.2), "much alike"
        assert penalties[penalty] == pytest.approx(deltas[delta], rel=0.02)
        assert deltas[delta] == pytest.approx(earned, abs=60)
    (gentle, gambling) = (recorded_runs.step_size_runs(recorded_runs.PENALTY)[value] for value in (13.5, 0.15))
    assert np.median([np.median(run["mean_kl"]) for run in gentle]) == pytest.approx(8e-5, abs=1e-5)
    assert all(np.median(run["mean_kl"]) > 1 for run in gambling)
    for runs in (gambling, recorded_runs.step_size_runs(recorded_runs.DELTA)[1.0]):
        assert np.ptp([run.final() for run in runs]) > 1500, "a gamble"
    wild = recorded_runs.step_size_runs(recorded_runs.PENALTY)[0.05]
    assert all(run["mean_kl"].max() > 100 for run in wild)
    assert sum(run["mean_kl"].max() > 4000 for run in wild) == 2, "two of the three have one of thousands"
    for value, runs in recorded_runs.step_size_runs(recorded_runs.DELTA).items():
        assert all(run["mean_kl"].max() <= value for run in runs)


def test_short_updates_are_still_rising_at_the_end_and_long_ones_lose_what_they_had() -> None:
    every = {kind: recorded_runs.step_size_runs(kind) for kind in (recorded_runs.DELTA, recorded_runs.PENALTY)}
    short = [*every[recorded_runs.DELTA][0.0001]] + [
        run for penalty in (13.5, 40.0, 120.0) for run in every[recorded_runs.PENALTY][penalty]
    ]
    for run in short:
        thirds = [part.mean() for part in np.array_split(run["mean_return"], 3)]
        assert thirds[2] > 1.15 * thirds[1] > 1.15 * thirds[0]
    long = [every[recorded_runs.DELTA][1.0]] + [every[recorded_runs.PENALTY][value] for value in (0.15, 0.05, 0.017)]
    for runs in long:
        peaks, ends = np.array([(run["mean_return"].max(), run.final()) for run in runs]).T
        assert peaks.mean() < 2500, "less"
        assert ends.mean() < 0.9 * peaks.mean(), "and part of it is lost"


# ---- section 3: the luck of the actions taken


def test_scores_of_other_actions_are_smaller_along_a_direction_fitted_to_these() -> None:
    policy, theta, batch = hopper_batch()
    region = TrustRegion(delta=1e-6, damping=0.001)
    product = fisher_vector_product(policy, theta, batch)
    x = natural_direction(product, surrogate_gradient(policy, theta, batch), region).x
    right = float(x @ product(x))
    taken = float(x @ empirical_fisher_vector_product(policy, theta, batch)(x)) / right
    assert taken > 1.1
    others = []
    for seed in range(4):
        pi = policy(theta, batch.obs)
        actions = pi.sample(torch.Generator().manual_seed(seed))
        again = Batch(batch.obs, actions, batch.advantages, pi.log_prob(actions))
        others.append(float(x @ empirical_fisher_vector_product(policy, theta, again)(x)) / right)
    assert abs(np.mean(others) - 1) < 4 * np.std(others, ddof=1) / 2
    assert max(others) < taken


# ---- section 3: somebody else's actions


@pytest.mark.parametrize("c", [0.5, 1.0, 2.0])
def test_blocks_of_a_gaussian_whose_actions_are_too_wide(c: float) -> None:
    num = 400_000
    mean, log_std = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    actions = c * torch.from_numpy(np.random.default_rng(0).normal(size=(num, 1)))

    def log_prob(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
        return DiagGaussian(mean.expand(num, 1), log_std).log_prob(actions)

    ones = torch.ones(1, dtype=torch.float64)
    for i, expected in enumerate((c**2, 3 * c**4 - 2 * c**2 + 1)):
        scores = torch.func.jvp(log_prob, (mean, log_std), tuple(ones * (i == j) for j in range(2)))[1]
        squares = scores.square()
        assert float(squares.mean()) == pytest.approx(expected, abs=5 * float(squares.std()) / math.sqrt(num))


@pytest.mark.parametrize("head", [CategoricalHead(3), GaussianHead(2)])
def test_weighed_scores_average_to_the_fisher_matrix_of_pi(head: CategoricalHead | GaussianHead) -> None:
    rng, num = np.random.default_rng(1), 40_000
    policy = linear_policy(2, head)
    theta = torch.from_numpy(0.4 * rng.normal(size=policy.num_parameters))
    obs = torch.from_numpy(rng.normal(size=(num, 2)))
    q = policy(theta + 0.2 * torch.from_numpy(rng.normal(size=len(theta))), obs)
    actions = q.sample(torch.Generator().manual_seed(0))
    scores = torch.func.jacfwd(lambda at: policy(at, obs).log_prob(actions))(theta)
    v = torch.from_numpy(rng.normal(size=len(theta)))
    log_pi, log_q = policy(theta, obs).log_prob(actions), q.log_prob(actions)
    terms = (log_pi - log_q).exp()[:, None] * scores * (scores @ v)[:, None]
    found = solutions.fisher_product_elsewhere(scores, log_pi, log_q, v)
    torch.testing.assert_close(found, terms.mean(0))
    error = 5 * terms.std(0) / math.sqrt(num)
    right = fisher_matrix(policy, theta, obs) @ v
    assert ((found - right).abs() < error).all()
    forgetful = solutions.fisher_product_elsewhere(scores, log_q, log_q, v)
    assert ((forgetful - right).abs() > error).any(), "without the ratio it is another matrix"


def test_the_product_is_the_modules_where_q_is_pi() -> None:
    rng = np.random.default_rng(2)
    policy = mlp_policy(3, GaussianHead(1), (4,))
    theta, obs = torch.from_numpy(rng.normal(size=policy.num_parameters)), torch.from_numpy(rng.normal(size=(30, 3)))
    pi = policy(theta, obs)
    actions = pi.sample(torch.Generator().manual_seed(0))
    log_q, v = pi.log_prob(actions), torch.from_numpy(rng.normal(size=len(theta)))
    scores = torch.func.jacfwd(lambda at: policy(at, obs).log_prob(actions))(theta)
    batch = Batch(obs, actions, torch.zeros(30, dtype=torch.float64), log_q)
    right = empirical_fisher_vector_product(policy, theta, batch)(v)
    torch.testing.assert_close(solutions.fisher_product_elsewhere(scores, log_q, log_q, v), right)


def test_the_natural_step_is_the_modules() -> None:
    rng = np.random.default_rng(3)
    policy = linear_policy(3, CategoricalHead(3))
    theta, obs = torch.from_numpy(rng.normal(size=policy.num_parameters)), torch.from_numpy(rng.normal(size=(50, 3)))
    pi = policy(theta, obs)
    actions = pi.sample(torch.Generator().manual_seed(0))
    batch = Batch(obs, actions, torch.from_numpy(rng.normal(size=50)), pi.log_prob(actions))
    region = TrustRegion(damping=0.3, cg_iterations=30, residual_tol=1e-14)
    new, _ = natural_gradient_update(Problem(policy, batch), theta, region, penalty=2.5)
    A, g = fisher_matrix(policy, theta, obs), surrogate_gradient(policy, theta, batch)
    torch.testing.assert_close(solutions.natural_step(A, g, 2.5, 0.3), new - theta)


# ---- sections 4 and 5: the cart-pole


def played(theta: torch.Tensor, seed: int, copies: int = 200, steps: int = 100) -> Batch:
    """Steps of the paper's cart-pole, one copy after the other, with standardised returns for advantages."""
    policy, env = linear_policy(4, GaussianHead(1)), BartoCartPole(copies)
    obs, _ = env.reset(seed=seed)
    rng, rows = np.random.default_rng(seed), []
    for _ in range(steps):
        pi = policy(theta, torch.from_numpy(obs))
        actions = pi.sample_from(torch.from_numpy(rng.normal(size=(copies, 1))))
        after, _, fell, late, _ = env.step(10 * actions.numpy())
        rows.append((torch.from_numpy(obs), actions, pi.log_prob(actions), torch.from_numpy(fell | late)))
        obs = after
    obs_, actions, log_q, ended = (torch.stack(column) for column in zip(*rows, strict=True))
    ones = torch.ones(steps, copies, dtype=torch.float64)
    returns = gae(ones, 0 * ones, 0 * ones, ended, torch.zeros_like(ended), gamma=0.98, lam=1.0)
    columns = (obs_, actions, standardised(returns), log_q)
    return Batch(*(column.transpose(0, 1).flatten(0, 1) for column in columns))


LESSONS = torch.tensor([0.1, 0.2, 1.0, 0.4, 0.0, -0.7], dtype=torch.float64)
STEADY = torch.tensor([0.3, 0.5, 6.0, 1.5, 0.0, -1.0], dtype=torch.float64)


@pytest.mark.parametrize(("theta", "seed"), [(LESSONS, 1), (LESSONS, 3), (STEADY, 0), (STEADY, 1)])
def test_the_largest_kl_costs_between_40_and_70_percent(theta: torch.Tensor, seed: int) -> None:
    policy, everything = linear_policy(4, GaussianHead(1)), played(theta, seed)
    g = surrogate_gradient(policy, theta, everything[:2000]).numpy()
    gains = {}
    for size in (50, 500, 2000, 20000):
        some = everything[:size]
        x = np.linalg.solve(fisher_matrix(policy, theta, some.obs).numpy(), g)
        mean = math.sqrt(0.02 * (g @ x))
        gains[size] = mean, float(g @ longest_step(fisher_of_each(policy, theta, some), g, 0.01))
    for size in (2000, 20000):
        mean, largest = gains[size]
        assert 0.4 <= 1 - largest / mean <= 0.72
    means, largests = zip(*gains.values(), strict=True)
    assert all(after <= before * (1 + 1e-3) for before, after in itertools.pairwise(largests)), "the same or smaller"
    assert means[0] > 1.5 * means[-1], "too bold with 50"
    assert means[1] == pytest.approx(means[-1], rel=0.2), "nearly settled with 500"


def test_most_episodes_of_the_first_policy_are_longer_than_fifty_steps() -> None:
    env, policy, rng = BartoCartPole(100), linear_policy(4, GaussianHead(1)), np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    age, lengths = np.zeros(100), []
    for _ in range(300):
        actions = policy(LESSONS, torch.from_numpy(obs)).sample_from(torch.from_numpy(rng.normal(size=(100, 1))))
        obs, _, fell, late, _ = env.step(10 * actions.numpy())
        age += 1
        lengths.extend(age[fell | late])
        age[fell | late] = 0
    assert 55 < np.median(lengths) < 80


@pytest.mark.parametrize(("size", "least", "most"), [(2000, 0.1, 0.45), (20000, 0.0, 0.25)])
def test_advantages_add_the_natural_step_to_a_fit_up_to_the_samples_noise(size: int, least: float, most: float) -> None:
    policy, batch = linear_policy(4, GaussianHead(1)), played(LESSONS, 2)[:size]
    problem = Problem(policy, batch)
    exact = TrustRegion(damping=0.0, cg_iterations=20)
    natural = natural_gradient_update(problem, LESSONS, exact, penalty=100.0)[0] - LESSONS
    weighed, equal = (rwr_update(problem, LESSONS, t, fit_iterations=1000)[0] for t in (100.0, 1e9))
    A = fisher_matrix(policy, LESSONS, batch.obs)
    off = weighed - equal - natural
    assert least < float(((off @ A @ off) / (natural @ A @ natural)).sqrt()) < most


def test_a_fit_to_equal_weights_is_half_its_parameters_per_sample_away_on_average() -> None:
    policy, rng = linear_policy(3, GaussianHead(1)), np.random.default_rng(0)
    theta, num, kls = torch.from_numpy(0.3 * rng.normal(size=policy.num_parameters)), 400, []
    for seed in range(40):
        obs = torch.from_numpy(rng.normal(size=(num, 3)))
        pi = policy(theta, obs)
        actions = pi.sample(torch.Generator().manual_seed(seed))
        batch = Batch(obs, actions, torch.from_numpy(rng.normal(size=num)), pi.log_prob(actions))
        _, report = rwr_update(Problem(policy, batch), theta, temperature=1e9, fit_iterations=200)
        kls.append(report.mean_kl)
    expected = policy.num_parameters / (2 * num)
    assert abs(np.mean(kls) - expected) < 4 * np.std(kls) / math.sqrt(len(kls)) + 0.05 * expected


# ---- section 6: the cloud


def test_returns_of_the_cloud_are_exact() -> None:
    world, phi = cloud.problem(), cloud.features(2)
    thetas = np.random.default_rng(4).normal(size=(5, 2)) * 3
    for theta, found in zip(thetas, cloud.returns_of(thetas, phi), strict=True):
        pi = torch.softmax(torch.from_numpy(phi @ theta), -1)
        assert found == pytest.approx(float(evaluate_policy(world, pi).eta), abs=1e-12)


def test_the_landscape_has_the_first_parameter_to_the_right() -> None:
    edge, eta = cloud.landscape()
    for i, j in ((0, 5), (60, 2), (31, 44)):
        theta = np.array([[edge[j], edge[i]]])
        assert eta[i, j] == pytest.approx(cloud.returns_of(theta, cloud.features(2))[0], abs=1e-12)


@pytest.mark.parametrize(("method", "strength"), [("CEM", 0.2), ("RWR", 3.0), ("REPS", 0.5)])
def test_generations_are_weighed_and_fitted_by_the_formulas(method: str, strength: float) -> None:
    found = cloud.generations(method, strength, 1.0)
    assert len(found) == cloud.GENERATIONS
    for before, after in itertools.pairwise(found):
        np.testing.assert_array_equal(before.next_mean, after.mean)
        np.testing.assert_array_equal(before.next_std, after.std)
    for each in found:
        J = each.returns
        if method == "CEM":
            expected = np.isin(np.arange(len(J)), np.argsort(J)[-12:]) / 12
        else:
            temperature = strength if method == "RWR" else explicit_temperature(J, each.weights)
            expected = np.exp((J - J.max()) / temperature)
            expected /= expected.sum()
        np.testing.assert_allclose(each.weights, expected, atol=1e-7)
        mean = sum(w * theta for w, theta in zip(each.weights, each.thetas, strict=True))
        np.testing.assert_allclose(each.next_mean, mean, atol=1e-12)
        variance = sum(w * (theta - mean) ** 2 for w, theta in zip(each.weights, each.thetas, strict=True))
        np.testing.assert_allclose(each.next_std**2, variance, atol=1e-12)
        assert each.counting == pytest.approx(1 / (each.weights**2).sum())
        if method == "REPS":
            assert each.kl == pytest.approx(0.5, abs=1e-4)


def explicit_temperature(returns: np.ndarray, weights: np.ndarray) -> float:
    """Of exponential weights: read off two of them."""
    high, low = returns.argmax(), np.argsort(returns)[len(returns) // 2]
    return float((returns[high] - returns[low]) / np.log(weights[high] / weights[low]))


def last(method: str, strength: float, spread: float = 1.0) -> cloud.Generation:
    return cloud.generations(method, strength, spread)[-1]


def test_what_the_lesson_says_of_greedy_and_patient_clouds_is_so() -> None:
    for method, strength in (("CEM", 0.1), ("RWR", 0.1)):
        assert last(method, strength).mean_return < 1.5
        assert last(method, strength).spread < 0.05
        assert cloud.generations(method, strength, 1.0)[0].counting < 7, "a handful"
    for method, strength in (("CEM", 0.5), ("RWR", 10.0), ("REPS", 0.1)):
        assert last(method, strength).mean_return < 1
    assert last("REPS", 1.0).mean_return > 6.7


def test_what_the_lesson_says_of_the_first_spread_is_so_with_other_draws_too() -> None:
    sliders = explorers.cloud_explorer().controls
    settings = [
        (method, strength)
        for method, name in zip(cloud.METHODS, ("share", "temperature", "epsilon"), strict=True)
        for strength in sliders[name].values  # type: ignore[union-attr]
    ]
    assert len(settings) == 14
    for seed, arrive in ((8, 12), (100, 7), (101, 7)):
        ends = {
            spread: [cloud.generations(*pair, spread, seed)[-1].mean_return for pair in settings]
            for spread in (0.5, 2.0)
        }
        assert max(ends[0.5]) < 2, "none arrives"
        assert sum(earned > 6 for earned in ends[2.0]) >= arrive


def test_only_a_temperature_notices_the_units_of_returns() -> None:
    returns = torch.from_numpy(np.random.default_rng(5).normal(size=20))
    for weigh in (elite(0.2), bounded_kl(0.5)):
        torch.testing.assert_close(weigh(10 * returns), weigh(returns), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(exponential(1.0)(10 * returns), exponential(1.0)(returns), atol=0.1)


def test_refit_is_the_first_generation_of_the_modules_cem() -> None:
    search = cem(torch.zeros(3), std=1.0, population=20, elite_share=0.25, extra_noise=0.3, noise_generations=10)
    thetas = search.ask(torch.Generator().manual_seed(0))
    returns = -thetas.square().sum(1)
    search.tell(returns)
    mean, variance = solutions.refit(thetas.numpy(), returns.numpy(), 5, 0.3)
    np.testing.assert_allclose(search.mean, mean, atol=1e-12)
    np.testing.assert_allclose(search.covariance, variance, atol=1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.7])
def test_reps_weights_solve_the_primal(epsilon: float) -> None:
    J = np.random.default_rng(6).normal(size=8)
    uniform = np.full(8, 1 / 8)
    within = {"type": "ineq", "fun": lambda w: epsilon - (w * np.log(8 * w)).sum()}
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(
        lambda w: -(w @ J),
        uniform,
        method="SLSQP",
        bounds=[(1e-9, 1)] * 8,
        constraints=[within, whole],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    weights = solutions.reps_weights(J, epsilon)
    np.testing.assert_allclose(weights, found.x, atol=2e-4)
    np.testing.assert_allclose(weights, bounded_kl(epsilon)(torch.from_numpy(J)), atol=1e-4)


# ---- section 7: what parameters cost


@pytest.mark.parametrize(("hidden", "size"), [((), 6), ((10,), 62), ((28, 28), 982)])
def test_sizes_are_those_of_the_policies(hidden: tuple[int, ...], size: int) -> None:
    policy = mlp_policy(4, GaussianHead(1), hidden) if hidden else linear_policy(4, GaussianHead(1))
    assert recorded_runs.count_of(hidden) == size == policy.num_parameters
    assert size in recorded_runs.SIZES


@pytest.mark.parametrize("num_parameters", [6, 60])
def test_sideways_steps_add_up_and_uphill_ones_do_not(num_parameters: int) -> None:
    rng, population, k, moves = np.random.default_rng(10), 100, 20, []
    for _ in range(200):
        thetas = rng.normal(size=(population, num_parameters))
        moves.append(solutions.refit(thetas, thetas[:, 0], k, 0.0)[0])
    moved = np.array(moves)
    assert moved[:, 0].mean() == pytest.approx(1.4, abs=0.05)
    assert (moved[:, 1:] ** 2).sum(1).mean() == pytest.approx((num_parameters - 1) / k, rel=0.15)


def test_what_the_lesson_says_of_the_sizes_is_so() -> None:
    medians = {}
    for method in recorded_runs.METHODS:
        runs = recorded_runs.size_runs(method)
        assert tuple(runs) == recorded_runs.SIZES
        assert {len(each) for each in runs.values()} == {5}
        medians[method] = [np.median([recorded_runs.steps_to(run) for run in each]) for each in runs.values()]
    assert all(57_000 < steps < 59_500 for steps in medians["trpo"])
    assert medians["cem"] == sorted(medians["cem"])
    assert [round(steps / 1000) for steps in medians["cem"]] == [66, 87, 100]
    fallen = [run for run in recorded_runs.size_runs("trpo")[62] if run["mean_return"][-1] < 100]
    assert len(fallen) == 1
    assert fallen[0]["mean_return"].max() > 495
    others = [run for each in recorded_runs.size_runs("trpo").values() for run in each if run is not fallen[0]]
    assert all(run["mean_return"][-1] > 495 for run in others)


def test_steps_to_a_level_are_counted_to_the_first_point_there() -> None:
    (run, *_) = recorded_runs.size_runs("cem")[6]
    steps = recorded_runs.steps_to(run, 300)
    there = run["total_steps"] == steps
    assert run["mean_return"][there] >= 300
    assert (run["mean_return"][run["total_steps"] < steps] < 300).all()
    assert math.isinf(recorded_runs.steps_to(run, 501))


@pytest.mark.parametrize("draw", [recorded_runs.draw_penalties, recorded_runs.draw_sizes])
def test_pictures_hold_a_line_for_every_run(draw: object) -> None:
    figure = Figure()
    draw(figure)  # type: ignore[operator]
    drawn = sum(len(axes.lines) for axes in figure.axes)
    seeds = sum(len(recorded_runs.found_penalties(task)) for task in recorded_runs.TASKS)
    sizes = sum(len(runs) for method in recorded_runs.METHODS for runs in recorded_runs.size_runs(method).values())
    assert drawn == (seeds if draw is recorded_runs.draw_penalties else sizes)


# ---- section 8: intervals


@pytest.mark.parametrize("sizes", [(5, 5), (3, 9)])
def test_welchs_interval_is_scipys(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    a, b = (rng.normal(0, spread, size=n) for spread, n in zip((1.0, 4.0), sizes, strict=True))
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert solutions.welch_interval(a, b, 0.9) == pytest.approx((found.low, found.high))
    ours = compare("hopper", tuple(a), tuple(b), 0.9)
    assert solutions.welch_interval(a, b, 0.9) == pytest.approx((ours.low, ours.high))


def test_with_fifty_seeds_the_bootstrap_is_right_to_two_percent() -> None:
    rng, inside, comparisons = np.random.default_rng(11), 0, 1500
    for _ in range(comparisons):
        a, b = (x[rng.integers(50, size=(1000, 50))].mean(1) for x in rng.normal(size=(2, 50)))
        low, high = np.quantile(a - b, (0.025, 0.975))
        inside += low <= 0 <= high
    assert 0.93 - 0.015 < inside / comparisons < 0.965


@pytest.mark.parametrize(("fall", "share"), [(4, 0.93), (10, 0.745)])
def test_welchs_interval_covers_less_where_one_method_fails_now_and_then(fall: int, share: float) -> None:
    rng = np.random.default_rng(12)
    a = np.where(rng.random((20_000, 5)) < 0.2, -fall, 0) + 0.2 * fall + rng.normal(size=(20_000, 5))
    found = stats.ttest_ind(a, rng.normal(size=a.shape), axis=1, equal_var=False).confidence_interval(0.95)
    assert np.mean((found.low <= 0) & (found.high >= 0)) == pytest.approx(share, abs=0.007)


def test_the_best_of_nine_is_ahead_by_chance() -> None:
    grid = np.linspace(-8, 8, 4001)
    density = 9 * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** 8
    largest = float(np.trapezoid(grid * density, grid))
    assert largest == pytest.approx(1.49, abs=0.005)
    assert largest / math.sqrt(3) == pytest.approx(0.86, abs=0.005)
    rng = np.random.default_rng(8)
    reported = [solutions.choose_and_report(rng.normal(size=(9, 6)), 3)[1] for _ in range(4000)]
    assert abs(np.mean(reported)) < 4 * np.std(reported) / math.sqrt(4000)


# ---- explorers


def test_facts_of_the_clouds_are_those_of_the_generation() -> None:
    numbers = explorers.compute_clouds(0.2, 1.0, 0.5, 1.0, 4)
    lines = explorers.facts_of_clouds(numbers).splitlines()
    assert [line.split(":")[0] for line in lines] == list(cloud.METHODS)
    assert lines[0].startswith("CEM: weights worth 12.0 of 60 thetas, 1.61 nats")
    figure = Figure(figsize=(8, 3))
    explorers.draw_clouds(numbers, figure)
    panel = figure.axes[2]
    drawn = panel.collections[-1].get_offsets()
    np.testing.assert_array_equal(drawn, numbers.by_method["REPS"].thetas)
    areas = panel.collections[-1].get_sizes()
    weights = numbers.by_method["REPS"].weights
    np.testing.assert_allclose(areas / areas.max(), weights / weights.max())


def test_the_step_size_explorer_shows_the_runs_of_the_recording() -> None:
    numbers = explorers.compute_step_sizes(0.01, 1.5)
    runs = recorded_runs.step_size_runs(recorded_runs.DELTA)[0.01]
    figure = Figure(figsize=(8, 3))
    explorers.draw_step_sizes(numbers, figure)
    curves = figure.axes[2].lines
    assert len(curves) == len(runs) + len(recorded_runs.step_size_runs(recorded_runs.PENALTY)[1.5])
    np.testing.assert_array_equal(curves[0].get_ydata(), runs[0]["mean_return"])
    first, second = explorers.facts_of_step_sizes(numbers).splitlines()
    assert first.startswith(f"delta 0.01: earns {runs[0].final():.0f}")
    assert second.startswith("lambda 1.5: earns ")
    left, right = (figure.axes[place].get_xlim() for place in (0, 1))
    assert left[0] < left[1], "longer steps to the right"
    assert right[0] > right[1], "longer steps to the right: a smaller lambda"


# ---- wrong answers, each told what is wrong with it

WRONG = [
    (checks.natural_step, lambda A, g, p, c: 0.5 * solutions.natural_step(A, g, p, c), "half as long"),
    (checks.natural_step, lambda A, g, p, c: 0 * g, "A step of zero"),
    (checks.natural_step, lambda A, g, p, c: solutions.natural_step(A, g, p**0.5, c), "half as long, in the same"),
    (checks.natural_step, lambda A, g, p, c: solutions.natural_step(A, g, p, 2 * c), "slope of g . d"),
    (checks.natural_step, lambda A, g, p, c: solutions.natural_step(A, g, p, c).round(decimals=3), "a few digits"),
    (checks.natural_step, lambda A, g, p, c: solutions.natural_step(A, g, p, c + 1e-3), "a few digits"),
    (
        checks.fisher_product_elsewhere,
        lambda s, p, q, v: s.T @ ((p.exp() / q.exp()) * (s @ v)) / len(s),
        "subtract the logarithms first",
    ),
    (
        checks.fisher_product_elsewhere,
        lambda s, p, q, v: s.T @ ((p - q).exp().clamp(max=1.2) * (s @ v)) / len(s),
        "Fisher matrix, diag(p)",
    ),
    (checks.fisher_product_elsewhere, lambda s, p, q, v: product_with((p - q).exp().clamp(max=10), s, v), "to clip"),
    (checks.fisher_product_elsewhere, lambda s, p, q, v: product_with((p - q).clamp(-20, 20).exp(), s, v), "to clip"),
    (
        checks.fisher_product_elsewhere,
        lambda s, p, q, v: product_with((p - q).exp().float(), s.float(), v.float()).double(),
        "a few digits",
    ),
    (
        checks.fisher_product_elsewhere,
        lambda s, p, q, v: product_with((p - q - (p - q).max()).exp(), s, v),
        "Fisher matrix, diag(p)",
    ),
    (
        checks.refit,
        lambda t, r, k, e: solutions.refit(t, np.where(r > 0, r, -1), k, e),
        "Returns below zero go wrong",
    ),
    (checks.refit, lambda t, r, k, e: solutions.refit(t, r, k - 1, e), "mean of the `count` thetas"),
    (checks.refit, lambda t, r, k, e: solutions.refit(t, r, k, 2 * e), "exactly the extra noise"),
    (checks.refit, lambda t, r, k, e: fitted(t[r >= np.sort(r)[-k]], e), "border of the elite"),
    (checks.refit, lambda t, r, k, e: fitted(t[r >= np.quantile(r, 1 - k / len(r))], e), "border of the elite"),
    (checks.refit, lambda t, r, k, e: fitted(t[[list(r).index(x) for x in np.sort(r)[-k:]]], e), "by place"),
    (
        checks.refit,
        lambda t, r, k, e: fitted(np.array([dict(zip(r, t, strict=True))[x] for x in np.sort(r)[-k:]]), e),
        "by place",
    ),
    (
        checks.refit,
        lambda t, r, k, e: tuple(x.astype(float) for x in solutions.refit(t.astype(np.float32), r, k, e)),
        "a few digits",
    ),
    (
        checks.refit,
        lambda t, r, k, e: (solutions.refit(t, r, k, e)[0], np.sqrt(solutions.refit(t, r, k, 0)[1]) + e),
        "one parameter at a time",
    ),
    (
        checks.refit,
        lambda t, r, k, e: (solutions.refit(t, r, k, e)[0], np.square(t[np.argsort(r)[-k:]]).mean(0) + e),
        "one parameter at a time",
    ),
    (
        checks.reps_weights,
        lambda J, e: np.exp(J / (s := solutions_eta(J, e))) / np.exp(J / s).sum(),
        "overflows there",
    ),
    (checks.reps_weights, lambda J, e: solutions.reps_weights(J, 2 * e), "should be epsilon"),
    (checks.reps_weights, lambda J, e: np.maximum(solutions.reps_weights(J, e), 0.01), "add up to 1"),
    (checks.reps_weights, lambda J, e: by_dual(J - J.max(), e, shift=np.min), "One return far below"),
    (checks.reps_weights, lambda J, e: by_dual(J, e, shift=np.mean), "One return far below"),
    (checks.reps_weights, lambda J, e: solutions.reps_weights(J / J.max(), e), "turns the order around"),
    (checks.reps_weights, lambda J, e: by_dual(J, 0.0, shift=np.max), "eta * epsilon is left out"),
    (checks.reps_weights, lambda J, e: by_dual(J, e + np.log(len(J)), shift=np.max), "your eta went to 0"),
    (
        checks.reps_weights,
        lambda J, e: np.exp((J - J.max()) / (x := 1.0 if J.std() < 2 else np.nan)) / np.exp((J - J.max()) / x).sum(),
        "a search without bounds",
    ),
    (checks.welch_interval, lambda a, b, c: unguarded(a, b, c), "0 / 0 goes wrong"),
    (checks.welch_interval, lambda a, b, c: solutions.welch_interval(a, b, c)[::-1], "lower end should come first"),
    (checks.welch_interval, lambda a, b, c: solutions.welch_interval(a, b, 0.95), "More confidence"),
    (
        checks.welch_interval,
        lambda a, b, c: solutions.welch_interval(a, b, c) if a.std() + b.std() > 1e-3 else (a.mean() - b.mean(),) * 2,
        "in millionths",
    ),
    (checks.welch_interval, lambda a, b, c: of_length(a, b, c, df=min(len(a), len(b)) - 1), "nu is 2 (n - 1)"),
    (checks.welch_interval, lambda a, b, c: of_length(a, b, c, se=math.hypot(stats.sem(a), 0)), "nu is 2 (n - 1)"),
    (checks.welch_interval, lambda a, b, c: of_length(a, b, c, df=2 * (len(a) - 1)), "number of seeds; and t"),
    (
        checks.welch_interval,
        lambda a, b, c: of_length(a, b, c, se=math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))),
        "number of seeds; and t",
    ),
    (checks.welch_interval, lambda a, b, c: of_length(a, b, c, df=round(welchs_df(a, b))), "formula of nu"),
    (
        checks.welch_interval,
        lambda a, b, c: of_length(a, b, c, df=welchs_df(a, b, lambda x: x.var(ddof=1))),
        "formula of nu",
    ),
    (checks.welch_interval, lambda a, b, c: of_length(a, b, c, df=welchs_df(a, b, lambda x: x.var())), "formula of nu"),
    (
        checks.choose_and_report,
        lambda s, n: solutions.choose_and_report(np.maximum(s, 0), n),
        "below zero",
    ),
    (checks.choose_and_report, lambda s, n: solutions.choose_and_report(s, n)[::-1], "in this order"),
    (checks.choose_and_report, lambda s, n: (float(chosen(s, n)), s[chosen(s, n), n:].mean()), "as a whole number"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n) + 1, s[chosen(s, n), n:].mean()), "counted from 0"),
    (checks.choose_and_report, lambda s, n: choosing(s, n, np.median(s[:, :n], 1)), "best mean over all"),
    (checks.choose_and_report, lambda s, n: choosing(s, n, s[:, :n].mean(1) - s[:, :n].std(1)), "best mean over all"),
    (checks.choose_and_report, lambda s, n: choosing(s, n, s[:, : n - 1].mean(1)), "best mean over all"),
    (checks.choose_and_report, lambda s, n: choosing(s, n, s[:, :n].mean(1).round()), "best mean over all"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n), s[:, n:].mean(1).max()), "not chosen nothing"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n), np.median(s[chosen(s, n), n:])), "m more"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n), s[chosen(s, n), n]), "m more"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n), s[chosen(s, n), n:].sum()), "m more"),
    (checks.choose_and_report, lambda s, n: (chosen(s, n), round(s[chosen(s, n), n:].mean(), 1)), "last digit"),
    (
        checks.choose_and_report,
        lambda s, n: (chosen(s, n), np.float32(s[chosen(s, n), n:].mean())),
        "value 2, numbers of type float32",
    ),
]


def product_with(weights: torch.Tensor, scores: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The mean of weight times score times (score . v)."""
    return scores.T @ (weights * (scores @ v)) / len(scores)


def fitted(elite_thetas: np.ndarray, extra: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of these, with extra noise."""
    return elite_thetas.mean(0), elite_thetas.var(0) + extra


def by_dual(J: np.ndarray, epsilon: float, shift: object) -> np.ndarray:
    """REPS' weights from the dual, with something subtracted that `shift` makes of the returns; no logsumexp."""
    rest = J - shift(J)  # type: ignore[operator]

    def dual(eta: float) -> float:
        return float(eta * (epsilon + np.log(np.mean(np.exp(rest / eta)))))

    found = minimize_scalar(dual, bounds=(1e-6, 1e4), method="bounded", options={"xatol": 1e-12}).x
    weights = np.exp(rest / found)
    return weights / weights.sum()


def welchs_df(a: np.ndarray, b: np.ndarray, part: object = lambda x: x.var(ddof=1) / len(x)) -> float:
    """Welch's degrees of freedom, with `part` in the place of v."""
    va, vb = part(a), part(b)  # type: ignore[operator]
    return float((va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)))


def of_length(
    a: np.ndarray, b: np.ndarray, confidence: float, *, se: float | None = None, df: float | None = None
) -> tuple[float, float]:
    """Welch's interval with another standard error, or with other degrees of freedom."""
    right = math.hypot(stats.sem(a), stats.sem(b))
    if right == 0:
        return solutions.welch_interval(a, b, confidence)
    far = stats.t.ppf((1 + confidence) / 2, df or welchs_df(a, b)) * (se or right)
    return a.mean() - b.mean() - far, a.mean() - b.mean() + far


def chosen(scores: np.ndarray, tuning: int) -> int:
    """Which setting is right to choose."""
    return int(scores[:, :tuning].mean(1).argmax())


def choosing(scores: np.ndarray, tuning: int, by: np.ndarray) -> tuple[int, float]:
    """What is chosen and reported where `by` decides."""
    return int(by.argmax()), float(scores[by.argmax(), tuning:].mean())


def solutions_eta(J: np.ndarray, epsilon: float) -> float:
    """The temperature of right weights."""
    return explicit_temperature(J, solutions.reps_weights(J, epsilon))


@pytest.mark.parametrize(("check", "function", "said"), WRONG, ids=[f"{c.name}: {said}" for c, _, said in WRONG])
def test_a_wrong_answer_is_told_what_is_wrong_with_it(check, function, said) -> None:  # type: ignore[no-untyped-def]
    assert said in line_of(check, function)


def unguarded(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[float, float]:
    """Welch's interval, with no thought of scores without spread."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    far = stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(va + vb)
    return float(a.mean() - b.mean() - far), float(a.mean() - b.mean() + far)


RIGHT = [
    (
        checks.welch_interval,
        lambda a, b, c: tuple(float(x) for x in stats.ttest_ind(a, b, equal_var=False).confidence_interval(c)),
    ),
    (checks.natural_step, lambda A, g, p, c: torch.linalg.inv(p * (A + c * torch.eye(len(g), dtype=A.dtype))) @ g),
    (checks.natural_step, lambda A, g, p, c: torch.linalg.solve(A + c * torch.eye(len(g)), g) / p),
    (
        checks.natural_step,
        lambda A, g, p, c: torch.from_numpy(sparse_cg(A.numpy() + c * np.eye(len(g)), g.numpy()) / p),
    ),
    (
        checks.fisher_product_elsewhere,
        lambda s, p, q, v: (torch.einsum("n,ni,nj->ij", (p - q).exp(), s, s) / len(s)) @ v,
    ),
    (
        checks.refit,
        lambda t, r, k, e: (
            (best := t[np.lexsort((r,))[::-1][:k]]).mean(axis=0),
            np.array([np.mean((column - column.mean()) ** 2) for column in best.T]) + e,
        ),
    ),
    (checks.reps_weights, lambda J, e: bounded_kl(e)(torch.from_numpy(J)).numpy()),
    (checks.reps_weights, lambda J, e: by_dual(J, e, shift=np.max)),
    (checks.reps_weights, lambda J, e: solutions.reps_weights((J - J.mean()) / J.std(), e)),
    (
        checks.choose_and_report,
        lambda s, n: max((float(x[:n].mean()), i, float(x[n:].mean())) for i, x in enumerate(s))[1:],
    ),
    (
        checks.choose_and_report,
        lambda s, n: ((i := torch.from_numpy(s)[:, :n].sum(1).argmax()), torch.from_numpy(s)[i, n:].mean()),
    ),
    (
        checks.choose_and_report,
        lambda s, n: (
            len(s) - 1 - s[::-1, :n].mean(1).argmax(),
            s[len(s) - 1 - s[::-1, :n].mean(1).argmax(), n:].mean(),
        ),
    ),
]


def sparse_cg(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SciPy's conjugate gradient, to convergence."""
    return np.asarray(cg(A, b, rtol=1e-12)[0])


@pytest.mark.parametrize(("check", "function"), RIGHT, ids=[f"{check.name} {i}" for i, (check, _) in enumerate(RIGHT)])
def test_another_right_answer_passes(check, function) -> None:  # type: ignore[no-untyped-def]
    assert line_of(check, function) == "passed"
