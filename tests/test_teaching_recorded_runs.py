"""The recorded runs of both sampling schemes, and their curves over the same axis."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from trpo_lessons.bench.gradient_variance import recorded
from trpo_lessons.teaching.lesson_07.recorded_runs import (
    FOLDERS,
    SEEDS,
    TASKS,
    TITLES,
    draw_curves,
    draw_gradients,
    gradient_table,
    race,
    race_line,
    recorded_logs,
    recorded_scores,
)
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing.learning_curve import Log


def invented(steps: list[float], returns: list[float]) -> Log:
    return {"total_steps": np.array(steps), "mean_return": np.array(returns)}


def test_every_run_is_a_line_in_the_panel_of_its_task() -> None:
    single = [invented([100.0, 200.0], [np.nan, 7.0]), invented([100.0, 200.0], [1.0, 2.0])]
    vine = [invented([90.0, 170.0, 260.0], [3.0, 4.0, 5.0])]
    figure = Figure()
    draw_curves(figure, {"hopper": {"single path": single, "vine": vine}, "swimmer": {"single path": [], "vine": vine}})
    hopper, swimmer = figure.axes
    assert (hopper.get_title(), swimmer.get_title()) == ("hopper", "swimmer")
    for line, log in zip(hopper.lines, [*single, *vine], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), log["total_steps"])
        np.testing.assert_array_equal(line.get_ydata(), log["mean_return"])
    assert [line.get_linestyle() for line in hopper.lines] == ["-", "-", "--"]
    assert [text.get_text() for text in hopper.get_legend().get_texts()] == ["single path", "vine"]
    assert len(swimmer.lines) == 1


@pytest.mark.parametrize("task", TASKS)
def test_both_schemes_had_the_same_seeds_and_a_budget_that_counts_every_step(task: str) -> None:
    for scheme, path in FOLDERS.items():
        for seed, log, score in zip(SEEDS, recorded_logs(task)[scheme], recorded_scores(task)[scheme], strict=True):
            folder = path / f"{task}-seed{seed}"
            summary = json.loads((folder / "summary.json").read_text())
            assert (summary["task"], summary["seed"]) == (task, seed)
            assert summary["sampling"].replace("-", " ") == scheme
            assert summary["mean_return"] == score
            assert log["total_steps"][-1] == summary["total_steps"] <= 1_000_000
            branches = np.array([float(row.get("branch_steps", 0)) for row in RunFolder(folder).rows()])
            assert (np.diff(log["total_steps"], prepend=0.0) > branches).all(), "there is a trunk too"
            assert (branches > 0).all() == (scheme == "vine")


def test_readme_shows_the_recorded_vines() -> None:
    readme = (FOLDERS["vine"].parents[2] / "README.md").read_text()
    for task in TASKS:
        assert ", ".join(f"{score:.1f}" for score in recorded_scores(task)["vine"]) in readme


def test_a_race_is_to_half_of_what_single_paths_earn() -> None:
    single = [invented([1e5, 2e5, 3e5], [np.nan, 60.0, 100.0]), invented([1e5, 2e5], [10.0, 100.0])]
    vine = [invented([2e5, 5e5], [3.0, 51.0]), invented([2e5, 4e5], [3.0, 50.0])]
    found = race({"single path": single, "vine": vine})
    assert found.level == 50
    assert found.steps == {"single path": (2e5, 2e5), "vine": (5e5, 4e5)}
    assert found.times == 2.25
    assert race_line("hopper", found) == "hopper: 50 after 200k, 200k steps; vine 500k, 400k: 2.2 times as many"


def test_one_of_three_seeds_that_never_comes_leaves_a_median_and_two_leave_none() -> None:
    came, late = invented([1e5, 2e5], [10.0, 100.0]), invented([2e5, 6e5], [3.0, 100.0])
    never = invented([2e5], [0.0])
    some = race({"single path": [came, never, came], "vine": [late, late, never]})
    assert some.times == 3.0
    assert race_line("hopper", some).endswith("200k, never, 200k steps; vine 600k, 600k, never: 3.0 times as many")
    assert race({"single path": [came] * 3, "vine": [late, never, never]}).times == np.inf
    assert np.isnan(race({"single path": [came, never, never], "vine": [never] * 3}).times)


@pytest.mark.parametrize("task", TITLES)
def test_the_table_leaves_out_no_estimator(task: str) -> None:
    rows = recorded(task)["estimators"]
    lines = gradient_table(task).splitlines()[2:]
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows.values(), strict=True):
        assert line.endswith(
            "".join(f"{x:6.2f}" for x in (row["natural"]["aligned"], *row["natural"]["aligned_interval"]))
        )


def test_the_picture_leaves_out_no_estimator() -> None:
    figure = Figure()
    draw_gradients(figure)
    for axes, task in zip(figure.axes, TITLES, strict=True):
        assert len(axes.lines) == 2 * len(recorded(task)["estimators"])


def test_hopper_vines_take_about_twice_as_many_steps() -> None:
    assert 1.5 < race(recorded_logs("hopper")).times < 2.5, "the lesson says about twice"


def test_most_vines_came_later_than_most_single_paths() -> None:
    assert all(race(recorded_logs(task)).times > 1 for task in TASKS), "the lesson says that single paths are ahead"
