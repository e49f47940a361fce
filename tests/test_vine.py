"""Vine sampling: where branches begin, what they share, where they end, and what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from helpers import PROPERTY, mutant, normal, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons import mdp, vine
from trpo_lessons.distributions import Distribution
from trpo_lessons.envs import RestorableVectorEnv, State, make
from trpo_lessons.envs.tabular import TabularVectorEnv
from trpo_lessons.policies import CategoricalHead, GaussianHead, Layer, Policy, linear_policy
from trpo_lessons.single_path import RunningMoments, for_environment, sample_single_path
from trpo_lessons.trpo import trpo_update
from trpo_lessons.vine import (
    Rollouts,
    Vine,
    branch_noise,
    choose_states,
    every_action,
    from_the_policy,
    roll_out,
    rows_of,
    sample_vine,
    self_normalised_surrogate,
)

GAMMA = 0.9


class Fuse(RestorableVectorEnv):
    """A fuse of length 2 to 12 burns down by 1, or by 2 under action 2; at 0 the episode is over, a limit cuts it at 6.

    A step pays 10 (episodes begun) + a + luck, where luck is a random number of the environment; observations are
    (fuse, steps, episodes begun).
    """

    def __init__(self, num_envs: int, luck: float = 1.0) -> None:
        box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        super().__init__("fuse", num_envs, box, spaces.Discrete(3), max_episode_steps=6)
        self._rows, self._luck, self.counted = np.zeros((num_envs, 3)), luck, 0

    def _physics(self) -> State:
        return {"rows": self._rows}

    def _reset_rows(self, rows: np.ndarray) -> None:
        for row in rows:
            self._rows[row] = (self._generators[row].integers(2, 13), 0.0, self._rows[row, 2] + 1)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.counted += self.num_envs
        luck = [generator.random() for generator in self._generators]
        rewards = 10 * self._rows[:, 2] + actions + self._luck * np.array(luck)
        self._rows[:, 0] -= 1 + (actions == 2)
        self._rows[:, 1] += 1
        return self._observe(), rewards, self._rows[:, 0] <= 0

    def _observe(self) -> np.ndarray:
        return self._rows.copy()


def tabular(num_envs: int) -> TabularVectorEnv:
    return TabularVectorEnv(mdp.garnet(5, 3, branching=2, gamma=GAMMA, seed=1), num_envs, max_episode_steps=15)


def falling_cartpole(num_envs: int) -> RestorableVectorEnv:
    return make("cartpole", num_envs)  # type: ignore[return-value]


ENVS: dict[str, Callable[[int], RestorableVectorEnv]] = {
    "fuse": Fuse,
    "tabular": tabular,
    "cartpole": falling_cartpole,
    "barto-cartpole": lambda num_envs: make("barto-cartpole", num_envs),  # type: ignore[dict-item,return-value]
    "hopper": lambda num_envs: make("hopper", num_envs, threads=1),  # type: ignore[dict-item,return-value]
}
CHEAP = ["fuse", "tabular", "cartpole", "barto-cartpole"]


def policy_for(env: RestorableVectorEnv, seed: int = 0) -> tuple[Policy, Tensor]:
    """A linear policy. A matrix product may round a row differently in another place; here each row is on its own."""
    space, obs_dim = env.single_action_space, env.observation_space.shape[1]
    head = CategoricalHead(int(space.n)) if isinstance(space, spaces.Discrete) else GaussianHead(space.shape[0])
    row_by_row = Layer(lambda x, w, b: (x[:, None] * w).sum(-1) + b, ((head.num_inputs, obs_dim), (head.num_inputs,)))
    policy = Policy([row_by_row], head)
    return policy, 0.3 * normal(seed, policy.num_parameters)


class Raw(RunningMoments):
    """Observations as they are, in float64."""

    def normalise(self, obs: Tensor) -> Tensor:
        return obs


RAW = Raw.empty(1)


def grow(name: str = "fuse", *, num_envs: int = 3, width: int = 7, seed: int = 0, **settings: Any) -> Vine:
    trunk_env, branch_env = (
        settings.pop("trunk_env", ENVS[name](num_envs)),
        settings.pop("branch_env", ENVS[name](width)),
    )
    policy, theta = policy_for(trunk_env)
    raw_obs = torch.tensor(trunk_env.reset(seed=seed)[0])
    settings = {
        "trunk_steps": 12,
        "num_states": 8,
        "first_actions": from_the_policy(3),
        "rollout_length": 5,
        "gamma": GAMMA,
        "generator": seeded(seed),
        **settings,
    }
    return sample_vine(trunk_env, branch_env, policy, theta, RAW, raw_obs, **settings)


# ---- rollouts


def naive_roll_out(
    make_env: Callable[[int], RestorableVectorEnv],
    pi_old: Callable[[Tensor], Distribution],
    starts: State,
    first_actions: Tensor,
    noise: Tensor,
) -> list[tuple[float, int, bool, list[float]]]:
    """One rollout after the other, each alone in an environment of its own: return, length, terminated, last obs."""
    found = []
    for m, first in enumerate(first_actions):
        env, total = make_env(1), 0.0
        obs = env.restore_state({name: array[m : m + 1] for name, array in starts.items()})
        for t in range(len(noise)):
            action = first[None] if t == 0 else pi_old(torch.tensor(obs)).sample_from(noise[t, m][None])
            obs, rewards, terminated, truncated, infos = env.step(for_environment(action, env.single_action_space))
            total += GAMMA**t * rewards[0]
            if terminated[0] or truncated[0]:
                obs = infos["final_obs"]
                break
        found.append((total, t + 1, bool(terminated[0]), obs[0].tolist()))
    return found


def rollout_problem(name: str, count: int = 11, length: int = 8, seed: int = 0) -> tuple[Any, ...]:
    """Starts all over a path, first actions, noise."""
    env = ENVS[name](count)
    policy, theta = policy_for(env, seed)
    pi_old = policy.at(theta)
    obs, generator = torch.tensor(env.reset(seed=seed)[0]), seeded(seed)
    saved = []
    for _ in range(5):
        saved.append(env.save_state())
        actions = pi_old(obs).sample(generator)
        obs = torch.tensor(env.step(for_environment(actions, env.single_action_space))[0])
    starts = {key: np.stack([saved[m % 5][key][m] for m in range(count)]) for key in saved[0]}
    distribution = pi_old(obs)
    noise = torch.stack([distribution.noise(generator) for _ in range(length)])
    return pi_old, starts, distribution.sample(generator), noise


def check_roll_out(roll_out: Any, name: str, width: int, **settings: int) -> Rollouts:
    pi_old, starts, first_actions, noise = rollout_problem(name, **settings)
    env = ENVS[name](width)
    found = roll_out(env, pi_old, starts, first_actions, noise, GAMMA)
    expected = naive_roll_out(ENVS[name], pi_old, starts, first_actions, noise)
    for m, (total, length, terminated, last_obs) in enumerate(expected):
        assert (found.lengths[m], found.terminated[m]) == (length, terminated), m
        assert found.returns[m].item() == pytest.approx(total, rel=1e-12), m
        assert found.last_obs[m].tolist() == last_obs, m
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [1, 4, 11, 30])
@pytest.mark.parametrize("name", CHEAP)
def test_rollouts_side_by_side_are_rollouts_one_by_one(name: str, width: int) -> None:
    found = check_roll_out(roll_out, name, width)
    assert found.num_steps % width == 0


def test_rollouts_of_a_hopper_are_rollouts_one_by_one() -> None:
    check_roll_out(roll_out, "hopper", width=5, count=7, length=6)


def test_rollouts_end_in_all_three_ways() -> None:
    found = check_roll_out(roll_out, "fuse", width=4, count=60, length=4)
    last = found.last_obs
    assert found.terminated.any()
    assert ((last[:, 1] == 6) & ~found.terminated).any()  # the time limit
    assert ((found.lengths == 4) & (last[:, 1] < 6) & ~found.terminated).any()  # the rollout's own limit
    assert (found.lengths < 4).any()


IDLE_COUNTED = "np.add.at(returns, rollout, gamma**age * rewards)"
MISTAKES = {
    "the next episode's rewards are counted": ("(terminated | truncated | (age == length))", "(age == length)"),
    "a time limit taken for a termination": ("= age[ended], terminated[ended]", "= age[ended], (age < length)[ended]"),
    "the last observation is the next episode's": ("_before_reset(copies.obs, infos)[ended]", "copies.obs[ended]"),
    "the first action is forgotten": ("actions[age == 0] =", "_ ="),
    "discounted from the wrong step": ("(gamma**age * rewards)", "(gamma ** (age + 1) * rewards)"),
    "a rollout goes on with an old age": ("self.age[ended], self.busy[ended] = 0,", "_, self.busy[ended] = 0,"),
    "another rollout's random numbers": ("noise[age, rollout]", "noise[age, 0 * rollout]"),
    "idle copies are counted in": ("returns[rollout[busy]] += (gamma**age * rewards)[busy]", IDLE_COUNTED),
    "the waiting start elsewhere": ("self._starts, self.rollout[which]), which", "self._starts, which), which"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_rollout_would_be_noticed(mistake: str) -> None:
    broken = mutant(vine, MISTAKES[mistake]).roll_out
    for width in (4, 30):
        try:
            check_roll_out(broken, "fuse", width, count=20, length=5)
        except (AssertionError, IndexError):
            return
    pytest.fail("it was not noticed")


@PROPERTY
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 7), st.integers(0, 100))
def test_every_step_is_counted_and_none_is_wasted_while_a_rollout_waits(
    width: int, count: int, length: int, seed: int
) -> None:
    pi_old, starts, first_actions, noise = rollout_problem("fuse", count, length, seed)
    env = Fuse(width)
    found = roll_out(env, pi_old, starts, first_actions, noise, GAMMA)
    assert found.num_steps == env.counted
    assert ((found.lengths >= 1) & (found.lengths <= length)).all()
    # Idling begins when nothing waits any more, and lasts no longer than one rollout.
    idle = found.num_steps - found.lengths.sum()
    assert 0 <= idle <= width * length


# ---- the trunk and the states


@pytest.mark.parametrize("name", CHEAP)
def test_the_trunk_is_the_single_path(name: str) -> None:
    grown = grow(name, num_states=8)
    env, generator = ENVS[name](3), seeded(0)
    policy, theta = policy_for(env)
    choose_states(12, 3, 8, generator)  # drawn first
    path = sample_single_path(env, policy, theta, RAW, torch.tensor(env.reset(seed=0)[0]), 12, generator)
    for column in ("raw_obs", "obs", "actions", "log_q", "rewards", "terminated", "truncated", "final_obs", "next_obs"):
        assert torch.equal(getattr(grown.trunk, column), getattr(path, column)), column
    assert grown.trunk.episode_returns == path.episode_returns
    assert grown.trunk.episode_lengths == path.episode_lengths
    assert torch.equal(grown.states.obs, path.batch(torch.zeros(12, 3)).obs)


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
    sample_single_path(policy_env, policy, theta, RAW, torch.tensor(policy_env.reset(seed=0)[0]), 12, generator)
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
    torch.testing.assert_close(grown.rollout_set.log_prob(policy, theta), grown.log_pi_old)
    torch.testing.assert_close(grown.rollout_set.log_q, grown.log_pi_old)
    if name == "fuse":
        grown = grow(name, first_actions=every_action)
        assert grown.rollout_set.actions.tolist() == [[0, 1, 2]] * 8
        torch.testing.assert_close(grown.log_pi_old.exp().sum(1), torch.ones(8, dtype=torch.float64))
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
    expected = GAMMA**lengths * (1000 + last[:, 1])
    torch.testing.assert_close(added[~terminated], expected[~terminated], rtol=1e-9, atol=1e-9)


def test_the_value_sees_normalised_observations() -> None:
    env, statistics = Fuse(3), RunningMoments.empty(3).including(normal(0, 50, 3) * 3 + 2)
    policy, theta = linear_policy(3, CategoricalHead(3)), torch.zeros(12)
    seen: list[Tensor] = []

    def value(obs: Tensor) -> Tensor:
        seen.append(obs)
        return obs[:, 0]

    raw_obs = torch.tensor(env.reset(seed=0)[0])
    settings: dict[str, Any] = {"trunk_steps": 4, "num_states": 3, "first_actions": every_action, "gamma": GAMMA}
    settings |= {"rollout_length": 1, "generator": seeded(0), "value": value}
    grown = sample_vine(env, Fuse(9), policy, theta, statistics, raw_obs, **settings)
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
    assert grown.lengths.sum() <= grown.branch_steps
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
    assert grown.problem == f"{problem} is not finite"
    assert branch_env.counted == grown.branch_steps == 0
    assert grown.rollout_set.q_values.isnan().all()
    assert grown.num_steps == 36


@pytest.mark.parametrize("where", ["reward", "state"])
def test_a_branch_that_is_not_finite_is_named_and_never_reaches_theta(where: str) -> None:
    grown = grow(branch_env=Breaks(24, 1, where))
    assert grown.trunk.problem == ""
    assert grown.problem == "a Q-value is not finite"
    assert grown.rollout_set.q_values.isnan().sum() == 1
    policy, theta = policy_for(Fuse(1))
    new, report = trpo_update(
        policy, theta, grown.rollout_set, surrogate=self_normalised_surrogate, states=grown.states
    )
    assert report.reason == "the surrogate or its gradient is not finite"
    assert torch.equal(new, theta)


def test_finite_samples_have_no_problem_and_move_theta() -> None:
    grown = grow(num_states=30)
    assert grown.problem == ""
    policy, theta = policy_for(Fuse(1))
    new, report = trpo_update(
        policy, theta, grown.rollout_set, surrogate=self_normalised_surrogate, states=grown.states
    )
    assert report.accepted
    assert not torch.equal(new, theta)


def test_rows_of_a_state_can_be_repeated() -> None:
    state = {"a": np.arange(6).reshape(3, 2), "b": np.arange(3.0)}
    picked = rows_of(state, np.array([2, 2, 0]))
    assert picked["a"].tolist() == [[4, 5], [4, 5], [0, 1]]
    assert picked["b"].tolist() == [2.0, 2.0, 0.0]
    assert replace(grow(rollout_length=1), branch_steps=5).num_steps == 41
