"""Runs of CEM and CMA-ES: the same folders, the same interruptions, the same commands as every other run."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import command
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trpo_lessons import cli, envs, training
from trpo_lessons.prior_methods.many_policies import num_searched
from trpo_lessons.training import RunError, SettingError, TrainConfig
from trpo_lessons.training.running import stopping
from trpo_lessons.training.running.population_loop import PopulationTrainer
from trpo_lessons.training.running.run import trainer_for
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sampling.population_sampler import Played
from trpo_lessons.training.settings.methods import POPULATION_METHODS, SETTINGS_OF
from trpo_lessons.viewing import watching
from trpo_lessons.viewing.learning_curve import learning_curve, logged

both = pytest.mark.parametrize("method", POPULATION_METHODS)


def tiny(method: str, task: str = "barto-cartpole", **settings: Any) -> TrainConfig:
    return training.preset(task, "smoke", **{"method": method, "iterations": 4, "threads": 1, **settings})


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> tuple[Any, ...]:
    """What a run has learned and logged, timings aside; equal only if every bit is."""
    tensors = {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "checkpoint.safetensors").items()}
    logged = [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in rows(folder)]
    return tensors, logged


# ---- whole runs


@both
def test_cart_poles_are_balanced_in_the_class_preset(method: str, tmp_path: Path) -> None:
    for seed, task in ((0, "barto-cartpole"), (1, "cartpole")):
        run = training.train(training.preset(task, method=method, seed=seed, threads=1), tmp_path / task)
        assert training.evaluate(run, 10, seed=3).mean >= 475
        assert training.evaluate(training.load_run(run.folder), 10, seed=3).mean >= 475


@both
@pytest.mark.parametrize("task", ["cartpole", "hopper"])
def test_what_is_logged(method: str, task: str, tmp_path: Path) -> None:
    config = tiny(method, task, episodes=2)
    run = training.train(config, tmp_path)
    log = rows(tmp_path)
    assert [int(row["iteration"]) for row in log] == [1, 2, 3, 4]
    before = 0
    for row in log:
        number = {name: float(x) for name, x in row.items() if name != "reason"}
        assert number["best_return"] >= number["elite_return"] >= number["population_return"]
        assert (number["accepted"], row["reason"], number["episodes"]) == (1, "", 16)
        assert number["population_spread"] > 0
        assert number["step_norm"] > 0
        assert number["total_steps"] - before >= 16
        before = number["total_steps"]
        for name in ("mean_kl", "surrogate_gain", "explained_variance", "cg_residual"):
            assert name not in row
    # In a cart-pole every step is worth one.
    if task == "cartpole":
        told = sum(float(row["population_return"]) * 16 for row in log)
        assert before == pytest.approx(told)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("return/best_return")]
    assert found == [(int(row["total_steps"]), pytest.approx(float(row["best_return"]), rel=1e-6)) for row in log]
    assert run.theta.shape == (run.policy.num_parameters,)
    assert run.theta[num_searched(run.policy) :].tolist() == [0.0] * run.policy.head.num_free


@both
@pytest.mark.parametrize("task", ["barto-cartpole", "hopper"])
def test_a_stopped_run_goes_on_to_the_same_bits(method: str, task: str, tmp_path: Path) -> None:
    config = tiny(method, task, threads=2)
    training.train(config, tmp_path / "whole")
    for done in (1, 3):
        folder = tmp_path / f"parts{done}"
        stopped = training.train(config, folder, callback=lambda row, done=done: row["iteration"] == done)
        assert (stopped.interrupted, stopped.iteration) == (True, done)
        run, changes = training.resume(folder)
        assert (run.interrupted, run.iteration, changes) == (False, 4, [])
        assert contents(folder) == contents(tmp_path / "whole")


@both
def test_a_killed_run_goes_on_to_the_same_bits(method: str, tmp_path: Path) -> None:
    named = ["--method", method, "--preset", "smoke", "--iterations", 3, "--set", "threads=1", "--out"]
    assert command("train", "barto-cartpole", *named, tmp_path / "whole").status == 0
    killed = 0
    for operation in (7, 9, 12):
        folder = tmp_path / str(operation)
        killed += command("train", "barto-cartpole", *named, folder, kill_at=operation).status == -9
        assert command("resume", folder).status == 0
        assert contents(folder) == contents(tmp_path / "whole")
    assert killed == 3


@both
def test_a_search_that_comes_out_elsewhere_is_refused(method: str, tmp_path: Path) -> None:
    """As with another version of the library: the returns that it was told would be those of other thetas."""
    training.train(tiny(method), tmp_path, callback=lambda row: row["iteration"] == 2)
    folder = RunFolder(tmp_path)
    tensors, facts = folder.load_checkpoint()
    other = "search.seeds" if method == "cma" else "search.mean"
    folder.save_checkpoint({**tensors, other: tensors[other] + 1}, facts)
    with pytest.raises(RunError, match="the search ends elsewhere: is cma of another version"):
        training.resume(tmp_path)


@both
def test_an_interrupt_is_heard_at_every_step(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(method, "hopper", threads=2)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        closing(PopulationTrainer(config)) as trainer,
        stopping.postponed_interrupts(),
    ):
        os.kill(os.getpid(), signal.SIGINT)
        trainer.iterate()
    assert (trainer.iteration, trainer.total_steps) == (0, 0)
    assert torch.is_grad_enabled()


def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    named = ["--method", "cma", "--preset", "smoke", "--iterations", 12, "--set", "threads=1", "--out"]
    outcome = command("train", "barto-cartpole", *named, tmp_path / "run", interrupt_at=20)
    assert outcome.status == cli.STOPPED
    assert "go on with: trpo-lessons resume" in outcome.message
    assert command("resume", tmp_path / "run").status == 0
    assert command("train", "barto-cartpole", *named, tmp_path / "whole").status == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@both
def test_a_budget_of_steps_ends_a_run(method: str, tmp_path: Path) -> None:
    run = training.train(tiny(method, iterations=1000, step_budget=1500), tmp_path)
    *before, last = (int(row["total_steps"]) for row in rows(tmp_path))
    assert last >= 1500 > before[-1]
    assert (run.interrupted, run.iteration) == (False, len(before) + 1)


@both
def test_a_run_is_a_function_of_its_seed_and_of_nothing_global(method: str) -> None:
    thetas = []
    for seed, world in ((0, 1), (0, 2), (1, 1)):
        np.random.seed(world)  # noqa: NPY002 (it is the global one that matters here)
        torch.manual_seed(world)
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
        with closing(trainer_for(tiny(method, seed=seed))) as trainer:
            for _ in range(3):
                trainer.iterate()
            thetas.append(trainer.theta)
        assert (np.random.get_state()[1] == before[0]).all()  # type: ignore[index]  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(thetas[0], thetas[1])
    assert not torch.equal(thetas[0], thetas[2])


@both
def test_statistics_stand_still_while_a_generation_plays(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(PopulationTrainer(tiny(method))) as trainer:
        seen = []
        play = trainer.sampler.play
        monkeypatch.setattr(trainer.sampler, "play", lambda *given: (seen.append(given[2]), play(*given))[1])
        played = []
        for _ in range(3):
            trainer.iterate()
            played.append(trainer.total_steps)
        assert [statistics.count for statistics in seen] == [0, *played[:2]]
        assert trainer.statistics.count == played[-1]
    with closing(PopulationTrainer(tiny(method, normalise_obs=False))) as trainer:
        trainer.iterate()
        assert trainer.statistics.count == 0


# ---- what is not finite


@both
@pytest.mark.parametrize("what", ["return", "observation"])
def test_a_population_that_is_not_finite_is_counted_and_not_learned_from(
    method: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(method)

    def iterated(trainer: PopulationTrainer, times: int, broken: int | None) -> list[dict[str, Any]]:
        play = trainer.sampler.play

        def spoilt(*given: Any) -> Played:
            played = play(*given)
            if given[3] == broken:
                (played.returns if what == "return" else played.raw_obs)[1] = math.nan
            return played

        with monkeypatch.context() as patched:
            patched.setattr(trainer.sampler, "play", spoilt)
            return [trainer.iterate() for _ in range(times)]

    with closing(PopulationTrainer(config)) as trainer, closing(PopulationTrainer(config)) as again:
        first, second = iterated(trainer, 2, broken=1)
        assert first["accepted"] == 1
        assert (second["accepted"], second["reason"]) == (
            0,
            f"{'a return' if what == 'return' else 'an observation'} is not finite",
        )
        assert second["total_steps"] > first["total_steps"]
        assert trainer.theta.isfinite().all()
        assert trainer.statistics.mean.isfinite().all()
        assert trainer.statistics.count == first["total_steps"]
        tensors, facts = trainer.state()
        again.load_state(tensors, json.loads(json.dumps(facts)))
        assert torch.equal(again.theta, trainer.theta)
        for _ in range(2):
            one, other = iterated(trainer, 1, None)[0], iterated(again, 1, None)[0]
            assert one["best_return"] == other["best_return"]
            assert torch.equal(again.theta, trainer.theta)


# ---- the other commands


@both
def test_a_run_is_evaluated_and_watched(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    named = ["--method", method, "--preset", "smoke", "--set", "threads=1", "--out", str(folder)]
    assert cli.main(["train", "cartpole", *named]) == 0
    told = capsys.readouterr()
    assert "3 iterations, " in told.out
    assert "best " in told.err
    assert "spread " in told.err
    assert cli.main(["evaluate", str(folder), "--episodes", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["returns"]) == 3
    assert cli.main(["watch", str(folder), "--seconds", "0.2"]) == 0
    assert sorted(path.suffix for path in folder.iterdir() if path.suffix in (".png", ".gif")) == [".gif", ".png"]


@both
@pytest.mark.parametrize("task", ["cartpole", "barto-cartpole"])
def test_noise_that_was_never_played_is_not_sampled(
    method: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training.train(tiny(method, task, iterations=1), tmp_path)
    with pytest.raises(ValueError, match="without noise"):
        run.act(np.zeros(4, dtype=np.float32), torch.Generator())
    assert cli.main(["evaluate", str(tmp_path), "--sampled", "--episodes", "2"]) == 2
    told = capsys.readouterr().err.strip()
    assert "without noise" in told
    assert "\n" not in told


def test_the_curves_of_a_search_are_the_columns_of_its_log(tmp_path: Path) -> None:
    run = training.train(tiny("cem", "cartpole"), tmp_path)
    returns, spread = learning_curve(run.config, logged(RunFolder(tmp_path), run.iteration)).axes
    drawn = {"mean_return": returns, "best_return": returns, "population_spread": spread}
    for name, axes in drawn.items():
        expected = [float(row[name]) for row in rows(tmp_path)]
        assert any(np.array_equal(line.get_ydata(), expected) for line in axes.lines), name
    assert "cem" in returns.get_title()
    assert watching.draw_learning_curve(run, tmp_path).exists()


# ---- presets and refusals


@both
@pytest.mark.parametrize("name", ["smoke", "class", "paper"])
def test_every_preset_is_one_that_can_be_used(method: str, name: str) -> None:
    for task in ("barto-cartpole", "swimmer", "hopper", "walker", "halfcheetah"):
        config = training.preset(task, name, method=method)
        assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
        with closing(trainer_for(replace(config, population=4, num_envs=4))) as trainer:
            assert isinstance(trainer, PopulationTrainer)
            linear = task == "barto-cartpole" or name != "paper"
            env = trainer.sampler.envs[0]
            (obs_dim,), (action_dim,) = env.single_observation_space.shape, env.single_action_space.shape
            assert (num_searched(trainer.policy) == (obs_dim + 1) * action_dim) == linear
        if name == "paper" and task != "barto-cartpole":
            assert config.control_cost == 1e-5


@both
@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("gym:Pendulum-v1", {}, "gym:Pendulum-v1 cannot go back to an earlier state, which {method} needs"),
        ("pong", {}, "{method} cannot find the pong policy's parameters"),
        ("pong", {"name": "paper"}, "{method} cannot find the pong policy's parameters"),
        ("pong", {"name": "smoke"}, "{method} cannot find the pong policy's parameters"),
        ("hopper", {"sampling": "vine"}, "{method} plays whole episodes, and has no vine; use sampling single-path"),
        ("hopper", {"gamma": 0.9}, "{method} has no gamma; methods that have it: trpo"),
        ("hopper", {"steps_per_iteration": 4096}, "{method} has no steps_per_iteration; methods that have it: trpo"),
        ("hopper", {"delta": 0.1}, "{method} has no delta; methods that have it: trpo"),
        ("hopper", {"population": 3}, "population must be a whole number, at least 4, got 3"),
        ("hopper", {"initial_std": 0.0}, "initial_std must be above 0, at most 1000, got 0.0"),
        ("hopper", {"episodes": 0}, "episodes must be a whole number, at least 1, got 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(method: str, task: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as refusal:
        training.preset(task, method=method, **settings)
    assert str(refusal.value).startswith(message.format(method=method))
    assert "\n" not in str(refusal.value)


def test_only_cem_has_an_elite() -> None:
    with pytest.raises(SettingError, match="cma has no elite_share; methods that have it: cem"):
        training.preset("hopper", method="cma", elite_share=0.1)
    with pytest.raises(SettingError, match="trpo has no population; methods that have it: cem, cma"):
        training.preset("hopper", population=10)
    assert all(SETTINGS_OF[name] == ("cem",) for name in ("elite_share", "extra_noise", "noise_generations"))


def test_copies_are_no_more_than_there_are_episodes() -> None:
    config = tiny("cem", "hopper", num_envs=64, population=5, episodes=2, threads=2)
    with closing(PopulationTrainer(config)) as trainer:
        assert [env.num_envs for env in trainer.sampler.envs] == [5, 5]
        assert trainer.iterate()["episodes"] == 10
        assert envs.TASKS["hopper"].frees_interpreter
