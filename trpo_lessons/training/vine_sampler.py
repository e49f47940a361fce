"""Vine sampling on several cores, by `groups` of environments: each grows trunks, and branches from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import ValueFunction
from trpo_lessons.envs import RestorableVectorEnv
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments
from trpo_lessons.surrogate import Surrogate
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.groups import EnvironmentGroups, Group
from trpo_lessons.training.path_sampler import side_by_side
from trpo_lessons.vine import (
    FirstActions,
    RolloutSet,
    Vine,
    all_actions_surrogate,
    every_action,
    from_the_policy,
    sample_vine,
    self_normalised_surrogate,
    uniformly,
)

# Rollouts side by side, in each group. Wide enough that a step of the policy is cheap for each of them, and narrow
# enough that a copy whose rollout ends early finds another one waiting.
WIDTH = 128


class VineSampler(EnvironmentGroups):
    """Trunks of `config.rows` steps in every environment, each from where the one before has ended, and their branches.

    Groups have equally many environments and states with branches, so that every step of the trunk is equally likely to
    be chosen: there are as many groups as divide both evenly, `config.threads` at most. What the environments of the
    branches hold does not matter to the next batch, and is not part of `state`.

    surrogate: what the rollout sets are made for, equation 16 or 17; see `way_to_branch`.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        num_groups = _equal_groups(config) if envs.TASKS[config.task].frees_interpreter else 1
        super().__init__(config, generator, num_groups)
        self._config, self._states_in_a_group = config, config.vine_states // num_groups
        width = _width(self._states_in_a_group * config.vine_branches)
        self._branches = [
            envs.make(config.task, width, seed=config.seed, threads=1, **config.task_settings) for _ in self._groups
        ]
        self._first_actions, self.surrogate = way_to_branch(self.envs[0].single_action_space, config.vine_branches)

    def sample(
        self, policy: Policy, theta: Tensor, statistics: RunningMoments, value: ValueFunction | None = None
    ) -> Vine:
        """The next trunk and its branches; `value` is asked for the rest where a branch is cut."""

        def follow(group: Group) -> Vine:
            vine = sample_vine(
                self._restorable_in_turns(group.env),
                self._restorable_in_turns(self._branches[self._groups.index(group)]),
                policy,
                theta,
                statistics,
                group.raw_obs,
                trunk_steps=self._config.rows,
                num_states=self._states_in_a_group,
                first_actions=self._first_actions,
                rollout_length=self._config.rollout_length,
                gamma=self._config.gamma,
                generator=group.generator,
                value=value,
            )
            group.raw_obs = vine.trunk.next_obs
            return vine

        return joined(self.in_threads(follow))

    def close(self) -> None:
        """Close the environments, those of the branches too."""
        super().close()
        for env in self._branches:
            env.close()

    def _restorable_in_turns(self, env: VectorEnv[Any, Any, Any]) -> RestorableVectorEnv:
        return cast(RestorableVectorEnv, self.taking_turns(env))  # it can do what is asked of it, whatever its type


def way_to_branch(action_space: gym.Space[Any], num_branches: int) -> tuple[FirstActions, Surrogate]:
    """How to choose the K first actions of a state, and the surrogate for them.

    With as many branches as there are actions, each action gets one, and equation 16 needs no sampling of actions at
    all. Otherwise K actions are drawn, for equation 17: from the policy, or uniformly where actions are discrete.
    """
    if not isinstance(action_space, gym.spaces.Discrete):
        return from_the_policy(num_branches), self_normalised_surrogate
    if num_branches == action_space.n:
        return every_action, all_actions_surrogate
    return uniformly(num_branches), self_normalised_surrogate


def joined(vines: Sequence[Vine]) -> Vine:
    """The vines of several groups as one: their environments follow each other; seconds are means."""
    if len(vines) == 1:
        return vines[0]
    before = np.cumsum([0, *(vine.trunk.rewards.shape[1] for vine in vines[:-1])])
    sets = [vine.rollout_set for vine in vines]
    columns = ("obs", "actions", "q_values", "log_q")
    return Vine(
        trunk=side_by_side([vine.trunk for vine in vines]),
        chosen=torch.cat(
            [vine.chosen + torch.tensor([0, first]) for vine, first in zip(vines, before.tolist(), strict=True)]
        ),
        saved={name: np.concatenate([vine.saved[name] for vine in vines]) for name in vines[0].saved},
        rollout_set=RolloutSet(**{name: torch.cat([getattr(each, name) for each in sets]) for name in columns}),
        log_pi_old=torch.cat([vine.log_pi_old for vine in vines]),
        lengths=torch.cat([vine.lengths for vine in vines]),
        branch_steps=sum(vine.branch_steps for vine in vines),
        seconds={phase: sum(vine.seconds[phase] for vine in vines) / len(vines) for phase in vines[0].seconds},
    )


def _equal_groups(config: TrainConfig) -> int:
    divisor = math.gcd(config.num_envs, config.vine_states)
    return max(count for count in range(1, config.threads + 1) if divisor % count == 0)


def _width(num_rollouts: int) -> int:
    rounds = math.ceil(num_rollouts / WIDTH)
    return math.ceil(num_rollouts / rounds)  # copies have equally much to do
