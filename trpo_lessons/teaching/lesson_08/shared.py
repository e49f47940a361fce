"""What the exercises share in lesson 08, Nine methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]


def agree(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal within `tolerance`, member by member where they are tuples, whether or not a tensor keeps its graph."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(agree(a, b, tolerance) for a, b in zip(one, other, strict=True))
    a, b = (each.detach() if isinstance(each, torch.Tensor) else each for each in (one, other))
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance))


def nearly_right(found: Any, right: Any, tolerance: float = 1e-9, near: float = 1e-3) -> bool:
    """Whether only the first digits agree: float32 on the way, a solver that stopped early, or rounded numbers."""
    return not agree(found, right, tolerance) and agree(found, right, near)
