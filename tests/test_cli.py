"""The command line: what it prints, what it writes, and one clear line for everything that can go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command

from trpo_lessons import cli, envs, training
from trpo_lessons.cli.arguments import parse_settings
from trpo_lessons.doctor import Finding

SMALL = ("--preset", "smoke", "--iterations", 2, "--steps-per-iteration", 64, "--set=num_envs=4", "--set=threads=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `trpo-lessons train cartpole` was run twice and `train hopper --seed 3` once."""
    folder = tmp_path_factory.mktemp("cli")
    for arguments in (("cartpole",), ("cartpole",), ("hopper", "--seed", 3)):
        outcome = command("train", *arguments, *SMALL, cwd=folder)
        assert outcome.status == 0, outcome.stderr
    return folder


# ---- what works -----------------------------------------------------------------------------------------------------


def test_train_names_a_folder_that_is_free(runs: Path) -> None:
    assert sorted(path.name for path in (runs / "runs").iterdir()) == [
        "cartpole-seed0",
        "cartpole-seed0-2",
        "hopper-seed3",
    ]
    config = json.loads((runs / "runs" / "hopper-seed3" / "config.json").read_text())["settings"]
    assert (config["task"], config["seed"], config["iterations"], config["threads"]) == ("hopper", 3, 2, 1)
    assert config["preset"] == "smoke"


def test_train_shows_progress_and_ends_with_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    outcome = command("train", "hopper", *SMALL, "--out", tmp_path / "a run", cwd=tmp_path)
    assert outcome.status == 0
    (line,) = outcome.stdout.splitlines()
    assert line.startswith(f"'{tmp_path}/a run': 2 iterations, 128 steps, mean return ")
    assert line.endswith(f"; score it with: trpo-lessons evaluate '{tmp_path}/a run'")
    assert "Traceback" not in outcome.stderr
    bar = outcome.stderr.splitlines()[-1]
    for word in ("hopper: 100%", "2/2", "return ", "KL 0.0", "step 0.", "it/s"):
        assert word in bar


def test_a_run_in_which_no_episode_ended_says_so(tmp_path: Path) -> None:
    outcome = command("train", "halfcheetah", *SMALL, cwd=tmp_path)
    assert "128 steps, no episode has ended yet; score it" in outcome.stdout
    assert "nan" not in outcome.stderr


def test_a_gymnasium_environment_is_a_task(tmp_path: Path) -> None:
    assert command("train", "gym:FrozenLake-v1", *SMALL, cwd=tmp_path).status == 0
    resumed = command("resume", "runs/gym-FrozenLake-v1-seed0", "--iterations", 3, cwd=tmp_path)
    assert resumed.status == 0
    told = (
        "gym:FrozenLake-v1 cannot restore its state and begins new episodes; the result will not be the same to the bit"
    )
    assert f"trpo-lessons: {told}\n" in resumed.stderr


def test_settings_are_parsed_as_what_they_are() -> None:
    given = ("gamma=0.9", "hidden=32,16", "value_hidden=", "cg-iterations=7", "chunk_size=none", "delta=1e-3")
    assert parse_settings(given) == {
        "gamma": 0.9,
        "hidden": (32, 16),
        "value_hidden": (),
        "cg_iterations": 7,
        "chunk_size": None,
        "delta": 0.001,
    }
    assert parse_settings(["hidden=(64, 64)", "value_hidden=8"]) == {"hidden": (64, 64), "value_hidden": (8,)}
    for text, value in (("none", None), ("null", None), ('{"slope": 0.5}', {"slope": 0.5}), ("slope", "slope")):
        assert parse_settings([f"env_kwargs={text}"]) == {"env_kwargs": value}


def test_evaluate_prints_the_same_figures_as_json_and_as_text(runs: Path) -> None:
    run = "runs/cartpole-seed0"
    text = command("evaluate", run, "--episodes", 5, "--seed", 2, cwd=runs)
    facts = json.loads(command("evaluate", run, "--episodes", 5, "--seed", 2, "--json", cwd=runs).stdout)
    result = training.evaluate(training.load_run(runs / run), 5, 2)
    assert facts["returns"] == list(result.returns)
    assert facts["lengths"] == list(result.lengths)
    assert (facts["task"], facts["run"], facts["iteration"], facts["seed"]) == ("cartpole", run, 2, 2)
    assert facts["mean_return"] == result.mean
    assert facts["standard_error"] == result.standard_error
    assert text.stdout == (
        "cartpole after 2 iterations, most likely actions, 5 episodes: "
        f"return {result.mean:.1f} ± {result.standard_error:.1f} (standard error), "
        f"from {min(result.returns):.1f} to {max(result.returns):.1f}, "
        f"mean length {sum(result.lengths) / 5:.1f}\n"
    )
    assert (text.stderr, text.status) == ("", 0)


def test_one_episode_has_no_standard_error(runs: Path) -> None:
    text = command("evaluate", "runs/hopper-seed3", "--episodes", 1, cwd=runs).stdout
    assert text.startswith("hopper after 2 iterations, most likely actions, 1 episode: return ")
    assert "±" not in text
    as_json = command("evaluate", "runs/hopper-seed3", "--episodes", 1, "--json", cwd=runs).stdout
    assert json.loads(as_json)["standard_error"] is None


def test_a_time_limit_cuts_episodes(runs: Path) -> None:
    limited = ("--episodes", 3, "--time-limit", 5, "--json")
    facts = json.loads(command("evaluate", "runs/cartpole-seed0", *limited, cwd=runs).stdout)
    assert facts["lengths"] == [5, 5, 5]


def test_resume_goes_on_to_more_iterations(runs: Path) -> None:
    outcome = command("resume", "runs/cartpole-seed0-2", "--iterations", 3, cwd=runs)
    assert outcome.status == 0
    assert outcome.stdout.startswith("runs/cartpole-seed0-2: 3 iterations, 192 steps, mean return ")
    assert "3/3" in outcome.stderr
    assert "not be the same" not in outcome.stderr


def test_help_names_every_command_task_and_preset() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        outcome = command(*arguments)
        assert outcome.status == 0
        for name in ("doctor", "train", "resume", "evaluate", "watch", "bench"):
            assert f"\n  {name} " in outcome.stdout
    help_of_train = command("train", "--help").stdout
    for word in (*envs.TASKS, "gym:ENV_ID", "smoke", "class", "paper", "--set NAME=VALUE", "runs/TASK-seedN"):
        assert word in help_of_train
    assert command("--version").stdout.strip().endswith("0.2.0")


def test_the_package_is_the_command() -> None:
    for arguments, status in (["--version"], 0), (["evaluate", "nowhere"], 2):
        ran = subprocess.run([sys.executable, "-m", "trpo_lessons", *arguments], capture_output=True, check=False)
        assert ran.returncode == status


@pytest.mark.parametrize("own", ["", "3"])
def test_products_of_numpy_keep_to_one_thread_unless_somebody_says_otherwise(own: str) -> None:
    """OpenBLAS reads the variable once, as numpy is imported: until then nothing may have imported it."""
    code = (
        "import os, sys; from trpo_lessons.cli import main; early = 'numpy' in sys.modules; main(['train', '-h']);"
        "print(early, os.environ['OPENBLAS_NUM_THREADS'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OPENBLAS_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": own} if own else {}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.splitlines()[-1] == f"False {own or 1}"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from trpo_lessons.cli import main; main(['train', '-h']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


# ---- what cannot work: one line, status 2 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train hoper", "there is no task 'hoper'; did you mean 'hopper'?"),
        ("train gym:Nope-v1", "there is no task gym:Nope-v1: "),
        (
            "train gym:Blackjack-v1",
            "gym:Blackjack-v1: the observation space Tuple cannot be used; wrap",
        ),
        ("train cartpole --preset clas", "Invalid value for '--preset': 'clas' is not one of 'smoke', 'class'"),
        ("train cartpole --preset paper", "the paper preset has no cartpole; it has barto-cartpole, swimmer, hopper"),
        ("train cartpole --set control_cost=1", "cartpole has no control_cost; tasks that have it: swimmer, hopper"),
        (
            "train cartpole --method trop",
            "Invalid value for '--method': 'trop' is not one of 'trpo', 'natural-gradient'",
        ),
        ("train cartpole --set method=rwr", "--set method=rwr: use the option --method for it"),
        (
            "train cartpole --preset smoke --set vine_states=3",
            "vine_states is read by the vine alone; leave it out, or",
        ),
        ("train pong --method cem --preset paper", "cem cannot find the pong policy's parameters"),
        ("train cartpole --set penalty=2", "trpo has no penalty; methods that have it: natural-gradient"),
        (
            "train cartpole --method natural-gradient --set delta=0.02",
            "natural-gradient has no delta; methods that have",
        ),
        (
            "train hopper --method empirical-fim --sampling vine",
            "empirical-fim learns from the actions taken in every state",
        ),
        ("train cartpole --sampling wine", "Invalid value for '--sampling': 'wine' is not"),
        ("train cartpole --iterations 0", "iterations must be a whole number, at least 1, got 0"),
        ("train cartpole --iterations many", "Invalid value for '--iterations': 'many' is not a valid integer"),
        ("train cartpole --seed -1", "seed must be a whole number from 0 to 2**63 - 1, got -1"),
        ("train cartpole --steps-per-iteration 100", "(100) must be a multiple of num_envs (32)"),
        ("train cartpole --device gpu", "Invalid value for '--device': 'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        ("train cartpole --set gama=0.9", "there is no setting 'gama'; did you mean 'gamma'?"),
        ("train cartpole --set gamma=1.5", "gamma must be at least 0 and below 1, got 1.5"),
        ("train cartpole --set gamma=high", "gamma must be at least 0 and below 1, got 'high'"),
        ("train cartpole --set hidden=64,x", "hidden must be a sequence of layer widths, each at least 1"),
        ("train cartpole --set gamma", "--set needs NAME=VALUE, not 'gamma'"),
        ("train cartpole --set =3", "--set needs NAME=VALUE, not '=3'"),
        ("train cartpole --set seed=3", "--set seed=3: use the option --seed for it"),
        ("train cartpole --set task=hopper", "--set task=hopper: use the argument TASK for it"),
        ("train cartpole --set steps-per-iteration=8", "use the option --steps-per-iteration for it"),
        ("train", "Missing argument 'TASK'. (See trpo-lessons train --help.)"),
        ("train cartpole hopper", "Got unexpected extra argument (hopper)"),
        ("train cartpole --iteration 5", "No such option '--iteration'"),
        ("train cartpole --iterations", "Option '--iterations' requires an argument"),
        ("trian cartpole", "No such command 'trian'"),
        ("resume nowhere", "nowhere is not a run folder (no config.json); name one that train has made"),
        ("resume", "Missing argument 'RUN'"),
        ("evaluate nowhere", "nowhere is not a run folder (no config.json); name one that train has made"),
        ("evaluate nowhere --time-limit 0", "Invalid value for '--time-limit': 0 is not in the range x>=1"),
        ("evaluate nowhere --episodes 0", "Invalid value for '--episodes': 0 is not in the range x>=1"),
    ],
)
def test_what_cannot_work_is_one_line_that_says_what_to_do(arguments: str, message: str, tmp_path: Path) -> None:
    outcome = command(*arguments.split(), cwd=tmp_path)
    assert outcome.status == 2
    assert outcome.stdout == ""
    assert message in outcome.message
    assert len(outcome.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing is begun"


def test_cuda_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "cartpole", "--preset", "smoke", "--device", "cuda"]) == 2
    message = "there is no usable GPU on this machine; use --device cpu or auto"
    assert capsys.readouterr().err == f"trpo-lessons: device cuda: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_cuda_run_without_a_gpu(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = runs / "runs" / "cartpole-seed0" / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    try:
        assert cli.main(["resume", str(path.parent)]) == 2
    finally:
        path.write_text(text)
    assert "no usable GPU on this machine" in capsys.readouterr().err


def test_an_existing_run_is_left_alone(runs: Path) -> None:
    outcome = command("train", "cartpole", *SMALL, "--out", "runs/cartpole-seed0", cwd=runs)
    assert outcome.status == 2
    told = "runs/cartpole-seed0 already holds a run; resume it, or choose another folder with --out"
    assert outcome.message == told


def test_a_damaged_checkpoint(runs: Path, tmp_path: Path) -> None:
    for name in ("config.json", "progress.csv", "checkpoint.safetensors"):
        data = (runs / "runs" / "hopper-seed3" / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-50] if name.startswith("checkpoint") else data)
    for arguments in (("evaluate", tmp_path), ("resume", tmp_path)):
        outcome = command(*arguments)
        assert outcome.status == 2
        assert outcome.message.startswith(f"{tmp_path}/checkpoint.safetensors is damaged (")
        assert outcome.message.endswith("restore it from a copy or start a new run")


def test_a_full_disk_at_the_very_start(tmp_path: Path) -> None:
    outcome = command("train", "cartpole", *SMALL, cwd=tmp_path, file_size=300)
    assert outcome.status == 2
    assert outcome.message == "cannot write runs/cartpole-seed0/config.json (File too large); make room, then resume"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_behind_standard_output_in_a_process_of_its_own(runs: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trpo_lessons", "evaluate", "runs/cartpole-seed0", "--json"],
            cwd=runs, stdout=full, stderr=subprocess.PIPE, text=True, env=_environment(),
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "trpo-lessons: output: No space left on device\n"


def test_an_error_about_a_path_says_what_to_do_and_leaves_standard_output_alone(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["watch", str(runs / "runs" / "cartpole-seed0"), "--seconds", "0.1", "--out", str(tmp_path / "file")]
    assert cli.main(arguments) == 2
    os.write(1, b"whoever called it goes on printing")
    printed, told = capfd.readouterr()
    assert told == f"trpo-lessons: {tmp_path}/file: File exists; choose another folder with --out\n"
    assert printed == "whoever called it goes on printing"


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}


def test_an_error_that_nobody_foresaw_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(training, "evaluate", broken)
    assert cli.main(["evaluate", str(runs / "runs" / "cartpole-seed0")]) == cli.OUR_FAULT
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err


# ---- doctor ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (None, 0), (False, 1)])
def test_the_doctor_fails_only_for_what_the_course_needs(
    ok: bool | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("Python", True, "3.12"), Finding("rendering", ok, "found this", "" if ok else "do that")]
    monkeypatch.setattr("trpo_lessons.doctor.checkup", lambda: findings)
    assert cli.main(["doctor"]) == status
    printed = capsys.readouterr().out
    assert "found this" in printed
    assert ("do that" in printed) == (ok is not True)
