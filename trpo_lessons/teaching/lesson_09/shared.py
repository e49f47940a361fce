"""What the exercises share in lesson 09, Locomotion."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def agree(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal within `tolerance`, relative and absolute."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
