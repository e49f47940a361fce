"""Any Gymnasium environment with box or discrete spaces, in the form that this package's own environments have.

`gym:ENV_ID` names such a task. Gymnasium steps its copies one after the other. Nothing is known of their inner state,
so it can be neither saved nor restored: such a task has no vine.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trpo_lessons.envs.base import Bools, Floats, checked_actions, refuse_options
from trpo_lessons.envs.foreign import EnvironmentFault, foreign_code
from trpo_lessons.envs.random_state import Seed, one_seed_each

PREFIX = "gym:"


class GymnasiumVectorEnv(VectorEnv[Floats, NDArray[Any], NDArray[Any]]):
    """E copies of a Gymnasium environment, with the resets, the infos and the refusals of `RestorableVectorEnv`.

    Observations are float64 [E, obs_dim]: a box is flattened, a discrete observation becomes an indicator vector.
    Actions are [E, action_dim] for a box, clipped to its bounds because many environments refuse what lies outside,
    and integers [E] from 0 for a discrete space.

    inner_observation_space, inner_action_space: those of one copy, as Gymnasium has them.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own idiom)

    def __init__(self, env_id: str, num_envs: int, *, seed: Seed = None, render_mode: str | None = None) -> None:
        """Seeds: see `reset`. Raises ValueError for an environment that cannot be made or has other spaces.

        render_mode: as Gymnasium's; with "rgb_array", `render` returns pictures.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs}")
        self.task = PREFIX + env_id
        self.num_envs = num_envs
        self._first_seeds: list[int | None] | None = one_seed_each(num_envs, seed)
        self._envs = _make_copies(env_id, num_envs, render_mode)
        self.metadata = self._envs.metadata
        self.inner_observation_space = self._envs.single_observation_space
        self.inner_action_space = _checked_action_space(self.task, self._envs.single_action_space)
        obs_dim = _observation_dim(self.task, self.inner_observation_space)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, shape=(obs_dim,), dtype=np.float64)
        self.single_action_space = _flat_action_space(self.inner_action_space)
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
        return flat_observations(self.inner_observation_space, obs), {}

    def step(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Bools, Bools, dict[str, Any]]:
        """As `RestorableVectorEnv.step`."""
        if self._needs_reset:
            raise ResetNeeded(f"call reset() of {self.task} before step()")
        actions = inner_actions(self.inner_action_space, checked_actions(self, self.task, actions))
        with foreign_code(self.task):
            obs, rewards, terminated, truncated, inner_infos = self._envs.step(actions)
        self._episode_returns += rewards
        self._episode_lengths += 1
        done = terminated | truncated
        infos = self._episode_ends(done, obs, inner_infos) if done.any() else {}
        return flat_observations(self.inner_observation_space, obs), rewards, terminated, truncated, infos

    def _episode_ends(self, done: Bools, obs: NDArray[Any], inner_infos: dict[str, Any]) -> dict[str, Any]:
        final_obs = np.array(obs)
        final_obs[done] = np.stack(list(inner_infos["final_obs"][done]))
        episode = {"r": np.where(done, self._episode_returns, 0.0), "l": np.where(done, self._episode_lengths, 0)}
        self._episode_returns[done] = 0.0
        self._episode_lengths[done] = 0
        final_obs = flat_observations(self.inner_observation_space, final_obs)
        return {"final_obs": final_obs, "_final_obs": done, "episode": episode, "_episode": done}

    def render(self) -> tuple[Any, ...] | None:
        """What every copy looks like, as Gymnasium draws it."""
        with foreign_code(self.task):
            return self._envs.render()

    def close_extras(self, **_kwargs: Any) -> None:
        """Close Gymnasium's environments."""
        self._envs.close()


def flat_observations(space: spaces.Space[Any], obs: NDArray[Any]) -> Floats:
    """Observations [N, ...] from a Box or Discrete `space` as vectors [N, obs_dim]."""
    if isinstance(space, spaces.Discrete):
        indicators: Floats = np.eye(int(space.n))[obs - space.start]
        return indicators
    return obs.astype(np.float64).reshape(len(obs), -1)


def inner_actions(space: spaces.Space[Any], actions: NDArray[Any]) -> NDArray[Any]:
    """Actions of a flat space, [N] or [N, action_dim], as Gymnasium's own `space` has them, [N, ...]; clipped to it."""
    if isinstance(space, spaces.Discrete):
        chosen: NDArray[Any] = actions + space.start
        return chosen
    assert isinstance(space, spaces.Box)
    boxed: NDArray[Any] = actions.reshape(len(actions), *space.shape).clip(space.low, space.high).astype(space.dtype)
    return boxed


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium knows of an environment; `module:ENV_ID` imports the module that registers it first.

    Raises ValueError in one line when there is no such environment.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (Error, ImportError) as problem:
        raise ValueError(f"there is no task {PREFIX}{env_id}: {_one_line(problem)}") from problem


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())


def _make_copies(env_id: str, num_envs: int, render_mode: str | None) -> SyncVectorEnv[Any, Any]:
    # Not every environment knows a render mode, not even None.
    known: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
    make_one = partial(gymnasium.make, env_id, **known)
    try:
        with foreign_code(PREFIX + env_id):
            return SyncVectorEnv([make_one] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    except EnvironmentFault as fault:
        problem = fault.__cause__
        if isinstance(problem, (Error, ImportError)):  # Gymnasium's, and the packages' that are missing
            raise ValueError(f"{PREFIX}{env_id} cannot be made: {_one_line(problem)}") from problem
        raise


def _observation_dim(task: str, space: spaces.Space[Any]) -> int:
    if isinstance(space, (spaces.Box, spaces.Discrete)):
        return spaces.flatdim(space)
    raise ValueError(f"{task} has a {type(space).__name__} observation space; only Box and Discrete can be used")


def _checked_action_space(task: str, space: spaces.Space[Any]) -> spaces.Box | spaces.Discrete:
    if isinstance(space, spaces.Discrete) or (
        isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)
    ):
        return space
    raise ValueError(
        f"{task} has a {type(space).__name__} action space of {space.dtype}; only Discrete and float Box can be used"
    )


def _flat_action_space(space: spaces.Box | spaces.Discrete) -> spaces.Box | spaces.Discrete:
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    return spaces.Box(space.low.ravel(), space.high.ravel(), dtype=np.float32)
