"""Gymnasium's environments behind this package's interface: the contract, and the tasks that both have."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from test_envs_contract import VectorEnvContract

from trpo_lessons import envs


class TestDiscreteActions(VectorEnvContract):
    task = "gym:CartPole-v1"
    steps = 80


class TestContinuousActions(VectorEnvContract):
    task = "gym:Pendulum-v1"
    steps = 201


class TestDiscreteObservations(VectorEnvContract):
    task = "gym:FrozenLake-v1"
    steps = 60

    def test_copy_i_is_seeded_with_seed_plus_i(self):
        """Every episode starts on the same tile; the seed shows in where the slippery ice leads."""
        env = self.make()
        env.reset(seed=7)
        alone = [self.make(1) for _ in range(self.num_envs)]
        for i, lone in enumerate(alone):
            lone.reset(seed=7 + i)
        paths = []
        for action in self.actions(env, 20):
            paths.append(env.step(action)[0])
            for i, lone in enumerate(alone):
                np.testing.assert_array_equal(lone.step(action[i : i + 1])[0][0], paths[-1][i])
        assert len(np.unique(np.stack(paths, axis=1).reshape(self.num_envs, -1), axis=0)) == self.num_envs

    def test_reset_without_a_seed_goes_on_with_the_generators(self):
        env, twin = self.make(), self.make()
        actions = self.actions(env, 20)
        for each in (env, twin):
            each.reset(seed=7)
        first = [env.step(action)[0] for action in actions]
        np.testing.assert_array_equal(first, [twin.step(action)[0] for action in actions])
        for each in (env, twin):
            each.reset()
        second = [env.step(action)[0] for action in actions]
        np.testing.assert_array_equal(second, [twin.step(action)[0] for action in actions])
        assert not np.array_equal(first, second)

    def test_an_observation_is_an_indicator(self):
        obs, _ = self.make().reset(seed=0)
        np.testing.assert_array_equal(obs, np.eye(16)[np.zeros(5, dtype=int)])


@pytest.mark.parametrize(("own", "theirs"), [("cartpole", "gym:CartPole-v1"), ("hopper", "gym:Hopper-v5")])
def test_a_task_that_both_have_gives_the_same_numbers(own, theirs):
    one, two = envs.make(own, 4, seed=3, threads=1), envs.make(theirs, 4, seed=3)
    np.testing.assert_array_equal(one.reset()[0], two.reset()[0])
    one.action_space.seed(0)
    ended = 0
    for _ in range(60):
        action = one.action_space.sample()
        *got, infos = one.step(action)
        *expected, expected_infos = two.step(action)
        for left, right in zip(got, expected, strict=True):
            np.testing.assert_array_equal(left, right)
        assert infos.keys() == expected_infos.keys()
        for row in np.flatnonzero(got[2] | got[3]):
            ended += 1
            np.testing.assert_array_equal(infos["final_obs"][row], expected_infos["final_obs"][row])
            assert infos["episode"]["r"][row] == expected_infos["episode"]["r"][row]
    assert ended


class Echo(gymnasium.Env):
    """Shows the action it was given: a box of a shape and scale of its own, or integers that do not start at 0."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return action, 0.5, self.t == 3, False, {"anything": "ignored"}


@pytest.fixture
def echo(request):
    gymnasium.register("Echo-v0", entry_point=Echo, kwargs=request.param)
    yield "gym:Echo-v0"
    del gymnasium.registry["Echo-v0"]


BOX = spaces.Box(-2, 5, shape=(2, 3), dtype=np.float32)
FROM_THREE = spaces.Discrete(4, start=3)


@pytest.mark.parametrize("echo", [{"observation_space": BOX, "action_space": BOX}], indirect=True)
def test_boxes_are_flattened_and_actions_clipped_to_their_bounds(echo):
    env = envs.make(echo, 2, seed=0)
    env.reset()
    assert (env.single_observation_space.shape, env.single_action_space.shape) == ((6,), (6,))
    actions = np.array([[-9, -1, 0, 1, 2, 9], [6, 5, 4, 3, 2, 1]], dtype=np.float64)
    obs, rewards, _, _, infos = env.step(actions)
    np.testing.assert_array_equal(obs, [[-2, -1, 0, 1, 2, 5], [5, 5, 4, 3, 2, 1]])
    np.testing.assert_array_equal(rewards, 0.5)
    assert infos == {}


@pytest.mark.parametrize("echo", [{"observation_space": FROM_THREE, "action_space": FROM_THREE}], indirect=True)
def test_discrete_spaces_are_counted_from_zero(echo):
    env = envs.make(echo, 3, seed=0)
    env.reset()
    assert env.single_action_space == spaces.Discrete(4)
    np.testing.assert_array_equal(env.step(np.array([0, 3, 1]))[0], np.eye(4)[[0, 3, 1]])


DICT = spaces.Dict({"eye": BOX})
REFUSED = [
    (
        {"observation_space": DICT, "action_space": BOX},
        "gym:Echo-v0 has a Dict observation space; only Box and Discrete",
    ),
    ({"observation_space": BOX, "action_space": spaces.MultiBinary(2)}, "gym:Echo-v0 has a MultiBinary action space"),
    ({"observation_space": BOX, "action_space": spaces.Box(0, 9, dtype=np.int64)}, "has a Box action space of int64"),
]


@pytest.mark.parametrize(("echo", "message"), REFUSED, indirect=["echo"])
def test_other_spaces_are_refused(echo, message):
    with pytest.raises(ValueError, match=message):
        envs.make(echo, 2)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("gym:Cartpole-v1", "there is no task gym:Cartpole-v1: .*Did you mean: `CartPole`"),
        ("gym:CartPole-v9", "there is no task gym:CartPole-v9: .*versioned environments"),
        ("gym:no_such_module:X-v0", "there is no task gym:no_such_module:X-v0: No module named 'no_such_module'"),
        ("gym:", "there is no task gym:: Malformed environment ID"),
    ],
)
def test_unknown_environments_are_unknown_tasks(task, message):
    for attempt in (envs.check_task, lambda name: envs.make(name, 2)):
        with pytest.raises(envs.UnknownTask, match=message) as refusal:
            attempt(task)
        assert "\n" not in str(refusal.value)


def test_an_environment_that_cannot_be_built_says_why():
    def build():
        raise gymnasium.error.DependencyNotInstalled("the wind tunnel is not installed,\nrun `install wind`")

    gymnasium.register("Broken-v0", entry_point=build)
    try:
        with pytest.raises(ValueError, match="gym:Broken-v0 cannot be made: the wind tunnel is not installed, run"):
            envs.make("gym:Broken-v0", 1)
    finally:
        del gymnasium.registry["Broken-v0"]


def test_it_cannot_be_saved_and_says_so():
    with pytest.raises(
        ValueError, match=r"gym:CartPole-v1 cannot save and restore its state, .* cartpole, barto-cartpole"
    ):
        envs.restorable(envs.make("gym:CartPole-v1", 2))
    own = envs.make("cartpole", 2)
    assert envs.restorable(own) is own
