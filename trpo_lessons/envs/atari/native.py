"""The same games, played by the threads of `ale_py`'s own vector environment: faster, but they cannot be saved.

It resets a game by itself when it is over. The time limit is ours: its own would blend the last frame of a truncated
game with an older one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv as AlePyVectorEnv
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trpo_lessons.envs.atari.settings import FRAME_SKIP, MAX_EPISODE_STEPS, STACK, AtariSettings, Controls, rom_path
from trpo_lessons.envs.atari.vector import lives_told, worker_count
from trpo_lessons.envs.base import Bools, Floats, checked_actions, refuse_options
from trpo_lessons.envs.random_state import Seed, make_generators

MAX_SEED = 2**31  # of the library; ours may have 63 bits
NEVER = 2**30  # frames


class NativeAtariVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """E games with the observations, rewards, resets and infos of `AtariVectorEnv`, played by threads.

    The frames that a game starts with are drawn by the library; `start_frames` [E] says how many the games have had.
    So are the frames in which actions stick; without either, the same actions give the same game, to the bit.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own idiom)

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
        """As `AtariVectorEnv`; `threads` are real threads here. Raises MissingRom."""
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs}")
        rom_path(game)
        self.task = game
        self.num_envs = num_envs
        self.settings = settings or AtariSettings()
        self.max_episode_steps = max_episode_steps
        self._controls = Controls(game, self.settings.actions)
        self.single_observation_space = self.settings.observation_space
        self.single_action_space = self._controls.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._first_generators: list[np.random.Generator] | None = make_generators(num_envs, seed)
        self._games = AlePyVectorEnv(
            game,
            num_envs,
            batch_size=0,
            num_threads=worker_count(threads, num_envs),
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
        self.start_frames = np.zeros(num_envs, dtype=np.int64)
        self._lives = np.zeros(num_envs, dtype=np.int64)
        self._elapsed_steps = np.zeros(num_envs, dtype=np.int64)
        self._episode_returns = np.zeros(num_envs)
        self._needs_reset = True

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        """As `RestorableVectorEnv.reset`: obs [E, 4, height, width] and {}; ValueError for bad seeds or any option."""
        refuse_options(self.task, options)
        generators = self._first_generators if seed is None else make_generators(self.num_envs, seed)
        self._first_generators = None
        seeds = None if generators is None else np.array([generator.integers(MAX_SEED) for generator in generators])
        obs, infos = self._games.reset(seed=seeds)
        self._note_starts(infos, np.ones(self.num_envs, dtype=np.bool_))
        self._lives = infos["lives"].astype(np.int64)
        self._needs_reset = False
        return obs, {}

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools, Bools, dict[str, Any]]:
        """As `AtariVectorEnv.step`."""
        if self._needs_reset:
            raise ResetNeeded(f"call reset() of {self.task} before step()")
        actions = checked_actions(self, self.task, actions)
        obs, scores, terminated, _, games_infos = self._games.step(self._controls.emulator_actions(actions))
        rewards = scores.astype(np.float64)
        self._elapsed_steps += 1
        self._episode_returns += rewards
        truncated = self._elapsed_steps >= self.max_episode_steps
        done = terminated | truncated
        infos: dict[str, Any] = {}
        if done.any():
            statistics = {"r": np.where(done, self._episode_returns, 0.0), "l": np.where(done, self._elapsed_steps, 0)}
            final_obs = obs.copy()
            if terminated.any():
                final_obs[terminated] = games_infos["final_obs"][terminated]
            infos = {"final_obs": final_obs, "_final_obs": done, "episode": statistics, "_episode": done}
            if (cut := truncated & ~terminated).any():
                obs, games_infos = self._games.reset(options={"reset_mask": cut})
            self._note_starts(games_infos, done)
        lives = games_infos["lives"].astype(np.int64)
        infos |= lives_told(self._lives, lives, done)
        self._lives = lives
        return obs, rewards, terminated, truncated, infos

    def _note_starts(self, infos: dict[str, NDArray[Any]], started: Bools) -> None:
        self.start_frames[started] = infos["episode_frame_number"][started]
        self._elapsed_steps[started] = 0
        self._episode_returns[started] = 0.0

    def close_extras(self, **_kwargs: Any) -> None:
        """Stop the threads."""
        if hasattr(self, "_games"):
            del self._games
