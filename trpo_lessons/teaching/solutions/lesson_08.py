"""Solutions of lesson 08, Nine methods."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats  # type: ignore[import-untyped]
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import logsumexp, softmax  # type: ignore[import-untyped]
from torch import Tensor

Floats = npt.NDArray[np.float64]


def natural_step(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    """The d [n] that maximises g . d - penalty / 2 d . (A + damping I) d: equation 18 with a damped ruler."""
    x: Tensor = torch.linalg.solve(A + damping * torch.eye(len(g), dtype=A.dtype), g)
    return x / penalty


def fisher_product_elsewhere(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    """An estimate of A v [n], with A the Fisher matrix of pi, from actions that q drew."""
    ratios = (log_pi - log_q).exp()
    return scores.T @ (ratios * (scores @ v)) / len(scores)


def refit(thetas: Floats, returns: Floats, count: int, extra: float) -> tuple[Floats, Floats]:
    """CEM's next Gaussian: mean [n] and variance [n] of the elite, with extra noise on the variance."""
    elite = thetas[np.argsort(returns)[-count:]]
    return elite.mean(0), elite.var(0) + extra


def reps_weights(returns: Floats, epsilon: float) -> Floats:
    """The weights [P], exp(J / eta) over their sum, that are epsilon nats away from uniform ones."""
    below = returns - returns.max()
    unit = -below.min()

    def dual(log_eta: float) -> float:
        eta = math.exp(log_eta)
        return float(eta * (epsilon + logsumexp(below / (unit * eta)) - math.log(len(below))))

    found = minimize_scalar(dual, bounds=(-14.0, 8.0), method="bounded", options={"xatol": 1e-10})
    return np.asarray(softmax(below / (unit * math.exp(found.x))))


def welch_interval(a: Floats, b: Floats, confidence: float) -> tuple[float, float]:
    """Welch's interval for the difference of two means, mean(a) - mean(b)."""
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    middle = float(a.mean() - b.mean())
    if va + vb == 0:
        return middle, middle
    df = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    far = float(stats.t.ppf((1 + confidence) / 2, df) * math.sqrt(va + vb))
    return middle - far, middle + far


def choose_and_report(scores: Floats, tuning: int) -> tuple[int, float]:
    """The setting with the best mean over the first `tuning` seeds, and its mean over the others."""
    chosen = int(scores[:, :tuning].mean(1).argmax())
    return chosen, float(scores[chosen, tuning:].mean())
