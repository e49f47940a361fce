"""Vine sampling in training: trunks that go on from batch to batch, and all their branches side by side."""

from __future__ import annotations

import math

import gymnasium as gym
import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import ValueFunction
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments
from trpo_lessons.surrogate import Surrogate
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.groups import EnvironmentGroups, Group
from trpo_lessons.vine import (
    FirstActions,
    Vine,
    all_actions_surrogate,
    every_action,
    from_the_policy,
    sample_vine,
    self_normalised_surrogate,
    uniformly,
)

# Rollouts side by side. Wide enough that a step of the policy is cheap for each of them, and narrow enough that a copy
# whose rollout ends early finds another one waiting.
WIDTH = 256


class VineSampler(EnvironmentGroups):
    """Trunks of `config.rows` steps in every environment, each from where the one before has ended, and their branches.

    Branches are many, and step together. So the simulator itself spreads every step over `config.threads`, which keeps
    them busier than groups with a thread each would, and the samples do not depend on their number. What the
    environments of the branches hold does not matter to the next batch, and is not part of `state`.

    surrogate: what the rollout sets are made for, equation 16 or 17; see `way_to_branch`.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator, num_groups=1)
        self._config = config
        width, threads = _width(config.vine_states * config.vine_branches), config.threads
        branches = envs.make(config.task, width, seed=config.seed, threads=threads, **config.task_settings)
        self._branches = envs.restorable(branches)
        self._first_actions, self.surrogate = way_to_branch(branches.single_action_space, config.vine_branches)

    def sample(
        self, policy: Policy, theta: Tensor, statistics: RunningMoments, value: ValueFunction | None = None
    ) -> Vine:
        """The next trunk and its branches; `value` is asked for the rest where a branch is cut."""

        def follow(group: Group) -> Vine:
            vine = sample_vine(
                envs.restorable(group.env),
                self._branches,
                policy,
                theta,
                statistics,
                group.raw_obs,
                trunk_steps=self._config.rows,
                num_states=self._config.vine_states,
                first_actions=self._first_actions,
                rollout_length=self._config.rollout_length,
                gamma=self._config.gamma,
                generator=group.generator,
                value=value,
            )
            group.raw_obs = vine.trunk.next_obs
            return vine

        (vine,) = self.in_threads(follow)
        return vine

    def close(self) -> None:
        """Close the environments, those of the branches too."""
        super().close()
        self._branches.close()


def way_to_branch(action_space: gym.Space[object], num_branches: int) -> tuple[FirstActions, Surrogate]:
    """How to choose the K first actions of a state, and the surrogate for them.

    With as many branches as there are actions, each action gets one, and equation 16 needs no sampling of actions at
    all. Otherwise K actions are drawn, for equation 17: from the policy, or uniformly where actions are discrete.
    """
    if not isinstance(action_space, gym.spaces.Discrete):
        return from_the_policy(num_branches), self_normalised_surrogate
    if num_branches == action_space.n:
        return every_action, all_actions_surrogate
    return uniformly(num_branches), self_normalised_surrogate


def _width(num_rollouts: int) -> int:
    rounds = math.ceil(num_rollouts / WIDTH)
    return math.ceil(num_rollouts / rounds)  # copies have equally much to do
