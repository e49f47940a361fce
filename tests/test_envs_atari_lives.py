"""A life that is lost is told apart from a game that ends, also with more lives than a game begins with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trpo_lessons.envs.atari.games import GamesVectorEnv
from trpo_lessons.envs.base import Bools, Floats

STARTS_WITH = 3


class Scripted(GamesVectorEnv):
    """One game whose lives and end follow a script: (lives after the step, game over)."""

    script: list[tuple[int, bool]]

    def _open(self, num_players: int) -> None:
        self.count, self.step_number = np.zeros(1, dtype=np.int64), 0

    @property
    def _lives(self) -> NDArray[np.int64]:
        return self.count

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        self.count[:] = STARTS_WITH

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools]:
        self.count[:], over = self.script[self.step_number]
        self.step_number += 1
        return self._observe(), np.zeros(1), np.array([over])

    def _observe(self) -> NDArray[Any]:
        return np.zeros((1, 4, self.settings.height, self.settings.width), dtype=np.uint8)


@pytest.mark.parametrize(
    ("script", "limit", "lost"),
    [
        ([(3, False), (2, False), (2, False), (1, False)], 100, [0, 1, 0, 1]),
        ([(2, False), (0, True), (3, False), (2, False)], 100, [1, 0, 0, 1]),  # the last life ends the game
        ([(5, False), (5, True), (3, False)], 100, [0, 0, 0]),  # bonus lives: the next game begins with fewer
        ([(5, False), (4, False), (4, False)], 2, [0, 0, 0]),  # cut by the clock in the step that loses one
        ([(4, False), (3, False), (3, False)], 3, [0, 1, 0]),
    ],
)
def test_a_life_is_lost_only_where_the_game_goes_on(
    script: list[tuple[int, bool]], limit: int, lost: list[int]
) -> None:
    env = Scripted("breakout", 1, max_episode_steps=limit)
    env.script = script
    env.reset()
    env.action_space.seed(0)
    told = [env.step(env.action_space.sample())[4] for _ in script]
    assert [int(infos["life_lost"][0]) for infos in told] == lost
