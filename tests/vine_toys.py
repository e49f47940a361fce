"""Environments, policies and small vines that the vine's tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from helpers import normal, seeded
from torch import Tensor

from trpo_lessons import mdp
from trpo_lessons.distributions import Distribution
from trpo_lessons.envs import RestorableVectorEnv, State, make
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.tabular import TabularVectorEnv
from trpo_lessons.policies import CategoricalHead, GaussianHead, Layer, Policy
from trpo_lessons.rollout_set import from_the_policy
from trpo_lessons.single_path import Actor, for_environment
from trpo_lessons.vine import Branching, Vine, sample_vine

GAMMA = 0.9


class Fuse(RestorableVectorEnv):
    """A fuse of length 2 to 12 burns down by 1, or by 2 under action 2; at 0 the episode is over, a limit cuts it at 6.

    A step pays 10 (episodes begun) + a + luck, where luck is a random number of the environment; observations are
    (fuse, steps, episodes begun).
    """

    def __init__(self, num_envs: int, luck: float = 1.0) -> None:
        box = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        super().__init__("fuse", num_envs, box, spaces.Discrete(3), max_episode_steps=6)
        self._rows, self._luck, self.counted, self.rounds = np.zeros((num_envs, 3)), luck, 0, 0

    def _physics(self) -> State:
        return {"rows": self._rows}

    def _reset_rows(self, rows: np.ndarray) -> None:
        for row in rows:
            self._rows[row] = (self._generators[row].integers(2, 13), 0.0, self._rows[row, 2] + 1)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.rounds += 1
        self.counted += self.num_envs - int(self._resting.sum())
        luck = [generator.random() for generator in self._generators]
        rewards = 10 * self._rows[:, 2] + actions + self._luck * np.array(luck)
        self._rows[:, 0] -= 1 + (actions == 2)
        self._rows[:, 1] += 1
        return self._observe(), rewards, self._rows[:, 0] <= 0

    def _observe(self) -> np.ndarray:
        return self._rows.copy()


def tabular(num_envs: int) -> TabularVectorEnv:
    return TabularVectorEnv(mdp.garnet(5, 3, branching=2, gamma=GAMMA, seed=1), num_envs, max_episode_steps=15)


def falling_cartpole(num_envs: int) -> RestorableVectorEnv:
    return make("cartpole", num_envs)  # type: ignore[return-value]


ENVS: dict[str, Callable[[int], RestorableVectorEnv]] = {
    "fuse": Fuse,
    "tabular": tabular,
    "cartpole": falling_cartpole,
    "barto-cartpole": lambda num_envs: make("barto-cartpole", num_envs),  # type: ignore[dict-item,return-value]
    "hopper": lambda num_envs: make("hopper", num_envs, threads=1),  # type: ignore[dict-item,return-value]
}
CHEAP = ["fuse", "tabular", "cartpole", "barto-cartpole"]


def policy_for(env: RestorableVectorEnv, seed: int = 0) -> tuple[Policy, Tensor]:
    """A linear policy. A matrix product may round a row differently in another place; here each row is on its own."""
    space, obs_dim = env.single_action_space, env.observation_space.shape[1]
    head = CategoricalHead(int(space.n)) if isinstance(space, spaces.Discrete) else GaussianHead(space.shape[0])
    row_by_row = Layer(lambda x, w, b: (x[:, None] * w).sum(-1) + b, ((head.num_inputs, obs_dim), (head.num_inputs,)))
    policy = Policy([row_by_row], head)
    return policy, 0.3 * normal(seed, policy.num_parameters)


class Raw(RunningMoments):
    """Observations as they are, in float64."""

    def normalise(self, obs: Tensor) -> Tensor:
        return obs


RAW = Raw.empty(1)


def grow(name: str = "fuse", *, num_envs: int = 3, width: int = 7, seed: int = 0, **settings: Any) -> Vine:
    trunk_env, branch_env = (
        settings.pop("trunk_env", ENVS[name](num_envs)),
        settings.pop("branch_env", ENVS[name](width)),
    )
    policy, theta = policy_for(trunk_env)
    raw_obs = torch.tensor(trunk_env.reset(seed=seed)[0])
    trunk_steps, generator = settings.pop("trunk_steps", 12), settings.pop("generator", seeded(seed))
    usual = {"num_states": 8, "first_actions": from_the_policy(3), "rollout_length": 5, "gamma": GAMMA}
    branching = Branching(**{**usual, **settings})
    return sample_vine(trunk_env, branch_env, Actor(policy, theta, RAW), raw_obs, trunk_steps, branching, generator)


def naive_roll_out(
    make_env: Callable[[int], RestorableVectorEnv],
    pi_old: Callable[[Tensor], Distribution],
    starts: State,
    first_actions: Tensor,
    noise: Tensor,
) -> list[tuple[float, int, bool, list[float]]]:
    """One rollout after the other, each alone in an environment of its own: return, length, terminated, last obs."""
    found = []
    for m, first in enumerate(first_actions):
        env, total = make_env(1), 0.0
        obs = env.restore_state({name: array[m : m + 1] for name, array in starts.items()})
        for t in range(len(noise)):
            action = first[None] if t == 0 else pi_old(torch.tensor(obs)).sample_from(noise[t, m][None])
            obs, rewards, terminated, truncated, infos = env.step(for_environment(action, env.single_action_space))
            total += GAMMA**t * rewards[0]
            if terminated[0] or truncated[0]:
                obs = infos["final_obs"]
                break
        found.append((total, t + 1, bool(terminated[0]), obs[0].tolist()))
    return found
