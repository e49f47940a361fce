"""A trained policy in a loop of one's own: `Run.act`, and what a callback of training is told."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from trpo_lessons import envs, training
from trpo_lessons.training.running.evaluation import PURPOSE
from trpo_lessons.training.running.run_folder import RunFolder

TASKS = ("cartpole", "hopper", "pong", "gym:CartPole-v1", "gym:toy_envs:Odd-v0", "gym:toy_envs:OddForces-v0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, training.Run]:
    folder = tmp_path_factory.mktemp("acting")
    made = {}
    for i, task in enumerate(TASKS):
        config = training.preset(task, "smoke", iterations=1, steps_per_iteration=48, num_envs=2, threads=1)
        made[task] = training.train(config, folder / str(i))
        assert training.load_run(folder / str(i)).spaces == made[task].spaces
    return made


def played(run: training.Run, env: gymnasium.Env[Any, Any], seed: int, generator: torch.Generator | None) -> list[Any]:
    """The rewards of an episode, played in Gymnasium's own environment."""
    obs, _ = env.reset(seed=envs.derived_seeds(seed, PURPOSE, 1)[0])
    rewards, done = [], False
    while not done:
        obs, reward, terminated, truncated, _ = env.step(run.act(obs, generator))
        rewards.append(float(reward))
        done = terminated or truncated
    return rewards


@pytest.mark.parametrize("task", ["gym:CartPole-v1", "gym:toy_envs:Odd-v0", "gym:toy_envs:OddForces-v0", "hopper"])
def test_a_loop_of_one_s_own_scores_what_evaluate_says(task: str, runs: dict[str, training.Run]) -> None:
    run = runs[task]
    name = {"hopper": "Hopper-v5"}.get(task, task.removeprefix("gym:"))
    with closing(gymnasium.make(name)) as env:
        rewards = played(run, env, 3, None)
    result = training.evaluate(run, 1, 3)
    assert len(rewards) == result.lengths[0]
    assert sum(rewards) == pytest.approx(result.returns[0], rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("sampled", [False, True])
def test_several_observations_get_the_actions_of_each(task: str, sampled: bool, runs: dict[str, training.Run]) -> None:
    run = runs[task]
    space = run.spaces.observation
    space.seed(1)
    obs = [np.clip(np.nan_to_num(space.sample()), -3, 255) for _ in range(4)]

    def generator() -> torch.Generator | None:
        return torch.Generator().manual_seed(0) if sampled else None

    together = run.act(np.stack(obs), generator())
    assert len(together) == 4
    assert all(run.spaces.action.contains(action) for action in together)
    np.testing.assert_allclose(run.act(obs[0][None], generator())[0], run.act(obs[0], generator()), rtol=1e-6)
    if not sampled:
        for one, action in zip(obs, together, strict=True):
            np.testing.assert_allclose(run.act(one), action, rtol=1e-5)
        return
    others = [run.act(obs[0], torch.Generator().manual_seed(seed)) for seed in range(1, 20)]
    assert any((other != run.act(obs[0], generator())).any() for other in np.asarray(others)), "the generator decides"


def test_observations_of_another_shape_are_refused(runs: dict[str, training.Run]) -> None:
    told = (
        r"gym:toy_envs:Odd-v0 has observations of shape \(2, 3\), one or several along a first axis; these have shape"
    )
    for obs in (np.zeros(6), np.zeros((3, 2)), np.zeros((1, 1, 2, 3)), 0.0):
        with pytest.raises(ValueError, match=told):
            runs["gym:toy_envs:Odd-v0"].act(obs)


@pytest.mark.parametrize("task", ["cartpole", "hopper", "gym:CartPole-v1", "gym:toy_envs:Odd-v0"])
def test_an_observation_may_lie_in_memory_as_it_likes(task: str, runs: dict[str, training.Run]) -> None:
    run = runs[task]
    obs = np.random.default_rng(0).normal(size=(4, *run.spaces.observation.shape))
    reversed_, locked = obs[::-1].copy()[::-1], obs.copy()
    locked.flags.writeable = False
    for other in (
        reversed_,
        locked,
        obs.astype(">f8"),
        obs.astype(np.longdouble),
        np.asfortranarray(obs),
        obs.tolist(),
    ):
        np.testing.assert_array_equal(run.act(other), run.act(obs))
    np.testing.assert_array_equal(run.act(obs > 0), run.act((obs > 0).astype(float)))


@pytest.mark.parametrize("task", ["cartpole", "gym:CartPole-v1", "gym:toy_envs:OddForces-v0", "gym:FrozenLake-v1"])
@pytest.mark.parametrize("kind", ["complex128", "object", "U3", "datetime64[s]"])
def test_what_is_no_number_is_refused(task: str, kind: str, runs: dict[str, training.Run], tmp_path: Path) -> None:
    if task not in runs:
        settings = {"iterations": 1, "steps_per_iteration": 48, "num_envs": 2, "threads": 1}
        runs[task] = training.train(training.preset(task, "smoke", **settings), tmp_path)
    run = runs[task]
    with pytest.raises(ValueError, match="are numbers; these are of type"):
        run.act(np.zeros((2, *run.spaces.observation.shape), int).astype(kind))


@pytest.mark.parametrize("change", [lambda obs: obs / 255, lambda obs: obs > 0, lambda obs: obs.astype(int)])
def test_frames_that_are_not_in_bytes_are_refused(change: Any, runs: dict[str, training.Run]) -> None:
    obs = np.zeros((2, 4, 52, 40), np.uint8)
    runs["pong"].act(obs)
    runs["pong"].act(obs[:, :, ::-1])
    with pytest.raises(ValueError, match=r"frames for pong are bytes from 0 to 255 \(uint8\), not scaled"):
        runs["pong"].act(change(obs))


# ---- callbacks -------------------------------------------------------------------------------------------------------

CONFIG = training.preset("cartpole", "smoke", iterations=3, threads=1)


def test_a_callback_is_told_every_row_when_it_is_on_disk(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def callback(row: Any) -> None:
        assert training.load_run(tmp_path / "run").iteration == row["iteration"]
        told.append(dict(row))

    training.train(CONFIG, tmp_path / "run", callback=callback)
    training.resume(tmp_path / "run", iterations=4, callback=callback)
    rows = RunFolder(tmp_path / "run").rows()
    assert [{name: str(x) for name, x in row.items()} for row in told] == rows
    assert [row["iteration"] for row in told] == [1, 2, 3, 4]


def test_a_callback_can_end_a_run(tmp_path: Path) -> None:
    run = training.train(CONFIG, tmp_path / "run", callback=lambda row: row["iteration"] == 2)
    assert (run.interrupted, run.iteration) == (True, 2)
    resumed, _ = training.resume(tmp_path / "run", callback=lambda row: "anything else that is true")
    assert (resumed.interrupted, resumed.iteration) == (False, 3)
    training.train(CONFIG, tmp_path / "other", callback=lambda row: np.mean([row["iteration"]]) == 1)
    assert training.load_run(tmp_path / "other").iteration == 1


def test_what_a_callback_raises_passes_and_loses_nothing(tmp_path: Path) -> None:
    def callback(row: Any) -> None:
        if row["iteration"] == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        training.train(CONFIG, tmp_path / "run", callback=callback)
    resumed, _ = training.resume(tmp_path / "run")
    assert torch.equal(resumed.theta, training.train(CONFIG, tmp_path / "whole").theta)
