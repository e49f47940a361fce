"""The simulator's side of sampling: what became of the steps of a path, and many short rollouts from saved states.

Of a rollout: which copy of an environment follows it, when that takes the next one, and what was found. How actions are
chosen is the caller's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.vector import VectorWrapper
from numpy.typing import NDArray
from torch import Tensor

from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, Rows, State
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
    last_obs    [M, *obs_shape]  raw observation that the last step led to, before any reset; as the environment has it
    num_steps   simulator steps
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
    seen = torch.zeros(()).expand(count, *obs_shape)
    return Rollouts(nan, nothing, nothing.bool(), seen, 0, {"acting": 0.0, "simulating": 0.0})


class Copied(Protocol):
    """What rollouts ask of E copies of an environment; see `RestorableVectorEnv`."""

    num_envs: int

    @property
    def single_action_space(self) -> Any: ...

    def step(self, actions: Any, /) -> Any: ...

    def restore_state(self, state: State, rows: Rows | None = None) -> NDArray[Any]: ...

    def rest(self, rows: Rows) -> None: ...


def run_rollouts(env: Copied, act: Act, starts: State, size: Sequence[int], gamma: float) -> Rollouts:
    """Rollouts of at most L steps, M of them, `size` being (L, M).

    starts: the saved states where they begin, arrays [N, ...]; of each, M / N rollouts begin, one state after the
        other. A state is stored once, and copied when its turn comes: of a game it has 60,000 bytes.

    All copies of `env` work side by side, however many they are. When the rollout of one ends, it takes the next that
    waits: nobody simulates the episode that follows. When none waits, the copy rests.
    """
    max_steps, count = size
    returns, lengths, is_over = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    copies = Copies(env, starts, count)
    env.rest(np.flatnonzero(~copies.busy))
    last_obs, num_steps = np.zeros((count, *copies.obs.shape[1:]), dtype=copies.obs.dtype), 0
    acting, begun = 0.0, time.perf_counter()
    while copies.busy.any():
        asked = time.perf_counter()
        rollout, age, busy = copies.rollout, copies.age, copies.busy
        actions = act(copies.obs, rollout, age)
        acting += time.perf_counter() - asked
        copies.obs, rewards, terminated, truncated, infos = env.step(actions)
        num_steps += int(busy.sum())
        # What follows an observation that is not finite is not the policy's doing, so the rollout must not count.
        rewards = np.where(np.isfinite(copies.obs).all(tuple(range(1, copies.obs.ndim))), rewards, np.nan)
        returns[rollout[busy]] += (gamma**age * rewards)[busy]
        age += 1
        ended = busy & (terminated | truncated | (age == max_steps))
        if ended.any():
            lengths[rollout[ended]], is_over[rollout[ended]] = age[ended], terminated[ended]
            last_obs[rollout[ended]] = _before_reset(copies.obs, infos)[ended]
            copies.take_next(ended)
            env.rest(np.flatnonzero(ended & ~copies.busy))
    seconds = {"acting": acting, "simulating": time.perf_counter() - begun - acting}
    returned, steps, over, last = (torch.from_numpy(array) for array in (returns, lengths, is_over, last_obs))
    return Rollouts(returned, steps, over, last, num_steps, seconds)


class Copies:
    """Which of `count` rollouts each copy of the environment works on, how many steps it has done, and what it sees."""

    def __init__(self, env: Copied, starts: State, count: int) -> None:
        self._env, self._starts, self._waiting = env, starts, np.arange(env.num_envs, count)
        self._from_each = count // len(starts["task"])  # rollouts from each start
        self.rollout = np.arange(env.num_envs) % count
        self.busy = np.arange(env.num_envs) < count
        self.age = np.zeros(env.num_envs, dtype=np.int64)
        self.obs = env.restore_state(rows_of(starts, self.rollout // self._from_each))

    def take_next(self, ended: NDArray[np.bool_]) -> None:
        """Give the copies that are through, [E], the rollouts that wait."""
        self.age[ended], self.busy[ended] = 0, False
        which = np.flatnonzero(ended)[: len(self._waiting)]
        if len(which):
            self.rollout[which], self._waiting = np.split(self._waiting, [len(which)])
            self.busy[which] = True
            begin = self.rollout[which] // self._from_each
            self.obs = self._env.restore_state(rows_of(self._starts, begin), which)


def rows_of(state: State, rows: NDArray[np.int64]) -> State:
    """Some rows of a saved state, repeated if they are named more than once."""
    return {name: array[rows] for name, array in state.items()}


def _before_reset(obs: NDArray[Any], infos: Mapping[str, Any]) -> NDArray[Any]:
    """What every step led to: the final observation where it ended an episode, and not the first of the next."""
    if "_final_obs" not in infos:
        return obs
    ended = np.expand_dims(infos["_final_obs"], tuple(range(1, obs.ndim)))
    return np.where(ended, infos["final_obs"], obs)


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
        saved = self._saved or [self._restorable.save_state([])]
        return {name: np.concatenate([state[name] for state in saved]) for name in saved[0]}


def new_generators(count: int, generator: torch.Generator) -> NDArray[np.uint64]:
    """Random generators for as many copies of an environment, as a saved state holds them, seeded by `generator`."""
    return pack_generators(make_generators(count, torch.randint(2**62, (count,), generator=generator).tolist()))
