"""A finite MDP as an environment: the contract, and frequencies that are those of the MDP."""

import numpy as np
import pytest
import torch
from test_envs_contract import RestorableContract

from trpo_lessons import mdp
from trpo_lessons.envs.tabular import TabularVectorEnv

GAME = "mdp.garnet(num_states=5, num_actions=3, branching=2, gamma=0.9, seed=1)"


def game_with_an_end(gamma=0.9):
    """Three states; the last cannot be left and pays nothing."""
    P = np.zeros((3, 2, 3))
    P[0], P[1] = [[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]], [[0.25, 0.25, 0.5], [0.75, 0.25, 0.0]]
    P[2, :, 2] = 1
    return mdp.TabularMDP(P, [[1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]], [0.5, 0.5, 0.0], gamma)


class TestTabular(RestorableContract):
    task = "tabular"
    source_of_make = (
        "from trpo_lessons import mdp\nfrom trpo_lessons.envs.tabular import TabularVectorEnv\n"
        f"def make(task, num_envs, threads):\n    return TabularVectorEnv({GAME}, num_envs)"
    )

    def make(self, num_envs=None, **kwargs):
        return TabularVectorEnv(eval(GAME), self.num_envs if num_envs is None else num_envs, **kwargs)

    def test_copy_i_is_seeded_with_seed_plus_i(self):
        # With so few states, first observations may coincide; what follows tells copies apart.
        obs, _ = self.make().reset(seed=7)
        alone = [self.make(1).reset(seed=7 + i)[0][0] for i in range(self.num_envs)]
        np.testing.assert_array_equal(obs, np.stack(alone))
        np.testing.assert_array_equal(obs, self.make().reset(seed=[7, 8, 9, 10, 11])[0])

    def test_reset_without_a_seed_goes_on_with_the_generators(self):
        env, twin = self.make(40), self.make(40)
        first, again = env.reset(seed=7)[0], twin.reset(seed=7)[0]
        second = env.reset()[0]
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(second, twin.reset()[0])

    def test_the_step_that_ends_an_episode_returns_the_first_observation_of_the_next(self):
        env, _ = self.started()
        twin, ended = self.make(), 0
        for action in self.actions(env):
            twin.restore_state(env.save_state())
            obs, _, _, truncated, _ = env.step(action)
            for generator in twin._generators:
                generator.random()  # the number that the step itself takes
            np.testing.assert_array_equal(obs[truncated], twin.reset()[0][truncated])
            ended += truncated.sum()
        assert ended >= self.num_envs

    def damaged_states(self, state):
        damaged = super().damaged_states(state)
        del damaged["not finite"]  # the only real numbers are returns, and these may be anything
        for name, number in (("no such state", 5), ("a negative state", -1)):
            damaged[name] = ({**state, "state": np.full_like(state["state"], number)}, "damaged: there are 5 states")
        return damaged

    def test_a_state_of_another_mdp_is_refused(self):
        env, other = self.make(), TabularVectorEnv(mdp.garnet(5, 3, 2, gamma=0.9, seed=2), self.num_envs)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="saved by another task"):
            other.restore_state(env.save_state())


def test_transitions_rewards_and_first_states_are_those_of_the_mdp():
    game, num_envs = eval(GAME), 20_000
    env = TabularVectorEnv(game, num_envs)
    first = env.reset(seed=0)[0].argmax(1)
    actions = np.arange(num_envs) % 3
    obs, rewards, terminated, _, _ = env.step(actions)
    np.testing.assert_array_equal(rewards, game.r.numpy()[first, actions])
    assert not terminated.any()
    frequencies = np.bincount(first, minlength=5) / num_envs
    assert np.abs(frequencies - game.rho0.numpy()).max() < 4 * np.sqrt(0.25 / num_envs)
    for state in range(5):
        for action in range(3):
            rows = (first == state) & (actions == action)
            probability = game.P[state, action].numpy()
            off = obs[rows].mean(0) - probability
            assert (np.abs(off) <= 4 * np.sqrt(probability * (1 - probability) / rows.sum())).all()


def test_copies_that_share_a_state_share_their_luck_whatever_they_do():
    env = TabularVectorEnv(eval(GAME), 60, seed=4)
    env.reset()
    repeated = np.repeat(np.arange(20), 3)
    env.restore_state({name: array[repeated] for name, array in env.save_state().items()})
    actions = np.tile([0, 1, 1], 20)
    for _ in range(6):
        obs, *_ = env.step(actions)
        by_start = obs.reshape(20, 3, 5)
        np.testing.assert_array_equal(by_start[:, 1], by_start[:, 2])
    assert not np.array_equal(by_start[:, 0], by_start[:, 1])
    # A step takes one number, whichever action: all three stand at the same place of the same sequence.
    generators = env.save_state()["generators"].reshape(20, 3, -1)
    np.testing.assert_array_equal(generators[:, 0], generators[:, 1])


def test_a_state_that_cannot_be_left_and_pays_nothing_ends_the_episode():
    env = TabularVectorEnv(game_with_an_end(), 400)
    env.reset(seed=0)
    ended = 0
    for _ in range(5):
        obs, _, terminated, truncated, infos = env.step(np.zeros(400, dtype=int))
        assert not truncated.any()
        assert not obs[:, 2].any()  # the next episode has begun, elsewhere
        np.testing.assert_array_equal(infos["final_obs"][:, 2][terminated], 1.0)
        np.testing.assert_array_equal(infos["final_obs"][:, 2][~terminated], 0.0)
        ended += terminated.sum()
    assert ended > 400


def test_a_state_that_pays_is_no_end():
    game = game_with_an_end()
    r = game.r.clone()
    r[2, 1] = 0.1
    env = TabularVectorEnv(mdp.TabularMDP(game.P, r, game.rho0, 0.9), 100, seed=0)
    env.reset()
    assert not any(env.step(np.zeros(100, dtype=int))[2].any() for _ in range(10))


def test_the_simulated_return_is_eta():
    game = game_with_an_end()
    pi = torch.tensor([[0.3, 0.7], [0.6, 0.4], [1.0, 0.0]], dtype=torch.float64)
    num_envs = 20_000
    env, rng = TabularVectorEnv(game, num_envs), np.random.default_rng(1)
    obs, _ = env.reset(seed=0)
    returns, playing = np.zeros(num_envs), np.ones(num_envs, dtype=bool)
    for t in range(100):
        actions = (rng.random(num_envs) > pi[obs.argmax(1), 0].numpy()).astype(int)
        obs, rewards, terminated, _, _ = env.step(actions)
        returns += 0.9**t * rewards * playing
        playing &= ~terminated
    assert not playing.any()
    eta = mdp.evaluate_policy(game, pi).eta.item()
    assert abs(returns.mean() - eta) < 3 * returns.std() / np.sqrt(num_envs)


def test_an_episode_that_would_begin_at_its_end_is_refused():
    game = game_with_an_end()
    with pytest.raises(ValueError, match="could begin in a state that cannot be left and pays nothing"):
        TabularVectorEnv(mdp.TabularMDP(game.P, game.r, [0.5, 0.25, 0.25], 0.9), 2)
