"""`trpo-lessons watch`: a learning curve and an animation of a trained policy, as files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trpo_lessons.envs.adapter import PREFIX
from trpo_lessons.envs.mujoco import ROBOTS
from trpo_lessons.training import Run, RunError, load_run
from trpo_lessons.training.run_folder import RunFolder
from trpo_lessons.viewing import opengl
from trpo_lessons.viewing.animation import Frame, save_gif
from trpo_lessons.viewing.files import write_whole
from trpo_lessons.viewing.learning_curve import learning_curve
from trpo_lessons.viewing.own_process import ProcessError, in_own_process
from trpo_lessons.viewing.playing import Episode, Moment, play
from trpo_lessons.viewing.stages import gymnasium_stage, own_stage
from trpo_lessons.viewing.style import png

LAST_PICTURE = 1.0  # s, for which the end of an episode stays to be seen
PATIENCE = 600.0  # s, for a Gymnasium environment to be played and drawn


class CannotDraw(Exception):  # noqa: N818 (it is named for what happened)
    """Nothing here can draw this task; the message is one line that says why."""


@dataclass(frozen=True)
class Animation:
    """A film of some episodes, and what drew it."""

    path: Path
    episodes: tuple[Episode, ...]
    drawn_by: str


def draw_learning_curve(run: Run, out: Path) -> Path:
    """Draw the run's progress.csv as out/learning_curve.png. Raises RunError (one line) when there is nothing in it."""
    rows = RunFolder(run.folder).rows()[: run.iteration]  # a later one may be half written
    if not rows:
        raise RunError(f"{run.folder} has no progress.csv, so there is no learning curve; restore it from a copy")
    path = out / "learning_curve.png"
    write_whole(path, png(learning_curve(run.config, rows)))
    return path


def animate(run: Run, out: Path, *, episodes: int = 1, seconds: float = 10.0, seed: int = 0) -> Animation:
    """Film up to `seconds` of each of some episodes in real time, as out/animation.gif.

    A robot is drawn by OpenGL where this machine has it, otherwise by matplotlib. Episode i starts where episode i of
    `training.evaluate(run, seed=seed)` does. Raises CannotDraw (one line) for a Gymnasium environment that Gymnasium
    cannot draw here.
    """
    seeds = range(seed, seed + episodes)
    if run.config.task.startswith(PREFIX):
        played, pictures, drawn_by = _film_gymnasium(run, seconds, seeds)
    else:
        played, pictures, drawn_by = _film(run, seconds, seeds)
    path = out / "animation.gif"
    save_gif(path, list(_frames(run, played, pictures)))
    return Animation(path, tuple(played), drawn_by)


def _film(run: Run, seconds: float, seeds: Sequence[int]) -> tuple[list[Episode], list[NDArray[np.uint8]], str]:
    stage = own_stage(run.config)
    with closing(stage.env):
        played = [play(run, stage, seconds, seed) for seed in seeds]
    views = [moment.view for episode in played for moment in episode.moments]
    backend = opengl.working_backend() if run.config.task in ROBOTS else None
    if backend:
        try:
            return played, list(opengl.render_robot(run.config.task, np.stack(views), backend)), "OpenGL"
        except ProcessError:
            pass  # it drew a ball and then failed; there is another way
    return played, [stage.draw(view) for view in views], "matplotlib"


def _film_gymnasium(
    run: Run, seconds: float, seeds: Sequence[int]
) -> tuple[list[Episode], list[NDArray[np.uint8]], str]:
    backend = opengl.working_backend()
    environment = {"MUJOCO_GL": backend} if backend else {}
    try:
        played = in_own_process(_play_gymnasium, environment, PATIENCE, run.folder, seconds, seeds)
    except ProcessError as error:
        raise CannotDraw(f"{run.config.task} cannot be drawn here: {error}") from error
    return played, [moment.view for episode in played for moment in episode.moments], "Gymnasium"


def _play_gymnasium(folder: Path, seconds: float, seeds: Sequence[int]) -> list[Episode]:
    run = load_run(folder)
    stage = gymnasium_stage(run.config)
    with closing(stage.env):
        return [play(run, stage, seconds, seed) for seed in seeds]


def _frames(run: Run, played: Sequence[Episode], pictures: Sequence[NDArray[np.uint8]]) -> Iterator[Frame]:
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
