"""Single-path sampling: follow the policy and use every state-action pair on the way.

Reading order: after `advantages`. Lesson 06, section 5.1 and the left half of figure 1.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from trpo_lessons.advantages import unit_of
from trpo_lessons.distributions import Distribution
from trpo_lessons.envs.spaces import into_box
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch, Samples, States, chunks

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]]  # rewards, terminated, truncated, infos


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of everything seen so far, per component [obs_dim]; float64.

    Observation statistics must not move between collecting a batch and updating on it: if they did, pi_theta_old would
    already be another policy when the update begins, and the importance ratios would not start at 1. So they are
    frozen, and `including` returns new ones for the next iteration.
    """

    count: float
    mean: Tensor
    deviations: Tensor

    @classmethod
    def empty(cls, obs_shape: int | tuple[int, ...]) -> Self:
        """Nothing seen yet: `normalise` leaves observations as they are."""
        return cls(0.0, torch.zeros(obs_shape, dtype=torch.float64), torch.zeros(obs_shape, dtype=torch.float64))

    def including(self, rows: Tensor) -> Self:
        """The moments of everything seen so far and `rows` [N, obs_dim]; Chan et al. (1983)."""
        rows = rows.double()
        count = self.count + len(rows)
        shift = rows.mean(0) - self.mean
        within = (rows - rows.mean(0)).square().sum(0)
        between = shift.square() * (self.count * len(rows) / count)
        return type(self)(count, self.mean + shift * (len(rows) / count), self.deviations + within + between)

    def normalise(self, obs: Tensor) -> Tensor:
        """Observations [..., obs_dim] with mean 0 and variance 1 by these statistics, clipped to +-10; float32."""
        if self.count < 2:
            return obs.clamp(-3.4e38, 3.4e38).float()  # what float32 has room for
        return ((obs - self.mean) / self._std).clamp(-10, 10).float()

    @cached_property
    def _std(self) -> Tensor:
        return unit_of((self.deviations / self.count).sqrt(), self.mean)


@dataclass(frozen=True)
class PathRecord(ABC):
    """T steps of E environments side by side, and what is needed to go on; a subclass says how it keeps observations.

    actions      [T, E] or [T, E, action_dim]  as drawn from the policy, before any scaling and clipping
    log_q        [T, E]  their log probability under the policy that drew them
    rewards      [T, E]  what the advantages are made of; float64
    terminated, truncated  [T, E]  bool
    final_obs    [number of truncated steps, *obs_shape]  raw observation that each of them led to, in order of (t, e)
    next_obs     [E, *obs_shape]  raw observation from which sampling goes on
    episode_returns, episode_lengths  of the episodes that ended during these steps, as the environment counts them
    seconds      wall time spent "acting" and "simulating"
    """

    actions: Tensor
    log_q: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    next_obs: Tensor
    episode_returns: tuple[float, ...]
    episode_lengths: tuple[int, ...]
    seconds: dict[str, float]

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken: T * E."""
        return self.rewards.numel()

    @property
    @abstractmethod
    def states(self) -> Samples:
        """The states before all steps, [E * T], environment by environment."""


@dataclass(frozen=True)
class SinglePath(PathRecord):
    """A path with its observations.

    raw_obs      [T, E, obs_dim]  as the environment gave them; float64
    obs          [T, E, obs_dim]  normalised, as the policy saw them; float32
    """

    raw_obs: Tensor
    obs: Tensor

    @property
    def problem(self) -> str:
        """Why these samples must not be learned from, or "" when all numbers are finite."""
        columns = {"an observation": self.raw_obs, "a reward": self.rewards, "an action": self.actions.double()}
        columns |= {"an observation after an episode": self.final_obs, "the last observation": self.next_obs}
        columns |= {"a log probability": self.log_q}
        broken = [name for name, column in columns.items() if not column.isfinite().all()]
        return f"{broken[0]} is not finite" if broken else ""

    @property
    def states(self) -> States:
        """As the policy saw them, [E * T], for KL and Fisher matrix: `trpo_update(..., states=path.states)`."""
        return States(by_environment(self.obs))

    def statistics_after(self, statistics: RunningMoments) -> RunningMoments:
        """The statistics for the next iteration: those of everything seen so far and of this path."""
        return statistics.including(self.raw_obs.flatten(0, 1))

    def batch(self, advantages: Tensor) -> Batch:
        """The batch for an update, given `advantages` [T, E].

        Samples are ordered environment by environment, so that neighbours in the batch are neighbours in time: thinning
        by a stride then drops what is most redundant.
        """
        return Batch(*(by_environment(x) for x in (self.obs, self.actions, advantages.float(), self.log_q)))


def by_environment(rows: Tensor) -> Tensor:
    """[T, E, ...] -> [E * T, ...], one environment after the other."""
    return rows.transpose(0, 1).flatten(0, 1)


def values_along(
    path: PathRecord, statistics: RunningMoments, value: Callable[[Tensor], Tensor], chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """V of the state before each step and of the state it led to, both [T, E], as `advantages.gae` wants them.

    The state a step led to is the next row's, except where an episode was truncated (there it is the final observation,
    before the reset) and in the last row. After a termination the entry has no meaning, and gae ignores it.
    """
    of_chunks = [value(chunk.obs) for chunk in chunks(path.states, chunk_size)]
    values = torch.cat(of_chunks).view(path.rewards.T.shape).T
    after_last, after_cut = (value(statistics.normalise(obs)) for obs in (path.next_obs, path.final_obs))
    next_values = torch.cat([values[1:], after_last[None]])
    next_values[path.truncated] = after_cut
    return values, next_values


def sample_single_path(
    env: VectorEnv,
    policy: Policy,
    theta: Tensor,
    statistics: RunningMoments,
    raw_obs: Tensor,
    num_steps: int,
    generator: torch.Generator,
) -> SinglePath:
    """Follow the policy for `num_steps` steps in every environment, from `raw_obs` [E, obs_dim].

    The environment must reset itself within the step that ends an episode (gymnasium's AutoresetMode.SAME_STEP), so
    that every step is a real transition. Continuous actions are scaled and clipped to the action space on their way to
    the environment (`for_environment`), never in the record: the probability that counts is that of the action drawn.
    """
    recorder = PathRecorder()
    return recorder.finish(follow(env, policy, theta, statistics, raw_obs, num_steps, generator, recorder))


def follow(
    env: VectorEnv,
    policy: Policy,
    theta: Tensor,
    statistics: RunningMoments,
    raw_obs: Tensor,
    num_steps: int,
    generator: torch.Generator,
    recorder: PathRecorder,
) -> Tensor:
    """As `sample_single_path`, but what becomes of it is up to `recorder`; the raw observations to go on from."""
    policy_now = policy.at(theta)
    for _ in range(num_steps):
        start = time.perf_counter()
        with torch.no_grad():
            obs = statistics.normalise(raw_obs)
            distribution = policy_now(obs)
            actions = distribution.sample(generator)
        command = for_environment(actions, env.single_action_space)
        acted = time.perf_counter()
        next_obs, rewards, terminated, truncated, infos = env.step(command)
        recorder.seconds["acting"] += acted - start
        recorder.seconds["simulating"] += time.perf_counter() - acted
        recorder.record(raw_obs, obs, distribution, actions, (rewards, terminated, truncated, infos))
        raw_obs = torch.as_tensor(next_obs, dtype=raw_obs.dtype).clone()
    return raw_obs


def for_environment(actions: Tensor, space: gym.Space[Any]) -> np.ndarray:
    """The policy's actions as the environment wants them: numpy, continuous ones scaled and within its bounds.

    A first policy is N(0, 1) in every component, wherever the action space lies. So -1 and 1 stand for the lower and
    the upper bound of a component that has both; a component without one of them is left as it is. The record keeps the
    action that was drawn: a fixed affine map changes no ratio of probabilities.

    A NaN (from an observation that was not finite) becomes the lower bound here; it stays in the record, and the
    update is refused.
    """
    return into_box(actions.numpy(), space) if isinstance(space, gym.spaces.Box) else np.asarray(actions)


class PathRecorder:
    """Collects the rows of a SinglePath."""

    COLUMNS: tuple[str, ...] = ("raw_obs", "obs", "actions", "rewards", "terminated", "truncated")

    def __init__(self) -> None:
        self.seconds = {"acting": 0.0, "simulating": 0.0}
        self._rows: dict[str, list[Tensor]] = {name: [] for name in self.COLUMNS}
        self._distributions: list[Distribution] = []
        self._final_obs: list[np.ndarray] = []
        self._episodes: list[tuple[float, int]] = []  # return and length

    def record(
        self, raw_obs: Tensor, obs: Tensor, distribution: Distribution, actions: Tensor, outcome: Outcome
    ) -> None:
        """One step in every environment: what was seen and done, and what came of it."""
        rewards, terminated, truncated, infos = outcome
        # Copies: the environment may use its arrays again for the next step.
        copies = (np.array(rewards, dtype=np.float64), np.array(terminated), np.array(truncated))
        row = (raw_obs, obs, actions, *map(torch.from_numpy, copies))
        for name, column in zip(PathRecorder.COLUMNS, row, strict=True):
            if name in self._rows:
                self._rows[name].append(column)
        self._distributions.append(distribution)
        self._final_obs += [np.array(infos["final_obs"][e]) for e in np.flatnonzero(truncated)]
        if "episode" in infos:
            ended, episode = infos["_episode"], infos["episode"]
            self._episodes += zip(episode["r"][ended].tolist(), episode["l"][ended].tolist(), strict=True)

    def finish(self, next_obs: Tensor) -> SinglePath:
        """The path, given the raw observations [E, obs_dim] after its last step."""
        columns: dict[str, Any] = {name: torch.stack(rows) for name, rows in self._rows.items()}
        return SinglePath(**columns, **self._rest(columns["actions"], next_obs))

    def _rest(self, actions: Tensor, next_obs: Tensor) -> dict[str, Any]:
        """What a path has beside the columns; `actions` as recorded."""
        start = time.perf_counter()
        log_q = _stacked(self._distributions).log_prob(actions)
        self.seconds["acting"] += time.perf_counter() - start
        return {
            "log_q": log_q,
            "final_obs": torch.as_tensor(np.array(self._final_obs), dtype=next_obs.dtype).view(-1, *next_obs.shape[1:]),
            "next_obs": next_obs,
            "episode_returns": tuple(r for r, _ in self._episodes),
            "episode_lengths": tuple(length for _, length in self._episodes),
            "seconds": self.seconds,
        }


def _stacked(rows: Sequence[Distribution]) -> Distribution:
    """The distributions of every row in one. A log probability is a dozen small operations; a row each costs more."""
    return rows[0].with_parameters(*map(torch.stack, zip(*(row.parameters for row in rows), strict=True)))
