"""Branches of games as the vine follows them, beside the same branches one after the other in one emulator."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from trpo_lessons.envs.atari.console import EMULATOR_BYTES, Console
from trpo_lessons.envs.atari.settings import (
    FRAME_SKIP,
    SCREEN_HEIGHT,
    SCREEN_WIDTH,
    STACK,
    AtariSettings,
    Controls,
    rom_path,
)
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.sampling.game_vine_sampler import GameVineSampler

BRANCHES, LENGTH = 4, 16  # those of the class preset


class GameBranches:
    """The branches of a vine, followed again and again: by the sampler, and by a loop over an emulator of this process,
    with the frames made smaller and stacked as everywhere.
    """

    def __init__(self, trainer: Trainer) -> None:
        """trainer: one whose settings are `vine_like`."""
        config, sampler = trainer.config, trainer.sampler
        assert isinstance(sampler, GameVineSampler)
        self._trainer, self._sampler = trainer, sampler
        self._vine = sampler.sample(trainer.pi_old, trainer.value)
        actions = self._vine.rollout_set.actions
        self._first = actions.flatten(0, 1)
        noise_dim = actions.shape[2] if actions.ndim > 2 else 1
        self._noise = torch.rand(LENGTH, len(self._first), noise_dim, generator=torch.Generator().manual_seed(0))
        settings = AtariSettings(**config.task_settings)
        self._controls = Controls(config.task, settings.actions)
        self._frames = np.zeros((STACK, settings.height, settings.width), np.uint8)
        self._screen = np.zeros((SCREEN_HEIGHT, SCREEN_WIDTH), np.uint8)
        self._emulator = np.zeros(EMULATOR_BYTES, np.uint8)
        self._console = Console(rom_path(config.task), settings, self._frames, self._screen, self._emulator)
        self._next = 0

    def vine(self) -> tuple[int, float]:
        """Another trunk and its branches: simulator steps, seconds."""
        start = time.perf_counter()
        self._vine = self._sampler.sample(self._trainer.pi_old, self._trainer.value)
        self._first = self._vine.rollout_set.actions.flatten(0, 1)
        return self._vine.num_steps, time.perf_counter() - start

    def branches(self) -> tuple[int, float]:
        """All branches of that vine: simulator steps, seconds."""
        start = time.perf_counter()
        found = self._sampler.roll_out(self._trainer.pi_old, self._vine.saved, self._first, self._noise)
        return found.num_steps, time.perf_counter() - start

    def loop(self) -> tuple[int, float]:
        """The next of its branches, alone: the policy is asked about one state at a time."""
        return self._follow_next(asks=True)

    def emulator(self) -> tuple[int, float]:
        """The same without a policy: the first action is held. What one emulator can do at most."""
        return self._follow_next(asks=False)

    def _follow_next(self, asks: bool) -> tuple[int, float]:
        branch, pi_old = self._next % len(self._first), self._trainer.pi_old
        self._next += 1
        torch.set_num_threads(1)
        start = time.perf_counter()
        for name, array in (("frames", self._frames), ("screen", self._screen), ("emulator", self._emulator)):
            array[:] = self._vine.saved[name][branch // BRANCHES]
        self._console.restore()
        actions = self._first[branch : branch + 1]
        for t in range(LENGTH):
            if asks and t > 0:
                actions = pi_old(self._frames[None]).sample_from(self._noise[t, branch : branch + 1])
            [code] = self._controls.emulator_actions(actions.numpy()).tolist()
            _, game_over = self._console.step([code] * FRAME_SKIP)
            if game_over:
                break
        return t + 1, time.perf_counter() - start


def vine_like(config: TrainConfig) -> TrainConfig:
    """The same run by the vine, with about as many steps to an iteration and half of them in branches.

    Trunks have half the states of paths, and as many of them are left where states are thinned.
    """
    states = max(1, config.steps_per_iteration // (2 * BRANCHES * LENGTH))
    rows = max(1, config.rows // 2, -(-states // config.num_envs))
    return replace(
        config,
        sampling="vine",
        vine_states=states,
        vine_branches=BRANCHES,
        rollout_length=LENGTH,
        steps_per_iteration=states * BRANCHES * LENGTH + rows * config.num_envs,
        fisher_stride=max(1, config.fisher_stride // 2),
        value_stride=max(1, config.value_stride // 2),
    )
