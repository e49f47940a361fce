"""No setting is ignored: each of them changes what a run does, and where one must not, it does not."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv as Pole
from torch import Tensor

from trpo_lessons import training
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running.run import trainer_for

BASE: dict[str, Any] = {
    "task": "hopper",
    "preset": "smoke",
    "iterations": 2,
    "steps_per_iteration": 512,
    "num_envs": 8,
    "threads": 1,
    "hidden": (8,),
    "value_hidden": (8,),
}
VINE: dict[str, Any] = {**BASE, "sampling": "vine", "num_envs": 2, "vine_states": 8, "rollout_length": 8}
PONG: dict[str, Any] = {**BASE, "task": "pong", "steps_per_iteration": 64, "num_envs": 2, "hidden": (4,)}
PONG |= {"value_hidden": (), "height": 26, "width": 20}
SEARCHING: dict[str, Any] = {**BASE, "delta": 5.0}  # the full step is refused, and shrunk
NATURAL: dict[str, Any] = {**BASE, "method": "natural-gradient"}
CEM: dict[str, Any] = {**BASE, "method": "cem", "iterations": 3, "hidden": (), "population": 6, "extra_noise": 0.1}
RWR: dict[str, Any] = {**BASE, "method": "rwr"}
REPS: dict[str, Any] = {**BASE, "method": "reps"}
PPO: dict[str, Any] = {**BASE, "method": "ppo"}

# setting -> (base, another value). A run that reads the setting ends elsewhere than the base.
ANOTHER: dict[str, tuple[dict[str, Any], Any]] = {
    "task": (BASE, "walker"),
    "method": (BASE, "natural-gradient"),
    "sampling": ({**VINE, "sampling": "single-path"}, "vine"),
    "seed": (BASE, 1),
    "iterations": (BASE, 1),
    "step_budget": (BASE, 512),
    "steps_per_iteration": (BASE, 256),
    "num_envs": (BASE, 4),
    "vine_states": (VINE, 4),
    "vine_branches": (VINE, 3),
    "rollout_length": (VINE, 4),
    "first_actions": ({**VINE, "task": "cartpole"}, "policy"),
    "control_cost": (BASE, 1.0),
    "impact_cost": ({**BASE, "task": "walker"}, 1.0),
    "env_kwargs": ({**BASE, "task": "gym:CartPole-v1"}, {"sutton_barto_reward": True}),
    "env": ({**BASE, "task": "own:pole", "env": Pole}, partial(Pole, sutton_barto_reward=True)),
    "height": (PONG, 30),
    "width": (PONG, 24),
    "actions": (PONG, "minimal"),
    "sticky_actions": (PONG, 0.9),
    "no_op_max": (PONG, 3),
    "fire_reset": ({**PONG, "task": "breakout"}, True),
    "life_loss_ends": ({**PONG, "task": "breakout", "steps_per_iteration": 1024, "num_envs": 4}, True),
    "normalise_obs": (BASE, False),
    "hidden": (BASE, (9,)),
    "initial_log_std": (BASE, -1.0),
    "gamma": (BASE, 0.9),
    "lam": (BASE, 0.5),
    "value_hidden": (BASE, (9,)),
    "value_steps": (BASE, 1),
    "value_damping": (BASE, 0.5),
    "value_stride": (BASE, 1),
    "delta": (BASE, 0.02),
    "damping": (BASE, 0.5),
    "cg_iterations": (BASE, 2),
    "fisher_stride": (BASE, 1),
    "shrink": (SEARCHING, 0.4),
    "max_backtracks": (SEARCHING, 0),
    "penalty": (NATURAL, 2.0),
    "population": (CEM, 7),
    "episodes": (CEM, 2),
    "elite_share": (CEM, 0.5),
    "initial_std": (CEM, 0.6),
    "extra_noise": (CEM, 0.2),
    "noise_generations": (CEM, 1),
    "temperature": (RWR, 0.5),
    "largest_weight": (RWR, 1.5),
    "fit_iterations": (RWR, 3),
    "epsilon": (REPS, 0.1),
    "reps_constraint": (REPS, "flow"),
    "clip": ({**PPO, "learning_rate": 0.01}, 0.05),  # steps that are long enough for ratios to be clipped
    "epochs": (PPO, 2),
    "minibatch_size": (PPO, 100),
    "learning_rate": (PPO, 1e-3),
}
# Where and how it is computed, not what: other tests hold that these change rounding at most.
SAME_RUN = {"preset", "device", "threads", "chunk_size"}


def end_of(settings: dict[str, Any]) -> list[Tensor]:
    """What a run has learned after its iterations: theta, the value function, the statistics."""
    with closing(trainer_for(TrainConfig(**settings))) as trainer:
        while not trainer.config.is_complete(trainer.iteration, trainer.total_steps):
            trainer.iterate()
        tensors, _ = trainer.state()
    learned = ("theta", "value.", "statistics.")
    return [tensor for name, tensor in sorted(tensors.items()) if name.startswith(learned)]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


@pytest.mark.parametrize("setting", ANOTHER)
def test_a_setting_changes_the_run(setting: str) -> None:
    base, another = ANOTHER[setting]
    changed = {**base, setting: another}
    assert not equal(end_of(base), end_of(changed))


def test_a_run_is_a_function_of_its_settings() -> None:
    """Or the test above would prove nothing."""
    for base in (BASE, VINE, PONG, SEARCHING, CEM):
        assert equal(end_of(base), end_of(base))


def test_every_setting_is_tried() -> None:
    assert {field.name for field in dataclasses.fields(TrainConfig)} == ANOTHER.keys() | SAME_RUN


@pytest.mark.parametrize("base", [VINE, PONG], ids=["vine", "game"])
@pytest.mark.parametrize(("setting", "another"), [("gamma", 0.9), ("delta", 0.001), ("damping", 1.0)])
def test_the_other_samplers_runs_read_their_settings_too(base: dict[str, Any], setting: str, another: float) -> None:
    """The vine's returns have a discount of their own, and so have those of games."""
    without_value = {**base, "value_hidden": (), "gamma": 0.5}
    if base is PONG:  # where nobody scores in so few steps, nothing is to be discounted
        without_value |= {"steps_per_iteration": 512, "num_envs": 4}
    assert not equal(end_of(without_value), end_of({**without_value, setting: another}))


def test_without_a_value_function_returns_are_monte_carlo_whatever_lambda_says() -> None:
    """As in the paper: advantages are returns. Lambda belongs to the value function."""
    base = {**BASE, "value_hidden": ()}
    assert equal(end_of({**base, "lam": 0.95}), end_of({**base, "lam": 1.0}))
    assert training.preset("hopper", "paper").value_hidden == ()
