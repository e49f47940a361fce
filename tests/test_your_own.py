"""The page "Your own environment, your own program" does what it says, block after block."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from processes import Outcome, command

import trpo_lessons
from trpo_lessons import training
from trpo_lessons.training.running.run_folder import RunFolder

PAGE = Path(trpo_lessons.__file__).parent / "YOUR_OWN.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Read:
    """What working through the page has left: the names of its program, what was printed, and the shell's answers."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed: list[str] = []
        self.outcomes: list[Outcome] = []

    def block(self, kind: str, code: str, number: int) -> None:
        if kind == "sh":
            for line in code.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "trpo-lessons"
                self.outcomes.append(command(*arguments, cwd=Path.cwd()))
        elif name := re.match(r"# (\w+\.py)\n", code):
            Path(name[1]).write_text(code)
        else:
            self.names["print"] = lambda *words: self.printed.append(" ".join(map(str, words)))
            exec(compile(code, f"block_{number}.py", "exec"), self.names)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        reader = Read()
        blocks = BLOCK.findall(PAGE.read_text())
        assert len(blocks) == PAGE.read_text().count("```") / 2 >= 8
        for number, (kind, code) in enumerate(blocks):
            assert kind in ("python", "sh")
            reader.block(kind, code, number)
        yield reader
        sys.modules.pop("heater")
        gymnasium.registry.pop("Heater-v0")


def test_the_policy_learns_and_its_own_loop_says_so_too(read: Read) -> None:
    untrained = float(RunFolder(Path("runs/heater")).rows()[0]["mean_return"])
    trained, in_its_loop = float(read.printed[0]), float(read.printed[2])
    assert untrained < -150
    assert trained > -30
    assert in_its_loop > -50


def test_the_callback_ends_its_run(read: Read) -> None:
    iterations, interrupted = read.printed[1].split()
    assert interrupted == "True"
    assert int(iterations) == len(read.names["returns"]) < 40
    assert read.names["returns"][-1] > -100 >= max(read.names["returns"][:-1])


def test_the_run_says_that_it_was_made_by_a_function_and_asks_for_it_again(read: Read) -> None:
    assert '"task": "own:heater"' in Path("runs/heater/config.json").read_text()
    for again in (training.load_run, training.resume):
        with pytest.raises((training.RunError, training.SettingError), match="of yours makes: pass it as env"):
            again("runs/heater")
    assert "pass it as env=" in command("evaluate", "runs/heater", cwd=Path.cwd()).message
    assert training.evaluate(training.load_run("runs/heater", env=read.names["Heater"]), 3).mean < 0
    with pytest.raises(training.SettingError, match="env is for tasks named own:NAME, not for cartpole"):
        training.train(training.preset("cartpole", "smoke"), "runs/no", env=read.names["Heater"])


def test_a_resumed_run_goes_on_and_says_what_differs(read: Read) -> None:
    assert read.printed[3] == "42 ['own:heater cannot restore its state and begins new episodes']"


def test_its_film_moves(read: Read) -> None:
    assert read.printed[4] == "runs/heater/animation.gif"
    views = [moment.view for moment in read.names["film"].episodes[0].moments]
    assert len(views) == 50
    assert any((view != views[0]).any() for view in views)


def test_keyword_arguments_are_stored_and_given_again(read: Read) -> None:
    for folder in ("runs/heater-warmer", "runs/warmer"):
        config, _ = RunFolder(Path(folder)).config()
        assert config.env_kwargs == {"target": 23.0}
    run = training.load_run("runs/warmer")
    warm, cold = (training.evaluate(run, 5).mean, training.evaluate(training.load_run("runs/shell"), 5).mean)
    assert warm != cold


def test_the_shell_finds_the_module_beside_it(read: Read) -> None:
    assert [outcome.status for outcome in read.outcomes] == [0] * 4
    scaled = "actions are scaled: -1 and 1 of the policy are 0 and 3000 of the environment"
    assert scaled in read.outcomes[0].stderr
    assert "drawn by Gymnasium" in read.outcomes[3].stdout


def test_an_error_of_its_own_code_names_the_line_and_the_way_on(read: Read) -> None:
    error, iterations = read.printed[5:]
    assert re.fullmatch(
        r"the environment own:heater raised OSError: the thermometer is frozen \(block_\d+\.py, line 4, in step\); "
        r"go on with: training\.resume\('runs/broken', env=\.\.\.\)",
        error,
    )
    assert iterations == "40"


def test_what_is_registered_in_this_process_only_can_be_filmed_here(read: Read, tmp_path: Path) -> None:
    """As in a notebook. Elsewhere it is unknown, which is nobody's other version."""
    from trpo_lessons.viewing import watching

    gymnasium.register("OnlyHere-v0", lambda render_mode=None: read.names["Heater"](render_mode=render_mode))
    try:
        run = training.train(training.preset("gym:OnlyHere-v0", "smoke", iterations=1), tmp_path / "run")
        film = watching.animate(run, tmp_path, seconds=1)
        assert len(film.episodes[0].moments) == 10
    finally:
        del gymnasium.registry["OnlyHere-v0"]
    told = command("evaluate", tmp_path / "run").message
    assert "there is no task gym:OnlyHere-v0" in told
    assert "name that too: gym:MODULE:OnlyHere-v0" in told
    assert "version" not in told.replace("versioned", "")


class Lever(gymnasium.Env[Any, Any]):
    """Pays for an action near `best` in a box that N(0, 1) does not reach."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))

    def __init__(self, low: float, high: float, best: float) -> None:
        self.action_space = gymnasium.spaces.Box(low, high, (1,))
        self.best, self.width = best, high - low

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.ones(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = -abs(float(action[0]) - self.best) / self.width
        return np.ones(1, dtype=np.float32), reward, False, self.t == 8, {}


@pytest.mark.parametrize(("low", "high", "best"), [(5, 10, 9), (100, 200, 110), (-1e-3, 1e-3, 8e-4), (-1, 1, 0.8)])
def test_a_first_policy_reaches_all_of_its_action_space_and_learns(
    low: float, high: float, best: float, tmp_path: Path
) -> None:
    """The same in every box: what is learned does not depend on where it lies."""
    config = training.preset("own:lever", "smoke", iterations=12, threads=1)
    run = training.train(config, tmp_path / "run", env=lambda: Lever(low, high, best))
    chosen = (run.act(np.ones(1)) - best) / (high - low)
    assert abs(chosen[0]) < 0.12
