"""What the program around a run has set, and numbers as somebody else's environment has them, change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from trpo_lessons import training
from trpo_lessons.training.run_folder import RunFolder


@pytest.fixture
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SETTINGS: list[dict[str, Any]] = [
    {"task": "cartpole"},
    {"task": "hopper"},
    {"task": "hopper", "sampling": "vine"},
    {"task": "pong", "iterations": 1, "steps_per_iteration": 64, "num_envs": 2},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, list(each.values())[:2])))
def test_torchs_default_type_changes_no_bit(settings: dict[str, Any], tmp_path: Path, request: Any) -> None:
    config = training.preset(settings["task"], "smoke", threads=1, **{k: settings[k] for k in settings if k != "task"})
    plain = training.train(config, tmp_path / "plain")
    request.getfixturevalue("double_by_default")
    double = training.train(config, tmp_path / "double")
    assert double.theta.dtype == torch.float32
    assert torch.equal(plain.theta, double.theta)


class Scaled(gymnasium.Env[Any, Any]):
    """A target between -1 and 1 is shown in a unit of its own; the reward is for coming close to it."""

    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, unit: float) -> None:
        self.unit, self.observation_space = unit, spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t, self.target = 0, self.np_random.uniform(-1, 1)
        return np.array([self.target * self.unit]), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = -abs(float(action[0]) - self.target)
        return np.array([self.target * self.unit]), reward, False, self.t == 4, {}


@pytest.mark.parametrize("unit", [1.0, 1e39, 1e-9, 1e-30])
def test_observations_of_any_size_are_learned_from(unit: float, tmp_path: Path) -> None:
    """1e39 is no float32, and the square of 1e-30 none either."""
    config = training.preset("own:scaled", "smoke", iterations=25, threads=1)
    run = training.train(config, tmp_path / "run", env=lambda: Scaled(unit))
    rows = RunFolder(tmp_path / "run").rows()
    assert [row["reason"] for row in rows if row["accepted"] == "0"] == []
    low, high = (float(run.act(np.array([target * unit]))[0]) for target in (-0.7, 0.7))
    assert high - low > 0.7
