"""Any Gymnasium environment with box or discrete spaces, in the form that this package's own environments have.

`gym:ENV_ID` names such a task; `own:NAME` is what a function of the user's makes, without registration. Gymnasium steps
the copies one after the other. Nothing is known of their inner state, so it can be neither saved nor restored: such a
task has no vine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trpo_lessons.envs.base import Bools, Floats, checked_actions, refuse_options
from trpo_lessons.envs.finding import PREFIX, find_spec, one_line
from trpo_lessons.envs.foreign import EnvironmentFault, foreign_code, place
from trpo_lessons.envs.random_state import Seed, one_seed_each
from trpo_lessons.envs.spaces import flat_action_space, flat_observation_space, flat_observations, inner_actions

__all__ = [
    "OWN_PREFIX",
    "PREFIX",
    "BrokenPromise",
    "GymnasiumVectorEnv",
    "MakeOne",
    "find_spec",
    "flat_observations",
    "inner_actions",
    "open_gymnasium",
]

OWN_PREFIX = "own:"
MakeOne = Callable[..., gymnasium.Env[Any, Any]]


class BrokenPromise(EnvironmentFault):
    """An environment does not do what Gymnasium's environments do; the message is one line that names it."""


class GymnasiumVectorEnv(VectorEnv[Floats, NDArray[Any], NDArray[Any]]):
    """E copies of a Gymnasium environment, with the resets, the infos and the refusals of `RestorableVectorEnv`.

    Observations are float64 [E, obs_dim]: a box is flattened, a discrete observation becomes an indicator vector.
    Actions are [E, action_dim] for a box, clipped to its bounds because many environments refuse what lies outside,
    integers [E] from 0 for a discrete space, and [E, choices] where there are several. See `spaces`.

    Nothing that a copy holds is kept: it may use its arrays again, and change those that it is given. Its infos are
    left out.

    inner_observation_space, inner_action_space: those of one copy, as Gymnasium has them.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own idiom)

    def __init__(self, task: str, make_one: MakeOne, num_envs: int, *, seed: Seed = None) -> None:
        """Seeds: see `reset`. Raises ValueError for an environment that cannot be made or has other spaces."""
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs}")
        self.task = task
        self.num_envs = num_envs
        self._first_seeds: list[int | None] | None = one_seed_each(num_envs, seed)
        copies = _make_copies(task, make_one, num_envs)
        self.inner_observation_space = copies[0].env.observation_space
        self.inner_action_space = copies[0].env.action_space
        self._envs: SyncVectorEnv[Any, Any] = SyncVectorEnv(
            [partial(_same, each) for each in copies], autoreset_mode=AutoresetMode.SAME_STEP
        )
        self.metadata = self._envs.metadata
        self.single_observation_space = self._envs.single_observation_space
        self.single_action_space = self._envs.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episode_returns = np.zeros(num_envs)
        self._episode_lengths = np.zeros(num_envs, dtype=np.int64)
        self._needs_reset = True

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        """As `RestorableVectorEnv.reset`: obs [E, obs_dim] and {}; ValueError for bad seeds or any option."""
        refuse_options(self.task, options)
        seeds = self._first_seeds if seed is None else one_seed_each(self.num_envs, seed)
        with foreign_code(self.task):
            obs, _ = self._envs.reset(seed=seeds)
        self._first_seeds = None
        self._episode_returns[:] = 0.0
        self._episode_lengths[:] = 0
        self._needs_reset = False
        return obs, {}

    def step(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Bools, Bools, dict[str, Any]]:
        """As `RestorableVectorEnv.step`. Raises BrokenPromise for an observation that is not in the copies' space."""
        if self._needs_reset:
            raise ResetNeeded(f"call reset() of {self.task} before step()")
        actions = checked_actions(self, self.task, actions)
        with foreign_code(self.task):
            obs, rewards, terminated, truncated, inner_infos = self._envs.step(actions)
        self._episode_returns += rewards
        self._episode_lengths += 1
        done = terminated | truncated
        infos = self._episode_ends(done, obs, inner_infos) if done.any() else {}
        return obs, rewards, terminated, truncated, infos

    def _episode_ends(self, done: Bools, obs: NDArray[Any], inner_infos: dict[str, Any]) -> dict[str, Any]:
        final_obs = np.array(obs)
        final_obs[done] = np.stack(list(inner_infos["final_obs"][done]))
        episode = {"r": np.where(done, self._episode_returns, 0.0), "l": np.where(done, self._episode_lengths, 0)}
        self._episode_returns[done] = 0.0
        self._episode_lengths[done] = 0
        return {"final_obs": final_obs, "_final_obs": done, "episode": episode, "_episode": done}

    def render(self) -> tuple[Any, ...] | None:
        """What every copy looks like, as Gymnasium draws it."""
        with foreign_code(self.task):
            return self._envs.render()

    def close_extras(self, **_kwargs: Any) -> None:
        """Close Gymnasium's environments."""
        with foreign_code(self.task):
            self._envs.close()


class _Copy(gymnasium.Wrapper[Floats, NDArray[Any], Any, Any]):
    """One copy, seen in flat spaces. What it returns is new, and what it is given too: nothing is shared with it."""

    def __init__(self, task: str, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._task = task
        try:
            flat_spaces = flat_observation_space(env.observation_space), flat_action_space(env.action_space)
        except ValueError as problem:
            raise ValueError(f"{task}: {problem}") from problem
        self.observation_space, self.action_space = flat_spaces  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        returned = self.env.reset(seed=seed, options=options)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise BrokenPromise(f"{self._task}: its reset must return (observation, info)")
        return self._flat(returned[0]), {}

    def step(self, action: NDArray[Any]) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        returned = self.env.step(inner_actions(self.env.action_space, np.asarray(action)[None])[0])
        if not isinstance(returned, tuple) or len(returned) != 5:
            raise BrokenPromise(
                f"{self._task}: its step must return (observation, reward, terminated, truncated, info)"
            )
        obs, reward, terminated, truncated, _ = returned
        return self._flat(obs), self._number(reward), bool(terminated), bool(truncated), {}

    def _flat(self, obs: Any) -> Floats:
        try:
            flat: Floats = flat_observations(self.env.observation_space, np.asarray(obs)[None])[0]
        except (ValueError, TypeError) as problem:
            raise BrokenPromise(f"{self._task}: {one_line(problem)}") from problem
        return flat

    def _number(self, reward: Any) -> float:
        try:
            number = np.asarray(reward)
            # NumPy makes nan of None, which Python does not.
            return float(number.item()) if number.dtype == object else number.astype(np.float64).item()
        except (ValueError, TypeError):
            raise BrokenPromise(f"{self._task}: the reward {reward!r} is not a number") from None


def open_gymnasium(
    task: str,
    num_envs: int,
    *,
    seed: Seed = None,
    env: MakeOne | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
) -> GymnasiumVectorEnv:
    """`num_envs` copies of a gym: task, or of what `env` makes for an own: task.

    env: a class or a function; every call must give a new environment.
    env_kwargs: keyword arguments of the environment: of `gymnasium.make` for gym: tasks, otherwise of `env`.
    render_mode: as Gymnasium's; with "rgb_array", `render` returns pictures. Left out where `env` does not take one.

    Raises ValueError (one line) where the environment cannot be made or used.
    """
    if task.startswith(OWN_PREFIX):
        if env is None:
            raise ValueError(
                f"{task} is an environment that a function of yours makes: pass it as env=..., from Python (train, "
                "resume and load_run of trpo_lessons.training take it)"
            )
        make_one = env
        if render_mode and not _takes_render_mode(env):
            render_mode = None
    else:
        make_one = partial(gymnasium.make, _checked_id(task))
    # Not every environment knows a render mode, not even None.
    known = dict(env_kwargs or {}) | ({"render_mode": render_mode} if render_mode else {})
    return GymnasiumVectorEnv(task, partial(make_one, **known), num_envs, seed=seed)


def _takes_render_mode(env: MakeOne) -> bool:
    parameters = inspect.signature(env).parameters
    return "render_mode" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _checked_id(task: str) -> str:
    spec = find_spec(task.removeprefix(PREFIX))
    # Imported here, because it takes a moment that most environments need not wait for.
    from trpo_lessons.envs.atari.settings import GAMES

    game = spec.kwargs.get("game")
    if game in GAMES and spec.kwargs.get("obs_type") != "ram":
        raise ValueError(f"{task} shows whole screens, which are too much for a policy here: use the task {game}")
    return task.removeprefix(PREFIX)


def _make_copies(task: str, make_one: MakeOne, num_envs: int) -> list[_Copy]:
    try:
        with foreign_code(task):
            made = [make_one() for _ in range(num_envs)]
    except EnvironmentFault as fault:
        problem = fault.__cause__
        # Gymnasium's, the packages' that are missing, and keyword arguments that nobody knows.
        if isinstance(problem, (Error, ImportError, TypeError)):
            raise ValueError(f"{task} cannot be made: {one_line(problem)}{place(problem)}") from problem
        raise
    for each in made:
        _check_is_environment(task, each)
    if len({id(each.unwrapped) for each in made}) < num_envs:
        raise ValueError(f"{task} cannot be made: env must make a new environment at every call, not the same again")
    return [_Copy(task, each) for each in made]


def _check_is_environment(task: str, env: Any) -> None:
    if not isinstance(env, gymnasium.Env):
        got = "None (does the function return it?)" if env is None else f"a {type(env).__name__}"
        raise ValueError(f"{task} cannot be made: env must make a gymnasium.Env, not {got}")
    for name in ("observation_space", "action_space"):
        space = getattr(env, name, None)
        if not isinstance(space, gymnasium.Space):
            got = "none" if space is None else f"a {type(space).__name__}"
            raise ValueError(f"{task} cannot be made: its {name} must be one of gymnasium.spaces, but it has {got}")


def _same(env: _Copy) -> _Copy:
    return env
