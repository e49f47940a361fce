"""Runs with neighbouring seeds are independent: what they see, and what they are scored on."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trpo_lessons import training
from trpo_lessons.training.running.loop import sampler_for

KINDS = {
    "robot": {"task": "hopper"},
    "robot's vine": {"task": "hopper", "sampling": "vine", "vine_states": 4, "rollout_length": 4},
    "Gymnasium's": {"task": "gym:CartPole-v1"},
    "two threads": {"task": "swimmer", "threads": 2},
}


def first_states(seed: int, iteration: int = 0, **settings: object) -> Tensor:
    """The observations [E, obs_dim] from which a run begins, or goes on where it cannot be restored."""
    config = training.preset(settings.pop("task"), "smoke", seed=seed, **settings)
    with closing(sampler_for(config, torch.Generator())) as sampler:
        if iteration:
            sampler.reset(iteration)
        return sampler.state()["raw_obs"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_copies_of_neighbouring_runs_begin_in_the_same_state(kind: str) -> None:
    rows = torch.cat([first_states(seed, **KINDS[kind]) for seed in (0, 1, 2)])
    assert len(rows.unique(dim=0)) == len(rows)


def test_a_run_that_cannot_be_restored_goes_on_from_new_states_after_every_iteration() -> None:
    rows = torch.cat([first_states(0, iteration, task="gym:CartPole-v1") for iteration in (0, 1, 2)])
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("task", ["swimmer", "pong"])
def test_groups_of_environments_do_not_share_seeds_nor_random_numbers(task: str) -> None:
    """Three groups: of two, the first has the run's own generator, and nothing shows."""
    config = training.preset(task, "smoke", threads=3, num_envs=6, steps_per_iteration=48)
    with closing(sampler_for(config, torch.Generator())) as sampler:
        state = sampler.state()
    if task == "swimmer":  # games have some thirty starts
        assert len(state["raw_obs"].unique(dim=0)) == config.num_envs
    assert len(state["generators"].unique(dim=0)) == 3
    other = training.preset(task, "smoke", threads=3, num_envs=6, steps_per_iteration=48, seed=1)
    with closing(sampler_for(other, torch.Generator())) as sampler:
        both = torch.cat([state["generators"][1:], sampler.state()["generators"][1:]])
    assert len(both.unique(dim=0)) == 4


def test_evaluations_with_neighbouring_seeds_share_no_episode(tmp_path: Path) -> None:
    run = training.train(training.preset("hopper", "smoke", iterations=1, threads=1), tmp_path / "run")
    scores = [training.evaluate(run, 8, seed).returns for seed in (0, 1)]
    assert len(set(itertools.chain(*scores))) == 16
    # More episodes are further ones. (With more copies side by side, some processors round the policy otherwise.)
    assert training.evaluate(run, 3, 1).returns == pytest.approx(scores[1][:3], rel=1e-5)
