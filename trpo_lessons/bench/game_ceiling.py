"""The ceiling of the games: `ale_py`'s own threads, with nobody to look at the screens, and the games of training."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trpo_lessons import envs
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.sampling.game_path import GamePath

BURST = 50  # steps in a row


class GameCeiling:
    """The same games under the same actions, those of the policy: played natively, and as environments of training.

    Native games cannot be saved or restored, so both start anew and go on from one burst to the next.
    """

    def __init__(self, trainer: Trainer, path: GamePath, stack: ExitStack) -> None:
        """path: a path of the policy that is being trained; its actions are taken, again and again."""
        config = trainer.config
        self._actions = path.actions.numpy()
        self._native = envs.make(
            config.task, config.num_envs, seed=0, threads=config.threads, native=True, **config.task_settings
        )
        # In groups with a process each, as in training.
        sizes = [env.num_envs for env in trainer.sampler.envs]
        self._groups = [envs.make(config.task, size, seed=0, threads=1, **config.task_settings) for size in sizes]
        for env in (self._native, *self._groups):
            stack.callback(env.close)
            env.reset(seed=0)
        self._actions_of_groups = np.split(self._actions, np.cumsum(sizes)[:-1], axis=1)
        self._threads = stack.enter_context(ThreadPoolExecutor(len(sizes)))
        self._bursts = {"ceiling": 0, "environment": 0}

    def go_to_where(self, trainer: Trainer) -> None:
        """Nowhere: a step costs the same everywhere in a game."""

    def ceiling(self) -> tuple[int, float]:
        """One burst of all games in the emulator's own threads: steps, seconds."""
        first = self._first("ceiling")
        start = time.perf_counter()
        _play(self._native, self._actions, first)
        return BURST * self._native.num_envs, time.perf_counter() - start

    def environment(self) -> tuple[int, float]:
        """The same in the games that training has, which can be saved; the groups wait for each other at the end."""
        first = self._first("environment")
        start = time.perf_counter()
        list(self._threads.map(_play, self._groups, self._actions_of_groups, [first] * len(self._groups)))
        return BURST * self._native.num_envs, time.perf_counter() - start

    def _first(self, name: str) -> int:
        self._bursts[name] += 1
        return (self._bursts[name] - 1) * BURST


def _play(env: VectorEnv[Any, Any, Any], actions: NDArray[Any], first: int) -> None:
    """A burst with the rows of `actions` [T, E, ...] from number `first`, which begin again after the last."""
    for t in range(first, first + BURST):
        env.step(actions[t % len(actions)])
