"""The policies that come with the package: names, scores, and that each plays as well as is written of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from trpo_lessons import cli, training, zoo, zoo_names
from trpo_lessons.bench import record, rescore
from trpo_lessons.envs import GAMES
from trpo_lessons.training.running import log_file, run_folder
from trpo_lessons.training.running.checkpoint_file import COMPRESSED
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.run_folder import RunFolder, is_recorded

ENTRIES = zoo.entries()
NAMES = [entry.name for entry in ENTRIES]


def refusal(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command refuses `arguments` with."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


# ---- names -----------------------------------------------------------------------------------------------------------


def test_every_recorded_policy_has_a_name_of_its_own_and_none_is_left_out() -> None:
    folders = {path.parent for path in zoo_names.ZOO.rglob("checkpoint.safetensors*")}
    assert {entry.folder for entry in ENTRIES} == folders
    assert len(set(NAMES)) == len(NAMES) > 30
    assert zoo_names.read().damaged == ()


@pytest.mark.parametrize(
    ("name", "task", "sampling", "seed"),
    [
        ("hopper", "hopper", "single-path", 0),
        ("hopper/0", "hopper", "single-path", 0),
        ("hopper/2", "hopper", "single-path", 2),
        ("hopper/vine", "hopper", "vine", 0),
        ("hopper/vine/2", "hopper", "vine", 2),
        ("pong", "pong", "single-path", 0),
    ],
)
def test_a_name_is_task_then_what_is_unusual_then_seed(name: str, task: str, sampling: str, seed: int) -> None:
    for run in (zoo.load(name), training.load_run(name)):
        assert (run.config.task, run.config.sampling, run.config.seed) == (task, sampling, seed)
        assert run.config.method == "trpo"
        assert is_recorded(run.folder)


def a_zoo(folder: Path, **runs: dict[str, object]) -> Path:
    """A zoo of invented entries, by the names of their folders: settings, where they are not the usual ones."""
    usual = {"task": "hopper", "sampling": "single-path", "preset": "class", "seed": 0}
    summary = {"total_steps": 1000, "mean_return": 1.5, "standard_error": 0.5}
    for name, settings in runs.items():
        (folder / "shelf" / name).mkdir(parents=True)
        (folder / "shelf" / name / "config.json").write_text(json.dumps({"settings": {**usual, **settings}}))
        (folder / "shelf" / name / "summary.json").write_text(json.dumps(summary))
    return folder


def test_other_methods_and_presets_are_part_of_a_name_and_seeds_are_in_numerical_order(tmp_path: Path) -> None:
    folder = a_zoo(
        tmp_path,
        a={"seed": 10},
        b={"seed": 9},
        c={"method": "natural-gradient"},
        d={"sampling": "vine", "preset": "paper", "seed": 3},
    )
    found = zoo_names.read(folder)
    assert [entry.name for entry in found.entries] == [
        "hopper/9", "hopper/10", "hopper/natural-gradient/0", "hopper/vine/paper/3",
    ]  # fmt: skip
    assert [entry.scheme for entry in found.entries[1:]] == ["single path", "single path, natural-gradient", "vine"]
    assert found.by_name["hopper"].seed == 9
    assert found.by_name["hopper/vine/paper"].seed == 3


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("hoper", "near it: hopper"),
        ("Pong", "near it: pong"),
        ("hopper/9", "hopper/4"),
        ("hopper/vine/x", "near it: hopper/vine/0, hopper/vine/1, hopper/vine/2"),
        ("hopper-seed2", "hopper/2"),
        ("hopper/", "near it: hopper"),
        ("", "the zoo has no policy ''"),
    ],
)
def test_a_slip_is_told_what_is_near_it_and_how_to_list(
    name: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["evaluate", name], ["watch", name], ["resume", name, "--out", "copy"]):
        told = refusal(*command, capsys=capsys)
        assert near in told
        assert "(trpo-lessons zoo lists all)" in told
    for load in (zoo.load, training.load_run, training.differences):
        with pytest.raises(RunError, match=r"trpo-lessons zoo lists all"):
            load(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["runs/hopper-seed0", "./hopper", "nowhere", "../hopper/2"])
def test_a_path_to_nothing_is_not_taken_for_a_name(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is not a run folder (no config.json)" in refusal("evaluate", path, capsys=capsys)
    with pytest.raises(RunError, match="is not a run folder"):
        training.load_run(Path("hopper"))  # a Path is a path
    with pytest.raises(RunError, match="the zoo has no policy"):
        zoo.load(path)


def test_a_folder_of_that_name_comes_before_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    training.train(training.preset("cartpole", "smoke", iterations=1), "hopper")
    assert training.load_run("hopper").config.task == "cartpole"
    assert zoo.load("hopper").config.task == "hopper"
    assert training.load_run("hopper/0").config.task == "hopper"
    (tmp_path / "pong").mkdir()
    assert "hides the zoo's policy of that name" in refusal("evaluate", "pong", capsys=capsys)
    for command in ("evaluate", "watch", "resume"):
        told = " ".join(CliRunner().invoke(cli.commands, [command, "--help"]).output.split())
        assert "that is meant" in told or "see evaluate --help" in told


# ---- the list --------------------------------------------------------------------------------------------------------


def test_the_list_has_a_line_for_every_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zoo"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    title, *lines = captured.out.splitlines()
    assert title.split() == ["name", "task", "scheme", "steps", "score"]
    assert [line.split()[0] for line in lines] == NAMES
    summary = json.loads((zoo.load("walker/vine/1").folder / "summary.json").read_text())
    (line,) = (line for line in lines if line.startswith("walker/vine/1 "))
    score = f"{summary['mean_return']:.1f} ± {summary['standard_error']:.1f}"
    assert line.split(maxsplit=4) == ["walker/vine/1", "walker", "vine", str(summary["total_steps"]), score]
    assert cli.main(["zoo", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in facts] == NAMES
    assert all(Path(each["folder"]).is_dir() for each in facts)


def test_the_list_does_not_wait_for_torch_and_can_be_piped() -> None:
    code = "import sys; from trpo_lessons.cli import main; main(['zoo']); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert done.stdout.count(b"\n") == len(NAMES) + 1


def test_a_damaged_entry_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_zoo(tmp_path, good={}, bad={"seed": 1}, worse={"seed": 2})
    (folder / "shelf/bad/summary.json").write_text("{")
    (folder / "shelf/worse/summary.json").write_text('{"total_steps": 3}')
    monkeypatch.setattr(zoo_names, "ZOO", folder)
    assert cli.main(["zoo"]) == 2
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["name", "hopper/0"]
    assert [line.split()[1] for line in captured.err.splitlines()] == [
        str(folder / "shelf/bad"), str(folder / "shelf/worse"),
    ]  # fmt: skip
    assert "2 of its folders cannot be read" in refusal("evaluate", "hopper/1", capsys=capsys)
    assert "hopper/0" not in (told := refusal("evaluate", "hopper/0", capsys=capsys))
    assert "shelf/good/config.json is damaged" in told  # a score alone is no policy


# ---- acting ----------------------------------------------------------------------------------------------------------


def test_a_policy_acts_on_raw_observations_in_a_program_of_one_s_own() -> None:
    run, env = zoo.load("hopper"), gym.make("Hopper-v5")
    obs, _ = env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(run.act(obs))
        total, ended = total + float(reward), terminated or truncated
    env.close()
    entry = zoo_names.find("hopper")
    assert entry is not None
    assert total == pytest.approx(entry.score, rel=0.05)
    assert run.theta.shape == (run.policy.num_parameters,)
    pi = run.policy(run.theta, run.statistics.normalise(torch.as_tensor(obs[None])))
    assert pi.mode().shape == (1, 3)


# ---- scores ----------------------------------------------------------------------------------------------------------


def per_step(entry: zoo.Entry) -> float:
    """Reward per step in the recorded episodes."""
    with open(entry.folder / "evaluation.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record.EPISODES
    assert np.mean([float(row["return"]) for row in rows]) == pytest.approx(entry.score, rel=1e-12)
    return entry.score / float(np.mean([int(row["length"]) for row in rows]))


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_what_is_recorded_is_a_finished_run_its_command_and_its_curve(entry: zoo.Entry) -> None:
    folder = RunFolder(entry.folder)
    config, _ = folder.config()
    iterations, steps = folder.progress()
    assert config.is_complete(iterations, steps)
    summary = json.loads((entry.folder / "summary.json").read_text())
    assert summary["command"] == record.command_of(config)
    assert (config.task, config.sampling, config.seed) == (entry.task, entry.sampling, entry.seed)
    curve = [int(row["total_steps"]) for row in folder.rows_of(iterations)]
    assert curve == sorted(set(curve))
    assert curve[-1] == entry.steps == steps
    if entry.sampling == "single-path":
        assert curve == [config.steps_per_iteration * (i + 1) for i in range(iterations)]


def share_of_the_score(run: training.Run, entry: zoo.Entry) -> float:
    """Of what the recorded score promises for the first few steps of an episode, how much comes.

    Trained policies reached 0.66 and more of robots, which begin at rest, and untrained ones 0.25 at most.
    """
    episodes, steps = (4, 500) if entry.task in GAMES else (1, 200)
    result = training.evaluate(run, episodes, rescore.OTHER_STARTS, time_limit=steps)
    return result.mean / (per_step(entry) * steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_loads_and_plays_a_short_episode_as_its_score_promises(name: str) -> None:
    entry = zoo_names.find(name)
    assert entry is not None
    assert share_of_the_score(zoo.load(name), entry) > 0.25


@pytest.mark.parametrize("name", ["cartpole", "hopper", "walker", "pong"])
def test_a_short_episode_tells_a_policy_from_its_beginnings(name: str) -> None:
    run, entry = zoo.load(name), zoo_names.find(name)
    assert entry is not None
    untrained = run.policy.initial_theta(torch.Generator().manual_seed(0))
    assert share_of_the_score(dataclasses.replace(run, theta=untrained), entry) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_reproduced_by_other_episodes(name: str) -> None:
    """Within three combined standard errors."""
    entry = zoo_names.find(name)
    assert entry is not None
    again = rescore.reproduce(entry)
    assert again.agrees, str(again)


def test_scores_agree_within_three_combined_standard_errors() -> None:
    entry = dataclasses.replace(ENTRIES[0], score=10.0, standard_error=3.0)
    assert rescore.Again(entry, 20.0, 4.0).apart == pytest.approx(2.0)
    assert rescore.Again(entry, -4.9, 4.0).agrees
    assert not rescore.Again(entry, -5.1, 4.0).agrees
    assert not rescore.Again(entry, float("nan"), 4.0).agrees
    exact = dataclasses.replace(entry, standard_error=0.0)
    assert rescore.Again(exact, 10.0, 0.0).agrees
    assert not rescore.Again(exact, 9.9, 0.0).agrees
    assert "NOT REPRODUCED" in str(rescore.Again(exact, 9.9, 0.0))
    assert "NOT REPRODUCED" not in str(rescore.Again(exact, 10.0, 0.0))


def test_a_second_look_decides_with_more_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(ENTRIES[0], score=10.0, standard_error=1.0)
    scores: list[float] = []
    looks: list[tuple[int, int]] = []

    def play(entry: zoo.Entry, episodes: int = 20, seed: int = 1) -> rescore.Again:
        looks.append((episodes, seed))
        return rescore.Again(entry, scores.pop(), 1.0)

    monkeypatch.setattr(rescore, "rescore", play)
    for found, agrees, asked in (
        ([11.0], True, [(20, 1)]),
        ([11.0, 19.0], True, [(20, 1), (60, 2)]),
        ([1.0, 19.0], False, [(20, 1), (60, 2)]),
    ):
        scores[:], looks[:] = found, []
        assert rescore.reproduce(entry).agrees == agrees
        assert looks == asked


def test_rescoring_by_name_says_what_is_not_reproduced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*names: str) -> int:
        monkeypatch.setattr("sys.argv", ["rescore", *names])
        with pytest.raises(SystemExit) as ended:
            rescore.main()
        return int(ended.value.code or 0)

    assert status("cartpole/1") == 0
    assert "cartpole/1" in capsys.readouterr().out
    assert status("cartpol") == 2
    assert "near it: cartpole" in capsys.readouterr().err
    entry = zoo_names.find("cartpole/1")
    assert entry is not None
    boasting = dataclasses.replace(entry, score=501.0)
    monkeypatch.setattr(zoo_names, "find", lambda name: boasting)
    assert status("cartpole/1") == 1
    assert "NOT REPRODUCED" in capsys.readouterr().out


# ---- size ------------------------------------------------------------------------------------------------------------

MOST_BYTES = 20_000_000
MOST_POINTS = 1000  # of a curve, one for each iteration: `resume` needs them all, and a picture has as many pixels


def test_everything_recorded_is_small() -> None:
    sizes = {path: path.stat().st_size for path in zoo_names.ZOO.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES
    compressed = [path for path in sizes if path.name == COMPRESSED]
    assert len(compressed) == len(ENTRIES)
    assert not [path for path in sizes if path.name == "checkpoint.safetensors"], "bench.record compresses them"


def test_recorded_logs_are_no_finer_than_a_plot_can_show() -> None:
    logs = sorted(zoo_names.ZOO.rglob("progress.csv*"))
    assert {path.name for path in logs} == {log_file.COMPRESSED}
    assert len(logs) >= len(ENTRIES)
    for path in logs:
        text = log_file.text_of(path)
        assert text == record.thinned(text), f"{path} was not thinned by bench.record"
        assert text.count("\n") - 1 <= MOST_POINTS


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_recorded_run_goes_on_in_a_copy_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = zoo_names.find("cartpole/1")
    assert entry is not None
    before = {path: path.read_bytes() for path in entry.folder.iterdir()}
    monkeypatch.setattr(run_folder, "_processor", lambda: "another one than it was recorded on")
    assert "go on in a copy: --out FOLDER" in refusal("resume", "cartpole/1", capsys=capsys)
    assert "ask for more altogether (--iterations N)" in refusal("resume", "cartpole/1", "--out", "mine", capsys=capsys)
    assert "is part of this package" in refusal(
        "resume", "cartpole/1", "--iterations", "41", "--out", str(zoo_names.ZOO / "mine"), capsys=capsys
    )
    assert list(tmp_path.iterdir()) == []
    run, _ = training.resume("cartpole/1", "mine", iterations=41)
    assert (run.folder, run.iteration) == (Path("mine"), 41)
    assert training.load_run("mine").iteration == 41
    rows = RunFolder(Path("mine")).rows_of(41)
    assert rows[:40] == RunFolder(entry.folder).rows_of(40)
    assert {path: path.read_bytes() for path in entry.folder.iterdir()} == before
    told = refusal("resume", "cartpole/1", "--iterations", "41", "--out", "mine", capsys=capsys)
    assert "mine is there already" in told


def test_watching_and_scoring_write_nothing_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def everything() -> dict[Path, int]:
        files = [path for path in zoo_names.ZOO.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {path: path.stat().st_mtime_ns for path in files}

    monkeypatch.chdir(tmp_path)
    before = everything()
    assert cli.main(["evaluate", "cartpole/2", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["returns"] == [500.0]
    assert cli.main(["watch", "cartpole/2", "--seconds", "0.1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["animation.gif", "learning_curve.png"]
    assert everything() == before


def test_a_copy_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    config = training.preset("cartpole", "smoke", iterations=2)
    training.train(config, tmp_path / "short")
    longer, changes = training.resume(tmp_path / "short", tmp_path / "longer", iterations=4)
    whole = training.train(training.preset("cartpole", "smoke", iterations=4), tmp_path / "whole")
    assert changes == []
    assert torch.equal(longer.theta, whole.theta)
    assert training.load_run(tmp_path / "short").iteration == 2
    names = sorted(path.name for path in (tmp_path / "longer").iterdir())
    assert names == [
        "checkpoint.safetensors",
        "config.json",
        *(n for n in names if n.startswith("events")),
        "progress.csv",
    ]
