"""What the tests of the TRPO update compare it with: everything the long way, on dense matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import Case
from torch import Tensor

from trpo_lessons.problem import Problem
from trpo_lessons.trpo import TrustRegion, UpdateReport, trpo_update

Update = Callable[[Problem, Tensor, TrustRegion], tuple[Tensor, UpdateReport]]
REGION = {each.name for each in fields(TrustRegion)}
TO_THE_END = {"cg_iterations": 1000, "residual_tol": 1e-13}  # conjugate gradient until it has converged


def naive_surrogate(problem: Case, theta: Tensor) -> float:
    log_prob = problem.policy(theta, problem.batch.obs).log_prob(problem.batch.actions)
    return (torch.exp(log_prob - problem.batch.log_q).double() * problem.batch.advantages).mean().item()


def naive_mean_kl(problem: Case, new: Tensor, obs: Tensor | None = None) -> float:
    obs = problem.batch.obs if obs is None else obs
    each = [problem.policy(problem.theta, row[None]).kl(problem.policy(new, row[None])).item() for row in obs]
    return sum(each) / len(each)


def naive_gradient(problem: Case) -> np.ndarray:
    at = problem.theta.clone().requires_grad_()
    log_prob = problem.policy(at, problem.batch.obs).log_prob(problem.batch.actions)
    (torch.exp(log_prob - problem.batch.log_q) * problem.batch.advantages).mean().backward()
    return at.grad.numpy()


def naive_fisher(problem: Case) -> np.ndarray:
    old = problem.policy(problem.theta, problem.batch.obs)
    return torch.autograd.functional.hessian(
        lambda theta: old.kl(problem.policy(theta, problem.batch.obs)).mean(), problem.theta
    ).numpy()


def naive_full_step(problem: Case, delta: float, damping: float) -> np.ndarray:
    """sqrt(2 delta / x^T (A + damping I) x) x, with x = (A + damping I)^-1 g, by scipy on the dense matrix."""
    damped = naive_fisher(problem) + damping * np.eye(problem.policy.num_parameters)
    x = scipy.linalg.solve(damped, naive_gradient(problem), assume_a="pos")
    return math.sqrt(2 * delta / (x @ damped @ x)) * x


def run(problem: Case, update: Update = trpo_update, **settings: Any) -> tuple[Tensor, UpdateReport]:
    """One update; `settings` are fields of the trust region, or of the problem."""
    region = TrustRegion(**{name: value for name, value in settings.items() if name in REGION})
    changes = {name: value for name, value in settings.items() if name not in REGION}
    return update(replace(problem, **changes), problem.theta, region)


def full_step(problem: Case, update: Update = trpo_update, **settings: Any) -> np.ndarray:
    """The step before backtracking, recovered from what was returned."""
    new, report = run(problem, update, **settings)
    assert report.accepted, report.reason
    return ((new - problem.theta) / report.step_fraction).numpy()


def assert_nothing_moved(report: UpdateReport) -> None:
    moved = report.mean_kl, report.max_kl, report.step_norm, report.step_fraction, report.predicted_gain
    assert moved == (0, 0, 0, 0, 0)
    assert report.surrogate_after == pytest.approx(report.surrogate_before, nan_ok=True)


def cosine(u: Tensor, v: Tensor) -> float:
    return (u @ v / (u.norm() * v.norm())).item()


class Spy:
    """Calls through, and remembers the samples it was given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seen = function, []

    def __call__(self, *arguments: Any) -> Any:
        self.seen += [argument for argument in arguments if hasattr(argument, "obs")]
        return self.function(*arguments)
