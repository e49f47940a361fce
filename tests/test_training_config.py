"""Settings of a training run: what cannot be used is refused, in one line that says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trpo_lessons import envs, training
from trpo_lessons.training.config import TrainConfig


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
        ({"sampling": "vines"}, "sampling must be single-path"),
        ({"steps_per_iteration": 65}, r"steps_per_iteration \(65\) must be a multiple of num_envs \(8\)"),
        ({"gama": 0.9}, "there is no setting 'gama'; did you mean 'gamma'?"),
        ({"xyzzy": 1}, "there is no setting 'xyzzy'; settings: task, sampling,"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(training.SettingError, match=message) as refusal:
        training.preset("cartpole", "smoke", **settings)
    assert "\n" not in str(refusal.value)


def test_unknown_presets_and_tasks_are_refused() -> None:
    with pytest.raises(training.SettingError, match="unknown preset 'clas'; there are smoke, class and paper"):
        training.preset("cartpole", "clas")
    with pytest.raises(envs.UnknownTask, match="did you mean 'hopper'"):
        training.preset("hoper")


def test_settings_survive_json() -> None:
    config = training.preset("cartpole", "smoke", hidden=(3, 5), chunk_size=7, gamma=0.1 + 0.2)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
