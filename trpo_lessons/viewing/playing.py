"""Follow a policy through episodes and note, at the pace of a film, what there is to see."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import ale_py
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from PIL import Image

from trpo_lessons import envs
from trpo_lessons.distributions import Categorical, FactoredCategorical
from trpo_lessons.envs.adapter import open_gymnasium
from trpo_lessons.envs.atari import AtariVectorEnv
from trpo_lessons.envs.atari.settings import FRAME_SKIP, Controls
from trpo_lessons.envs.cartpole import CartPoleVectorEnv
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.training import Run, TrainConfig
from trpo_lessons.training.running.acting import choose_actions, distribution_for
from trpo_lessons.training.running.evaluation import PURPOSE, action_generator
from trpo_lessons.training.settings.rules import shown
from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.drawing import CartPoleDrawing, RobotDrawing
from trpo_lessons.viewing.game_drawing import JOYSTICK, Choices, GameDrawing

GAME_STEP = FRAME_SKIP / 60  # s; a television has 60 frames a second
FRAME_SECONDS = 0.04  # 25 pictures a second, or fewer where a control step takes longer


@dataclass(frozen=True)
class Stage:
    """Where a policy is watched.

    env           one copy
    control_step  seconds
    look          what is to be seen now: a robot's positions [nq], a cart-pole's state [4], or a picture [H, W, 3]
    draw          turns that into a picture [H, W, 3]
    """

    env: VectorEnv[Any, Any, Any]
    control_step: float
    look: Callable[[], NDArray[Any]]
    draw: Callable[[NDArray[Any]], NDArray[np.uint8]]


def own_stage(config: TrainConfig) -> Stage:
    """The stage of a robot or a cart-pole, drawn with matplotlib."""
    env = envs.make(config.task, 1, threads=1, **config.task_settings)
    if isinstance(env, CartPoleVectorEnv):
        return Stage(
            env, env.constants.time_step, lambda: env.save_state()["cart_pole"][0], CartPoleDrawing(env.constants)
        )
    assert isinstance(env, MujocoVectorEnv)
    return Stage(env, env.control_step, lambda: env.positions[0], RobotDrawing(env.model))


def game_stage(run: Run) -> Stage:
    """The stage of a game: its screen, and beside it the probabilities that the run's policy gives to each action."""
    env = envs.make(run.config.task, 1, threads=1, **run.config.task_settings)
    assert isinstance(env, AtariVectorEnv)
    drawing = GameDrawing(_choices(env))

    def look() -> NDArray[np.uint8]:
        (screen,) = env.render()
        distribution = distribution_for(run, env.save_state()["frames"])
        assert isinstance(distribution, Categorical | FactoredCategorical)
        factors = distribution.factors if isinstance(distribution, FactoredCategorical) else [distribution]
        return drawing(screen, [factor.log_probs[0].exp().numpy() for factor in factors])

    return Stage(env, GAME_STEP, look, lambda picture: picture)


def _choices(env: AtariVectorEnv) -> Choices:
    if not isinstance(env.single_action_space, spaces.Discrete):
        return JOYSTICK
    codes = Controls(env.task, env.settings.actions).emulator_actions(np.arange(env.single_action_space.n))
    return [[ale_py.Action(code).name.lower() for code in codes]]


def gymnasium_stage(config: TrainConfig) -> Stage:
    """The stage of a gym: or own: task, which draws itself.

    Raises ValueError (one line) where it does not; `look` does where what it draws is no picture.
    """
    unable = "it has no render mode rgb_array (in its metadata, and as an argument render_mode)"
    try:
        env = open_gymnasium(config.task, 1, render_mode="rgb_array", **config.task_settings)
    except ValueError as error:
        if "unexpected keyword argument 'render_mode'" in str(error):
            raise ValueError(unable) from error
        raise
    modes = env.metadata.get("render_modes")
    if not isinstance(modes, Collection) or "rgb_array" not in modes:
        raise ValueError(unable)
    return Stage(env, 1 / _pace(env.metadata), lambda: _shrunk(env.render()), lambda picture: picture)


def _pace(metadata: Mapping[str, Any]) -> float:
    """Control steps in a second."""
    pace = metadata.get("render_fps") or 30
    if isinstance(pace, Real) and 0 < float(pace) < math.inf:
        return float(pace)
    raise ValueError(f"render_fps in its metadata must be a number above 0, not {shown(pace)}")


def _shrunk(pictures: tuple[Any, ...] | None) -> NDArray[np.uint8]:
    """The picture of the first copy, [H, W, 3], no larger than the other animations."""
    if not pictures or pictures[0] is None:
        raise ValueError("it draws nothing")
    picture = _picture(pictures[0]).convert("RGB")
    picture.thumbnail((WIDTH, HEIGHT))
    return np.array(picture)


def _picture(drawn: Any) -> Image.Image:
    array = np.asarray(drawn) if hasattr(drawn, "__array__") or hasattr(drawn, "__array_interface__") else None
    if array is not None and _is_picture(array):
        return Image.fromarray(array)
    got = f"a {type(drawn).__name__}" if array is None else f"{array.dtype} {list(array.shape)}"
    raise ValueError(f"its render must return an array of uint8 [height, width, 3], not {got}")


def _is_picture(array: NDArray[Any]) -> bool:
    """In color, perhaps with a fourth channel that is left out, or grey. PIL takes floats for grey as well, and then a
    film of numbers from 0 to 1 is black.
    """
    has_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    return has_shape and array.dtype == np.uint8 and array.size > 0


@dataclass(frozen=True)
class Moment:
    """One instant of an episode: seconds since it began, the rewards so far, and what `Stage.look` saw."""

    seconds: float
    score: float
    view: NDArray[Any]


@dataclass(frozen=True)
class Episode:
    """What was seen of an episode, a moment every `frame_seconds`; its score in the `seconds` that were watched."""

    moments: tuple[Moment, ...]
    frame_seconds: float
    seconds: float
    score: float
    ended: bool  # or it was left before its end


def play(run: Run, stage: Stage, seconds: float, seed: int) -> Episode:
    """The most likely action in every state, in games a sampled one, until the episode ends or `seconds` are over.

    It starts where an episode of `training.evaluate(run, seed=seed)` does. The very last state is not seen: the step
    that ends an episode starts the next one.
    """
    stride = max(1, round(FRAME_SECONDS / stage.control_step))
    obs = envs.begin_episodes(stage.env, envs.derived_seeds(seed, PURPOSE, 1))
    generator = action_generator(seed) if run.config.task in envs.GAMES else None
    moments, score, step, ended = [], 0.0, 0, False
    while not ended and step * stage.control_step < seconds:
        if step % stride == 0:
            moments.append(Moment(step * stage.control_step, score, stage.look()))
        actions = choose_actions(run, obs, stage.env.single_action_space, generator)
        obs, rewards, terminated, truncated, _ = stage.env.step(actions)
        score, step, ended = score + float(rewards[0]), step + 1, bool(terminated[0] or truncated[0])
    return Episode(tuple(moments), stride * stage.control_step, step * stage.control_step, score, ended)
