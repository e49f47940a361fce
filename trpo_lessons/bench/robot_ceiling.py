"""The ceiling of the robots: how fast MuJoCo goes when nobody looks, and the same robots as environments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from trpo_lessons import envs
from trpo_lessons.envs.mujoco import ROBOTS, MujocoVectorEnv, load_model
from trpo_lessons.envs.simulator import mujoco, rollout
from trpo_lessons.single_path import for_environment, sample_single_path
from trpo_lessons.training import TrainConfig
from trpo_lessons.training.running.loop import Trainer

CEILING_COPIES = 256  # enough to keep every thread busy
BURST = 20  # control steps in a row: long after, robots whose episode would have ended lie on the ground

ControlledBurst = tuple[envs.State, NDArray[Any]]  # where it began, and the controls [E, BURST, nu]


class OpenLoop:
    """MuJoCo's own loop over many copies of a robot, as fast as it goes on so many threads."""

    def __init__(self, task: str, threads: int, stack: ExitStack) -> None:
        robot = ROBOTS[task]
        self._model, self._repeats = load_model(robot), robot.frame_skip
        self._rollout = stack.enter_context(rollout.Rollout(nthread=threads))
        self._data = [mujoco.MjData(self._model) for _ in range(threads)]

    def run(self, states: NDArray[np.float64], controls: NDArray[Any]) -> tuple[int, float]:
        """Control steps, seconds: M rows of MuJoCo's integration state [M, n], each under its controls [M, T, nu]."""
        full = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        every_step = controls.astype(np.float64).repeat(self._repeats, axis=1)
        start = time.perf_counter()
        self._rollout.rollout(self._model, self._data, states[:, :full], every_step)
        return controls.shape[0] * controls.shape[1], time.perf_counter() - start


class RobotCeiling:
    """The same robots in the same states under the same controls: open loop, and as environments.

    What MuJoCo has to compute depends on what the robots do: standing on a leg and pushing off takes a sixth more than
    twitching under random controls. So the controls are those of the policy that is being trained.
    """

    def __init__(self, trainer: Trainer, stack: ExitStack) -> None:
        config = trainer.config
        self._open_loop = OpenLoop(config.task, config.threads, stack)
        # In groups with a thread each, as in training.
        self._envs = [_alone(config, env.num_envs) for env in trainer.sampler.envs]
        for env in self._envs:
            stack.callback(env.close)
        self._threads = stack.enter_context(ThreadPoolExecutor(len(self._envs)))
        self._num_bursts = -(-CEILING_COPIES // config.num_envs)
        self._generator = torch.Generator().manual_seed(0)

    def go_to_where(self, trainer: Trainer) -> None:
        """Follow the policy from where training is, and remember states and controls."""
        self._bursts = [
            _policy_bursts(env, group, trainer, self._num_bursts, self._generator)
            for env, group in zip(self._envs, trainer.sampler.envs, strict=True)
        ]

    def ceiling(self) -> tuple[int, float]:
        """As fast as MuJoCo goes: many copies, all controls known beforehand, nobody looks at the states between.

        A robot that falls is left lying there.
        """
        bursts = [burst for of_group in self._bursts for burst in of_group]
        states = np.concatenate([state["integration_state"] for state, _ in bursts])[:CEILING_COPIES]
        controls = np.concatenate([controls for _, controls in bursts])[:CEILING_COPIES]
        return self._open_loop.run(states, controls)

    def environment(self) -> tuple[int, float]:
        """The same step by step, with observations, rewards and new episodes, but no policy.

        There are fewer copies than in the open loop, so they take one burst after the other. The threads wait for each
        other only at the end.
        """
        start = time.perf_counter()
        list(self._threads.map(_follow, self._envs, self._bursts))
        num_envs = sum(env.num_envs for env in self._envs)
        return BURST * self._num_bursts * num_envs, time.perf_counter() - start


def _alone(config: TrainConfig, num_envs: int) -> MujocoVectorEnv:
    env = envs.make(config.task, num_envs, threads=1, **config.task_settings)
    env.reset(seed=0)
    return cast(MujocoVectorEnv, env)


def _policy_bursts(
    env: MujocoVectorEnv, trained: VectorEnv[Any, Any, Any], trainer: Trainer, count: int, generator: torch.Generator
) -> list[ControlledBurst]:
    """`count` bursts, each from where the one before has ended; the first starts where `trained` is now."""
    torch.set_num_threads(1)
    raw_obs = torch.tensor(env.restore_state(envs.restorable(trained).save_state()))
    bursts = []
    for _ in range(count):
        state = env.save_state()
        path = sample_single_path(env, trainer.pi_old, raw_obs, BURST, generator)
        bursts.append((state, for_environment(path.actions, env.single_action_space).swapaxes(0, 1)))
        raw_obs = path.next_obs
    return bursts


def _follow(env: MujocoVectorEnv, bursts: Sequence[ControlledBurst]) -> None:
    """Take the controls of each burst from the state it began in."""
    for state, controls in bursts:
        env.restore_state(state)
        for t in range(BURST):
            env.step(controls[:, t])
