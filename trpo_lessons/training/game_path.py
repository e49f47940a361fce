"""A path through games: frames stored once, rewards clipped to their sign, scores as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.envs.atari.frames import FrameRecorder, FrameStacks
from trpo_lessons.single_path import PathRecorder, RunningMoments, by_environment, values_after
from trpo_lessons.surrogate import Columns, chunks


@dataclass(frozen=True)
class GameStates(Columns):
    """States of games, stacked when `obs` is asked for: chunk by chunk, a batch of any size fits in memory."""

    frames: FrameStacks

    @cached_property
    def obs(self) -> Tensor:
        """Observations uint8 [N, 4, height, width], made when they are first asked for and kept as long as this is."""
        return self.frames.tensor()


@dataclass(frozen=True)
class GameBatch(GameStates):
    """What `surrogate.Batch` is, for games."""

    actions: Tensor
    advantages: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class GamePath:
    """T steps of E games side by side, as the learner counts them, and what is needed to go on.

    frames       E * T observations, game by game
    actions      [T, E, 3], or [T, E] where actions are not those of a joystick
    log_q        [T, E]  their log probability under the policy that drew them
    rewards      [T, E]  -1, 0 or 1: the sign of the score; float64
    terminated   [T, E]  bool: the game ended, or a life was lost where that is to count as an end
    truncated    [T, E]  bool: the game was cut by its time limit
    final_obs    [number of truncated steps, 4, height, width]  what each of them led to, in order of (t, e); uint8
    next_obs     [E, 4, height, width]  from which sampling goes on; uint8
    episode_returns, episode_lengths  raw scores and steps of the whole games that ended during these steps
    seconds      wall time spent "acting" and "simulating"
    """

    frames: FrameStacks
    actions: Tensor
    log_q: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    next_obs: Tensor
    episode_returns: tuple[float, ...]
    episode_lengths: tuple[int, ...]
    seconds: dict[str, float]

    @property
    def num_steps(self) -> int:
        """How many steps of four frames were taken: T * E."""
        return self.rewards.numel()

    @property
    def problem(self) -> str:
        """Why this path must not be learned from, or ""; what emulators say is always finite."""
        return "" if self.log_q.isfinite().all() else "a log probability is not finite"

    def values(
        self, _statistics: RunningMoments, value: Callable[[Tensor], Tensor], chunk_size: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """V of the state before each step and of the state it led to, both [T, E]; see `single_path.values_along`."""
        num_rows, num_games = self.rewards.shape
        parts = [value(chunk.obs) for chunk in chunks(GameStates(self.frames), chunk_size)]
        values = torch.cat(parts).view(num_games, num_rows).T
        return values, values_after(values, value(self.next_obs), value(self.final_obs), self.truncated)

    def statistics_after(self, statistics: RunningMoments) -> RunningMoments:
        """Unchanged: the network scales pixels by itself, always in the same way."""
        return statistics

    def batch(self, advantages: Tensor) -> GameBatch:
        """The batch for an update, given `advantages` [T, E]; game by game."""
        return GameBatch(self.frames, *map(by_environment, (self.actions, advantages.float(), self.log_q)))


class GameRecorder(PathRecorder):
    """Collects the rows of a GamePath of `num_steps` steps."""

    COLUMNS = ("actions", "rewards", "terminated", "truncated")

    def __init__(self, num_steps: int, first_obs: Tensor, life_loss_ends: bool) -> None:
        """`first_obs` [E, 4, height, width]; `life_loss_ends`: a lost life is recorded as a termination."""
        super().__init__()
        num_games, _, height, width = first_obs.shape
        self._frames = FrameRecorder(num_steps, num_games, (height, width))
        self._started = torch.zeros(num_games, dtype=torch.bool)
        self._life_loss_ends = life_loss_ends

    def record(
        self,
        raw_obs: Tensor,
        obs: Tensor,
        distribution: Distribution,
        actions: Tensor,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        infos: Mapping[str, Any],
    ) -> None:
        """One step of every game; rewards are scores."""
        self._frames.record(raw_obs, self._started)
        self._started = torch.from_numpy(terminated | truncated)
        if self._life_loss_ends:
            terminated = terminated | infos["life_lost"]
        super().record(raw_obs, obs, distribution, actions, np.sign(rewards), terminated, truncated, infos)

    def finish_game_path(self, next_obs: Tensor) -> GamePath:
        """The path, given the observations [E, 4, height, width] after its last step."""
        columns: dict[str, Any] = {name: torch.stack(rows) for name, rows in self._rows.items()}
        return GamePath(self._frames.finish(), **columns, **self._rest(columns["actions"], next_obs))
