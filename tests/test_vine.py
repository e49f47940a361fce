"""Vine sampling: where branches begin, what they share, where they end, and what is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import normal, seeded
from torch import Tensor
from vine_toys import CHEAP, ENVS, GAMMA, RAW, Fuse, falling_cartpole, grow, naive_roll_out, policy_for

from trpo_lessons.distributions import Distribution
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.rollouts import rows_of
from trpo_lessons.policies import CategoricalHead, GaussianHead, linear_policy
from trpo_lessons.problem import Problem
from trpo_lessons.rollout_set import (
    all_actions_surrogate,
    every_action,
    from_the_policy,
    log_prob_of_each,
    self_normalised_surrogate,
)
from trpo_lessons.single_path import Actor, for_environment, sample_single_path
from trpo_lessons.trpo import trpo_update
from trpo_lessons.vine import Branching, branch_noise, choose_states, sample_vine

# ---- the trunk and the states


@pytest.mark.parametrize("name", CHEAP)
def test_the_trunk_is_the_single_path(name: str) -> None:
    grown = grow(name, num_states=8)
    env, generator = ENVS[name](3), seeded(0)
    policy, theta = policy_for(env)
    choose_states(12, 3, 8, generator)  # drawn first
    path = sample_single_path(env, Actor(policy, theta, RAW), torch.tensor(env.reset(seed=0)[0]), 12, generator)
    for column in ("raw_obs", "obs", "actions", "log_q", "rewards", "terminated", "truncated", "final_obs", "next_obs"):
        assert torch.equal(getattr(grown.trunk, column), getattr(path, column)), column
    assert grown.trunk.episode_returns == path.episode_returns
    assert grown.trunk.episode_lengths == path.episode_lengths
    assert torch.equal(grown.trunk.states.obs, path.batch(torch.zeros(12, 3)).obs)


def test_every_step_of_the_trunk_is_chosen_equally_often_and_never_twice() -> None:
    draws, counts = 4_000, torch.zeros(5, 4)
    for seed in range(draws):
        chosen = choose_states(5, 4, 6, seeded(seed))
        steps = chosen[:, 0] * 4 + chosen[:, 1]
        assert (steps.diff() > 0).all()
        counts[tuple(chosen.T)] += 1
    p = 6 / 20
    assert (counts / draws - p).abs().max() < 4 * math.sqrt(p * (1 - p) / draws)


@pytest.mark.parametrize("name", [*CHEAP, "hopper"])
def test_a_branch_that_does_as_the_trunk_did_goes_where_the_trunk_went(name: str) -> None:
    grown = grow(name, num_states=6, rollout_length=1)
    trunk, env = grown.trunk, ENVS[name](6)
    obs = env.restore_state(grown.saved)
    t, e = grown.chosen.T
    assert torch.equal(torch.tensor(obs), trunk.raw_obs[t, e])
    assert torch.equal(grown.rollout_set.obs, trunk.obs[t, e])
    while (t < 12).all():  # to the end of the trunk, through episodes that end and begin
        actions = for_environment(trunk.actions[t, e], env.single_action_space)
        obs, rewards, terminated, truncated, _ = env.step(actions)
        assert rewards.tolist() == trunk.rewards[t, e].tolist()
        assert terminated.tolist() == trunk.terminated[t, e].tolist()
        assert truncated.tolist() == trunk.truncated[t, e].tolist()
        t = t + 1
    assert (t > grown.chosen[:, 0]).all()


def test_all_steps_can_be_chosen_and_no_more() -> None:
    grown = grow(num_states=36, rollout_length=1)
    assert grown.chosen.tolist() == [[t, e] for t in range(12) for e in range(3)]
    for settings in ({"num_states": 37}, {"num_states": 0}, {"rollout_length": 0}):
        with pytest.raises(ValueError, match="no more states than the trunk's 12 steps of 3 environments"):
            grow(**settings)


def test_branches_of_another_task_are_refused() -> None:
    with pytest.raises(ValueError, match="not a saved state of cartpole"):
        grow("fuse", branch_env=falling_cartpole(4))


# ---- Q-values


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("width", [1, 5, 24])
def test_the_vine_is_a_triple_loop_whatever_the_width(name: str, width: int) -> None:
    grown = grow(name, width=width)
    generator, policy_env = seeded(0), ENVS[name](3)
    policy, theta = policy_for(policy_env)
    pi_old = policy.at(theta)
    choose_states(12, 3, 8, generator)
    sample_single_path(policy_env, Actor(policy, theta, RAW), torch.tensor(policy_env.reset(seed=0)[0]), 12, generator)
    at_chosen = pi_old(grown.rollout_set.obs)
    actions = torch.stack([at_chosen.sample(generator) for _ in range(3)], dim=1)
    assert torch.equal(grown.rollout_set.actions, actions)
    noise = [at_chosen.noise(generator) for _ in range(5)]
    for n in range(8):
        start = {key: array[[n]] for key, array in grown.saved.items()}
        for k in range(3):
            own = torch.stack([each[n : n + 1] for each in noise])
            [(total, length, *_)] = naive_roll_out(ENVS[name], pi_old, start, actions[n, k][None], own)
            assert grown.rollout_set.q_values[n, k].item() == pytest.approx(total, rel=1e-12)
            assert grown.lengths[n, k] == length


@pytest.mark.parametrize("name", ["fuse", "barto-cartpole"])
def test_log_probabilities_are_those_of_the_first_actions(name: str) -> None:
    grown = grow(name)
    policy, theta = policy_for(ENVS[name](1))
    log_pi_old = log_prob_of_each(policy(theta, grown.rollout_set.obs), grown.rollout_set.actions)
    torch.testing.assert_close(grown.rollout_set.log_q, log_pi_old)
    assert grown.surrogate is self_normalised_surrogate
    if name == "fuse":
        grown = grow(name, first_actions=every_action)
        assert grown.rollout_set.actions.tolist() == [[0, 1, 2]] * 8
        assert grown.surrogate is all_actions_surrogate
        assert grown.rollout_set.log_q.unique().tolist() == pytest.approx([-math.log(3)])


def test_a_value_is_added_where_a_branch_was_cut_and_not_where_it_ended() -> None:
    seen = []

    def value(obs: Tensor) -> Tensor:
        seen.append(obs)
        return 1000 + obs[:, 1]

    settings: dict[str, Any] = {"num_states": 30, "first_actions": every_action, "rollout_length": 3}
    without, with_value = grow(**settings), grow(**settings, value=value)
    added = (with_value.rollout_set.q_values - without.rollout_set.q_values).flatten()
    lengths, [last] = without.lengths.flatten(), seen
    terminated, timed_out = last[:, 0] <= 0, last[:, 1] == 6
    assert terminated.any()
    assert (timed_out & ~terminated).any()
    assert (~timed_out & ~terminated).any()
    torch.testing.assert_close(added[terminated], torch.zeros(int(terminated.sum())).double())
    expected = GAMMA ** lengths.double() * (1000 + last[:, 1])
    torch.testing.assert_close(added[~terminated], expected[~terminated], rtol=1e-9, atol=1e-9)


def test_the_value_sees_normalised_observations() -> None:
    env, statistics = Fuse(3), RunningMoments.empty(3).including(normal(0, 50, 3) * 3 + 2)
    policy, theta = linear_policy(3, CategoricalHead(3)), torch.zeros(12)
    seen: list[Tensor] = []

    def value(obs: Tensor) -> Tensor:
        seen.append(obs)
        return obs[:, 0]

    raw_obs = torch.tensor(env.reset(seed=0)[0])
    branching = Branching(num_states=3, first_actions=every_action, rollout_length=1, gamma=GAMMA, value=value)
    grown = sample_vine(env, Fuse(9), Actor(policy, theta, statistics), raw_obs, 4, branching, seeded(0))
    raw = grown.trunk.raw_obs[tuple(grown.chosen.T)].repeat_interleave(3, dim=0)
    raw[:, 0] -= torch.tensor([1.0, 1.0, 2.0]).repeat(3)
    raw[:, 1] += 1
    assert torch.equal(seen[0], statistics.normalise(raw))
    assert grown.rollout_set.obs.dtype == torch.float32


# ---- common random numbers


def twice_the_same(pi_old: Distribution, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two equal first actions, and another draw."""
    actions, log_q = from_the_policy(2)(pi_old, generator)
    return actions[:, [0, 0, 1]], log_q[:, [0, 0, 1]]


@pytest.mark.parametrize("name", [*CHEAP, "hopper"])
def test_branches_with_the_same_first_action_coincide_to_the_bit(name: str) -> None:
    settings: dict[str, Any] = {"first_actions": twice_the_same, "rollout_length": 10, "width": 24}
    Q = grow(name, **settings).rollout_set.q_values
    assert torch.equal(Q[:, 0], Q[:, 1])
    if "cartpole" not in name:  # there all rewards are 1
        assert not torch.equal(Q[:, 0], Q[:, 2])
        Q = grow(name, **settings, common_random_numbers=False).rollout_set.q_values
        assert (Q[:, 0] != Q[:, 1]).sum() >= 6


def test_the_environments_luck_is_shared_too_and_cancels() -> None:
    # Without an end in sight, two first actions differ by their rewards and nothing else: 0 and 1 burn the same.
    class Long(Fuse):
        def _reset_rows(self, rows: np.ndarray) -> None:
            super()._reset_rows(rows)
            self._rows[rows, 0] += 100

    def differences(**settings: Any) -> Tensor:
        env = {"trunk_env": Long(3, luck=50.0), "branch_env": Long(24, luck=50.0)}
        Q = grow(**env, num_states=20, first_actions=every_action, rollout_length=4, **settings).rollout_set.q_values
        return Q[:, 1] - Q[:, 0]

    # The policy sees the same fuse either way, and draws the same actions: the difference is 1, to rounding.
    torch.testing.assert_close(differences(), torch.ones(20).double(), rtol=0, atol=1e-10)
    assert differences(common_random_numbers=False).std() > 10


@pytest.mark.parametrize("name", ["tabular", "hopper"])
def test_common_random_numbers_change_no_mean_and_shrink_differences(name: str) -> None:
    first = twice_the_same if name == "hopper" else every_action
    settings: dict[str, Any] = {"num_envs": 20, "width": 120, "num_states": 200, "first_actions": first}
    shared = grow(name, **settings, rollout_length=12).rollout_set.q_values
    own = grow(name, **settings, rollout_length=12, common_random_numbers=False).rollout_set.q_values
    for k in range(3):  # the same states and first actions: a paired comparison
        difference = own[:, k] - shared[:, k]
        assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(200)
    assert (shared[:, 2] - shared[:, 0]).var() < 0.9 * (own[:, 2] - own[:, 0]).var()


def test_noise_is_drawn_once_for_each_state_or_once_for_each_branch() -> None:
    pi_old = linear_policy(2, GaussianHead(3)).at(torch.zeros(12))(torch.zeros(5, 2))
    common = branch_noise(pi_old, 7, 4, 1, seeded(0)).view(7, 5, 4, 3)
    assert torch.equal(common, common[:, :, :1].expand(-1, -1, 4, -1))
    assert common[:, :, 0].unique().numel() == 7 * 5 * 3
    own = branch_noise(pi_old, 7, 4, 4, seeded(0))
    assert own.shape == (7, 20, 3)
    assert own.unique().numel() == 7 * 20 * 3


def test_the_same_generator_gives_the_same_vine_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    for settings in ({}, {"common_random_numbers": False}):
        first, again, other = grow(seed=3, **settings), grow(seed=3, **settings), grow(seed=4, **settings)
        assert torch.equal(first.rollout_set.q_values, again.rollout_set.q_values)
        assert not torch.equal(first.rollout_set.q_values, other.rollout_set.q_values)
    assert torch.equal(torch.get_rng_state(), state)


# ---- what is counted


@pytest.mark.parametrize("width", [5, 24, 40])
def test_the_simulator_steps_of_trunk_and_branches_are_all_counted(width: int) -> None:
    trunk_env, branch_env = Fuse(3), Fuse(width)
    grown = grow(trunk_env=trunk_env, branch_env=branch_env)
    assert grown.trunk.num_steps == trunk_env.counted == 36
    assert grown.branch_steps == branch_env.counted
    assert grown.num_steps == trunk_env.counted + branch_env.counted
    assert grown.lengths.sum() == grown.branch_steps
    assert grown.seconds.keys() == {"acting", "simulating"}
    assert all(spent > grown.trunk.seconds[phase] for phase, spent in grown.seconds.items())


# ---- problems


class Breaks(Fuse):
    """One copy's reward, or what it sees and is, stops being a number at some step."""

    def __init__(self, num_envs: int, at_step: int, where: str) -> None:
        super().__init__(num_envs)
        self.at_step, self.where = at_step, where

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        obs, rewards, terminated = super()._advance(actions)
        if self.counted == self.at_step * self.num_envs:
            if self.where == "reward":
                rewards[0] = math.nan
            else:
                self._rows[0, 2], obs[0, 2] = math.nan, math.nan
        return obs, rewards, terminated


@pytest.mark.parametrize(("where", "problem"), [("reward", "a reward"), ("state", "an observation")])
def test_a_trunk_that_is_not_finite_gets_no_branches(where: str, problem: str) -> None:
    branch_env = Fuse(7)
    grown = grow(trunk_env=Breaks(3, 2, where), branch_env=branch_env, num_states=36)
    assert grown.flaw == f"{problem} is not finite"
    assert branch_env.counted == grown.branch_steps == 0
    assert grown.rollout_set.q_values.isnan().all()
    assert grown.num_steps == 36


@pytest.mark.parametrize("where", ["reward", "state"])
def test_a_branch_that_is_not_finite_is_named_and_never_reaches_theta(where: str) -> None:
    grown = grow(branch_env=Breaks(24, 1, where))
    assert grown.trunk.flaw == ""
    assert grown.flaw == "a Q-value is not finite"
    assert grown.rollout_set.q_values.isnan().sum() == 1
    policy, theta = policy_for(Fuse(1))
    as_it_is = Problem(policy, grown.rollout_set, self_normalised_surrogate, grown.trunk.states)
    new, report = trpo_update(as_it_is, theta)
    assert report.reason == "the surrogate or its gradient is not finite"
    assert torch.equal(new, theta)


def test_finite_samples_have_no_problem_and_move_theta() -> None:
    grown = grow(num_states=30)
    assert grown.flaw == ""
    policy, theta = policy_for(Fuse(1))
    new, report = trpo_update(Problem(policy, grown.rollout_set, grown.surrogate, grown.trunk.states), theta)
    assert report.accepted
    assert not torch.equal(new, theta)


def test_rows_of_a_state_can_be_repeated() -> None:
    state = {"a": np.arange(6).reshape(3, 2), "b": np.arange(3.0)}
    picked = rows_of(state, np.array([2, 2, 0]))
    assert picked["a"].tolist() == [[4, 5], [4, 5], [0, 1]]
    assert picked["b"].tolist() == [2.0, 2.0, 0.0]
    assert replace(grow(rollout_length=1), branch_steps=5).num_steps == 41
