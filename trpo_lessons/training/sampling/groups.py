"""Environments on several cores: groups of them, each followed by a thread of its own.

Stepping all copies in one call leaves cores idle: at every step the simulator's threads wait for the slowest copy, and
all of them wait while the policy acts. Groups wait for each other only once, when the batch is complete.

Python runs one thread at a time, and torch hands the interpreter on at every operation, which takes longer than a small
operation itself. So the threads take turns: each keeps its turn while it acts, and gives it away while its simulator
runs, which needs no interpreter.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.policies import Policy
from trpo_lessons.problem import Problem
from trpo_lessons.single_path import Actor, PathRecord
from trpo_lessons.training.sampling.threads import torch_threads
from trpo_lessons.training.settings.config import TrainConfig

Result = TypeVar("Result")
Value = Callable[[Tensor], Tensor]
"""V of normalised observations."""


class Experience(Protocol):
    """What a round of sampling brings back, whatever the scheme: it knows what to maximise."""

    @property
    def trunk(self) -> PathRecord:
        """Where episodes are counted and advantages estimated."""

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent "acting" and "simulating"."""

    @property
    def num_steps(self) -> int:
        """How many simulator steps were taken."""

    @property
    def flaw(self) -> str:
        """Why these samples must not be learned from, or ""."""

    @property
    def facts(self) -> dict[str, float]:
        """What the log says of this scheme alone."""

    def problem(self, policy: Policy, advantages: Tensor, chunk_size: int | None) -> Problem:
        """What an update is to improve, given advantages [T, E] along the trunk."""


@dataclass
class Group:
    """Some environments, where they are, and the random numbers of the policy that they follow."""

    env: VectorEnv[Any, Any, Any]
    generator: torch.Generator
    raw_obs: Tensor = field(default_factory=lambda: torch.empty(0))


class EnvironmentGroups:
    """`num_envs` environments between two batches, in `num_groups` groups of about the same size.

    The first group draws from `generator`, the others from generators of their own, seeded by the run's seed.
    """

    OBS_DTYPE = torch.float64  # of raw observations

    def __init__(
        self, config: TrainConfig, generator: torch.Generator, num_groups: int, num_envs: int | None = None
    ) -> None:
        """num_envs: instead of config.num_envs."""
        self._seed = config.seed
        self._sizes = [len(copies) for copies in np.array_split(np.arange(num_envs or config.num_envs), num_groups)]
        generators = [generator] + [_seeded(config.seed, group) for group in range(1, num_groups)]
        threads = max(1, config.threads // num_groups)
        self._groups = [
            Group(envs.make(config.task, size, threads=threads, **config.task_settings), generator)
            for size, generator in zip(self._sizes, generators, strict=True)
        ]
        self._turn, self._stop = Lock(), Event()
        self._threads = ThreadPoolExecutor(num_groups, thread_name_prefix="sampling")
        self.reset()

    @property
    def envs(self) -> list[VectorEnv[Any, Any, Any]]:
        """The environments of each group."""
        return [group.env for group in self._groups]

    @property
    def restorable(self) -> bool:
        """Whether `state` holds the environments' own state."""
        return isinstance(self._groups[0].env, envs.RestorableVectorEnv)

    def reset(self, iteration: int = 0) -> None:
        """Begin new episodes everywhere, after so many iterations: no two copies, iterations or seeds share theirs."""
        seeds = iter(envs.derived_seeds(self._seed, f"training after iteration {iteration}", sum(self._sizes)))
        for group, size in zip(self._groups, self._sizes, strict=True):
            obs = envs.begin_episodes(group.env, list(itertools.islice(seeds, size)))
            group.raw_obs = torch.tensor(obs, dtype=self.OBS_DTYPE)

    def in_threads(self, follow: Callable[[Group], Result]) -> Sequence[Result]:
        """What `follow` makes of each group, in a thread of its own; it must step `taking_turns(env)`.

        Where it fails, the other groups end with the step they are in.
        """

        def in_its_turn(group: Group) -> Result:
            with torch_threads(1), self._turn:  # a row of observations is too little work to share
                return follow(group)

        if len(self._groups) == 1:
            return [in_its_turn(self._groups[0])]
        self._stop.clear()
        following = [self._threads.submit(in_its_turn, group) for group in self._groups]
        ended = wait(following, return_when=FIRST_EXCEPTION).done
        self._stop.set()
        wait(following)
        for first in ended:
            first.result()  # where one has failed, its error and not those that followed from it
        return [each.result() for each in following]

    def taking_turns(self, env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
        """The environment, which gives the turn away while it steps, where there is anyone to give it to."""
        return _InTurns(env, self._turn, self._stop) if len(self._groups) > 1 else env

    def state(self) -> dict[str, Tensor]:
        """All that the next batch depends on, the policy and its statistics aside."""
        tensors = {
            "raw_obs": torch.cat([group.raw_obs for group in self._groups]),
            "generators": torch.stack([group.generator.get_state() for group in self._groups]),
        }
        if self.restorable:
            saved = [envs.restorable(group.env).save_state() for group in self._groups]
            tensors |= {f"env.{name}": torch.from_numpy(np.concatenate([s[name] for s in saved])) for name in saved[0]}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state()`. Raises KeyError or ValueError for the state of another kind of run.

        Environments that cannot restore their state are left as they are: `reset` them.
        """
        for group, generator in zip(self._groups, tensors["generators"], strict=True):
            group.generator.set_state(generator.clone())  # torch 2.13 misreads a row of a larger tensor
        if not self.restorable:
            return
        names = [name for name in tensors if name.startswith("env.")]
        parts = {name: torch.split(tensors[name], self._sizes) for name in (*names, "raw_obs")}
        for i, group in enumerate(self._groups):
            state = {name.removeprefix("env."): parts[name][i].numpy() for name in names}
            envs.restorable(group.env).restore_state(state)
            group.raw_obs = parts["raw_obs"][i]

    def close(self) -> None:
        """Close the environments. Sampling that still goes on in another thread ends with the step it is in."""
        self._stop.set()
        self._threads.shutdown()
        for group in self._groups:
            group.env.close()


class Sampler(EnvironmentGroups, ABC):
    """Environments that follow one policy, from batch to batch."""

    @abstractmethod
    def sample(self, pi_old: Actor, value: Value | None = None) -> Experience:
        """The next samples, from where the last ones have ended; `value` is asked for what was cut off, if need be."""


class _Stopped(Exception):  # noqa: N818 (nothing went wrong here)
    """The batch is not wanted any more."""


class _InTurns(VectorWrapper):
    """Gives the turn away while the environment steps. Whoever calls `step` must hold it."""

    def __init__(self, env: VectorEnv[Any, Any, Any], turn: Lock, stop: Event) -> None:
        super().__init__(env)
        self._turn, self._stop = turn, stop

    def step(self, actions: Any) -> Any:
        if self._stop.is_set():
            raise _Stopped
        self._turn.release()
        try:
            return self.env.step(actions)
        finally:
            self._turn.acquire()


def _seeded(seed: int, group: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, group]).generate_state(1, np.uint64)[0]))
