"""Curves of both sampling schemes over the same axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trpo_lessons.bench.compare import ZOO
from trpo_lessons.training.run_folder import RunFolder
from trpo_lessons.viewing.learning_curve import Log, logged
from trpo_lessons.viewing.sampling_curves import sampling_curves


def invented(steps: list[float], returns: list[float]) -> Log:
    return {"total_steps": np.array(steps), "mean_return": np.array(returns)}


def test_every_run_is_a_line_in_the_panel_of_its_task() -> None:
    single = [invented([100.0, 200.0], [np.nan, 7.0]), invented([100.0, 200.0], [1.0, 2.0])]
    vine = [invented([90.0, 170.0, 260.0], [3.0, 4.0, 5.0])]
    figure = sampling_curves(
        {"hopper": {"single-path": single, "vine": vine}, "swimmer": {"single-path": [], "vine": vine}}
    )
    hopper, swimmer = figure.axes
    assert (hopper.get_title(), swimmer.get_title()) == ("hopper", "swimmer")
    for line, log in zip(hopper.lines, [*single, *vine], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), log["total_steps"])
        np.testing.assert_array_equal(line.get_ydata(), log["mean_return"])
    assert [line.get_linestyle() for line in hopper.lines] == ["-", "-", "--"]
    assert [text.get_text() for text in hopper.get_legend().get_texts()] == ["single path", "vine"]
    assert len(swimmer.lines) == 1


def test_recorded_vines_count_their_branches() -> None:
    folders: list[Path] = sorted((ZOO / "class_preset_vine").glob("*-seed*"))
    assert folders
    for folder in folders:
        rows = RunFolder(folder).rows()
        steps = logged(RunFolder(folder), len(rows))["total_steps"]
        branches = np.array([float(row["branch_steps"]) for row in rows])
        assert (np.diff(steps, prepend=0.0) > branches).all(), "there is a trunk too"
