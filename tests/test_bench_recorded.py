"""What is kept of a run is what happened, and recorded scores are compared fairly."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from trpo_lessons import cli, training, zoo_names
from trpo_lessons.bench import compare, record
from trpo_lessons.bench.sb3_peer import TASKS
from trpo_lessons.envs import GAMES
from trpo_lessons.envs.atari.scores import human_normalised
from trpo_lessons.training.running.checkpoint_file import COMPRESSED
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.run_folder import RunFolder

ZOO = Path(compare.ZOO)
WHOSE = ["class_preset", "sb3_contrib"]
SCORES = st.lists(st.integers(-1000, 5000).map(float), min_size=2, max_size=6)


# ---- the peer's logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", sorted((ZOO / "sb3_contrib").iterdir()), ids=lambda path: path.name)
def test_every_row_of_the_peers_logs_is_whole_and_in_order(folder: Path) -> None:
    with gzip.open(folder / "progress.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    iterations = [int(row["time/iterations"]) for row in rows]
    assert iterations == sorted(set(iterations))
    assert [int(row["time/total_timesteps"]) for row in rows] == [2048 * iteration for iteration in iterations]


# ---- record ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    unusual = {"threads": 1, "delta": 0.02, "iterations": 2, "steps_per_iteration": 192}
    training.train(training.preset("cartpole", "smoke", seed=3, **unusual), folder)
    return folder


def test_what_is_kept_is_a_run_folder_with_its_score(finished: Path, tmp_path: Path) -> None:
    summary = record.record(finished, tmp_path, episodes=4)
    kept = tmp_path / "cartpole-seed3"
    assert json.loads((kept / "summary.json").read_text()) == summary
    again = training.evaluate(training.load_run(kept), 4)
    assert summary["mean_return"] == again.mean
    with open(kept / "evaluation.csv") as file:
        assert [float(row["return"]) for row in csv.DictReader(file)] == list(again.returns)
    assert gzip.decompress((kept / "progress.csv.gz").read_bytes()).decode() == record.thinned(
        (finished / "progress.csv").read_text()
    )
    assert sorted(path.name for path in kept.iterdir()) == [
        "checkpoint.safetensors.gz", "config.json", "evaluation.csv", "progress.csv.gz", "summary.json",
    ]  # fmt: skip
    assert summary["total_steps"] == 2 * 192
    assert 0 <= summary["wall_seconds"] < 60


def test_nothing_of_the_checkpoint_is_lost_and_a_copy_goes_on_to_the_same_bits(finished: Path, tmp_path: Path) -> None:
    record.record(finished, tmp_path, episodes=1)
    kept = tmp_path / "cartpole-seed3"
    whole, facts = RunFolder(finished).load_checkpoint()
    again, facts_again = RunFolder(kept).load_checkpoint()
    assert (facts, whole.keys()) == (facts_again, again.keys())
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert RunFolder(kept).progress() == (2, 384)
    theirs, _ = training.resume(kept, tmp_path / "theirs", iterations=4)
    ours, _ = training.resume(finished, tmp_path / "ours", iterations=4)
    assert torch.equal(theirs.theta, ours.theta)
    copied = tmp_path / "copied"  # by hand, with its compressed checkpoint
    shutil.copytree(kept, copied)
    assert torch.equal(training.resume(copied, iterations=4)[0].theta, ours.theta)
    assert training.load_run(copied).iteration == 4
    for log in (copied, tmp_path / "theirs"):
        assert RunFolder(log).rows_of(4)[:2] == RunFolder(kept).rows_of(2)
        assert len((log / "progress.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("damage", ["cut", "garbled", "emptied"])
def test_a_compressed_checkpoint_that_is_damaged_is_told_in_one_line(
    damage: str, finished: Path, tmp_path: Path
) -> None:
    record.record(finished, tmp_path, episodes=1)
    path = tmp_path / "cartpole-seed3" / COMPRESSED
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {"cut": data[:middle], "garbled": data[:middle] + b"!" + data[middle + 1 :], "emptied": b""}[damage]
    )
    for use in (training.load_run, RunFolder.progress):
        with pytest.raises(RunError, match=r"checkpoint\.safetensors\.gz is damaged \(") as caught:
            use(path.parent if use is training.load_run else RunFolder(path.parent))  # type: ignore[operator]
        assert "\n" not in str(caught.value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30), st.integers())
def test_a_thinned_log_keeps_six_digits_of_numbers_and_all_of_whole_numbers_and_words(x: float, n: int) -> None:
    log = f'a,b,c,d\n{x!r},{n},"too long, refused",nan\n,0.25,1e-07,-3\n'
    (name, *others), row, last = csv.reader(record.thinned(log).splitlines())
    assert [name, *others] == ["a", "b", "c", "d"]
    assert float(row[0]) == pytest.approx(x, rel=5e-6)
    assert row[1:] == [str(n), "too long, refused", "nan"]
    assert last == ["", "0.25", "1e-07", "-3"]
    assert record.thinned(record.thinned(log)) == record.thinned(log)


def test_the_command_that_is_kept_trains_with_the_same_settings(finished: Path, tmp_path: Path) -> None:
    config = training.load_run(finished).config
    program, *words = shlex.split(record.command_of(config))
    assert program == "trpo-lessons"
    result = CliRunner().invoke(cli.commands, [*words, "--out", str(tmp_path / "again"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert training.load_run(tmp_path / "again").config == config


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("hopper", {"method": "natural-gradient", "penalty": 1.0}),  # TrainConfig's own; the preset has another
        ("hopper", {"method": "natural-gradient"}),
        ("hopper", {"method": "cem", "hidden": (64, 64), "step_budget": None}),
        ("hopper", {"method": "rwr", "fit_iterations": 20}),
        ("cartpole", {"method": "max-kl", "hidden": ()}),
        ("cartpole", {"sampling": "vine", "vine_states": 8, "first_actions": "policy"}),
        ("pong", {"chunk_size": None, "life_loss_ends": False, "sticky_actions": 0.25}),
        (
            "gym:CartPole-v1",
            {"env_kwargs": {"sutton_barto_reward": True, "words": 'it\'s "one" $HOME; two', "n": None}},
        ),
    ],
)
def test_a_command_has_every_setting_as_the_shell_needs_it(
    task: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[training.TrainConfig] = []

    def train(config: training.TrainConfig, *_: object, **__: object) -> None:
        found.append(config)
        raise RunError("seen")

    monkeypatch.setattr(training, "train", train)
    config = training.preset(task, **settings)
    program, *words = shlex.split(record.command_of(config))
    assert program == "trpo-lessons"
    assert cli.main([*words, "--device", "cpu"]) == 2
    assert found == [config]


def recorded_commands() -> set[str]:
    """Every command of this package that the zoo tells."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            found.update({value["command"]} if isinstance(value.get("command"), str) else ())
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(each)

    for path in ZOO.rglob("*.json"):
        look(json.loads(path.read_text()))
    return {command for command in found if command.startswith("trpo-lessons train ")}


def test_the_shell_takes_every_command_that_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> None:
        raise RunError("taken")

    monkeypatch.setattr(training, "train", train)
    commands = recorded_commands()
    assert len(commands) > 300
    for command in commands:
        with pytest.raises(RunError, match="taken"):
            cli.commands.main(shlex.split(command)[1:], standalone_mode=False)


def test_what_a_run_does_not_read_is_not_in_its_command() -> None:
    for method, unread in (("trpo", {"vine_states": 3, "penalty": 9.0}), ("cma", {"gamma": 0.5, "extra_noise": 1.0})):
        config = training.preset("hopper", method=method)
        assert record.command_of(dataclasses.replace(config, **unread)) == record.command_of(config)


def test_an_iteration_takes_as_long_as_its_phases_and_with_two_threads_two_of_them_at_once() -> None:
    row = {"iteration": "3", "seconds_acting": "1", "seconds_simulating": "2", "seconds_cg": "4", "seconds_search": "8"}
    assert record.seconds_of(row, 2) == 15
    assert record.seconds_of({**row, "seconds_value": "16"}, 1) == 31
    assert record.seconds_of({**row, "seconds_value": "16"}, 2) == 19
    assert record.seconds_of({**row, "seconds_value": "10", "seconds_gradient": ""}, 2) == 15


def test_vine_and_lists_are_part_of_the_command() -> None:
    config = training.preset("swimmer", "class", sampling="vine", hidden=(8, 4))
    assert (
        record.command_of(config)
        == "trpo-lessons train swimmer --sampling vine --preset class --seed 0 --set hidden=8,4"
    )


def test_unfinished_runs_and_taken_places_are_refused(finished: Path, tmp_path: Path) -> None:
    record.record(finished, tmp_path, episodes=1)
    with pytest.raises(RunError, match="is there already"):
        record.record(finished, tmp_path, episodes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["cartpole-seed3"]
    stopped = tmp_path / "stopped"
    training.train(training.preset("cartpole", "smoke", iterations=1), stopped)
    settings = json.loads((stopped / "config.json").read_text())
    settings["settings"]["iterations"] = 2
    (stopped / "config.json").write_text(json.dumps(settings))
    with pytest.raises(RunError, match="has done 1 of 2 iterations"):
        record.record(stopped, tmp_path / "out", episodes=1)
    assert not (tmp_path / "out").exists()


def test_of_two_who_keep_at_the_same_time_one_is_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def while_another_keeps(*arguments: Any, **settings: Any) -> training.Evaluation:
        monkeypatch.undo()
        record.record(finished, tmp_path, episodes=2)
        return training.evaluate(*arguments, **settings)

    monkeypatch.setattr(training, "evaluate", while_another_keeps)
    with pytest.raises(RunError, match="is there already"):
        record.record(finished, tmp_path, episodes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["cartpole-seed3"]
    assert len((tmp_path / "cartpole-seed3" / "evaluation.csv").read_text().splitlines()) == 3


# ---- compare ---------------------------------------------------------------------------------------------------------


@given(SCORES, SCORES, st.integers(-1000, 1000).map(float))
@settings(max_examples=20)
def test_interval_is_around_the_difference_moves_with_the_scores_and_turns_with_the_sides(
    ours: list[float], theirs: list[float], shift: float
) -> None:
    found = compare.compare("hopper", ours, theirs)
    difference = np.mean(ours) - np.mean(theirs)
    assert found.low + found.high == pytest.approx(2 * difference, abs=1e-6)
    assert found.low <= difference + 1e-9
    moved = compare.compare("hopper", [score + shift for score in ours], theirs)
    np.testing.assert_allclose([moved.low, moved.high], [found.low + shift, found.high + shift], atol=1e-6)
    turned = compare.compare("hopper", theirs, ours)
    np.testing.assert_allclose([-turned.high, -turned.low], [found.low, found.high], atol=1e-6)


def test_interval_is_welch_s() -> None:
    """With the degrees of freedom of Welch and Satterthwaite, written out."""
    ours, theirs = [10.0, 8.0, 12.0, 11.0], [0.0, 14.0]
    a, b = np.var(ours, ddof=1) / len(ours), np.var(theirs, ddof=1) / len(theirs)
    freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(theirs) - 1))
    reach = float(t.ppf(0.975, freedom)) * np.sqrt(a + b)
    found = compare.compare("hopper", ours, theirs)
    difference = np.mean(ours) - np.mean(theirs)
    np.testing.assert_allclose([found.low, found.high], [difference - reach, difference + reach], rtol=1e-9)


@pytest.mark.parametrize(("spreads", "some_fail"), [((1, 1), False), ((1, 4), False), ((1, 1), True)])
def test_interval_covers_the_difference_as_often_as_it_says(spreads: tuple[int, int], some_fail: bool) -> None:
    """Five seeds of each. A bootstrap of percentiles covers 86 to 89 % of these, which this would notice."""
    generator, trials = np.random.default_rng(0), 1000

    def scores(spread: int) -> np.ndarray:
        fails = some_fail * 5 * (generator.random(5) < 0.25)  # a quarter stays five spreads below the others
        return spread * (generator.standard_normal(5) - fails + some_fail * 5 * 0.25)

    found = [compare.compare("hopper", *(scores(spread).tolist() for spread in spreads)) for _ in range(trials)]
    covered = np.mean([each.low <= 0 <= each.high for each in found])
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / trials) < covered


def test_scores_that_are_all_alike_have_an_interval_without_width() -> None:
    found = compare.compare("hopper", [5.0, 5.0], [3.0, 3.0, 3.0])
    assert (found.low, found.high) == (2.0, 2.0)


def test_one_seed_says_nothing_about_the_spread() -> None:
    with pytest.raises(ValueError, match="two seeds of each"):
        compare.compare("hopper", [1.0], [1.0, 2.0])


def recorded(folder: Path) -> dict[str, Any]:
    """What a run's summary says, after a look at its episodes."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    with open(folder / "evaluation.csv") as file:
        returns = [float(row["return"]) for row in csv.DictReader(file)]
    assert len(returns) == 20
    assert summary["mean_return"] == pytest.approx(np.mean(returns), rel=1e-5)
    assert folder.name == f"{summary['task']}-seed{summary['seed']}"
    return summary


@pytest.mark.parametrize("of_whom", WHOSE)
@pytest.mark.parametrize("task", TASKS)
def test_recorded_scores_are_means_of_recorded_episodes(of_whom: str, task: str) -> None:
    folders = sorted((ZOO / of_whom).glob(f"{task}-seed*"))
    assert len(folders) == len(compare.scores(ZOO / of_whom, task))
    for folder in folders:
        assert 999_000 <= recorded(folder)["total_steps"] <= 1_000_000


def test_readme_shows_the_recorded_scores() -> None:
    readme = (ZOO.parents[1] / "README.md").read_text()
    for task, environment in TASKS.items():
        columns = [", ".join(f"{x:.1f}" for x in compare.scores(ZOO / whose, task)) for whose in WHOSE]
        assert f"| {environment} | {' | '.join(columns)} |" in readme


# ---- games -----------------------------------------------------------------------------------------------------------


TITLES = {name: name.replace("_", " ").title() for name in GAMES} | {"qbert": "Q*bert"}
PLAYED = [entry for entry in zoo_names.read().entries if entry.task in GAMES]


@pytest.mark.parametrize("entry", PLAYED, ids=lambda entry: entry.name)
def test_readme_shows_the_recorded_scores_of_games(entry: zoo_names.Entry) -> None:
    lines = (ZOO.parents[1] / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    (cells,) = (row for row in rows if row[0] == TITLES[entry.task] and len(row) == 8)
    score, steps = f"{entry.score:.1f} ± {entry.standard_error:.1f}", f"{entry.steps / 1e6:.1f}M"
    if entry.sampling == "vine":
        assert cells[5:7] == [score, steps]
    else:
        assert cells[1:4] == [score, f"{human_normalised(entry.task, entry.score):.2f}", steps]
