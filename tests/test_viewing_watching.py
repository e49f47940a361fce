"""`trpo-lessons watch`: whole files that show what the run did, and one line where that cannot be."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from processes import Outcome, command

from trpo_lessons import envs, training
from trpo_lessons.training.running.acting import choose_actions
from trpo_lessons.training.running.evaluation import PURPOSE
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.methods import METHODS, POPULATION_METHODS, SETTINGS_OF
from trpo_lessons.viewing import opengl, watching
from trpo_lessons.viewing.animation import CAPTION_HEIGHT
from trpo_lessons.viewing.learning_curve import learning_curve, logged
from trpo_lessons.viewing.own_process import ProcessError
from trpo_lessons.viewing.playing import FRAME_SECONDS, own_stage, play

TASKS = ("cartpole", "barto-cartpole", "swimmer", "hopper", "walker", "halfcheetah")
DOT = "gym:toy_envs:Dot-v0"
ENDLESS = "gym:toy_envs:Endless-v0"
Runs = Callable[[str], training.Run]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Barely trained runs by task."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, training.Run]()

    def run(task: str) -> training.Run:
        if task not in made:
            config = training.preset(task, "smoke", iterations=3, threads=1, seed=1)
            made[task] = training.train(config, folder / str(len(made)))
        return made[task]

    return run


def frames(path: Path) -> list[np.ndarray[Any, Any]]:
    """The pictures of an animation, without their captions."""
    return [np.array(f.convert("RGB"))[CAPTION_HEIGHT:] for f in ImageSequence.Iterator(Image.open(path))]


@pytest.fixture
def no_opengl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")


# ---- playing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["cartpole", "hopper"])
def test_what_is_watched_is_what_evaluate_scores(task: str, runs: Runs) -> None:
    for seed in (0, 3):
        episode = play(runs(task), own_stage(runs(task).config), seconds=1000, seed=seed)
        result = training.evaluate(runs(task), 1, seed)
        assert episode.ended
        assert episode.score == pytest.approx(result.returns[0], abs=1e-9)
        step = {"cartpole": 0.02, "hopper": 0.008}[task]
        assert episode.seconds == pytest.approx(result.lengths[0] * step)


@pytest.mark.parametrize("task", TASKS)
def test_moments_are_the_simulators_own_at_an_even_pace(task: str, runs: Runs) -> None:
    run = runs(task)
    stage = own_stage(run.config)
    episode = play(run, stage, seconds=0.5, seed=2)
    env = envs.make(task, 1, threads=1)
    obs, _ = env.reset(seed=envs.derived_seeds(2, PURPOSE, 1))
    trail, scores, score = [], [], 0.0
    while len(trail) * stage.control_step < 0.5:
        trail.append(env.save_state()["cart_pole"][0] if "cartpole" in task else env.positions[0])  # type: ignore[attr-defined]
        scores.append(score)
        obs, rewards, terminated, *_ = env.step(choose_actions(run, obs, env.single_action_space))
        score += float(rewards[0])
        if terminated[0]:
            break
    stride = round(episode.frame_seconds / stage.control_step)
    assert abs(episode.frame_seconds - FRAME_SECONDS) <= 0.011
    assert len(episode.moments) == len(trail[::stride]) > 3
    for i, moment in enumerate(episode.moments):
        assert moment.seconds == pytest.approx(i * episode.frame_seconds)
        assert moment.score == pytest.approx(scores[i * stride])
        np.testing.assert_array_equal(moment.view, trail[i * stride])


# ---- animations -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_opengl")
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_filmed_without_opengl_and_moves(task: str, runs: Runs, tmp_path: Path) -> None:
    film = watching.animate(runs(task), tmp_path, seconds=0.4)
    pictures = frames(film.path)
    assert film.drawn_by == "matplotlib"
    assert film.reason == ("" if "cartpole" in task else "OpenGL draws nothing with MUJOCO_GL=off")
    assert len(pictures) == len(film.episodes[0].moments)
    for before, after in itertools.pairwise(pictures):
        assert (before != after).any()
    views = np.array([moment.view for moment in film.episodes[0].moments])
    assert np.ptp(views, axis=0).max() > 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["animation.gif"]


def test_opengl_is_taken_where_it_works(runs: Runs, tmp_path: Path) -> None:
    if not opengl.working_backend(timeout=60):
        pytest.skip("this machine has no OpenGL that works without a window")
    film = watching.animate(runs("hopper"), tmp_path, seconds=0.2)
    assert (film.drawn_by, film.reason) == ("OpenGL", "")
    pictures = frames(film.path)
    assert len(pictures) == len(film.episodes[0].moments)
    assert (pictures[0] != pictures[-1]).mean() > 0.005


def test_opengl_that_fails_after_all_is_replaced(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ProcessError("the process was ended by SIGSEGV")

    monkeypatch.setattr(opengl, "working_backend", lambda: "egl")
    monkeypatch.setattr(opengl, "render_robot", broken)
    film = watching.animate(runs("hopper"), tmp_path, seconds=0.1)
    assert (film.drawn_by, film.reason) == ("matplotlib", "OpenGL failed: the process was ended by SIGSEGV")
    assert len(frames(film.path)) == len(film.episodes[0].moments)


def test_episodes_follow_one_another(runs: Runs, tmp_path: Path) -> None:
    film = watching.animate(runs("cartpole"), tmp_path, episodes=3, seconds=0.2, seed=4)
    alone = [watching.animate(runs("cartpole"), tmp_path / "one", seconds=0.2, seed=4 + i) for i in range(3)]
    for i, episode in enumerate(film.episodes):
        ours = np.array([moment.view for moment in episode.moments])
        np.testing.assert_array_equal(ours, [moment.view for moment in alone[i].episodes[0].moments])
    assert len(frames(film.path)) == sum(len(episode.moments) for episode in film.episodes)


# ---- learning curves ------------------------------------------------------------------------------------------------


def columns(run: training.Run) -> dict[str, list[float]]:
    with open(run.folder / "progress.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    names = ("total_steps", "mean_return", "mean_kl", "explained_variance")
    return {name: [float(row[header.index(name)]) for row in rows] for name in names}


@pytest.mark.parametrize("task", ["cartpole", "hopper"])
def test_curves_are_the_columns_of_progress_csv(task: str, runs: Runs) -> None:
    run = runs(task)
    expected = columns(run)
    figure = learning_curve(run.config, logged(RunFolder(run.folder), run.iteration))
    assert len(figure.axes) == 3
    for axes, name in zip(figure.axes, ("mean_return", "mean_kl", "explained_variance"), strict=True):
        curve = next(line for line in axes.lines if len(np.atleast_1d(line.get_xdata())) == 3)
        np.testing.assert_array_equal(curve.get_xdata(), expected["total_steps"])
        np.testing.assert_array_equal(curve.get_ydata(), expected[name])
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{expected['mean_return'][-1]:.0f}"]


def altered(run: training.Run, folder: Path, change: Callable[[str], str]) -> training.Run:
    """A copy of the run with another progress.csv."""
    shutil.copytree(run.folder, folder)
    (folder / "progress.csv").write_text(change((folder / "progress.csv").read_text()))
    return dataclasses.replace(run, folder=folder)


def test_refused_updates_and_missing_returns_are_said(runs: Runs, tmp_path: Path) -> None:
    log = dict(logged(RunFolder(runs("cartpole").folder), 3))
    log |= {"accepted": np.array([1.0, 0, 1]), "mean_return": np.full(3, np.nan)}
    log |= {"explained_variance": np.full(3, np.nan)}
    figure = learning_curve(runs("cartpole").config, log)
    returns, kl = figure.axes  # no third panel without a value function
    assert [text.get_text() for text in returns.texts] == ["no episode has ended yet"]
    (crosses,) = [line for line in kl.lines if line.get_label() == "update refused"]
    np.testing.assert_array_equal(crosses.get_xdata(), log["total_steps"][1:2])


@pytest.mark.parametrize("method", [method for method in METHODS if method not in POPULATION_METHODS])
@pytest.mark.parametrize("refused", [False, True])
def test_delta_is_drawn_for_methods_that_keep_to_it_and_no_curve_is_outside(
    method: str, refused: bool, runs: Runs
) -> None:
    config = dataclasses.replace(runs("cartpole").config, method=method)
    bounded = method in SETTINGS_OF["delta"]
    kl = np.array([0.002, 0.0, config.delta if bounded else 0.07])
    log = {**logged(RunFolder(runs("cartpole").folder), 3), "mean_kl": kl, "accepted": np.array([1, not refused, 1.0])}
    axes = learning_curve(config, log).axes[1]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_label() == "delta"] == [config.delta] * bounded
    low, high = axes.get_ylim()
    assert low <= kl.min() <= kl.max() <= high
    assert bounded or low == 0
    words = [text.get_text() for legend in [axes.get_legend()] if legend for text in legend.get_texts()]
    assert words == ["delta"] * bounded + ["update refused"] * refused


def test_a_row_that_is_still_being_written_is_left_out(runs: Runs, tmp_path: Path) -> None:
    run = altered(runs("cartpole"), tmp_path / "run", lambda text: text + "4,10")
    np.testing.assert_array_equal(
        logged(RunFolder(run.folder), 3)["total_steps"], columns(runs("cartpole"))["total_steps"]
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("mean_kl", "mean"), r"is damaged \('mean_kl'\)"),
        (lambda text: text.replace("\n2,", "\n2,x"), r"is damaged \(could not convert string to float: 'x"),
        (lambda text: "\n".join(text.splitlines()[:3]), r"has 2 of 3 rows"),
        (lambda text: text[: len(text) // 2], r"progress.csv "),
        (lambda _: "", r"has 0 of 3 rows"),
    ],
)
def test_a_damaged_log_is_one_line(change: Callable[[str], str], told: str, runs: Runs, tmp_path: Path) -> None:
    run = altered(runs("cartpole"), tmp_path / "run", change)
    with pytest.raises(training.RunError, match=told) as refusal:
        watching.draw_learning_curve(run, tmp_path / "out")
    assert "restore it from a copy" in str(refusal.value)
    assert not (tmp_path / "out").exists()


# ---- the command ----------------------------------------------------------------------------------------------------


def watch(run: training.Run, *arguments: object, **settings: Any) -> Outcome:
    trusted = ["--trust-module", "toy_envs"] if ":toy_envs:" in run.config.task else []
    return command("watch", run.folder, "--seconds", 0.2, *trusted, *arguments, **settings)


def test_watch_writes_two_files_and_says_so(runs: Runs, tmp_path: Path) -> None:
    outcome = watch(runs("cartpole"), "--out", tmp_path / "new" / "folder")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "animation.gif",
        "learning_curve.png",
    ]
    folder = tmp_path / "new" / "folder"
    assert outcome.stdout == (
        f"{folder}/learning_curve.png\n{folder}/animation.gif: drawn by matplotlib, return 10.0 in 0.2 s (goes on)\n"
    )
    assert Image.open(folder / "learning_curve.png").size == (1050, 840)


def test_the_run_folder_is_where_they_go_by_themselves(runs: Runs, tmp_path: Path) -> None:
    run = altered(runs("barto-cartpole"), tmp_path / "run", lambda text: text)
    assert watch(run).status == 0
    assert {"animation.gif", "learning_curve.png"} < {path.name for path in run.folder.iterdir()}
    assert command("resume", run.folder, "--iterations", 4).status == 0, "it is still a run folder"


def test_a_gymnasium_environment_draws_itself(runs: Runs, tmp_path: Path) -> None:
    outcome = command("watch", runs(DOT).folder, "--seconds", 1, "--trust-module", "toy_envs", "--out", tmp_path)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.endswith("animation.gif: drawn by Gymnasium, return 20.0 in 1.0 s (goes on)\n")
    left = []
    for picture in frames(tmp_path / "animation.gif"):
        red = np.flatnonzero(((picture[..., 0] > 200) & (picture[..., 1] < 60)).any(axis=0))
        assert len(red) == 10
        left.append(red[0])
    np.testing.assert_array_equal(np.diff(left), 1)
    assert len(left) == 20


def test_a_gymnasium_environment_that_cannot_draw_itself(runs: Runs, tmp_path: Path) -> None:
    outcome = watch(runs(ENDLESS), "--out", tmp_path)
    assert outcome.status == 2
    assert outcome.message.startswith(f"{ENDLESS} cannot be filmed here: ")
    assert "render" in outcome.message
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"], "which needs no film"


def test_a_damaged_log_is_no_reason_to_make_no_film(runs: Runs, tmp_path: Path) -> None:
    run = altered(runs("cartpole"), tmp_path / "run", lambda text: text.replace("\n2,", "\n2,x"))
    outcome = watch(run, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert outcome.message.startswith(f"{run.folder}/progress.csv is damaged (")
    assert outcome.message.endswith("restore it from a copy, or there is no learning curve")
    assert outcome.stdout.startswith(f"{tmp_path}/out/animation.gif: drawn by ")
    assert len(frames(tmp_path / "out" / "animation.gif")) > 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["animation.gif"]


def test_where_neither_can_be_made_both_are_told(runs: Runs, tmp_path: Path) -> None:
    run = altered(runs(ENDLESS), tmp_path / "run", lambda text: "")
    outcome = watch(run, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert outcome.message.startswith(f"{ENDLESS} cannot be filmed here: ")
    assert f"; {run.folder}/progress.csv has 0 of 3 rows; " in outcome.message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere", "nowhere is not a run folder (no config.json)"),
        ("foreign", "foreign is not a run folder (no config.json)"),
        ("other", "other/config.json is damaged"),
        ("begun", "begun has no checkpoint yet: its first iteration has not ended; resume it"),
        ("begun --seconds 0", "Invalid value for '--seconds': 0.0 is not in the range x>0"),
        ("begun --seconds 31 --episodes 2", "2 times 31 s are too much: a film can have 60 s"),
        ("begun --seconds nan", "1 times nan s are too much"),
        ("begun --episodes 0", "Invalid value for '--episodes': 0 is not in the range x>=1"),
        ("", "Missing argument 'RUN'"),
    ],
)
def test_what_cannot_be_watched_is_one_line(arguments: str, message: str, runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letters.txt").write_text("dear")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("[1, 2]")
    (tmp_path / "begun").mkdir()
    shutil.copy(runs("cartpole").folder / "config.json", tmp_path / "begun")
    before = sorted(tmp_path.rglob("*"))
    outcome = command("watch", *arguments.split(), cwd=tmp_path)
    assert outcome.status == 2
    assert outcome.stdout == ""
    assert message in outcome.message
    assert len(outcome.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "folder"):
        outcome = watch(runs("cartpole"), "--out", out)
        assert outcome.status == 2
        assert outcome.message.startswith(f"{out}: ")
        assert outcome.message.endswith("; choose another folder with --out")
        assert outcome.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_half_file(runs: Runs, tmp_path: Path) -> None:
    """First too small for the learning curve, then for the animation; what was there before stays."""
    outcome = watch(runs("cartpole"), "--out", tmp_path, file_size=1000)
    assert outcome.status == 2
    assert outcome.message == f"{tmp_path}/learning_curve.png: File too large; choose another folder with --out"
    assert list(tmp_path.iterdir()) == []
    assert watch(runs("cartpole"), "--out", tmp_path).status == 0
    before = (tmp_path / "animation.gif").read_bytes()
    size = (tmp_path / "learning_curve.png").stat().st_size
    outcome = command(
        "watch", runs("cartpole").folder, "--episodes", 4, "--out", tmp_path, "--seconds", 1, file_size=size
    )
    assert outcome.status == 2
    assert outcome.message == f"{tmp_path}/animation.gif: File too large; choose another folder with --out"
    assert (tmp_path / "animation.gif").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["animation.gif", "learning_curve.png"]


def test_what_lies_beside_a_run_is_not_executed(runs: Runs, tmp_path: Path) -> None:
    for module in ("pickle", "torch", "json", "mujoco"):
        (tmp_path / f"{module}.py").write_text("open('executed', 'w')")
    arguments = [str(runs(DOT).folder), "--seconds", "0.2", "--trust-module", "toy_envs", "--out", "out"]
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "trpo_lessons", "watch", *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not (tmp_path / "executed").exists()
    assert (tmp_path / "out" / "animation.gif").exists()
