"""A finite MDP as a simulator, so that an estimator can be held against what it should converge to (lessons 06, 07)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, State
from trpo_lessons.envs.random_state import Seed
from trpo_lessons.mdp import TabularMDP, draw


class TabularVectorEnv(RestorableVectorEnv):
    """E copies of `mdp`. Observations are the states, one-hot [E, S]; actions are integers; a step pays r[s, a].

    A state that cannot be left and pays nothing is an end: entering it terminates the episode. Its value is zero either
    way, so the values of the simulated episodes are those of `mdp.evaluate_policy`.

    One uniform number a step, from the copy's own generator, selects the next state (`mdp.draw`). Copies restored from
    the same state therefore share their luck, whatever they do.
    """

    def __init__(self, mdp: TabularMDP, num_envs: int, *, max_episode_steps: int = 1000, seed: Seed = None) -> None:
        """Seeds: see `reset`. Raises ValueError when an episode could begin in a state that ends it."""
        stays = mdp.P.diagonal(dim1=0, dim2=2).T == 1  # [S, A]
        self._is_end = (stays & (mdp.r == 0)).all(-1).numpy()
        if (mdp.rho0.numpy()[self._is_end] > 0).any():
            raise ValueError("an episode of this MDP could begin in a state that cannot be left and pays nothing")
        super().__init__(
            f"tabular-{_digest(mdp)}",
            num_envs,
            spaces.Box(0.0, 1.0, shape=(mdp.num_states,), dtype=np.float64),
            spaces.Discrete(mdp.num_actions),
            max_episode_steps=max_episode_steps,
            seed=seed,
        )
        self.mdp = mdp
        self._state = np.zeros(num_envs, dtype=np.int64)

    def _physics(self) -> State:
        return {"state": self._state}

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        self._state[rows] = draw(self.mdp.rho0.expand(len(rows), -1), self._uniforms(rows)).numpy()

    def _advance(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Bools]:
        state, action = torch.from_numpy(self._state), torch.from_numpy(actions.astype(np.int64))
        rewards: Floats = self.mdp.r[state, action].numpy()
        self._state[:] = draw(self.mdp.P[state, action], self._uniforms(np.arange(self.num_envs))).numpy()
        return self._observe(), rewards, self._is_end[self._state]

    def _observe(self) -> Floats:
        indicators: Floats = np.eye(self.mdp.num_states)[self._state]
        return indicators

    def _uniforms(self, rows: NDArray[np.intp]) -> torch.Tensor:
        return torch.tensor([self._generators[row].random() for row in rows], dtype=torch.float64)

    def _check_state(self, state: Mapping[str, NDArray[Any]], live: State) -> None:
        super()._check_state(state, live)
        if (state["state"] < 0).any() or (state["state"] >= self.mdp.num_states).any():
            raise ValueError(f"the saved state of {self.task} is damaged: there are {self.mdp.num_states} states")


def _digest(mdp: TabularMDP) -> str:
    """A name for the numbers of an MDP: a state saved in one must not be restored into another."""
    return hashlib.sha256(b"".join(table.numpy().tobytes() for table in (mdp.P, mdp.r, mdp.rho0))).hexdigest()[:8]
