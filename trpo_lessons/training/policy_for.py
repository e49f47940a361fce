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
    head = head_for(env.single_action_space, config.initial_log_std)
    return mlp_policy(observation_dim(env.single_observation_space), head, config.hidden)


def observation_dim(space: gym.Space[Any]) -> int:
    """Length of the observation vectors. Raises SettingError (one line) where observations are anything else."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise SettingError(f"observations must be vectors of numbers, but they are from {space}")
    return space.shape[0]


def head_for(space: gym.Space[Any], initial_log_std: float = 0.0) -> Head:
    """The head for an action space: Box -> Gaussian, Discrete -> categorical, MultiDiscrete -> factored."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return GaussianHead(space.shape[0], initial_log_std)
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return CategoricalHead(int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return FactoredHead(tuple(int(n) for n in space.nvec))
    raise SettingError(f"no policy for actions from {space}: need a vector Box, a Discrete or a MultiDiscrete space")
