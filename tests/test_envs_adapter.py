"""Gymnasium's environments behind this package's interface: the contract, and the tasks that both have."""

import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
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

    def __init__(self, observation_space, action_space, show=None):
        """show: what to show instead, always or, from an iterator, one after the other."""
        self.observation_space, self.action_space, self.show = observation_space, action_space, show

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.t = 0
        return self.shown(self.observation_space.sample()), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken = action
        self.t += 1
        return self.shown(action), 0.5, self.t == 3, False, {"anything": "ignored"}

    def shown(self, otherwise):
        if self.show is None:
            return otherwise
        return next(self.show) if isinstance(self.show, Iterator) else self.show


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


@pytest.mark.parametrize(
    ("space", "chosen", "taken"),
    [
        (spaces.MultiDiscrete([3, 2, 4]), [2, 1, 0], [2, 1, 0]),
        (spaces.MultiDiscrete([3, 2], start=[5, -1]), [2, 0], [7, -1]),
        (spaces.MultiDiscrete([[3, 2], [2, 2]]), [2, 0, 1, 1], [[2, 0], [1, 1]]),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (spaces.MultiBinary([2, 2]), [1, 0, 1, 1], [[1, 0], [1, 1]]),
    ],
)
def test_several_choices_at_once(space, chosen, taken):
    """The copy gets them in its own space; seen, they are one indicator vector each, and bits are bits."""
    env = envs.make("own:echo", 2, env=lambda: Echo(space, space))
    env.reset()
    assert env.single_action_space == spaces.MultiDiscrete(np.ravel(getattr(space, "nvec", np.full(space.shape, 2))))
    actions = np.array([chosen, [0] * len(chosen)])
    obs, *_ = env.step(actions)
    copy = env._envs.envs[0].env
    np.testing.assert_array_equal(copy.taken, taken)
    assert copy.taken.dtype == space.dtype
    expected = chosen
    if isinstance(space, spaces.MultiDiscrete):
        expected = np.concatenate([np.eye(n)[k] for n, k in zip(space.nvec.ravel(), chosen, strict=True)])
    np.testing.assert_array_equal(obs[0], expected)
    env.action_space.seed(0)
    for _ in range(20):
        env.step(env.action_space.sample())


DICT = spaces.Dict({"eye": BOX})
REFUSED = [
    ({"observation_space": DICT, "action_space": BOX}, "observation space Dict cannot be used; wrap .*FlattenObs"),
    (
        {"observation_space": spaces.Tuple([BOX, BOX]), "action_space": BOX},
        "observation space Tuple cannot be used; wrap .*FlattenObs",
    ),
    ({"observation_space": spaces.Text(9), "action_space": BOX}, "observation space Text cannot be used$"),
    ({"observation_space": BOX, "action_space": DICT}, "action space Dict cannot be used, .*ActionWrapper"),
    (
        {"observation_space": BOX, "action_space": spaces.Box(0, 9, dtype=np.int64)},
        "action space Box of int64 cannot be used",
    ),
]


@pytest.mark.parametrize(("echo", "message"), REFUSED, indirect=["echo"])
def test_other_spaces_are_refused_with_what_to_do(echo, message):
    with pytest.raises(ValueError, match=f"^gym:Echo-v0: the {message}") as refusal:
        envs.make(echo, 2)
    assert "\n" not in str(refusal.value)


def test_what_is_advised_for_a_dict_works():
    env = envs.make("own:echo", 2, env=lambda: FlattenObservation(Echo(DICT, BOX, show={"eye": np.ones((2, 3))})))
    np.testing.assert_array_equal(env.reset()[0], np.ones((2, 6)))


@pytest.mark.parametrize("screens", ["gym:ALE/Pong-v5", "gym:ale_py:ALE/Breakout-v5"])
def test_whole_screens_of_the_papers_games_are_refused_and_the_task_is_named(screens):
    game = "pong" if "Pong" in screens else "breakout"
    with pytest.raises(ValueError, match=f"^{screens} shows whole screens, .* use the task {game}$"):
        envs.make(screens, 1)


# ---- what a copy may do, and what it may not ------------------------------------------------------------------------


class Recycler(gymnasium.Env):
    """Uses its arrays for observation and reward again and again, changes the actions that it is given, and keeps them.

    The observation is (episode, step); episode k is cut after 2 + k % 3 steps. The reward is what the action was.
    """

    observation_space = spaces.Box(0, np.inf, shape=(2,), dtype=np.float64)
    action_space = spaces.Box(-1, 1, shape=(1,), dtype=np.float32)

    def __init__(self):
        self.obs, self.reward, self.kept, self.episode = np.zeros(2), np.zeros(()), [], -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.obs[:] = self.episode, 0
        return self.obs, {"obs": self.obs}

    def step(self, action):
        self.reward[...] = action[0]
        action[:] = 77
        self.kept.append(action)
        self.obs[1] += 1
        return self.obs, self.reward, False, self.obs[1] == 2 + self.episode % 3, {"final_obs": self.obs, "a": object()}


def test_a_copy_may_use_its_arrays_again_and_change_those_that_it_is_given():
    env = envs.make("own:recycler", 3, env=Recycler)
    before, _ = env.reset()
    returned = [(before, before.copy())]
    given = np.random.default_rng(0).uniform(-1, 1, (12, 3, 1)).astype(np.float32)
    sent = given.copy()
    ended = 0
    for drawn, action in zip(given, sent, strict=True):
        obs, rewards, _, truncated, infos = env.step(action)
        np.testing.assert_array_equal(rewards, drawn[:, 0])
        for e in np.flatnonzero(truncated):
            ended += 1
            np.testing.assert_array_equal(infos["final_obs"][e], before[e] + [0, 1])
            np.testing.assert_array_equal(obs[e], [before[e, 0] + 1, 0])
        returned += [(each, each.copy()) for each in (obs, rewards, truncated)]
        returned += [(infos["final_obs"], infos["final_obs"].copy())] if truncated.any() else []
        before = obs
    assert ended >= 6
    for array, copy in returned:
        np.testing.assert_array_equal(array, copy)
    np.testing.assert_array_equal(sent, given)


def reset_and_step(env):
    env.reset()
    env.step(np.zeros(1, dtype=int))


WRONG = [
    (spaces.Discrete(4), -1, r"the observation -1 is not in Discrete\(4\)"),
    (spaces.Discrete(4), 4, r"the observation 4 is not in Discrete\(4\)"),
    (spaces.Discrete(4, start=2), 1, r"the observation 1 is not in Discrete\(4, start=2\)"),
    (spaces.Discrete(4), 1.5, r"the observation 1.5 is not in Discrete\(4\)"),
    (spaces.MultiDiscrete([2, 2]), [0, -1], r"the observation \[ 0 -1\] is not in MultiDiscrete\(\[2 2\]\)"),
    (spaces.Box(-1, 1, (3,)), np.zeros(2), r"the observation has shape \(2,\), which is not in Box"),
    (spaces.Box(-1, 1, (3,)), 0.5, r"the observation has shape \(\), which is not in Box"),
    (spaces.Box(-1, 1, (1,)), {"x": 1}, r"the observation has shape \(\), which is not in Box"),
    (spaces.Box(-1, 1, (1,)), ["left"], "could not convert string to float"),
]


@pytest.mark.parametrize(("space", "shown", "message"), WRONG)
@pytest.mark.parametrize("at", ["reset", "step"])
def test_an_observation_that_its_space_does_not_have_is_refused(space, shown, message, at):
    fine = space.sample()
    shows = {"reset": [shown], "step": [fine, shown]}[at]
    env = envs.make("own:echo", 1, env=lambda: Echo(space, spaces.Discrete(2), show=iter(shows)))
    with pytest.raises(envs.BrokenPromise, match=f"^own:echo: {message}") as refusal:
        reset_and_step(env)
    assert "\n" not in str(refusal.value)


class Returns(Echo):
    """An environment that returns something else than Gymnasium's do."""

    def __init__(self, reset=(0, {}), step=(0, 1.0, False, False, {})):
        super().__init__(spaces.Discrete(2), spaces.Discrete(2))
        self.returned = reset, step

    def reset(self, *, seed=None, options=None):
        return self.returned[0]

    def step(self, action):
        return self.returned[1]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"reset": 0}, r"its reset must return \(observation, info\)"),
        ({"step": (0, 1.0, False, {})}, r"its step must return \(observation, reward, terminated, truncated, info\)"),
        ({"step": (0, [1.0, 2.0], False, False, {})}, r"the reward \[1.0, 2.0\] is not a number"),
        ({"step": (0, "much", False, False, {})}, "the reward 'much' is not a number"),
    ],
)
def test_the_old_interface_and_rewards_that_are_no_numbers_are_refused(returned, message):
    env = envs.make("own:wrong", 1, env=lambda: Returns(**returned))
    with pytest.raises(envs.BrokenPromise, match=f"^own:wrong: {message}$"):
        reset_and_step(env)


# ---- env= and keyword arguments -------------------------------------------------------------------------------------


class Tunable(Echo):
    """Shows how it was made."""

    def __init__(self, start=0, slope=1.0):
        super().__init__(spaces.Box(-99, 99, (2,)), spaces.Discrete(2), show=np.array([start, slope], dtype=np.float32))


def test_keyword_arguments_reach_the_environment_registered_or_not():
    gymnasium.register("Tunable-v0", entry_point=Tunable)
    try:
        for given in ({}, {"start": 3}, {"start": 3, "slope": 0.25}):
            expected = {"start": 0, "slope": 1.0} | given
            for env in (
                envs.make("gym:Tunable-v0", 2, env_kwargs=given),
                envs.make("own:tunable", 2, env=Tunable, env_kwargs=given),
            ):
                np.testing.assert_array_equal(env.reset()[0], [list(expected.values())] * 2)
        for task, made in (("gym:Tunable-v0", None), ("own:tunable", Tunable)):
            with pytest.raises(ValueError, match=f"^{task} cannot be made: .*unexpected keyword argument 'stat'"):
                envs.make(task, 2, env=made, env_kwargs={"stat": 3})
    finally:
        del gymnasium.registry["Tunable-v0"]
    with pytest.raises(ValueError, match="hopper has no setting 'env_kwargs'"):
        envs.make("hopper", 2, env_kwargs={})


def test_an_own_task_needs_its_function_and_others_refuse_one():
    with pytest.raises(
        ValueError, match=r"^own:maze is an environment that a function of yours makes: pass it as env="
    ):
        envs.make("own:maze", 1)
    with pytest.raises(ValueError, match=r"^env is for tasks named own:NAME, not for cartpole$"):
        envs.make("cartpole", 1, env=Tunable)
    with pytest.raises(envs.UnknownTask, match=r"^own: has no name"):
        envs.make("own:", 1, env=Tunable)
    with pytest.raises(ValueError, match=r"^own:maze cannot be made: env must make a gymnasium.Env, not a int$"):
        envs.make("own:maze", 1, env=lambda: 3)
    single = Tunable()
    with pytest.raises(ValueError, match=r"^own:maze cannot be made: env must make a new environment at every call"):
        envs.make("own:maze", 2, env=lambda: single)


# ---- which module a name means --------------------------------------------------------------------------------------

MODULE = """
import gymnasium
from test_envs_adapter import Tunable
gymnasium.register("Here-v0", Tunable)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, and no trace afterwards of what was imported from it."""
    monkeypatch.chdir(tmp_path)
    known, path = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    gymnasium.registry.pop("Here-v0", None)
    assert sys.path == path


def test_a_module_in_the_current_folder_is_found(here):
    (here / "my_env.py").write_text(MODULE)
    assert envs.make("gym:my_env:Here-v0", 2).reset()[0].shape == (2, 2)


def test_a_module_of_a_package_in_the_current_folder_is_found(here):
    (here / "my_package").mkdir()
    (here / "my_package" / "__init__.py").write_text("")
    (here / "my_package" / "inside.py").write_text(MODULE)
    assert envs.make("gym:my_package.inside:Here-v0", 2).reset()[0].shape == (2, 2)


def test_the_current_folder_is_searched_for_nothing_else(here):
    """Neither for what the module imports, nor instead of a module that Python finds elsewhere."""
    (here / "my_env.py").write_text("import my_helper")
    (here / "my_helper.py").write_text("raise SystemExit('must not run')")
    (here / "toy_envs.py").write_text("raise SystemExit('must not run')")
    with pytest.raises(envs.UnknownTask, match=r"importing my_env ends with ModuleNotFoundError: .*my_helper.*line 1"):
        envs.make("gym:my_env:Here-v0", 2)
    assert "my_env" not in sys.modules
    assert envs.make("gym:toy_envs:Endless-v0", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0", "ZeroDivisionError: division by zero .*my_env.py, line 2"),
        ("x = 1\n\ny = (", "SyntaxError: .*my_env.py, line 3"),
        ("import sys\nsys.exit(0)", "SystemExit: 0 .*my_env.py, line 2"),
        ("raise SystemExit", r"SystemExit \(.*my_env.py, line 1"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where(here, text, message):
    (here / "my_env.py").write_text(text)
    with pytest.raises(envs.UnknownTask, match=f"importing my_env ends with {message}") as refusal:
        envs.check_task("gym:my_env:Here-v0")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [".foo", "..", "a..b", "a b", "os;x", "/etc/passwd", "-c"])
def test_what_is_no_name_of_a_module_is_one_line(here, name):
    with pytest.raises(envs.UnknownTask, match=r"^there is no task gym:.* is not the name of a module$"):
        envs.check_task(f"gym:{name}:X-v0")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("gym:Cartpole-v1", "there is no task gym:Cartpole-v1: .*Did you mean: `CartPole`"),
        ("gym:CartPole-v9", "there is no task gym:CartPole-v9: .*versioned environments"),
        (
            "gym:no_such_module:X-v0",
            "there is no task gym:no_such_module:X-v0: No module named 'no_such_module', neither .* current folder",
        ),
        (
            "gym:MineAlone-v0",
            "there is no task gym:MineAlone-v0: .*registers it, name that too: gym:MODULE:MineAlone-v0",
        ),
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
