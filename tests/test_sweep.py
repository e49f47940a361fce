"""Sweeps: what they consist of, and that nothing is lost or done twice however they end.

The processes of these tests keep a journal of the iterations they complete, and wait at a gate in the middle of a run
while that is closed: so every signal comes at a moment that the test has chosen, however slow the machine is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

import trpo_lessons
from trpo_lessons import cli, training
from trpo_lessons.cli.arguments import Seeds, parse_values
from trpo_lessons.cli.telling import SOME_FAILED
from trpo_lessons.envs import UnknownTask
from trpo_lessons.training.running.run_errors import InUseError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sweeping import hands, own_process
from trpo_lessons.training.sweeping import plan as plans
from trpo_lessons.training.sweeping.own_process import Job, Outcome, perform
from trpo_lessons.training.sweeping.plan import Planned, planned
from trpo_lessons.training.sweeping.sweep import _Bar, _Work

COMMAND = ("--task=cartpole", "--preset=smoke", "--iterations=4", "--steps-per-iteration=64", "--set=hidden=4")
NAMES = ["cartpole-trpo-hidden=4-seed0", "cartpole-trpo-hidden=4-seed1"]

IN_EVERY_PROCESS = """
import os, time
if os.environ.get("SWEEP_TEST"):
    from pathlib import Path
    from trpo_lessons.training.running import loop, stopping
    scene, iterate = Path(os.environ["SWEEP_TEST"]), loop.Trainer.iterate

    def note(*words):
        with open(scene / "journal", "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    def iterate_with_journal(trainer):
        seed = trainer.config.seed
        if trainer.iteration == 2 and (scene / "gate").exists():
            note("waits", seed, os.getpid())
            while (scene / "gate").exists():
                stopping.check()
                time.sleep(0.01)
        row = iterate(trainer)
        note("done", seed, row["iteration"])
        return row

    loop.Trainer.iterate = iterate_with_journal
"""


class Scene:
    """A sweep's folder with a gate and a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.seen = 0  # lines of the journal
        (folder / "gate").touch()

    def open_gate(self) -> None:
        (self.folder / "gate").unlink()

    def journal(self) -> list[list[str]]:
        path = self.folder / "journal"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def pids_at_gate(self, count: int) -> list[int]:
        """Wait until so many more runs have come to the gate; their processes."""
        found: list[int] = []

        def came() -> bool:
            found[:] = [int(words[2]) for words in self.journal()[self.seen :] if words[0] == "waits"]
            return len(found) >= count

        until(came)
        self.seen = len(self.journal())
        return found

    def start(self, *more: str) -> BaseProcess:
        """`trpo-lessons sweep` with two seeds, in a process of its own."""
        arguments = ["sweep", str(self.out), *COMMAND, "--seeds=0-1", *more]
        process = COMMANDS.Process(target=_command, args=(arguments, str(self.folder)))
        process.start()
        return process

    def printed(self) -> str:
        return (self.folder / "printed").read_text()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that will certainly be, unless there is a fault; the limit is no claim about time."""
    limit = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < limit, "it did not come about"
        time.sleep(0.02)


def status_of(process: BaseProcess) -> int | None:
    process.join(240)
    return process.exitcode


def nobody_trains(out: Path) -> bool:
    """Whether every run in the folder has been let go of."""
    try:
        for path in out.glob("*-seed*"):
            with RunFolder(path).locked():
                pass
    except InUseError:
        return False
    return True


def _command(arguments: list[str], folder: str) -> None:
    """`trpo-lessons ARGUMENTS`, with its output in a file, as the first thing of a new process."""
    handle = os.open(Path(folder) / "printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    in_every_process(Path(folder))
    status = cli.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def in_every_process(folder: Path) -> None:
    """Let the processes that this one starts keep the journal in the folder, and heed the gate there."""
    os.environ["SWEEP_TEST"] = str(folder)
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(IN_EVERY_PROCESS)
    sys.path.insert(0, str(folder / "site"))


# Commands are forked from a process that has imported torch already; the runs that they start are not.
COMMANDS = multiprocessing.get_context("forkserver")
COMMANDS.set_forkserver_preload(["trpo_lessons.training", "trpo_lessons.cli"])


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """What `train` makes of both runs, which no sweep has touched."""
    config = training.preset("cartpole", "smoke", iterations=4, steps_per_iteration=64, hidden=(4,), threads=1)
    folder = Path(tempfile.mkdtemp())
    yield {
        name: training.train(dataclasses.replace(config, seed=seed), folder / name).theta
        for seed, name in enumerate(NAMES)
    }
    shutil.rmtree(folder)


def assert_all_is_there(scene: Scene, trained: dict[str, Any]) -> None:
    """Every iteration was done once, and both runs have the bits that `train` gives them."""
    done = Counter((words[1], words[2]) for words in scene.journal() if words[0] == "done")
    assert done == {(seed, str(n)): 1 for seed in "01" for n in range(1, 5)}
    for name, theta in trained.items():
        assert training.load_run(scene.out / name).theta.equal(theta)
        assert [row["iteration"] for row in RunFolder(scene.out / name).rows()] == ["1", "2", "3", "4"]
    assert not list(scene.out.glob(".*.lease"))


# ---- however it ends -------------------------------------------------------------------------------------------------


def test_on_processes_nothing_is_lost_or_done_twice_however_it_ends(tmp_path: Path, trained: dict[str, Any]) -> None:
    scene = Scene(tmp_path)
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
        command = scene.start("--workers=1")
        scene.pids_at_gate(1)
        os.kill(command.pid, number)
        assert status_of(command) == status
        until(lambda: nobody_trains(scene.out))
        assert ("stopped with 0 of 2 runs complete; the same command goes on" in scene.printed()) == (status == 130)
    assert [path.name for path in sorted(scene.out.glob("*-seed*"))] == NAMES[:1]

    command = scene.start("--workers=1")
    [pid] = scene.pids_at_gate(1)
    os.kill(pid, signal.SIGKILL)
    scene.pids_at_gate(1)  # the other run goes on
    scene.open_gate()
    assert status_of(command) == SOME_FAILED
    told = "its process was ended by SIGKILL, as happens where memory runs out; the same command goes on with it"
    assert f"{NAMES[0]}: {told}" in scene.printed()
    assert "1 of 2 runs failed" in scene.printed()

    assert status_of(scene.start("--workers=1")) == 0
    assert "2 of 2" in scene.printed()
    assert_all_is_there(scene, trained)
    assert not (scene.out / "logs").exists() or not list((scene.out / "logs").iterdir())


def test_on_dask_nothing_is_lost_or_done_twice_however_it_ends(
    tmp_path: Path, trained: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    scene = Scene(tmp_path)
    monkeypatch.setenv("SWEEP_TEST", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    in_every_process(tmp_path)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        on = f"--on={cluster.scheduler_address}"
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
            command = scene.start(on)
            scene.pids_at_gate(2)
            os.kill(command.pid, number)
            assert status_of(command) == status
            until(lambda: nobody_trains(scene.out))

        command = scene.start(on)
        parents = {parent_of(pid) for pid in scene.pids_at_gate(2)}
        workers = set(client.run(os.getpid).values())
        assert parents == workers, "each worker has one run"
        os.kill(min(workers), signal.SIGKILL)
        scene.pids_at_gate(1)  # again: the run whose worker was killed
        scene.open_gate()
        assert status_of(command) == 0, scene.printed()
        assert "2 of 2" in scene.printed()
    assert_all_is_there(scene, trained)


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True).stdout)


def test_two_sweeps_in_one_folder_share_the_work(tmp_path: Path, trained: dict[str, Any]) -> None:
    scene = Scene(tmp_path)
    one = scene.start("--workers=1")
    scene.pids_at_gate(1)
    two = scene.start("--workers=1")
    scene.pids_at_gate(1)  # it leaves the first run to the other, and takes the second
    scene.open_gate()
    assert [status_of(one), status_of(two)] == [0, 0]
    assert_all_is_there(scene, trained)


def test_a_sweep_past_its_time_is_stopped_as_by_an_interrupt(tmp_path: Path) -> None:
    result = training.sweep(tmp_path, ["cartpole"], seeds=[0, 1], preset="smoke", workers=1, stop_after=1e-9)
    assert result.interrupted
    assert [run.state for run in result.runs] == ["stopped", "stopped"]
    assert nobody_trains(tmp_path)
    assert result.failed == []


# ---- what it consists of ---------------------------------------------------------------------------------------------


def test_everything_is_multiplied_and_names_can_be_read() -> None:
    runs = planned(
        ["cartpole", "gym:CartPole-v1"],
        ["trpo", "natural-gradient"],
        range(2),
        {"trpo:delta": [0.003, 1e-5], "hidden": [(8, 4), ()], "gym:CartPole-v1:gamma": [0.9]},
        preset="smoke",
    )
    names = [run.name for run in runs]
    assert len(set(names)) == len(names) == 2 * (2 * 2 + 2) * 2
    assert names[:3] == [
        "cartpole-trpo-hidden=8x4-delta=0.003-seed0",
        "cartpole-trpo-hidden=8x4-delta=0.003-seed1",
        "cartpole-trpo-hidden=8x4-delta=1e-05-seed0",
    ]
    assert names[-1] == "gym-CartPole-v1-natural-gradient-hidden=none-gamma=0.9-seed1"
    by_name = {run.name: run.config for run in runs}
    config = by_name[names[2]]
    assert config is not None
    assert (config.delta, config.hidden, config.seed, config.method, config.threads) == (1e-5, (8, 4), 0, "trpo", 1)
    other = by_name[names[-1]]
    assert other is not None
    assert (other.gamma, other.hidden, other.method) == (0.9, (), "natural-gradient")


def test_a_value_for_one_method_or_task_stands_in_place_of_the_one_for_all() -> None:
    settings = {"gamma": [0.9], "hopper:gamma": [0.5], "lam": [0.8], "trpo:lam": [0.7]}
    runs = planned(["hopper", "walker"], ["trpo", "natural-gradient"], [0], settings)
    found = [(config.gamma, config.lam) for run in runs if (config := run.config)]
    assert found == [(0.5, 0.7), (0.5, 0.8), (0.9, 0.7), (0.9, 0.8)]


def test_a_run_means_what_train_means_by_the_same_settings() -> None:
    [run] = planned(["hopper"], seeds=[3], settings={"threads": [2]}, preset="smoke", step_budget=600)
    assert run.config == training.preset("hopper", "smoke", seed=3, threads=2, step_budget=600)


def test_what_stands_alone_is_a_list_of_one() -> None:
    alone = planned("hopper", "trpo", [0], {"delta": 0.1, "hopper:control_cost": None})
    assert alone == planned(["hopper"], ["trpo"], [0], {"delta": [0.1], "hopper:control_cost": [None]})


def test_the_same_asked_for_in_other_words_is_one_run() -> None:
    [run] = planned(["cartpole"], settings={"hidden": [(8, 4), [8, 4]]})
    assert run.config == training.preset("cartpole", hidden=(8, 4), threads=plans.THREADS)


def test_settings_of_the_vine_are_for_its_runs_alone() -> None:
    [run] = planned(["cartpole"], settings={"vine_states": [4]}, sampling="vine", preset="smoke")
    assert run.config == training.preset("cartpole", "smoke", sampling="vine", vine_states=4, threads=plans.THREADS)


@pytest.mark.parametrize("shares", [1, 3, 7, 40])
def test_shares_are_disjoint_and_together_everything(shares: int) -> None:
    runs = planned(["cartpole"], seeds=range(10), settings={"gamma": [0.9, 0.99]}, preset="smoke")
    parts = [plans.share(runs, number, shares) for number in range(1, shares + 1)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_cannot_be_is_told_for_each_run_and_the_others_are_trained() -> None:
    runs = planned(["cartpole", "hopper"], settings={"control_cost": [0.5]}, preset="smoke")
    assert [run.config is None for run in runs] == [True, False]
    assert runs[0].flaw.startswith("cartpole has no control_cost")


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ({"dleta": [1]}, {}, "there is no setting 'dleta'; did you mean 'delta'"),
        ({"trpo:dleta": [1]}, {}, "did you mean 'delta'"),
        ({}, {"presets": "smoke"}, "did you mean 'preset'"),
        ({"delta": [-1]}, {}, "delta must be above 0"),
        ({"walker:delta": [0.1]}, {}, "there is no run of 'walker' in this sweep"),
        ({}, {"env": list}, "a sweep cannot store env"),
        ({"delta": []}, {}, "there are no runs in this sweep"),
        ({"seed": [1, 2]}, {}, "seed is no setting of a sweep: use the argument seeds for it"),
        ({"hopper:seed": [1]}, {}, "hopper:seed is no setting of a sweep: use the argument seeds for it"),
        ({}, {"seed": 3}, "seed is no setting of a sweep: use the argument seeds for it"),
        ({"task": ["walker"]}, {}, "task is no setting of a sweep: use the argument tasks for it"),
        ({}, {"method": "cma"}, "method is no setting of a sweep: use the argument methods for it"),
        ({"iterations": [1, 2]}, {}, "must be the same in all runs of a sweep: use the argument iterations for it"),
        (
            {"trpo:preset": ["smoke"]},
            {},
            "trpo:preset must be the same in all runs of a sweep: use the argument preset",
        ),
        ({"env_kwargs": [{"a": 1}, {"a": "1"}]}, {}, "two runs of this sweep would be hopper-trpo-env_kwargs=-a-1"),
        ({"hidden": [(8, 4), "8x4"]}, {}, "hidden must be a sequence of layer widths, each at least 1, got '8x4'"),
        ({"trpo:delta": [0.01, 0.0]}, {}, "trpo:delta must be above 0, at most 10, got 0.0"),
        ({"hopper:delta": [math.nan]}, {}, "hopper:delta must be above 0, at most 10, got nan"),
        ({"trpo:penalty": [1.0]}, {}, "trpo has no penalty; methods that have it: natural-gradient"),
        ({"vine_states": [4]}, {}, "vine_states is read by the vine alone"),
    ],
)
def test_a_sweep_in_which_no_run_can_be_is_refused(
    settings: dict[str, Any], options: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(training.SettingError, match=told):
        training.sweep(tmp_path / "out", ["hopper"], settings=settings, **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_task_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UnknownTask, match="hoper"):
        training.sweep(tmp_path / "out", ["cartpole", "hoper"])
    assert not (tmp_path / "out").exists()


# ---- what is recorded ------------------------------------------------------------------------------------------------


def test_more_runs_join_what_is_recorded_and_another_run_of_the_same_name_is_refused(tmp_path: Path) -> None:
    first, more = (planned(["cartpole"], seeds=seeds, preset="smoke") for seeds in ([0], [0, 1]))
    plans.record(tmp_path, first)
    before = (tmp_path / "sweep.json").read_bytes()
    plans.record(tmp_path, first)
    assert (tmp_path / "sweep.json").read_bytes() == before
    plans.record(tmp_path, more)
    assert plans.recorded(tmp_path) == more
    with pytest.raises(training.RunError, match=r"cartpole-trpo-seed1 is there .*\(.*iterations 3, here 9\)"):
        plans.record(tmp_path, planned(["cartpole"], seeds=[1, 2], preset="smoke", iterations=9))
    assert plans.recorded(tmp_path) == more


def test_a_run_folder_with_other_settings_is_refused_also_where_nothing_is_recorded(tmp_path: Path) -> None:
    config = training.preset("cartpole", "smoke", threads=1, iterations=1)
    training.train(config, tmp_path / "cartpole-trpo-seed0")
    with pytest.raises(training.RunError, match="is there with other settings"):
        training.sweep(tmp_path, ["cartpole"], preset="smoke")
    found = training.sweep(tmp_path, ["cartpole"], preset="smoke", iterations=1)  # this very run, which is complete
    assert [run.state for run in found.runs] == ["complete"]


def test_a_correction_takes_the_place_of_what_could_not_be(tmp_path: Path) -> None:
    flawed = Planned({"task": "walker", "steps_per_iteration": 1}, None, "odd")
    plans.record(tmp_path, [flawed, *planned(["cartpole"])])
    assert [run.task for run in plans.recorded(tmp_path)] == ["cartpole"], "what cannot be is not asked for again"
    plans.record(tmp_path, planned(["walker"]))
    assert [run.task for run in plans.recorded(tmp_path)] == ["cartpole", "walker"]
    assert all(run.config for run in plans.recorded(tmp_path))


def test_what_cannot_be_is_told_when_the_sweep_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = planned(["cartpole", "hopper"], settings={"control_cost": [0.5]}, preset="smoke")
    with _Bar(_Work(tmp_path, runs), progress=True) as bar:
        bar.show()
        bar.show()
    assert capsys.readouterr().err.count("cartpole has no control_cost") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "holds no sweep"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": "trpo-lessons sweep, format 9", "runs": {}}', "its format is"),
        ('{"format": "trpo-lessons sweep, format 1", "runs": {"a": 3}}', "is damaged"),
        ('{"format": "trpo-lessons sweep, format 1", "runs": {"a": {"task": "hoper"}}}', "another version"),
    ],
)
def test_a_folder_without_a_sweep_is_told_in_one_line(text: str | None, told: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(training.RunError, match=told) as caught:
        training.sweep(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_recorded_runs_no_module_unless_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "swept_module.py").write_text("import pathlib; pathlib.Path('it_ran').touch()")
    monkeypatch.chdir(tmp_path)
    task = "gym:swept_module:CartPole-v1"
    runs = {"cartpole-trpo-seed0": {"task": task}, "another": {"task": task}}
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.json").write_text(json.dumps({"format": plans.FORMAT, "runs": runs}))
    with pytest.raises(training.RunError, match="add --trust-module swept_module"):
        training.sweep(out)
    with pytest.raises(training.RunError, match=f"task {task}, here cartpole"):
        training.sweep(out, ["cartpole"], preset="smoke")
    assert not (tmp_path / "it_ran").exists()
    try:
        assert plans.recorded(out, ["swept_module"])[0].task == task
    finally:
        sys.modules.pop("swept_module", None)
    assert (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("kind", ["run", "recorded"])
def test_a_sweep_needs_a_folder_of_its_own(kind: str, tmp_path: Path) -> None:
    out = Path(trpo_lessons.__file__).parent / "zoo" / "a_sweep" if kind == "recorded" else tmp_path
    if kind == "run":
        (out / "config.json").touch()
    with pytest.raises(training.RunError, match="choose another folder"):
        training.sweep(out, ["cartpole"], preset="smoke")
    assert not (out / "sweep.json").exists()


def test_a_run_that_was_killed_before_it_had_settings_can_begin_again(tmp_path: Path) -> None:
    """Between making its folder and writing config.json."""
    folder = RunFolder(tmp_path / "run")
    folder.clear_false_start()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.partial").touch()
    config = training.preset("cartpole", "smoke", iterations=1)
    with pytest.raises(training.RunError, match="another process begins a run in this folder, or was killed"):
        training.train(config, tmp_path / "run")
    folder.clear_false_start()
    training.train(config, tmp_path / "run")
    folder.clear_false_start()
    assert folder.progress() == (1, 256)


# ---- one run ---------------------------------------------------------------------------------------------------------


def job_of(folder: Path, config: training.TrainConfig) -> Job:
    return Job("run", str(folder / "run"), config.to_json(), None, str(folder / "logs" / "run.log"))


def test_what_a_run_fails_with_is_its_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").touch()
    config = training.preset("cartpole", "smoke", iterations=1)
    outcome = perform(job_of(tmp_path, config), lambda: True)
    assert outcome.state == "failed"
    assert outcome.line.endswith("is not empty; choose another folder with --out")


def test_a_run_that_others_have_or_have_completed_needs_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training.preset("cartpole", "smoke", iterations=1, step_budget=256)
    training.train(config, tmp_path / "run")
    monkeypatch.setattr(subprocess, "Popen", None)
    job = job_of(tmp_path, config)
    assert perform(job, lambda: True) == Outcome("complete")
    with RunFolder(tmp_path / "run").locked():
        assert perform(job, lambda: True).state == "busy"
    assert perform(job, lambda: False) == Outcome("stopped")


def test_a_process_that_does_not_answer_is_a_failure_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_process, "PROGRAM", "no_such_module")
    outcome = perform(job_of(tmp_path, training.preset("cartpole", "smoke")), lambda: True)
    assert outcome.state == "failed"
    assert outcome.line.startswith("its process ended with status 1; ")
    assert "No module named no_such_module" in (tmp_path / "logs" / "run.log").read_text()


def test_a_lease_ends_with_whoever_holds_it(tmp_path: Path) -> None:
    with hands._lease(tmp_path) as lease:
        assert lease.holds()
        far = dataclasses.replace(lease, host="another machine")
        assert far.holds()
    assert not lease.holds()
    assert not far.holds()
    Path(lease.path).touch()  # as after SIGKILL: the file is there, its lock is not
    assert not lease.holds()
    assert far.holds(), "locks of another machine may not be seen"


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task=cartpole", "--seeds=4-0"], "'4-0' are no seeds"),
        (["--task=cartpole", "--seeds=0-99999999"], "are no seeds"),
        (["--task=cartpole", "--only=0/4"], "'0/4' is no share"),
        (["--task=cartpole", "--set=seed=1"], "use the option --seeds for it"),
        (["--task=cartpole", "--set=trpo:step_budget=1"], "use the option --step-budget for it"),
        (["--task=cartpole", "--set=delta"], "--set needs NAME=VALUE"),
        (["--seeds=0-4"], "name a task too"),
        ([], "holds no sweep"),
        (["--task=cartpole", "--workers=2", "--on=tcp://127.0.0.1:9"], "a cluster's scheduler has its own"),
    ],
)
def test_what_a_sweep_cannot_do_is_told_in_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", str(tmp_path / "out"), *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_cluster_that_does_not_answer_or_cannot_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    arguments = ["sweep", str(tmp_path), "--task=cartpole", "--preset=smoke", "--on=tcp://127.0.0.1:9"]
    monkeypatch.setattr(hands, "ANSWER_WITHIN", 0.2)
    assert cli.main(arguments) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(arguments) == 2
    assert 'needs the package distributed: pip install "trpo-lessons[cluster]"' in capsys.readouterr().err


def test_values_and_seeds_of_the_command() -> None:
    assert parse_values(["delta=.003,.01", "hidden=8,4", "hidden=", "trpo:fisher-stride=1,2"]) == {
        "delta": [0.003, 0.01],
        "hidden": [(8, 4), ()],
        "trpo:fisher_stride": [1, 2],
    }
    assert Seeds().convert("0-2, 7,1", None, None) == (0, 1, 2, 7)


def test_the_command_skips_what_is_complete_and_shows_means_over_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in planned(["cartpole"], seeds=range(3), settings={"delta": [0.01]}, preset="smoke"):
        assert run.config is not None
        training.train(run.config, tmp_path / run.name)
    words = ["--task=cartpole", "--seeds=0-2", "--set=delta=.01", "--preset=smoke"]
    assert cli.main(["sweep", str(tmp_path), *words]) == 0
    table = capsys.readouterr().out
    returns = [
        float(RunFolder(tmp_path / f"cartpole-trpo-delta=0.01-seed{seed}").rows()[-1]["mean_return"])
        for seed in range(3)
    ]
    error = statistics.stdev(returns) / 3**0.5
    titles, line = table.splitlines()
    assert titles.split() == ["task", "method", "settings", "seeds", "final", "return", "s.e."]
    assert line.split() == [
        "cartpole",
        "trpo",
        "delta=0.01",
        "3",
        "of",
        "3",
        f"{statistics.mean(returns):.1f}",
        "±",
        f"{error:.1f}",
    ]
    assert cli.main(["sweep", str(tmp_path)]) == 0  # what is recorded
    assert capsys.readouterr().out == table
    assert cli.main(["sweep", str(tmp_path), "--only=3/3"]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert cli.main(["sweep", str(tmp_path), "--task=cartpole", "--set=threads=0", "--task=hopper"]) == 2
