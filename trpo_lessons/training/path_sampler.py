"""Single-path sampling on several cores, by `groups` of environments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments, SinglePath, sample_single_path
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.groups import EnvironmentGroups, Group


class PathSampler(EnvironmentGroups):
    """Paths of `config.rows` steps in every environment, each from where the one before has ended.

    There is one group for each of `config.threads` where the simulator leaves the interpreter free, otherwise a single
    one.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        parallel = config.task in envs.TASKS and envs.TASKS[config.task].frees_interpreter
        super().__init__(config, generator, min(config.threads, config.num_envs) if parallel else 1)
        self._rows = config.rows

    def sample(self, policy: Policy, theta: Tensor, statistics: RunningMoments) -> SinglePath:
        """Follow the policy for `config.rows` steps in every environment, from where they are."""

        def follow(group: Group) -> SinglePath:
            env = self.taking_turns(group.env)
            path = sample_single_path(env, policy, theta, statistics, group.raw_obs, self._rows, group.generator)
            group.raw_obs = path.next_obs
            return path

        return side_by_side(self.in_threads(follow))


def side_by_side(paths: Sequence[SinglePath]) -> SinglePath:
    """The paths of several groups as one: their environments follow each other along axis E; seconds are means."""
    if len(paths) == 1:
        return paths[0]
    columns = ("raw_obs", "obs", "actions", "log_q", "rewards", "terminated", "truncated")
    joined = {name: torch.cat([getattr(path, name) for path in paths], dim=1) for name in columns}
    return SinglePath(
        **joined,
        final_obs=_final_obs(paths, joined["truncated"]),
        next_obs=torch.cat([path.next_obs for path in paths]),
        episode_returns=tuple(r for path in paths for r in path.episode_returns),
        episode_lengths=tuple(n for path in paths for n in path.episode_lengths),
        seconds={phase: sum(path.seconds[phase] for path in paths) / len(paths) for phase in paths[0].seconds},
    )


def _final_obs(paths: Sequence[SinglePath], truncated: Tensor) -> Tensor:
    """Every group lists its truncated steps in order of (t, e); so must all of them together."""
    by_step = torch.empty(*truncated.shape, paths[0].final_obs.shape[-1], dtype=torch.float64)
    widths = [path.truncated.shape[1] for path in paths]
    for path, part in zip(paths, torch.split(by_step, widths, dim=1), strict=True):
        part[path.truncated] = path.final_obs
    return by_step[truncated]
