"""Which policy suits an environment: the network from its observations, the head from its actions."""

from __future__ import annotations

import math
import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from trpo_lessons.policies import CategoricalHead, FactoredHead, GaussianHead, Head, Policy, layers_for
from trpo_lessons.training.settings.config import SettingError, TrainConfig


def policy_for(env: VectorEnv, config: TrainConfig) -> Policy:
    """A policy with config.hidden layers for the environment's spaces; before them, where it shows pictures, the two
    convolutions of the paper.

    Raises SettingError (one line) for spaces that no policy here can handle.
    """
    head = head_for(env.single_action_space, config.initial_log_std)
    return Policy(layers_for(observation_shape(env.single_observation_space), config.hidden, head.num_inputs), head)


def observation_shape(space: gym.Space[Any]) -> tuple[int, ...]:
    """(length,) of vectors, or (frames, height, width) of pictures in bytes.

    Raises SettingError (one line) where observations are anything else.
    """
    if isinstance(space, gym.spaces.Box) and (len(space.shape) == 1 or is_picture(space)):
        return space.shape
    raise SettingError(f"observations must be vectors of numbers or stacks of frames, but they are from {space}")


def check_memory(env: VectorEnv, config: TrainConfig) -> None:
    """Raises SettingError (one line) where the observations of an iteration are more than this machine has room for.

    Pictures of this package's games are stored once and in bytes, and always fit; vectors are kept as float64, as they
    came, and as float32, as the policy saw them, and both twice while they are put together.
    """
    space = env.single_observation_space
    needed = 24 * config.steps_per_iteration * math.prod(observation_shape(space))
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if not is_picture(space) and needed > there_is:
        raise SettingError(
            f"an observation of {config.task} has {math.prod(space.shape or ()):,} numbers: an iteration of "
            f"{config.steps_per_iteration} steps takes {needed / 1e9:.0f} GB, and this machine has "
            f"{there_is / 1e9:.0f} GB; make observations smaller (such as by gymnasium.wrappers.ResizeObservation), or "
            "set fewer steps_per_iteration"
        )


def is_picture(space: gym.Space[Any]) -> bool:
    """Whether observations are stacks of frames, in bytes."""
    return space.dtype == np.uint8 and space.shape is not None and len(space.shape) == 3


def head_for(space: gym.Space[Any], initial_log_std: float = 0.0) -> Head:
    """The head for an action space: Box -> Gaussian, Discrete -> categorical, MultiDiscrete -> factored."""
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        return GaussianHead(space.shape[0], initial_log_std)
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return CategoricalHead(int(space.n))
    if isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return FactoredHead(tuple(int(n) for n in space.nvec))
    raise SettingError(f"no policy for actions from {space}: need a vector Box, a Discrete or a MultiDiscrete space")
