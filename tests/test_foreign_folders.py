"""A run folder can come from anybody: it is data, and never runs what it names unasked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium
import pytest
from processes import Outcome, command

from trpo_lessons import training
from trpo_lessons.bench import record
from trpo_lessons.training.running.run_folder import RunFolder

MODULE = """
from pathlib import Path
import gymnasium

Path("was_run").touch()
gymnasium.register("Foreign-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run whose config.json names a module beside it, which leaves a file where it runs. The current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign_module.py").write_text(MODULE)
    training.train(training.preset("gym:foreign_module:Foreign-v0", "smoke", iterations=2, threads=1), "run")
    assert Path("was_run").exists(), "the user has asked for it"
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    sys.modules.pop("foreign_module", None)
    gymnasium.registry.pop("Foreign-v0", None)
    Path("was_run").unlink(missing_ok=True)


USES: dict[str, Callable[..., object]] = {
    "load_run": lambda **trust: training.load_run("run", **trust),
    "resume": lambda **trust: training.resume("run", iterations=3, **trust),
    "differences": lambda **trust: training.differences("run", **trust),
    "record": lambda **trust: record.record(Path("run"), Path("kept"), 1, **trust),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_module_that_a_folder_names_runs_only_when_it_is_trusted(use: Callable[..., object], foreign: Path) -> None:
    for trust in ({}, {"trust_module": "other_module"}):
        with pytest.raises(training.RunError) as refusal:
            use(**trust)
        assert str(refusal.value) == (
            "run would run the Python module 'foreign_module', which its config.json names; if you trust that module, "
            'add --trust-module foreign_module (trust_module="foreign_module" in Python)'
        )
        assert not Path("was_run").exists()
        assert "foreign_module" not in sys.modules
    use(trust_module="foreign_module")
    assert Path("was_run").exists()
    use() if use is not USES["record"] else None  # the program has imported it by now


@pytest.mark.parametrize("words", ["evaluate run", "watch run --seconds 0.2", "resume run --iterations 3"])
def test_the_command_asks_for_an_option(words: str, foreign: Path) -> None:
    def ask(*more: str) -> Outcome:
        return command(*words.split(), *more, cwd=foreign)

    assert "add --trust-module foreign_module (" in ask().message
    assert not Path("was_run").exists()
    assert "trust-module" not in ask("--trust-module", "foreign_module").stderr
    assert Path("was_run").exists()


def test_what_is_no_name_of_a_module_is_told_so(foreign: Path) -> None:
    config = json.loads(Path("run/config.json").read_text())
    for module in ("foreign-module", ".foreign_module", "foreign_module\nx", "a b"):
        config["settings"]["task"] = f"gym:{module}:Foreign-v0"
        Path("run/config.json").write_text(json.dumps(config))
        with pytest.raises(training.RunError, match="is not the name of a module") as refusal:
            RunFolder(Path("run")).config()
        assert "\n" not in str(refusal.value)
    assert not Path("was_run").exists()


def test_a_run_that_stops_says_how_it_goes_on(foreign: Path) -> None:
    told = command("train", "gym:foreign_module:Foreign-v0", "--stop-after", "0.1s", cwd=foreign)
    assert "resume runs/gym-foreign_module-Foreign-v0-seed0 --trust-module foreign_module" in told.message
