"""What is told of the paper's own budgets is what was recorded, and what is extrapolated is called so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from trpo_lessons.bench.curves import Curves, keep, kept_curves
from trpo_lessons.teaching import paper_budget
from trpo_lessons.teaching.paper_budget import PAPER_PRESET, PaperBudget
from trpo_lessons.training import preset, train

KEPT = kept_curves(PAPER_PRESET)


def budget(done: int, wanted: int, hours: float) -> PaperBudget:
    return PaperBudget("hopper", Curves({"total_steps": 1000 * done}, {}), done, wanted, hours)


def test_an_extrapolation_is_told_as_one() -> None:
    begun = budget(50, 200, 0.5)
    assert begun.hours_in_full == 2
    assert str(begun) == "hopper: 50 of 200 iterations of 1,000 steps took 0.50 hours; in full, extrapolated: 2.0 hours"
    assert str(budget(200, 200, 2.0)) == "hopper: 200 of 200 iterations of 1,000 steps took 2.00 hours"


def test_it_reads_what_bench_keeps(tmp_path: Path) -> None:
    for seed in (0, 3):
        small = {"threads": 1, "num_envs": 4, "steps_per_iteration": 256, "iterations": 2}
        train(preset("hopper" if seed else "swimmer", "paper", seed=seed, **small), tmp_path / f"runs/{seed}")
    keep(tmp_path / "runs", tmp_path / "kept")
    found = paper_budget.paper_budget("hopper", tmp_path / "kept")
    assert (found.task, found.done, found.wanted, found.steps_of_an_iteration) == ("hopper", 2, 200, 256)
    assert found.curve.facts["settings"]["seed"] == 3
    assert found.hours == found.curve.facts["wall_seconds"] / 3600
    with pytest.raises(KeyError):
        paper_budget.paper_budget("pong", tmp_path / "kept")


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_has_the_papers_settings(name: str) -> None:
    facts = KEPT[name].facts
    task = facts["settings"]["task"]
    its_own = re.sub(r" --iterations \d+| --set threads=\d+", "", facts["command"])
    assert its_own == f"trpo-lessons train {task} --preset paper --seed {facts['settings']['seed']}"
    assert facts["total_steps"] == facts["iterations"] * preset(task, "paper").steps_per_iteration
    assert np.diff(KEPT[name]["total_steps"]).min() > 0
    assert paper_budget.paper_budget(task).done == facts["iterations"]
