"""The stage for each kind of task: how to look at it, and what draws it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trpo_lessons import envs
from trpo_lessons.envs.adapter import PREFIX, GymnasiumVectorEnv
from trpo_lessons.envs.cartpole import CartPoleVectorEnv
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.training import TrainConfig
from trpo_lessons.viewing.canvas import HEIGHT, WIDTH
from trpo_lessons.viewing.cartpoles import CartPoleDrawing
from trpo_lessons.viewing.playing import Stage
from trpo_lessons.viewing.robots import RobotDrawing


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
