"""How noisy is a gradient? Vine against single path, for the same policy and the same number of simulator steps.

    python -m trpo_lessons.bench.gradient_variance train hopper      # the policy, its statistics and its value function
    python -m trpo_lessons.bench.gradient_variance measure hopper    # what the zoo holds, and lesson 07 shows

Reading order: after `gradient_subjects`, which says whose gradients these are, and `gradient_batches`, which says how
they are estimated.

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
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trpo_lessons.bench.gradient_batches import (
    GAE,
    MEAN_OFF,
    RETURNS,
    VALUE_OFF,
    Gradients,
    VineSettings,
    single_path_gradients,
    vine_gradients,
)
from trpo_lessons.bench.gradient_subjects import (
    FOLDER,
    NUM_ENVS,
    TRAINING,
    Floats,
    Subject,
    follow,
    load_subject,
    long_run,
    train_subject,
)
from trpo_lessons.kl import fisher_matrix
from trpo_lessons.single_path import by_environment

# What the first copies of lesson 07 import from here; students still have them.
__all__ = [
    "GAE",
    "MEAN_OFF",
    "RETURNS",
    "VALUE_OFF",
    "VineSettings",
    "load_subject",
    "long_run",
    "natural_ruler",
    "noise",
    "recorded",
    "recorded_reference",
    "reference_gradients",
    "single_path_gradients",
    "vine_gradients",
]

DAMPING = 0.1
BATCH_STEPS = {"cartpole": 1024, "hopper": 5120, "swimmer": 5120}
BOOTSTRAPS = 1000
NO_SIGNAL = 1e12  # steps


# ---- noise and signal


Ruler = Callable[[Tensor], Tensor]
"""Turns gradients [R, num_parameters] into rows [R, num_parameters] whose plain lengths are the lengths meant."""


def in_parameters(rows: Tensor) -> Tensor:
    """Lengths are those of the parameters themselves."""
    return rows


def natural_ruler(subject: Subject, num_states: int = 1024, seed: int = 9) -> Ruler:
    """|g|^2 = g^T (A + damping I)^-1 g: what a trust region of the KL makes of a gradient.

    A is the mean Fisher matrix over `num_states` fresh states, float64.
    """
    env, raw_obs, generator = long_run(subject, seed)
    path = follow(subject, env, raw_obs, num_states // NUM_ENVS, generator)
    A = fisher_matrix(subject.policy, subject.theta.double(), by_environment(path.obs).double())
    root = torch.linalg.cholesky(A + DAMPING * torch.eye(len(A), dtype=torch.float64))
    return lambda rows: torch.linalg.solve_triangular(root, rows.T, upper=False).T


def central(drawn: Floats) -> tuple[float, float]:
    """The ends of the central 95 % of bootstrap values [B]."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Noise:
    """How noisy an estimator is, with `BOOTSTRAPS` values each from batches drawn again; see the module for the names.

    steps          simulator steps until noise and signal are equal
    aligned        cosine of the mean gradient and the true one: below 1 by what no number of batches mends
    steps_drawn    [BOOTSTRAPS]
    aligned_drawn  [BOOTSTRAPS]
    """

    steps: float
    aligned: float
    steps_drawn: Floats = field(repr=False)
    aligned_drawn: Floats = field(repr=False)

    def interval(self) -> tuple[float, float]:
        """The central 95 % of what the bootstrap makes of `steps`, simulator steps."""
        return central(self.steps_drawn)

    def times(self, other: Noise) -> tuple[float, float, float]:
        """How many times as many steps as `other` this estimator needs, and the 95 % interval of that."""
        return self.steps / other.steps, *central(self.steps_drawn / other.steps_drawn)


@dataclass(frozen=True, eq=False)
class _Products:
    """Inner products of R gradients with each other, and with the two halves of a reference, H gradients each.

    own      [R, R]
    halves   [R, H], [R, H]
    across   [H, H]  of one half with the other
    """

    own: Floats
    halves: tuple[Floats, Floats]
    across: Floats

    @classmethod
    def of(cls, rows: Tensor, true: Tensor) -> _Products:
        """From gradients [R, num_parameters] and a reference [2 H, num_parameters], both in a ruler."""
        half = len(true) // 2
        one, other = true[:half], true[half : 2 * half]
        halves = (rows @ one.T).numpy(), (rows @ other.T).numpy()
        return cls((rows @ rows.T).numpy(), halves, (one @ other.T).numpy())

    def evaluate(self, c: Floats, a: Floats, b: Floats) -> tuple[float, float]:
        """Noise / signal and alignment if gradients count by shares c [R], those of the reference by a [H] and b [H].

        With m the mean gradient, g the true one and a, b the means of the two halves of the reference:
        signal = (m.g)^2 / |g|^2, where m.g is estimated by m.(a + b)/2 and |g|^2 by a.b.
        """
        count, mean_square = len(c), c @ self.own @ c
        covariance = count / (count - 1) * (c @ self.own.diagonal() - mean_square)
        along = c @ (self.halves[0] @ a + self.halves[1] @ b) / 2
        true_square = a @ self.across @ b
        if along <= 0 or true_square <= 0:
            return math.inf, 0.0  # no signal to be seen
        squares = max((mean_square - covariance / count) * true_square, along**2)
        return float(covariance * true_square / along**2), float(along / np.sqrt(squares))


def drawn_shares(rng: np.random.Generator, size: int) -> Floats:
    """How much each of `size` batches counts, [size], when as many are drawn from them with replacement; sums to 1."""
    return np.bincount(rng.integers(size, size=size), minlength=size) / size


def noise(gradients: Gradients, reference: Gradients, ruler: Ruler = in_parameters, seed: int = 0) -> Noise:
    """Noise and signal of an estimator; `reference` are independent gradients without bias, of an even number of rows.

    Where no signal can be seen `steps` is `NO_SIGNAL`, and `aligned` 0.
    """
    products = _Products.of(ruler(gradients.rows), ruler(reference.rows))
    count, half = len(gradients.rows), len(reference.rows) // 2

    def evaluate(c: Floats, a: Floats, b: Floats) -> tuple[float, float]:
        ratio, aligned = products.evaluate(c, a, b)
        return min(ratio * gradients.steps, NO_SIGNAL), aligned

    # The reference is drawn again in the same way for every estimator, so that its luck cancels in comparisons.
    own, common = np.random.default_rng([seed, 1]), np.random.default_rng(0)
    even = np.full(count, 1 / count), np.full(half, 1 / half), np.full(half, 1 / half)
    drawn = [
        evaluate(drawn_shares(own, count), drawn_shares(common, half), drawn_shares(common, half))
        for _ in range(BOOTSTRAPS)
    ]
    steps_drawn, aligned_drawn = np.array(drawn).T
    return Noise(*evaluate(*even), steps_drawn, aligned_drawn)


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
    reference = reference_gradients(subject, 2 * batches)
    estimators = figures(all_gradients(task, batches, begun), reference, natural_ruler(subject))
    facts = circumstances(task, batches, round(time.time() - begun)) | {"estimators": estimators}
    return facts, torch.stack([half.mean(0) for half in reference.rows.chunk(2)])


def all_gradients(task: str, batches: int, begun: float) -> dict[str, Gradients]:
    """`batches` gradients of every estimator of a task; prints what is done, and the seconds since `begun`."""
    subject = load_subject(task)
    size = BATCH_STEPS[subject.task]
    path = single_path_gradients(subject, batches, size // NUM_ENVS, SEED["single path"])
    found = {f"single path: {name}": gradients for name, gradients in path.items()}
    for settings in VINES[task]:
        found[f"vine: {settings.name}"] = vine_gradients(subject, settings, batches, size, SEED["vine"])
        print(f"{time.time() - begun:.0f} s: {settings.name}", flush=True)
    return found


def figures(found: dict[str, Gradients], reference: Gradients, natural: Ruler) -> dict[str, dict[str, Any]]:
    """Of every estimator, the steps of a batch and what `noise` says with both rulers; steps are simulator steps."""
    rows: dict[str, dict[str, Any]] = {name: {"steps_per_batch": round(each.steps, 1)} for name, each in found.items()}
    for kind, ruler in {"natural": natural, "parameters": in_parameters}.items():
        measured = {name: noise(each, reference, ruler) for name, each in found.items()}
        for name, one in measured.items():
            rows[name][kind] = {
                "steps": one.steps,
                "interval": one.interval(),
                "times_returns": one.times(measured[f"single path: {RETURNS}"]),
                "aligned": one.aligned,
                "aligned_interval": central(one.aligned_drawn),
            }
    return rows


def circumstances(task: str, batches: int, seconds: int) -> dict[str, Any]:
    """How a measurement was made: command, settings, seeds, versions, machine and wall time in seconds."""
    subject = load_subject(task)
    return {
        "command": f"python -m trpo_lessons.bench.gradient_variance measure {task}",
        "task": task,
        "batches": batches,
        "batch_steps": BATCH_STEPS[subject.task],
        "seeds": SEED,
        "damping": DAMPING,
        "gamma": subject.gamma,
        "lam": subject.lam,
        "training": TRAINING[task],
        "seconds": seconds,
        "threads": 1,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, shared with other work",
        "versions": {name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")},
    }


def record(task: str, facts: dict[str, Any], halves: Tensor, folder: Path = FOLDER) -> None:
    """Write what `measure` returned to `folder`, where `recorded` and `recorded_reference` find it."""
    save_file({"halves": halves}, folder / f"{task}_reference.safetensors")
    (folder / f"{task}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


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
    print(json.dumps(facts, indent=1))
    if arguments.batches is None:
        record(arguments.task, facts, halves)


if __name__ == "__main__":
    main()
