"""The training loop: sample, estimate advantages, update theta, fit the value function; again.

`Trainer` is a run between two iterations. `iterate` takes it from one to the next and returns the row that is logged.
`state` and `load_state` turn all of it into named tensors and back, which is what makes a resumed run equal to an
uninterrupted one to the bit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trpo_lessons import envs
from trpo_lessons.advantages import ValueFunction, explained_variance, gae
from trpo_lessons.single_path import RunningMoments, SinglePath, by_environment, sample_single_path, values_along
from trpo_lessons.training.config import TrainConfig
from trpo_lessons.training.policy_for import observation_dim, policy_for
from trpo_lessons.trpo import Stopwatch, UpdateReport, trpo_update

RECENT_EPISODES = 100  # the logged return is the mean over so many finished episodes


class Trainer:
    """A run between two iterations, seeded by config.seed."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed)
        self.env = envs.make(config.task, config.num_envs, threads=config.threads, **config.task_settings)
        self.policy = policy_for(self.env, config)
        self.theta = self.policy.initial_theta(self.generator).to(config.device)
        obs_dim = observation_dim(self.env.single_observation_space)
        self.value: ValueFunction | None = None
        if config.value_hidden:
            self.value = ValueFunction(obs_dim, config.value_hidden, self.generator, config.device)
        self.statistics = RunningMoments.empty(obs_dim)
        self._reset(config.seed)
        self.iteration = self.total_steps = 0
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT_EPISODES)

    def _reset(self, seed: int) -> None:
        obs, _ = self.env.reset(seed=seed)
        self.raw_obs = torch.tensor(obs, dtype=torch.float64)

    def iterate(self) -> dict[str, Any]:
        """One iteration. Samples that are not finite are counted but never learned from."""
        clock = Stopwatch()
        torch.set_num_threads(1)  # one row of observations is too little work to share: waking threads costs more
        path = sample_single_path(
            self.env, self.policy, self.theta.cpu(), self.statistics, self.raw_obs, self.config.rows, self.generator
        )
        torch.set_num_threads(self.config.threads)
        clock.lap("sampling")
        if path.problem:
            report, facts = _refused(path.problem)
        else:
            report, facts = self._learn(path, clock)
        self.raw_obs = path.next_obs
        self.iteration += 1
        self.total_steps += path.num_steps
        self.recent.extend(zip(path.episode_returns, path.episode_lengths, strict=True))
        seconds = {**path.seconds, **clock.seconds, **report.seconds}
        return self._row(path, report, facts, seconds)

    def _learn(self, path: SinglePath, clock: Stopwatch) -> tuple[UpdateReport, dict[str, float]]:
        """Everything between two samplings: advantages, the TRPO update, the value function, the statistics."""
        config = self.config
        values, next_values = torch.zeros_like(path.rewards), torch.zeros_like(path.rewards)
        if self.value:
            values, next_values = values_along(path, self.statistics, self.value)
        lam = config.lam if self.value else 1.0
        advantages = gae(path.rewards, values, next_values, path.terminated, path.truncated, config.gamma, lam)
        returns = advantages + values
        if not returns.square().isfinite().all():
            return _refused("the returns are too large to compute with")
        batch = path.batch(standardised(advantages)).to(config.device)
        clock.lap("advantages")
        self.theta, report = trpo_update(
            self.policy,
            self.theta,
            batch,
            delta=config.delta,
            damping=config.damping,
            cg_iterations=config.cg_iterations,
            fisher_stride=config.fisher_stride,
            shrink=config.shrink,
            max_backtracks=config.max_backtracks,
            chunk_size=config.chunk_size,
        )
        facts = {
            "explained_variance": explained_variance(values, returns) if self.value else math.nan,
            "entropy": -path.log_q.mean().item(),  # a sample estimate, of the policy that was followed
        }
        clock.lap("update")
        if self.value:
            self.value.fit(
                batch.obs, by_environment(returns), config.value_steps, config.value_damping, config.value_stride
            )
        clock.lap("value")
        self.statistics = self.statistics.including(path.raw_obs.flatten(0, 1))
        return report, facts

    def _row(
        self, path: SinglePath, report: UpdateReport, facts: Mapping[str, float], seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        residuals = report.residual_norms or (math.nan,)
        return {
            "iteration": self.iteration,
            "total_steps": self.total_steps,
            "episodes": len(path.episode_returns),
            "mean_return": _mean([r for r, _ in self.recent]),
            "mean_length": _mean([n for _, n in self.recent]),
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
            **facts,
            **{f"seconds_{phase}": round(seconds.get(phase, 0.0), 6) for phase in PHASES},
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next iteration depends on: tensors, and facts that fit into JSON."""
        tensors = {
            "theta": self.theta,
            "raw_obs": self.raw_obs,
            "generator": self.generator.get_state(),
            "statistics.mean": self.statistics.mean,
            "statistics.deviations": self.statistics.deviations,
        }
        if isinstance(self.env, envs.RestorableVectorEnv):
            tensors |= {f"env.{name}": torch.from_numpy(array) for name, array in self.env.save_state().items()}
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
        self.generator.set_state(tensors["generator"])
        self.statistics = statistics_from(tensors, facts)
        if self.value:
            self.value.load_state_dict(_group(tensors, "value."))
        self.iteration, self.total_steps = facts["iteration"], facts["total_steps"]
        if isinstance(self.env, envs.RestorableVectorEnv):
            self.env.restore_state({name: t.numpy() for name, t in _group(tensors, "env.").items()})
            self.raw_obs = tensors["raw_obs"]
        else:
            self._reset(self.config.seed + self.iteration * self.config.num_envs)
        self.recent = deque((tuple(pair) for pair in facts["recent"]), maxlen=RECENT_EPISODES)


PHASES = ("acting", "simulating", "advantages", "gradient", "cg", "search", "value")
_LEARNING_FACTS = ("explained_variance", "entropy")


def _refused(reason: str) -> tuple[UpdateReport, dict[str, float]]:
    return UpdateReport(math.nan, reason=reason), dict.fromkeys(_LEARNING_FACTS, math.nan)


def standardised(advantages: Tensor) -> Tensor:
    """Advantages with mean 0 and standard deviation 1: the update's direction does not depend on their scale."""
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def statistics_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> RunningMoments:
    """The observation statistics that a checkpoint holds."""
    return RunningMoments(facts["statistics_count"], tensors["statistics.mean"], tensors["statistics.deviations"])


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values) if values else math.nan
