"""Solutions of lesson 09, Locomotion."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def reward_parts(
    x: Floats, actions: Floats, seconds: float, healthy: float, cost: float, fell: bool
) -> tuple[float, float, float]:
    """What an episode earned by moving forward, by being on its feet, and by its motors (0 or less)."""
    forward = (x[-1] - x[0]) / seconds
    return float(forward), healthy * (len(actions) - fell), -cost * float(np.square(actions).sum())


def episode_returns(rewards: Floats, terminated: Flags, truncated: Flags, so_far: Floats) -> tuple[Floats, Floats]:
    """The returns of the episodes that ended, in the order in which they did, and [E] what is still running."""
    running, finished = so_far.copy(), []
    for row, ended in zip(rewards, terminated | truncated, strict=True):
        running += row
        finished.extend(running[ended])
        running[ended] = 0.0
    return np.array(finished, dtype=np.float64), running


def interval_at(steps: list[Floats], returns: list[Floats], at: float, confidence: float) -> tuple[float, float]:
    """Student's interval for the mean over seeds of the return after `at` steps."""
    values = np.array([np.interp(at, x, y) for x, y in zip(steps, returns, strict=True)])
    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    far = float(quantile * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - far, float(values.mean()) + far


def explained(values: Floats, targets: Floats) -> tuple[float, float]:
    """The share of the targets' variance that V explains, and how far V is above them, in standard deviations."""
    error = values - targets
    return float(1 - error.var() / targets.var()), float(error.mean() / targets.std())


def what_went_wrong() -> dict[str, str]:
    """The fault of each of the runs."""
    return {
        "A": "V hardly fitted",
        "B": "gamma of 0.9",
        "C": "damping of 10",
        "D": "no search",
        "E": "one CG iteration",
    }
