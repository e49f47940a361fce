"""Paths and rollout sets of games: frames stored once, rewards clipped to their sign, scores as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.envs.atari.frames import FrameRecorder, FrameStacks
from trpo_lessons.envs.base import Bools, Floats
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.rollouts import Outcome
from trpo_lessons.single_path import PathRecord, PathRecorder, by_environment
from trpo_lessons.surrogate import Columns

# Bytes. What networks see of a path is kept where it takes no more, such as 8192 steps of the paper's frames; of longer
# paths it is made again, chunk by chunk, for every pass.
ROOM_FOR_SEEN = 300_000_000
FRAMES_AT_ONCE = 1024  # to be added to the statistics: moments take twenty times the memory of bytes


@dataclass(frozen=True)
class GameStates(Columns):
    """States of games, stacked when `obs` is asked for: chunk by chunk, a batch of any size fits in memory."""

    frames: FrameStacks

    @cached_property
    def obs(self) -> Tensor:
        """As the policy saw them, float32 [N, 4, height, width]; made when first asked for, kept as long as this is."""
        return self.frames.normalised()


@dataclass(frozen=True)
class GameBatch(GameStates):
    """What `surrogate.Batch` is, for games."""

    actions: Tensor
    advantages: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class GameRolloutSet(GameStates):
    """What `rollout_set.RolloutSet` is, for games."""

    actions: Tensor
    q_values: Tensor
    log_q: Tensor


def as_learned(
    scores: NDArray[Any], terminated: Bools, infos: Mapping[str, Any], life_loss_ends: bool
) -> tuple[Floats, Bools]:
    """A step of games as the learner is told of it: the signs of its scores, [E], and what terminates, [E].

    life_loss_ends: a lost life terminates, although the game goes on.
    """
    return np.sign(scores), terminated | infos["life_lost"] if life_loss_ends else terminated


@dataclass(frozen=True)
class GamePath(PathRecord):
    """A path with its frames: E * T observations, game by game, [4, height, width] each.

    Rewards are the signs of scores: -1, 0 or 1. Where it is to count as an end, a lost life terminates, and the returns
    and lengths are still those of whole games.
    """

    frames: FrameStacks

    @property
    def flaw(self) -> str:
        """Why this path must not be learned from, or ""; what emulators say is always finite."""
        return "" if self.log_q.isfinite().all() else "a log probability is not finite"

    @property
    def states(self) -> GameStates:
        """The states before all steps, [E * T], game by game."""
        return GameStates(self._stacks)

    @cached_property
    def _stacks(self) -> FrameStacks:
        return self.frames.seen_at_once() if 4 * math.prod(self.frames.shape) <= ROOM_FOR_SEEN else self.frames

    def statistics_after(self, statistics: RunningMoments) -> RunningMoments:
        """The statistics for the next iteration: those of everything seen so far and of this path's new frames.

        Of every fourth: neighbours are almost the same.
        """
        num_steps, num_games = self.rewards.shape
        for rows in torch.split(self.frames.frames[-num_steps::4], max(1, FRAMES_AT_ONCE // num_games)):
            statistics = statistics.including(rows.flatten(0, 1))
        return statistics

    def states_at(self, steps: Tensor) -> GameStates:
        """The states before some steps, [N], given their (t, e), [N, 2]."""
        return GameStates(self._stacks[steps[:, 1] * len(self.rewards) + steps[:, 0]])

    def batch(self, advantages: Tensor) -> GameBatch:
        """The batch for an update, given `advantages` [T, E]; game by game."""
        return GameBatch(self._stacks, *map(by_environment, (self.actions, advantages.float(), self.log_q)))


class GameRecorder(PathRecorder):
    """Collects the rows of a GamePath of `num_steps` steps."""

    def __init__(self, num_steps: int, first_obs: Tensor, statistics: RunningMoments, life_loss_ends: bool) -> None:
        """`first_obs` [E, 4, height, width], `statistics` as the policy has them; `life_loss_ends`: a lost life is
        recorded as a termination.
        """
        super().__init__()
        num_games, _, height, width = first_obs.shape
        self._frames = FrameRecorder(num_steps, num_games, (height, width))
        self._normalise = statistics.normalise
        self._started = torch.zeros(num_games, dtype=torch.bool)
        self._life_loss_ends = life_loss_ends

    def record(self, raw_obs: Tensor, obs: Tensor, answer: Distribution, actions: Tensor, outcome: Outcome) -> None:
        """One step of every game; rewards are scores."""
        scores, terminated, truncated, infos = outcome
        started_next = torch.from_numpy(terminated | truncated)
        rewards, terminated = as_learned(scores, terminated, infos, self._life_loss_ends)
        super().record(raw_obs, obs, answer, actions, (rewards, terminated, truncated, infos))
        self._started = started_next

    def _see(self, raw_obs: Tensor, obs: Tensor) -> None:  # noqa: ARG002
        self._frames.record(raw_obs, self._started)

    def finish_game_path(self, next_obs: Tensor) -> GamePath:
        """The path, given the observations [E, 4, height, width] after its last step."""
        return GamePath(frames=self._frames.finish(self._normalise), **self._rest(next_obs))
