"""The robots: the contract, and the same numbers as Gymnasium's v5 environments."""

import copy
import warnings

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from test_envs_contract import RestorableContract

from trpo_lessons.envs import make
from trpo_lessons.envs.mujoco import ROBOTS

GYMNASIUM_IDS = {
    "swimmer": "Swimmer-v5",
    "hopper": "Hopper-v5",
    "walker": "Walker2d-v5",
    "halfcheetah": "HalfCheetah-v5",
}
FALLING = ("hopper", "walker")


@pytest.fixture(autouse=True)
def _no_log_file(tmp_path, monkeypatch):
    """Gymnasium's half_cheetah.xml makes MuJoCo write a warning to a file in the working directory."""
    monkeypatch.chdir(tmp_path)


class TestSwimmer(RestorableContract):
    task = "swimmer"


class TestHopper(RestorableContract):
    task = "hopper"


class TestWalker(RestorableContract):
    task = "walker"


class TestHalfCheetah(RestorableContract):
    task = "halfcheetah"


def white_noise(rng, steps, shape):
    return rng.uniform(-1, 1, size=(steps, *shape))


def slow_noise(rng, steps, shape):
    """An autoregressive process with a memory of ten steps, which sometimes leaves the range of the motors."""
    noise = rng.normal(size=(steps, *shape))
    for t in range(1, steps):
        noise[t] = 0.9 * noise[t - 1] + np.sqrt(1 - 0.9**2) * noise[t]
    return 0.4 * noise


def gymnasium_vector(task, num_envs, **settings):
    def build():
        return gymnasium.make(GYMNASIUM_IDS[task], **settings)

    return RecordEpisodeStatistics(SyncVectorEnv([build] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("policy", [white_noise, slow_noise])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("task", GYMNASIUM_IDS)
def test_seeded_runs_are_gymnasiums_to_the_bit(task, policy, dtype):
    num_envs, steps = 4, 150
    ours, theirs = make(task, num_envs, threads=2), gymnasium_vector(task, num_envs)
    actions = policy(np.random.default_rng(5), steps, ours.action_space.shape).astype(dtype)
    np.testing.assert_array_equal(ours.reset(seed=11)[0], theirs.reset(seed=11)[0])
    ended = 0
    for action in actions:
        obs, *got, infos = ours.step(action)
        expected_obs, *expected, expected_infos = theirs.step(action)
        np.testing.assert_array_equal(obs, expected_obs)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        done = got[1] | got[2]
        ended += done.sum()
        for row in np.flatnonzero(done):
            np.testing.assert_array_equal(infos["final_obs"][row], expected_infos["final_obs"][row])
            assert infos["episode"]["r"][row] == expected_infos["episode"]["r"][row]
            assert infos["episode"]["l"][row] == expected_infos["episode"]["l"][row]
    assert (ended > 0) == (task in FALLING)


def placed(single, qpos, qvel):
    """Put one Gymnasium environment into a state, as its own reset does."""
    single.reset(seed=0)
    single.unwrapped.set_state(qpos, qvel)
    return single


def act(weights, obs):
    """A linear policy for each copy: weights [E, obs_dim, nu], obs [E, obs_dim], torques [E, nu] in (-1, 1)."""
    return np.tanh(np.einsum("eoa,eo->ea", weights, obs))


def best_of_64_linear_policies(task, steps=100):
    """Weights [obs_dim, nu], and the returns [64] that they were chosen by; 64 copies try one policy each."""
    env = make(task, 64, seed=0, threads=1)
    obs, _ = env.reset()
    weights = 0.3 * np.random.default_rng(0).normal(size=(*obs.shape, env.model.nu))
    returns, running = np.zeros(64), np.ones(64, dtype=bool)
    for _ in range(steps):
        obs, rewards, terminated, _, _ = env.step(act(weights, obs))
        returns += rewards * running
        running &= ~terminated
    return weights[returns.argmax()], returns


def visited_states(task, weights, steps=50, num_envs=12):
    """What white noise and then a policy visit: a saved state of 2 * steps * num_envs copies."""
    env = make(task, num_envs, seed=2, threads=1)
    rng = np.random.default_rng(3)
    noise = white_noise(rng, steps, env.action_space.shape)
    saved = []
    for exploring in (True, False):
        obs, _ = env.reset()
        for t in range(steps):
            obs = env.step(noise[t] if exploring else act(weights[None], obs) + 0.1 * noise[t])[0]
            saved.append(env.save_state())
    return {name: np.concatenate([state[name] for state in saved]) for name in saved[0]}


def compare_one_step(task, state, actions):
    """One step of every saved row, and of a Gymnasium environment placed there; returns `terminated`."""
    env = make(task, len(actions), threads=1)
    env.restore_state(state)
    qpos, qvel = env.batch.bind("qpos").copy(), env.batch.bind("qvel").copy()
    obs, rewards, terminated, _, infos = env.step(actions)
    obs = infos.get("final_obs", obs)
    single = gymnasium.make(GYMNASIUM_IDS[task])
    for row, action in enumerate(actions):
        expected = placed(single, qpos[row], qvel[row]).step(action)
        np.testing.assert_allclose(obs[row], expected[0], rtol=0, atol=1e-8)
        np.testing.assert_allclose(rewards[row], expected[1], rtol=0, atol=1e-8)
        assert terminated[row] == expected[2]
    return terminated


@pytest.mark.parametrize("task", GYMNASIUM_IDS)
def test_one_step_from_a_visited_state_agrees_with_gymnasium(task):
    weights, returns = best_of_64_linear_policies(task)
    assert returns.max() > np.median(returns) + 10
    state = visited_states(task, weights)
    count = len(state["elapsed_steps"])
    assert count >= 1000
    assert len(np.unique(state["integration_state"][:, 1:5], axis=0)) == count
    shape = (count, make(task, 1, threads=1).model.nu)
    compare_one_step(task, state, np.random.default_rng(4).normal(size=shape))


def beside_the_limits(task):
    """Rows whose height or angle is within a hair of where the robot counts as fallen, on either side."""
    env = make(task, 400, seed=6, threads=1)
    env.reset()
    state = env.save_state()
    rng = np.random.default_rng(7)
    qpos, qvel = state["integration_state"][:, 1:], state["integration_state"][:, 1 + env.model.nq :]
    coordinates = {"hopper": [(1, 0.7), (2, 0.2), (2, -0.2)], "walker": [(1, 0.8), (1, 2.0), (2, 1.0), (2, -1.0)]}[task]
    for row in range(env.num_envs):
        column, limit = coordinates[row % len(coordinates)]
        qpos[row, column] = limit + rng.uniform(-0.02, 0.02)
        qvel[row, column] = rng.uniform(-2, 2)
    return state


@pytest.mark.parametrize("task", FALLING)
def test_one_step_beside_the_health_limits_agrees_with_gymnasium(task):
    state = beside_the_limits(task)
    shape = (len(state["elapsed_steps"]), make(task, 1, threads=1).model.nu)
    terminated = compare_one_step(task, state, np.random.default_rng(8).uniform(-1, 1, size=shape))
    assert 0.2 < terminated.mean() < 0.8


def test_a_hopper_that_moves_too_fast_is_unhealthy_in_both():
    env = make("hopper", 40, seed=0, threads=1)
    env.reset()
    state = env.save_state()
    speeds = np.linspace(90, 130, 40)
    state["integration_state"][:, 1 + env.model.nq + 5] = speeds  # the foot joint; its limit is 100
    terminated = compare_one_step("hopper", state, np.zeros((40, 3)))
    assert 0 < terminated.sum() < 40


@pytest.mark.parametrize("task", GYMNASIUM_IDS)
def test_truncation_after_1000_steps_as_in_gymnasium(task):
    assert make(task, 1).max_episode_steps == gymnasium.spec(GYMNASIUM_IDS[task]).max_episode_steps == 1000


@pytest.mark.parametrize("task", ["hopper", "halfcheetah"])
def test_the_number_of_threads_changes_nothing(task):
    futures = []
    for threads in (1, 2, 3):
        env = make(task, 7, seed=1, threads=threads)
        trajectory = [env.reset()[0]]
        for action in slow_noise(np.random.default_rng(1), 40, env.action_space.shape):
            trajectory += env.step(action)[:2]
        futures.append(trajectory)
    for trajectory in futures[1:]:
        for one, other in zip(futures[0], trajectory, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_state_holds_the_warm_start():
    """A cold solver gives slightly other numbers, so a state without the warm start would not continue to the bit."""
    env = make("hopper", 4, seed=1, threads=1)
    env.reset()
    actions = slow_noise(np.random.default_rng(1), 60, env.action_space.shape)
    for action in actions[:-1]:
        env.step(action)
    state = env.save_state()
    warm = env.step(actions[-1])[0]
    start = mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
    cold_state = {**state, "integration_state": state["integration_state"].copy()}
    cold_state["integration_state"][:, start : start + env.model.nv] = 0.0
    env.restore_state(cold_state)
    cold = env.step(actions[-1])[0]
    assert not np.array_equal(warm, cold)
    np.testing.assert_allclose(warm, cold, atol=1e-8)


@pytest.mark.parametrize("task", GYMNASIUM_IDS)
def test_the_control_cost_setting_is_gymnasiums(task):
    ours, theirs = make(task, 3, control_cost=1e-5, threads=1), gymnasium_vector(task, 3, ctrl_cost_weight=1e-5)
    default = make(task, 3, threads=1)
    for env in (ours, theirs, default):
        env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, size=(3, ours.model.nu)).astype(np.float32)
    rewards = ours.step(actions)[1]
    np.testing.assert_array_equal(rewards, theirs.step(actions)[1])
    saved = (ROBOTS[task].control_cost - 1e-5) * np.square(actions).sum(axis=1)
    np.testing.assert_allclose(rewards - default.step(actions)[1], saved, rtol=1e-4)


def peak_foot_forces(env, row, action):
    """The naive twin of the touch sensors: step one MjData, and before each step ask every contact for its force."""
    data, peaks = mujoco.MjData(env.model), np.zeros(2)
    mujoco.mj_setState(env.model, data, row, mujoco.mjtState.mjSTATE_INTEGRATION.value)
    data.ctrl[:] = action
    feet = [env.model.body(name).id for name in ("foot", "foot_left")]
    for _ in range(env.robot.frame_skip):
        probe, forces, wrench = copy.copy(data), np.zeros(2), np.zeros(6)
        mujoco.mj_forward(env.model, probe)
        for index, contact in enumerate(probe.contact):
            mujoco.mj_contactForce(env.model, probe, index, wrench)
            forces += wrench[0] * np.isin(feet, env.model.geom_bodyid[contact.geom])
        peaks = np.maximum(peaks, forces)
        mujoco.mj_step(env.model, data)
    return peaks


def test_impact_cost_is_the_squared_peak_force_on_each_foot_and_changes_nothing_else():
    plain, env = (make("walker", 5, seed=0, threads=1, **setting) for setting in ({}, {"impact_cost": 0.25}))
    plain.reset()
    env.reset()
    weight = env.model.body_mass.sum() * 9.81
    both_feet = 0
    for action in slow_noise(np.random.default_rng(2), 60, env.action_space.shape):
        rows = env.save_state()["integration_state"]
        obs, rewards, *rest, _ = env.step(action)
        plain_obs, plain_rewards, *plain_rest, _ = plain.step(action)
        np.testing.assert_array_equal(obs, plain_obs)
        np.testing.assert_array_equal(rest, plain_rest)
        forces = np.stack([peak_foot_forces(env, row, torques) for row, torques in zip(rows, action, strict=True)])
        cost = 0.25 * np.square(forces / weight).sum(axis=1)
        np.testing.assert_allclose(plain_rewards - rewards, cost, rtol=1e-6, atol=1e-9)
        both_feet += (forces > 0).all(axis=1).sum()
    assert both_feet > 20


def test_a_state_goes_from_a_walker_with_to_one_without_the_impact_cost():
    plain, env = make("walker", 3, seed=0, threads=1), make("walker", 3, seed=9, threads=1, impact_cost=0.1)
    plain.reset()
    np.testing.assert_array_equal(env.restore_state(plain.save_state()), plain.restore_state(plain.save_state()))


@pytest.mark.parametrize("setting", ["control_cost", "impact_cost"])
@pytest.mark.parametrize("value", [-1e-3, np.nan, np.inf])
def test_costs_out_of_range_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be 0 or more, not {value}"):
        make("walker", 2, threads=1, **{setting: value})


def test_a_state_of_a_robot_with_the_same_shapes_is_refused():
    walker, cheetah = make("walker", 2, threads=1), make("halfcheetah", 2, threads=1)
    walker.reset(seed=0)
    cheetah.reset(seed=0)
    with pytest.raises(ValueError, match="this state was saved by another task than walker"):
        walker.restore_state(cheetah.save_state())


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="threads must be 1 or more, not 0"):
        make("hopper", 2, threads=0)


def test_loading_a_model_is_silent(capfd, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("halfcheetah", 1, threads=1)
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())
