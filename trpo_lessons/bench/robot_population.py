"""How fast a population of policies plays whole episodes, beside the same robots under the same controls, open loop.

The policies are those that CMA-ES asks for, in its class preset, after it has searched for a while: at first every
Hopper and Walker falls after some twenty steps, and a copy that has fallen rests until the last one has.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from trpo_lessons.bench.robot_ceiling import BURST, CEILING_COPIES, OpenLoop
from trpo_lessons.envs.mujoco import MujocoVectorEnv
from trpo_lessons.training import TrainConfig, preset
from trpo_lessons.training.running.population_loop import PopulationTrainer
from trpo_lessons.training.sampling.population_sampler import PopulationSampler

Floats = NDArray[np.float64]


class RobotPopulation:
    """One population, always the same: every measurement plays the same episodes."""

    def __init__(self, config: TrainConfig, stack: ExitStack, warm_up: float) -> None:
        """`warm_up`: seconds to search first."""
        self._config = preset(config.task, method="cma", threads=config.threads, **config.task_settings)
        self._trainer = PopulationTrainer(self._config)
        stack.callback(self._trainer.close)
        end = time.perf_counter() + warm_up
        while time.perf_counter() < end:
            self._trainer.iterate()
        self._thetas = self._trainer.search.ask(torch.Generator().manual_seed(0))
        self._open_loop = OpenLoop(config.task, config.threads, stack)
        self.states, self.controls = self._bursts()

    def play(self) -> tuple[int, float]:
        """The episodes of the whole population: simulator steps, seconds. Nobody learns from them."""
        start = time.perf_counter()
        return self._play(self._trainer.sampler), time.perf_counter() - start

    def ceiling(self) -> tuple[int, float]:
        """Bursts from all over these episodes, as fast as MuJoCo goes: simulator steps, seconds."""
        return self._open_loop.run(self.states, self.controls)

    def _play(self, sampler: PopulationSampler) -> int:
        return sampler.play(self._trainer.policy, self._thetas, self._trainer.statistics, generation=0).num_steps

    def _bursts(self) -> tuple[Floats, NDArray[Any]]:
        """States [M, n] and controls [M, BURST, nu], all inside an episode; shorter where no episode is so long."""
        with closing(_RecordingSampler(self._config)) as sampler:
            self._play(sampler)
            states, controls, lengths = sampler.recorder.recorded()
        burst = min(BURST, lengths.max())
        begins = np.array([(t, e) for e, length in enumerate(lengths) for t in range(0, length - burst + 1, burst)])
        begins = begins[np.linspace(0, len(begins) - 1, min(len(begins), CEILING_COPIES)).astype(int)]
        return states[*begins.T], np.stack([controls[t : t + burst, e] for t, e in begins])


class _RecordingSampler(PopulationSampler):
    """Plays in one group, a copy for each episode, and remembers it."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(replace(config, threads=1, num_envs=config.population * config.episodes))

    def taking_turns(self, env: VectorEnv[Any, Any, Any]) -> VectorEnv[Any, Any, Any]:
        self.recorder = _Recorder(env)
        return self.recorder


class _Recorder(VectorWrapper):
    """Remembers what was done in which states; each copy plays one episode and then rests."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        assert isinstance(env, MujocoVectorEnv)
        self._batch = env.batch
        self._states: list[Floats] = []
        self._controls: list[NDArray[Any]] = []
        self._ended: list[NDArray[np.bool_]] = []

    def step(self, actions: Any) -> Any:
        self._states.append(self._batch.state.copy())
        self._controls.append(np.array(actions))
        outcome = self.env.step(actions)
        self._ended.append(outcome[2] | outcome[3])
        return outcome

    def recorded(self) -> tuple[Floats, NDArray[Any], NDArray[np.int64]]:
        """States [T, E, n] before each step, controls [T, E, nu], lengths of the episodes [E]."""
        return np.array(self._states), np.array(self._controls), np.array(self._ended).argmax(0) + 1
