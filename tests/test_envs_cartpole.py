"""Both cart-poles: the contract, Gymnasium's numbers, and the mechanics that they claim to be."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from test_envs_contract import RestorableContract

from trpo_lessons.envs import make
from trpo_lessons.envs.cartpole import CartPoleConstants, euler_step


class TestCartPole(RestorableContract):
    task = "cartpole"


class TestBartoCartPole(RestorableContract):
    task = "barto-cartpole"


def balancing_actions(obs):
    """Push towards the side the pole falls to: keeps it up for 500 steps from most starts."""
    return (obs[:, 2] + 0.3 * obs[:, 3] + 0.02 * obs[:, 0] + 0.05 * obs[:, 1] > 0).astype(np.int64)


@pytest.mark.parametrize("policy", ["random", "balancing"])
def test_whole_seeded_episodes_are_gymnasiums_to_the_bit(policy):
    num_envs, steps = 6, 520
    ours = make("cartpole", num_envs)
    theirs = RecordEpisodeStatistics(
        SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    )
    rng = np.random.default_rng(0)
    obs, _ = ours.reset(seed=11)
    np.testing.assert_array_equal(obs, theirs.reset(seed=11)[0])
    kinds = set()
    for _ in range(steps):
        actions = balancing_actions(obs) if policy == "balancing" else rng.integers(0, 2, size=num_envs)
        obs, rewards, terminated, truncated, infos = ours.step(actions)
        expected_obs, *expected, expected_infos = theirs.step(actions)
        np.testing.assert_array_equal(obs, expected_obs)
        for got, want in zip((rewards, terminated, truncated), expected, strict=True):
            np.testing.assert_array_equal(got, want)
        for row in np.flatnonzero(terminated | truncated):
            kinds.add((bool(terminated[row]), bool(truncated[row])))
            np.testing.assert_array_equal(infos["final_obs"][row], expected_infos["final_obs"][row])
            assert infos["episode"]["r"][row] == expected_infos["episode"]["r"][row]
            assert infos["episode"]["l"][row] == expected_infos["episode"]["l"][row]
    assert (False, True) in kinds if policy == "balancing" else (True, False) in kinds


def energy(state, c):
    """Kinetic and potential energy of a cart with a uniform rod on it, in joules, from the positions of its masses.

    The rod's centre moves with (dx + l dangle cos, -l dangle sin); a rod of half length l has moment of inertia m l²/3.
    """
    _, x_dot, angle, angle_dot = state.T
    rod_x_dot = x_dot + c.half_length * angle_dot * np.cos(angle)
    rod_y_dot = -c.half_length * angle_dot * np.sin(angle)
    kinetic = 0.5 * c.cart_mass * x_dot**2 + 0.5 * c.pole_mass * (rod_x_dot**2 + rod_y_dot**2)
    kinetic += 0.5 * (c.pole_mass * c.half_length**2 / 3) * angle_dot**2
    return kinetic + c.pole_mass * c.gravity * c.half_length * np.cos(angle)


def test_energy_changes_by_the_work_of_the_force():
    constants = CartPoleConstants(time_step=1e-5)
    rng = np.random.default_rng(1)
    state = rng.uniform(-1, 1, size=(20, 4))
    force = rng.uniform(-10, 10, size=20)
    start, x_start = energy(state, constants), state[:, 0]
    for _ in range(5000):
        state = euler_step(state, force, constants)
    work = force * (state[:, 0] - x_start)
    assert np.abs(work).max() > 0.1  # so that a wrong sign would show
    np.testing.assert_allclose(energy(state, constants) - start, work, atol=2e-4)


def test_friction_only_takes_energy_away():
    free = CartPoleConstants(time_step=1e-4)
    state = np.random.default_rng(2).uniform(-1, 1, size=(20, 4))
    for friction in ({"cart_friction": 0.5}, {"hinge_friction": 0.01}):
        rubbing, sliding = state, state
        constants = CartPoleConstants(time_step=1e-4, **friction)
        for _ in range(500):
            rubbing, sliding = euler_step(rubbing, np.zeros(20), constants), euler_step(sliding, np.zeros(20), free)
        assert (energy(rubbing, constants) < energy(sliding, free)).all()


def test_a_force_of_ten_newtons_without_friction_is_cartpole():
    """The continuous cart-pole pushed with +-10 N differs from CartPole-v1 by friction and rounding alone."""
    pushed, barto = make("cartpole", 30, seed=4), make("barto-cartpole", 30, seed=4)
    pushed.reset()
    barto.reset()
    rng = np.random.default_rng(0)
    for _ in range(8):
        actions = rng.integers(0, 2, size=30)
        expected = pushed.step(actions)[0]
        obs = barto.step(np.where(actions == 1, 10.0, -10.0)[:, None])[0]
    np.testing.assert_allclose(obs, expected, atol=1e-3)
    assert not np.allclose(obs, expected, atol=1e-6)


def test_forces_beyond_ten_newtons_are_clipped():
    env = make("barto-cartpole", 4, seed=0)
    env.reset()
    state = env.save_state()
    hard = env.step(np.array([[50.0], [10.0], [-10.0], [-1e9]]))[0]
    env.restore_state(state)
    np.testing.assert_array_equal(hard, env.step(np.array([[10.0], [10.0], [-10.0], [-10.0]]))[0])


@pytest.mark.parametrize("task", ["cartpole", "barto-cartpole"])
@pytest.mark.parametrize(("column", "limit"), [(0, 2.4), (2, np.radians(12))])
def test_an_episode_ends_beyond_the_track_or_twelve_degrees(task, column, limit):
    env = make(task, 4, seed=0)
    env.reset()
    state = env.save_state()
    state["cart_pole"][:] = 0.0
    state["cart_pole"][:, column] = np.array([-1.001, -0.999, 0.999, 1.001]) * limit
    env.restore_state(state)
    _, rewards, terminated, _, _ = env.step(env.action_space.sample())
    assert terminated.tolist() == [True, False, False, True]
    assert rewards.tolist() == [1.0] * 4
