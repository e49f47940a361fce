"""What the exercises share in lesson 10, Atari."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def agree(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Of the same shape and equal within `tolerance`."""
    a, b = (np.asarray(each, dtype=np.float64) for each in (one, other))
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))
