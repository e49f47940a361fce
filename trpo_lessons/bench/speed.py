"""How fast training is, in units that mean something: the simulator's ceiling, a gradient, and sb3-contrib.

Machines are noisy, and their noise lasts for seconds. So everything is measured for a moment, again and again in turns,
and what is compared was measured side by side: each round gives ratios of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import mujoco  # type: ignore[import-untyped]
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from mujoco import rollout
from numpy.typing import NDArray

from trpo_lessons import envs
from trpo_lessons.bench.peer_process import PeerError, PeerProcess
from trpo_lessons.envs.mujoco import ROBOTS, MujocoVectorEnv, load_model
from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.policies import Policy
from trpo_lessons.single_path import SinglePath, for_environment, sample_single_path
from trpo_lessons.surrogate import Batch, surrogate_gradient
from trpo_lessons.training import TrainConfig, preset
from trpo_lessons.training.loop import PHASES, Trainer, standardised
from trpo_lessons.training.run_folder import RunFolder
from trpo_lessons.training.vine_sampler import VineSampler

CEILING_COPIES = 256  # enough to keep every thread busy
BURST = 20  # control steps in a row: long after, robots whose episode would have ended lie on the ground
WARM_UP = 20  # iterations, if there is time: robots that fall at once are not what training is about
MIN_ROUNDS = 3
MOMENT = 0.5  # seconds for one measurement; less where there is little time altogether

ControlledBurst = tuple[envs.State, NDArray[Any]]  # where it began, and the controls [E, BURST, nu]
Burst = Callable[[], tuple[int, float]]  # -> simulator steps, seconds


@dataclass(frozen=True)
class Round:
    """What was measured side by side.

    ceiling, environment, training, vine, peer  simulator steps a second: of vine those of trunk and branches, with the
                                                policy that chooses their actions; peer is None where sb3-contrib was
                                                not measured
    gradient, fisher_product                    seconds
    """

    ceiling: float
    environment: float
    training: float
    vine: float
    gradient: float
    fisher_product: float
    peer: float | None


@dataclass(frozen=True)
class Speed:
    """All rounds, and the time that the phases of their training iterations took.

    seconds  wall time of these iterations, files included
    phases   seconds by phase
    no_peer  why sb3-contrib was not measured; "" when it was
    """

    config: TrainConfig
    rounds: tuple[Round, ...]
    seconds: float
    phases: Mapping[str, float]
    no_peer: str

    @property
    def overlapping(self) -> bool:
        """Whether another thread fits the value function during the update (see `training.loop`)."""
        return bool(self.config.value_hidden) and self.config.threads > 1

    @property
    def shares(self) -> dict[str, float]:
        """Every phase as a share of an iteration, and all `other` work. They add up to 1, unless they overlap."""
        shares = {phase: self.phases[phase] / self.seconds for phase in PHASES}
        value, update = shares["value"], shares["gradient"] + shares["cg"] + shares["search"]
        fits = max(update, value) if self.overlapping else update + value
        return {**shares, "other": 1 - shares["acting"] - shares["simulating"] - shares["advantages"] - fits}

    @property
    def solving(self) -> float:
        """The share of an iteration in which conjugate gradient, the search or the value fit run."""
        shares = self.shares
        gradient, value, rest = shares["gradient"], shares["value"], shares["cg"] + shares["search"]
        if not self.overlapping:
            return rest + value
        return value + rest if value < gradient else max(gradient + rest, value)


def measure(config: TrainConfig, seconds: float, report: Callable[[Round], None] = lambda _: None) -> Speed:
    """Measure for about `seconds`, at least three rounds; `report` is told of each round as it ends.

    Raises ValueError for a task that is no robot, and SettingError for settings that cannot be used.
    """
    if config.task not in ROBOTS:
        raise ValueError(f"bench needs a task with a ceiling, one of {', '.join(ROBOTS)}, not {config.task}")
    end = time.perf_counter() + seconds
    moment = min(MOMENT, seconds / 20)
    rounds: list[Round] = []
    with ExitStack() as stack:
        peer, no_peer = _peer(config.task, stack)
        training = _Training(config, stack, warm_up=seconds / 5)
        simulator = _Simulator(training.trainer, stack)
        vine = _Vine(training.trainer, stack)
        while len(rounds) < MIN_ROUNDS or time.perf_counter() < end:
            rounds.append(_round(training, simulator, vine, peer, moment))
            report(rounds[-1])
    return Speed(config, tuple(rounds), training.seconds, training.phases, no_peer)


def _peer(task: str, stack: ExitStack) -> tuple[PeerProcess | None, str]:
    try:
        return stack.enter_context(PeerProcess(task)), ""
    except PeerError as error:
        return None, str(error)


def _round(training: _Training, simulator: _Simulator, vine: _Vine, peer: PeerProcess | None, moment: float) -> Round:
    trainer = training.trainer
    simulator.go_to_where(trainer)
    gradient, product = seconds_of_products(trainer.policy, trainer.theta, training.batch, training.products, moment)
    return Round(
        ceiling=_speed(simulator.open_loop, moment),
        environment=_speed(simulator.environment, moment),
        training=_speed(training.iterate, moment),
        vine=_speed(vine.sample, moment),
        gradient=gradient,
        fisher_product=product,
        peer=peer.steps_per_second() if peer else None,
    )


def _speed(burst: Burst, moment: float) -> float:
    """Steps a second, from one burst or as many as fill the moment."""
    steps, seconds = burst()
    while seconds < moment:
        more = burst()
        steps, seconds = steps + more[0], seconds + more[1]
    return steps / seconds


class _Training:
    """The training loop as `training.train` runs it, files included."""

    def __init__(self, config: TrainConfig, stack: ExitStack, warm_up: float) -> None:
        self.trainer = Trainer(config)
        stack.callback(self.trainer.close)
        self._folder = RunFolder.create(Path(stack.enter_context(TemporaryDirectory())), config)
        self.products = config.cg_iterations + 1  # the scale of the step takes one more
        self._forget()
        while self.trainer.iteration == 0 or (self.trainer.iteration < WARM_UP and self.seconds < warm_up):
            self.iterate()
        self._forget()
        path = self.trainer.sampler.sample(self.trainer.policy, self.trainer.theta, self.trainer.statistics)
        assert isinstance(path, SinglePath)
        self.batch = path.batch(standardised(path.rewards))

    def _forget(self) -> None:
        self.seconds, self.phases = 0.0, dict.fromkeys(PHASES, 0.0)

    def iterate(self) -> tuple[int, float]:
        """One iteration: simulator steps, seconds."""
        start = time.perf_counter()
        row = self.trainer.iterate()
        self._folder.append_row(row)
        self._folder.save_checkpoint(*self.trainer.state())
        seconds = time.perf_counter() - start
        self.seconds += seconds
        for phase in PHASES:
            self.phases[phase] += row[f"seconds_{phase}"]
        return self.trainer.config.steps_per_iteration, seconds


class _Vine:
    """Vine sampling as its class preset has it, under the policy that is being trained."""

    def __init__(self, trainer: Trainer, stack: ExitStack) -> None:
        config = trainer.config
        usual = preset(config.task, sampling="vine", threads=config.threads, **config.task_settings)
        self._trainer, self._sampler = trainer, VineSampler(usual, torch.Generator().manual_seed(0))
        stack.callback(self._sampler.close)

    def sample(self) -> tuple[int, float]:
        """One trunk, from where the one before has ended, and its branches: simulator steps, seconds."""
        trainer = self._trainer
        start = time.perf_counter()
        vine = self._sampler.sample(trainer.policy, trainer.theta.cpu(), trainer.statistics, trainer.value)
        return vine.num_steps, time.perf_counter() - start


class _Simulator:
    """The same robots in the same states under the same controls: open loop, and as environments.

    What MuJoCo has to compute depends on what the robots do: standing on a leg and pushing off takes a sixth more than
    twitching under random controls. So the controls are those of the policy that is being trained.
    """

    def __init__(self, trainer: Trainer, stack: ExitStack) -> None:
        config = trainer.config
        robot = ROBOTS[config.task]
        self._model, self._repeats = load_model(robot), robot.frame_skip
        self._rollout = stack.enter_context(rollout.Rollout(nthread=config.threads))
        self._data = [mujoco.MjData(self._model) for _ in range(config.threads)]
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

    def open_loop(self) -> tuple[int, float]:
        """As fast as MuJoCo goes: many copies, all controls known beforehand, nobody looks at the states between.

        A robot that falls is left lying there.
        """
        full = mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        bursts = [burst for of_group in self._bursts for burst in of_group]
        states = np.concatenate([state["integration_state"] for state, _ in bursts])[:CEILING_COPIES, :full]
        controls = np.concatenate([controls for _, controls in bursts])[:CEILING_COPIES]
        controls = controls.astype(np.float64).repeat(self._repeats, axis=1)
        start = time.perf_counter()
        self._rollout.rollout(self._model, self._data, states, controls)
        return BURST * CEILING_COPIES, time.perf_counter() - start

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
        path = sample_single_path(
            env, trainer.policy, trainer.theta.cpu(), trainer.statistics, raw_obs, BURST, generator
        )
        bursts.append((state, for_environment(path.actions, env.single_action_space).swapaxes(0, 1)))
        raw_obs = path.next_obs
    return bursts


def _follow(env: MujocoVectorEnv, bursts: Sequence[ControlledBurst]) -> None:
    """Take the controls of each burst from the state it began in."""
    for state, controls in bursts:
        env.restore_state(state)
        for t in range(BURST):
            env.step(controls[:, t])


def seconds_of_products(
    policy: Policy, theta: torch.Tensor, batch: Batch, products: int, moment: float
) -> tuple[float, float]:
    """Seconds for a gradient of the surrogate, and for a Fisher product over the same states, on one thread.

    A product's share of building the graph that `products` of them use together is counted in.
    """
    torch.set_num_threads(1)
    seconds, rounds = np.zeros(2), 0
    while seconds.sum() < moment or not rounds:
        start = time.perf_counter()
        for _ in range(products):
            vector = surrogate_gradient(policy, theta, batch)
        between = time.perf_counter()
        product = fisher_vector_product(policy, theta, batch)
        for _ in range(products):
            product(vector)
        seconds += (between - start, time.perf_counter() - between)
        rounds += 1
    gradient, fisher_product = (seconds / (rounds * products)).tolist()
    return gradient, fisher_product
