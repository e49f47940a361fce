"""What is the step from one batch worth on other batches? Single path and vines, from the same policy of a game.

    python -m trpo_lessons.bench.step_worth qbert/vine --out trpo_lessons/zoo/step_worth

A step is the natural direction of its batch, scaled to `delta`. On that batch it promises `gradient @ step`, and much
of this is the luck of the batch. On the mean gradient of many other batches, taken along single paths, the same product
is what it is worth, in expectation and for small steps: units are those of the standardised advantages. Every scheme
has the policy, V, statistics and simulator steps of an iteration that the run would have.

The reference asks with GAE, so that what V gets wrong within some twenty steps is not held against anybody.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from trpo_lessons import zoo_names
from trpo_lessons.advantages import gae
from trpo_lessons.problem import Problem
from trpo_lessons.training import RunError, TrainConfig
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder, environment_facts, json_text
from trpo_lessons.training.running.updates import region_of
from trpo_lessons.trpo import natural_direction
from trpo_lessons.value_function import values_along

FORMAT = "trpo-lessons step worth, format 1"
SINGLE = "single path"
# name -> settings on top of the run's. Half of the steps are the branches' in each of them.
SCHEMES: dict[str, dict[str, Any]] = {
    SINGLE: {"sampling": "single-path"},
    "512 x 4 x 2, policy": {"vine_states": 512, "rollout_length": 2, "first_actions": "policy"},
    "256 x 4 x 4, policy": {"vine_states": 256, "rollout_length": 4, "first_actions": "policy"},
    "64 x 4 x 16, policy": {"vine_states": 64, "rollout_length": 16, "first_actions": "policy"},
    "512 x 4 x 2, uniform": {"vine_states": 512, "rollout_length": 2, "first_actions": "uniform"},
    "64 x 4 x 16, uniform": {"vine_states": 64, "rollout_length": 16, "first_actions": "uniform"},
    "112 x 18 x 2, all": {"vine_states": 112, "vine_branches": 18, "rollout_length": 2, "first_actions": "uniform"},
}
"""States with branches x branches in each x steps of a branch, and how first actions are drawn."""
STEPS, BRANCHES = 8192, 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """Of several batches: their gradients and their steps, [batches, num_parameters] each."""

    gradients: Floats
    steps: Floats

    @property
    def promised(self) -> Floats:
        """What each step gains on its own batch by its slope, [batches]."""
        found: Floats = (self.gradients * self.steps).sum(1)
        return found

    def worth(self, reference: Floats) -> Floats:
        """The same on the mean of the gradients `reference` [other batches, num_parameters]; [batches]."""
        found: Floats = self.steps @ reference.mean(0)
        return found

    def worth_on_each_other(self) -> Floats:
        """What each step is worth on the mean gradient of all batches here but its own, [batches]."""
        count = len(self.gradients)
        found: Floats = (self.steps @ self.gradients.sum(0) - self.promised) / (count - 1)
        return found


def scheme_config(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The run's settings with those of a scheme, in batches of `STEPS`, with as many thinned states for each."""
    sampling = settings.get("sampling", "vine")
    stride = 16 if sampling == "single-path" else 8
    usual = {"steps_per_iteration": STEPS, "vine_branches": BRANCHES, "fisher_stride": stride, "value_stride": stride}
    return dataclasses.replace(config, **{**usual, "sampling": sampling, "threads": 1, "device": "cpu", **settings})


def steps_of(trainer: Trainer, batches: int) -> Steps:
    """Sample so many batches with the trainer's policy, and find the step of each; nothing is learned from them."""
    region = region_of(trainer.config)
    gradients, steps = [], []
    for _ in range(batches):
        problem = _problem(trainer)
        start = problem.start(trainer.theta)
        product = problem.fisher_product(trainer.theta, region.fisher, region.fisher_stride)
        direction = natural_direction(product, start.gradient, region)
        gradients.append(_row(start.gradient))
        steps.append(_row(math.sqrt(2 * region.delta / direction.curvature) * direction.x))
    return Steps(np.array(gradients), np.array(steps))


def _problem(trainer: Trainer) -> Problem:
    assert trainer.value is not None
    config, samples = trainer.config, trainer.sampler.sample(trainer.pi_old, trainer.value)
    path = samples.trunk
    values = values_along(path, trainer.statistics, trainer.value, config.chunk_size)
    advantages = gae(path.rewards, *values, path.terminated, path.truncated, config.gamma, config.lam)
    return samples.problem(trainer.policy, advantages, config.chunk_size)


def _row(vector: Tensor) -> Floats:
    row: Floats = vector.double().numpy()
    return row


def measure(
    run: Path, batches: int = 12, reference: int = 40, schemes: Mapping[str, Mapping[str, Any]] = SCHEMES
) -> dict[str, Any]:
    """What `step_worth` keeps of a run; `schemes` must have `SINGLE`, of which the `reference` batches are.

    Raises RunError when there is no usable run, or when it has no value function.
    """
    folder = RunFolder(run)
    config, _ = folder.config()
    if not config.value_hidden:
        raise RunError(f"{run} has no value function, which branches that are cut need")
    tensors, facts = folder.load_checkpoint()
    rows = {}
    others: Floats | None = None
    for name in sorted(schemes, key=lambda name: name != SINGLE):
        with closing(Trainer(scheme_config(config, schemes[name]))) as trainer:
            trainer.load_state(tensors, facts)
            found = steps_of(trainer, reference if name == SINGLE else batches)
            if name == SINGLE:
                tensors = {**tensors, **trainer.sampler.state()}  # the others play on, and see no batch of these again
                others = found.gradients
        assert others is not None
        worth = found.worth_on_each_other() if name == SINGLE else found.worth(others)
        rows[name] = {
            "settings": dict(schemes[name]),
            "batches": len(worth),
            "promised": found.promised.mean(),
            "worth": worth.mean(),
            "standard_error": worth.std(ddof=1) / math.sqrt(len(worth)),
        }
    environment = environment_facts(1, "cpu")
    return {"format": FORMAT, "task": config.task, "delta": config.delta, "environment": environment, "schemes": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what steps are worth from the policy of a run, and keep it as OUT/TASK.json."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", help="A run folder of a game, or a policy of the zoo.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--reference", type=int, default=40)
    given = parser.parse_args(arguments)
    try:
        entry = zoo_names.find(given.run)
        found = measure(entry.folder if entry else Path(given.run), given.batches, given.reference)
        found = {"command": f"python -m trpo_lessons.bench.step_worth {given.run}", **found}
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / f"{found['task']}.json").write_text(json_text(found) + "\n")
    except (RunError, OSError) as error:
        parser.exit(2, f"{error}\n")
    for name, row in found["schemes"].items():
        print(f"{name:22} {row['worth']:.5f} +- {row['standard_error']:.5f}, promised {row['promised']:.4f}")


if __name__ == "__main__":
    main()
