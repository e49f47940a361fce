"""What observations are like on average: the statistics by which they are normalised. Lesson 06."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor


def unit_of(deviation: Tensor, mean: Tensor) -> Tensor:
    """The unit in which numbers of this standard deviation and mean have variance 1, however small they are.

    Numbers that differ by rounding alone are constant; dividing by their deviation would make signals of it. Their unit
    is 1.
    """
    return torch.where(deviation > 1e-9 * mean.abs(), deviation, torch.ones_like(deviation))


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of everything seen so far, per component [obs_dim]; float64.

    Observation statistics must not move between collecting a batch and updating on it: if they did, pi_theta_old would
    already be another policy when the update begins, and the importance ratios would not start at 1. So they are
    frozen, and `including` returns new ones for the next iteration.
    """

    count: float
    mean: Tensor
    deviations: Tensor

    @classmethod
    def empty(cls, obs_shape: int | tuple[int, ...]) -> Self:
        """Nothing seen yet: `normalise` leaves observations as they are."""
        return cls(0.0, torch.zeros(obs_shape, dtype=torch.float64), torch.zeros(obs_shape, dtype=torch.float64))

    def including(self, rows: Tensor) -> Self:
        """The moments of everything seen so far and `rows` [N, obs_dim]; Chan et al. (1983)."""
        rows = rows.double()
        count = self.count + len(rows)
        shift = rows.mean(0) - self.mean
        within = (rows - rows.mean(0)).square().sum(0)
        between = shift.square() * (self.count * len(rows) / count)
        return type(self)(count, self.mean + shift * (len(rows) / count), self.deviations + within + between)

    def normalise(self, obs: Tensor) -> Tensor:
        """Observations [..., obs_dim] with mean 0 and variance 1 by these statistics, clipped to +-10; float32."""
        if self.count < 2:
            return obs.clamp(-3.4e38, 3.4e38).float()  # what float32 has room for
        return ((obs - self.mean) / self._std).clamp(-10, 10).float()

    @cached_property
    def _std(self) -> Tensor:
        return unit_of((self.deviations / self.count).sqrt(), self.mean)
