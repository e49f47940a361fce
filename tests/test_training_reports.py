"""What a run says of itself while it goes on and at its end, and what is said of somebody else's code."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trpo_lessons import cli, training
from trpo_lessons.cli.telling import NOTHING_ACCEPTED, refusals
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.reporting import tag_of
from trpo_lessons.training.running.run_folder import RunFolder

SMALL = ["--preset", "smoke", "--iterations", "3", "--steps-per-iteration", "256"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shell(line: str) -> int:
    return cli.main(shlex.split(line))


# ---- the end of a run


def test_a_run_without_an_accepted_update_says_so_and_why(capsys: Captured) -> None:
    assert shell(f"train gym:toy_envs:Undefined-v0 {' '.join(SMALL)} --out run") == NOTHING_ACCEPTED
    told = capsys.readouterr()
    assert "run: 3 iterations, 768 steps, rewards were not finite, 3 of 3 updates refused (3 x a reward" in told.err
    assert "no episode has ended" not in told.err
    assert "3 refused" in told.err  # in the bar
    assert told.out == ""
    assert shell("evaluate run --episodes 2 --json") == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (facts["mean_return"], facts["returns"]) == (None, [None, None])


def test_refusals_that_differ_by_a_number_are_one_reason() -> None:
    reasons = [f"mean KL is still {kl} > delta = 0.01" for kl in ("0.02", "1e-05", "nan")]
    reasons += ["the gradient is zero", "one", "two", "three"]
    rows = [{"accepted": "0", "reason": reason} for reason in reasons] + [{"accepted": "1", "reason": "accepted"}] * 3
    told = refusals(rows)
    assert told.startswith(", 7 of 10 updates refused (3 x mean KL is still ... > delta = ...; 1 x ")
    assert told.endswith("; 2 other reasons)")
    assert refusals(rows[7:]) == ""


def test_a_run_that_learned_ends_with_0_and_counts_what_was_refused(capsys: Captured) -> None:
    assert shell(f"train hopper {' '.join(SMALL)} --set max_backtracks=0 --set delta=5 --out run") in (0, 3)
    rows = RunFolder(Path("run")).rows()
    refused = sum(row["accepted"] == "0" for row in rows)
    assert refused, "a step of 5 nats should be too long somewhere"
    said = "".join(capsys.readouterr())
    assert f"{refused} of 3 updates refused (" in said


# ---- the log


def test_the_logged_return_is_the_mean_of_the_latest_hundred_episodes() -> None:
    with closing(Trainer(training.preset("cartpole", "smoke", steps_per_iteration=4096, num_envs=16))) as trainer:
        rows, ended, sample = [], [], trainer.sampler.sample

        def kept(*asked: Any) -> Any:
            ended.append(sample(*asked))
            return ended[-1]

        trainer.sampler.sample = kept  # type: ignore[method-assign]
        for _ in range(3):
            rows.append(trainer.iterate())
    returns: list[float] = []
    for row, path in zip(rows, ended, strict=True):
        returns += path.trunk.episode_returns
        assert row["mean_return"] == pytest.approx(np.mean(returns[-100:]))
    assert len(returns) > 200
    assert np.mean(returns[-100:]) != pytest.approx(np.mean(returns[-10:]))


def test_the_logged_entropy_is_that_of_the_policy_that_was_followed() -> None:
    """That of two actions that are nearly as likely is ln 2; that of a Gaussian grows with its width."""
    entropies = {}
    for task, log_std in (("cartpole", 0.0), ("hopper", 0.0), ("hopper", 1.0)):
        config = training.preset(task, "smoke", steps_per_iteration=4096, initial_log_std=log_std)
        with closing(Trainer(config)) as trainer:
            entropies[task, log_std] = trainer.iterate()["entropy"]
    assert entropies["cartpole", 0.0] == pytest.approx(np.log(2), abs=0.01)
    each = 0.5 * np.log(2 * np.pi * np.e)
    assert entropies["hopper", 0.0] == pytest.approx(3 * each, abs=0.1)  # 4,096 samples: 0.02 is a standard error
    assert entropies["hopper", 1.0] == pytest.approx(3 * (each + 1), abs=0.1)


def test_tensorboard_shows_return_first_then_update_value_and_speed() -> None:
    training.train(training.preset("hopper", "smoke", iterations=1), "run")
    events = EventAccumulator("run")
    events.Reload()
    groups = [tag.split("/")[0] for tag in sorted(events.Tags()["scalars"])]
    assert list(dict.fromkeys(groups)) == ["return", "update", "value", "wall_time"]
    row = RunFolder(Path("run")).rows()[0]
    assert {tag_of(name) for name in row if name not in ("reason", "total_steps")} == set(events.Tags()["scalars"])


# ---- the bar


class NoTerminal(io.StringIO):
    isatty = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name == "isatty":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("stream", [None, NoTerminal()], ids=["none", "no isatty"])
def test_a_run_goes_on_where_standard_error_is_no_file(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    run = training.train(training.preset("cartpole", "smoke", iterations=1), "run", progress=True)
    assert run.iteration == 1


@pytest.mark.parametrize("disabled", [True, False])
def test_the_bar_can_be_switched_off_as_tqdm_has_it(disabled: bool) -> None:
    """In a process of its own: tqdm looks into the environment once, when it is imported."""
    words = [sys.executable, "-m", "trpo_lessons", "train", "cartpole", *SMALL, "--out", "run"]
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    environment |= {"PYTHONPATH": str(Path(cli.__file__).parents[2])} | ({"TQDM_DISABLE": "1"} if disabled else {})
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode in (0, NOTHING_ACCEPTED)
    assert ("cartpole: 100%" in told.stderr) != disabled


# ---- evaluation


def test_games_that_were_cut_have_no_place_on_the_human_scale(capsys: Captured) -> None:
    smallest = "--iterations 1 --steps-per-iteration 16 --set num_envs=2"
    assert shell(f"train pong --preset smoke {smallest} --out run") in (0, 3)
    capsys.readouterr()
    assert shell("evaluate run --episodes 2 --time-limit 5") == 0
    text = capsys.readouterr().out
    assert "human" not in text
    assert "sampled actions" in text
    assert "2 cut by the time limit" in text
    assert shell("evaluate run --episodes 2 --time-limit 5 --json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["human_normalised"], facts["cut_by_time_limit"], facts["actions"]) == (None, 2, "sampled")


def test_a_truncated_episode_is_over() -> None:
    """Episodes of Pendulum end by truncation alone, after 200 steps, and a new one would go on counting."""
    run = training.train(training.preset("gym:Pendulum-v1", "smoke", iterations=1), "run")
    result = training.evaluate(run, 3)
    assert result.lengths == (200, 200, 200)
    assert result.cut == 0


# ---- somebody else's code


def line_of(function: Any) -> int:
    return function.__code__.co_firstlineno + 1


def test_what_somebody_elses_step_raises_is_told_as_theirs(capsys: Captured) -> None:
    assert shell(f"train gym:toy_envs:Fragile-v0 {' '.join(SMALL)} --out run") == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("trpo-lessons: ")]
    assert "ValueError: the wind tunnel is gone" in line
    assert f"toy_envs.py, line {line_of(toy_envs.Fragile.fail)}" in line
    assert "fail" in line
    assert line.endswith("go on with: trpo-lessons resume run --trust-module toy_envs")


def test_an_environment_that_cannot_be_made_is_one_line_and_no_run(capsys: Captured) -> None:
    assert shell(f"train gym:toy_envs:Unmakeable-v0 {' '.join(SMALL)} --out run") == 2
    told = capsys.readouterr().err
    assert "no such map" in told
    assert "toy_envs.py, line " in told
    assert "Traceback" not in told
    assert not Path("run").exists()


def test_the_traceback_is_there_for_those_who_ask(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRPO_LESSONS_TRACEBACK", "1")
    assert shell(f"train gym:toy_envs:Fragile-v0 {' '.join(SMALL)} --out run") == 2
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "self.fail()" in told


def test_a_fault_of_ours_has_its_traceback_and_says_how_to_go_on(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_trainer: Trainer) -> dict[str, Any]:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Trainer, "iterate", broken)
    assert shell(f"train cartpole {' '.join(SMALL)} --out run") == cli.OUR_FAULT
    told = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in told
    assert told.splitlines()[-1].endswith("goes on with trpo-lessons resume RUN")


# ---- settings


def test_every_setting_is_listed_with_its_default(capsys: Captured) -> None:
    assert shell("train --list-settings") == 0
    listed = capsys.readouterr().out
    for name in TrainConfig("hopper").to_json():
        if name not in ("task", "preset", "env"):
            (line,) = [each for each in listed.splitlines() if each.startswith(f"{name} ")]
            assert line
    assert "above 0, at most 10; default 0.01; of trpo," in " ".join(listed.split())
    assert "strictly between 0 and 1; default 0.2; of ppo" in listed
    assert "\ngamma " in listed
    assert "default 0.99; of" not in listed, "nearly all methods have it"
    assert "\nenv " not in listed, "no shell can give it"
    assert listed.endswith("Presets have other values than these defaults for some tasks and methods.\n")
    assert "--list-settings" in click_help(capsys)


def click_help(capsys: Captured) -> str:
    assert shell("train --help") == 0
    return capsys.readouterr().out
