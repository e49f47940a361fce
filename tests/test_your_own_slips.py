"""What a newcomer gets wrong in an environment of their own is told in one line: whose it is, where, and what to do."""

from __future__ import annotations

import inspect
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import nbformat
import numpy as np
import pytest
from gymnasium import spaces
from nbclient import NotebookClient
from PIL import Image
from processes import command

from trpo_lessons import training
from trpo_lessons.envs import simulator  # noqa: F401 (its MuJoCo, before a variable is set that names no OpenGL)
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.viewing import watching

CONFIG = training.preset("own:tank", iterations=2, num_envs=2, steps_per_iteration=40, hidden=[4], value_hidden=[4])


class Tank(gymnasium.Env[Any, Any]):
    """A leak of 7.5, a pump of 5 to 10, and a level that should be 50. With `at`, its code raises from that step on."""

    observation_space = spaces.Box(0, 100, shape=(1,))
    action_space = spaces.Box(5, 10, shape=(1,))

    def __init__(self, at: float = math.inf, reward: Any = 0.0) -> None:
        self.at, self.reward, self.steps, self.level = at, reward, 0, 50.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.level = self.np_random.uniform(20, 80)
        return np.array([self.level], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps >= self.at:
            raise ValueError("the pipe burst")
        self.level = float(np.clip(self.level + action[0] - 7.5, 0, 100))
        return np.array([self.level], dtype=np.float32), self.reward, False, self.steps % 10 == 0, {}


HEAD = "import math\nfrom typing import Any\nimport gymnasium\nimport numpy as np\nfrom gymnasium import spaces\n"
MODULE = HEAD + inspect.getsource(Tank)


# ---- what is not an environment --------------------------------------------------------------------------------------


class WithoutSpaces(gymnasium.Env[Any, Any]):
    pass


class WithShape(Tank):
    action_space = (1,)  # type: ignore[assignment]


class OldReset(Tank):
    def reset(self) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return super().reset()


def forgets() -> Any:
    Tank()


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (forgets, "env must make a gymnasium.Env, not None (does the function return it?)"),
        (WithoutSpaces, "its observation_space must be one of gymnasium.spaces, but it has none"),
        (WithShape, "its action_space must be one of gymnasium.spaces, but it has a tuple"),
        (lambda: Tank(leak=3), "unexpected keyword argument 'leak' (" + __file__),  # type: ignore[call-arg]
        (Tank(), "env must be a class or function that makes an environment"),
        (OldReset, "raised TypeError: OldReset.reset() got an unexpected keyword argument 'seed'"),
    ],
)
def test_what_is_no_environment_is_refused_and_leaves_no_folder(env: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(training.SettingError) as caught:
        training.train(CONFIG, tmp_path / "run", env=env)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert "site-packages" not in message, "the line to be mended is not Gymnasium's"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wish", [{"callback": 3}, {"stop_after": "1m"}])
@pytest.mark.parametrize("go_on", [False, True])
def test_wishes_of_another_kind_are_refused_before_anything_is_done(
    wish: dict[str, Any], go_on: bool, tmp_path: Path
) -> None:
    start: Callable[..., Any] = training.resume if go_on else lambda out, **rest: training.train(CONFIG, out, **rest)
    with pytest.raises(training.SettingError, match=f"{next(iter(wish))} must be a .*, or none, got"):
        start(tmp_path / "run", env=Tank, **wish)
    assert not (tmp_path / "run").exists()


# ---- what goes wrong later -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reward", [None, "much", [1.0, 2.0], object()])
def test_a_reward_that_is_no_number_ends_the_run_with_one_line(reward: Any, tmp_path: Path) -> None:
    with pytest.raises(training.RunError, match=r"own:tank: the reward .* is not a number; go on with"):
        training.train(CONFIG, tmp_path / "run", env=lambda: Tank(reward=reward))


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.ones(1), np.array(1, dtype=object)])
def test_numbers_of_any_kind_are_rewards(reward: Any, tmp_path: Path) -> None:
    run = training.train(CONFIG, tmp_path / "run", env=lambda: Tank(reward=reward))
    assert float(RunFolder(run.folder).rows()[-1]["mean_return"]) == 10


def test_a_run_that_learned_nothing_warns_where_it_was_started(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="no update was accepted.*: a reward is not finite") as caught:
        training.train(CONFIG, tmp_path / "run", env=lambda: Tank(reward=math.nan))
    assert [warning.filename for warning in caught] == [__file__]


def test_an_environment_that_fails_while_it_is_played_is_told_in_one_line(tmp_path: Path) -> None:
    training.train(CONFIG, tmp_path / "run", env=Tank)
    fails = training.load_run(tmp_path / "run", env=lambda: Tank(at=3))
    with pytest.raises(
        training.RunError, match=r"own:tank raised ValueError: the pipe burst \(.*, line \d+, in step\)"
    ):
        training.evaluate(fails, 2)
    one = Tank()
    with pytest.raises(training.RunError, match="env must make a new environment at every call"):
        training.evaluate(training.load_run(tmp_path / "run", env=lambda: one), 2)


def test_another_class_is_not_blamed_on_the_files(tmp_path: Path) -> None:
    class Wider(Tank):
        observation_space = spaces.Box(0, 100, shape=(2,))

    run = training.train(CONFIG, tmp_path / "run", env=Tank)
    with pytest.raises(training.RunError, match=r"does not fit its config\.json and what env makes"):
        training.load_run(run.folder, env=Wider)
    with pytest.raises(ValueError, match="not a number"):
        run.act([math.nan])


@pytest.mark.parametrize("where", ["__init__", "reset", "step", "close"])
@pytest.mark.parametrize("status", [0, 3])
def test_an_environment_that_ends_the_program_is_told_in_one_line(where: str, status: int, tmp_path: Path) -> None:
    ends = iter([True])

    def leave(*_: Any, **__: Any) -> Any:
        if next(ends, False):
            sys.exit(status)

    exiting = type("Exiting", (Tank,), {where: leave})
    told = rf"^the environment own:tank raised SystemExit: {status} \(.*{Path(__file__).name}, line \d+, in leave\)"
    with pytest.raises((training.RunError, training.SettingError), match=told) as caught:
        training.train(CONFIG, tmp_path / "run", env=exiting)
    assert "\n" not in str(caught.value)


# ---- what cannot be filmed -------------------------------------------------------------------------------------------

DRAWS: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
PICTURE = np.full((40, 60, 3), 200, dtype=np.uint8)


def painted(metadata: dict[str, Any], drawn: Any) -> Callable[..., Tank]:
    """An environment that knows how to draw itself, or says so."""

    class Painted(Tank):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__()
            self.render_mode = render_mode

        def render(self) -> Any:
            return drawn

    Painted.metadata = metadata
    return Painted


@pytest.fixture(scope="module")
def tank(tmp_path_factory: pytest.TempPathFactory) -> training.Run:
    return training.train(CONFIG, tmp_path_factory.mktemp("tank") / "run", env=Tank)


@pytest.mark.parametrize(
    ("metadata", "drawn", "told"),
    [
        ({}, PICTURE, "it has no render mode rgb_array (in its metadata"),
        ({"render_modes": None}, PICTURE, "it has no render mode rgb_array (in its metadata"),
        ({**DRAWS, "render_fps": "30"}, PICTURE, "render_fps in its metadata must be a number above 0, not '30'"),
        ({**DRAWS, "render_fps": -1}, PICTURE, "render_fps in its metadata must be a number above 0, not -1"),
        ({**DRAWS, "render_fps": math.inf}, PICTURE, "render_fps in its metadata must be a number above 0, not inf"),
        (DRAWS, None, "it draws nothing"),
        (DRAWS, PICTURE / 255, "must return an array of uint8 [height, width, 3], not float64 [40, 60, 3]"),
        (
            DRAWS,
            np.ones((40, 60), np.float32),
            "must return an array of uint8 [height, width, 3], not float32 [40, 60]",
        ),
        (DRAWS, PICTURE.transpose(2, 0, 1), "must return an array of uint8 [height, width, 3], not uint8 [3, 40, 60]"),
        (DRAWS, PICTURE[0, 0], "must return an array of uint8 [height, width, 3], not uint8 [3]"),
        (DRAWS, PICTURE[:0], "must return an array of uint8 [height, width, 3], not uint8 [0, 60, 3]"),
        (DRAWS, PICTURE.tolist(), "must return an array of uint8 [height, width, 3], not a list"),
        (DRAWS, [PICTURE], "must return an array of uint8 [height, width, 3], not a list"),
    ],
)
def test_what_cannot_be_filmed_is_told_in_one_line(
    metadata: dict[str, Any], drawn: Any, told: str, tank: training.Run, tmp_path: Path
) -> None:
    run = training.load_run(tank.folder, env=painted(metadata, drawn))
    with pytest.raises(training.RunError) as caught:
        watching.animate(run, tmp_path, seconds=0.2)
    assert str(caught.value).startswith("own:tank cannot be filmed here: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [30, 12.5, np.float32(20), None, 0])
@pytest.mark.parametrize(
    "drawn", [PICTURE, PICTURE[..., 0], PICTURE[..., [0, 0, 0, 0]], PICTURE[::-1], Image.fromarray(PICTURE)]
)
def test_pictures_of_any_kind_are_filmed(fps: Any, drawn: Any, tank: training.Run, tmp_path: Path) -> None:
    run = training.load_run(tank.folder, env=painted({**DRAWS, "render_fps": fps}, drawn))
    film = watching.animate(run, tmp_path, seconds=0.2)
    assert all((moment.view == PICTURE).all() for moment in film.episodes[0].moments)


# ---- from the shell and in a notebook --------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder with a module of one's own and a short run of it."""
    (tmp_path / "tank.py").write_text(f"{MODULE}\ngymnasium.register('Tank-v0', Tank)\n")
    outcome = command("train", "gym:tank:Tank-v0", "--preset", "smoke", "--out", "run", cwd=tmp_path)
    assert outcome.status == 0, outcome.stderr
    return tmp_path


def test_the_shell_says_what_to_do(beside: Path) -> None:
    def told(*arguments: str) -> str:
        outcome = command(*arguments, cwd=beside)
        assert outcome.status == 2, outcome.stderr
        assert "Traceback" not in outcome.stderr
        return outcome.stderr

    (beside / "exiting.py").write_text("import sys\n\nsys.exit(0)\n")
    exits = f"importing exiting ends with SystemExit: 0 ({beside}/exiting.py, line 3, in <module>)"
    assert exits in told("train", "gym:exiting:Tank-v0", "--preset", "smoke")
    assert "; tank registers Tank-v0" in told("train", "gym:tank:Tink-v0", "--preset", "smoke")
    assert "PYTHONPATH can name its folder" in told("train", "gym:tink:Tank-v0", "--preset", "smoke")
    assert "has no render mode rgb_array" in told("watch", "run", "--trust-module", "tank")
    config = beside / "run" / "config.json"
    config.write_text(config.read_text().replace('"env_kwargs": null', '"env_kwargs": {"at": 2}'))
    assert "raised ValueError: the pipe burst" in told("evaluate", "run", "--trust-module", "tank")
    (beside / "tank.py").rename(beside / "tonk.py")
    config.write_text(config.read_text().replace("gym:tank:", "gym:tonk:").replace('{"at": 2}', "null"))
    assert command("evaluate", "run", "--trust-module", "tonk", cwd=beside).status == 0, "as the page says"


def test_a_notebook_names_the_cell_and_shows_one_line(tmp_path: Path) -> None:
    cells = [MODULE, "from trpo_lessons import training\nconfig = training.preset('own:tank', 'smoke')"]
    cells += ["training.train(config, 'run', env=lambda: Tank(at=3))", "training.resume('run', env=lambda: 1 / 0)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, allow_errors=True, timeout=100, resources={"metadata": {"path": tmp_path}}).execute()
    faults = [output for cell in notebook.cells for output in cell.outputs if output.output_type == "error"]
    assert [fault.ename for fault in faults] == ["RunError", "SettingError"]
    assert all(len(fault.traceback) == 1 and "\n" not in fault.traceback[0] for fault in faults)
    assert "(Cell In[1], line " in faults[0].traceback[0]
    assert "go on with: training.resume('run', env=...)" in faults[0].traceback[0]
    assert "ZeroDivisionError: division by zero (Cell In[4], line 1, in <lambda>)" in faults[1].traceback[0]


# ---- a log that others have saved ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n",
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n").rstrip(b"\r\n"),
    ],
    ids=["ends of lines of Windows", "no last end of a line", "empty lines", "all of it"],
)
def test_ends_of_lines_do_not_matter(saved: Callable[[bytes], bytes], tmp_path: Path) -> None:
    run = training.train(training.preset("cartpole", "smoke", iterations=2), tmp_path / "run")
    log = run.folder / "progress.csv"
    as_it_was = log.read_bytes()
    log.write_bytes(saved(as_it_was))
    training.resume(run.folder, iterations=4)
    assert log.read_bytes().removeprefix(b"\xef\xbb\xbf").startswith(as_it_was)
    assert log.read_bytes().count(b"\n") == len(RunFolder(run.folder).rows_of(4)) + 1
    assert watching.draw_learning_curve(run, tmp_path).exists()


@pytest.mark.parametrize("column", [b"mean_return", b"entropy", b"seconds_value"])
def test_a_renamed_column_is_refused_before_anything_is_computed(
    column: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training.train(training.preset("cartpole", "smoke", iterations=2), tmp_path / "run")
    log = run.folder / "progress.csv"
    log.write_bytes(log.read_bytes().replace(column, b"another"))
    before = {each: each.read_bytes() for each in run.folder.iterdir()}
    monkeypatch.setattr("trpo_lessons.training.running.loop.Trainer.iterate", lambda _: pytest.fail("it is training"))
    with pytest.raises(
        training.RunError, match=rf"other columns than it was written with \(another, {column.decode()}"
    ):
        training.resume(run.folder, iterations=4)
    assert {each: each.read_bytes() for each in run.folder.iterdir()} == before


# ---- without OpenGL --------------------------------------------------------------------------------------------------


def test_the_peer_s_robots_need_no_opengl(tmp_path: Path) -> None:
    fakes = {
        "sb3_contrib.py": "def TRPO(*_, **__): return 'a model'",
        "stable_baselines3/__init__.py": "",
        "stable_baselines3/common/__init__.py": "",
        "stable_baselines3/common/env_util.py": (
            "import gymnasium\ndef make_vec_env(name, n_envs, seed): return gymnasium.make(name)"
        ),
        "stable_baselines3/common/vec_env.py": "def VecNormalize(env, **_): return env",
    }
    for name, source in fakes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    program = "from trpo_lessons.bench.sb3_peer import peer_model; print(peer_model('swimmer', 0))"
    for absent in ("no-such-opengl", "osmesa"):  # the second one is not everywhere
        ended = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"],
            env={**os.environ, "MUJOCO_GL": absent},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.stdout == "a model\n", ended.stderr
