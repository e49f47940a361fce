"""Single-path sampling: follow the policy and use every state-action pair on the way.

Reading order: after `advantages`. Lesson 06, section 5.1 and the left half of figure 1.

`Actor` is the policy that samples, `sample_single_path` the loop, `SinglePath` what it returns, and its `problem` what
an update makes of it. `PathRecord` and `PathRecorder` are what paths of every kind have in common: those of games keep
each frame once, instead of the stacks that a policy sees. Raw observations are the environment's; the policy sees
normalised ones.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from trpo_lessons.advantages import standardised
from trpo_lessons.distributions import Distribution, concatenated
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.envs.rollouts import Outcome, Outcomes
from trpo_lessons.envs.spaces import into_box
from trpo_lessons.policies import Policy
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, Samples, States


@dataclass(frozen=True)
class Actor:
    """pi_old: a policy at one theta that sees raw observations through frozen statistics.

    Frozen, so that theta_old is the same policy while samples are drawn and when the update begins on them.
    """

    policy: Policy
    theta: Tensor
    statistics: RunningMoments

    @cached_property
    def answer(self) -> Callable[[Tensor], Distribution]:
        """What the policy says in states [N, *obs_shape] that are normalised already."""
        return self.policy.at(self.theta)

    def __call__(self, raw_obs: Tensor | np.ndarray) -> Distribution:
        """What the policy says where the environment shows `raw_obs` [N, *obs_shape]; without gradient."""
        with torch.no_grad():
            return self.answer(self.statistics.normalise(torch.as_tensor(raw_obs)))


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
    def trunk(self) -> Self:
        """Where episodes are counted and advantages estimated: a path without branches is its own trunk."""
        return self

    @property
    def facts(self) -> dict[str, float]:
        """What a log says of these samples beside what it says of every path: nothing."""
        return {}

    @property
    @abstractmethod
    def flaw(self) -> str:
        """Why these samples must not be learned from, or ""."""

    @property
    @abstractmethod
    def states(self) -> Samples:
        """The states before all steps, [E * T], environment by environment."""

    @abstractmethod
    def batch(self, advantages: Tensor) -> Samples:
        """A `surrogate.Batch` of all steps, given `advantages` [T, E].

        Samples are ordered environment by environment, so that neighbours in the batch are neighbours in time: thinning
        by a stride then drops what is most redundant.
        """

    @abstractmethod
    def statistics_after(self, statistics: RunningMoments) -> RunningMoments:
        """The statistics for the next iteration: those of everything seen so far and of this path."""

    def problem(self, policy: Policy, advantages: Tensor, chunk_size: int | None = None) -> Problem:
        """What an update is to improve, given `advantages` [T, E]: equation 15, held back in the same states."""
        return Problem(policy, self.batch(standardised(advantages)), chunk_size=chunk_size)


@dataclass(frozen=True)
class SinglePath(PathRecord):
    """A path with its observations.

    raw_obs      [T, E, obs_dim]  as the environment gave them; float64
    obs          [T, E, obs_dim]  normalised, as the policy saw them; float32
    """

    raw_obs: Tensor
    obs: Tensor

    @property
    def flaw(self) -> str:
        """Why these samples must not be learned from, or "" when all numbers are finite."""
        columns = {"an observation": self.raw_obs, "a reward": self.rewards, "an action": self.actions.double()}
        columns |= {"an observation after an episode": self.final_obs, "the last observation": self.next_obs}
        columns |= {"a log probability": self.log_q}
        broken = [name for name, column in columns.items() if not column.isfinite().all()]
        return f"{broken[0]} is not finite" if broken else ""

    @property
    def states(self) -> States:
        """As the policy saw them, [E * T]."""
        return States(by_environment(self.obs))

    def statistics_after(self, statistics: RunningMoments) -> RunningMoments:
        """The statistics for the next iteration: those of everything seen so far and of this path."""
        return statistics.including(self.raw_obs.flatten(0, 1))

    def batch(self, advantages: Tensor) -> Batch:
        """The batch for an update, given `advantages` [T, E]; environment by environment."""
        return Batch(*(by_environment(x) for x in (self.obs, self.actions, advantages.float(), self.log_q)))


def by_environment(rows: Tensor) -> Tensor:
    """[T, E, ...] -> [E * T, ...], one environment after the other."""
    return rows.transpose(0, 1).flatten(0, 1)


def sample_single_path(
    env: VectorEnv, pi_old: Actor, raw_obs: Tensor, num_steps: int, generator: torch.Generator
) -> SinglePath:
    """Follow the policy for `num_steps` steps in every environment, from `raw_obs` [E, obs_dim].

    The environment must reset itself within the step that ends an episode (gymnasium's AutoresetMode.SAME_STEP), so
    that every step is a real transition. Continuous actions are scaled and clipped to the action space on their way to
    the environment (`for_environment`), never in the record: the probability that counts is that of the action drawn.
    """
    recorder = PathRecorder()
    return recorder.finish(follow(env, pi_old, raw_obs, num_steps, generator, recorder))


def follow(
    env: VectorEnv, pi_old: Actor, raw_obs: Tensor, num_steps: int, generator: torch.Generator, recorder: PathRecorder
) -> Tensor:
    """As `sample_single_path`, but what becomes of it is up to `recorder`.

    Returns the raw observations to go on from, [E, obs_dim].
    """
    for _ in range(num_steps):
        start = time.perf_counter()
        with torch.inference_mode():
            obs = pi_old.statistics.normalise(raw_obs)
            distribution = pi_old.answer(obs)
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
    """Collects the rows of a SinglePath; a subclass may keep what was seen in another way."""

    def __init__(self) -> None:
        self.seconds = {"acting": 0.0, "simulating": 0.0}
        self._seen: list[tuple[Tensor, Tensor]] = []  # raw_obs, obs
        self._answers: list[Distribution] = []
        self._actions: list[Tensor] = []
        self._outcomes = Outcomes()

    def record(self, raw_obs: Tensor, obs: Tensor, answer: Distribution, actions: Tensor, outcome: Outcome) -> None:
        """One step in every environment: what was seen and done, and what came of it."""
        self._see(raw_obs, obs)
        self._answers.append(answer)
        self._actions.append(actions)
        self._outcomes.record(*outcome)

    def _see(self, raw_obs: Tensor, obs: Tensor) -> None:
        self._seen.append((raw_obs, obs))

    def finish(self, next_obs: Tensor) -> SinglePath:
        """The path, given the raw observations [E, obs_dim] after its last step."""
        raw_obs, obs = map(torch.stack, zip(*self._seen, strict=True))
        return SinglePath(raw_obs=raw_obs, obs=obs, **self._rest(next_obs))

    def _rest(self, next_obs: Tensor) -> dict[str, Any]:
        """What every path has beside what was seen."""
        start, actions = time.perf_counter(), torch.stack(self._actions)
        log_q = concatenated(self._answers, torch.stack).log_prob(actions)
        self.seconds["acting"] += time.perf_counter() - start
        columns = {"actions": actions, "log_q": log_q, "next_obs": next_obs, "seconds": self.seconds}
        return columns | self._outcomes.columns(next_obs)
