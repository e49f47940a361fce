"""What every environment promises, as classes to inherit; and the proof that a broken environment is caught.

`VectorEnvContract` holds for everything `envs.make` returns, `RestorableContract` also for what saves its state.
"""

import copy
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from trpo_lessons.envs import RestorableVectorEnv, make
from trpo_lessons.envs.cartpole import CartPole

CONTINUE_FROM_FILE = """
import sys
import numpy as np
given = dict(np.load(sys.argv[1]))
task, actions = str(given.pop("task_name")), given.pop("actions")
env = make(task, actions.shape[1], threads=1)
obs = [env.restore_state(given)]
rewards = []
for action in actions:
    step = env.step(action)
    obs.append(step[0])
    rewards.append(step[1])
np.savez(sys.argv[2], obs=obs, rewards=rewards, **env.save_state())
"""


class VectorEnvContract:
    """Subclasses name a task; `steps` is how many steps the tests take, enough to see an episode end."""

    task: str
    num_envs = 5
    steps = 40
    settings: ClassVar[dict] = {}
    obs_dtype: ClassVar[type] = np.float64
    always_told: ClassVar[set[str]] = set()  # what is in the infos of every step

    def make(self, num_envs=None, **kwargs):
        return make(self.task, num_envs or self.num_envs, **{"threads": 1, **self.settings, **kwargs})

    def started(self, num_envs=None, seed=3):
        """An environment whose copies will all end an episode within `self.steps` steps, and its observations."""
        env = self.make(num_envs)
        return env, env.reset(seed=seed)[0]

    def actions(self, env, steps=None, seed=0):
        """[steps, E, ...], drawn from the action space."""
        env.action_space.seed(seed)
        return np.stack([env.action_space.sample() for _ in range(steps or self.steps)])

    def test_shapes_and_types(self):
        env = self.make()
        assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        obs, infos = env.reset(seed=0)
        assert obs.dtype == self.obs_dtype
        assert infos == {}
        for action in self.actions(env, 3):
            assert env.action_space.contains(action)
            obs, rewards, terminated, truncated, infos = env.step(action)
            assert infos.keys() >= self.always_told
            assert obs.dtype == self.obs_dtype
            assert obs.shape == (self.num_envs, *env.single_observation_space.shape) == env.observation_space.shape
            assert rewards.shape == terminated.shape == truncated.shape == (self.num_envs,)
            assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float64, np.bool_, np.bool_)
        env.close()

    def test_nothing_that_was_returned_changes_later(self):
        env, first = self.started()
        actions = self.actions(env)
        returned, copies = [first], [first.copy()]
        for action in actions:
            obs, rewards, terminated, truncated, infos = env.step(action)
            told = {"final_obs", *self.always_told} & infos.keys()
            arrays = [obs, rewards, terminated, truncated, *(infos[name] for name in sorted(told))]
            returned += arrays
            copies += [array.copy() for array in arrays]
        for array, kept in zip(returned, copies, strict=True):
            np.testing.assert_array_equal(array, kept)

    def test_copy_i_is_seeded_with_seed_plus_i(self):
        obs, _ = self.make().reset(seed=7)
        listed, _ = self.make().reset(seed=[7, 8, 9, 10, 11])
        alone = [self.make(1).reset(seed=7 + i)[0][0] for i in range(self.num_envs)]
        np.testing.assert_array_equal(obs, np.stack(alone))
        np.testing.assert_array_equal(obs, listed)
        assert len(np.unique(obs, axis=0)) == self.num_envs

    def test_seed_of_make_is_seed_of_the_first_reset(self):
        np.testing.assert_array_equal(self.make(seed=7).reset()[0], self.make().reset(seed=7)[0])

    def test_reset_without_a_seed_goes_on_with_the_generators(self):
        env, twin = self.make(), self.make()
        first, again = env.reset(seed=7)[0], twin.reset(seed=7)[0]
        second = env.reset()[0]
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(second, twin.reset()[0])
        np.testing.assert_array_equal(first, env.reset(seed=7)[0])

    def test_seed_and_actions_determine_everything_and_copies_are_independent(self):
        env, _ = self.started()
        actions = self.actions(env)
        lone, _ = self.started(1)
        for action in actions:
            obs, rewards, terminated, truncated, infos = env.step(action)
            lone_obs, lone_rewards, lone_terminated, lone_truncated, lone_infos = lone.step(action[:1])
            np.testing.assert_array_equal(obs[0], lone_obs[0])
            assert (rewards[0], terminated[0], truncated[0]) == (lone_rewards[0], lone_terminated[0], lone_truncated[0])
            if terminated[0] or truncated[0]:
                np.testing.assert_array_equal(infos["final_obs"][0], lone_infos["final_obs"][0])

    def test_episode_statistics_against_a_tally(self):
        env, _ = self.started()
        returns, lengths = self.tally(env)
        ended = 0
        for action in self.actions(env):
            _, rewards, terminated, truncated, infos = env.step(action)
            returns, lengths, done = returns + rewards, lengths + 1, terminated | truncated
            if not done.any():
                assert infos.keys() == self.always_told
                continue
            ended += done.sum()
            np.testing.assert_array_equal(infos["_final_obs"], done)
            np.testing.assert_array_equal(infos["_episode"], done)
            assert infos["final_obs"].dtype == self.obs_dtype
            assert infos["final_obs"].shape == env.observation_space.shape
            np.testing.assert_allclose(infos["episode"]["r"][done], returns[done], rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(infos["episode"]["l"][done], lengths[done])
            returns, lengths = np.where(done, 0.0, returns), np.where(done, 0, lengths)
        assert ended >= self.num_envs

    def tally(self, env):
        """Returns and lengths so far; zero after a reset."""
        return np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=int)

    def test_step_needs_a_reset_first(self):
        env = self.make()
        with pytest.raises(ResetNeeded):
            env.step(self.actions(env, 1)[0])

    @pytest.mark.parametrize(
        ("seed", "message"),
        [([1, 2], "2 seeds were given for 5 environments"), (-1, "a seed must be 0 or more, not -1")],
    )
    def test_bad_seeds_are_refused(self, seed, message):
        with pytest.raises(ValueError, match=message):
            self.make().reset(seed=seed)

    def test_reset_options_are_refused(self):
        with pytest.raises(ValueError, match=r"takes no reset options, but was given \['speed'\]"):
            self.make().reset(options={"speed": 1})

    def test_no_copies_are_refused(self):
        with pytest.raises(ValueError, match="num_envs must be 1 or more, not -2"):
            self.make(-2)

    def test_actions_of_a_wrong_shape_are_refused(self):
        env, _ = self.started()
        with pytest.raises(ValueError, match="needs actions of shape"):
            env.step(self.actions(env, 1)[0][:-1])

    def test_impossible_actions_are_refused(self):
        env, _ = self.started()
        good = self.actions(env, 1)[0]
        if np.issubdtype(good.dtype, np.integer):
            bad, message = [good + 99, good - 99, good + 0.5], "needs integer actions from 0 to"
        else:
            bad, message = [np.full_like(good, np.nan), np.full_like(good, np.inf)], "not a finite number"
        for actions in bad:
            with pytest.raises(ValueError, match=message):
                env.step(actions)


class RestorableContract(VectorEnvContract):
    """Episodes are brought to their end by moving the clock of a saved state, which is part of what is tested."""

    source_of_make = "from trpo_lessons.envs import make"  # for a new process

    def started(self, num_envs=None, seed=3):
        env = self.make(num_envs)
        assert isinstance(env, RestorableVectorEnv)
        env.reset(seed=seed)
        state = env.save_state()
        state["elapsed_steps"] += env.max_episode_steps - 1 - 7 * np.arange(env.num_envs)
        return env, env.restore_state(state)

    def tally(self, env):
        state = env.save_state()
        return state["episode_returns"], state["elapsed_steps"]

    def run(self, env, actions):
        """Everything that came back, as one flat list of arrays."""
        returned = []
        for action in actions:
            obs, rewards, terminated, truncated, infos = env.step(action)
            returned += [obs, rewards, terminated, truncated, *(infos[name] for name in sorted(self.always_told))]
            if "_final_obs" in infos:
                done = infos["_final_obs"]
                returned += [done, infos["final_obs"][done], infos["episode"]["r"][done], infos["episode"]["l"][done]]
        return returned

    def test_a_state_is_plain_numbers_one_row_a_copy(self):
        env, _ = self.started()
        for array in env.save_state().values():
            assert array.dtype.kind in "fiu"
            assert len(array) == self.num_envs

    def test_a_saved_state_is_a_copy(self):
        env, _ = self.started()
        state = env.save_state()
        before = {name: array.copy() for name, array in state.items()}
        self.run(env, self.actions(env))
        for name, array in state.items():
            np.testing.assert_array_equal(array, before[name])

    def test_restored_state_has_the_same_future(self):
        env, _ = self.started()
        actions = self.actions(env)
        self.run(env, actions[:4])
        state = env.save_state()
        first = self.run(env, actions)
        env.restore_state(state)
        second = self.run(env, actions)
        other = self.make()
        other.restore_state(state)
        third = self.run(other, actions)
        for one, two, three in zip(first, second, third, strict=True):
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(one, three)

    def test_restored_in_a_new_process_has_the_same_future(self, tmp_path):
        env, _ = self.started()
        actions = self.actions(env)
        self.run(env, actions[:4])
        np.savez(tmp_path / "state.npz", actions=actions, task_name=self.task, **env.save_state())
        obs, rewards = [env.restore_state(env.save_state())], []
        for action in actions:
            step = env.step(action)
            obs.append(step[0])
            rewards.append(step[1])
        files = [str(tmp_path / "state.npz"), str(tmp_path / "future.npz")]
        source = f"{self.source_of_make}\n{CONTINUE_FROM_FILE}"
        subprocess.run([sys.executable, "-c", source, *files], check=True)
        future = dict(np.load(files[1]))
        np.testing.assert_array_equal(future.pop("obs"), obs)
        np.testing.assert_array_equal(future.pop("rewards"), rewards)
        for name, array in env.save_state().items():
            np.testing.assert_array_equal(future[name], array)

    def test_rows_can_be_picked_and_repeated(self):
        env, _ = self.started()
        actions = self.actions(env)
        self.run(env, actions[:2])
        rows = [4, 1, 4, 4]
        branches = self.make(len(rows))
        picked = {name: array[rows] for name, array in env.save_state().items()}
        np.testing.assert_array_equal(branches.restore_state(picked), env.restore_state(env.save_state())[rows])
        ended = 0
        for action in actions:
            expected, got = env.step(action), branches.step(action[rows])
            for whole, part in zip(expected[:4], got[:4], strict=True):
                np.testing.assert_array_equal(whole[rows], part)
            ended += (got[2] | got[3]).sum()
        assert ended >= len(rows)  # so the generators, too, went along with their rows

    def test_some_copies_can_be_restored_while_the_others_go_on(self):
        env, _ = self.started()
        actions = self.actions(env)
        self.run(env, actions[:2])
        saved = env.save_state()
        self.run(env, actions[2:4])
        mixed = self.make()
        mixed.restore_state(env.save_state())
        obs = mixed.restore_state({name: array[[4, 0]] for name, array in saved.items()}, rows=[1, 3])
        # What it must equal: the whole state, put together by hand.
        state, twin = env.save_state(), self.make()
        for name, array in state.items():
            array[[1, 3]] = saved[name][[4, 0]]
        np.testing.assert_array_equal(obs, twin.restore_state(state))
        for one, two in zip(self.run(mixed, actions), self.run(twin, actions), strict=True):
            np.testing.assert_array_equal(one, two)
        for name, array in twin.save_state().items():
            np.testing.assert_array_equal(mixed.save_state()[name], array)

    def test_some_copies_can_be_saved(self):
        env, _ = self.started()
        self.run(env, self.actions(env)[:3])
        some = env.save_state([4, 1, 4])
        for name, array in env.save_state().items():
            np.testing.assert_array_equal(some[name], array[[4, 1, 4]])
        with pytest.raises(IndexError):
            env.save_state([self.num_envs])

    def test_states_for_some_copies_are_refused_when_they_do_not_fit(self):
        env, _ = self.started()
        state = env.save_state()
        two = {name: array[:2] for name, array in state.items()}
        with pytest.raises(ValueError, match="not a state of 3 copies"):
            env.restore_state(two, rows=[0, 1, 2])
        with pytest.raises(IndexError):
            env.restore_state(two, rows=[0, self.num_envs])
        for name, array in env.save_state().items():
            np.testing.assert_array_equal(array, state[name])
        with pytest.raises(ResetNeeded, match="before restoring some of its copies"):
            self.make().restore_state(two, rows=[0, 1])

    def test_truncation_is_the_clock_and_changes_nothing_else(self):
        env, _ = self.started()
        state = env.save_state()
        state["elapsed_steps"][:] = [env.max_episode_steps - 1, 0, env.max_episode_steps - 2, 5, 6]
        early = {**state, "elapsed_steps": np.zeros_like(state["elapsed_steps"])}
        action = self.actions(env, 1)[0]
        env.restore_state(state)
        obs, rewards, terminated, truncated, infos = env.step(action)
        env.restore_state(early)
        early_obs, early_rewards, early_terminated, early_truncated, _ = env.step(action)
        assert truncated.tolist() == [True, False, False, False, False]
        assert not early_truncated.any()
        np.testing.assert_array_equal(rewards, early_rewards)
        np.testing.assert_array_equal(terminated, early_terminated)
        assert not terminated[0]
        np.testing.assert_array_equal(infos["final_obs"][0], early_obs[0])
        np.testing.assert_array_equal(obs[1:], early_obs[1:])

    def test_the_step_that_ends_an_episode_returns_the_first_observation_of_the_next(self):
        env, _ = self.started()
        twin = self.make()
        ended = 0
        for action in self.actions(env):
            state = env.save_state()
            obs, _, terminated, truncated, _ = env.step(action)
            twin.restore_state(state)
            fresh, _ = twin.reset()  # the generators stand where they stood before the step
            done = terminated | truncated
            np.testing.assert_array_equal(obs[done], fresh[done])
            after = env.save_state()
            assert (after["elapsed_steps"][done] == 0).all()
            assert (after["episode_returns"][done] == 0).all()
            ended += done.sum()
        assert ended >= self.num_envs

    def damaged_states(self, state):
        floats = next(name for name, array in state.items() if array.dtype.kind == "f")
        without = {name: array for name, array in state.items() if name != floats}
        return {
            "missing": (without, f"missing \\['{floats}'\\]"),
            "unknown": ({**state, "wind": np.zeros(self.num_envs)}, r"unknown \['wind'\]"),
            "fewer copies": (
                {name: array[:3] for name, array in state.items()},
                f"not a state of {self.num_envs} copies",
            ),
            "another type": ({**state, floats: state[floats].astype(np.float32)}, "float32"),
            "not finite": ({**state, floats: np.full_like(state[floats], np.nan)}, "not finite"),
            "another task": ({**state, "task": state["task"] + np.uint64(1)}, "saved by another task"),
            "too late": ({**state, "elapsed_steps": state["elapsed_steps"] + 10**6}, "elapsed_steps is out of range"),
        }

    def test_damaged_and_foreign_states_are_refused_and_nothing_changes(self):
        env, _ = self.started()
        state = env.save_state()
        for bad, message in self.damaged_states(state).values():
            with pytest.raises(ValueError, match=message) as refusal:
                env.restore_state(bad)
            assert "\n" not in str(refusal.value)
            for name, array in env.save_state().items():
                np.testing.assert_array_equal(array, state[name])


# A contract that cannot fail is worth nothing: each of these environments breaks one promise.


class ForgetsItsGenerators(CartPole):
    def restore_state(self, state):
        generators = copy.deepcopy(self._generators)
        obs = super().restore_state(state)
        self._generators = generators
        return obs


class RestoresEveryCopy(CartPole):
    def restore_state(self, state, rows=None):
        wanted = range(self.num_envs) if rows is None else rows
        return super().restore_state(
            {name: array[np.arange(self.num_envs) % len(wanted)] for name, array in state.items()}
        )


class SavesInTheOrderOfCopies(CartPole):
    def save_state(self, rows=None):
        return super().save_state(rows if rows is None else sorted(rows))


class ReturnsALiveArray(CartPole):
    def _observe(self):
        return self._state


class CallsTheTimeLimitAFailure(CartPole):
    def step(self, actions):
        obs, rewards, terminated, truncated, infos = super().step(actions)
        return obs, rewards, terminated | truncated, np.zeros_like(truncated), infos


class SharesOneGenerator(CartPole):
    def _reset_rows(self, rows):
        self._state[rows] = self._generators[0].uniform(-0.05, 0.05, size=(len(rows), 4))


class RestoresHalfOfABadState(CartPole):
    def _check_state(self, state, live):
        if state.keys() == live.keys():
            self._elapsed_steps[:] = 0
        super()._check_state(state, live)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (ForgetsItsGenerators, "test_rows_can_be_picked_and_repeated"),
        (ForgetsItsGenerators, "test_restored_state_has_the_same_future"),
        (RestoresEveryCopy, "test_some_copies_can_be_restored_while_the_others_go_on"),
        (SavesInTheOrderOfCopies, "test_some_copies_can_be_saved"),
        (ReturnsALiveArray, "test_nothing_that_was_returned_changes_later"),
        (CallsTheTimeLimitAFailure, "test_truncation_is_the_clock_and_changes_nothing_else"),
        (SharesOneGenerator, "test_copy_i_is_seeded_with_seed_plus_i"),
        (SharesOneGenerator, "test_rows_can_be_picked_and_repeated"),
        (RestoresHalfOfABadState, "test_damaged_and_foreign_states_are_refused_and_nothing_changes"),
    ],
)
def test_the_contract_catches(broken, test):
    class Contract(RestorableContract):
        task = "cartpole"

        def make(self, num_envs=None, **kwargs):
            return broken(num_envs or self.num_envs, **kwargs)

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()
