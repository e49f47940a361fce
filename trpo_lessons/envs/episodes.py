"""Whole episodes from given starts, side by side; no step is taken for an episode that is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.envs.base import Floats, RestorableVectorEnv, State
from trpo_lessons.envs.rollouts import Copies, Integers

Play = Callable[[Floats, Integers, bool], NDArray[Any]]
"""Raw observations [E, obs_dim], which episode each copy is in [E], and whether that has changed since the last call ->
actions."""
Step = Callable[[NDArray[Any]], Any]


@dataclass(frozen=True)
class Episodes:
    """What M whole episodes brought.

    returns   [M]  undiscounted; float64, not finite where a reward or an observation was not
    lengths   [M]  steps
    raw_obs   [sum of lengths, obs_dim]  all observations before a step, in the order of time; float64
    seconds   wall time spent "acting" and "simulating"
    """

    returns: Tensor
    lengths: Tensor
    raw_obs: Tensor
    seconds: dict[str, float]

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken: those of the episodes, and no others."""
        return int(self.lengths.sum())


def play_episodes(env: RestorableVectorEnv, act: Play, starts: State, step: Step | None = None) -> Episodes:
    """M episodes from the saved states `starts`, arrays [M, ...], each to its own end or its time limit.

    All copies of `env` work side by side, however many they are. When an episode is over, its copy takes the next that
    waits; when none does, the copy rests.

    step: what steps `env`, if not its own method.
    """
    step = step or env.step
    count = len(starts["task"])
    returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    copies = Copies(env, starts, count)
    env.rest(np.flatnonzero(~copies.busy))
    seen, changed = [], True
    acting, begun = 0.0, time.perf_counter()
    while copies.busy.any():
        asked = time.perf_counter()
        playing = np.flatnonzero(copies.busy)
        episode = copies.rollout[playing]
        seen.append(copies.obs[playing])
        actions = act(copies.obs, copies.rollout, changed)
        acting += time.perf_counter() - asked
        copies.obs, rewards, terminated, truncated, infos = step(actions)
        returns[episode] += rewards[playing]
        lengths[episode] += 1
        ended = (terminated | truncated) & copies.busy
        changed = bool(ended.any())
        if changed:
            last = infos["final_obs"][ended]
            returns[copies.rollout[ended]] += np.where(np.isfinite(last).all(1), 0.0, np.nan)
            copies.take_next(ended)
            env.rest(np.flatnonzero(ended & ~copies.busy))
    raw_obs = np.concatenate(seen)
    seconds = {"acting": acting, "simulating": time.perf_counter() - begun - acting}
    return Episodes(torch.from_numpy(returns), torch.from_numpy(lengths), torch.from_numpy(raw_obs), seconds)
