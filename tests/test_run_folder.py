"""A run folder holds what it promises, and says in one line what is wrong with it."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import platform
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import at_once, command
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trpo_lessons import cli, training
from trpo_lessons.training.running import checkpoint_file
from trpo_lessons.training.running.run_errors import RunError
from trpo_lessons.training.running.run_folder import RunFolder

SETTINGS: dict[str, Any] = {
    "iterations": 2,
    "steps_per_iteration": 64,
    "num_envs": 4,
    "hidden": (8,),
    "value_hidden": (8,),
    "threads": 1,
    "seed": 7,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    training.train(training.preset("cartpole", "smoke", **SETTINGS), folder)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ---- what it holds --------------------------------------------------------------------------------------------------


def test_config_records_settings_seed_versions_machine_and_threads(finished: Path) -> None:
    text = json.loads((finished / "config.json").read_text())
    settings, environment = text["settings"], text["environment"]
    assert set(settings) == set(training.TrainConfig.__dataclass_fields__) - {"env"}
    assert (settings["task"], settings["seed"], settings["hidden"], settings["gamma"]) == ("cartpole", 7, [8], 0.99)
    assert environment["torch"] == torch.__version__ or torch.__version__.startswith(environment["torch"])
    assert environment["python"] == platform.python_version()
    assert environment["machine"] == platform.machine()
    assert environment["threads"] == 1
    assert {"numpy", "gymnasium", "mujoco", "processor", "system"} <= set(environment)


def test_progress_has_one_row_an_iteration_and_counts_every_step(finished: Path) -> None:
    with open(finished / "progress.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["iteration"] for row in rows] == ["1", "2"]
    assert [row["total_steps"] for row in rows] == ["64", "128"]
    for row in rows:
        assert 0 < float(row["mean_kl"]) <= 0.01
        assert row["reason"] == "accepted"
        assert all(float(row[name]) >= 0 for name in row if name.startswith("seconds_"))
    assert RunFolder(finished).rows() == rows


def test_tensorboard_reads_the_same_numbers(finished: Path) -> None:
    events = EventAccumulator(str(finished))
    events.Reload()
    for name in ("return/mean_return", "update/mean_kl", "value/explained_variance", "wall_time/seconds_simulating"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [64, 128]
        for scalar, row in zip(scalars, RunFolder(finished).rows(), strict=True):
            assert scalar.value == pytest.approx(float(row[name.split("/")[1]]), rel=1e-6)


def test_the_checkpoint_is_plain_tensors_and_theta_is_one_of_them(finished: Path) -> None:
    tensors = load_file(finished / "checkpoint.safetensors")
    run = training.load_run(finished)
    assert tensors["theta"].shape == (run.policy.num_parameters,)
    assert torch.equal(tensors["theta"], run.theta)
    first_bytes = {path.name: path.read_bytes()[:9] for path in finished.iterdir()}
    assert first_bytes["checkpoint.safetensors"].endswith(b"{")
    assert not any(head.startswith((b"\x80", b"PK")) for head in first_bytes.values()), "pickle, or torch's zip of it"


def test_nothing_else_is_left_lying_about(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "events.out.tfevents.0000000000",
        "progress.csv",
    ]


def test_resuming_on_another_machine_is_reported_and_recorded(folder: Path) -> None:
    assert training.differences(folder) == []
    config = json.loads((folder / "config.json").read_text())
    config["environment"] |= {"torch": "1.0", "cma": "2.0", "processor": "abacus", "trpo-lessons": "0.0"}
    del config["environment"]["scipy"]  # as runs of earlier versions have it: there is nothing to report
    (folder / "config.json").write_text(json.dumps(config))

    outcome = command("resume", folder, "--iterations", 3)
    assert outcome.status == 0
    warnings = [line for line in outcome.stderr.splitlines() if "not be the same to the bit" in line]
    assert [line.removeprefix("trpo-lessons: ").split(", is")[0] for line in warnings] == [
        "processor was abacus",
        "trpo-lessons was 0.0",
        "torch was 1.0",
        "cma was 2.0",
    ]

    settings, environment = RunFolder(folder).config()
    assert settings.iterations == 3
    assert environment["torch"] == "1.0"
    assert environment["changes"][0].startswith("from iteration 3: processor was abacus, is ")


# ---- where it cannot be made ----------------------------------------------------------------------------------------


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(training.RunError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def start(out: Path) -> training.Run:
    return training.train(training.preset("cartpole", "smoke", **SETTINGS), out)


def test_an_existing_run_is_not_overwritten(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert refusal(lambda: start(folder)).endswith(
        "already holds a run; resume it, or choose another folder with --out"
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert refusal(lambda: start(tmp_path)) == f"{tmp_path} is not empty; choose another folder with --out"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert start(tmp_path).folder == tmp_path


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert refusal(lambda out=out: start(out)).startswith(f"cannot create {out} (")


SMALL = ("--preset", "smoke", "--iterations", 2, "--set=threads=1")


def test_runs_that_begin_at_the_same_instant_get_folders_of_their_own(tmp_path: Path) -> None:
    outcomes = at_once(*[("train", "cartpole", *SMALL, "--set", f"delta=0.0{i}") for i in (1, 2, 3, 4)], cwd=tmp_path)
    assert [outcome.status for outcome in outcomes] == [0] * 4, outcomes
    folders = [tmp_path / outcome.stdout.split(":")[0] for outcome in outcomes]
    assert sorted(folder.name for folder in folders) == [
        "cartpole-seed0", "cartpole-seed0-2", "cartpole-seed0-3", "cartpole-seed0-4"
    ]  # fmt: skip
    for folder, delta in zip(folders, (0.01, 0.02, 0.03, 0.04), strict=True):
        assert RunFolder(folder).config()[0].delta == delta
        assert len(RunFolder(folder).rows()) == 2


@pytest.mark.parametrize("exists", [False, True])
def test_of_runs_that_begin_in_one_folder_exactly_one_wins_and_it_is_whole(exists: bool, tmp_path: Path) -> None:
    for attempt in range(3):
        out = tmp_path / str(attempt)
        if exists:
            out.mkdir()
        words = [("train", "cartpole", *SMALL, "--out", out, "--set", f"delta=0.0{i}") for i in (1, 2, 3, 4)]
        outcomes = at_once(*words, cwd=tmp_path)
        assert sorted(outcome.status for outcome in outcomes) == [0, 2, 2, 2], outcomes
        winner = next(i for i, outcome in enumerate(outcomes) if outcome.status == 0)
        assert RunFolder(out).config()[0].delta == (winner + 1) / 100
        assert len(RunFolder(out).rows()) == 2
        for outcome in outcomes:
            if outcome.status:
                assert str(out) in outcome.message


def test_where_there_are_no_locks_only_one_can_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two have looked and found the folder empty; the second is refused, whether the first is through or not."""
    monkeypatch.setattr("trpo_lessons.training.running.run_folder._lock", lambda *_: None)
    config = training.preset("cartpole", "smoke", **SETTINGS)
    (tmp_path / ".config.json.partial").touch()
    with (
        pytest.raises(training.RunError, match="another process begins a run in this folder"),
        RunFolder.taken(tmp_path, config),
    ):
        pass
    (tmp_path / ".config.json.partial").unlink()
    with RunFolder.taken(tmp_path, config):
        monkeypatch.setattr(Path, "exists", lambda _: False)
        with pytest.raises(training.RunError, match="is not empty"), RunFolder.taken(tmp_path, config):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "make room, then resume"),
        (errno.EROFS, "it is write-protected: permit it, or copy the run to where you may write, then resume"),
        (errno.EACCES, "it is write-protected"),
        (errno.EIO, "(Input/output error); then resume"),
    ],
)
def test_a_disk_that_refuses_is_told_for_what_it_is(
    number: int, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, _data: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", refused)
    assert told in refusal(lambda: training.resume(folder, iterations=3))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert start(Path("~/run")).folder == tmp_path / "run"
    assert training.load_run("~/run").folder == tmp_path / "run"
    assert cli.main(["evaluate", "~/run", "--episodes", "1"]) == 0
    assert cli.main(["train", "cartpole", *map(str, SMALL), "--out=~/other"]) == 0
    assert (tmp_path / "other" / "config.json").exists()


# ---- what can be wrong with it --------------------------------------------------------------------------------------


def test_two_processes_cannot_train_in_one_folder(folder: Path) -> None:
    with RunFolder(folder).locked():
        outcome = command("resume", folder, "--iterations", 3)
    assert outcome.status == 2
    assert outcome.message == f"another process is training in {folder}; wait for it, or stop it first"
    assert command("resume", folder, "--iterations", 3).status == 0


def test_fewer_iterations_than_are_done_cannot_be_asked_for(folder: Path) -> None:
    message = refusal(lambda: training.resume(folder, iterations=1))
    assert message == f"{folder} has done 2 iterations already; ask for more than that"
    assert RunFolder(folder).config()[0].iterations == 2


@pytest.mark.parametrize("use", [training.load_run, training.resume])
def test_what_is_no_run_folder(use: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert str(path) in (message := refusal(lambda path=path: use(path)))
        assert "is not a run folder (no config.json); name one that train has made" in message


def test_a_run_without_a_checkpoint_can_be_resumed_but_not_loaded(folder: Path) -> None:
    theta, log = training.load_run(folder).theta, folder / "progress.csv"
    (folder / "checkpoint.safetensors").unlink()
    header, first, _ = log.read_text().splitlines(keepends=True)
    for begun in (header + first, header + first[:9], header, header[:9], None):  # where its process may have died
        log.unlink() if begun is None else log.write_text(begun)
        assert refusal(lambda: training.load_run(folder)).endswith("its first iteration has not ended; resume it")
        assert RunFolder(folder).progress() == (0, 0)
    assert torch.equal(training.resume(folder)[0].theta, theta)


@pytest.mark.parametrize(
    "use", [training.load_run, training.resume, lambda folder: training.resume(folder, folder / "new", iterations=9)]
)
def test_a_lost_checkpoint_is_told_and_its_log_is_kept(use: Callable[[Path], object], folder: Path) -> None:
    (folder / "checkpoint.safetensors").unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    told = refusal(lambda: use(folder))
    assert told == f"{folder / 'checkpoint.safetensors'} is missing, and the log has 2 rows; restore it from a copy"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_copy_of_a_run_with_a_damaged_log_is_not_begun(folder: Path, tmp_path: Path) -> None:
    log = folder / "progress.csv"
    log.write_bytes(log.read_bytes()[:-40])
    told = refusal(lambda: training.resume(folder, tmp_path / "copy", iterations=9))
    assert told.startswith(f"{log} is damaged (row 2 is not whole)")
    assert not (tmp_path / "copy").exists()


def test_what_blocks_a_folder_is_named(tmp_path: Path) -> None:
    begun = tmp_path / ".config.json.partial"
    begun.touch()
    told = refusal(lambda: training.train(training.preset("cartpole", "smoke", **SETTINGS), tmp_path))
    assert str(begun) in told
    assert "remove that file" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json is damaged"),
        ('{"format": "trpo-lessons run', "config.json is damaged"),
        ("[1, 2]", "config.json is damaged"),
        ("{}", "config.json is damaged ('format')"),
        ("\xff\xfe", "config.json is damaged"),
        ('{"format": "trpo-lessons run, format 9"}', "was written by another version (trpo-lessons run, format 9)"),
        ('{"format": "trpo-lessons run, format 1"}', "config.json is damaged ('settings')"),
        ('{"format": "trpo-lessons run, format 1", "settings": {}, "environment": {}}', "config.json is damaged"),
    ],
)
@pytest.mark.parametrize("use", [training.load_run, training.resume])
def test_a_damaged_config(use: Callable[[Path], object], text: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert message in refusal(lambda: use(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "tennis"}, "there is no task 'tennis'"),
        ({"gamma": 2.0}, "gamma must be at least 0 and below 1, got 2.0"),
        ({"tea": "yes"}, "there is no setting 'tea'"),
    ],
)
def test_settings_of_another_version(change: dict[str, Any], message: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    told = refusal(lambda: training.load_run(folder))
    assert message in told
    assert "written by another version?" in told


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_text("this is not a checkpoint")


def damage_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damage_pickle(path: Path) -> None:
    torch.save({"theta": torch.zeros(3)}, path)


def header(length: int, text: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(length.to_bytes(8, "little") + text + path.read_bytes()[8 + len(text) :])

    return damage


HEADERS = {
    "longest": header(2**64 - 1, b""),
    "too long for memory": header(2**42, b""),
    "longer than the file": header(2**20, b""),
    "a number": header(1, b"1"),
    "a list": header(2, b"[]"),
    "deep": header(20_000, b"[" * 20_000),
    "tensors without offsets": header(9, b'{"t": {}}'),
    "tensors that are none": header(9, b'{"t":"x"}'),
}


@pytest.mark.parametrize("damage", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize(
    "use",
    [
        training.load_run,
        lambda folder: RunFolder(folder).progress(),
        lambda folder: training.resume(folder, folder / "new", iterations=9),
    ],
    ids=["load_run", "progress", "resume in a copy"],
)
def test_a_damaged_header(use: Callable[[Path], object], damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder / "checkpoint.safetensors")
    assert "checkpoint.safetensors is damaged (" in refusal(lambda: use(folder))


@pytest.mark.parametrize("use", [training.load_run, training.resume])
@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_text, damage_folder, damage_pickle])
def test_a_damaged_checkpoint(use: Callable[[Path], object], damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder / "checkpoint.safetensors")
    rows = (folder / "progress.csv").read_bytes()
    message = refusal(lambda: use(folder))
    assert "checkpoint.safetensors is damaged (" in message
    assert message.endswith("restore it from a copy or start a new run")
    assert (folder / "progress.csv").read_bytes() == rows


def test_one_changed_bit_anywhere_in_a_checkpoint_is_noticed(folder: Path) -> None:
    path, draw = folder / "checkpoint.safetensors", random.Random(0)
    whole = path.read_bytes()
    tensors, facts = RunFolder(folder).load_checkpoint()
    for position in draw.sample(range(len(whole)), 300):
        broken = bytearray(whole)
        broken[position] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        if (noticed := refused(RunFolder(folder).load_checkpoint)) is None:
            # The bit carried nothing, such as white space for padding.
            tensors_now, facts_now = RunFolder(folder).load_checkpoint()
            assert facts_now == facts
            assert all(torch.equal(tensors_now[name], tensor) for name, tensor in tensors.items())
        else:
            assert "is damaged (" in noticed or "is not a checkpoint of this package" in noticed


def refused(action: Callable[[], object]) -> str | None:
    try:
        action()
    except training.RunError as error:
        return str(error)
    return None


@pytest.mark.parametrize("use", [training.load_run, training.resume])
def test_a_checkpoint_of_something_else(use: Callable[[Path], object], folder: Path) -> None:
    save_file({"theta": torch.zeros(3)}, folder / "checkpoint.safetensors")
    assert refusal(lambda: use(folder)).endswith("is not a checkpoint of this package (format: None)")


@pytest.mark.parametrize(
    "other", [{"task": "hopper"}, {"hidden": (9,)}, {"task": "walker", "hidden": (9,)}], ids=["task", "width", "both"]
)
@pytest.mark.parametrize("use", [training.load_run, training.resume])
def test_a_checkpoint_of_another_run(
    use: Callable[[Path], object], other: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    settings = {"task": "cartpole", **SETTINGS, **other}
    training.train(training.preset(settings.pop("task"), "smoke", **settings), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "checkpoint.safetensors", folder)
    rows = (folder / "progress.csv").read_bytes()
    assert refusal(lambda: use(folder)).startswith(f"the checkpoint in {folder} does not fit its config.json (")
    assert (folder / "progress.csv").read_bytes() == rows


@pytest.mark.parametrize("other", [{"num_envs": 8}, {"value_hidden": (9,)}, {"value_hidden": ()}])
def test_a_checkpoint_of_a_run_with_the_same_policy_but_another_trainer(
    other: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    training.train(training.preset("cartpole", "smoke", **{**SETTINGS, **other}), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "checkpoint.safetensors", folder)
    assert "does not fit its config.json" in refusal(lambda: training.resume(folder))


def test_a_checkpoint_with_a_value_function_where_the_settings_have_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["value_hidden"] = []
    (folder / "config.json").write_text(json.dumps(config))
    told = refusal(lambda: training.resume(folder, iterations=4))
    assert told.endswith("does not fit its config.json (it has a value function, and these settings have none)")


# ---- a full disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_while_resuming_loses_nothing(folder: Path, tmp_path: Path) -> None:
    """No file may grow beyond a limit, which is chosen so that each kind of file is the one that cannot be written."""
    whole = tmp_path / "whole"
    training.train(training.preset("cartpole", "smoke", **{**SETTINGS, "iterations": 40}), whole)
    training.resume(folder, iterations=6)  # so that progress.csv is larger than config.json
    size = {path.name.split(".")[0]: path.stat().st_size for path in folder.iterdir()}
    limits = {
        "config": size["config"] - 100,
        "progress": max(size["progress"], size["config"]) + 50,
        "checkpoint": size["checkpoint"] - 100,
        "events": size["checkpoint"] + 2000,
    }
    for kind, limit in limits.items():
        outcome = command("resume", folder, "--iterations", 40, file_size=limit)
        assert outcome.status == 2
        assert outcome.message.startswith(f"cannot write {folder}/{kind}."), kind
        assert outcome.message.endswith(" (File too large); make room, then resume")
        assert training.load_run(folder).iteration >= 2
    assert training.load_run(folder).iteration > 5, "events fail late: iterations until then are kept"

    training.resume(folder, iterations=40)
    assert torch.equal(training.load_run(folder).theta, training.load_run(whole).theta)
    timeless = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in RunFolder(f).rows()] for f in (folder, whole)
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("read", [RunFolder.progress, RunFolder.load_checkpoint])
def test_a_checkpoint_may_be_replaced_while_it_is_read(
    read: Callable[[RunFolder], object], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when a sweep looks how far its runs are. Whoever opened the file twice would read two halves."""
    shutil.copytree(finished, tmp_path / "run")
    folder, checkpoint = RunFolder(tmp_path / "run"), tmp_path / "run" / "checkpoint.safetensors"
    before, opened, replaced = repr(read(folder)), checkpoint_file._opened, []

    def open_and_replace(path: Path) -> io.BufferedIOBase:
        file = opened(path)
        path.with_name("shorter").write_bytes(path.read_bytes()[:100])
        os.replace(path.with_name("shorter"), path)
        replaced.append(path)
        return file

    monkeypatch.setattr(checkpoint_file, "_opened", open_and_replace)
    assert repr(read(folder)) == before
    assert replaced == [checkpoint]


@pytest.mark.parametrize("cut", [1, 1000])
def test_progress_notices_a_checkpoint_that_was_cut(cut: int, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-cut])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors is damaged \("):
        RunFolder(tmp_path / "run").progress()
