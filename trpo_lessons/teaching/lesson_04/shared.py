"""What the exercises share in lesson 04, Conjugate gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def close(one: Any, other: Any, tolerance: float = 1e-9) -> bool:
    """Equal up to `tolerance`."""
    return bool(torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=tolerance, atol=tolerance))


def keeps_the_type(answer: Tensor, like: Tensor) -> bool:
    """Whether `answer` has the type of numbers of `like`, and hangs on no graph."""
    return answer.dtype == like.dtype and not answer.requires_grad
