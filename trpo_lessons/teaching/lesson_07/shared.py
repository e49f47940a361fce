"""What the exercises share in lesson 07, The vine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]


def close(one: Any, other: Any) -> bool:
    """Equal up to rounding."""
    return agree(one, other, 1e-9)


def agree(one: Any, other: Any, tolerance: float) -> bool:
    """Equal within `tolerance`, whether or not a tensor keeps its graph."""
    a, b = (each.detach() if isinstance(each, torch.Tensor) else each for each in (one, other))
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance))


def nearly_right(found: Any, right: Any) -> bool:
    """Whether the first digits agree and the last ones do not: float32 on the way, or a small number added."""
    return not close(found, right) and agree(found, right, 1e-5)
