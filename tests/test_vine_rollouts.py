"""Rollouts side by side: each as if it were alone, and every simulator step counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PROPERTY, mutant, seeded
from hypothesis import given
from hypothesis import strategies as st
from vine_toys import CHEAP, ENVS, GAMMA, Fuse, naive_roll_out, policy_for

from trpo_lessons import vine
from trpo_lessons.envs import rollouts
from trpo_lessons.envs.rollouts import Rollouts, rows_of
from trpo_lessons.rollout_set import uniformly
from trpo_lessons.single_path import for_environment
from trpo_lessons.vine import roll_out


def rollout_problem(name: str, count: int = 11, length: int = 8, seed: int = 0) -> tuple[Any, ...]:
    """Starts all over a path, first actions, noise."""
    env = ENVS[name](count)
    policy, theta = policy_for(env, seed)
    pi_old = policy.at(theta)
    obs, generator = torch.tensor(env.reset(seed=seed)[0]), seeded(seed)
    saved = []
    for _ in range(5):
        saved.append(env.save_state())
        actions = pi_old(obs).sample(generator)
        obs = torch.tensor(env.step(for_environment(actions, env.single_action_space))[0])
    starts = {key: np.stack([saved[m % 5][key][m] for m in range(count)]) for key in saved[0]}
    distribution = pi_old(obs)
    noise = torch.stack([distribution.noise(generator) for _ in range(length)])
    return pi_old, starts, distribution.sample(generator), noise


def check_roll_out(roll_out: Any, name: str, width: int, each: int = 1, **settings: int) -> Rollouts:
    """each: how many of the rollouts begin in every start."""
    pi_old, starts, first_actions, noise = rollout_problem(name, **settings)
    env = ENVS[name](width)
    few = rows_of(starts, np.arange(len(first_actions) // each))
    found = roll_out(env, pi_old, few, first_actions, noise, GAMMA)
    repeated = {key: array.repeat(each, axis=0) for key, array in few.items()}
    expected = naive_roll_out(ENVS[name], pi_old, repeated, first_actions, noise)
    assert found.num_steps == sum(length for _, length, *_ in expected)
    for m, (total, length, terminated, last_obs) in enumerate(expected):
        assert (found.lengths[m], found.terminated[m]) == (length, terminated), m
        assert found.returns[m].item() == pytest.approx(total, rel=1e-12), m
        assert found.last_obs[m].tolist() == last_obs, m
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [1, 4, 11, 30])
@pytest.mark.parametrize("name", CHEAP)
def test_rollouts_side_by_side_are_rollouts_one_by_one(name: str, width: int) -> None:
    check_roll_out(roll_out, name, width)


@pytest.mark.parametrize("each", [2, 3])
def test_several_rollouts_begin_in_every_start(each: int) -> None:
    check_roll_out(roll_out, "fuse", width=4, each=each, count=12)


def test_rollouts_of_a_hopper_are_rollouts_one_by_one() -> None:
    check_roll_out(roll_out, "hopper", width=5, count=7, length=6)


def test_rollouts_end_in_all_three_ways() -> None:
    found = check_roll_out(roll_out, "fuse", width=4, count=60, length=4)
    last = found.last_obs
    assert found.terminated.any()
    assert ((last[:, 1] == 6) & ~found.terminated).any()  # the time limit
    assert ((found.lengths == 4) & (last[:, 1] < 6) & ~found.terminated).any()  # the rollout's own limit
    assert (found.lengths < 4).any()


IDLE_COUNTED = "np.add.at(returns, rollout, gamma**age * rewards)"
MISTAKES = {
    "the next episode's rewards are counted": ("(terminated | truncated | (age == max_steps))", "(age == max_steps)"),
    "a time limit taken for a termination": ("age[ended], terminated[ended]", "age[ended], (age < max_steps)[ended]"),
    "the last observation is the next episode's": ("_before_reset(copies.obs, infos)[ended]", "copies.obs[ended]"),
    "discounted from the wrong step": ("(gamma**age * rewards)", "(gamma ** (age + 1) * rewards)"),
    "a rollout goes on with an old age": ("self.age[ended], self.busy[ended] = 0,", "_, self.busy[ended] = 0,"),
    "idle copies are counted in": ("returns[rollout[busy]] += (gamma**age * rewards)[busy]", IDLE_COUNTED),
    "the waiting start elsewhere": ("begin = self.rollout[which] //", "begin = which //"),
    "idle steps are counted": ("int(busy.sum())", "env.num_envs"),
    "rollouts of a state begin in others": ("rollout // self._from_each", "rollout % len(starts['task'])"),
}  # fmt: skip
MISTAKES_OF_THE_POLICY = {
    "the first action is forgotten": ("actions[age == 0] =", "_ ="),
    "another rollout's random numbers": ("noise[age, rollout]", "noise[age, 0 * rollout]"),
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *MISTAKES_OF_THE_POLICY])
def test_mistakes_in_a_rollout_would_be_noticed(mistake: str) -> None:
    if mistake in MISTAKES:
        broken = mutant(vine, run_rollouts=mutant(rollouts, MISTAKES[mistake]).run_rollouts).roll_out
    else:
        broken = mutant(vine, MISTAKES_OF_THE_POLICY[mistake]).roll_out
    for width in (4, 30):
        try:
            check_roll_out(broken, "fuse", width, each=2, count=20, length=5)
        except (AssertionError, IndexError):
            return
    pytest.fail("it was not noticed")


@PROPERTY
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 7), st.integers(0, 100))
def test_every_step_is_counted_and_none_is_taken_for_a_rollout_that_is_over(
    width: int, count: int, length: int, seed: int
) -> None:
    pi_old, starts, first_actions, noise = rollout_problem("fuse", count, length, seed)
    env = Fuse(width)
    found = roll_out(env, pi_old, starts, first_actions, noise, GAMMA)
    assert found.num_steps == env.counted == found.lengths.sum()
    assert ((found.lengths >= 1) & (found.lengths <= length)).all()


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_what_is_expected_after_a_cut_is_discounted_in_double_precision(default: torch.dtype) -> None:
    """Whatever torch's default type is: a discount in float32 was 1e-8 off."""
    lengths = torch.arange(1, 51)
    found = Rollouts(torch.zeros(50).double(), lengths, lengths % 5 == 0, torch.zeros(50, 3), 50, {})
    pi_old = SimpleNamespace(statistics=SimpleNamespace(normalise=lambda obs: obs))
    branching = vine.Branching(50, uniformly(2), 50, GAMMA, value=lambda obs: torch.ones(len(obs)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        worth = vine.worth(found, pi_old, branching)  # type: ignore[arg-type]
    finally:
        torch.set_default_dtype(before)
    assert worth.tolist() == [0.0 if length % 5 == 0 else GAMMA**length for length in range(1, 51)]
