"""Vine sampling in training: trunks that go on from batch to batch, and all their branches side by side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import gymnasium as gym
import torch

from trpo_lessons import envs
from trpo_lessons.rollout_set import FirstActions, every_action, from_the_policy, uniformly
from trpo_lessons.single_path import Actor
from trpo_lessons.training.sampling.groups import Group, Sampler, Value
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.vine import Branching, Vine, sample_vine

# Rollouts side by side. Wide enough that a step of the policy is cheap for each of them, and narrow enough that a copy
# whose rollout ends early finds another one waiting.
WIDTH = 256


class VineSampler(Sampler):
    """Trunks of `config.rows` steps in every environment, each from where the one before has ended, and their branches.

    Branches are many, and step together. So the simulator itself spreads every step over `config.threads`, which keeps
    them busier than groups with a thread each would, and the samples do not depend on their number. What the
    environments of the branches hold does not matter to the next batch, and is not part of `state`.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator, num_groups=1)
        self._config = config
        width, threads = width_for(config.vine_states * config.vine_branches, WIDTH), config.threads
        branches = envs.make(config.task, width, seed=config.seed, threads=threads, **config.task_settings)
        self._branches = envs.restorable(branches)
        self._branching = Branching(
            num_states=config.vine_states,
            first_actions=first_actions_for(branches.single_action_space, config.vine_branches, config.first_actions),
            rollout_length=config.rollout_length,
            gamma=config.gamma,
        )

    def sample(self, pi_old: Actor, value: Value | None = None) -> Vine:
        """The next trunk and its branches; `value` is asked for the rest where a branch is cut."""
        branching = replace(self._branching, value=value)

        def follow(group: Group) -> Vine:
            trunk_env, rows = envs.restorable(group.env), self._config.rows
            vine = sample_vine(trunk_env, self._branches, pi_old, group.raw_obs, rows, branching, group.generator)
            group.raw_obs = vine.trunk.next_obs
            return vine

        (vine,) = self.in_threads(follow)
        return vine

    def close(self) -> None:
        """Close the environments, those of the branches too."""
        super().close()
        self._branches.close()


def first_actions_for(action_space: gym.Space[Any], num_branches: int, drawn: str = "uniform") -> FirstActions:
    """How to choose the K first actions of a state.

    K actions are drawn, for equation 17: continuous ones from the policy, discrete ones uniformly or, where `drawn` is
    "policy", from it as well. With as many branches as there are actions to be drawn uniformly, each gets one instead,
    and equation 16 needs no drawing at all.
    """
    if drawn == "policy":
        return from_the_policy(num_branches)
    if isinstance(action_space, gym.spaces.MultiDiscrete):
        num_actions = math.prod(action_space.nvec.tolist())
    elif isinstance(action_space, gym.spaces.Discrete):
        num_actions = int(action_space.n)
    else:
        return from_the_policy(num_branches)
    return every_action if num_branches == num_actions else uniformly(num_branches)


def width_for(num_rollouts: int, most: int) -> int:
    """How many rollouts to follow side by side, `most` or less: all copies get equally much to do."""
    rounds = math.ceil(num_rollouts / most)
    return math.ceil(num_rollouts / rounds)
