"""Conjugate gradient: solve A x = b when all one can do with A is multiply by it.

Reading order: after `kl`, though it needs nothing from there. Lesson 04.

A must be symmetric and positive definite. The method walks along directions p that are conjugate (p_i^T A p_j = 0), so
that a minimum along one direction is never undone by the next; in exact arithmetic it arrives after at most as many
steps as A has distinct eigenvalues. Hestenes and Stiefel (1952); notation of Nocedal and Wright, Algorithm 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Where conjugate gradient stopped.

    x               [n]  the approximate solution
    product         [n]  A x, from the residual that comes along: no further product is spent on it
    residual_norms  ||b - A x|| before the first iteration and after each one
    converged       whether the last of them is at most residual_tol * ||b||
    breakdown       why it stopped early, if b or a product was not finite or A turned out not to be positive definite;
                    else ""
    """

    x: Tensor
    product: Tensor
    residual_norms: tuple[float, ...]
    converged: bool
    breakdown: str = ""

    @property
    def curvature(self) -> float:
        """x^T A x."""
        return _dot(self.x, self.product)


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], b: Tensor, iterations: int = 10, residual_tol: float = 1e-10
) -> Solution:
    """Solve A x = b [n] from x = 0, with at most `iterations` products `matvec(p)` = A p.

    Stops when ||b - A x|| <= residual_tol * ||b||, or when a product has broken down, at the x before it. (Where a step
    itself is too long for the dtype, x is not finite, and nor is its `curvature`.) Dot products are in float64 whatever
    the dtype of b: the search directions lose their conjugacy to rounding first of all there.

    Raises ValueError when b is not a vector or `iterations` is negative.
    """
    if b.ndim != 1 or iterations < 0:
        raise ValueError(f"need a vector b and iterations >= 0, got shape {tuple(b.shape)} and {iterations}")
    x = torch.zeros_like(b)
    r = b.clone()  # the residual b - A x, and minus the gradient of 1/2 x^T A x - b^T x
    p = r.clone()
    rr = _dot(r, r)
    norms = [rr**0.5]
    if not math.isfinite(rr):
        return Solution(x, b - r, tuple(norms), False, f"the norm of b is {norms[0]:.3g}, but must be finite")
    target = residual_tol * norms[0]
    for _ in range(iterations):
        if norms[-1] <= target:
            break
        a_p = matvec(p)
        curvature = _dot(p, a_p)
        if not 0 < curvature < math.inf:
            why = f"p^T A p is {curvature:.3g}, but must be positive and finite"
            return Solution(x, b - r, tuple(norms), False, why)
        alpha = rr / curvature  # exact minimum along p
        x = x + alpha * p
        r = r - alpha * a_p
        rr, rr_before = _dot(r, r), rr
        p = r + (rr / rr_before) * p  # makes the next direction conjugate to all the earlier ones
        norms.append(rr**0.5)
    return Solution(x, b - r, tuple(norms), norms[-1] <= target)


def _dot(u: Tensor, v: Tensor) -> float:
    return torch.dot(u.double(), v.double()).item()
