"""The episodes of a population: every copy of the environment follows a policy of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.envs.episodes import Episodes, play_episodes
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.rollouts import rows_of
from trpo_lessons.policies import Policy
from trpo_lessons.prior_methods.many_policies import ManyPolicies
from trpo_lessons.single_path import for_environment
from trpo_lessons.training.running.stopping import check
from trpo_lessons.training.sampling.groups import EnvironmentGroups, Group
from trpo_lessons.training.settings.config import TrainConfig


@dataclass(frozen=True)
class Played:
    """What a population of P has done, K episodes each.

    returns, lengths  [P, K]
    raw_obs           [steps of all of them, obs_dim]  all observations before a step; float64
    seconds           wall time spent "acting" and "simulating"
    """

    returns: Tensor
    lengths: Tensor
    raw_obs: Tensor
    seconds: Mapping[str, float]

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken."""
        return int(self.lengths.sum())

    @property
    def flaw(self) -> str:
        """Why this must not be learned from, or "" when all numbers are finite."""
        if not self.raw_obs.isfinite().all():
            return "an observation is not finite"
        return "" if self.returns.isfinite().all() else "a return is not finite"


class PopulationSampler(EnvironmentGroups):
    """Plays `config.episodes` whole episodes with every theta of a population, and takes no other step.

    All begin in the same states, in every generation in new ones, so that within a generation nothing but theta makes
    one return better than another. Where the simulator leaves the interpreter free, each of `config.threads` plays its
    share of the population.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Raises ValueError for an environment that cannot restore its state."""
        num_episodes = config.population * config.episodes
        copies = min(config.num_envs, num_episodes)
        parallel = config.task in envs.TASKS and envs.TASKS[config.task].frees_interpreter
        num_groups = min(config.threads, copies) if parallel else 1
        super().__init__(config, torch.Generator(), num_groups, copies)
        self._shares = np.array_split(np.arange(num_episodes), num_groups)
        self._starts = envs.restorable(envs.make(config.task, config.episodes, threads=1, **config.task_settings))
        self._episodes = config.episodes

    def play(self, policy: Policy, thetas: Tensor, statistics: RunningMoments, generation: int) -> Played:
        """The episodes of the population `thetas` [P, num_searched]; generations differ in where they begin."""
        seeds = envs.derived_seeds(self._seed, f"generation {generation}", self._episodes)
        envs.begin_episodes(self._starts, seeds)
        starts = self._starts.save_state()
        shares = {id(group): share for group, share in zip(self._groups, self._shares, strict=True)}

        def follow(group: Group) -> Episodes:
            share = shares[id(group)]
            policies = ManyPolicies(policy, thetas)
            space, step = group.env.single_action_space, self.taking_turns(group.env).step

            def act(raw_obs: NDArray[np.float64], episode: NDArray[np.int64], changed: bool) -> NDArray[Any]:
                check()
                if changed:
                    policies.seat(share[episode] // self._episodes)
                answer = policies(statistics.normalise(torch.from_numpy(raw_obs)))
                return for_environment(answer.mode(), space)

            return play_episodes(envs.restorable(group.env), act, rows_of(starts, share % self._episodes), step)

        parts = self.in_threads(follow)
        shape = (len(thetas), self._episodes)
        return Played(
            torch.cat([part.returns for part in parts]).view(shape),
            torch.cat([part.lengths for part in parts]).view(shape),
            torch.cat([part.raw_obs for part in parts]),
            {phase: sum(part.seconds[phase] for part in parts) / len(parts) for phase in parts[0].seconds},
        )

    def close(self) -> None:
        """Close the environments, also the one that gives the starts."""
        super().close()
        self._starts.close()
