"""Which policy suits an environment: the network from its observations, the head from its actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from trpo_lessons.policies import CategoricalHead, FactoredHead, GaussianHead, Head, Policy, mlp_policy
from trpo_lessons.training.config import SettingError, TrainConfig


def policy_for(env: VectorEnv, config: TrainConfig) -> Policy:
    """A policy with config.hidden layers for the environment's spaces.

    Raises SettingError (one line) for spaces that no policy here can handle.
    """
    obs_space = env.single_observation_space
    if not isinstance(obs_space, gym.spaces.Box) or len(obs_space.shape) != 1:
        raise SettingError(f"{config.task}: observations must be vectors of numbers, but they are {obs_space}")
    return mlp_policy(obs_space.shape[0], head_for(env.single_action_space, config.initial_log_std), config.hidden)


def head_for(space: gym.Space[Any], initial_log_std: float = 0.0) -> Head:
    """The head for an action space: Box -> Gaussian, Discrete -> categorical, MultiDiscrete -> factored."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return GaussianHead(space.shape[0], initial_log_std)
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return CategoricalHead(int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return FactoredHead(tuple(int(n) for n in space.nvec))
    raise SettingError(f"no policy for actions from {space}: need a vector Box, a Discrete or a MultiDiscrete space")
