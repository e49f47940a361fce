"""Swimmer, Hopper, Walker2d and HalfCheetah (Gymnasium's v5), all copies stepped in one native call.

A robot is data (`Robot`): its model file, its constants and one function that says whether it still stands. What the
four have in common is written once, in `MujocoVectorEnv`.

The simulator is `mujoco.batch`: one thread pool, one row of numbers for each copy. A row is MuJoCo's *integration
state*: time, positions, velocities and also `qacc_warmstart`, from which the constraint solver starts. With the warm
start in it, a copy steps exactly as Gymnasium's own loop does, to the bit, on any number of threads, and a saved row
continues to the bit. (`mujoco.rollout`, its elder, takes and returns rows without the warm start.)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from trpo_lessons.envs.base import Bools, Floats, RestorableVectorEnv, State
from trpo_lessons.envs.random_state import Seed
from trpo_lessons.envs.simulator import Batch, mujoco

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
MAX_EPISODE_STEPS = 1000


@dataclass(frozen=True)
class Robot:
    """What makes one robot's task differ from another's; the values are those of Gymnasium's v5 environments.

    The reward of a step is forward velocity (m/s) + healthy_reward - control_cost · |action|².
    """

    name: str
    xml: str
    frame_skip: int  # simulator steps to one control step
    control_cost: float
    reset_noise: float  # half width of the uniform noise on the initial positions and velocities
    hidden_positions: int = 1  # leading coordinates left out of the observation: where the robot is
    velocity_limit: float = np.inf  # observed velocities are clipped to this
    normal_velocity_noise: bool = False  # initial velocities are normal, not uniform
    is_healthy: Callable[[Floats], Bools] | None = None  # (qpos, qvel) [E, nq + nv] -> [E]; None: always
    healthy_reward: float = 0.0
    feet: tuple[str, ...] = ()  # bodies whose impacts on the ground can be penalised


def _hopper_is_healthy(motion: Floats) -> Bools:
    """Above 0.7 m, within 0.2 rad of upright, and no joint angle or velocity beyond 100."""
    magnitudes = np.abs(motion[:, 2:])
    return (motion[:, 1] > 0.7) & (magnitudes[:, 0] < 0.2) & (magnitudes < 100.0).all(axis=1)


def _walker_is_healthy(motion: Floats) -> Bools:
    """Between 0.8 m and 2 m high, and within 1 rad of upright."""
    height = motion[:, 1]
    return (height > 0.8) & (height < 2.0) & (np.abs(motion[:, 2]) < 1.0)


SWIMMER = Robot("swimmer", "swimmer.xml", frame_skip=4, control_cost=1e-4, reset_noise=0.1, hidden_positions=2)
HOPPER = Robot(
    "hopper",
    "hopper.xml",
    frame_skip=4,
    control_cost=1e-3,
    reset_noise=5e-3,
    velocity_limit=10.0,
    is_healthy=_hopper_is_healthy,
    healthy_reward=1.0,
)
WALKER = Robot(
    "walker",
    "walker2d_v5.xml",
    frame_skip=4,
    control_cost=1e-3,
    reset_noise=5e-3,
    velocity_limit=10.0,
    is_healthy=_walker_is_healthy,
    healthy_reward=1.0,
    feet=("foot", "foot_left"),
)
HALFCHEETAH = Robot(
    "halfcheetah",
    "half_cheetah.xml",
    frame_skip=5,
    control_cost=0.1,
    reset_noise=0.1,
    normal_velocity_noise=True,
)
ROBOTS = {robot.name: robot for robot in (SWIMMER, HOPPER, WALKER, HALFCHEETAH)}


class MujocoVectorEnv(RestorableVectorEnv):
    """E copies of a robot. Actions [E, nu] are torques in [-1, 1]; beyond that the motors saturate, the cost does not.

    Observations, rewards, terminations, the limit of 1000 steps and the initial states are Gymnasium's v5, also to the
    bit for the same seed and actions.
    """

    def __init__(
        self,
        robot: Robot,
        num_envs: int,
        *,
        seed: Seed = None,
        threads: int | None = None,
        control_cost: float | None = None,
        impact_cost: float = 0.0,
    ) -> None:
        """threads: None takes one for each processor. The other two change the reward.

        control_cost: instead of the robot's; the paper has 1e-5.
        impact_cost: the paper's walker pays for "strong impacts of the feet against the ground", it does not say how
            much. Here a step costs impact_cost times the sum over the feet of (peak normal force / weight of the
            robot)²; quiet standing gives 0.5 (half of the weight on each foot), a hard landing tens.
        """
        for name, cost in (("control_cost", control_cost), ("impact_cost", impact_cost)):
            if cost is not None and not 0.0 <= cost < np.inf:
                raise ValueError(f"{name} must be 0 or more, not {cost}")
        self.robot = robot
        self.model = load_model(robot, touch=impact_cost > 0.0)
        low, high = self.model.actuator_ctrlrange.T.astype(np.float32)
        observed = self.model.nq + self.model.nv - robot.hidden_positions
        super().__init__(
            robot.name,
            num_envs,
            spaces.Box(-np.inf, np.inf, shape=(observed,), dtype=np.float64),
            spaces.Box(low, high, dtype=np.float32),
            max_episode_steps=MAX_EPISODE_STEPS,
            seed=seed,
        )
        self.batch = Batch(self.model, num_envs, _thread_count(threads, num_envs))
        self._default_row = self.batch.state[0].copy()
        # Views of the simulator's rows: positions and then velocities lie side by side behind the time.
        start = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_TIME.value)
        self._motion = self.batch.state[:, start : start + self.model.nq + self.model.nv]
        self._x = self._motion[:, 0]
        self._ctrl = self.batch.bind("ctrl")
        self.control_step = self.model.opt.timestep * robot.frame_skip  # s
        self._control_cost = robot.control_cost if control_cost is None else control_cost
        self._impact_cost = impact_cost
        self._weight = float(self.model.body_mass.sum() * np.linalg.norm(self.model.opt.gravity))  # N
        self._touch = np.zeros((num_envs, robot.frame_skip, self.model.nsensordata))  # N, each foot and simulator step

    @property
    def positions(self) -> Floats:
        """Generalized positions of every copy, [E, nq]: root coordinates (m, rad), then joint angles (rad)."""
        positions: Floats = self._motion[:, : self.model.nq].copy()
        return positions

    def _physics(self) -> State:
        return {"integration_state": self.batch.state}

    def _reset_rows(self, rows: NDArray[np.intp]) -> None:
        self.batch.state[rows] = self._default_row
        for row in rows:
            self._motion[row] += self._initial_noise(self._generators[row])

    def _initial_noise(self, generator: np.random.Generator) -> Floats:
        """What is added to the resting positions and velocities, [nq + nv], in the order of Gymnasium's draws."""
        noise = self.robot.reset_noise
        positions = generator.uniform(-noise, noise, size=self.model.nq)
        if self.robot.normal_velocity_noise:
            return np.concatenate((positions, noise * generator.standard_normal(self.model.nv)))
        return np.concatenate((positions, generator.uniform(-noise, noise, size=self.model.nv)))

    def _advance(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Bools]:
        x_before = self._x.copy()
        self._ctrl[...] = actions
        self._simulate()
        rewards = (self._x - x_before) / self.control_step
        if self.robot.is_healthy is None:
            terminated = np.zeros(self.num_envs, dtype=np.bool_)
        else:
            healthy = self.robot.is_healthy(self._motion)
            terminated = ~healthy
            rewards += self.robot.healthy_reward * healthy
        # In the precision of the actions, as Gymnasium: the cost of a float32 action is a float32.
        rewards -= self._control_cost * np.square(actions).sum(axis=1)
        if self._impact_cost:
            rewards -= self._impact_cost * np.square(self._touch.max(axis=1) / self._weight).sum(axis=1)
        return self._observe(), rewards, terminated

    def _simulate(self) -> None:
        if not self._impact_cost:
            self.batch.step(self._awake, self.robot.frame_skip)
            return
        # The same steps; an impact can be over before the last of them, so the sensors are read after each.
        awake = slice(None) if self._awake is None else self._awake
        touch = self.batch.rollout(self.robot.frame_skip, record=("sensordata",), ids=self._awake)
        self._touch[awake] = touch["sensordata"]

    def _observe(self) -> Floats:
        obs: Floats = self._motion[:, self.robot.hidden_positions :].copy()
        limit = self.robot.velocity_limit
        if limit < np.inf:
            velocities = obs[:, -self.model.nv :]
            np.minimum(np.maximum(velocities, -limit, out=velocities), limit, out=velocities)
        return obs

    def close_extras(self, **_kwargs: Any) -> None:
        """Stop the threads."""
        del self._motion, self._x, self._ctrl, self.batch


def load_model(robot: Robot, *, touch: bool = False) -> mujoco.MjModel:
    """Compile Gymnasium's own model file; `touch` adds a sensor of the normal force (N) on each of the robot's feet.

    Its half_cheetah.xml has a deprecated attribute, which MuJoCo warns of; nobody here can act on that. Compiled from a
    spec, it is a Python warning; loading the file directly would also start a log file in the working directory.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / robot.xml))
    for foot in robot.feet if touch else ():
        # A touch sensor adds up the contacts of a body inside a volume; this one, in m, encloses the foot.
        spec.body(foot).add_site(name=foot, type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[1.0, 1.0, 1.0])
        spec.add_sensor(type=mujoco.mjtSensor.mjSENS_TOUCH, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=foot)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="compiler attribute")
        return spec.compile()


def _thread_count(threads: int | None, num_envs: int) -> int:
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    return min(threads or os.cpu_count() or 1, num_envs)
