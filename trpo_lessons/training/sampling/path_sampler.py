"""Single-path sampling on several cores, by `groups` of environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.single_path import Actor, PathRecord, SinglePath, sample_single_path
from trpo_lessons.training.sampling.groups import Group, Sampler, Value
from trpo_lessons.training.settings.config import TrainConfig


class PathSampler(Sampler):
    """Paths of `config.rows` steps in every environment, each from where the one before has ended.

    There is one group for each of `config.threads` where the simulator leaves the interpreter free, otherwise a single
    one.
    """

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        parallel = config.task in envs.TASKS and envs.TASKS[config.task].frees_interpreter
        super().__init__(config, generator, min(config.threads, config.num_envs) if parallel else 1)
        self._rows = config.rows

    def sample(self, pi_old: Actor, value: Value | None = None) -> SinglePath:  # noqa: ARG002
        """Follow the policy for `config.rows` steps in every environment, from where they are."""

        def follow(group: Group) -> SinglePath:
            env = self.taking_turns(group.env)
            path = sample_single_path(env, pi_old, group.raw_obs, self._rows, group.generator)
            group.raw_obs = path.next_obs
            return path

        return side_by_side(self.in_threads(follow))


def side_by_side(paths: Sequence[SinglePath]) -> SinglePath:
    """The paths of several groups as one: their environments follow each other along axis E; seconds are means."""
    return paths[0] if len(paths) == 1 else SinglePath(**joined(paths, ("raw_obs", "obs")))


def joined(paths: Sequence[PathRecord], observations: Sequence[str]) -> dict[str, Any]:
    """The fields of several paths as those of one; of the columns of `observations` only those that are named."""
    columns = (*observations, "actions", "log_q", "rewards", "terminated", "truncated")
    return {
        **{name: torch.cat([getattr(path, name) for path in paths], dim=1) for name in columns},
        "final_obs": _final_obs(paths),
        "next_obs": torch.cat([path.next_obs for path in paths]),
        "episode_returns": tuple(r for path in paths for r in path.episode_returns),
        "episode_lengths": tuple(n for path in paths for n in path.episode_lengths),
        "seconds": {phase: sum(path.seconds[phase] for path in paths) / len(paths) for phase in paths[0].seconds},
    }


def _final_obs(paths: Sequence[PathRecord]) -> Tensor:
    """Every group lists its truncated steps in order of (t, e); so must all of them together."""
    widths = [path.truncated.shape[1] for path in paths]
    firsts = [sum(widths[:i]) for i in range(len(widths))]
    per_row = torch.tensor([sum(widths), 1])
    places = [path.truncated.nonzero() @ per_row + first for path, first in zip(paths, firsts, strict=True)]
    return torch.cat([path.final_obs for path in paths])[torch.cat(places).argsort()]
