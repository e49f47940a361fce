"""How noisy is a gradient? Vine against single path, for the same policy and the same number of simulator steps.

    python -m trpo_lessons.bench.gradient_variance train hopper      # the policy, its statistics and its value function
    python -m trpo_lessons.bench.gradient_variance measure hopper    # what the zoo holds, and lesson 07 shows

Every estimator is asked for the same thing, the gradient of the surrogate at theta_old, from batch after batch. Its
batches come from one run that goes on and on, so that nothing is cut at the end of a batch and every step is paid for
once, those of the trunk too. Copies that idle at the end of a small vine are not counted: a large one keeps them busy.

    noise     trace of the covariance of the gradient of one batch
    signal    squared length of the mean gradient along the true one
    steps     simulator steps until noise and signal are equal: noise / signal * steps of a batch

The true gradient is never known, but products of independent estimates of it have the right mean. The ratio does not
change when a gradient is multiplied by a number, as equation 17 does by (K - 1) / K. Lengths are measured in
parameters, or in the ruler that the natural direction is chosen with, (A + damping I)^-1: there the noise is that of
what an update sees.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import ValueFunction, discounted_returns, gae
from trpo_lessons.distributions import Distribution
from trpo_lessons.envs import RestorableVectorEnv, restorable
from trpo_lessons.kl import fisher_matrix
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import RunningMoments, SinglePath, by_environment, sample_single_path, values_along
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.loop import Trainer, statistics_from
from trpo_lessons.training.policy_for import policy_for
from trpo_lessons.training.presets import preset
from trpo_lessons.vine import (
    Vine,
    all_actions_surrogate,
    every_action,
    from_the_policy,
    sample_vine,
    self_normalised_surrogate,
)

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
DAMPING = 0.1
NUM_ENVS = 16  # of single paths and of trunks
TRUNK_STEPS = 8  # of the trunk for every state with branches; the paper's hopper has 6.4
BATCH_STEPS = {"cartpole": 1024, "hopper": 5120, "swimmer": 5120}
WARM_UP = {"cartpole": 512, "hopper": 512, "swimmer": 64}  # steps of every copy until all are at different places
BOOTSTRAPS = 1000
Floats = npt.NDArray[np.float64]


# ---- whose gradient


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy on its way to being a good one, and what came with its training."""

    task: str
    policy: Policy
    theta: Tensor
    statistics: RunningMoments
    value: ValueFunction
    gamma: float
    lam: float

    def env(self, num_envs: int, seed: int) -> RestorableVectorEnv:
        """Copies of the task."""
        return restorable(envs.make(self.task, num_envs, seed=seed, threads=1))

    def pi_old(self, raw_obs: Tensor | Floats) -> Distribution:
        """The policy in states seen as the environment shows them, [E, obs_dim]."""
        with torch.no_grad():
            return self.policy(self.theta, self.statistics.normalise(torch.as_tensor(raw_obs)))


def _config(name: str) -> TrainConfig:
    settings = {key: value for key, value in TRAINING[name].items() if key not in ("task", "iterations")}
    return preset(TRAINING[name].get("task", name), "class", threads=1, seed=0, **settings)


def train_subject(name: str, folder: Path = FOLDER) -> list[float]:
    """Train, and write to `folder`; the mean return after every iteration.

    The presets have moved on since those of the zoo were trained: training again gives others of the same kind.
    """
    trainer = Trainer(_config(name))
    returns = [trainer.iterate()["mean_return"] for _ in range(TRAINING[name]["iterations"])]
    tensors, facts = trainer.state()
    kept = {key: tensor for key, tensor in tensors.items() if key.startswith(("theta", "statistics.", "value."))}
    kept["statistics.count"] = torch.tensor(facts["statistics_count"], dtype=torch.float64)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in kept.items()}, folder / f"{name}.safetensors")
    trainer.close()
    return returns


@functools.cache
def load_subject(name: str, folder: Path = FOLDER) -> Subject:
    """One of `TRAINING`, as it was trained."""
    config, tensors = _config(name), load_file(folder / f"{name}.safetensors")
    policy = policy_for(envs.make(config.task, 1, seed=0, threads=1), config)
    value = ValueFunction(len(tensors["statistics.mean"]), config.value_hidden)
    value.load_state_dict({key.removeprefix("value."): t for key, t in tensors.items() if key.startswith("value.")})
    statistics = statistics_from(tensors, {"statistics_count": tensors["statistics.count"].item()})
    return Subject(config.task, policy, tensors["theta"], statistics, value, config.gamma, config.lam)


# ---- batch after batch


@dataclass(frozen=True)
class Gradients:
    """The gradients of R batches, [R, num_parameters], float64, and how many simulator steps a batch took."""

    rows: Tensor
    steps: float


def long_run(subject: Subject, seed: int) -> tuple[RestorableVectorEnv, Tensor, torch.Generator]:
    """Copies that have played long enough to be at different places, what they see, and a generator."""
    env, generator = subject.env(NUM_ENVS, seed), torch.Generator().manual_seed(seed)
    raw_obs = torch.as_tensor(env.reset(seed=1000 * seed)[0], dtype=torch.float64)
    path = follow(subject, env, raw_obs, WARM_UP[subject.task], generator)
    return env, path.next_obs, generator


def follow(
    subject: Subject, env: RestorableVectorEnv, raw_obs: Tensor, num_steps: int, generator: torch.Generator
) -> SinglePath:
    """The single path of a subject."""
    return sample_single_path(env, subject.policy, subject.theta, subject.statistics, raw_obs, num_steps, generator)


RETURNS, MEAN_OFF, VALUE_OFF, GAE = "returns", "returns - their mean", "returns - V", "GAE"


def single_path_gradients(subject: Subject, batches: int, rows: int, seed: int) -> dict[str, Gradients]:
    """One path of `batches` * `rows` steps in every copy, cut into batches; four ways to say what an action was worth.

    Returns are those of the whole path, also of the steps that fall into the next batch; only where the whole run ends
    they are cut, and V stands for the rest.
    """
    env, raw_obs, generator = long_run(subject, seed)
    path = follow(subject, env, raw_obs, batches * rows, generator)
    values, next_values = values_along(path, subject.statistics, subject.value)
    returns = discounted_returns(path.rewards, next_values, path.terminated, path.truncated, subject.gamma)
    ends = path.terminated, path.truncated
    worth = {
        RETURNS: returns,
        MEAN_OFF: returns,
        VALUE_OFF: returns - values,
        GAE: gae(path.rewards, values, next_values, *ends, subject.gamma, subject.lam),
    }
    found: dict[str, list[Tensor]] = {name: [] for name in worth}
    for start in range(0, batches * rows, rows):
        here = slice(start, start + rows)
        for name, each in worth.items():
            advantages = each[here] - each[here].mean() if name == MEAN_OFF else each[here]
            columns = (path.obs[here], path.actions[here], advantages.float(), path.log_q[here])
            batch = Batch(*(by_environment(column) for column in columns))
            found[name].append(surrogate_gradient(subject.policy, subject.theta, batch).double())
    return {name: Gradients(torch.stack(rows_), rows * NUM_ENVS) for name, rows_ in found.items()}


@dataclass(frozen=True)
class VineSettings:
    """How a vine grows: K, the length of a rollout, common random numbers or not, and V at the cut or nothing."""

    branches: int
    length: int
    common: bool = True
    value_at_cut: bool = False
    trunk_steps: int = TRUNK_STEPS

    @property
    def name(self) -> str:
        """Such as "K 4, length 10, V at the cut, own random numbers"."""
        parts = [f"K {self.branches}", f"length {self.length}"]
        parts += ["V at the cut"] * self.value_at_cut + ["own random numbers"] * (not self.common)
        return ", ".join(parts)


def vines(subject: Subject, settings: VineSettings, batch_steps: int, seed: int) -> Iterator[Vine]:
    """Vine after vine, each from where the trunk of the one before ended; each costs about `batch_steps` steps."""
    env, raw_obs, generator = long_run(subject, seed)
    branch_env = subject.env(32, seed)
    first_actions = every_action if subject.task == "cartpole" else from_the_policy(settings.branches)

    def grow(raw_obs: Tensor, num_states: int) -> Vine:
        return sample_vine(
            env,
            branch_env,
            subject.policy,
            subject.theta,
            subject.statistics,
            raw_obs,
            trunk_steps=max(1, round(num_states * settings.trunk_steps / NUM_ENVS)),
            num_states=num_states,
            first_actions=first_actions,
            rollout_length=settings.length,
            gamma=subject.gamma,
            generator=generator,
            value=subject.value if settings.value_at_cut else None,
            common_random_numbers=settings.common,
        )

    # Branches end early where episodes do: a first vine, which is not used, says how long they are.
    trial = grow(raw_obs, 64)
    raw_obs = trial.trunk.next_obs
    per_state = settings.trunk_steps + trial.lengths.double().sum(1).mean().item()
    num_states = max(1, round(batch_steps / per_state))
    while True:
        grown = grow(raw_obs, num_states)
        raw_obs = grown.trunk.next_obs
        yield grown


def vine_gradients(subject: Subject, settings: VineSettings, batches: int, batch_steps: int, seed: int) -> Gradients:
    """The gradients of equation 16 on discrete tasks, of equation 17 on continuous ones."""
    surrogate = all_actions_surrogate if subject.task == "cartpole" else self_normalised_surrogate
    rows, steps = [], 0
    for _, grown in zip(range(batches), vines(subject, settings, batch_steps, seed), strict=False):
        rows.append(surrogate_gradient(subject.policy, subject.theta, grown.rollout_set, surrogate).double())
        steps += grown.trunk.num_steps + int(grown.lengths.sum())
    return Gradients(torch.stack(rows), steps / batches)


# ---- noise and signal


Ruler = Callable[[Tensor], Tensor]


def in_parameters(rows: Tensor) -> Tensor:
    """Lengths are those of the parameters themselves."""
    return rows


def natural_ruler(subject: Subject, num_states: int = 1024, seed: int = 9) -> Ruler:
    """|g|^2 = g^T (A + damping I)^-1 g: what a trust region of the KL makes of a gradient. A from fresh states."""
    env, raw_obs, generator = long_run(subject, seed)
    path = follow(subject, env, raw_obs, num_states // NUM_ENVS, generator)
    A = fisher_matrix(subject.policy, subject.theta.double(), by_environment(path.obs).double())
    root = torch.linalg.cholesky(A + DAMPING * torch.eye(len(A), dtype=torch.float64))
    return lambda rows: torch.linalg.solve_triangular(root, rows.T, upper=False).T


def central(drawn: Floats) -> tuple[float, float]:
    """The central 95 % of bootstrap values."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Noise:
    """How noisy an estimator is, with `BOOTSTRAPS` values each from batches drawn again; see the module for the names.

    steps    simulator steps until noise and signal are equal
    aligned  cosine of the mean gradient and the true one: below 1 by what no number of batches mends
    """

    steps: float
    aligned: float
    steps_drawn: Floats = field(repr=False)
    aligned_drawn: Floats = field(repr=False)

    def interval(self) -> tuple[float, float]:
        """The central 95 % of what the bootstrap makes of `steps`."""
        return central(self.steps_drawn)

    def times(self, other: Noise) -> tuple[float, float, float]:
        """How many times as many steps as `other` this estimator needs, and the 95 % interval of that."""
        return self.steps / other.steps, *central(self.steps_drawn / other.steps_drawn)


def noise(gradients: Gradients, reference: Gradients, ruler: Ruler = in_parameters, seed: int = 0) -> Noise:
    """Noise and signal of an estimator; `reference` are independent gradients without bias, of an even number of rows.

    With m the mean gradient, g the true one and a, b the means of the two halves of the reference:
    signal = (m.g)^2 / |g|^2, where m.g is estimated by m.(a + b)/2 and |g|^2 by a.b.
    """
    rows, true = ruler(gradients.rows), ruler(reference.rows)
    count, half = len(rows), len(true) // 2
    gram, halves = (rows @ rows.T).numpy(), (true[:half], true[half : 2 * half])
    with_half = [(rows @ each.T).numpy() for each in halves]
    across = (halves[0] @ halves[1].T).numpy()

    def evaluate(c: Floats, a: Floats, b: Floats) -> tuple[float, float]:
        mean_square = c @ gram @ c
        covariance = count / (count - 1) * (c @ gram.diagonal() - mean_square)
        along = c @ (with_half[0] @ a + with_half[1] @ b) / 2
        true_square = a @ across @ b
        if along <= 0 or true_square <= 0:
            return 1e12, 0.0  # no signal to be seen
        squares = max((mean_square - covariance / count) * true_square, along**2)
        return covariance * true_square / along**2 * gradients.steps, along / np.sqrt(squares)

    def shares(rng: np.random.Generator, size: int) -> Floats:
        return np.bincount(rng.integers(size, size=size), minlength=size) / size

    # The reference is drawn again in the same way for every estimator, so that its luck cancels in comparisons.
    own, common = np.random.default_rng([seed, 1]), np.random.default_rng(0)
    even = np.full(count, 1 / count), np.full(half, 1 / half), np.full(half, 1 / half)
    drawn = [evaluate(shares(own, count), shares(common, half), shares(common, half)) for _ in range(BOOTSTRAPS)]
    steps, aligned = evaluate(*even)
    steps_drawn, aligned_drawn = np.array(drawn).T
    return Noise(steps, aligned, steps_drawn, aligned_drawn)


# ---- the zoo

SEED = {"reference": 1, "single path": 2, "vine": 3}
BATCHES = {"cartpole": 200, "hopper": 100, "hopping": 60}
VINES = {
    "cartpole": [
        VineSettings(2, 500),
        VineSettings(2, 500, common=False),
        VineSettings(2, 30),
        VineSettings(2, 30, common=False),
        VineSettings(2, 10, value_at_cut=True),
        VineSettings(2, 10, value_at_cut=True, common=False),
    ],
    "hopper": [
        VineSettings(4, 100),
        VineSettings(4, 100, common=False),
        VineSettings(4, 10, value_at_cut=True),
        VineSettings(4, 10, value_at_cut=True, common=False),
        VineSettings(2, 10, value_at_cut=True),
        VineSettings(8, 10, value_at_cut=True),
    ],
    "hopping": [VineSettings(4, 10, value_at_cut=True), VineSettings(4, 10, value_at_cut=True, common=False)],
}


def reference_gradients(subject: Subject, batches: int) -> Gradients:
    """Independent gradients without bias: returns - V along a single path."""
    rows = BATCH_STEPS[subject.task] // NUM_ENVS
    return single_path_gradients(subject, batches, rows, SEED["reference"])[VALUE_OFF]


def measure(task: str, batches: int) -> tuple[dict[str, Any], Tensor]:
    """Every estimator of a task, with `batches` batches each and twice as many for the reference, for `json`; and the
    mean of each half of the reference, [2, num_parameters].
    """
    begun = time.time()
    subject = load_subject(task)
    size = BATCH_STEPS[subject.task]
    reference = reference_gradients(subject, 2 * batches)
    rulers = {"natural": natural_ruler(subject), "parameters": in_parameters}
    path = single_path_gradients(subject, batches, size // NUM_ENVS, SEED["single path"])
    found = {f"single path: {name}": gradients for name, gradients in path.items()}
    for settings in VINES[task]:
        found[f"vine: {settings.name}"] = vine_gradients(subject, settings, batches, size, SEED["vine"])
        print(f"{time.time() - begun:.0f} s: {settings.name}", flush=True)
    rows: dict[str, Any] = {name: {"steps_per_batch": round(each.steps, 1)} for name, each in found.items()}
    for kind, ruler in rulers.items():
        measured = {name: noise(each, reference, ruler) for name, each in found.items()}
        for name, one in measured.items():
            rows[name][kind] = {
                "steps": one.steps,
                "interval": one.interval(),
                "times_returns": one.times(measured[f"single path: {RETURNS}"]),
                "aligned": one.aligned,
                "aligned_interval": central(one.aligned_drawn),
            }
    facts = {
        "command": f"python -m trpo_lessons.bench.gradient_variance measure {task}",
        "task": task,
        "batches": batches,
        "batch_steps": size,
        "seeds": SEED,
        "damping": DAMPING,
        "gamma": subject.gamma,
        "lam": subject.lam,
        "training": TRAINING[task],
        "seconds": round(time.time() - begun),
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, shared with other work",
        "versions": {name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")},
        "estimators": rows,
    }
    return facts, torch.stack([half.mean(0) for half in reference.rows.chunk(2)])


def recorded(task: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The measurement that the zoo holds; its intervals are of 95 %."""
    found: dict[str, Any] = json.loads((folder / f"{task}.json").read_text(encoding="utf-8"))
    return found


def recorded_reference(task: str, folder: Path = FOLDER) -> Gradients:
    """The two halves of the recorded reference, [2, num_parameters]."""
    return Gradients(load_file(folder / f"{task}_reference.safetensors")["halves"], math.nan)


def main() -> None:
    """Train a subject, or measure; what comes out goes to the zoo."""
    parser = argparse.ArgumentParser(prog="python -m trpo_lessons.bench.gradient_variance", description=main.__doc__)
    parser.add_argument("what", choices=["train", "measure"])
    parser.add_argument("task", choices=list(TRAINING), metavar="task", help=", ".join(TRAINING))
    parser.add_argument("--batches", type=int, help="fewer batches for a quick look; nothing is written then")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "train":
        print(f"mean return after each iteration: {[round(r) for r in train_subject(arguments.task)]}")
        return
    if arguments.task not in VINES:
        parser.error(f"gradients are measured on {' and '.join(VINES)}")
    facts, halves = measure(arguments.task, arguments.batches or BATCHES[arguments.task])
    text = json.dumps(facts, indent=1)
    print(text)
    if arguments.batches is None:
        save_file({"halves": halves}, FOLDER / f"{arguments.task}_reference.safetensors")
        (FOLDER / f"{arguments.task}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
