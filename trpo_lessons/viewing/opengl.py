"""Pictures drawn by MuJoCo itself, where this machine has an OpenGL that works without a window.

MuJoCo chooses its OpenGL when it is imported, and a broken graphics driver ends the process or hangs. So everything
here draws in a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.own_process import ProcessError, in_own_process

BACKENDS = ("cgl", "glfw") if sys.platform == "darwin" else ("egl", "osmesa", "glfw")
OFF = ("disable", "disabled", "off", "false", "0")  # values of MUJOCO_GL by which MuJoCo draws nothing
_BALL = "<mujoco><worldbody><light pos='0 0 2'/><geom size='.5'/></worldbody></mujoco>"


def candidates(backends: Sequence[str] = BACKENDS) -> Sequence[str]:
    """The values of MUJOCO_GL to try: `backends`, or where the variable is set, only what it says."""
    chosen = os.environ.get("MUJOCO_GL")
    return [chosen] if chosen else backends


def working_backend(backends: Sequence[str] = BACKENDS, timeout: float = 20) -> str | None:
    """The first of the candidates with which MuJoCo draws here, within `timeout` seconds each."""
    return next((backend for backend in candidates(backends) if draws(backend, timeout)), None)


def draws(backend: str, timeout: float) -> bool:
    """Whether MuJoCo draws something with MUJOCO_GL=backend, within `timeout` seconds."""
    try:
        return in_own_process(_draws_a_ball, {"MUJOCO_GL": backend}, timeout)
    except ProcessError:
        return False


def render_robot(name: str, positions: NDArray[np.float64], backend: str) -> NDArray[np.uint8]:
    """Pictures [N, H, W, 3] of a robot at `positions` [N, nq], from a camera that travels with it.

    Raises ProcessError when OpenGL lets us down after all.
    """
    patience = 60 + 0.5 * len(positions)  # seconds; a slow machine without a GPU needs a tenth of it
    return in_own_process(_render_robot, {"MUJOCO_GL": backend}, patience, name, positions)


def _draws_a_ball() -> bool:
    import mujoco  # type: ignore[import-untyped]

    model = mujoco.MjModel.from_xml_string(_BALL)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 32, 32) as renderer:
        renderer.update_scene(data)
        return bool(renderer.render().max() > 0)


def _render_robot(name: str, positions: NDArray[np.float64]) -> NDArray[np.uint8]:
    import mujoco

    from trpo_lessons.envs.mujoco import ROBOTS, load_model

    model = load_model(ROBOTS[name])
    data = mujoco.MjData(model)
    pictures = np.empty((len(positions), HEIGHT, WIDTH, 3), dtype=np.uint8)
    with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
        for picture, data.qpos[:] in zip(pictures, positions, strict=True):
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")  # every one of Gymnasium's robots has this camera
            for costly in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[costly] = 0  # without a GPU they take three quarters of the time
            picture[:] = renderer.render()
    return pictures
