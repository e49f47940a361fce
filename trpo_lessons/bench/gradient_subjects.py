"""Whose gradients are measured: a few policies on their way to being good ones, trained once and kept in the zoo.

Reading order: before `gradient_variance`, which measures them and has the command that trains them.

A subject is a policy with all that came with its training: running statistics of its observations, a value function,
the discount and lambda. `train_subject` makes one, `load_subject` reads one back, and `follow` and `long_run` let it
act.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.envs import RestorableVectorEnv, restorable
from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import Actor, SinglePath, sample_single_path
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.training.settings.obs_statistics import restored
from trpo_lessons.training.settings.policy_for import policy_for
from trpo_lessons.training.settings.presets import preset
from trpo_lessons.value_function import ValueFunction

FOLDER = Path(__file__).parents[1] / "zoo" / "gradient_variance"
# Beginners, one that falls after a hundred steps among them; and one that hops. Discounts are part of what is measured,
# so they stand here, whatever the presets become.
TRAINING: dict[str, dict[str, Any]] = {
    "cartpole": {"iterations": 5, "hidden": (16,), "value_hidden": (32,), "gamma": 0.99, "lam": 0.95},
    "hopper": {"iterations": 15, "hidden": (32, 32), "value_hidden": (32, 32), "gamma": 0.99, "lam": 0.95},
    "hopping": {
        "task": "hopper",
        "iterations": 60,
        "hidden": (32, 32),
        "value_hidden": (32, 32),
        "gamma": 0.995,
        "lam": 0.95,
    },
    "swimmer": {"iterations": 20, "hidden": (32, 32), "value_hidden": (32, 32), "gamma": 0.99, "lam": 0.95},
}
NUM_ENVS = 16  # of single paths and of trunks
WARM_UP = {"cartpole": 512, "hopper": 512, "swimmer": 64}  # steps of every copy until all are at different places
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy on its way to being a good one, and what came with its training.

    task        name of the environment it acts in
    theta       [num_parameters]  of `policy`, float32
    statistics  of raw observations; `policy` and `value` see them normalised
    value       normalised obs [M, obs_dim] -> [M], discounted return in units of reward
    gamma, lam  discount and GAE's lambda, per simulator step
    """

    task: str
    policy: Policy
    theta: Tensor
    statistics: RunningMoments
    value: ValueFunction
    gamma: float
    lam: float

    def env(self, num_envs: int, seed: int) -> RestorableVectorEnv:
        """`num_envs` copies of the task, side by side, in one thread."""
        return restorable(envs.make(self.task, num_envs, seed=seed, threads=1))

    @functools.cached_property
    def pi_old(self) -> Actor:
        """The policy as it acts: what it says where the environment shows `raw_obs` [E, obs_dim]."""
        return Actor(self.policy, self.theta, self.statistics)


# ---- training and loading


def _config(name: str) -> TrainConfig:
    settings = {key: value for key, value in TRAINING[name].items() if key not in ("task", "iterations")}
    return preset(TRAINING[name].get("task", name), "class", threads=1, seed=0, **settings)


def train_subject(name: str, folder: Path = FOLDER) -> list[float]:
    """Train one of `TRAINING`, and write it to `folder`; the mean return of every iteration, undiscounted.

    The presets have moved on since those of the zoo were trained: training again gives others of the same kind.
    """
    trainer = Trainer(_config(name))
    returns = [trainer.iterate()["mean_return"] for _ in range(TRAINING[name]["iterations"])]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_kept(*trainer.state()), folder / f"{name}.safetensors")
    trainer.close()
    return returns


def _kept(tensors: dict[str, Tensor], facts: dict[str, Any]) -> dict[str, Tensor]:
    """Of a trainer's state, what a subject needs: theta, the statistics with their count, and the value function."""
    kept = {key: tensor for key, tensor in tensors.items() if key.startswith(("theta", "statistics.", "value."))}
    kept["statistics.count"] = torch.tensor(facts["statistics_count"], dtype=torch.float64)
    return {key: tensor.contiguous() for key, tensor in kept.items()}


@functools.cache
def load_subject(name: str, folder: Path = FOLDER) -> Subject:
    """One of `TRAINING`, as it was trained. Raises KeyError for another name."""
    config, tensors = _config(name), load_file(folder / f"{name}.safetensors")
    policy = policy_for(envs.make(config.task, 1, seed=0, threads=1), config)
    obs_dim = len(tensors["statistics.mean"])
    value = ValueFunction(obs_dim, config.value_hidden)
    value.load_state_dict({key.removeprefix("value."): t for key, t in tensors.items() if key.startswith("value.")})
    counted = {"statistics_count": tensors["statistics.count"].item()}
    statistics = restored(RunningMoments.empty(obs_dim), tensors, counted)
    return Subject(config.task, policy, tensors["theta"], statistics, value, config.gamma, config.lam)


# ---- acting


def follow(
    subject: Subject, env: RestorableVectorEnv, raw_obs: Tensor, num_steps: int, generator: torch.Generator
) -> SinglePath:
    """The single path of a subject: `num_steps` steps in every copy of `env`, from raw observations [E, obs_dim]."""
    return sample_single_path(env, subject.pi_old, raw_obs, num_steps, generator)


def long_run(subject: Subject, seed: int) -> tuple[RestorableVectorEnv, Tensor, torch.Generator]:
    """`NUM_ENVS` copies that have played until they are at different places, what they see, and a generator.

    What they see are raw observations, [NUM_ENVS, obs_dim], float64.
    """
    env, generator = subject.env(NUM_ENVS, seed), torch.Generator().manual_seed(seed)
    raw_obs = torch.as_tensor(env.reset(seed=1000 * seed)[0], dtype=torch.float64)
    path = follow(subject, env, raw_obs, WARM_UP[subject.task], generator)
    return env, path.next_obs, generator
