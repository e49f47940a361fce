"""A population plays: every theta as if it were alone, from the same starts, and no step when its episode is over."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers import HEADS, PROPERTY, mutant, normal, seeded, small_policy
from hypothesis import given
from hypothesis import strategies as st
from vine_toys import CHEAP, ENVS, Fuse

from trpo_lessons import envs
from trpo_lessons.envs import episodes
from trpo_lessons.envs.base import RestorableVectorEnv
from trpo_lessons.envs.episodes import Episodes, play_episodes
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.rollouts import rows_of
from trpo_lessons.policies import Policy
from trpo_lessons.prior_methods.many_policies import ManyPolicies, num_searched, whole_theta
from trpo_lessons.single_path import for_environment
from trpo_lessons.training import preset
from trpo_lessons.training.sampling.population_sampler import PopulationSampler
from trpo_lessons.training.settings.policy_for import policy_for

KINDS = [f"{network}-{head}" for network in ("linear", "mlp") for head in HEADS]


# ---- many policies in one call


@pytest.mark.parametrize("kind", KINDS)
def test_many_policies_are_the_same_policies_one_by_one(kind: str) -> None:
    policy, obs_shape = small_policy(kind)
    thetas, obs = normal(0, 6, num_searched(policy)), normal(1, 9, *obs_shape).float()
    policies, who = ManyPolicies(policy, thetas), np.array([0, 5, 5, 2, 1, 4, 3, 0, 2])
    policies.seat(who)
    answer = policies(obs)
    alone = [policy(whole_theta(policy, thetas[p]), obs[i : i + 1]) for i, p in enumerate(who)]
    for found, expected in zip(answer.parameters, zip(*(each.parameters for each in alone), strict=True), strict=True):
        assert torch.allclose(found.expand(9, -1), torch.cat([x.view(1, -1) for x in expected]), atol=1e-6)
    assert torch.allclose(answer.mode(), torch.cat([each.mode() for each in alone]), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_search_leaves_out_changes_no_most_likely_action(kind: str) -> None:
    policy, obs_shape = small_policy(kind)
    theta, obs = policy.initial_theta(seeded(0)), normal(1, 20, *obs_shape).float()
    whole = whole_theta(policy, theta[: num_searched(policy)])
    assert torch.equal(whole, theta)
    assert num_searched(policy) == policy.num_parameters - (2 if "gaussian" in kind else 0)
    other = whole.clone()
    other[num_searched(policy) :] += 3.0
    assert torch.equal(policy(other, obs).mode(), policy(whole, obs).mode())
    shifted = whole + 0.5 * normal(2, len(whole)).float()
    assert not torch.equal(policy(shifted, obs).mode(), policy(whole, obs).mode())


def test_a_policy_that_sees_pictures_is_refused() -> None:
    policy, _ = small_policy("convolutional-gaussian")
    with pytest.raises(ValueError, match="linear layers"):
        ManyPolicies(policy, torch.zeros(2, num_searched(policy)))


# ---- episodes side by side


def starts_of(name: str, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    env = ENVS[name](count)
    env.reset(seed=seed)
    return env.save_state()


def thoughts(name: str, count: int) -> tuple[Policy, torch.Tensor]:
    """A policy for an environment, and a theta for every episode."""
    policy = policy_for(ENVS[name](1), replace(preset("cartpole"), hidden=()))
    return policy, normal(7, count, num_searched(policy))


def alone(name: str, policy: Policy, theta: torch.Tensor, start: dict[str, np.ndarray]) -> tuple[float, int, list[Any]]:
    """One episode of one policy in one environment; a plain loop."""
    env = ENVS[name](1)
    obs, total, seen = env.restore_state(start), 0.0, []
    while True:
        seen.append(obs[0].tolist())
        with torch.no_grad():
            mode = policy(whole_theta(policy, theta), torch.tensor(obs).float()).mode()
        obs, rewards, terminated, truncated, _ = env.step(for_environment(mode, env.single_action_space))
        total += rewards[0]
        if terminated[0] or truncated[0]:
            return total, len(seen), seen


def played(name: str, width: int, count: int, play: Any = play_episodes) -> tuple[Episodes, RestorableVectorEnv]:
    policy, thetas = thoughts(name, count)
    policies, env = ManyPolicies(policy, thetas), ENVS[name](width)

    def act(raw_obs: np.ndarray, episode: np.ndarray, changed: bool) -> np.ndarray:
        if changed:
            policies.seat(episode)
        return for_environment(policies(torch.from_numpy(raw_obs).float()).mode(), env.single_action_space)

    return play(env, act, starts_of(name, count)), env


def check_played(name: str, width: int, count: int, play: Any = play_episodes) -> Episodes:
    found, env = played(name, width, count, play)
    policy, thetas = thoughts(name, count)
    starts, everything = starts_of(name, count), []
    for m in range(count):
        total, length, seen = alone(name, policy, thetas[m], rows_of(starts, np.array([m])))
        assert found.lengths[m] == length, m
        assert found.returns[m].item() == pytest.approx(total, rel=1e-5), m
        everything += seen
    assert sorted(found.raw_obs.tolist()) == [pytest.approx(row, abs=1e-3) for row in sorted(everything)]
    assert found.num_steps == found.lengths.sum() == len(found.raw_obs)
    return found


@pytest.mark.parametrize("width", [1, 4, 11, 30])
@pytest.mark.parametrize("name", CHEAP)
def test_episodes_side_by_side_are_episodes_one_by_one(name: str, width: int) -> None:
    if name != "tabular":  # its observations are indicators
        check_played(name, width, count=11)


def test_episodes_of_a_hopper_are_episodes_one_by_one() -> None:
    check_played("hopper", width=5, count=9)


MISTAKES = {
    "resting copies earn": ("returns[episode] += rewards[playing]", "np.add.at(returns, copies.rollout, rewards)"),
    "resting copies are counted": ("lengths[episode] += 1", "np.add.at(lengths, copies.rollout, 1)"),
    "the seats are not changed": ("copies.rollout, changed)", "copies.rollout, not lengths.any())"),
    "the next episode goes on where the last has ended": ("copies.take_next(ended)", "copies.busy[ended] = False"),
    "what resting copies see is seen": ("seen.append(copies.obs[playing])", "seen.append(copies.obs)"),
    "a time limit is no end": ("ended = (terminated | truncated) & copies.busy", "ended = terminated & copies.busy"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_playing_would_be_noticed(mistake: str) -> None:
    broken = mutant(episodes, MISTAKES[mistake]).play_episodes
    for width in (4, 30):
        try:
            check_played("fuse", width, 20, broken)
        except (AssertionError, IndexError, KeyError):
            return
    pytest.fail("it was not noticed")


class Breaks(Fuse):
    """Something that is no number, in the third step of copy 0."""

    def __init__(self, num_envs: int, where: str) -> None:
        super().__init__(num_envs)
        self.where = where

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        obs, rewards, terminated = super()._advance(actions)
        if self.counted == 3 * self.num_envs:
            if self.where == "reward":
                rewards[0] = math.nan
            else:
                obs[0, 2], terminated[0] = math.inf, True
        return obs, rewards, terminated


@pytest.mark.parametrize("where", ["reward", "last observation"])
def test_a_return_after_something_not_finite_is_not_finite(where: str) -> None:
    starts = starts_of("fuse", 4)
    starts["rows"][:, 0] = 12
    found = play_episodes(Breaks(4, where), lambda obs, _who, _changed: np.zeros(len(obs), dtype=int), starts)
    assert found.returns.isfinite().tolist() == [False, True, True, True]


# ---- copies that rest


@pytest.mark.parametrize("name", [*CHEAP, "hopper"])
def test_resting_copies_change_nothing_for_the_others(name: str) -> None:
    one, other = ENVS[name](5), ENVS[name](5)
    for env in (one, other):
        env.reset(seed=3)
    actions = np.zeros(one.action_space.shape, one.action_space.dtype)
    other.rest([1, 3])
    awake = [0, 2, 4]
    for _ in range(40):
        expected, found = one.step(actions), other.step(actions)
        for x, y in zip(expected[:4], found[:4], strict=True):
            assert np.array_equal(x[awake], y[awake])
        mask = found[4].get("_episode", np.zeros(5, dtype=bool))
        assert not mask[[1, 3]].any()
        assert np.array_equal(mask[awake], expected[4].get("_episode", np.zeros(5, dtype=bool))[awake])
    saved, twin = one.save_state(awake), other.save_state(awake)
    assert all(np.array_equal(saved[key], twin[key]) for key in saved)
    # A state wakes a copy; the other one goes on resting.
    other.restore_state(one.save_state([1]), [1])
    for _ in range(20):
        expected, found = one.step(actions), other.step(actions)
        assert np.array_equal(expected[0][[0, 1, 2, 4]], found[0][[0, 1, 2, 4]])
    # And a reset wakes all.
    for env in (one, other):
        env.reset(seed=9)
    for _ in range(20):
        expected, found = one.step(actions), other.step(actions)
        assert np.array_equal(expected[3], found[3])
        if name != "fuse":  # which counts the episodes that each copy has begun
            assert np.array_equal(expected[0], found[0])


@pytest.mark.parametrize("settings", [{}, {"impact_cost": 0.1}])
def test_a_robot_that_rests_is_not_simulated(settings: dict[str, float]) -> None:
    env = envs.make("walker", 4, threads=1, **settings)
    twin = envs.make("walker", 4, threads=1, **settings)
    assert isinstance(env, MujocoVectorEnv)
    for each in (env, twin):
        each.reset(seed=0)
    moving = slice(0, 1 + env.model.nq + env.model.nv)  # time, positions, velocities; controls are written to all
    before = env.batch.state[:, moving].copy()
    env.rest([0, 2])
    for _ in range(5):
        actions = np.full((4, 6), 0.3, dtype=np.float32)
        _, rewards, *_ = env.step(actions)
        _, expected, *_ = twin.step(actions)
        assert rewards[[1, 3]].tolist() == expected[[1, 3]].tolist()
    assert np.array_equal(env.batch.state[[0, 2], moving], before[[0, 2]])
    assert (env.batch.state[[1, 3], moving] != before[[1, 3]]).all()


@PROPERTY
@given(st.integers(1, 12), st.integers(1, 20))
def test_no_copy_idles_while_an_episode_waits(width: int, count: int) -> None:
    found, env = played("fuse", width, count)
    assert isinstance(env, Fuse)
    # Each of the `width` copies works on something until nothing waits; after that for one episode at most.
    assert (env.rounds - 6) * width <= found.num_steps <= env.rounds * width
    assert found.num_steps == env.counted


# ---- a population


def sampler(task: str, **settings: Any) -> PopulationSampler:
    settings = {"method": "cem", "num_envs": 8, "population": 6, "episodes": 2, **settings}
    return PopulationSampler(preset(task, **settings))


def test_returns_are_those_of_gymnasiums_own_environment() -> None:
    population = sampler("cartpole", seed=4)
    policy = policy_for(population.envs[0], preset("cartpole", hidden=()))
    thetas = normal(0, 6, num_searched(policy))
    statistics = RunningMoments.empty(4).including(normal(1, 50, 4) * 0.3)
    found = population.play(policy, thetas, statistics, generation=3)
    seeds = envs.derived_seeds(4, "generation 3", 2)
    env = gymnasium.make("CartPole-v1")
    for p in range(6):
        for k in range(2):
            obs, _ = env.reset(seed=seeds[k])
            total, done = 0.0, False
            while not done:
                seen = statistics.normalise(torch.tensor(obs)[None])
                action = int(policy(whole_theta(policy, thetas[p]), seen).mode())
                obs, reward, terminated, truncated, _ = env.step(action)
                total, done = total + float(reward), terminated or truncated
            assert found.returns[p, k] == total
            assert found.lengths[p, k] == total
    assert found.num_steps == found.lengths.sum() == len(found.raw_obs)
    population.close()


@pytest.mark.parametrize("task", ["cartpole", "hopper"])
def test_who_plays_where_changes_no_return(task: str) -> None:
    found = []
    for settings in ({"num_envs": 1}, {"num_envs": 5, "threads": 2}, {"num_envs": 64, "threads": 3}):
        population = sampler(task, **{"threads": 1, **settings})
        policy = policy_for(population.envs[0], preset(task, hidden=(8,)))
        thetas = 0.3 * normal(0, 6, num_searched(policy))
        obs_dim = population.envs[0].single_observation_space.shape[0]
        found.append(population.play(policy, thetas, RunningMoments.empty(obs_dim), generation=0))
        population.close()
    for other in found[1:]:
        assert torch.equal(other.lengths, found[0].lengths)
        assert torch.equal(other.returns, found[0].returns)
        assert sorted(other.raw_obs.tolist()) == sorted(found[0].raw_obs.tolist())


def test_all_begin_in_the_same_states_and_every_generation_in_new_ones() -> None:
    population = sampler("barto-cartpole")
    policy = policy_for(population.envs[0], preset("barto-cartpole"))
    thetas = normal(0, 1, num_searched(policy)).expand(6, -1)
    first, again, later = (population.play(policy, thetas, RunningMoments.empty(4), g) for g in (0, 0, 1))
    assert torch.equal(first.returns, again.returns)
    assert len(first.raw_obs[:8].unique(dim=0)) == 2  # the first steps of 8 copies, which play two episodes of four
    assert torch.equal(first.returns, first.returns[:1].expand(6, -1))
    assert not torch.equal(first.raw_obs[:8], later.raw_obs[:8])
    population.close()
