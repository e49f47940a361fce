"""Single-path sampling in an environment whose every number is known in advance."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from helpers import PROPERTY, normal, seeded
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons.advantages import gae
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.spaces import action_scale
from trpo_lessons.policies import CategoricalHead, FactoredHead, GaussianHead, Head, Policy, linear_policy, mlp_policy
from trpo_lessons.single_path import Actor, SinglePath, by_environment, for_environment, sample_single_path
from trpo_lessons.surrogate import importance_ratios
from trpo_lessons.value_function import values_along

ACTION_SPACES = {
    "continuous": gym.spaces.Box(np.array([-0.5, -1.0], np.float32), np.array([0.5, 2.0], np.float32)),
    "discrete": gym.spaces.Discrete(3),
    "joystick": gym.spaces.MultiDiscrete([3, 2]),
}
POLICIES: dict[str, Head] = {
    "continuous": GaussianHead(2),
    "discrete": CategoricalHead(3),
    "joystick": FactoredHead((3, 2)),
}


class Clockwork(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Observations tell where they come from: (copy, episode, step in the episode), plus a trace of the last action.

    Copy e's episode k lasts 3 + (e + k) % 4 steps; it is terminated when e + k is even, else truncated. The reward of a
    step is 100 e + 10 k + the step it was taken at. Buffers are reused, as fast simulators do.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, actions: str = "discrete", *, statistics_in_infos: bool = True) -> None:
        self.num_envs, self.statistics_in_infos = num_envs, statistics_in_infos
        self.single_action_space = ACTION_SPACES[actions]
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (4,))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.received: list[np.ndarray] = []
        self._obs, self._final = np.zeros((num_envs, 4)), np.zeros((num_envs, 4))

    @staticmethod
    def length(e: int, k: int) -> int:
        return 3 + (e + k) % 4

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._obs[:] = 0
        self._obs[:, 0] = range(self.num_envs)
        return self._obs, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        assert self.action_space.contains(actions), "an action outside the action space"
        self.received.append(np.array(actions))
        e, k, t = self._obs[:, :3].T.astype(int)
        rewards = 100.0 * e + 10.0 * k + t
        done = t + 1 == self.length(e, k)
        terminated, truncated = done & ((e + k) % 2 == 0), done & ((e + k) % 2 == 1)
        self._obs[:, 2] += 1
        self._obs[:, 3] = np.asarray(actions, float).reshape(self.num_envs, -1).sum(-1)
        if not done.any():
            return self._obs, rewards, terminated, truncated, {}
        self._final[:] = self._obs
        lengths = self.length(e, k)
        returns = (100.0 * e + 10.0 * k) * lengths + lengths * (lengths - 1) / 2
        self._obs[done, 1] += 1
        self._obs[done, 2:] = 0
        infos: dict[str, Any] = {"final_obs": self._final, "_final_obs": done}
        if self.statistics_in_infos:
            infos |= {"episode": {"r": returns, "l": lengths}, "_episode": done}
        return self._obs, rewards, terminated, truncated, infos


def sample(
    actions: str = "discrete",
    num_envs: int = 4,
    num_steps: int = 20,
    statistics: RunningMoments | None = None,
    seed: int = 0,
    **env_settings: Any,
) -> tuple[SinglePath, Clockwork, Policy, Tensor]:
    env = Clockwork(num_envs, actions, **env_settings)
    policy = linear_policy(4, POLICIES[actions])
    theta = 0.1 * normal(seed, policy.num_parameters, dtype=torch.float32)
    raw_obs = torch.tensor(env.reset()[0], dtype=torch.float64)
    statistics = statistics or RunningMoments.empty(4)
    path = sample_single_path(env, Actor(policy, theta, statistics), raw_obs, num_steps, seeded(seed + 1))
    return path, env, policy, theta


# ---- rows


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_every_row_is_one_real_transition(actions: str) -> None:
    path, env, _, _ = sample(actions)
    episode, clock = np.zeros(4, int), np.zeros(4, int)
    finals, returns, lengths = [], [], []
    for t in range(20):
        for e in range(4):
            k, length = episode[e], env.length(e, episode[e])
            action = np.asarray(env.received[t][e], float).sum()
            before = 0.0 if clock[e] == 0 else np.asarray(env.received[t - 1][e], float).sum()
            assert path.raw_obs[t, e].tolist() == pytest.approx([e, k, clock[e], before])
            assert path.rewards[t, e] == 100 * e + 10 * k + clock[e]
            ends = clock[e] + 1 == length
            assert path.terminated[t, e] == (ends and (e + k) % 2 == 0)
            assert path.truncated[t, e] == (ends and (e + k) % 2 == 1)
            if path.truncated[t, e]:
                finals.append([e, k, length, action])
            if ends:
                returns.append(sum(100 * e + 10 * k + i for i in range(length)))
                lengths.append(length)
            episode[e], clock[e] = (k + 1, 0) if ends else (k, clock[e] + 1)
    assert len(finals) > 5
    np.testing.assert_allclose(path.final_obs.numpy(), finals)
    assert path.episode_returns == pytest.approx(returns)
    assert path.episode_lengths == tuple(lengths)
    np.testing.assert_allclose(path.next_obs[:, :3].numpy(), np.stack([np.arange(4), episode, clock], axis=1))
    assert path.num_steps == 80
    assert path.flaw == ""


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_log_q_is_the_log_probability_of_the_recorded_action(actions: str) -> None:
    path, _, policy, theta = sample(actions)
    batch = path.batch(torch.zeros(20, 4))
    ratios = importance_ratios(policy(theta, batch.obs), batch)
    torch.testing.assert_close(ratios, torch.ones(80), rtol=1e-5, atol=0)
    assert not torch.equal(path.log_q, path.log_q[0].expand(20, 4))


def test_the_environment_gets_the_actions_that_were_recorded() -> None:
    for actions in ("discrete", "joystick"):
        path, env, _, _ = sample(actions)
        np.testing.assert_array_equal(path.actions.numpy(), np.stack(env.received))


def test_continuous_actions_are_scaled_and_clipped_on_their_way_to_the_environment_only() -> None:
    path, env, _, _ = sample("continuous")
    space = ACTION_SPACES["continuous"]
    drawn, received = path.actions.numpy(), np.stack(env.received)
    assert (drawn < -1).any()
    assert (drawn > 1).any()
    scaled = np.stack((0.5 * drawn[..., 0], 0.5 + 1.5 * drawn[..., 1]), axis=-1)
    np.testing.assert_array_equal(received, np.clip(scaled, space.low, space.high))


BOUNDS = [  # low, high, what -1, 0, 1 and 9 become
    (-1, 1, [-1, 0, 1, 1]),
    (5, 10, [5, 7.5, 10, 10]),
    (100, 200, [100, 150, 200, 200]),
    (-1e-3, 3e-3, [-1e-3, 1e-3, 3e-3, 3e-3]),
    (0, np.inf, [0, 0, 1, 9]),
    (-np.inf, 4, [-1, 0, 1, 4]),
    (-np.inf, np.inf, [-1, 0, 1, 9]),
    (-np.finfo(np.float32).max, np.finfo(np.float32).max, [-1, 0, 1, 9]),  # how some environments write "no bound"
    (2, 2, [2, 2, 2, 2]),
]


def test_bounded_components_are_spread_over_their_bounds_and_others_left_alone() -> None:
    low, high, expected = (np.array(column, dtype=np.float32) for column in zip(*BOUNDS, strict=True))
    drawn = torch.tensor([-1.0, 0, 1, 9])[:, None].expand(-1, len(BOUNDS))
    command = for_environment(drawn, gym.spaces.Box(low, high))
    np.testing.assert_allclose(command, expected.T, rtol=1e-6)
    assert command.dtype == np.float32
    wide = np.finfo(np.float64).max
    far = gym.spaces.Box(np.array([-wide, -1e30]), np.array([wide, 3e30]), dtype=np.float64)
    np.testing.assert_allclose(for_environment(torch.tensor([[0.5, 0.0]]), far), [[0.5, 1e30]], rtol=1e-6)


def test_in_a_box_from_minus_one_to_one_every_bit_stays() -> None:
    """The robots' boxes: what was recorded before actions were scaled holds."""
    space = gym.spaces.Box(-1, 1, (4,), np.float32)
    assert action_scale(space) is None
    drawn = torch.randn(1000, 4, generator=seeded(0))
    drawn[0] = torch.tensor([0.0, -0.0, math.inf, -math.inf])
    command = for_environment(drawn, space)
    np.testing.assert_array_equal(command.view(np.int32), np.clip(drawn.numpy(), -1, 1).view(np.int32))


def test_an_action_that_is_not_a_number_becomes_the_lower_bound_for_the_environment() -> None:
    command = for_environment(torch.tensor([[math.nan, 5.0], [math.inf, -math.inf]]), ACTION_SPACES["continuous"])
    np.testing.assert_array_equal(command, np.array([[-0.5, 2.0], [0.5, -1.0]], dtype=np.float32))
    assert command.dtype == np.float32


def test_the_same_generator_gives_the_same_path_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    (first, *_), (again, *_) = sample("continuous", seed=3), sample("continuous", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    for name in ("raw_obs", "obs", "actions", "log_q", "rewards", "final_obs", "next_obs"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name


def test_two_halves_make_the_whole() -> None:
    # Sampling goes on from next_obs: nothing is reset, lost or repeated between two calls.
    whole, *_ = sample(num_steps=20)
    env, policy = Clockwork(4), linear_policy(4, POLICIES["discrete"])
    theta, generator = 0.1 * normal(0, policy.num_parameters, dtype=torch.float32), seeded(1)
    raw_obs, parts = torch.tensor(env.reset()[0]), []
    for num_steps in (7, 13):
        part = sample_single_path(env, Actor(policy, theta, RunningMoments.empty(4)), raw_obs, num_steps, generator)
        raw_obs = part.next_obs
        parts.append(part)
    for name in ("raw_obs", "actions", "log_q", "rewards", "terminated", "truncated", "final_obs"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name)), name
    assert parts[0].episode_returns + parts[1].episode_returns == whole.episode_returns


def test_final_observations_do_not_hang_on_episode_statistics() -> None:
    path, *_ = sample()
    bare, *_ = sample(statistics_in_infos=False)
    assert torch.equal(bare.final_obs, path.final_obs)
    assert path.episode_returns != ()
    assert bare.episode_returns == ()


def test_a_path_without_a_truncated_episode_has_no_final_observations() -> None:
    path, *_ = sample(num_envs=1, num_steps=3)
    assert path.terminated[-1, 0]
    assert path.final_obs.shape == (0, 4)


# ---- the batch


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_the_batch_is_ordered_environment_by_environment(actions: str) -> None:
    path, *_ = sample(actions, num_envs=3, num_steps=5)
    advantages = normal(0, 5, 3)
    batch = path.batch(advantages)
    assert len(batch) == 15
    for row, (e, t) in enumerate((e, t) for e in range(3) for t in range(5)):
        assert torch.equal(batch.obs[row], path.obs[t, e])
        assert torch.equal(batch.actions[row], path.actions[t, e])
        assert batch.advantages[row] == advantages[t, e].float()
        assert batch.log_q[row] == path.log_q[t, e]
    assert torch.equal(by_environment(path.rewards), path.rewards.T.flatten())
    # So a stride thins each environment's path in time.
    assert batch[::5].obs[:, 0].tolist() == [0, 1, 2]
    assert batch[::5].obs[:, 2].tolist() == [0, 0, 0]


# ---- values along the path


def test_values_along_is_a_naive_loop_over_what_each_step_led_to() -> None:
    statistics = RunningMoments.empty(4).including(3 * normal(5, 50, 4) + 1)
    path, env, _, _ = sample(statistics=statistics)
    linear = normal(6, 4, dtype=torch.float32)

    def value(obs: Tensor) -> Tensor:
        assert obs.dtype == torch.float32
        return obs @ linear

    values, next_values = values_along(path, statistics, value)
    led_to = iter(path.final_obs)
    for t in range(20):
        for e in range(4):
            expected = value(statistics.normalise(path.raw_obs[t, e][None])).item()
            assert values[t, e].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
            if path.truncated[t, e]:
                after = next(led_to)
                assert after[0] == e
                assert after[2] == path.raw_obs[t, e, 2] + 1
            elif path.terminated[t, e]:
                continue
            else:
                after = path.next_obs[e] if t == 19 else path.raw_obs[t + 1, e]
            expected = value(statistics.normalise(after[None])).item()
            assert next_values[t, e].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def check_that_exact_values_leave_no_advantages(cut_is_the_end: bool) -> None:
    """Copy e's episode k pays 100 e + 10 k + t at step t, until it terminates or, if only a limit cuts it, for ever."""
    path, *_ = sample(num_envs=4, num_steps=23)

    def value(obs: Tensor) -> Tensor:
        e, k, t = obs[:, :3].double().T
        steps_left = torch.where((e + k) % 2 == 0, 3 + (e + k) % 4 - t, 400.0)
        return sum(0.9**i * (100 * e + 10 * k + t + i) * (i < steps_left) for i in range(400))

    values, next_values = values_along(path, RunningMoments.empty(4), value)
    terminated = path.terminated | (path.truncated & cut_is_the_end)
    advantages = gae(path.rewards, values, next_values, terminated, path.truncated, 0.9, 0.95)
    assert path.truncated.any()
    assert path.terminated.any()
    assert advantages.abs().max() < 1e-8 * values.abs().max()


def test_exact_values_leave_no_advantages() -> None:
    check_that_exact_values_leave_no_advantages(cut_is_the_end=False)


def test_time_limits_taken_for_terminations_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="< "):
        check_that_exact_values_leave_no_advantages(cut_is_the_end=True)


# ---- normalising observations


def test_observations_are_normalised_by_the_statistics_as_they_were() -> None:
    statistics = RunningMoments.empty(4).including(3 * normal(5, 50, 4) + 1)
    mean, deviations = statistics.mean.clone(), statistics.deviations.clone()
    path, *_ = sample(statistics=statistics)
    assert torch.equal(path.obs, statistics.normalise(path.raw_obs))
    assert torch.equal(statistics.mean, mean)
    assert torch.equal(statistics.deviations, deviations)
    assert path.obs.dtype == torch.float32
    assert path.raw_obs.dtype == path.rewards.dtype == torch.float64


parts_of_a_stream = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@PROPERTY
@given(parts_of_a_stream, st.integers(0, 10_000), st.floats(-1e4, 1e4), st.floats(1e-2, 1e3))
def test_running_moments_are_those_of_everything_at_once(
    sizes: list[int], seed: int, offset: float, scale: float
) -> None:
    parts = [offset + scale * normal(seed + i, size, 3) for i, size in enumerate(sizes)]
    moments = RunningMoments.empty(3)
    for part in parts:
        before = moments.mean.clone()
        later = moments.including(part)
        assert torch.equal(moments.mean, before), "the old moments moved"
        moments = later
    everything = torch.cat(parts).numpy()
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean.numpy(), everything.mean(0), rtol=1e-10, atol=1e-9 * scale)
    variance = (moments.deviations / moments.count).numpy()
    np.testing.assert_allclose(variance, everything.var(0), rtol=1e-6, atol=1e-9 * scale**2)


def test_the_statistics_take_in_every_row_of_a_path() -> None:
    path, *_ = sample()
    earlier = normal(3, 10, 4)
    found = path.statistics_after(RunningMoments.empty(4).including(earlier))
    rows = torch.cat([earlier, *path.raw_obs])
    assert found.count == len(rows) == 90
    torch.testing.assert_close(found.mean, rows.mean(0))
    torch.testing.assert_close(found.deviations, (rows - rows.mean(0)).square().sum(0))


def test_running_moments_keep_their_digits_far_from_zero() -> None:
    # E[x^2] - E[x]^2 would have lost them all: 1e8 squared leaves no room for a variance of 1 in float64.
    rows = 1e8 + normal(0, 1000, 2)
    moments = RunningMoments.empty(2)
    for part in rows.split(7):
        moments = moments.including(part)
    np.testing.assert_allclose((moments.deviations / 1000).numpy(), rows.numpy().var(0), rtol=1e-6)


def test_normalised_observations_have_mean_0_variance_1_and_are_clipped() -> None:
    rows = 5 + 3 * normal(0, 4000, 2)
    moments = RunningMoments.empty(2).including(rows)
    normalised = moments.normalise(rows)
    np.testing.assert_allclose(normalised.double().mean(0).numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(normalised.double().var(0, correction=0).numpy(), 1, atol=1e-5)
    extremes = moments.normalise(torch.tensor([[1e6, -1e6]]))
    assert extremes.tolist() == [[10.0, -10.0]]


def test_nothing_seen_changes_nothing_and_constants_become_zero() -> None:
    rows = normal(0, 6, 3)
    assert torch.equal(RunningMoments.empty(3).normalise(rows), rows.float())
    constant = RunningMoments.empty(3).including(torch.full((10, 3), 4.0))
    assert torch.equal(constant.normalise(torch.full((2, 3), 4.0)), torch.zeros(2, 3))


def test_statistics_that_move_before_the_update_would_be_noticed() -> None:
    # The ratios start at 1 only because the batch holds observations as the policy saw them.
    statistics = RunningMoments.empty(4).including(3 * normal(5, 50, 4) + 1)
    path, _, policy, theta = sample(statistics=statistics)
    batch = path.batch(torch.zeros(20, 4))
    moved = statistics.including(path.raw_obs.flatten(0, 1))
    refreshed = replace(batch, obs=by_environment(moved.normalise(path.raw_obs)))
    assert (importance_ratios(policy(theta, batch.obs), batch) - 1).abs().max() < 1e-5
    assert (importance_ratios(policy(theta, refreshed.obs), refreshed) - 1).abs().max() > 1e-2


# ---- problems


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("raw_obs", "an observation is not finite"),
        ("rewards", "a reward is not finite"),
        ("actions", "an action is not finite"),
        ("final_obs", "an observation after an episode is not finite"),
        ("next_obs", "the last observation is not finite"),
        ("log_q", "a log probability is not finite"),
    ],
)
def test_what_is_not_finite_is_named(column: str, message: str, bad: float) -> None:
    path, *_ = sample("continuous")
    assert path.flaw == ""
    spoiled = getattr(path, column).clone()
    spoiled[-1, 0] = bad
    assert replace(path, **{column: spoiled}).flaw == message


def test_an_environment_that_breaks_is_recorded_as_it_is() -> None:
    env, policy = Clockwork(2, "continuous"), mlp_policy(4, GaussianHead(2), (5,))
    honest_step = env.step

    def step(actions: np.ndarray) -> tuple[Any, ...]:
        obs, rewards, *rest = honest_step(actions)
        if len(env.received) == 3:
            obs = obs.copy()
            obs[1, 3] = math.nan
        return obs, rewards, *rest

    env.step = step  # type: ignore[method-assign]
    theta, raw_obs = policy.initial_theta(seeded(0)), torch.tensor(env.reset()[0])
    path = sample_single_path(env, Actor(policy, theta, RunningMoments.empty(4)), raw_obs, 6, seeded(1))
    assert math.isnan(path.raw_obs[3, 1, 3])
    assert path.flaw == "an observation is not finite"
    assert np.isfinite(np.stack(env.received)).all()
