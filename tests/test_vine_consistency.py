"""What the vine's estimates converge to, exactly: sum_s w(s) sum_a pi(a|s) Q_T(s, a); and the two gaps that remain."""

from __future__ import annotations

import itertools
import math
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import normal, seeded
from torch import Tensor

from trpo_lessons import mdp
from trpo_lessons.envs import make
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.tabular import TabularVectorEnv
from trpo_lessons.policies import CategoricalHead, Policy, linear_policy
from trpo_lessons.rollout_set import FirstActions, every_action, from_the_policy, uniformly
from trpo_lessons.single_path import Actor
from trpo_lessons.surrogate import Surrogate, surrogate_gradient
from trpo_lessons.vine import Branching, Vine, all_actions_surrogate, sample_vine, self_normalised_surrogate

TRUNK, LENGTH, GAMMA = 8, 5, 0.8
POLICY = linear_policy(6, CategoricalHead(3))
THETA_OLD = 0.7 * normal(1, POLICY.num_parameters)
THETA = THETA_OLD + 0.7 * normal(2, POLICY.num_parameters)  # where the surrogate is asked for
DIRECTION = normal(3, POLICY.num_parameters)


@cache
def game(with_end: bool = True) -> mdp.TabularMDP:
    """Six states, three actions; the last state ends the episode, or leads on like the others."""
    random = mdp.garnet(6, 3, branching=3, gamma=GAMMA, seed=5)
    if not with_end:
        return random
    P, r, rho0 = random.P.clone(), random.r.clone() + 1, torch.tensor([0.5, 0.3, 0.2, 0, 0, 0], dtype=torch.float64)
    P[5], r[5] = torch.eye(6, dtype=torch.float64)[5], 0.0
    return mdp.TabularMDP(P, r, rho0, GAMMA)


def table(theta: Tensor) -> Tensor:
    return POLICY(theta, torch.eye(6, dtype=torch.float64)).log_probs.exp()  # type: ignore[attr-defined,no-any-return]


# ---- exact


def visits(problem: mdp.TabularMDP, *, resets: bool = True) -> Tensor:
    """w(s), [S]: how often a trunk of `TRUNK` steps is in s, episodes that end being followed by new ones."""
    P = problem.P.clone()
    if resets and problem.P[5, 0, 5] == 1:
        P += P[..., 5:] * problem.rho0
        P[..., 5] = 0.0
    rows = [problem.rho0]
    for _ in range(TRUNK - 1):
        rows.append(rows[-1] @ torch.einsum("sa,sat->st", table(THETA_OLD), P))
    return torch.stack(rows).mean(0)


def q_of_length(problem: mdp.TabularMDP, length: int = LENGTH, value: Tensor | None = None) -> Tensor:
    """Q_T, [S, A]: what `length` steps earn, and `value` [S] of the state that they lead to."""
    V = torch.zeros(6, dtype=torch.float64) if value is None else value
    for _ in range(length):
        Q = problem.r + GAMMA * problem.P @ V
        V = (table(THETA_OLD) * Q).sum(1)
    return Q


def target(theta: Tensor, weights: Tensor, Q: Tensor) -> Tensor:
    return (weights[:, None] * table(theta) * Q).sum()


def expectation_of_17(theta: Tensor, weights: Tensor, Q: Tensor, q: Tensor, num_branches: int) -> float:
    """The expected value of equation 17 with K draws from q, summed over all counts of the three actions."""
    ratios, total = table(theta) / q, 0.0
    for first, second in itertools.product(range(num_branches + 1), repeat=2):
        counts = torch.tensor([first, second, num_branches - first - second], dtype=torch.float64)
        if counts[2] < 0:
            continue
        log_ways = math.lgamma(num_branches + 1) - torch.lgamma(counts + 1).sum()
        probability = (log_ways + (counts * q.log()).sum(1)).exp()  # [S]
        total += (weights * probability * (counts * ratios * Q).sum(1) / (counts * ratios).sum(1)).sum().item()
    return total


# ---- sampled


class Raw(RunningMoments):
    """Observations as they are, in float64."""

    def normalise(self, obs: Tensor) -> Tensor:
        return obs


def grow(
    seed: int,
    first_actions: FirstActions,
    num_envs: int,
    problem: mdp.TabularMDP | None = None,
    **settings: Any,
) -> Vine:
    """A fresh trunk in every environment, and branches in a quarter of its states."""
    problem = problem or game()
    trunk_env, branch_env = TabularVectorEnv(problem, num_envs), TabularVectorEnv(problem, 200)
    settings = {"num_states": TRUNK * num_envs // 4, "rollout_length": LENGTH, **settings}
    branching = Branching(first_actions=first_actions, gamma=GAMMA, **settings)
    raw_obs, pi_old = torch.tensor(trunk_env.reset(seed=1000 * seed)[0]), Actor(POLICY, THETA_OLD, Raw.empty(6))
    return sample_vine(trunk_env, branch_env, pi_old, raw_obs, TRUNK, branching, seeded(seed))


def estimates(
    surrogate: Surrogate, first_actions: FirstActions, num_envs: int, repeats: int, **settings: Any
) -> np.ndarray:
    """[repeats, 2]: independent estimates of the objective at THETA, and of its slope along DIRECTION there."""
    rows = []
    for seed in range(repeats):
        batch = grow(seed, first_actions, num_envs, **settings).rollout_set
        value = surrogate(POLICY(THETA, batch.obs), batch).mean().item()
        rows.append((value, (surrogate_gradient(POLICY, THETA, batch, surrogate) @ DIRECTION).item()))
    return np.array(rows)


def value_and_slope(weights: Tensor, Q: Tensor) -> np.ndarray:
    at = THETA.clone().requires_grad_()
    value = target(at, weights, Q)
    (gradient,) = torch.autograd.grad(value, at)
    return np.array([value.item(), (gradient @ DIRECTION).item()])


def z_scores(rows: np.ndarray, exact: np.ndarray | float) -> np.ndarray:
    """How many standard errors the mean of independent estimates is away."""
    return np.asarray((rows.mean(0) - exact) / (rows.std(0, ddof=1) / math.sqrt(len(rows))))


# ---- equation 16


@cache
def estimates_of_16(num_envs: int) -> np.ndarray:
    return estimates(all_actions_surrogate, every_action, num_envs, repeats=60)


SIZES = (10, 40, 160)  # environments; 20, 80 and 320 states with branches


@pytest.mark.parametrize("num_envs", SIZES)
def test_16_is_within_three_standard_errors_of_its_exact_target(num_envs: int) -> None:
    exact = value_and_slope(visits(game()), q_of_length(game()))
    assert np.abs(z_scores(estimates_of_16(num_envs), exact)).max() < 3


def test_its_errors_fall_with_the_square_root_of_the_number_of_states() -> None:
    exact = value_and_slope(visits(game()), q_of_length(game()))
    errors = [np.sqrt(np.square(estimates_of_16(num_envs) - exact).mean(0)) for num_envs in SIZES]
    for smaller, larger in itertools.pairwise(errors):
        # 2, give or take three standard errors of a ratio of two root mean squares over 60 repeats.
        assert (np.abs(smaller / larger / 2 - 1) < 3 * math.sqrt(2 / 120)).all()


@pytest.mark.parametrize("mistaken", ["rho for w", "Q for Q_T", "one step more", "the end forgotten"])
def test_another_target_would_be_told_apart(mistaken: str) -> None:
    problem = game()
    weights, Q = visits(problem), q_of_length(problem)
    if mistaken == "rho for w":
        weights = (1 - GAMMA) * mdp.evaluate_policy(problem, table(THETA_OLD)).rho
    elif mistaken == "Q for Q_T":
        Q = mdp.evaluate_policy(problem, table(THETA_OLD)).Q
    elif mistaken == "one step more":
        Q = q_of_length(problem, LENGTH + 1)
    else:
        weights = visits(problem, resets=False)
    assert abs(z_scores(estimates_of_16(160), value_and_slope(weights, Q))[0]) > 4


# ---- equation 17

QS = {"pi_old": (from_the_policy, lambda: table(THETA_OLD)), "uniform": (uniformly, lambda: torch.full((6, 3), 1 / 3))}
BRANCHES = (2, 6, 18)


@cache
def estimates_of_17(q: str, num_branches: int) -> np.ndarray:
    return estimates(self_normalised_surrogate, QS[q][0](num_branches), num_envs=40, repeats=40)


@pytest.mark.parametrize("num_branches", BRANCHES)
@pytest.mark.parametrize("q", QS)
def test_17_is_within_three_standard_errors_of_its_exact_expectation(q: str, num_branches: int) -> None:
    weights, Q = visits(game()), q_of_length(game())
    exact = expectation_of_17(THETA, weights, Q, QS[q][1]().double(), num_branches)
    assert abs(z_scores(estimates_of_17(q, num_branches)[:, 0], exact)) < 3


@pytest.mark.parametrize("q", QS)
def test_its_error_falls_with_the_number_of_branches(q: str) -> None:
    weights, Q = visits(game()), q_of_length(game())
    limit = target(THETA, weights, Q).item()
    bias = {K: expectation_of_17(THETA, weights, Q, QS[q][1]().double(), K) - limit for K in (*BRANCHES, 36)}
    # Exactly: K times the bias settles; so three times the branches, a third of the bias.
    assert bias[6] / bias[18] == pytest.approx(3, rel=0.15)
    assert bias[18] / bias[36] == pytest.approx(2, rel=0.05)
    if q == "pi_old":  # Sampled: far off with two branches, however many states there are, nearer with more.
        errors = [abs(estimates_of_17(q, K)[:, 0].mean() - limit) for K in BRANCHES]
        assert errors[0] > errors[1] > errors[2]
        assert abs(z_scores(estimates_of_17(q, 2)[:, 0], limit)) > 4


def test_its_gradient_at_theta_old_is_k_minus_1_over_k_of_the_true_one() -> None:
    at = THETA_OLD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target(at, visits(game()), q_of_length(game())), at)
    true = (gradient @ DIRECTION).item()
    for num_branches in (2, 4):
        slopes = [
            surrogate_gradient(
                POLICY, THETA_OLD, grow(seed, from_the_policy(num_branches), 80).rollout_set, self_normalised_surrogate
            )
            @ DIRECTION
            for seed in range(40)
        ]
        rows = torch.stack(slopes).numpy()
        assert abs(z_scores(rows, true * (num_branches - 1) / num_branches)) < 3
        assert abs(z_scores(rows, true)) > 4


# ---- the two gaps


def test_short_rollouts_leave_a_gap_that_shrinks_like_gamma_to_the_length() -> None:
    problem, weights = game(), visits(game())
    evaluation = mdp.evaluate_policy(problem, table(THETA_OLD))
    without_end = target(THETA, weights, evaluation.Q).item()
    for length in (1, 4, 16):
        gap = without_end - target(THETA, weights, q_of_length(problem, length)).item()
        assert abs(gap) <= GAMMA**length * evaluation.V.abs().max()
        rows = estimates(all_actions_surrogate, every_action, 40, repeats=30, rollout_length=length)[:, 0]
        assert abs(z_scores(rows, without_end - gap)) < 3
        if length == 1:
            assert abs(z_scores(rows, without_end)) > 10


def test_the_true_value_at_the_cut_closes_it() -> None:
    problem, weights = game(), visits(game())
    evaluation = mdp.evaluate_policy(problem, table(THETA_OLD))
    exact = value_and_slope(weights, evaluation.Q)
    np.testing.assert_allclose(value_and_slope(weights, q_of_length(problem, 2, evaluation.V)), exact, rtol=1e-10)
    settings = {"rollout_length": 2, "value": lambda obs: obs @ evaluation.V}
    rows = estimates(all_actions_surrogate, every_action, 40, repeats=40, **settings)
    assert np.abs(z_scores(rows, exact)).max() < 3


def test_undiscounted_visits_leave_the_other_gap_unless_the_start_is_stationary() -> None:
    problem = game(with_end=False)
    evaluation = mdp.evaluate_policy(problem, table(THETA_OLD))
    exact = partial(target, THETA, Q=evaluation.Q)
    gap = (exact(visits(problem)) - exact((1 - GAMMA) * evaluation.rho)).item()
    assert abs(gap) > 0.01
    settings = {"value": lambda obs: obs @ evaluation.V}  # so that the first gap is closed
    rows = estimates(all_actions_surrogate, every_action, 80, repeats=60, problem=problem, **settings)[:, 0]
    assert abs(z_scores(rows, exact((1 - GAMMA) * evaluation.rho).item() + gap)) < 3
    # A chain that begins as it goes on: w and (1 - gamma) rho are both its stationary distribution.
    chain = torch.einsum("sa,sat->st", table(THETA_OLD), problem.P)
    stationary = torch.linalg.matrix_power(chain, 2000)[0]
    settled = mdp.TabularMDP(problem.P, problem.r, stationary / stationary.sum(), GAMMA)
    rho = mdp.evaluate_policy(settled, table(THETA_OLD)).rho
    torch.testing.assert_close(visits(settled), (1 - GAMMA) * rho, rtol=0, atol=1e-10)


# ---- cart-pole


def reference_for_cartpole(
    policy: Policy, old: Tensor, new: Tensor, num_envs: int, gamma: float
) -> tuple[float, float]:
    """Equation 15 with one rollout on each of many independent trunks: no state is saved, nothing is shared."""
    env, generator = make("cartpole", num_envs), seeded(99)
    obs, _ = env.reset(seed=50_000)
    begins = torch.randint(40, (num_envs,), generator=generator).numpy()
    weight, total, playing = np.zeros(num_envs), np.zeros(num_envs), np.zeros(num_envs, dtype=bool)
    for t in range(40 + 30):
        pi_old, pi_new = (policy(theta, torch.tensor(obs)) for theta in (old, new))
        actions = pi_old.sample(generator)
        here = begins == t
        ratio = (pi_new.log_prob(actions) - pi_old.log_prob(actions)).exp().numpy()
        weight[here], playing = ratio[here], (playing | here) & (t - begins < 30)
        obs, rewards, terminated, truncated, _ = env.step(actions.numpy())
        total += np.where(playing, gamma ** np.maximum(t - begins, 0) * rewards, 0.0)
        playing &= ~(terminated | truncated)
    terms = weight * total
    return terms.mean(), terms.std() / math.sqrt(num_envs)


def test_cartpole_agrees_with_a_large_independent_reference() -> None:
    policy, gamma = linear_policy(4, CategoricalHead(2)), 0.97
    old, new = 2 * normal(4, policy.num_parameters), 2 * normal(4, policy.num_parameters) + normal(5, 10)
    trunk_env, branch_env, rows = make("cartpole", 100), make("cartpole", 240), []
    for seed in range(20):
        raw_obs = torch.tensor(trunk_env.reset(seed=100 * seed)[0])
        pi_old, branching = Actor(policy, old, Raw.empty(4)), Branching(200, every_action, 30, gamma)
        found = sample_vine(trunk_env, branch_env, pi_old, raw_obs, 40, branching, seeded(seed)).rollout_set
        rows.append(all_actions_surrogate(policy(new, found.obs), found).mean().item())
    estimate, error = np.mean(rows), np.std(rows, ddof=1) / math.sqrt(20)
    reference, reference_error = reference_for_cartpole(policy, old, new, 40_000, gamma)
    print(f"vine {estimate:.3f} ± {error:.3f}, reference {reference:.3f} ± {reference_error:.3f}")
    assert abs(estimate - reference) < 3 * math.hypot(error, reference_error)
    assert error < 0.01 * reference
    assert reference_error < 0.01 * reference
