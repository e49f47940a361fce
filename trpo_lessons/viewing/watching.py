"""`trpo-lessons watch`: a learning curve and an animation of a trained policy, as files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trpo_lessons.envs import GAMES, TASKS, UnknownTask, check_task
from trpo_lessons.envs.foreign import EnvironmentFault
from trpo_lessons.envs.mujoco import ROBOTS
from trpo_lessons.training import Run, RunError, load_run
from trpo_lessons.training.running.run_folder import RunFolder, is_recorded
from trpo_lessons.viewing import opengl
from trpo_lessons.viewing.animation import Frame, gif
from trpo_lessons.viewing.learning_curve import learning_curve, logged
from trpo_lessons.viewing.own_process import ProcessError, in_own_process
from trpo_lessons.viewing.playing import Episode, Moment, Stage, game_stage, gymnasium_stage, own_stage, play
from trpo_lessons.viewing.style import png

LAST_PICTURE = 1.0  # s, for which the end of an episode stays to be seen
PATIENCE = 600.0  # s, for a Gymnasium environment to be played and drawn
Pictures = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Animation:
    """A film of some episodes, what drew it, and why nothing better did (empty where there is nothing better)."""

    path: Path
    episodes: tuple[Episode, ...]
    drawn_by: str
    reason: str = ""


def pictures_folder(run: Run) -> Path:
    """Where `watch` writes by itself: the run's folder, or the current one for a run that must stay as it is.

    That is a recorded run of this package, and a folder that cannot be written. Raises RunError (one line) where the
    current folder is such a one too.
    """
    for folder in (run.folder, Path()):
        if not is_recorded(folder) and os.access(folder, os.W_OK):
            return folder
    raise RunError(f"{run.folder} is not written to, and neither is the current folder; name another with --out")


def draw_learning_curve(run: Run, out: Path) -> Path:
    """Draw the run's progress.csv as out/learning_curve.png.

    Raises RunError (one line) when there is no usable progress.csv, and OSError when the disk refuses.
    """
    log = logged(RunFolder(run.folder), run.iteration)
    path = out / "learning_curve.png"
    _write(path, png(learning_curve(run.config, log)))
    return path


def animate(run: Run, out: Path, *, episodes: int = 1, seconds: float = 10.0, seed: int = 0) -> Animation:
    """Film up to `seconds` of each of some episodes in real time, as out/animation.gif.

    A robot is drawn by OpenGL where this machine has it, otherwise by matplotlib. A gym: or own: task draws itself, in
    a process of its own, or in this one where no other knows it, such as a class of a notebook. Episode i starts where
    an episode of `training.evaluate(run, seed=seed + i)` does. The pictures of a minute take half a gigabyte of memory.
    Raises RunError (one line) for an environment that cannot be drawn here, and OSError when the disk refuses.
    """
    film = _film if run.config.task in TASKS else _film_gymnasium
    played, pictures, drawn_by, reason = film(run, seconds, range(seed, seed + episodes))
    path = out / "animation.gif"
    _write(path, gif(list(_frames(run, played, pictures))))
    return Animation(path, tuple(played), drawn_by, reason)


def _film(run: Run, seconds: float, seeds: Sequence[int]) -> tuple[list[Episode], Pictures, str, str]:
    stage = game_stage(run) if run.config.task in GAMES else own_stage(run.config)
    with closing(stage.env):
        played = [play(run, stage, seconds, seed) for seed in seeds]
    views = [moment.view for episode in played for moment in episode.moments]
    if run.config.task in GAMES:
        return played, _drawn(stage, views), "the emulator", ""
    if run.config.task not in ROBOTS:
        return played, _drawn(stage, views), "matplotlib", ""
    backend = opengl.working_backend()
    if not backend:
        reason = f"OpenGL draws nothing with MUJOCO_GL={' or '.join(opengl.candidates())}"
        return played, _drawn(stage, views), "matplotlib", reason
    try:
        return played, list(opengl.render_robot(run.config.task, np.stack(views), backend)), "OpenGL", ""
    except ProcessError as error:  # it drew a ball and then failed; there is another way
        return played, _drawn(stage, views), "matplotlib", f"OpenGL failed: {error}"


def _drawn(stage: Stage, views: Sequence[NDArray[np.float64]]) -> Pictures:
    return [stage.draw(view) for view in views]


def _film_gymnasium(run: Run, seconds: float, seeds: Sequence[int]) -> tuple[list[Episode], Pictures, str, str]:
    try:
        played = _play_elsewhere(run, seconds, seeds) or _play_here(run, seconds, seeds)
    except (ProcessError, EnvironmentFault, ValueError) as error:
        raise RunError(f"{run.config.task} cannot be filmed here: {error}") from error
    return played, [moment.view for episode in played for moment in episode.moments], "Gymnasium", ""


def _play_elsewhere(run: Run, seconds: float, seeds: Sequence[int]) -> list[Episode] | None:
    """In another process, because graphics libraries can take theirs down. None where only this one has the task."""
    if run.config.env is not None:
        return None
    backend = opengl.working_backend()
    environment = {"MUJOCO_GL": backend} if backend else {}
    return in_own_process(_play_if_known, environment, PATIENCE, run.config.task, run.folder, seconds, seeds)


def _play_if_known(task: str, folder: Path, seconds: float, seeds: Sequence[int]) -> list[Episode] | None:
    try:
        check_task(task)
    except UnknownTask:
        return None
    return _play_here(load_run(folder), seconds, seeds)


def _play_here(run: Run, seconds: float, seeds: Sequence[int]) -> list[Episode]:
    stage = gymnasium_stage(run.config)
    with closing(stage.env):
        return [play(run, stage, seconds, seed) for seed in seeds]


def _frames(run: Run, played: Sequence[Episode], pictures: Pictures) -> Iterator[Frame]:
    remaining = iter(pictures)
    for number, episode in enumerate(played, 1):
        for moment in episode.moments:
            seconds = LAST_PICTURE if moment is episode.moments[-1] else episode.frame_seconds
            yield Frame(next(remaining), _caption(run, number, moment), seconds)


def _caption(run: Run, number: int, moment: Moment) -> str:
    facts = [f"{run.config.task}, iteration {run.iteration}, episode {number}:", f"{moment.seconds:.1f} s"]
    if run.config.task in ROBOTS:
        facts.append(f"{moment.view[0]:z.1f} m")  # z: no minus before 0.0
    return "   ".join([*facts, f"return {moment.score:z.0f}"])


def _write(path: Path, data: bytes) -> None:
    # Under another name first: who looks meanwhile sees the old file or the new one, and a full disk leaves no half.
    # And under a name of its own: two may watch at the same time.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
