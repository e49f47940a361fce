"""Follow a policy through episodes and note, at the pace of a film, what there is to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from PIL import Image

from trpo_lessons import envs
from trpo_lessons.envs.adapter import PREFIX, GymnasiumVectorEnv
from trpo_lessons.envs.cartpole import CartPoleVectorEnv
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.training import Run, TrainConfig
from trpo_lessons.training.evaluation import SEED_OFFSET, choose_actions
from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.drawing import CartPoleDrawing, RobotDrawing

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


def gymnasium_stage(config: TrainConfig) -> Stage:
    """The stage of a gym: task, which Gymnasium draws itself. Raises ValueError where it does not."""
    env = GymnasiumVectorEnv(config.task.removeprefix(PREFIX), 1, render_mode="rgb_array")
    if "rgb_array" not in env.metadata["render_modes"]:
        raise ValueError("it has no render mode rgb_array")
    control_step = 1 / (env.metadata.get("render_fps") or 30)
    return Stage(env, control_step, lambda: _shrunk(env.render()), lambda picture: picture)


def _shrunk(pictures: tuple[Any, ...] | None) -> NDArray[np.uint8]:
    """The picture of the first copy, [H, W, 3], no larger than the other animations."""
    if not pictures or pictures[0] is None:
        raise ValueError("it draws nothing")
    picture = Image.fromarray(pictures[0]).convert("RGB")
    picture.thumbnail((WIDTH, HEIGHT))
    return np.array(picture)


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
    """The most likely action in every state, until the episode ends or `seconds` are over.

    It starts where an episode of `training.evaluate(run, seed=seed)` does. The very last state is not seen: the step
    that ends an episode starts the next one.
    """
    stride = max(1, round(FRAME_SECONDS / stage.control_step))
    obs, _ = stage.env.reset(seed=SEED_OFFSET + seed)
    moments, score, step, ended = [], 0.0, 0, False
    while not ended and step * stage.control_step < seconds:
        if step % stride == 0:
            moments.append(Moment(step * stage.control_step, score, stage.look()))
        actions = choose_actions(run, obs, stage.env.single_action_space)
        obs, rewards, terminated, truncated, _ = stage.env.step(actions)
        score, step, ended = score + float(rewards[0]), step + 1, bool(terminated[0] or truncated[0])
    return Episode(tuple(moments), stride * stage.control_step, step * stage.control_step, score, ended)
