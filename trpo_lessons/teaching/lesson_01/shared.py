"""What the exercises share in lesson 01, The policy-improvement bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import TabularMDP, as_float64, garnet, random_policy

PolicyFunction = Callable[[TabularMDP, Tensor, Tensor], Tensor]


def random_mdp(rng: Generator) -> TabularMDP:
    """A small MDP with a random discount, four to six states, and first states of unlike probability."""
    mdp = garnet(int(rng.integers(4, 7)), 3, 2, float(rng.uniform(0.5, 0.9)), int(rng.integers(2**32)))
    return TabularMDP(mdp.P, mdp.r, torch.from_numpy(rng.dirichlet(np.ones(mdp.num_states))), mdp.gamma)


def mdp_and_two_policies(rng: Generator) -> tuple[TabularMDP, Tensor, Tensor]:
    """A small MDP, an old and a new policy [S, A], with all probabilities positive."""
    mdp = random_mdp(rng)
    return mdp, random_policy(mdp, rng, 2.0), random_policy(mdp, rng, 2.0)


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to rounding, or within `tolerance`, absolute and relative."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=tolerance, atol=tolerance))
