"""What the properties of many exercises are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.from_numpy(rng.standard_normal(shape))


def survives(holds: Callable[[], bool]) -> bool:
    """False as well where the student's function stops with an error, so that the property's words are what is read."""
    try:
        return holds()
    except NotImplementedError:
        raise
    except Exception:
        return False
