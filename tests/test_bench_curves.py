"""What is kept of many runs: thinned logs that say what the logs say, with the commands that make them again."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from trpo_lessons import cli, training
from trpo_lessons.bench import curves
from trpo_lessons.bench.compare import ZOO
from trpo_lessons.training import RunError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.learning_curve import logged

TINY = {"threads": 1, "iterations": 5, "steps_per_iteration": 192}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs, one of a population, and one that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        training.train(training.preset("cartpole", "smoke", seed=seed, delta=0.02, **TINY), folder / f"trpo-seed{seed}")
    population = {"threads": 1, "method": "cem", "seed": 0}
    training.train(training.preset("cartpole", "smoke", **population), folder / "cem-seed0")
    config = training.preset("cartpole", "smoke", seed=2, **TINY)
    with RunFolder.taken(folder / "begun", config):
        pass
    return folder


def test_a_short_log_is_kept_as_it_is(runs: Path, tmp_path: Path) -> None:
    left_out = curves.keep(runs, tmp_path / "kept")
    kept = curves.kept_curves(tmp_path / "kept")
    assert sorted(kept) == ["cem-seed0", "trpo-seed0", "trpo-seed1"]
    assert len(left_out) == 1
    assert "begun has done 0 of 5 iterations: resume it first" in left_out[0]
    log = logged(RunFolder(runs / "trpo-seed1"), 5)
    for name in ("total_steps", "mean_return", "mean_kl", "accepted"):
        np.testing.assert_allclose(kept["trpo-seed1"][name], log[name], rtol=1e-6, err_msg=name)
    assert np.isnan(kept["trpo-seed1"]["population_spread"]).all()
    assert (kept["cem-seed0"]["population_spread"] > 0).all()
    assert np.isnan(kept["cem-seed0"]["mean_kl"]).all()


def test_facts_say_where_runs_differ_and_how_to_make_them_again(runs: Path, tmp_path: Path) -> None:
    curves.keep(runs, tmp_path / "kept")
    facts = json.loads((tmp_path / "kept" / "runs.json").read_text())
    run = facts["runs"]["trpo-seed1"]
    assert run["settings"]["method"] == "trpo"
    assert run["settings"]["seed"] == 1
    assert run["settings"]["delta"] == 0.02
    assert "gamma" not in run["settings"], "all runs share it"
    assert facts["environments"][run["environment"]]["threads"] == 1
    assert (run["iterations"], run["total_steps"]) == (5, 5 * 192)
    program, *words = shlex.split(run["command"])
    assert program == "trpo-lessons"
    result = CliRunner().invoke(cli.commands, [*words, "--out", str(tmp_path / "again"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    again, _, _ = curves.curves_of(tmp_path / "again")
    np.testing.assert_allclose(again["mean_return"], curves.kept_curves(tmp_path / "kept")["trpo-seed1"]["mean_return"])


def test_more_can_be_kept_beside_what_is_there(runs: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    curves.keep(runs, whole)
    for pattern in ("trpo-*", "cem-*", "trpo-seed1"):  # the last of them replaces one
        some = tmp_path / pattern.strip("-*")
        some.mkdir()
        for folder in runs.glob(pattern):
            (some / folder.name).symlink_to(folder)
        curves.keep(some, parts, add=True)
    one, other = curves.kept_curves(whole), curves.kept_curves(parts)
    assert sorted(one) == sorted(other)
    for name, run in other.items():
        for column, values in run.columns.items():
            np.testing.assert_array_equal(values, one[name][column], err_msg=column)
        assert run.facts.keys() == one[name].facts.keys()
        assert run.facts["settings"].items() <= one[name].facts["settings"].items()
        assert run.facts["environment"] == one[name].facts["environment"]
    curves.keep(tmp_path / "cem", parts)
    assert list(curves.kept_curves(parts)) == ["cem-seed0"], "without add, what was there goes"


def test_a_point_stands_for_several_iterations() -> None:
    columns = {
        "total_steps": np.arange(1.0, 11) * 100,
        "mean_return": np.array([np.nan, np.nan, np.nan, 1, 2, 3, 4, 5, 6, 7]),
        "max_kl": np.arange(10.0)[::-1],
        "accepted": np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 1.0]),
    }
    thin = curves.thinned(columns, points=3)  # 4, 3 and 3 iterations
    assert thin["total_steps"].tolist() == [400, 700, 1000]
    assert thin["mean_return"].tolist() == [1, 3, 6]
    assert thin["max_kl"].tolist() == [9, 5, 2]
    np.testing.assert_allclose(thin["accepted"], [1, 1 / 3, 1 / 3])
    assert np.isnan(curves.thinned(columns, points=5)["mean_return"][0]), "no episode had ended"


@pytest.mark.parametrize(("iterations", "points"), [(1, 1), (99, 99), (100, 100), (101, 100), (488, 100)])
def test_there_are_at_most_a_hundred_points(iterations: int, points: int) -> None:
    thin = curves.thinned({"total_steps": np.arange(float(iterations)), "mean_kl": np.ones(iterations)})
    assert {len(column) for column in thin.values()} == {points}
    assert thin["total_steps"][-1] == iterations - 1
    assert (thin["mean_kl"] == 1).all()


def test_the_final_return_is_that_of_the_last_tenth() -> None:
    run = curves.Curves({}, {"mean_return": np.arange(100.0)})
    assert run.final() == np.arange(90, 100).mean()
    assert run.final(share=0.001) == 99


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        curves.keep(tmp_path, tmp_path / "kept")
    command = [sys.executable, "-m", "trpo_lessons.bench.curves", str(tmp_path), "--out", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no finished run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["step_size", "parameter_count"])
def test_what_the_package_keeps_is_small_and_whole(name: str) -> None:
    files = list((ZOO / name).iterdir())
    assert {file.name for file in files} == {"curves.safetensors", "runs.json"}
    assert sum(file.stat().st_size for file in files) < 500_000
    for run in curves.kept_curves(ZOO / name).values():
        assert len(run["total_steps"]) <= curves.POINTS
        assert (np.diff(run["total_steps"]) > 0).all()
        assert run["total_steps"][-1] == run.facts["total_steps"]
        assert run.facts["command"].startswith("trpo-lessons train ")
