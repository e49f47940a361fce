"""The same games, played by the threads of `ale_py`'s own vector environment: faster, but they cannot be saved.

It resets a game by itself when it is over. The time limit is ours: its own would blend the last frame of a truncated
game with an older one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv as AlePyVectorEnv
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from trpo_lessons.envs.atari.games import GamesVectorEnv
from trpo_lessons.envs.atari.settings import FRAME_SKIP, STACK
from trpo_lessons.envs.base import Bools, Floats

MAX_SEED = 2**31  # of the library; ours may have 63 bits
NEVER = 2**30  # frames


class NativeAtariVectorEnv(GamesVectorEnv):
    """E games with the observations, rewards, resets and infos of `AtariVectorEnv`, played by threads.

    The frames that a game starts with are drawn by the library; `start_frames` [E] says how many the games have had.
    So are the frames in which actions stick; without either, the same actions give the same game, to the bit.
    """

    def _open(self, num_players: int) -> None:
        self._games = AlePyVectorEnv(
            self.task,
            self.num_envs,
            batch_size=0,
            num_threads=num_players,
            thread_affinity_offset=-1,
            max_num_frames_per_episode=NEVER,
            repeat_action_probability=self.settings.sticky_actions,
            full_action_space=True,
            continuous=False,
            continuous_action_threshold=0.5,
            autoreset_mode=AutoresetMode.SAME_STEP,
            img_height=self.settings.height,
            img_width=self.settings.width,
            grayscale=True,
            stack_num=STACK,
            frameskip=FRAME_SKIP,
            maxpool=True,
            noop_max=self.settings.no_op_max,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=self.settings.fire_reset,
        )
        self.start_frames = np.zeros(self.num_envs, dtype=np.int64)
        # Observations and infos of the newest states.
        self._shown: tuple[NDArray[Any], dict[str, NDArray[Any]]] = np.empty(0), {"lives": np.zeros(self.num_envs)}
        self._begun = np.zeros(self.num_envs, dtype=np.bool_)  # which games the library has reset in the newest step

    @property
    def _lives(self) -> NDArray[np.int64]:
        lives: NDArray[np.int64] = self._shown[1]["lives"].astype(np.int64)
        return lives

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        if not self._is_loaded:
            self._shown = self._games.reset(seed=np.array([each.integers(MAX_SEED) for each in self._generators]))
            self._is_loaded = True
        elif (waiting := np.isin(np.arange(self.num_envs), rows) & ~self._begun).any():
            self._shown = self._games.reset(options={"reset_mask": waiting})
        self._begun[:] = False
        self.start_frames[rows] = self._shown[1]["episode_frame_number"][rows]

    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools]:
        obs, scores, terminated, _, infos = self._games.step(self._controls.emulator_actions(actions))
        self._shown, self._begun = (obs, infos), terminated.copy()
        if terminated.any():
            obs = np.where(terminated[:, None, None, None], infos["final_obs"], obs)
        return obs, scores.astype(np.float64), terminated

    def _observe(self) -> NDArray[Any]:
        return self._shown[0]

    def close_extras(self, **_kwargs: Any) -> None:
        """Stop the threads."""
        if hasattr(self, "_games"):
            del self._games
