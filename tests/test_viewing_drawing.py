"""What is drawn stands where the simulator says it is."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from trpo_lessons import envs
from trpo_lessons.envs.barto_cartpole import BartoCartPole
from trpo_lessons.envs.mujoco import ROBOTS, load_model
from trpo_lessons.viewing import HEIGHT, WIDTH
from trpo_lessons.viewing.drawing import CART, CartPoleDrawing, RobotDrawing, part_colors
from trpo_lessons.viewing.style import BLUE, GREY, ORANGE, VERMILION

Floats = NDArray[np.float64]


def poses(task: str, count: int) -> Floats:
    """Positions [count, nq] that the robot itself takes under random actions."""
    env = envs.make(task, count, seed=3, threads=1)
    env.reset()
    env.action_space.seed(0)
    for _ in range(8):
        env.step(env.action_space.sample())
    positions: Floats = env.positions  # type: ignore[attr-defined]
    return positions


def hits(model: mujoco.MjModel, positions: Floats, points: Floats, swims: bool) -> NDArray[np.bool_]:
    """Whether MuJoCo's own ray, seen as the drawing is seen, meets a part of the robot at each of `points` [N, 2]."""
    data = mujoco.MjData(model)
    data.qpos[:] = positions
    mujoco.mj_forward(model, data)
    found = np.full(1, -1, dtype=np.int32)
    results = []
    for across, up in points:
        origin, direction = ([across, up, 9.0], [0.0, 0, -1]) if swims else ([across, -9.0, up], [0.0, 1, 0])
        mujoco.mj_ray(model, data, np.array(origin), np.array(direction), None, 1, -1, found, None)
        results.append(found[0] >= 0 and model.geom_type[found[0]] != mujoco.mjtGeom.mjGEOM_PLANE)
    return np.array(results)


@pytest.mark.parametrize("task", list(ROBOTS))
def test_outlines_are_what_the_simulators_own_rays_meet(task: str) -> None:
    """Half the points are drawn close to an outline, where a wrong radius, length or angle shows."""
    model, rng = load_model(ROBOTS[task]), np.random.default_rng(0)
    drawing = RobotDrawing(model)
    for positions in poses(task, 3):
        outlines = drawing.outlines(positions)
        corners = np.concatenate(outlines)
        low, high = corners.min(axis=0) - 0.1, corners.max(axis=0) + 0.1
        near = rng.choice(corners, 600) + 0.04 * rng.standard_normal((600, 2))
        points = np.concatenate((rng.uniform(low, high, (600, 2)), near))
        drawn = np.any([Outline(outline, closed=False).contains_points(points) for outline in outlines], axis=0)
        met = hits(model, positions, points, swims=task == "swimmer")
        assert 0.1 < met.mean() < 0.8, "the test looks at both sides"
        assert np.mean(drawn != met) < 0.01, "twelve corners are not quite a half circle; nothing else may differ"


@pytest.mark.parametrize("task", list(ROBOTS))
def test_every_part_is_drawn(task: str) -> None:
    model = load_model(ROBOTS[task])
    assert len(RobotDrawing(model).outlines(poses(task, 1)[0])) == model.ngeom - 1, "all but the floor"


def test_one_color_for_the_torso_and_one_for_each_limb() -> None:
    model = load_model(ROBOTS["walker"])
    parts = np.arange(1, model.ngeom)
    colors = dict(zip([model.geom(part).name for part in parts], part_colors(model, parts), strict=True))
    assert colors["torso_geom"] == GREY
    right = {color for name, color in colors.items() if name != "torso_geom" and "left" not in name}
    left = {color for name, color in colors.items() if "left" in name}
    assert (len(right), len(left)) == (1, 1)
    assert right | left == {BLUE, ORANGE}


def test_pixels_have_the_colors_of_the_parts_that_are_there() -> None:
    """Of the part that is drawn last and hides the others; the picture's middle is the robot's center of mass."""
    model = load_model(ROBOTS["walker"])
    drawing = RobotDrawing(model)
    color = part_colors(model, np.arange(1, model.ngeom))[-1]
    for positions in poses("walker", 3):
        positions[0] += 40.0  # far along the track
        picture = drawing(positions)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert picture.dtype == np.uint8
        data = mujoco.MjData(model)
        data.qpos[:] = positions
        mujoco.mj_forward(model, data)
        meter = WIDTH / 3.9
        across, _, up = data.geom_xpos[-1]
        column = WIDTH / 2 + (across - data.subtree_com[0, 0]) * meter
        row = HEIGHT - (up + 0.5) * meter
        assert_color(picture, row, column, color)


def test_a_robot_that_moved_is_another_picture_and_the_same_robot_the_same() -> None:
    drawing = RobotDrawing(load_model(ROBOTS["hopper"]))
    first, second = poses("hopper", 2)
    bent, again = drawing(first), drawing(first)
    np.testing.assert_array_equal(bent, again)
    assert (bent != drawing(second)).any()
    ahead = first.copy()
    ahead[0] += 0.3
    assert (bent != drawing(ahead)).any(), "the camera travels along, the marks on the ground do not"


def test_only_capsules_can_be_drawn() -> None:
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='.5'/></worldbody></mujoco>")
    with pytest.raises(ValueError, match="only robots made of capsules"):
        RobotDrawing(model)


# ---- cart-poles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [(0.0, 0.0, 0.0, 0.0), (-1.5, 2.0, 0.2, 1.0), (2.3, 0.0, -0.2, 0.0)])
def test_the_pole_stands_on_the_cart_at_its_angle(state: tuple[float, ...]) -> None:
    constants = BartoCartPole(1).constants
    drawing = CartPoleDrawing(constants)
    across, up = drawing.pole(np.array(state))
    x, _, angle, _ = state
    assert np.hypot(np.diff(across), np.diff(up)) == pytest.approx(2 * constants.half_length)
    assert (across[0], up[0]) == (x, CART[1])
    assert np.diff(across) / np.diff(up) == pytest.approx(np.tan(angle)), "an angle above 0 leans to the right"
    picture = drawing(np.array(state))
    meter = WIDTH / 5.6
    ground = HEIGHT - 0.9 * meter  # row
    assert_color(picture, ground - CART[1] / 2 * meter, WIDTH / 2 + x * meter, BLUE)
    assert_color(picture, ground - up.mean() * meter, WIDTH / 2 + across.mean() * meter, ORANGE)
    for end in (-2.4, 2.4):
        assert_color(picture, ground - 2, WIDTH / 2 + end * meter, VERMILION)


def test_the_side_it_leans_to_is_the_side_it_falls_to() -> None:
    env = envs.make("barto-cartpole", 1, seed=0)
    env.reset()
    state = env.save_state()  # type: ignore[attr-defined]
    state["cart_pole"][0] = (0.0, 0.0, 0.05, 0.0)
    env.restore_state(state)  # type: ignore[attr-defined]
    drawing = CartPoleDrawing(env.constants)  # type: ignore[attr-defined]
    leaning = []
    for _ in range(15):
        across, _ = drawing.pole(env.save_state()["cart_pole"][0])  # type: ignore[attr-defined]
        leaning.append(across[1] - across[0])
        env.step(np.zeros((1, 1), dtype=np.float32))
    assert leaning[0] > 0
    assert (np.diff(leaning[1:]) > 0).all()


def assert_color(picture: NDArray[np.uint8], row: float, column: float, color: str) -> None:
    np.testing.assert_allclose(picture[int(row), int(column)], 255 * np.array(to_rgb(color)), atol=2)
