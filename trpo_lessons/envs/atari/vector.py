"""The games, played by processes that each keep some of the emulators: they can be saved and restored."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from trpo_lessons.envs.atari import workers
from trpo_lessons.envs.atari.console import unpack_emulator
from trpo_lessons.envs.atari.games import GamesVectorEnv
from trpo_lessons.envs.atari.settings import FRAME_SKIP, NOOP
from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, Rows, State


class AtariVectorEnv(GamesVectorEnv, RestorableVectorEnv):
    """E games as an environment that saves and restores its state."""

    def _open(self, num_players: int) -> None:
        self._workers = workers.Workers(self.task, self._rom, self.settings, self.num_envs, num_players)
        self._close_workers = weakref.finalize(self, self._workers.close)  # also when nobody calls close
        self._shared = self._workers.arrays
        self._held = np.full(self.num_envs, NOOP, dtype=np.int64)  # the emulator's action in the last frame

    @property
    def _lives(self) -> NDArray[np.int64]:
        return self._shared["lives"]

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """The screens in colour, [210, 160, 3] each; right after a restore those of an earlier moment."""
        self._order(workers.PICTURE)
        return tuple(self._shared["pictures"].copy())

    def _order(self, order: bytes, rows: Rows | None = None) -> None:
        # What was begun and not finished leaves games nowhere: they may only start again, or be restored.
        needs_reset, self._needs_reset = self._needs_reset, True
        self._workers.order(order, rows)
        self._needs_reset = needs_reset

    def _physics(self) -> State:
        return {name: self._shared[name] for name in ("frames", "screen", "emulator", "lives")} | {"held": self._held}

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        if not self._is_loaded:
            self._order(workers.LOAD)
            self._is_loaded = True
        self._held[rows] = NOOP
        self._shared["no_ops"][rows] = self._draw_starts(rows)
        self._order(workers.RESET, rows)

    def _draw_starts(self, rows: NDArray[np.intp]) -> list[int]:
        return [self.settings.frames_before_start(self._generators[row]) for row in rows]

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools]:
        self._hold(self._controls.emulator_actions(actions))
        self._order(workers.STEP, self._awake)
        return self._observe(), self._shared["rewards"].copy(), self._shared["game_over"].copy()

    def _hold(self, actions: NDArray[np.int64]) -> None:
        """Which action each of the next four frames has: that of the agent, or, if it sticks, that of the frame before.

        The emulator could do this by itself, but which action it holds is not in its saved state.
        """
        sticks = np.zeros((self.num_envs, FRAME_SKIP), dtype=np.bool_)
        if self.settings.sticky_actions:
            draws = np.stack([generator.random(FRAME_SKIP) for generator in self._generators])
            sticks = draws < self.settings.sticky_actions
        for frame in range(FRAME_SKIP):
            self._held[:] = np.where(sticks[:, frame], self._held, actions)
            self._shared["actions"][:, frame] = self._held

    def _observe(self) -> NDArray[Any]:
        return self._shared["frames"].copy()

    def save_state(self, rows: Rows | None = None) -> State:
        """As `RestorableVectorEnv.save_state`; 0.1 MB a game. Raises ResetNeeded before the first reset."""
        if self._needs_reset:
            raise ResetNeeded(f"call reset() or restore_state() of {self.task} before save_state()")
        self._order(workers.SAVE, rows)
        return super().save_state(rows)

    def restore_state(self, state: Mapping[str, NDArray[Any]], rows: Rows | None = None) -> NDArray[Any]:
        """As `RestorableVectorEnv.restore_state`."""
        self._workers.settle()
        obs = super().restore_state(state, rows)
        self._order(workers.RESTORE, rows)
        self._is_loaded = True
        return obs

    def _check_state(self, state: Mapping[str, NDArray[Any]], live: State) -> None:
        super()._check_state(state, live)
        for emulator in state["emulator"]:
            unpack_emulator(emulator)

    def close_extras(self, **_kwargs: Any) -> None:
        """End the processes."""
        self._close_workers()
