"""What the exercises share in lesson 03, The KL constraint."""

from __future__ import annotations

from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks.properties import normal


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=tolerance, atol=tolerance))


def metric(rng: Generator, size: int) -> Tensor:
    """A random symmetric matrix with positive eigenvalues, [size, size]."""
    factor = normal(rng, size, size)
    return factor @ factor.T + torch.eye(size, dtype=torch.float64)
