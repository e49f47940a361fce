"""The training loop: sample, estimate what actions are worth, update theta, fit the value function; again.

`Trainer` is a run between two iterations. `iterate` takes it from one to the next and returns the row that is logged.
`state` and `load_state` turn all of it into named tensors and back, which is what makes a resumed run equal to an
uninterrupted one to the bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import gae
from trpo_lessons.problem import Problem, Refused
from trpo_lessons.single_path import Actor, PathRecord, by_environment
from trpo_lessons.surrogate import Samples
from trpo_lessons.training.running.stopping import AttentivePolicy
from trpo_lessons.training.running.updates import facts_of, update_for
from trpo_lessons.training.sampling.game_sampler import GameSampler
from trpo_lessons.training.sampling.game_vine_sampler import GameVineSampler
from trpo_lessons.training.sampling.groups import Experience, Sampler
from trpo_lessons.training.sampling.path_sampler import PathSampler
from trpo_lessons.training.sampling.threads import torch_threads
from trpo_lessons.training.sampling.vine_sampler import VineSampler
from trpo_lessons.training.settings.config import TrainConfig
from trpo_lessons.training.settings.obs_statistics import restored, statistics_for
from trpo_lessons.training.settings.policy_for import check_memory, observation_shape, policy_for
from trpo_lessons.trpo import Stopwatch, UpdateReport
from trpo_lessons.value_function import ValueFunction, explained_variance, values_along

RECENT_EPISODES = 100  # the logged return is the mean over so many finished episodes


class Trainer:
    """A run between two iterations, seeded by config.seed."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        generator = torch.Generator().manual_seed(config.seed)
        self.sampler = sampler_for(config, generator)
        env = self.sampler.envs[0]
        check_memory(env, config)
        self.policy = policy_for(env, config)
        self._policy = AttentivePolicy(self.policy)
        space = env.single_observation_space
        self.value: ValueFunction | None = None
        with torch_threads(config.threads):  # the bits of an orthogonal matrix depend on them
            self.theta = self.policy.initial_theta(generator).to(config.device)
            if config.value_hidden:
                self.value = ValueFunction(observation_shape(space), config.value_hidden, generator, config.device)
        self.statistics = statistics_for(space)
        self._update = update_for(config, self.policy)
        self.iteration = self.total_steps = 0
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT_EPISODES)
        _load_all_of_torch(config.method)
        self._second_thread = ThreadPoolExecutor(1, thread_name_prefix="value")
        # With a value function two fits share the processors. Two threads inside one fit would not replace that: the
        # operations are small, and waking a thread takes as long as some of them.
        self._threads_of_a_fit = max(1, config.threads // 2) if self.value else config.threads

    @property
    def pi_old(self) -> Actor:
        """The policy as it acts now; on the processor, where the environments are."""
        return Actor(self._policy, self.theta.cpu(), self.statistics)

    def iterate(self) -> dict[str, Any]:
        """One iteration. Samples that are not finite are counted but never learned from."""
        clock = Stopwatch()
        samples = self.sampler.sample(self.pi_old, self.value)
        try:
            with torch_threads(self._threads_of_a_fit):
                report, facts = self._learn(samples, clock)
        except Refused as refusal:
            report, facts = UpdateReport(str(refusal)), dict.fromkeys(_LEARNING_FACTS, math.nan)
        self.iteration += 1
        self.total_steps += samples.num_steps
        path = samples.trunk
        self.recent.extend(zip(path.episode_returns, path.episode_lengths, strict=True))
        seconds = {**samples.seconds, **clock.seconds, **report.seconds}
        return self._row(path, report, {**facts, **samples.facts}, seconds)

    def _learn(self, samples: Experience, clock: Stopwatch) -> tuple[UpdateReport, dict[str, float]]:
        """Everything between two samplings: advantages, the update, the value function, the statistics.

        Raises Refused for samples that must not be learned from.
        """
        if samples.flaw:
            raise Refused(samples.flaw)
        config, path = self.config, samples.trunk
        with clock.timing("advantages"):
            values, next_values = torch.zeros_like(path.rewards), torch.zeros_like(path.rewards)
            if self.value:
                with torch_threads(config.threads):  # nothing else is done meanwhile
                    values, next_values = values_along(path, self.statistics, self.value, config.chunk_size)
            lam = config.lam if self.value else 1.0
            advantages = gae(path.rewards, values, next_values, path.terminated, path.truncated, config.gamma, lam)
            returns = advantages + values
            if not returns.square().sum().isfinite():
                raise Refused("the returns are too large to compute with")
            problem = samples.problem(self._policy, advantages, config.chunk_size).to(config.device)
            facts = {
                "explained_variance": explained_variance(values, returns) if self.value else math.nan,
                "entropy": -path.log_q.mean().item(),  # a sample estimate, of the policy that was followed
            }
        report = self._improve(problem, by_environment(returns))
        if config.normalise_obs:
            self.statistics = path.statistics_after(self.statistics)
        return report, facts

    def _improve(self, problem: Problem, returns: Tensor) -> UpdateReport:
        """Policy and value function side by side: neither needs the other's result. Value seconds join the report's."""
        fitting = None
        if self.value:
            fitting = self._second_thread.submit(self._fit_value, self.value, problem.states, returns)
            if self.config.threads == 1:
                wait([fitting])
        self.theta, report = self._update(problem, self.theta)
        return replace(report, seconds={**report.seconds, "value": fitting.result()}) if fitting else report

    def _fit_value(self, value: ValueFunction, states: Samples, returns: Tensor) -> float:
        """Fit V, and tell how many seconds it took."""
        clock, config = Stopwatch(), self.config
        torch.set_num_threads(self._threads_of_a_fit)  # counts for the thread that calls it
        steps, damping, stride = config.value_steps, config.value_damping, config.value_stride
        with clock.timing("value"):
            value.fit(states, returns, steps, damping, stride, chunk_size=config.chunk_size)
        return clock.seconds["value"]

    def close(self) -> None:
        """Close the environments and stop all threads."""
        self._second_thread.shutdown()
        self.sampler.close()

    def _row(
        self,
        path: PathRecord,
        report: UpdateReport,
        facts: Mapping[str, float],
        seconds: Mapping[str, float],
    ) -> dict[str, Any]:
        residuals = report.residual_norms or (math.nan,)
        return {
            "iteration": self.iteration,
            "total_steps": self.total_steps,
            "episodes": len(path.episode_returns),
            "mean_return": mean_of([r for r, _ in self.recent]),
            "mean_length": mean_of([n for _, n in self.recent]),
            "accepted": int(report.accepted),
            "reason": report.reason,
            "surrogate_gain": report.actual_gain,
            "predicted_gain": report.predicted_gain,
            "mean_kl": report.mean_kl,
            "max_kl": report.max_kl,
            "gradient_norm": report.gradient_norm,
            "cg_residual": residuals[-1] / residuals[0] if residuals[0] else math.nan,
            "step_norm": report.step_norm,
            "step_fraction": report.step_fraction,
            "backtracks": report.backtracks,
            **dict.fromkeys(facts_of(self.config), math.nan),
            **report.facts,
            **facts,
            **{f"seconds_{phase}": round(seconds.get(phase, 0.0), 6) for phase in PHASES},
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next iteration depends on: tensors, and facts that fit into JSON."""
        tensors = {
            "theta": self.theta,
            "statistics.mean": self.statistics.mean,
            "statistics.deviations": self.statistics.deviations,
            **self.sampler.state(),
        }
        if self.value:
            tensors |= {f"value.{name}": tensor for name, tensor in self.value.state_dict().items()}
        facts = {
            "iteration": self.iteration,
            "total_steps": self.total_steps,
            "statistics_count": self.statistics.count,
            "recent": list(self.recent),
        }
        return tensors, facts

    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from `state()`. Raises KeyError or ValueError for the state of another kind of run.

        An environment that cannot restore its state begins new episodes, from seeds that no other iteration uses.
        """
        self.theta = tensors["theta"].to(self.config.device)
        self.sampler.load_state(tensors)
        self.statistics = restored(self.statistics, tensors, facts)
        saved = {name.removeprefix("value."): t for name, t in tensors.items() if name.startswith("value.")}
        if self.value:
            self.value.load_state_dict(saved)
        elif saved:
            raise ValueError("it has a value function, and these settings have none")
        self.iteration, self.total_steps = facts["iteration"], facts["total_steps"]
        if not self.sampler.restorable:
            self.sampler.reset(self.iteration)
        self.recent = deque((tuple(pair) for pair in facts["recent"]), maxlen=RECENT_EPISODES)


PHASES = ("acting", "simulating", "advantages", "gradient", "cg", "search", "value")
_LEARNING_FACTS = ("explained_variance", "entropy")


def _load_all_of_torch(method: str) -> None:
    """The first derivative imports packages, and the first optimiser hundreds. Threads should find them there: two that
    import at once can fail.
    """
    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(1))
    if method == "ppo":
        x.grad = torch.ones(1)
        torch.optim.Adam([x]).step()


def sampler_for(config: TrainConfig, generator: torch.Generator) -> Sampler:
    """What collects the samples of a run."""
    of_robots, of_games = (VineSampler, GameVineSampler) if config.sampling == "vine" else (PathSampler, GameSampler)
    return (of_games if config.task in envs.GAMES else of_robots)(config, generator)


def mean_of(values: list[float] | list[int]) -> float:
    """Their mean; NaN where there are none."""
    return sum(values) / len(values) if values else math.nan
