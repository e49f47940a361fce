"""The simulator's side of sampling: what became of the steps of a path, and many short rollouts from saved states.

Of a rollout: which copy of an environment follows it, when that takes the next one, and what was found. How actions are
chosen is the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, State
from trpo_lessons.envs.random_state import make_generators, pack_generators

Integers = NDArray[np.int64]
Act = Callable[[Floats, Integers, Integers], NDArray[Any]]
"""Raw observations [E, obs_dim], which rollout each copy is in [E], and at which of its steps [E] -> actions."""


Outcome = tuple[NDArray[Any], Bools, Bools, Mapping[str, Any]]
"""What a step of E copies returns beside observations: rewards [E], terminated [E], truncated [E], infos."""


class Outcomes:
    """Collects the outcomes of T steps of E copies."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {"rewards": [], "terminated": [], "truncated": []}
        self._final_obs: list[NDArray[Any]] = []
        self._episodes: list[tuple[float, int]] = []  # return and length

    def record(self, rewards: NDArray[Any], terminated: Bools, truncated: Bools, infos: Mapping[str, Any]) -> None:
        """One step, as the environment returned it."""
        # Copies: the environment may use its arrays again for the next step.
        copies = (np.array(rewards, dtype=np.float64), np.array(terminated), np.array(truncated))
        for rows, row in zip(self._rows.values(), copies, strict=True):
            rows.append(torch.from_numpy(row))
        self._final_obs += [np.array(infos["final_obs"][e]) for e in np.flatnonzero(truncated)]
        if "episode" in infos:
            ended, episode = infos["_episode"], infos["episode"]
            self._episodes += zip(episode["r"][ended].tolist(), episode["l"][ended].tolist(), strict=True)

    def columns(self, next_obs: Tensor) -> dict[str, Any]:
        """Rewards, terminated and truncated [T, E]; the final observations, shaped like `next_obs`; the episodes."""
        final_obs = torch.as_tensor(np.array(self._final_obs), dtype=next_obs.dtype)
        return {
            **{name: torch.stack(rows) for name, rows in self._rows.items()},
            "final_obs": final_obs.view(-1, *next_obs.shape[1:]),
            "episode_returns": tuple(r for r, _ in self._episodes),
            "episode_lengths": tuple(length for _, length in self._episodes),
        }


@dataclass(frozen=True)
class Rollouts:
    """What M rollouts found.

    returns     [M]  discounted sum of rewards to the end of the rollout, or of its episode if that comes first; float64
    lengths     [M]  steps taken, from 1 to the limit
    terminated  [M]  True where the episode is over for good; elsewhere it was cut, by the limit or by its time limit
    last_obs    [M, obs_dim]  raw observation that the last step led to, before any reset; float64
    num_steps   simulator steps, those of idle copies included
    seconds     wall time spent "acting" and "simulating"
    """

    returns: Tensor
    lengths: Tensor
    terminated: Tensor
    last_obs: Tensor
    num_steps: int
    seconds: dict[str, float]


def not_run(count: int, obs_shape: Sequence[int]) -> Rollouts:
    """Of `count` rollouts that were not begun: returns that are no numbers."""
    nothing, nan = torch.zeros(count, dtype=torch.int64), torch.full((count,), math.nan, dtype=torch.float64)
    return Rollouts(nan, nothing, nothing.bool(), torch.zeros(count, *obs_shape), 0, {"acting": 0.0, "simulating": 0.0})


def run_rollouts(env: RestorableVectorEnv, act: Act, starts: State, max_steps: int, gamma: float) -> Rollouts:
    """M rollouts of at most `max_steps` steps each, from the saved states `starts`, arrays [M, ...].

    All copies of `env` work side by side, however many they are. When the rollout of one ends, it takes the next that
    waits: nobody simulates the episode that follows, and copies idle only when no rollout is left.
    """
    count = len(starts["task"])
    returns, lengths, is_over = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    copies = Copies(env, starts, count)
    last_obs, num_steps = np.zeros((count, *copies.obs.shape[1:])), 0
    acting, begun = 0.0, time.perf_counter()
    while copies.busy.any():
        asked = time.perf_counter()
        rollout, age, busy = copies.rollout, copies.age, copies.busy
        actions = act(copies.obs, rollout, age)
        acting += time.perf_counter() - asked
        copies.obs, rewards, terminated, truncated, infos = env.step(actions)
        num_steps += env.num_envs
        # What follows an observation that is not finite is not the policy's doing, so the rollout must not count.
        rewards = np.where(np.isfinite(copies.obs).all(1), rewards, np.nan)
        returns[rollout[busy]] += (gamma**age * rewards)[busy]
        age += 1
        ended = busy & (terminated | truncated | (age == max_steps))
        if ended.any():
            lengths[rollout[ended]], is_over[rollout[ended]] = age[ended], terminated[ended]
            last_obs[rollout[ended]] = _before_reset(copies.obs, infos)[ended]
            copies.take_next(ended)
    seconds = {"acting": acting, "simulating": time.perf_counter() - begun - acting}
    returned, steps, over, last = (torch.from_numpy(array) for array in (returns, lengths, is_over, last_obs))
    return Rollouts(returned, steps, over, last, num_steps, seconds)


class Copies:
    """Which of `count` rollouts each copy of the environment works on, how many steps it has done, and what it sees."""

    def __init__(self, env: RestorableVectorEnv, starts: State, count: int) -> None:
        self._env, self._starts, self._waiting = env, starts, np.arange(env.num_envs, count)
        self.rollout = np.arange(env.num_envs) % count
        self.busy = np.arange(env.num_envs) < count
        self.age = np.zeros(env.num_envs, dtype=np.int64)
        self.obs = env.restore_state(rows_of(starts, self.rollout))

    def take_next(self, ended: NDArray[np.bool_]) -> None:
        """Give the copies that are through, [E], the rollouts that wait."""
        self.age[ended], self.busy[ended] = 0, False
        which = np.flatnonzero(ended)[: len(self._waiting)]
        if len(which):
            self.rollout[which], self._waiting = np.split(self._waiting, [len(which)])
            self.busy[which] = True
            self.obs = self._env.restore_state(rows_of(self._starts, self.rollout[which]), which)


def rows_of(state: State, rows: NDArray[np.int64]) -> State:
    """Some rows of a saved state, repeated if they are named more than once."""
    return {name: array[rows] for name, array in state.items()}


def _before_reset(obs: Floats, infos: Mapping[str, Any]) -> Floats:
    """What every step led to: the final observation where it ended an episode, and not the first of the next."""
    return np.where(infos["_final_obs"][:, None], infos["final_obs"], obs) if infos else obs


class SavesChosen(VectorWrapper):
    """Saves, as it is stepped, the states before the steps `chosen` [N, 2]."""

    def __init__(self, env: RestorableVectorEnv, chosen: Tensor) -> None:
        super().__init__(env)
        self._restorable, self._num_steps = env, 0
        self._chosen: dict[int, list[int]] = {}
        for step, row in chosen.tolist():
            self._chosen.setdefault(step, []).append(row)
        self._saved: list[State] = []

    def step(self, actions: Any) -> Any:
        if self._num_steps in self._chosen:
            self._saved.append(self._restorable.save_state(self._chosen[self._num_steps]))
        self._num_steps += 1
        return self.env.step(actions)

    def saved(self) -> State:
        """Arrays [N, ...]."""
        return {name: np.concatenate([state[name] for state in self._saved]) for name in self._saved[0]}


def new_generators(count: int, generator: torch.Generator) -> NDArray[np.uint64]:
    """Random generators for as many copies of an environment, as a saved state holds them, seeded by `generator`."""
    return pack_generators(make_generators(count, torch.randint(2**62, (count,), generator=generator).tolist()))
