"""How good a policy is: whole episodes, with everything frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trpo_lessons import envs
from trpo_lessons.single_path import for_environment
from trpo_lessons.training.run import Run

SEED_OFFSET = 1_000_000  # evaluation never starts from states that training started from


@dataclass(frozen=True)
class Evaluation:
    """Returns (undiscounted, raw rewards) and lengths (steps) of whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean return; nan for a single episode."""
        return float(np.std(self.returns, ddof=1) / len(self.returns) ** 0.5) if len(self.returns) > 1 else float("nan")


def evaluate(run: Run, episodes: int = 20, seed: int = 0, *, deterministic: bool = True) -> Evaluation:
    """Play `episodes` whole episodes side by side: the most likely action in every state, or sampled ones.

    Each environment plays one episode, so that short episodes are not counted more often than long ones.
    Raises ValueError when `episodes` is less than 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}")
    env = envs.make(run.config.task, episodes, threads=run.config.threads, **run.config.task_settings)
    generator = torch.Generator().manual_seed(seed)
    obs, _ = env.reset(seed=SEED_OFFSET + seed)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=int)
    playing = np.ones(episodes, dtype=bool)
    while playing.any():
        with torch.no_grad():
            distribution = run.policy(run.theta, run.statistics.normalise(torch.as_tensor(obs, dtype=torch.float64)))
            actions = distribution.mode() if deterministic else distribution.sample(generator)
        obs, rewards, terminated, truncated, _ = env.step(for_environment(actions, env.single_action_space))
        returns += np.where(playing, rewards, 0.0)
        lengths += playing
        playing &= ~(terminated | truncated)
    env.close()
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))
