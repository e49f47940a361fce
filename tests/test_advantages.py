"""Returns and advantages: double loops as twins, exact values as judges, and how episodes end."""

from __future__ import annotations

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
from trpo_lessons.advantages import discounted_returns, gae
from trpo_lessons.value_function import explained_variance


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


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
@pytest.mark.parametrize("anything", [math.nan, math.inf])
def test_what_does_not_count_may_be_anything(estimate: Any, anything: float) -> None:
    ended = one_episode(terminated=2)
    assert torch.equal(estimate(changed(ended, "next_values", 2, by=anything)), estimate(ended))
    for x in (ended, one_episode(truncated=2)):
        for name in ("rewards", "values", "next_values"):
            later = changed(changed(x, name, 3, by=anything), name, 5, by=anything)
            assert torch.equal(estimate(later)[:3], estimate(x)[:3]), "what follows an episode reached into it"
    assert not estimate(changed(one_episode(truncated=2), "next_values", 2, by=anything))[:3].isfinite().any()


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_rewards_of_any_type_give_the_estimates_of_the_same_numbers_in_float64(estimate: Any, dtype: Any) -> None:
    x = one_episode(truncated=2)
    rewards = torch.tensor([[1], [0], [3], [200], [1], [7]])
    exact = Episodes(**{**vars(x), "rewards": rewards.double()})
    assert not torch.equal(estimate(exact), estimate(exact).round()), "otherwise nothing would be cut"
    estimates = estimate(Episodes(**{**vars(x), "rewards": rewards.to(dtype)}))
    assert estimates.dtype == torch.float64
    assert torch.equal(estimates, estimate(exact))


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
        ("torch.where(terminated, 0.0, next_values)", "torch.where(terminated | truncated, 0.0, next_values)"),
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


def test_where_values_vary_more_than_returns_small_lambdas_vary_more() -> None:
    values = normal(3, 20, 500)
    none, next_values = torch.zeros_like(values), values.roll(-1, 0)
    terminated, truncated = torch.zeros_like(values, dtype=torch.bool), torch.zeros_like(values, dtype=torch.bool)
    terminated[-1] = True
    # No rewards, so all returns are 0: what is left of an estimate, with V(s_t) added again, is noise from V.
    spreads = [
        float((gae(none, values, next_values, terminated, truncated, 0.99, lam) + values).std())
        for lam in (0.0, 0.5, 1.0)
    ]
    assert spreads[0] > 1.5 * spreads[1] > 0.5
    assert spreads[2] < 1e-12, "the return less V"


# ---- explained variance


def test_explained_variance_knows_its_landmarks() -> None:
    targets = normal(0, 500)
    assert explained_variance(targets, targets) == pytest.approx(1)
    assert explained_variance(targets + 7, targets) == pytest.approx(1), "a constant offset explains no less"
    assert explained_variance(torch.full_like(targets, 3.0), targets) == pytest.approx(0)
    assert explained_variance(-targets, targets) == pytest.approx(-3)
    assert explained_variance(0.5 * targets, targets) == pytest.approx(0.75)
    for equal in (1.0, 0.1, -1e-9):  # the mean of equal numbers is rounded, so that their variance is not always 0
        assert math.isnan(explained_variance(targets, torch.full_like(targets, equal)))
    assert explained_variance(1e6 + targets, 1e6 + targets) == pytest.approx(1)
