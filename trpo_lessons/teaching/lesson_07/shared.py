"""What the exercises share in lesson 07, The vine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def close(one: Any, other: Any) -> bool:
    """Equal up to rounding."""
    return bool(np.allclose(np.asarray(one), np.asarray(other), rtol=1e-9, atol=1e-9))
