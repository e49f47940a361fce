"""A trained policy acts: observations of the task's environment in, actions that it takes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trpo_lessons.distributions import Distribution
from trpo_lessons.envs.adapter import GymnasiumVectorEnv, flat_observations, inner_actions
from trpo_lessons.single_path import for_environment
from trpo_lessons.training.settings.methods import POPULATION_METHODS

if TYPE_CHECKING:
    from trpo_lessons.training.running.run import Run


@dataclass(frozen=True)
class Spaces:
    """What one copy of an environment shows and takes, and the same as its policy sees and says it.

    They differ for Gymnasium's environments alone, whose observations are made vectors of.
    """

    observation: gym.Space[Any]
    action: gym.Space[Any]
    flat_observation: gym.Space[Any]
    flat_action: gym.Space[Any]

    @classmethod
    def of(cls, env: VectorEnv[Any, Any, Any]) -> Spaces:
        """The spaces of a task's environment, as `envs.make` makes it."""
        flat = env.single_observation_space, env.single_action_space
        inner = flat
        if isinstance(env, GymnasiumVectorEnv):
            inner = env.inner_observation_space, env.inner_action_space
        return cls(*inner, *flat)


def act(run: Run, obs: Any, generator: torch.Generator | None = None) -> Any:
    """See `Run.act`."""
    spaces, rows = run.spaces, np.asarray(obs)
    single = rows.shape == spaces.observation.shape
    if single:
        rows = rows[None]
    if rows.shape[1:] != spaces.observation.shape:
        raise ValueError(
            f"{run.config.task} has observations of shape {spaces.observation.shape}, one or several along a first "
            f"axis; these have shape {rows.shape}"
        )
    is_flat = spaces.observation is spaces.flat_observation
    _check_kind(run.config.task, rows, spaces.observation if is_flat else None)
    seen = _as_torch_takes_it(rows) if is_flat else flat_observations(spaces.observation, rows)
    if seen.dtype.kind == "f" and np.isnan(seen).any():
        raise ValueError(f"an observation for {run.config.task} is not a number (nan): there is no action for it")
    actions = choose_actions(run, seen, spaces.flat_action, generator)
    if not is_flat:
        actions = inner_actions(spaces.action, actions)
    return actions[0] if single else actions


def _check_kind(task: str, rows: NDArray[Any], pictures: gym.Space[Any] | None) -> None:
    """Raises ValueError for what is no number, and for pictures of games that are not in bytes."""
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"observations for {task} are numbers; these are of type {rows.dtype}")
    if pictures is not None and pictures.dtype == np.uint8 and rows.dtype != np.uint8:
        raise ValueError(f"frames for {task} are bytes from 0 to 255 (uint8), not scaled; these are {rows.dtype}")


def _as_torch_takes_it(rows: NDArray[Any]) -> NDArray[Any]:
    # Writable, without negative strides, and of a type that torch has: a copy, which is small.
    return np.array(rows, dtype=np.uint8 if rows.dtype == np.uint8 else np.float64, order="C")


def choose_actions(
    run: Run, obs: NDArray[Any], space: gym.Space[Any], generator: torch.Generator | None = None
) -> NDArray[Any]:
    """The policy's actions for `obs` [N, *obs_shape] of its own environments, as they take them: sampled, or without a
    generator the most likely ones.

    Raises ValueError for samples of a policy that was searched for: its noise has never been played, nor fitted.
    """
    if generator is not None and run.config.method in POPULATION_METHODS:
        raise ValueError(f"{run.config.method} searches for policies without noise: take their most likely actions")
    distribution = distribution_for(run, obs)
    return for_environment(distribution.sample(generator) if generator else distribution.mode(), space)


def distribution_for(run: Run, obs: NDArray[Any]) -> Distribution:
    """The policy's distributions over actions for `obs` [N, *obs_shape] of its own environments; without gradient."""
    with torch.no_grad():
        return run.policy(run.theta, run.statistics.normalise(torch.as_tensor(obs)))
