"""Sampling of games by `groups`: while one group acts, the games of the others are played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from trpo_lessons.envs.atari.frames import FrameStacks
from trpo_lessons.single_path import Actor, follow
from trpo_lessons.training.sampling.game_path import GamePath, GameRecorder
from trpo_lessons.training.sampling.groups import Group, Sampler, Value
from trpo_lessons.training.sampling.memory import keep_freed_memory
from trpo_lessons.training.sampling.path_sampler import joined
from trpo_lessons.training.settings.config import TrainConfig


class GameGroups(Sampler):
    """Games, one group of them for each of `config.threads`, and one process that plays those of a group."""

    OBS_DTYPE = torch.uint8

    def __init__(self, config: TrainConfig, generator: torch.Generator) -> None:
        keep_freed_memory()
        super().__init__(config, generator, min(config.threads, config.num_envs))
        self._config = config

    def follow(self, pi_old: Actor, env_of: Callable[[Group], VectorEnv[Any, Any, Any]]) -> GamePath:
        """A path of `config.rows` steps in every game, from where it is; `env_of` may wrap a group's environment."""
        rows, life_loss_ends = self._config.rows, self._config.life_loss_ends

        def play(group: Group) -> GamePath:
            env, generator = self.taking_turns(env_of(group)), group.generator
            recorder = GameRecorder(rows, group.raw_obs, pi_old.statistics, life_loss_ends)
            group.raw_obs = follow(env, pi_old, group.raw_obs, rows, generator, recorder)
            return recorder.finish_game_path(group.raw_obs)

        return side_by_side(self.in_threads(play))


class GameSampler(GameGroups):
    """Paths of `config.rows` steps in every game, each from where the one before has ended."""

    def sample(self, pi_old: Actor, value: Value | None = None) -> GamePath:  # noqa: ARG002
        """Follow the policy for `config.rows` steps in every game, from where they are."""
        return self.follow(pi_old, lambda group: group.env)


def side_by_side(paths: Sequence[GamePath]) -> GamePath:
    """The paths of several groups as one: their games follow each other; seconds are means."""
    if len(paths) == 1:
        return paths[0]
    frames, shown = (torch.cat([getattr(path.frames, name) for path in paths], dim=1) for name in ("frames", "shown"))
    stacks = FrameStacks(frames, shown, torch.arange(shown.numel()), paths[0].frames.normalise)
    return GamePath(frames=stacks, **joined(paths, ()))
