"""What every environment shares: time limits, automatic resets, episode statistics, save and restore."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from trpo_lessons.envs.random_state import COLUMNS, Seed, make_generators, pack_generators, put_back

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
State = dict[str, NDArray[Any]]
Rows = Sequence[int] | NDArray[np.intp]


class EpisodicVectorEnv(VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]], ABC):
    """E copies of one environment, with a time limit, automatic resets and the statistics of episodes.

    Resets are SAME_STEP: the step that ends an episode already returns the first observation of the next one, and the
    last observation of the old one is in `infos["final_obs"]`. So every step is a real transition, no reset is ever
    pending, and a saved state needs no flag for one.

    `step(actions)` returns obs [E, obs_dim] float64 (on Atari: uint8 [E, 4, height, width]), rewards [E] float64,
    terminated [E] bool, truncated [E] bool and infos. When a copy is done, infos holds `final_obs`, shaped like obs,
    with the mask `_final_obs` [E], and `episode` {"r": returns [E], "l": lengths [E]} with the mask `_episode` [E], the
    format of Gymnasium's RecordEpisodeStatistics for vector environments. Rows outside a mask carry no meaning.
    Terminated means that no reward follows (bootstrap nothing); truncated means that the time limit cut the episode
    (bootstrap the value of the final observation).

    A concrete environment provides its physics only: `_reset_rows`, `_advance` and `_observe`.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012 (Gymnasium's own idiom)

    def __init__(
        self,
        task: str,
        num_envs: int,
        observation_space: spaces.Box,
        action_space: spaces.Box | spaces.Discrete | spaces.MultiDiscrete,
        *,
        max_episode_steps: int,
        seed: Seed = None,
    ) -> None:
        """`task` names the dynamics; a state saved under one name is refused under another. Seeds: see `reset`."""
        if num_envs < 1:
            raise ValueError(f"num_envs must be 1 or more, not {num_envs}")
        self.task = task
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._generators = make_generators(num_envs, seed)
        self._elapsed_steps = np.zeros(num_envs, dtype=np.int64)
        self._episode_returns = np.zeros(num_envs)
        self._needs_reset = True
        self._resting = np.zeros(num_envs, dtype=np.bool_)
        self._set_resting(self._which(None), False)

    # What a concrete environment provides.

    @abstractmethod
    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        """Start a new episode in these copies, drawing from their generators only."""

    @abstractmethod
    def _advance(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools]:
        """Simulate one control step: new obs [E, obs_dim], rewards [E], terminated [E].

        Rows of copies that are not `_awake` carry no meaning, and simulating them may be left out.
        """

    @abstractmethod
    def _observe(self) -> NDArray[Any]:
        """The observations of the current state, [E, obs_dim], in a new array."""

    # The interface of gymnasium.vector.VectorEnv.

    def reset(self, *, seed: Seed = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start a new episode in every copy; returns obs [E, obs_dim] and an empty dict.

        seed: an int seeds copy i with seed + i, a sequence gives each its own seed, None goes on with the generators
        as they are. Raises ValueError for a wrong number of seeds, a negative seed, or any option.
        """
        refuse_options(self.task, options)
        if seed is not None:
            self._generators = make_generators(self.num_envs, seed)
        self._elapsed_steps[:] = 0
        self._episode_returns[:] = 0.0
        self._reset_rows(np.arange(self.num_envs))
        self._needs_reset = False
        self._set_resting(self._which(None), False)
        return self._observe(), {}

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[Any], Floats, Bools, Bools, dict[str, Any]]:
        """One control step in every copy; see the class for what it returns.

        Raises ValueError for actions of a wrong shape, type or value, and ResetNeeded before the first reset.
        """
        if self._needs_reset:
            raise ResetNeeded(f"call reset() of {self.task} before step()")
        obs, rewards, terminated = self._advance(checked_actions(self, self.task, actions))
        self._elapsed_steps += ~self._resting
        self._episode_returns += rewards
        truncated = self._elapsed_steps >= self.max_episode_steps
        done = (terminated | truncated) & ~self._resting
        if not done.any():
            return obs, rewards, terminated, truncated, {}
        infos = {"final_obs": obs, "_final_obs": done, "episode": self._episode_statistics(done), "_episode": done}
        self._start_episodes(np.flatnonzero(done))
        return self._observe(), rewards, terminated, truncated, infos

    def rest(self, rows: Rows) -> None:
        """Nobody needs these copies: they need not be simulated until a state is put into them, or all are reset.

        Meanwhile `step` takes actions for them as for all others; what it returns for them carries no meaning.
        """
        self._set_resting(self._which(rows), True)

    def _set_resting(self, rows: NDArray[np.intp], resting: bool) -> None:
        self._resting[rows] = resting
        # The copies that `_advance` must simulate; None is every copy.
        self._awake = np.flatnonzero(~self._resting) if self._resting.any() else None

    def _episode_statistics(self, done: Bools) -> dict[str, NDArray[Any]]:
        return {"r": np.where(done, self._episode_returns, 0.0), "l": np.where(done, self._elapsed_steps, 0)}

    def _start_episodes(self, rows: NDArray[np.intp]) -> None:
        self._elapsed_steps[rows] = 0
        self._episode_returns[rows] = 0.0
        self._reset_rows(rows)

    def _which(self, rows: Rows | None) -> NDArray[np.intp]:
        return np.arange(self.num_envs) if rows is None else np.asarray(rows, dtype=np.intp)


class RestorableVectorEnv(EpisodicVectorEnv):
    """E copies of one environment that can be saved, and put back into a saved state, at any step.

    `save_state()` returns a dict of plain numeric arrays with leading axis E. It is complete: what follows a
    `restore_state` is the same to the bit as what followed the save, also in a new process. Because every array has
    one row for each copy, rows can be picked, repeated and put into an environment of another size: that is how the
    vine sampling scheme branches (section 5.2 of the paper)::

        rows = {name: array[[3, 3, 3]] for name, array in env.save_state().items()}
        branches.restore_state(rows)        # three copies of copy 3, random generator included

    A concrete environment also provides the arrays that hold its physical state: `_physics`.
    """

    @abstractmethod
    def _physics(self) -> State:
        """The live arrays that hold the physical state, each with leading axis E; restoring writes into them."""

    def save_state(self, rows: Rows | None = None) -> State:
        """Copies of everything that the future depends on, each array with leading axis E; see the class.

        rows: the copies to save, in this order, if not all.
        """
        which = self._which(rows)
        state = {name: array[which] for name, array in self._layout().items()}
        state["generators"] = pack_generators([self._generators[row] for row in which])
        return state

    def restore_state(self, state: Mapping[str, NDArray[Any]], rows: Rows | None = None) -> NDArray[Any]:
        """Continue from a saved state, of this or of another environment of the same task; returns obs [E, obs_dim].

        rows: the copies to put into the saved states, one state each, in this order; the others go on as they are, and
        may not be waiting for their first reset. None is every copy.

        Raises ValueError in one line, and changes nothing, when an array is missing, unknown, of another shape or type
        (the number of states included), not finite, or when the state was saved by another task; IndexError for a copy
        that is not there.
        """
        if rows is not None and self._needs_reset:
            raise ResetNeeded(f"call reset() or restore_state() of {self.task} before restoring some of its copies")
        which = self._which(rows)
        self._check_state(state, {name: array[which] for name, array in self._layout().items()})
        for name, array in self._physics().items():
            array[which] = state[name]
        self._elapsed_steps[which] = state["elapsed_steps"]
        self._episode_returns[which] = state["episode_returns"]
        put_back([self._generators[row] for row in which], state["generators"])
        self._needs_reset = False
        self._set_resting(which, False)
        return self._observe()

    def _layout(self) -> State:
        """The live arrays of a state, and room for the generators, which are not kept as numbers."""
        return {
            **self._physics(),
            "elapsed_steps": self._elapsed_steps,
            "episode_returns": self._episode_returns,
            "generators": np.zeros((self.num_envs, COLUMNS), dtype=np.uint64),
            "task": np.full(self.num_envs, _fingerprint(self.task), dtype=np.uint64),
        }

    def _check_state(self, state: Mapping[str, NDArray[Any]], live: State) -> None:
        if state.keys() != live.keys():
            missing, unknown = sorted(live.keys() - state.keys()), sorted(state.keys() - live.keys())
            raise ValueError(f"not a saved state of {self.task}: missing {missing}, unknown {unknown}")
        for name, own in live.items():
            given = np.asarray(state[name])
            if given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(
                    f"not a state of {len(live['task'])} copies of {self.task}: {name} is {given.dtype} {given.shape}, "
                    f"expected {own.dtype} {own.shape}"
                )
            # A return may be NaN: it is a record of what the environment paid, and nothing is computed from it.
            if name != "episode_returns" and not np.isfinite(given).all():
                raise ValueError(f"the saved state of {self.task} is damaged: {name} holds a number that is not finite")
        if (state["task"] != live["task"]).any():
            raise ValueError(f"this state was saved by another task than {self.task}")
        if (state["elapsed_steps"] < 0).any() or (state["elapsed_steps"] >= self.max_episode_steps).any():
            raise ValueError(f"the saved state of {self.task} is damaged: elapsed_steps is out of range")


def checked_actions(env: VectorEnv[Any, Any, Any], task: str, actions: NDArray[Any]) -> NDArray[Any]:
    """The actions as an array. Raises ValueError in one line for a wrong shape or type, or an impossible value."""
    actions = np.asarray(actions)
    if actions.shape != env.action_space.shape:
        raise ValueError(f"{task} needs actions of shape {env.action_space.shape}, not {actions.shape}")
    if isinstance(env.single_action_space, spaces.Discrete):
        if actions.dtype.kind not in "iu" or actions.min() < 0 or actions.max() >= env.single_action_space.n:
            raise ValueError(f"{task} needs integer actions from 0 to {env.single_action_space.n - 1}")
    elif isinstance(env.single_action_space, spaces.MultiDiscrete):
        sizes = env.single_action_space.nvec
        if actions.dtype.kind not in "iu" or actions.min() < 0 or (actions >= sizes).any():
            raise ValueError(f"{task} needs integer actions from 0 to {(sizes - 1).tolist()}")
    elif actions.dtype.kind not in "fiu" or not np.isfinite(actions).all():
        raise ValueError(f"{task} was given an action that is not a finite number")
    return actions


def refuse_options(task: str, options: dict[str, Any] | None) -> None:
    """Gymnasium's `reset` passes options on; nothing here takes any, and a silent typo helps nobody."""
    if options:
        raise ValueError(f"{task} takes no reset options, but was given {sorted(options)}")


@cache
def _fingerprint(task: str) -> int:
    """A number for a name: walker and halfcheetah states have the same shapes, and must not be mistaken."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "little")
