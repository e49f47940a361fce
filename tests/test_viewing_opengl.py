"""Drawing in a process of its own: what works is found, and what crashes, hangs or raises is survived."""

from __future__ import annotations

import operator
import os
import sys
import time

import numpy as np
import pytest

from trpo_lessons.envs.mujoco import ROBOTS, load_model
from trpo_lessons.viewing import HEIGHT, WIDTH, opengl
from trpo_lessons.viewing.own_process import ProcessError, in_own_process


def test_a_result_comes_back_from_another_process() -> None:
    assert in_own_process(divmod, {}, 60, 17, 5) == (3, 2)
    assert in_own_process(os.getpid, {}, 60) != os.getpid()
    assert in_own_process(os.getenv, {"LESSON": "three"}, 60, "LESSON") == "three"
    assert "LESSON" not in os.environ
    assert in_own_process(sorted, {}, 60, [3, 1, 2], reverse=True) == [3, 2, 1]


def test_what_ends_badly_is_one_line() -> None:
    with pytest.raises(ProcessError, match=r"^the process was ended by SIGABRT$"):
        in_own_process(os.abort, {}, 60)
    with pytest.raises(ProcessError, match=r"^division by zero$"):
        in_own_process(operator.truediv, {}, 60, 1, 0)
    with pytest.raises(ProcessError, match=r"^exit status 3$"):
        in_own_process(sys.exit, {}, 60, 3)
    with pytest.raises(ProcessError, match=r"^exit status 0$"):
        in_own_process(sys.exit, {}, 60, 0)
    with pytest.raises(ProcessError, match=r"^no answer within 0.5 s$"):
        in_own_process(time.sleep, {}, 0.5, 60)


def test_a_backend_that_is_asked_for_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def draws(backend: str, _timeout: float) -> bool:
        tried.append(backend)
        return backend == "second"

    monkeypatch.setattr(opengl, "draws", draws)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert opengl.working_backend(["first", "second", "third"]) == "second"
    assert tried == ["first", "second"]
    assert opengl.working_backend(["first"]) is None
    tried.clear()
    monkeypatch.setenv("MUJOCO_GL", "mine")
    assert opengl.working_backend(["first", "second"]) is None
    assert tried == ["mine"]


def test_off_draws_nothing() -> None:
    assert not opengl.draws("off", 60)


@pytest.fixture(scope="module")
def backend() -> str:
    found = opengl.working_backend(timeout=60)
    if not found:
        pytest.skip("this machine has no OpenGL that works without a window")
    return found


def test_robots_are_drawn_and_their_camera_travels_with_them(backend: str) -> None:
    model = load_model(ROBOTS["hopper"])
    positions = np.tile(model.qpos0, (4, 1))
    positions[1, 4] = -1.0  # rad: a bent knee
    positions[2, 0] = 0.13  # m ahead: the floor's pattern shifts
    pictures = opengl.render_robot("hopper", positions, backend)
    assert pictures.shape == (4, HEIGHT, WIDTH, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[0], pictures[3])
    robot = pictures[..., 0] > pictures[..., 1].astype(int) + 20  # it is brown, the floor and the sky are not
    assert 0.005 < robot[0].mean() < 0.2
    assert (robot[0] != robot[1]).mean() > 0.005
    assert (robot[0] != robot[2]).mean() < 0.001, "it stays in the middle"
    assert (pictures[0] != pictures[2]).mean() > 0.02, "and the floor passes by"


def test_a_robot_that_is_not_there_is_one_line(backend: str) -> None:
    with pytest.raises(ProcessError, match="octopus"):
        opengl.render_robot("octopus", np.zeros((1, 3)), backend)
