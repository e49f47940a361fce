"""Every theta of a population as a policy: one batched call for observations that belong to different thetas."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trpo_lessons.distributions import Distribution
from trpo_lessons.policies import Policy

# A search looks for the network's parameters alone. A head's own, log sigma, do not change the most likely action, so
# returns say nothing about them: a search would only let them drift.


def num_searched(policy: Policy) -> int:
    """How many parameters of a policy its most likely actions depend on: the network's."""
    return policy.num_parameters - policy.head.num_free


def whole_theta(policy: Policy, searched: Tensor) -> Tensor:
    """Theta [num_parameters], float32, of the network's parameters [num_searched], and the head's as they begin."""
    return torch.cat([searched.float(), policy.head.initial_free()])


class ManyPolicies:
    """The P policies at `thetas` [P, num_searched]: the same layers, each time with other parameters."""

    def __init__(self, policy: Policy, thetas: Tensor) -> None:
        """Raises ValueError for a policy with other than linear layers, such as one that sees pictures."""
        network = policy._network
        if any(layer.shapes and layer.apply is not functional.linear for layer in network._layers):
            raise ValueError("only policies with linear layers can act side by side")
        parts = torch.split(thetas.float(), network._sizes, dim=1)
        shaped = [part.reshape(-1, *shape) for part, shape in zip(parts, network._shapes, strict=True)]
        self._weights, self._biases = [w.transpose(1, 2) for w in shaped[::2]], [b[:, None] for b in shaped[1::2]]
        self._layers, self._head, self._free = network._layers, policy.head, policy.head.initial_free()
        self.seat(np.arange(len(thetas)))

    def seat(self, who: NDArray[np.int64]) -> None:
        """From now on row e of observations belongs to policy `who[e]`, [E]."""
        rows = torch.from_numpy(who)
        self._seated = [(b[rows], w[rows]) for b, w in zip(self._biases, self._weights, strict=True)]

    def __call__(self, obs: Tensor) -> Distribution:
        """What the seated policies say to `obs` [E, obs_dim], a row each; without gradient."""
        parameters = iter(self._seated)
        with torch.no_grad():
            rows = obs[:, None]  # [E, 1, obs_dim]: a batch of products of a row with a matrix
            for layer in self._layers:
                if layer.shapes:
                    bias, weight = next(parameters)
                    rows = torch.baddbmm(bias, rows, weight)
                else:
                    rows = layer.apply(rows)
            return self._head(rows[:, 0], self._free)
