"""Robots in motion, drawn in the plane: as a strip of pictures, and as a film in which several of them race.

What moves is a policy, let loose in the simulator while the reader looks. Nothing needs OpenGL.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from trpo_lessons import envs
from trpo_lessons.envs.mujoco import ROBOTS, MujocoVectorEnv, load_model
from trpo_lessons.envs.simulator import mujoco
from trpo_lessons.teaching.pictures import display_film
from trpo_lessons.training import Run
from trpo_lessons.training.running.acting import choose_actions
from trpo_lessons.training.running.evaluation import PURPOSE
from trpo_lessons.viewing.drawing import GROUND, WATER, RobotDrawing, part_colors
from trpo_lessons.viewing.style import BLACK, GREY, PIXELS_PER_INCH, style

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """The beginning of an episode of a robot.

    positions  [n, nq], before the first step and after each; without the step in which it fell, if it did
    actions    [steps, motors], all of them, that step included
    rewards    [steps], likewise
    seconds    of one step
    fell       whether the episode was terminated
    """

    task: str
    positions: Floats
    actions: Floats
    rewards: Floats
    seconds: float
    fell: bool

    @property
    def lasted(self) -> float:
        """How many seconds there are to be seen."""
        return (len(self.positions) - 1) * self.seconds

    @property
    def distance(self) -> float:
        """How far it came along x, in m."""
        return float(self.positions[-1, 0] - self.positions[0, 0])

    def at(self, time: float) -> Floats | None:
        """Positions [nq] after so many seconds; None where the episode is over by then."""
        step = round(time / self.seconds)
        return self.positions[step] if step < len(self.positions) else None

    @property
    def word(self) -> str:
        """How it ended."""
        return "fell" if self.fell else "over"


def act_out(run: Run, seconds: float = 3.0, seed: int = 0) -> Scene:
    """The most likely actions for so many seconds of the robot's time, or until it falls.

    It starts where an episode of `training.evaluate(run, seed=seed)` does.
    """
    with _one_robot(run) as env:
        return _follow(env, run, round(seconds / env.control_step), seed)


def first_steps(run: Run, steps: int, seed: int = 0) -> Scene:
    """The same for so many steps; of 1000 the last is cut by the clock, and the state after it is not to be had."""
    with _one_robot(run) as env:
        return _follow(env, run, steps, seed)


@contextmanager
def _one_robot(run: Run) -> Iterator[MujocoVectorEnv]:
    with closing(envs.make(run.config.task, 1, threads=1, **run.config.task_settings)) as env:
        assert isinstance(env, MujocoVectorEnv)
        yield env


def _follow(env: MujocoVectorEnv, run: Run, steps: int, seed: int) -> Scene:
    obs = envs.begin_episodes(env, envs.derived_seeds(seed, PURPOSE, 1))
    positions, taken, rewards, fell = [env.positions[0]], [], [], False
    for _ in range(steps):
        actions = choose_actions(run, obs, env.single_action_space)
        obs, reward, terminated, truncated, _ = env.step(actions)
        taken.append(actions[0])
        rewards.append(float(reward[0]))
        fell = bool(terminated[0])
        if fell or truncated[0]:  # what is there now is the next episode
            break
        positions.append(env.positions[0])
    columns = np.array(positions), np.array(taken, dtype=np.float64), np.array(rewards)
    return Scene(run.config.task, *columns, env.control_step, fell)


class Figures:
    """The outlines of a robot's parts, as it stands or lies at given positions.

    frame  (width, bottom, top) of one picture of a strip, in m
    """

    def __init__(self, task: str) -> None:
        model = load_model(ROBOTS[task])
        self._drawing = RobotDrawing(model)
        self.swims = bool(model.opt.viscosity > 0)
        self.colors = part_colors(model, np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE))
        self.frame = (3.5, -1.3, 1.3) if self.swims else (1.75, -0.1, 1.35 if task == "halfcheetah" else 1.95)

    def parts(self, positions: Floats) -> list[Floats]:
        """[corners, 2] of each part, in m."""
        return self._drawing.outlines(positions)

    def add(self, axes: Axes, parts: Sequence[Floats], width: float = 0.7) -> PolyCollection:
        """Draw them on axes; the collection can be given other outlines later."""
        drawn = PolyCollection(parts, facecolors=self.colors, edgecolors=BLACK, linewidths=width, zorder=2)
        axes.add_collection(drawn, autolim=False)
        return drawn


def draw_strip(axes: Axes, scene: Scene, figures: Figures, shown: int = 9, seconds: float = 2.0) -> None:
    """Pictures side by side, from the beginning to `seconds`, each with its time and how far the robot has come.

    The robot is in the middle of each; what lies between two pictures is written below, not drawn. The first picture
    after the end shows, pale, how it ended.
    """
    width, bottom, top = figures.frame
    label = 0.28 * (top - bottom)
    for i, time in enumerate(np.linspace(0.0, seconds, shown)):
        positions = scene.at(float(time))
        if positions is not None:
            _draw_moment(axes, scene, figures, i * width, float(time), positions)
        elif scene.at(float(time) - seconds / (shown - 1)) is not None:
            _draw_moment(axes, scene, figures, i * width, scene.lasted, scene.positions[-1], scene.word)
        else:
            axes.text(i * width, (bottom + top) / 2, scene.word, ha="center", fontsize=9, color=GREY)
    limits = {"xlim": (-0.6 * width, (shown - 0.4) * width), "ylim": (bottom - label, top)}
    axes.set(**limits, xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    if not figures.swims:
        axes.axhline(0, color=GREY, linewidth=1, linestyle="-", zorder=1)


def _draw_moment(
    axes: Axes, scene: Scene, figures: Figures, middle: float, time: float, positions: Floats, word: str = ""
) -> None:
    parts = figures.parts(positions)
    across, up = (np.concatenate(parts).max(0) + np.concatenate(parts).min(0)) / 2
    move = np.array([middle - across, -up if figures.swims else 0.0])
    drawn = figures.add(axes, [part + move for part in parts])
    if word:
        drawn.set_alpha(PALE)
    told = f"{word} {time:.1f} s".strip() + f"\n{positions[0] - scene.positions[0, 0]:z.1f} m"
    axes.text(middle, figures.frame[1], told, ha="center", va="top", fontsize=8)


PALE = 0.35  # of a robot whose episode is over
FRAMES_PER_SECOND = 10  # a GIF counts in hundredths of a second
LAST_PICTURE = 2000  # ms
COLORS = 24
LANE = {"swimmer": (-1.3, 1.3), "hopper": (-0.15, 1.9), "walker": (-0.15, 1.9), "halfcheetah": (-0.15, 1.5)}  # m
WIDTH = 8.4  # inches


class Race:
    """Robots of one kind, each in a lane of its own, and all on the same scale. Who falls is gray from then on.

    A swimmer that would leave its lane sideways glides along the edge, so that it is seen all the way.
    """

    def __init__(self, scenes: Mapping[str, Scene], meters: float) -> None:
        (task,) = {scene.task for scene in scenes.values()}
        self._figures, self._scenes = Figures(task), scenes
        bottom, top = LANE[task]
        near, far = -2.0 if self._figures.swims else -1.2, meters
        share = 1 / len(scenes)
        self.figure = Figure(figsize=(WIDTH, len(scenes) * WIDTH * (top - bottom) / (far - near)), dpi=PIXELS_PER_INCH)
        self._canvas = FigureCanvasAgg(self.figure)
        self._robots: dict[str, PolyCollection] = {}
        for i, (name, scene) in enumerate(scenes.items()):
            axes = self.figure.add_axes((0, 1 - (i + 1) * share, 1, share))
            axes.set(xlim=(near, far), ylim=(bottom, top), xticks=[], yticks=[])
            axes.set_facecolor(WATER if self._figures.swims else "white")
            axes.spines[:].set_visible(False)
            axes.spines["bottom"].set_visible(True)
            if not self._figures.swims:
                axes.axhspan(bottom, 0, color=GROUND, zorder=0)
            marks = range(int(np.ceil(near)), int(far) + 1)
            axes.vlines(marks, bottom, bottom + 0.06 * (top - bottom), color=GREY, linewidth=0.8)
            axes.text(near + 0.1, top - 0.03 * (top - bottom), f" {name}", va="top", fontsize=10)
            self._robots[name] = self._figures.add(axes, self._figures.parts(scene.positions[0]))
            self._robots[name].set_animated(True)
        self._clock = self.figure.text(0.99, 0.99, "", ha="right", va="top", fontsize=10, animated=True)
        self._draw_background()

    def _draw_background(self) -> None:
        self._canvas.draw()  # type: ignore[no-untyped-call]
        self._background = self._canvas.copy_from_bbox(self.figure.bbox)  # type: ignore[no-untyped-call]

    def pixels(self, time: float) -> NDArray[np.uint8]:
        """The picture [H, W, 3] after so many seconds; ask for later and later ones."""
        for name, scene in self._scenes.items():
            positions, robot = scene.at(time), self._robots[name]
            if positions is not None:
                robot.set_verts(self._in_lane(self._figures.parts(positions), scene.task))
            elif robot.get_animated():  # in its last pose it is a part of the background from now on
                self._lay_down(robot, scene)
        self._canvas.restore_region(self._background)  # type: ignore[no-untyped-call]
        for robot in self._robots.values():
            if robot.get_animated():
                robot.axes.draw_artist(robot)  # type: ignore[union-attr]
        self._clock.set_text(f"{time:.1f} s")
        self.figure.draw_artist(self._clock)
        return np.array(self._canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]

    def _in_lane(self, parts: list[Floats], task: str) -> list[Floats]:
        if not self._figures.swims:
            return parts
        (bottom, top), sides = LANE[task], np.concatenate(parts)[:, 1]
        move = np.array([0.0, max(0.0, bottom - sides.min()) - max(0.0, sides.max() - top)])
        return [part + move for part in parts]

    def _lay_down(self, robot: PolyCollection, scene: Scene) -> None:
        robot.set(animated=False, alpha=PALE)
        x, y = scene.positions[-1, 0] + 0.7, np.mean(LANE[scene.task])
        robot.axes.text(x, y, f"{scene.word} after {scene.lasted:.1f} s", fontsize=10)  # type: ignore[union-attr]
        self._draw_background()


def race(scenes: Mapping[str, Scene], meters: float, pace: float = 1.0) -> tuple[bytes, bytes]:
    """A film of robots of one kind, as GIF, and its last picture, as PNG.

    meters: how much of the way is seen, from a little behind the start.
    pace: seconds of the robots for one of ours.
    """
    with style():
        running, last = Race(scenes, meters), max(scene.lasted for scene in scenes.values())
        times = np.arange(0.0, last + 1e-9, pace / FRAMES_PER_SECOND)
        frames = [Image.fromarray(running.pixels(float(time))) for time in times]
    # Few colors, the same for all frames: small, and nothing flickers.
    palette = frames[-1].quantize(COLORS, dither=Image.Dither.NONE)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    film, still = io.BytesIO(), io.BytesIO()
    durations = [round(1000 / FRAMES_PER_SECOND)] * len(others) + [LAST_PICTURE]
    first.save(film, "gif", save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
    frames[-1].quantize(COLORS, dither=Image.Dither.NONE).save(still, "png", optimize=True)
    return film.getvalue(), still.getvalue()


def show_race(scenes: Mapping[str, Scene], alt: str, meters: float, pace: float = 1.0) -> None:
    """Show a film of robots of one kind in a notebook."""
    display_film(*race(scenes, meters, pace), alt, round(WIDTH * PIXELS_PER_INCH))
