"""How fast training is, in units that mean something: the simulator's ceiling, a gradient, and sb3-contrib.

Machines are noisy, and their noise lasts for seconds. So everything is measured for a moment, again and again in turns,
and what is compared was measured side by side: each round gives ratios of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from trpo_lessons.advantages import standardised
from trpo_lessons.bench.game_branches import GameBranches, vine_like
from trpo_lessons.bench.game_ceiling import GameCeiling
from trpo_lessons.bench.peer_process import PeerError, PeerProcess
from trpo_lessons.bench.robot_ceiling import RobotCeiling
from trpo_lessons.bench.robot_population import RobotPopulation
from trpo_lessons.envs import GAMES
from trpo_lessons.envs.mujoco import ROBOTS
from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Samples, surrogate_gradient
from trpo_lessons.training import SettingError, TrainConfig, preset
from trpo_lessons.training.running.loop import PHASES, Trainer
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.sampling.game_path import GamePath
from trpo_lessons.training.sampling.vine_sampler import VineSampler

WARM_UP = 20  # iterations, if there is time: robots that fall at once are not what training is about
MIN_ROUNDS = 3
TASKS = (*ROBOTS, *GAMES)
MOMENT = 0.5  # seconds for one measurement; less where there is little time altogether

# A step of the paper's network costs as much in a batch of this size as in the paper's, which is ten times as large: in
# both the Fisher matrix has more states than a chunk.
STEPS_OF_GAMES = 10_000

Burst = Callable[[], tuple[int, float]]  # -> simulator steps, seconds


@dataclass(frozen=True)
class Round:
    """What was measured side by side.

    ceiling, environment, training, peer  simulator steps a second; None where sb3-contrib was not measured
    vine                                  the same: of trunk and branches, with the policy that chooses their actions
    population, population_ceiling        of robots alone: a population that plays whole episodes, and the same robots
                                          open loop under its controls
    gradient, fisher_product              seconds
    vine_training                         of games alone, as the next three: simulator steps a second of training by the
                                          vine
    branches, loop, emulator              steps a second: branches as the vine follows them, with their policy; one
                                          after the other in one emulator; and that without any policy
    """

    ceiling: float
    environment: float
    training: float
    vine: float | None
    population: float | None
    population_ceiling: float | None
    gradient: float
    fisher_product: float
    peer: float | None
    vine_training: float | None = None
    branches: float | None = None
    loop: float | None = None
    emulator: float | None = None


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
        """Whether another thread fits the value function during the update (see `training.running.loop`)."""
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


def config_for(task: str, name: str = "class", **settings: Any) -> TrainConfig:
    """What is measured: a preset; the paper's, which is for games alone, in batches of STEPS_OF_GAMES.

    Raises SettingError for the paper's preset of a robot: an iteration of it takes minutes.
    """
    if name != "paper":
        return preset(task, name, **settings)
    if task not in GAMES:
        raise SettingError(f"the paper preset of {task} is not measured: one iteration takes minutes")
    return preset(task, "paper", **{"steps_per_iteration": STEPS_OF_GAMES, **settings})


def measure(config: TrainConfig, seconds: float, report: Callable[[Round], None] = lambda _: None) -> Speed:
    """Measure for about `seconds`, at least three rounds; `report` is told of each round as it ends.

    Raises ValueError for a task that is no robot and no game, and SettingError for settings that cannot be used.
    """
    if config.task not in TASKS:
        raise ValueError(f"bench needs a task with a ceiling, one of {', '.join(TASKS)}, not {config.task}")
    end = time.perf_counter() + seconds
    moment = min(MOMENT, seconds / 20)
    rounds: list[Round] = []
    with ExitStack() as stack:
        peer, no_peer = _peer(config.task, stack)
        training = _Training(config, stack, warm_up=seconds / 5)
        simulator = _ceiling(training, stack)
        of_games: dict[str, Burst] = {}
        if config.task in GAMES:
            by_vine = _Training(vine_like(config), stack, warm_up=0)
            games = GameBranches(by_vine.trainer)
            vine = games.vine
            of_games = {"vine_training": by_vine.iterate, "branches": games.branches}
            of_games |= {"loop": games.loop, "emulator": games.emulator}
        else:
            vine = _Vine(training.trainer, stack).sample
        population = None if config.task in GAMES else RobotPopulation(config, stack, warm_up=seconds / 10)
        while len(rounds) < MIN_ROUNDS or time.perf_counter() < end:
            each = _round(training, simulator, vine, population, peer, moment)
            each = replace(each, **{name: _speed(burst, moment) for name, burst in of_games.items()})
            rounds.append(each)
            report(each)
    return Speed(config, tuple(rounds), training.seconds, training.phases, no_peer)


def _peer(task: str, stack: ExitStack) -> tuple[PeerProcess | None, str]:
    if task in GAMES:
        return None, "its recipe is for robots"
    try:
        return stack.enter_context(PeerProcess(task)), ""
    except PeerError as error:
        return None, str(error)


def _ceiling(training: _Training, stack: ExitStack) -> RobotCeiling | GameCeiling:
    if isinstance(training.path, GamePath):
        return GameCeiling(training.trainer, training.path, stack)
    return RobotCeiling(training.trainer, stack)


def _round(
    training: _Training,
    simulator: RobotCeiling | GameCeiling,
    vine: Burst,
    population: RobotPopulation | None,
    peer: PeerProcess | None,
    moment: float,
) -> Round:
    trainer, config = training.trainer, training.trainer.config
    simulator.go_to_where(trainer)
    gradient, product = seconds_of_products(
        trainer.policy, trainer.theta, training.states, training.products, moment, config.chunk_size
    )
    return Round(
        ceiling=_speed(simulator.ceiling, moment),
        environment=_speed(simulator.environment, moment),
        training=_speed(training.iterate, moment),
        vine=_speed(vine, moment),
        population=_speed(population.play, moment) if population else None,
        population_ceiling=_speed(population.ceiling, moment) if population else None,
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
        self._folder = stack.enter_context(RunFolder.taken(Path(stack.enter_context(TemporaryDirectory())), config))
        self.products = config.cg_iterations + 1  # the scale of the step takes one more
        self._forget()
        while self.trainer.iteration == 0 or (self.trainer.iteration < WARM_UP and self.seconds < warm_up):
            self.iterate()
        self._forget()
        self.path = self.trainer.sampler.sample(self.trainer.pi_old).trunk
        batch = self.path.batch(standardised(self.path.rewards)).to(config.device)
        self.states = batch[:: config.fisher_stride] if isinstance(self.path, GamePath) else batch

    def _forget(self) -> None:
        self.seconds, self.phases = 0.0, dict.fromkeys(PHASES, 0.0)

    def iterate(self) -> tuple[int, float]:
        """One iteration: simulator steps, seconds."""
        start, before = time.perf_counter(), self.trainer.total_steps
        row = self.trainer.iterate()
        self._folder.append_row(row)
        self._folder.save_checkpoint(*self.trainer.state())
        seconds = time.perf_counter() - start
        self.seconds += seconds
        for phase in PHASES:
            self.phases[phase] += row[f"seconds_{phase}"]
        return self.trainer.total_steps - before, seconds


class _Vine:
    """Vine sampling as its class preset has it, under the policy that is being trained."""

    def __init__(self, trainer: Trainer, stack: ExitStack) -> None:
        config = trainer.config
        usual = preset(config.task, sampling="vine", threads=config.threads, **config.task_settings)
        self._trainer, self._sampler = trainer, VineSampler(usual, torch.Generator().manual_seed(0))
        stack.callback(self._sampler.close)

    def sample(self) -> tuple[int, float]:
        """One trunk, from where the one before has ended, and its branches: simulator steps, seconds."""
        start = time.perf_counter()
        vine = self._sampler.sample(self._trainer.pi_old, self._trainer.value)
        return vine.num_steps, time.perf_counter() - start


def _wait_for(tensor: torch.Tensor) -> None:
    """A GPU is told what to do, and does it later."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def seconds_of_products(
    policy: Policy, theta: torch.Tensor, batch: Samples, products: int, moment: float, chunk_size: int | None = None
) -> tuple[float, float]:
    """Seconds for a gradient of the surrogate, and for a Fisher product over the same states, on one thread.

    `batch` is one of a path, or a part of it. A product's share of building the graph that `products` of them use
    together is counted in.
    """
    torch.set_num_threads(1)
    seconds, rounds = np.zeros(2), 0
    while seconds.sum() < moment or not rounds:
        start = time.perf_counter()
        for _ in range(products):
            vector = surrogate_gradient(policy, theta, batch, chunk_size=chunk_size)
        _wait_for(theta)
        between = time.perf_counter()
        product = fisher_vector_product(policy, theta, batch, chunk_size)
        for _ in range(products):
            product(vector)
        _wait_for(theta)
        seconds += (between - start, time.perf_counter() - between)
        rounds += 1
    gradient, fisher_product = (seconds / (rounds * products)).tolist()
    return gradient, fisher_product
