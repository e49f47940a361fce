"""What the step from one batch is worth on others: the products are those that they are said to be."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpo_lessons import training
from trpo_lessons.bench import step_worth
from trpo_lessons.bench.step_worth import SCHEMES, SINGLE, Steps
from trpo_lessons.training import RunError
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.config import TrainConfig

TINY: dict[str, Any] = {"steps_per_iteration": 96, "num_envs": 3, "hidden": (4,), "value_hidden": (4,), "threads": 1}
FEW: dict[str, dict[str, Any]] = {
    "vine": {"vine_states": 6, "vine_branches": 2, "rollout_length": 4, "first_actions": "policy"},
    SINGLE: {"sampling": "single-path"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "breakout"
    training.train(training.preset("breakout", "smoke", iterations=1, **TINY), folder)
    return folder


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_worth, "STEPS", 96)


def test_worth_is_on_the_mean_of_other_batches() -> None:
    generator = np.random.default_rng(0)
    found = Steps(generator.normal(size=(5, 7)), generator.normal(size=(5, 7)))
    others = generator.normal(size=(9, 7))
    for i in range(5):
        assert found.promised[i] == pytest.approx(found.gradients[i] @ found.steps[i])
        assert found.worth(others)[i] == pytest.approx(np.mean([each @ found.steps[i] for each in others]))
        rest = [found.gradients[j] @ found.steps[i] for j in range(5) if j != i]
        assert found.worth_on_each_other()[i] == pytest.approx(np.mean(rest))


def test_steps_are_those_of_training(run: Path) -> None:
    """From the run's checkpoint, the next iteration takes the step that is measured, as far as its search lets it."""
    config, _ = RunFolder(run).config()
    with closing(Trainer(config)) as trainer:
        trainer.load_state(*RunFolder(run).load_checkpoint())
        found = step_worth.steps_of(trainer, 1)
    after, _ = training.resume(run, run.parent / "longer", iterations=2)
    taken = (after.theta - training.load_run(run).theta).double().numpy()
    fraction = float(RunFolder(after.folder).rows()[-1]["step_fraction"])
    np.testing.assert_allclose(taken, fraction * found.steps[0], rtol=1e-3, atol=1e-6)
    assert float(RunFolder(after.folder).rows()[-1]["predicted_gain"]) == pytest.approx(
        fraction * found.promised[0], rel=1e-3
    )


def test_every_scheme_is_measured_on_the_single_paths(run: Path) -> None:
    found = step_worth.measure(run, batches=2, reference=3, schemes=FEW)
    assert list(found["schemes"]) == [SINGLE, "vine"]
    assert [row["batches"] for row in found["schemes"].values()] == [3, 2]
    assert all(math.isfinite(row["worth"]) and row["promised"] > 0 for row in found["schemes"].values())
    assert step_worth.measure(run, batches=2, reference=3, schemes=FEW) == found, "the same again"
    twice = {SINGLE: FEW[SINGLE], "the same": FEW[SINGLE]}
    rows = step_worth.measure(run, batches=3, reference=3, schemes=twice)["schemes"]
    assert rows["the same"]["promised"] != rows[SINGLE]["promised"], "no batch is seen twice"


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_cost_an_iteration(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config: TrainConfig = step_worth.scheme_config(training.preset("pong"), SCHEMES[name])
    assert config.steps_per_iteration == 8192
    assert config.branch_steps == (0 if name == SINGLE else pytest.approx(4096, rel=0.02))
    words = name.split(", ")[0].split(" x ")
    if name != SINGLE:
        assert [config.vine_states, config.vine_branches, config.rollout_length] == list(map(int, words))


def test_the_command_keeps_it_or_says_why_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_worth, "SCHEMES", FEW)
    monkeypatch.setattr(step_worth.measure, "__defaults__", (2, 3, FEW))
    step_worth.main([str(run), "--out", str(tmp_path / "kept"), "--batches", "2", "--reference", "3"])
    kept = json.loads((tmp_path / "kept" / "breakout.json").read_text())
    assert list(kept["schemes"]) == [SINGLE, "vine"]
    assert kept["format"] == step_worth.FORMAT
    assert "vine" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        step_worth.main([str(tmp_path / "nothing"), "--out", str(tmp_path)])
    assert "is not a run folder" in capsys.readouterr().err
    without = training.preset("breakout", "smoke", **{**TINY, "value_hidden": ()})
    with RunFolder.taken(tmp_path / "without", without) as folder:
        pass
    with pytest.raises(RunError, match="has no value function"):
        step_worth.measure(folder.path)
