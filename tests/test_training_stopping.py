"""Runs that end early: by the clock, and by SIGTERM. What was done by then is whole, and resume goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from trpo_lessons import cli, training
from trpo_lessons.cli.arguments import Duration
from trpo_lessons.training.running import stopping
from trpo_lessons.training.running.loop import Trainer
from trpo_lessons.training.running.run_folder import RunFolder

CONFIG = training.preset("cartpole", "smoke", iterations=4)


def test_a_run_past_its_time_ends_after_an_iteration_and_goes_on(tmp_path: Path) -> None:
    run = training.train(CONFIG, tmp_path / "run", stop_after=1e-9)
    assert (run.interrupted, run.iteration) == (True, 1)
    resumed, changes = training.resume(tmp_path / "run", stop_after=3600)
    assert (resumed.interrupted, resumed.iteration, changes) == (False, 4, [])
    whole = training.train(CONFIG, tmp_path / "whole")
    assert resumed.theta.equal(whole.theta)


def test_a_run_that_is_complete_in_its_last_moment_was_not_interrupted(tmp_path: Path) -> None:
    run = training.train(training.preset("cartpole", "smoke", iterations=1), tmp_path / "run", stop_after=1e-9)
    assert not run.interrupted


def test_an_interrupt_after_the_last_iteration_interrupts_nothing(tmp_path: Path) -> None:
    def callback(row: Any) -> None:
        if row["iteration"] == CONFIG.iterations:
            raise KeyboardInterrupt

    run = training.train(CONFIG, tmp_path / "run", callback=callback)
    assert (run.interrupted, run.iteration) == (False, 4)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, np.bool_(True), "5", [5]])
def test_what_is_no_number_of_seconds_is_refused(seconds: Any, tmp_path: Path) -> None:
    with pytest.raises(training.SettingError, match="stop_after must be a number of seconds above 0, or none"):
        training.train(CONFIG, tmp_path / "run", stop_after=seconds)
    assert not (tmp_path / "run").exists()


def test_an_iteration_that_would_not_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    deadline = stopping.Deadline(60)
    for now, allowed in ((120.0, True), (138.0, True), (150.0, False)):  # noqa: B007 (the clock reads it)
        assert deadline.allows_another() == allowed
    now = 1e9
    assert stopping.Deadline(None).allows_another()


def test_sigterm_ends_a_run_as_an_interrupt_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate, mine = Trainer.iterate, signal.getsignal(signal.SIGTERM)

    def terminated_in_the_second(trainer: Trainer) -> dict[str, Any]:
        if trainer.iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(trainer)

    monkeypatch.setattr(Trainer, "iterate", terminated_in_the_second)
    run = training.train(CONFIG, tmp_path / "run")
    assert (run.interrupted, run.iteration, len(RunFolder(tmp_path / "run").rows())) == (True, 1, 1)
    assert signal.getsignal(signal.SIGTERM) == mine


def test_signals_are_left_alone_where_they_are_not_ours() -> None:
    def own(_number: int, _frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with stopping.postponed_interrupts():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    failures: list[BaseException] = []

    def in_another_thread() -> None:
        try:
            with stopping.postponed_interrupts():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=in_another_thread)
    thread.start()
    thread.join()
    assert not failures


def test_an_interrupt_waits_for_a_place_where_nothing_is_half_done() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), stopping.postponed_interrupts():  # noqa: PT012
        stopping.check()
        os.kill(os.getpid(), signal.SIGINT)
        done.append("on")
        stopping.check()
        done.append("too far")
    assert done == ["on"]
    stopping.check()  # nothing is left of it
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_after_the_last_check_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), stopping.postponed_interrupts(), stopping.postponed_interrupts():
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_interrupt_is_raised_at_once_when_the_first_has_waited_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = 100.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt), stopping.postponed_interrupts():  # noqa: PT012
        for now in (100.0, 101.0, 104.9, 105.1):
            os.kill(os.getpid(), signal.SIGINT)
            done.append(now)
    assert done == [100.0, 101.0, 104.9]


def test_nothing_is_imported_once_threads_have_begun() -> None:
    code = (
        "import sys; from trpo_lessons import training; from trpo_lessons.training.running.loop import Trainer\n"
        "trainer = Trainer(training.preset('hopper', 'smoke')); before = set(sys.modules)\n"
        "trainer.iterate(); trainer.iterate(); trainer.close(); print(sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("sampling", ["single-path", "vine"])
def test_an_interrupt_is_heard_in_every_part_of_an_iteration(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling and update ask the policy again and again; each time is a chance to stop."""
    config = training.preset("hopper", "smoke", sampling=sampling, threads=2)
    with closing(Trainer(config)) as trainer, monkeypatch.context() as patched:
        heard: list[str] = []
        patched.setattr(stopping, "check", lambda: heard.append(threading.current_thread().name))
        trainer.iterate()
        in_sampling = [name for name in heard if name.startswith("sampling")]
        assert len(heard) - len(in_sampling) >= (4 if sampling == "single-path" else config.rows)
        assert len(in_sampling) == (2 * config.rows if sampling == "single-path" else 0)
    with pytest.raises(KeyboardInterrupt), closing(Trainer(config)) as trainer, stopping.postponed_interrupts():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        trainer.iterate()
    assert trainer.iteration == 0
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("25m", 1500), ("1h30m", 5400), ("45", 45), (" 0.5H ", 1800), ("2m30", 150)]
)
def test_times(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5m", "5x", "1.2.3s", "m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time; write 90s, 25m or 1h30m"):
        Duration().convert(text, None, None)


def test_the_command_stops_by_the_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "cartpole", "--preset", "smoke", "--out", str(tmp_path / "run"), "--stop-after", "0.000001s"]
    assert cli.main(words) == cli.STOPPED
    assert "stopped after iteration 1 of 3; go on with: trpo-lessons resume" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path / "run"), "--device", "cpu"]) == 0
