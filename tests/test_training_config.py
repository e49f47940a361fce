"""Settings of a training run: what cannot be used is refused, in one line that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trpo_lessons import envs, training
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.training.settings.methods import OF_THE_VINE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma": 1.0}, "gamma must be at least 0 and below 1, got 1.0"),
        ({"gamma": float("nan")}, "gamma must be at least 0 and below 1, got nan"),
        ({"delta": 0}, "delta must be above 0, at most 10, got 0"),
        ({"lam": 1.1}, "lam must be between 0 and 1, got 1.1"),
        ({"iterations": 0}, "iterations must be a whole number, at least 1, got 0"),
        ({"iterations": 2.5}, "iterations must be a whole number, at least 1, got 2.5"),
        ({"num_envs": True}, "num_envs must be a whole number, at least 1, got True"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**64}, "seed must be a whole number from 0"),
        ({"hidden": (64, 0)}, r"hidden must be a sequence of layer widths, each at least 1, got \(64, 0\)"),
        ({"hidden": None}, "hidden must be a sequence of layer widths"),
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"method": "trop"}, "method must be trpo, natural-gradient, empirical-fim.*, got 'trop'"),
        ({"method": "rwr", "temperature": 0}, "temperature must be from 0.001 to 1e6, got 0"),
        ({"method": "reps", "epsilon": 0}, "epsilon must be above 0, at most 10, got 0"),
        ({"method": "reps", "reps_constraint": "none"}, "reps_constraint must be visited or flow, got 'none'"),
        ({"step_budget": 0}, "step_budget must be a whole number, at least 1, or none, got 0"),
        ({"sampling": "vines"}, "sampling must be single-path or vine, got 'vines'"),
        ({"vine_states": 0}, "vine_states must be a whole number, at least 1, got 0"),
        ({"vine_branches": 1}, "vine_branches must be a whole number, at least 2, got 1"),
        ({"rollout_length": 1.5}, "rollout_length must be a whole number, at least 1, got 1.5"),
        ({"steps_per_iteration": 65}, r"steps_per_iteration \(65\) must be a multiple of num_envs \(8\)"),
        ({"gama": 0.9}, "there is no setting 'gama'; did you mean 'gamma'?"),
        ({"xyzzy": 1}, "there is no setting 'xyzzy'; settings: task, method,"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(training.SettingError, match=message) as refusal:
        training.preset("cartpole", "smoke", **settings)
    assert "\n" not in str(refusal.value)


def vine(task: str = "cartpole", name: str = "smoke", **settings: Any) -> TrainConfig:
    return training.preset(task, name, sampling="vine", **settings)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({"steps_per_iteration": 100}, 0),
        ({"steps_per_iteration": 128}, 0),
        ({"steps_per_iteration": 136}, 8),  # fewer than the states that are to be chosen from them
        ({"steps_per_iteration": 252}, 124),  # not a multiple of the environments
        ({"rollout_length": 100}, 0),
    ],
)
def test_a_budget_that_leaves_no_trunk_is_refused(settings: dict[str, Any], left: int) -> None:
    with pytest.raises(training.SettingError, match=f"leaves {left} steps for the trunk, after") as refusal:
        vine(**settings)
    assert "vine_states 16 x vine_branches 2 x rollout_length" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_vine_refuses_a_task_that_cannot_restore_its_state() -> None:
    told = "gym:CartPole-v1 cannot go back to an earlier state, which the vine needs; use sampling single-path"
    with pytest.raises(training.SettingError, match=told):
        vine("gym:CartPole-v1")


@pytest.mark.parametrize("setting", OF_THE_VINE)
@pytest.mark.parametrize("wish", [{}, {"sampling": "single-path"}, {"method": "cem"}])
def test_a_single_path_refuses_settings_that_only_the_vine_reads(setting: str, wish: dict[str, Any]) -> None:
    given = vine().to_json()[setting]
    told = f"{setting} is read by the vine alone; leave it out, or use sampling vine"
    with pytest.raises(training.SettingError, match=f"^{told}$"):
        training.preset("cartpole", "smoke", **wish, **{setting: given})
    assert vine(**{setting: given}) == vine()


def test_trunk_and_branches_share_the_budget() -> None:
    config = vine()
    assert (config.branch_steps, config.rows * config.num_envs) == (16 * 2 * 4, 128)
    assert config.steps_per_iteration == 256
    assert training.preset("cartpole", "smoke").branch_steps == 0


PRESETS = [(task, name) for task in envs.TASKS for name in ("smoke", "class", "paper")]
PRESETS.remove(("cartpole", "paper"))  # the paper's cart-pole is the other one


@pytest.mark.parametrize(("task", "name"), PRESETS)
def test_every_task_has_a_vine(task: str, name: str) -> None:
    config = vine(task, name)
    assert (config.task, config.preset, config.sampling) == (task, name, "vine")
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_the_paper_s_vine_is_that_of_table_2() -> None:
    """Swimmer has 500 Q-values; the 2500 of hopper and walker are states, which alone makes up a million steps."""
    for task, states, length in (("swimmer", 125, 50), ("hopper", 2500, 100), ("walker", 2500, 100)):
        config = vine(task, "paper")
        assert (config.vine_states, config.vine_branches, config.rollout_length) == (states, 4, length)
        assert (config.num_envs, config.rows, config.iterations, config.value_hidden) == (16, 1000, 200, ())
        assert config.steps_per_iteration == states * 4 * length + 16_000


def test_unknown_presets_and_tasks_are_refused() -> None:
    with pytest.raises(training.SettingError, match="unknown preset 'clas'; there are smoke, class and paper"):
        training.preset("cartpole", "clas")
    with pytest.raises(envs.UnknownTask, match="did you mean 'hopper'"):
        training.preset("hoper")


def test_a_preset_is_no_setting_that_could_label_another_preset_s_budget() -> None:
    told = r"^preset='smoke': name it as the second argument, as in preset\('hopper', 'smoke'\)$"
    for name in ((), ("smoke",), ("paper",)):
        with pytest.raises(training.SettingError, match=told):
            training.preset("hopper", *name, preset="smoke")


def test_settings_survive_json() -> None:
    config = training.preset("cartpole", "smoke", hidden=(3, 5), chunk_size=7, gamma=0.1 + 0.2)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("gym:CartPole-v1", {"env_kwargs": "gravity"}, "env_kwargs must be keyword arguments as JSON has them"),
        ("gym:CartPole-v1", {"env_kwargs": [1]}, "env_kwargs must be keyword arguments"),
        ("gym:CartPole-v1", {"env_kwargs": {"x": object()}}, "env_kwargs must be keyword arguments"),
        ("gym:CartPole-v1", {"env_kwargs": {"x": float("nan")}}, "env_kwargs must be keyword arguments"),
        ("gym:CartPole-v1", {"env_kwargs": {1: 2}}, "env_kwargs must be keyword arguments"),
        ("hopper", {"env_kwargs": {}}, "hopper has no env_kwargs: they are for gym: and own: tasks"),
        ("own:maze", {"env": "maze"}, "env must be a class or function that makes an environment"),
        ("gym:CartPole-v1", {"env": dict}, "env is for tasks named own:NAME, not for gym:CartPole-v1"),
        ("own:maze", {"sampling": "vine"}, "own:maze cannot go back to an earlier state"),
    ],
)
def test_settings_of_somebody_elses_environment(task: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(training.SettingError, match=message) as refusal:
        training.preset(task, **settings)
    assert "\n" not in str(refusal.value)


def test_a_function_is_not_stored_and_keyword_arguments_are() -> None:
    config = training.preset("own:maze", env=dict, env_kwargs={"size": 3, "names": ["a"]})
    stored = json.loads(json.dumps(config.to_json()))
    assert "env" not in stored
    assert training.TrainConfig.from_json(stored) == config
