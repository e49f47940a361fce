"""Returns, advantages and value functions: double loops as twins, exact values as judges, and how episodes end."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PROPERTY, doubles, mutant, normal, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons import advantages, mdp
from trpo_lessons.advantages import ValueFunction, discounted_returns, explained_variance, gae
from trpo_lessons.conjugate_gradient import Solution


@dataclass(frozen=True)
class Episodes:
    """T steps of E environments, with episodes that end here and there."""

    rewards: Tensor
    values: Tensor
    next_values: Tensor
    terminated: Tensor
    truncated: Tensor

    @classmethod
    def random(cls, num_rows: int, num_envs: int, seed: int) -> Episodes:
        shape = (num_rows, num_envs)
        terminated, truncated = torch.rand(2, *shape, generator=seeded(seed + 9)) < 0.15
        rewards, values, next_values = (normal(seed + i, *shape) for i in range(3))
        # Within an episode, the state a step leads to is the one before the next step.
        goes_on = ~(terminated | truncated)[:-1]
        next_values[:-1][goes_on] = values[1:][goes_on]
        return cls(rewards, values, next_values, terminated, truncated)


def naive_return(episodes: Episodes, t: int, e: int, gamma: float, last: int | None = None) -> float:
    """Rewards from step t on, with the value of the state where they break off (after step `last` at the latest)."""
    total, k = 0.0, t
    while True:
        total += gamma ** (k - t) * episodes.rewards[k, e].item()
        if episodes.terminated[k, e]:
            return total
        if episodes.truncated[k, e] or k == len(episodes.rewards) - 1 or k == last:
            return total + gamma ** (k - t + 1) * episodes.next_values[k, e].item()
        k += 1


def naive_gae(episodes: Episodes, t: int, e: int, gamma: float, lam: float) -> float:
    """The definition: a mean of n-step estimates with weights (1 - lam) lam^(n - 1), the rest of the weight on the
    longest."""
    longest, k = 1, t
    while k < len(episodes.rewards) - 1 and not (episodes.terminated[k, e] or episodes.truncated[k, e]):
        k, longest = k + 1, longest + 1
    steps = [naive_return(episodes, t, e, gamma, last=t + n) - episodes.values[t, e].item() for n in range(longest)]
    weights = [(1 - lam) * lam**n for n in range(longest - 1)] + [lam ** (longest - 1)]
    return sum(w * step for w, step in zip(weights, steps, strict=True))


# ---- twins

shapes = {"num_rows": st.integers(1, 14), "num_envs": st.integers(1, 3), "seed": st.integers(0, 10_000)}
discounts = {"gamma": st.floats(0, 1), "lam": st.floats(0, 1)}


@PROPERTY
@given(**shapes, gamma=discounts["gamma"])
def test_discounted_returns_are_a_double_loop(num_rows: int, num_envs: int, seed: int, gamma: float) -> None:
    x = Episodes.random(num_rows, num_envs, seed)
    returns = discounted_returns(x.rewards, x.next_values, x.terminated, x.truncated, gamma)
    expected = [[naive_return(x, t, e, gamma) for e in range(num_envs)] for t in range(num_rows)]
    torch.testing.assert_close(returns, doubles(expected), rtol=1e-10, atol=1e-10)


@PROPERTY
@given(**shapes, **discounts)
def test_gae_is_the_weighted_mean_of_n_step_estimates(
    num_rows: int, num_envs: int, seed: int, gamma: float, lam: float
) -> None:
    x = Episodes.random(num_rows, num_envs, seed)
    estimates = gae(**vars(x), gamma=gamma, lam=lam)
    expected = [[naive_gae(x, t, e, gamma, lam) for e in range(num_envs)] for t in range(num_rows)]
    torch.testing.assert_close(estimates, doubles(expected), rtol=1e-10, atol=1e-10)


@PROPERTY
@given(**shapes, gamma=discounts["gamma"])
def test_the_two_ends_of_lambda(num_rows: int, num_envs: int, seed: int, gamma: float) -> None:
    x = Episodes.random(num_rows, num_envs, seed)
    returns = discounted_returns(x.rewards, x.next_values, x.terminated, x.truncated, gamma)
    torch.testing.assert_close(gae(**vars(x), gamma=gamma, lam=1.0), returns - x.values, rtol=1e-10, atol=1e-10)
    future = torch.where(x.terminated, torch.zeros_like(x.next_values), x.next_values)
    one_step = x.rewards + gamma * future - x.values
    torch.testing.assert_close(gae(**vars(x), gamma=gamma, lam=0.0), one_step, rtol=1e-10, atol=1e-10)


def test_returns_without_a_value_function_are_sums_of_rewards() -> None:
    rewards = doubles([[1.0], [2.0], [4.0], [8.0]])
    none = torch.zeros(4, 1, dtype=torch.bool)
    ended = doubles([[0], [1], [0], [0]]).bool()
    zeros = torch.zeros_like(rewards)
    assert discounted_returns(rewards, zeros, none, none, 0.5).flatten().tolist() == [4.0, 6.0, 8.0, 8.0]
    assert discounted_returns(rewards, zeros, ended, none, 0.5).flatten().tolist() == [2.0, 2.0, 8.0, 8.0]


# ---- how episodes end

ESTIMATES = {
    "returns": lambda x: discounted_returns(x.rewards, x.next_values, x.terminated, x.truncated, 0.9),
    "gae": lambda x: gae(**vars(x), gamma=0.9, lam=0.8),
}


def one_episode(**ends: int) -> Episodes:
    """Six steps of one environment; `terminated=2` ends the episode at step 2."""
    x = Episodes.random(6, 1, seed=3)
    flags = {name: torch.zeros(6, 1, dtype=torch.bool) for name in ("terminated", "truncated")}
    for name, t in ends.items():
        flags[name][t] = True
    return Episodes(x.rewards, x.values, x.next_values, **flags)


def changed(x: Episodes, name: str, t: int, by: float = 100.0) -> Episodes:
    column = getattr(x, name).clone()
    column[t] += by
    return Episodes(**{**vars(x), name: column})


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
def test_a_termination_bootstraps_nothing(estimate: Any) -> None:
    for x in (one_episode(terminated=2), one_episode(terminated=2, truncated=2), one_episode(terminated=5)):
        t = int(x.terminated.int().argmax())
        assert torch.equal(estimate(changed(x, "next_values", t)), estimate(x))


def test_a_truncation_bootstraps_the_value_of_the_final_observation() -> None:
    x = one_episode(truncated=2)
    more = changed(x, "next_values", 2, by=100.0)
    rise = ESTIMATES["returns"](more) - ESTIMATES["returns"](x)
    expected = doubles([0.9**3, 0.9**2, 0.9, 0, 0, 0])[:, None] * 100
    torch.testing.assert_close(rise, expected, rtol=1e-10, atol=1e-10)
    rise = ESTIMATES["gae"](more) - ESTIMATES["gae"](x)
    expected = doubles([0.9 * 0.72**2, 0.9 * 0.72, 0.9, 0, 0, 0])[:, None] * 100
    torch.testing.assert_close(rise, expected, rtol=1e-10, atol=1e-10)


def test_the_end_of_the_rows_is_a_truncation() -> None:
    x, cut = one_episode(), one_episode(truncated=5)
    for estimate in ESTIMATES.values():
        torch.testing.assert_close(estimate(x), estimate(cut), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
@pytest.mark.parametrize("how", ["terminated", "truncated"])
def test_nothing_leaks_from_one_episode_into_the_one_before(estimate: Any, how: str) -> None:
    x = one_episode(**{how: 2})
    for name in ("rewards", "values", "next_values"):
        for t in (3, 4, 5):
            assert torch.equal(estimate(changed(x, name, t))[:3], estimate(x)[:3])


def check_time_limits(module: Any) -> None:
    # Reward 1 for ever is worth 1 / (1 - gamma) everywhere, whenever somebody stops looking: nothing beats the usual.
    ones, none = torch.ones(8, 2, dtype=torch.float64), torch.zeros(8, 2, dtype=torch.bool)
    cut = none.clone()
    cut[2, 0] = cut[5, 1] = cut[6, 1] = True
    worth = 10 * ones
    returns = module.discounted_returns(ones, worth, none, cut, 0.9)
    torch.testing.assert_close(returns, worth, rtol=1e-12, atol=1e-12)
    estimates = module.gae(ones, worth, worth, none, cut, 0.9, 0.95)
    torch.testing.assert_close(estimates, 0 * ones, rtol=1e-12, atol=1e-12)


def test_a_time_limit_makes_no_step_better_or_worse() -> None:
    check_time_limits(advantages)


@pytest.mark.parametrize(
    "mistake",
    [
        ("next_values * ~terminated", "next_values * ~(terminated | truncated)"),
        ("torch.where(terminated[t], 0.0, future)", "torch.where(terminated[t] | truncated[t], 0.0, future)"),
    ],
)
def test_time_limits_taken_for_terminations_would_be_noticed(mistake: tuple[str, str]) -> None:
    broken = mutant(advantages, mistake)
    with pytest.raises(AssertionError):
        check_time_limits(broken)


def test_inputs_are_not_changed_and_environments_do_not_mix() -> None:
    x = Episodes.random(9, 3, seed=5)
    before = {name: column.clone() for name, column in vars(x).items()}
    for estimate in ESTIMATES.values():
        whole = estimate(x)
        columns = [estimate(Episodes(*(column[:, e : e + 1] for column in vars(x).values()))) for e in range(3)]
        assert torch.equal(whole, torch.cat(columns, dim=1))
    assert all(torch.equal(column, before[name]) for name, column in vars(x).items())


def test_a_value_function_in_float32_does_not_lower_the_precision_of_the_rewards() -> None:
    x = Episodes.random(9, 3, seed=5)
    single = {"values": x.values.float(), "next_values": x.next_values.float()}
    for name, estimate in ESTIMATES.items():
        estimates = estimate(Episodes(**{**vars(x), **single}))
        assert estimates.dtype == torch.float64, name
        torch.testing.assert_close(estimates, estimate(x), rtol=1e-5, atol=1e-5)


# ---- against exact advantages


@pytest.fixture(scope="module")
def walks() -> dict[str, Any]:
    """Many short walks from the first states of a small MDP, whose last state ends the episode."""
    game = mdp.garnet(num_states=5, num_actions=2, branching=3, gamma=0.9, seed=1)
    P, r = game.P.clone(), game.r.clone()
    P[4], r[4] = doubles([0, 0, 0, 0, 1.0]), 0
    game = mdp.TabularMDP(P, r, doubles([0.25, 0.25, 0.25, 0.25, 0]), 0.9)
    pi = mdp.random_policy(game, np.random.default_rng(2))
    states, actions = mdp.simulate(game, pi, 60_000, 7, np.random.default_rng(3))
    states, actions = states.T, actions.T
    terminated = states[1:] == 4
    assert 0.1 < terminated.any(0).double().mean() < 0.95, "some walks end, some are cut off"
    return {
        "exact": mdp.evaluate_policy(game, pi),
        "rewards": game.r[states[:-1], actions[:-1]],
        "states": states,
        "actions": actions,
        "terminated": terminated,
        "truncated": torch.zeros_like(terminated),
    }


def errors_in_standard_errors(walks: dict[str, Any], V: Tensor, lam: float, gamma: float = 0.9) -> Tensor:
    """For each first state and action: the mean estimate less the exact advantage, in standard errors of the mean."""
    values, next_values = V[walks["states"][:-1]], V[walks["states"][1:]].clone()
    next_values[walks["terminated"]] = 1e3  # no meaning after a termination, and no effect
    first = gae(walks["rewards"], values, next_values, walks["terminated"], walks["truncated"], gamma, lam)[0]
    z = torch.zeros(4, 2, dtype=torch.float64)
    for s in range(4):
        for a in range(2):
            sample = first[(walks["states"][0] == s) & (walks["actions"][0] == a)]
            error = sample.mean() - walks["exact"].A[s, a]
            z[s, a] = error / (sample.std() / math.sqrt(len(sample)) + 1e-12)
    return z


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_with_exact_values_gae_is_unbiased_for_every_lambda(walks: dict[str, Any], lam: float) -> None:
    assert errors_in_standard_errors(walks, walks["exact"].V, lam).abs().max() < 4


def test_with_wrong_values_small_lambdas_are_biased(walks: dict[str, Any]) -> None:
    wrong = walks["exact"].V + normal(8, 5)
    assert errors_in_standard_errors(walks, wrong, lam=0.0).abs().max() > 20


def test_smaller_lambdas_vary_less(walks: dict[str, Any]) -> None:
    V = walks["exact"].V
    arguments = walks["rewards"], V[walks["states"][:-1]], V[walks["states"][1:]]
    spreads = [
        gae(*arguments, walks["terminated"], walks["truncated"], 0.9, lam)[0].var().item() for lam in (0.0, 0.5, 1.0)
    ]
    assert spreads == sorted(spreads)


# ---- explained variance


def test_explained_variance_knows_its_landmarks() -> None:
    targets = normal(0, 500)
    assert explained_variance(targets, targets) == pytest.approx(1)
    assert explained_variance(targets + 7, targets) == pytest.approx(1), "a constant offset explains no less"
    assert explained_variance(torch.full_like(targets, 3.0), targets) == pytest.approx(0)
    assert explained_variance(-targets, targets) == pytest.approx(-3)
    assert explained_variance(0.5 * targets, targets) == pytest.approx(0.75)
    assert math.isnan(explained_variance(targets, torch.ones_like(targets)))


# ---- the value function


def a_problem(seed: int = 0, mean: float = 0.0, std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Observations, and returns that depend on them smoothly."""
    obs = normal(seed, 1024, 3, dtype=torch.float32)
    shape = torch.sin(obs.double() @ normal(99, 3)) + 0.5 * obs[:, 0].double()
    return obs, mean + std * (shape - shape.mean()) / shape.std()


def fitted(obs: Tensor, returns: Tensor, fits: int = 1, steps: int = 2) -> ValueFunction:
    value = ValueFunction(3, (32,), seeded(1))
    for _ in range(fits):
        value.fit(obs, returns, steps)
    return value


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1000.0, 5.0), (-3.0, 1e-3), (0.0, 1e4)])
def test_it_learns_a_smooth_function_in_any_units(mean: float, std: float) -> None:
    obs, returns = a_problem(0, mean, std)
    value = fitted(obs, returns, fits=8)
    new_obs, new_returns = a_problem(50, mean, std)
    assert explained_variance(value(new_obs), new_returns) > 0.95
    assert (value(new_obs).mean() - mean).abs() < 0.1 * std


def test_units_are_all_that_the_scale_of_the_returns_changes() -> None:
    obs, returns = a_problem()
    plain, scaled = fitted(obs, returns), fitted(obs, 200 * returns - 70)
    torch.testing.assert_close(scaled(obs), 200 * plain(obs) - 70, rtol=1e-3, atol=0.1)


def test_a_change_of_units_leaves_every_prediction_what_it_was() -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns, fits=3)
    for shifted in (returns + 50, 30 * returns - 200, 0.01 * returns):
        before, state = value(obs), value.state_dict()
        value.fit(obs, shifted, steps=0)  # units change, and nothing else
        scale = before.abs().max().item()
        torch.testing.assert_close(value(obs), before, rtol=0, atol=2e-5 * scale)
        after = value.state_dict()
        assert not torch.equal(after["moments"], state["moments"])
        assert not torch.equal(after["theta"], state["theta"])


def test_the_units_follow_the_mean_and_spread_of_the_returns() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, returns, steps=0)
    # An untrained network says almost 0 in its own units: the mean of the returns.
    assert (value(obs) - 20).abs().max() < 0.5
    for _ in range(200):
        value.fit(obs, returns + 100, steps=0)
    weight, first, second = value.state_dict()["moments"].tolist()
    assert first / weight == pytest.approx(120, rel=1e-6)
    assert math.sqrt(second / weight - (first / weight) ** 2) == pytest.approx(3, rel=1e-2)


def test_returns_that_are_all_equal_do_not_blow_up() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, torch.full_like(returns, 7.0), fits=3)
    assert (value(obs) - 7).abs().max() < 0.1
    value.fit(obs, returns)
    assert value(obs).isfinite().all()


def test_a_state_that_is_saved_and_loaded_goes_on_to_the_same_bits() -> None:
    obs, returns = a_problem()
    original = fitted(obs, returns, fits=2)
    saved = original.state_dict()
    copy = ValueFunction(3, (32,), seeded(7))
    copy.load_state_dict(saved)
    assert torch.equal(copy(obs), original(obs))
    for value in (original, copy):
        value.fit(obs, 2 * returns + 1)
    assert torch.equal(copy(obs), original(obs))
    for name, tensor in original.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name
        assert not torch.equal(saved[name], tensor), f"{name} did not change, or the saved state changed with it"


@pytest.mark.parametrize("used_before", [False, True])
def test_a_state_from_before_the_first_fit_can_be_loaded_too(used_before: bool) -> None:
    obs, returns = a_problem()
    saved = ValueFunction(3, (32,), seeded(1)).state_dict()
    value = fitted(obs, returns) if used_before else ValueFunction(3, (32,), seeded(7))
    value.load_state_dict(saved)
    value.fit(obs, returns)
    assert torch.equal(value(obs), fitted(obs, returns)(obs))


def test_a_state_of_another_network_is_refused() -> None:
    value = ValueFunction(3, (32,))
    with pytest.raises(ValueError, match="this value function has 161 parameters, the saved one 129"):
        value.load_state_dict(ValueFunction(2, (32,)).state_dict())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["obs", "returns"])
def test_numbers_that_are_not_finite_are_refused_before_anything_changes(bad: float, where: str) -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns)
    before = value.state_dict()
    (obs if where == "obs" else returns)[17] = bad
    with pytest.raises(ValueError, match="cannot fit a value function to observations or returns that are not finite"):
        value.fit(obs, returns)
    assert all(torch.equal(tensor, before[name]) for name, tensor in value.state_dict().items())


def test_it_is_seeded_and_leaves_the_global_generator_alone() -> None:
    obs, returns = a_problem()
    state = torch.get_rng_state()
    assert torch.equal(fitted(obs, returns)(obs), fitted(obs, returns)(obs))
    assert torch.equal(torch.get_rng_state(), state)


def test_values_carry_no_gradient_and_one_number_for_each_state() -> None:
    value = ValueFunction(3, (32,))
    assert value(normal(0, 5, 3, dtype=torch.float32)).shape == (5,)
    assert value(torch.zeros(0, 3)).shape == (0,)
    assert not value(torch.zeros(2, 3)).requires_grad


def test_a_linear_value_function_has_no_hidden_layers() -> None:
    obs, returns = a_problem()
    value, linear = ValueFunction(3, (), seeded(1)), normal(4, 3)
    for _ in range(10):
        value.fit(obs, 5 + obs.double() @ linear)
    assert explained_variance(value(obs), 5 + obs.double() @ linear) > 0.999
    before = value(obs)
    value.fit(obs, 100 * returns, steps=0)
    torch.testing.assert_close(value(obs), before, rtol=1e-4, atol=1e-4)


def test_one_undamped_step_of_a_linear_value_function_is_least_squares() -> None:
    obs, returns = a_problem()
    value = ValueFunction(3, (), seeded(1))
    value.fit(obs, returns, steps=1, damping=0.0, stride=1)
    columns = np.column_stack([obs.numpy(), np.ones(len(obs))])
    coefficients, *_ = np.linalg.lstsq(columns, returns.numpy(), rcond=None)
    np.testing.assert_allclose(value(obs), columns @ coefficients, atol=1e-4)


def test_a_step_never_makes_the_fit_worse() -> None:
    obs, returns = a_problem(0, mean=20, std=3)
    value = fitted(obs, returns, steps=0)
    errors = []
    for _ in range(30):
        errors.append((value(obs) - returns).square().mean().item())
        value._theta = value._gauss_newton_step(obs, ((returns - 20) / 3).float(), damping=1e-6, stride=8)
    # The targets above are in the units of the first fit, so that only the steps move the error.
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.05 * errors[0]


def test_a_step_that_is_not_finite_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    obs, returns = a_problem()
    value = fitted(obs, returns)
    before = value(obs)

    def overflowing(_: Any, b: Tensor) -> Solution:
        return Solution(torch.full_like(b, math.inf), (), False)

    monkeypatch.setattr(advantages, "conjugate_gradient", overflowing)
    value.fit(obs, returns)
    torch.testing.assert_close(value(obs), before, rtol=1e-5, atol=1e-5)
