"""Training by the vine: what it costs, what it learns, and what it refuses to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import seeded
from torch import Tensor

from trpo_lessons import envs, training
from trpo_lessons.envs.cartpole import CartPole
from trpo_lessons.policies import CategoricalHead, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.rollout_set import RolloutSet, all_actions_surrogate, self_normalised_surrogate
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sampling.vine_sampler import VineSampler
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.trpo import trpo_update
from trpo_lessons.vine import Vine, scaled_differences

BRANCH_FACTS = ("branch_steps", "mean_branch_length", "mean_q", "q_spread")


def tiny(task: str = "cartpole", **settings: Any) -> TrainConfig:
    small = {"iterations": 3, "num_envs": 4, "hidden": (8,), "value_hidden": (8,), "threads": 1}
    vine = {"steps_per_iteration": 64, "vine_states": 6, "vine_branches": 2, "rollout_length": 3}
    return training.preset(task, "smoke", sampling="vine", **{**small, **vine, **settings})


def sampled(config: TrainConfig, times: int = 1) -> tuple[VineSampler, list[Vine]]:
    sampler = VineSampler(config, seeded(3))
    trainer = Trainer(config)
    vines = [sampler.sample(trainer.pi_old) for _ in range(times)]
    trainer.close()
    return sampler, vines


# ---- what it costs


@pytest.mark.parametrize(
    "config",
    [tiny(), tiny(steps_per_iteration=6 * 2 * 50 + 400, rollout_length=50), tiny("hopper", threads=2, num_envs=2)],
    ids=lambda config: f"{config.task}-{config.threads}",
)
def test_every_step_of_the_simulator_is_counted(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    make = envs.make

    def counting(*args: Any, **settings: Any) -> Any:
        env = make(*args, **settings)
        step = env.step

        def counted(actions: Any) -> Any:
            taken.append(env.num_envs - int(env._resting.sum()))
            return step(actions)

        monkeypatch.setattr(env, "step", counted)
        return env

    monkeypatch.setattr(envs, "make", counting)
    trainer = Trainer(config)
    for _ in range(3):
        before = sum(taken)
        row = trainer.iterate()
        assert row["total_steps"] == sum(taken)
        assert sum(taken) - before == row["branch_steps"] + config.rows * config.num_envs
        assert row["branch_steps"] <= config.branch_steps
    trainer.close()


def test_a_row_tells_what_the_branches_found() -> None:
    config = tiny(rollout_length=50, steps_per_iteration=1000)
    trainer = Trainer(config)
    rows = [trainer.iterate() for _ in range(2)]
    single = Trainer(training.preset("cartpole", "smoke", threads=1)).iterate()
    assert list(rows[0]) == [*[name for name in single if not name.startswith("seconds")], *BRANCH_FACTS] + [
        name for name in single if name.startswith("seconds")
    ]
    for row in rows:
        assert 5 < row["mean_branch_length"] < 50, "the pole falls before a rollout has 50 steps"
        assert row["mean_branch_length"] * 12 == row["branch_steps"]
        assert 0 < row["q_spread"] < row["mean_q"]
        assert row["explained_variance"] < 1
    trainer.close()


def test_branch_facts_by_hand() -> None:
    [vine] = sampled(tiny())[1]
    q_values = torch.tensor([[1.0, 3.0], [10.0, 16.0]], dtype=torch.float64)
    found = RolloutSet(torch.zeros(2, 4), torch.zeros(2, 2), q_values, torch.zeros(2, 2))
    twin = Vine(**{**vars(vine), "rollout_set": found, "lengths": torch.tensor([[1, 2], [3, 6]]), "branch_steps": 14})
    assert twin.facts == {
        "branch_steps": 14,
        "mean_branch_length": 3.0,
        "mean_q": 7.5,
        "q_spread": pytest.approx(np.sqrt((2 + 18) / 2)),
    }


# ---- threads and states


def test_threads_change_nothing_but_the_time_it_takes() -> None:
    config = tiny("hopper", num_envs=6, vine_states=9, steps_per_iteration=9 * 2 * 3 + 60)
    samplers = [VineSampler(replace(config, threads=threads), seeded(3)) for threads in (1, 3)]
    trainer = Trainer(config)
    for _ in range(2):
        one, three = (each.sample(trainer.pi_old, trainer.value) for each in samplers)
        assert torch.equal(one.trunk.raw_obs, three.trunk.raw_obs)
        assert torch.equal(one.rollout_set.q_values, three.rollout_set.q_values)
        assert torch.equal(one.lengths, three.lengths)
        assert one.num_steps == three.num_steps == 60 + one.lengths.sum() <= config.steps_per_iteration
    for each in (*samplers, trainer):
        each.close()


def test_a_state_restores_the_trunk_and_needs_nothing_of_the_branches() -> None:
    config = tiny("hopper", threads=2)
    sampler, _ = sampled(config)
    other = VineSampler(config, seeded(9))
    other._branches.reset(seed=77)
    other.load_state(sampler.state())
    trainer = Trainer(config)
    mine, its = (each.sample(trainer.pi_old) for each in (sampler, other))
    assert torch.equal(mine.rollout_set.q_values, its.rollout_set.q_values)
    assert torch.equal(mine.trunk.raw_obs, its.trunk.raw_obs)
    assert all(torch.equal(a, b) for a, b in zip(sampler.state().values(), other.state().values(), strict=True))
    for each in (sampler, other, trainer):
        each.close()


# ---- what it learns


def test_as_many_branches_as_actions_means_each_action_once() -> None:
    every, drawn, continuous = (
        sampled(config)[1][0]
        for config in (tiny(), tiny(vine_branches=3, rollout_length=2), tiny("barto-cartpole", value_hidden=()))
    )
    assert every.surrogate is all_actions_surrogate
    assert drawn.surrogate is continuous.surrogate is self_normalised_surrogate


@pytest.mark.parametrize("surrogate", [all_actions_surrogate, self_normalised_surrogate])
def test_centring_and_scaling_the_q_values_changes_no_update(surrogate: Any) -> None:
    """In float64, where the rounding that they are for does not matter either."""
    policy = mlp_policy(4, CategoricalHead(2), hidden=(8,))
    theta = policy.initial_theta(seeded(0)).double()
    obs = torch.randn(40, 4, dtype=torch.float64, generator=seeded(1))
    q_values = 100 * torch.randn(40, 1, dtype=torch.float64, generator=seeded(2)) + 7 * torch.randn(
        40, 2, dtype=torch.float64, generator=seeded(3)
    )
    actions = torch.arange(2).expand(40, 2)
    log_q = torch.full((40, 2), -np.log(2.0), dtype=torch.float64)

    def step(q: Tensor) -> Tensor:
        return trpo_update(Problem(policy, RolloutSet(obs, actions, q, log_q), surrogate), theta)[0] - theta

    plain, scaled = step(q_values), step(scaled_differences(q_values))
    assert plain.norm() > 1e-3
    torch.testing.assert_close(scaled, plain, rtol=1e-8, atol=1e-10)


def test_the_update_is_held_back_on_all_states_of_the_trunk() -> None:
    _, [vine] = sampled(tiny())
    problem = vine.problem(mlp_policy(4, CategoricalHead(2), hidden=(8,)))
    assert len(problem.batch) == 6
    assert len(problem.states) == 28
    assert sorted(problem.states.obs.tolist()) == sorted(vine.trunk.obs.flatten(0, 1).tolist())
    assert problem.to("cpu").surrogate is vine.surrogate


def test_a_value_function_knows_what_comes_after_a_branch_and_the_paper_does_not() -> None:
    config = tiny()
    trainer, sampler, twin = Trainer(config), VineSampler(config, seeded(3)), VineSampler(config, seeded(3))

    class Constant:
        def __call__(self, obs: Tensor) -> Tensor:
            return torch.full((len(obs),), 100.0)

    cut: Callable[..., Any] = Constant()
    with_value, without = sampler.sample(trainer.pi_old, cut), twin.sample(trainer.pi_old)
    alive = without.lengths == config.rollout_length
    difference = with_value.rollout_set.q_values - without.rollout_set.q_values
    assert alive.any()
    torch.testing.assert_close(difference[alive], torch.full_like(difference[alive], 100 * config.gamma**3))
    for each in (trainer, sampler, twin):
        each.close()


@pytest.mark.parametrize("branches", [2, 4], ids=["equation 16", "equation 17"])
def test_the_vine_improves_cart_pole(branches: int, tmp_path: Path) -> None:
    config = tiny(
        iterations=24,
        steps_per_iteration=1024,
        num_envs=16,
        hidden=(32,),
        value_hidden=(32,),
        vine_states=32 // branches,
        vine_branches=branches,
        rollout_length=20,
    )
    run = training.train(config, tmp_path / "run")
    rows = RunFolder(run.folder).rows()
    assert 10 < float(rows[0]["mean_return"]) < 32
    assert training.evaluate(run, 20).mean > 100
    assert training.evaluate(training.load_run(tmp_path / "run"), 3) == training.evaluate(run, 3)
    assert all(float(row["mean_kl"]) <= config.delta for row in rows)
    assert all(float(row["surrogate_gain"]) > 0 for row in rows if row["accepted"] == "1")
    assert sum(row["accepted"] == "1" for row in rows) > 18


def test_chunks_change_nothing_but_rounding() -> None:
    whole, chunked = (Trainer(tiny("hopper", chunk_size=size)) for size in (None, 5))
    for trainer in (whole, chunked):
        trainer.iterate()
        trainer.close()
    step = whole.theta - Trainer(tiny("hopper")).theta
    assert step.norm() > 1e-3
    torch.testing.assert_close(chunked.theta, whole.theta, rtol=0, atol=0.01 * step.abs().max().item())


# ---- numbers that are not finite


class Poisoned(CartPole):
    """Cart-pole that spoils one number of copy 1 at its next step once `poison` says which."""

    poison = ""
    bad = np.nan

    def step(self, actions: Any) -> Any:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        if self.poison == "reward":
            rewards[1] = self.bad
        elif self.poison == "observation":
            obs[1, 2] = self.bad
        self.poison = ""
        return obs, rewards, terminated, truncated, infos


@pytest.mark.parametrize(
    ("what", "bad"),
    [("reward", np.nan), ("reward", -np.inf), ("reward", 1e200), ("observation", np.nan), ("observation", np.inf)],
)
@pytest.mark.parametrize("where", ["trunk", "branches"])
def test_a_number_that_is_not_finite_never_reaches_theta(
    what: str, where: str, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envs, "make", lambda _task, num_envs, **_settings: Poisoned(num_envs))
    trainer = Trainer(tiny())
    assert isinstance(trainer.sampler, VineSampler)
    env = trainer.sampler.envs[0] if where == "trunk" else trainer.sampler._branches
    assert isinstance(env, Poisoned)
    assert trainer.iterate()["accepted"] == 1
    learned = learned_so_far(trainer)
    env.poison, env.bad = what, bad
    row = trainer.iterate()
    assert row["accepted"] == 0
    assert "too large" in row["reason"] if bad == 1e200 else "not finite" in row["reason"]
    assert row["total_steps"] > 64
    assert set(BRANCH_FACTS) <= row.keys()
    assert learned_so_far(trainer) == learned
    assert trainer.iterate()["accepted"] == 1
    assert trainer.theta.isfinite().all()
    trainer.close()


def learned_so_far(trainer: Trainer) -> dict[str, bytes]:
    kept = ("theta", "statistics.", "value.")
    return {name: t.detach().numpy().tobytes() for name, t in trainer.state()[0].items() if name.startswith(kept)}
