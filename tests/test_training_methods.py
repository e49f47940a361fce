"""Every method from the shell to the run folder: the same loop, another update; budgets of simulator steps."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trpo_lessons import cli, training
from trpo_lessons.cli import subcommands
from trpo_lessons.kl import empirical_fisher_vector_product
from trpo_lessons.prior_methods.max_kl import max_kl_update
from trpo_lessons.prior_methods.natural_gradient import natural_gradient_update
from trpo_lessons.prior_methods.ppo import ppo_update
from trpo_lessons.prior_methods.reps import flow, reps_update
from trpo_lessons.prior_methods.rwr import rwr_update
from trpo_lessons.problem import Problem
from trpo_lessons.training import RunError, SettingError, TrainConfig
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.running.updates import Update, facts_of, update_for
from trpo_lessons.training.settings.methods import METHODS, SETTINGS_OF
from trpo_lessons.trpo import TrustRegion, trpo_update
from trpo_lessons.viewing.learning_curve import learning_curve, logged

TINY: dict[str, Any] = {"name": "smoke", "iterations": 2, "steps_per_iteration": 128, "num_envs": 4, "threads": 1}
UPDATES = ("trpo", "natural-gradient", "empirical-fim", "max-kl", "rwr", "reps", "ppo")


def tiny(method: str, task: str = "barto-cartpole", **settings: Any) -> TrainConfig:
    linear = {"hidden": ()} if method == "max-kl" else {}
    return training.preset(task, method=method, **{**TINY, **linear, **settings})


def first_problem(config: TrainConfig) -> tuple[Problem, Tensor]:
    with closing(Trainer(config)) as trainer:
        samples = trainer.sampler.sample(trainer.pi_old)
        advantages = torch.randn(samples.trunk.rewards.shape, generator=torch.Generator().manual_seed(0))
        return samples.problem(trainer.policy, advantages, None), trainer.theta


def columns(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---- which update a method is


REGION = TrustRegion(delta=0.03, damping=0.2, cg_iterations=7, shrink=0.6, max_backtracks=3, fisher_stride=2)
EXPECTED: dict[str, Update] = {
    "trpo": partial(trpo_update, region=REGION),
    "natural-gradient": partial(natural_gradient_update, region=REGION, penalty=2.5),
    "max-kl": partial(max_kl_update, region=REGION),
    "rwr": partial(rwr_update, temperature=0.7, largest_weight=3.0, fit_iterations=4),
    "reps": partial(reps_update, epsilon=1.0, fit_iterations=4, constraint=partial(flow, num_steps=32)),
    "ppo": partial(ppo_update, clip=0.1, epochs=2, minibatch_size=50, learning_rate=0.01),
    "empirical-fim": partial(
        trpo_update, region=TrustRegion(0.03, 0.2, 7, 1e-10, 0.6, 3, empirical_fisher_vector_product, 2)
    ),
}


@pytest.mark.parametrize("method", EXPECTED)
@pytest.mark.parametrize("task", ["barto-cartpole", "cartpole"])
def test_a_method_is_its_update_with_the_settings_of_the_run(method: str, task: str) -> None:
    given = {"delta": 0.03, "damping": 0.2, "cg_iterations": 7, "shrink": 0.6, "max_backtracks": 3, "fisher_stride": 2}
    given |= {"penalty": 2.5, "temperature": 0.7, "largest_weight": 3.0, "epsilon": 1.0, "fit_iterations": 4}
    given |= {"reps_constraint": "flow"}
    given |= {"clip": 0.1, "epochs": 2, "minibatch_size": 50, "learning_rate": 0.01}
    config = tiny(method, task, **{name: value for name, value in given.items() if method in SETTINGS_OF[name]})
    problem, theta = first_problem(config)
    found, report = update_for(config, problem.policy)(problem, theta)
    expected, expected_report = EXPECTED[method](problem, theta)
    assert torch.equal(found, expected)
    assert report == expected_report
    assert report.accepted
    assert not torch.equal(found, theta)


def test_methods_differ() -> None:
    problem, theta = first_problem(tiny("trpo"))
    thetas = [tuple(update_for(tiny(method), problem.policy)(problem, theta)[0].tolist()) for method in UPDATES]
    assert len(set(thetas)) == len(UPDATES)


# ---- run folders


@pytest.mark.parametrize("method", UPDATES)
def test_a_run_goes_on_to_the_bit_and_its_log_has_the_facts_of_its_method(method: str, tmp_path: Path) -> None:
    training.train(tiny(method, iterations=3), tmp_path / "whole")
    training.train(tiny(method, iterations=2), tmp_path / "parts")
    assert training.resume(tmp_path / "parts", iterations=3)[1] == []
    whole, parts = (RunFolder(tmp_path / name).load_checkpoint() for name in ("whole", "parts"))
    assert whole[1] == parts[1]
    assert all(torch.equal(whole[0][name], parts[0][name]) for name in whole[0])
    rows = columns(tmp_path / "parts")
    assert set(facts_of(tiny(method))) <= set(rows[0])
    assert all(row["accepted"] == "1" for row in rows)
    assert json.loads((tmp_path / "parts/config.json").read_text())["settings"]["method"] == method
    run = training.load_run(tmp_path / "parts")
    assert training.evaluate(run, episodes=1).mean > 0
    title = learning_curve(run.config, logged(RunFolder(run.folder), run.iteration)).axes[0].get_title()
    assert title.endswith("single-path" if method == "trpo" else f"single-path, {method}")


def test_a_run_without_a_method_or_a_budget_in_its_config_is_a_run_of_trpo(tmp_path: Path) -> None:
    """As runs of earlier versions are."""
    training.train(tiny("trpo"), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name in {"method", "step_budget", "reps_constraint"} | (SETTINGS_OF.keys() - {"delta", "shrink"}):
        if "trpo" not in SETTINGS_OF.get(name, ()):
            del config["settings"][name]
    path.write_text(json.dumps(config))
    run, changes = training.resume(tmp_path, iterations=3)
    assert (run.config.method, run.config.step_budget, run.iteration, changes) == ("trpo", None, 3, [])


def test_the_usual_folder_tells_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared = ["--preset", "smoke", "--iterations", "1", "--set", "threads=1"]
    assert cli.main(["train", "barto-cartpole", *shared]) == 0
    assert cli.main(["train", "barto-cartpole", "--method", "natural-gradient", *shared, "--set", "penalty=7"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "barto-cartpole-natural-gradient-seed0",
        "barto-cartpole-seed0",
    ]
    stored = json.loads((tmp_path / "runs/barto-cartpole-natural-gradient-seed0/config.json").read_text())["settings"]
    assert (stored["method"], stored["penalty"]) == ("natural-gradient", 7)


# ---- budgets


@pytest.mark.parametrize(("budget", "iterations"), [(1, 1), (128, 1), (129, 2), (256, 2), (10_000, 4), (None, 4)])
def test_a_run_ends_with_the_iteration_in_which_its_budget_is_spent(
    budget: int | None, iterations: int, tmp_path: Path
) -> None:
    config = tiny("trpo", iterations=4, step_budget=budget)
    run = training.train(config, tmp_path)
    assert (run.iteration, run.interrupted) == (iterations, False)
    assert config.expected_iterations == iterations
    assert int(columns(tmp_path)[-1]["total_steps"]) == 128 * iterations


def test_a_vine_counts_the_steps_of_its_branches(tmp_path: Path) -> None:
    config = tiny("trpo", "cartpole", sampling="vine", steps_per_iteration=256, iterations=5, step_budget=300)
    training.train(config, tmp_path)
    *before, last = (int(row["total_steps"]) for row in columns(tmp_path))
    assert last >= 300 > before[-1]
    assert len(before) + 1 <= config.expected_iterations


def test_a_vine_s_expected_iterations_are_the_most_that_it_can_take(tmp_path: Path) -> None:
    """Branches that end at once take one step each: the pole falls, after a push or two from where it leans."""
    config = training.preset("cartpole", "class", sampling="vine", step_budget=12_000, iterations=40, threads=1)
    run = training.train(config, tmp_path)
    rows = columns(tmp_path)
    assert not run.interrupted
    assert math.ceil(12_000 / config.steps_per_iteration) < len(rows) <= config.expected_iterations < 40


def test_a_run_with_a_budget_that_is_stopped_ends_where_it_would_have(tmp_path: Path) -> None:
    config = tiny("trpo", iterations=9, step_budget=300)
    assert training.train(config, tmp_path, callback=lambda row: row["iteration"] == 1).interrupted
    run, _ = training.resume(tmp_path)
    assert (run.iteration, run.interrupted) == (3, False)
    before = (tmp_path / "progress.csv").read_bytes()
    assert training.resume(tmp_path)[0].iteration == 3
    assert (tmp_path / "progress.csv").read_bytes() == before
    used_up = r"has taken 384 of the 300 steps of its step_budget; to go on, .* \(--step-budget N\)"
    for wish in ({"iterations": 10}, {"step_budget": 300}):
        with pytest.raises(RunError, match=used_up):
            training.resume(tmp_path, **wish)
    with pytest.raises(RunError, match=r"has taken its step_budget of 300 steps; to go on, .* \(--step-budget N\)"):
        training.resume(tmp_path, tmp_path / "copy", iterations=10)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("method", ["trpo", "cem"])
def test_a_budget_that_is_used_up_can_be_raised(method: str, copied: bool, tmp_path: Path) -> None:
    settings = TINY if method == "trpo" else {"name": "smoke", "population": 8, "num_envs": 8, "threads": 1}
    shorter = training.preset("cartpole", method=method, **{**settings, "iterations": 50, "step_budget": 300})
    longer = dataclasses.replace(shorter, step_budget=900)
    done = training.train(shorter, tmp_path / "run").iteration
    resumed, changes = training.resume(tmp_path / "run", tmp_path / "copy" if copied else None, step_budget=900)
    whole = training.train(longer, tmp_path / "whole")
    assert changes == []
    assert done < resumed.iteration == whole.iteration
    assert torch.equal(resumed.theta, whole.theta)
    assert RunFolder(resumed.folder).config()[0] == longer


# ---- refused


def test_the_shell_offers_every_method() -> None:
    assert subcommands.METHODS == METHODS


@pytest.mark.parametrize("setting", SETTINGS_OF)
@pytest.mark.parametrize("method", METHODS)
def test_a_setting_is_for_the_methods_that_read_it(setting: str, method: str) -> None:
    default = training.preset("barto-cartpole", method=method).to_json()[setting]
    if method in SETTINGS_OF[setting]:
        assert training.preset("barto-cartpole", method=method, **{setting: default}).to_json()[setting] == default
        return
    with pytest.raises(SettingError, match=f"{method} has no {setting}; methods that have it: ") as refusal:
        training.preset("barto-cartpole", method=method, **{setting: default})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["smoke", "class", "paper"])
@pytest.mark.parametrize("task", ["barto-cartpole", "swimmer", "hopper", "walker"])
@pytest.mark.parametrize("method", UPDATES)
def test_the_paper_s_tasks_have_every_preset(method: str, task: str, name: str) -> None:
    config = training.preset(task, name, method=method)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_max_kl_is_not_for_networks() -> None:
    told = "max-kl needs a Fisher matrix for every state, and so a policy of at most 50 parameters; this one has 5126"
    with pytest.raises(SettingError, match=told) as refusal:
        training.train(training.preset("hopper", method="max-kl"), "nowhere")
    assert "\n" not in str(refusal.value)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("method", ["rwr", "reps"])
def test_a_vine_has_several_actions_in_a_state(method: str) -> None:
    with pytest.raises(SettingError, match=f"{method} learns from one weighted action in every state"):
        tiny(method, "hopper", sampling="vine")


def test_pictures_are_no_features_for_reps() -> None:
    with pytest.raises(SettingError, match="reps needs features of the state, and pictures are none: pong has no reps"):
        training.preset("pong", method="reps")
    with pytest.raises(SettingError, match="max-kl needs a policy of few parameters, and pictures take many: pong has"):
        training.preset("pong", method="max-kl")
    assert training.preset("pong", method="rwr").method == "rwr"


def test_continuous_actions_are_the_policy_s() -> None:
    with pytest.raises(SettingError, match="hopper has no first_actions: its actions are continuous"):
        tiny("trpo", "hopper", sampling="vine", first_actions="uniform", steps_per_iteration=256)


def test_a_population_stays_on_the_processor() -> None:
    assert training.preset("cartpole", method="cem", device="cuda").device == "cpu"
    assert training.preset("cartpole", device="cuda").device == "cuda"


def test_a_vine_has_no_actions_in_its_trunk_for_the_empirical_fisher_matrix() -> None:
    with pytest.raises(SettingError, match="empirical-fim learns from the actions taken in every state"):
        tiny("empirical-fim", "hopper", sampling="vine")
    with pytest.raises(SettingError, match="ppo learns from one action and its ratio in every state"):
        tiny("ppo", "hopper", sampling="vine")
    assert tiny("natural-gradient", "cartpole", sampling="vine", steps_per_iteration=256).sampling == "vine"
