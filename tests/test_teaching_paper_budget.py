"""What is told of the paper's own budgets is what was recorded, and what is extrapolated is called so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from teaching_contract import NARROW

from trpo_lessons.bench.curves import Curves, keep, kept_curves
from trpo_lessons.teaching import paper_budget
from trpo_lessons.teaching.paper_budget import PAPER_PRESET, PaperBudget
from trpo_lessons.training import preset, train

KEPT = kept_curves(PAPER_PRESET)


def budget(done: int, hours: float) -> PaperBudget:
    settings = {"task": "hopper", "seed": 0}
    facts = {"settings": settings, "iterations": done, "total_steps": 1000 * done, "wall_seconds": 3600 * hours}
    return PaperBudget(Curves(facts, {}))


def test_an_extrapolation_is_told_as_one() -> None:
    begun = budget(50, 0.5)
    assert begun.hours_in_full == 2
    assert (
        str(begun) == "hopper: 50 of 200 iterations of 1,000 steps took 0.50 hours\n(in full, extrapolated: 2.0 hours)"
    )
    assert str(budget(200, 2.0)) == "hopper: 200 of 200 iterations of 1,000 steps took 2.00 hours"


def test_the_readme_tells_of_them() -> None:
    pong, hopper = (paper_budget.paper_budget(task) for task in ("pong", "hopper"))
    words = {3: "three", 7: "seven"}
    told = f"With one thread all of Pong's would take {words[round(pong.hours_in_full)]} hours"
    told += f", and the paper's Hopper {words[round(hopper.hours_in_full)]}"
    told += f": extrapolated from the first {pong.done} and {hopper.done} iterations."
    assert told in " ".join((PAPER_PRESET.parents[2] / "README.md").read_text().split())


def test_it_reads_what_bench_keeps(tmp_path: Path) -> None:
    for seed in (0, 3):
        small = {"threads": 1, "num_envs": 4, "steps_per_iteration": 256, "iterations": 2}
        train(preset("hopper" if seed else "swimmer", "paper", seed=seed, **small), tmp_path / f"runs/{seed}")
    keep(tmp_path / "runs", tmp_path / "kept")
    found = paper_budget.paper_budget("hopper", tmp_path / "kept")
    assert (found.task, found.done, found.wanted) == ("hopper", 2, 200)
    assert "2 of 200 iterations of 256 steps" in str(found)
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
    its_budget = paper_budget.paper_budget(task)
    assert its_budget.done == facts["iterations"]
    assert max(map(len, str(its_budget).splitlines())) <= NARROW
