"""What the program around a run has set, and numbers as somebody else's environment has them, change nothing."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from trpo_lessons import training
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.own_process import in_own_process


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


class Screen(Scaled):
    """Shows what an untouched screen would be: 100,800 numbers."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (210, 160, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros((210, 160, 3), np.uint8), {}


def test_observations_that_do_not_fit_into_memory_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**20}  # 4.3 GB
    monkeypatch.setattr("os.sysconf", memory.__getitem__)
    config = training.preset("own:screen")
    told = "an observation of own:screen has 100,800 numbers: an iteration of 4096 steps takes 10 GB, .* has 4 GB; make"
    with pytest.raises(training.SettingError, match=told):
        training.train(config, tmp_path / "run", env=Screen)
    assert not (tmp_path / "run").exists()
    training.train(training.preset("own:scaled", "smoke", iterations=1), tmp_path / "run", env=lambda: Scaled(1.0))


# ---- what lies in the current folder is data ------------------------------------------------------------------------


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with modules that must not run."""
    for name in ("pickle", "click", "json", "tempfile", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('must not run')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("start", [["-m", "trpo_lessons"], ["-c", "COMMAND"]])
def test_the_command_runs_no_module_beside_a_run_however_it_is_started(start: list[str], traps: Path) -> None:
    root = str(Path(training.__file__).parents[2])
    if start[1] == "COMMAND":  # as the installed script: its own folder comes first
        start = ["-P", "-c", "import sys; from trpo_lessons.cli import main; sys.exit(main())"]
    call = [sys.executable, *start, "train", "--help"]
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "TASK" in done.stdout


def test_a_process_of_its_own_finds_what_this_one_finds(
    traps: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "only_here.py").write_text("def answer(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(elsewhere)
    only_here = importlib.import_module("only_here")
    assert in_own_process(only_here.answer, {}, 60, 41) == 42
    del sys.modules["only_here"]
