"""E games side by side: what the two ways to play them have in common."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpo_lessons.envs.atari.settings import MAX_EPISODE_STEPS, AtariSettings, Controls, rom_path
from trpo_lessons.envs.base import Bools, EpisodicVectorEnv, Floats, refuse_options
from trpo_lessons.envs.random_state import Seed, one_seed_each


class GamesVectorEnv(EpisodicVectorEnv):
    """E games. Observations are uint8 [E, 4, height, width], rewards the raw score; an episode is a whole game.

    A step is four frames. A game that lasts 108,000 frames (half an hour) is truncated. Infos of every step hold
    `lives` [E] int64, those of the state that the observation shows, and `life_lost` [E] bool, a learning signal: a
    life was lost and the game goes on. The newest frame is the last one of an observation; frames from before the start
    of a game are zero. `frames` stores each of them once.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        settings: AtariSettings | None = None,
        *,
        seed: Seed = None,
        threads: int | None = None,
        max_episode_steps: int = MAX_EPISODE_STEPS,
    ) -> None:
        """threads: how many processes or threads play, None takes one for each processor. Raises MissingRom."""
        self.settings = settings or AtariSettings()
        self._rom = rom_path(game)
        self._controls = Controls(game, self.settings.actions)
        super().__init__(
            game,
            num_envs,
            self.settings.observation_space,
            self._controls.space,
            max_episode_steps=max_episode_steps,
            seed=seed,
        )
        self._is_loaded = False  # whether the cartridges are in, with the generators as they are
        self._open(worker_count(threads, num_envs))

    @abstractmethod
    def _open(self, num_players: int) -> None:
        """Let so many processes or threads get ready to play; called once."""

    @property
    @abstractmethod
    def _lives(self) -> NDArray[np.int64]:
        """Lives left in every game, [E]; not to be changed."""

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        """As `EpisodicVectorEnv.reset`. With a seed, every cartridge is inserted anew: 0.1 s a game."""
        refuse_options(self.task, options)
        if seed is not None:
            one_seed_each(self.num_envs, seed)  # refuses bad ones while the games still can go on
            self._is_loaded = False
        return super().reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools, Bools, dict[str, Any]]:
        """As `EpisodicVectorEnv.step`, with lives in the infos."""
        before = self._lives.copy()
        obs, rewards, terminated, truncated, infos = super().step(actions)
        after, done = self._lives.copy(), terminated | truncated
        return obs, rewards, terminated, truncated, infos | {"lives": after, "life_lost": (after < before) & ~done}


def worker_count(threads: int | None, num_envs: int) -> int:
    """One for each processor, or as many as are asked for, but never more than there are games."""
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    return min(threads or os.cpu_count() or 1, num_envs)
