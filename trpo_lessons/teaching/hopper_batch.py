"""One real batch of Hopper-v5, recorded, so that every machine works on the same numbers.

A simulation of a thousand steps ends elsewhere on another machine; the lesson's pictures and facts must not. The file
was made, and can be made anew, with ``python -m trpo_lessons.teaching.hopper_batch FILE``: the `class` preset with a
smaller network, seed 0; theta after 12 iterations, and the batch that it then collected.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from trpo_lessons.advantages import gae, standardised
from trpo_lessons.policies import GaussianHead, Policy, mlp_policy
from trpo_lessons.single_path import SinglePath
from trpo_lessons.surrogate import Batch
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.settings.presets import preset
from trpo_lessons.value_function import values_along

RECORDED = Path(__file__).parents[1] / "zoo" / "hopper_batch.safetensors"
OBS_DIM, ACTION_DIM, HIDDEN = 11, 3, (32, 32)
ITERATIONS = 12


def hopper_policy() -> Policy:
    """The policy that the batch was drawn from: 1542 parameters."""
    return mlp_policy(OBS_DIM, GaussianHead(ACTION_DIM), HIDDEN)


@functools.cache
def hopper_batch(path: Path = RECORDED) -> tuple[Policy, Tensor, Batch]:
    """The policy, its theta [1542] and a batch of 4096 states in 32 environments, one after the other; float64.

    It was recorded in float32. `log_q` is worked out again in float64 from the recorded theta, observations and
    actions, so that importance ratios at theta are 1 to the last bit.
    """
    tensors = {name: tensor.double() for name, tensor in load_file(path).items()}
    policy, theta, obs, actions = hopper_policy(), tensors["theta"], tensors["obs"], tensors["actions"]
    log_q = policy(theta, obs).log_prob(actions)
    return policy, theta, Batch(obs, actions, tensors["advantages"], log_q)


def record(path: Path) -> None:
    """Train for some iterations, sample once more, and write theta and that batch to `path`."""
    trainer = Trainer(preset("hopper", "class", hidden=HIDDEN, threads=1, seed=0))
    for _ in range(ITERATIONS):
        trainer.iterate()
    config, statistics, value = trainer.config, trainer.statistics, trainer.value
    assert value is not None
    path_taken = trainer.sampler.sample(trainer.pi_old)
    assert isinstance(path_taken, SinglePath)
    ends = path_taken.terminated, path_taken.truncated
    values = values_along(path_taken, statistics, value)
    advantages = standardised(gae(path_taken.rewards, *values, *ends, config.gamma, config.lam))
    batch = path_taken.batch(advantages)
    tensors = {"theta": trainer.theta, "obs": batch.obs, "actions": batch.actions, "advantages": batch.advantages}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m trpo_lessons.teaching.hopper_batch", description=record.__doc__)
    parser.add_argument("file", type=Path)
    record(parser.parse_args().file)
