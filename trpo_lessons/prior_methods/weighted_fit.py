"""A policy fitted to weighted samples: the second half of RWR and of REPS.

    theta_new = argmax over theta of  mean of w log pi_theta(a|s)

Weighted maximum likelihood: actions that turned out well count more, and the policy is fitted to them as to any data.
This is the M step of expectation maximisation (Dayan and Hinton, 1997). Nothing here is a step of a chosen length: the
policy goes where the weighted samples are, and how far that is, is found out afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.problem import Problem, Refused
from trpo_lessons.surrogate import Batch, value_and_gradient
from trpo_lessons.trpo import Stopwatch, UpdateReport, moved

FIT_FACTS = ("weights_kl", "effective_samples", "likelihood_gain", "fit_iterations")


@dataclass(frozen=True)
class Weights:
    """How much every sample counts.

    values  [N]  at least 0, with mean 1; float64
    facts   what a report says of how they were found
    """

    values: Tensor
    facts: dict[str, float]

    @classmethod
    def of(cls, values: Tensor, **facts: float) -> Weights:
        """Positive `values` [N], divided by their mean, with `facts` and those of every weighting."""
        weights = cls(values / values.mean(), facts)
        return replace(
            weights, facts={"weights_kl": weights.kl, "effective_samples": weights.effective_samples, **facts}
        )

    @property
    def kl(self) -> float:
        """KL(weighted samples || samples), in nats: 0 where all weights are equal."""
        return float(torch.special.xlogy(self.values, self.values).mean())

    @property
    def effective_samples(self) -> float:
        """Kish's effective sample size, as a share of N: 1 where all weights are equal."""
        return float(1 / self.values.square().mean())


def weighted_fit_update(
    problem: Problem, theta: Tensor, weigh: Callable[[Batch], Weights], fit_iterations: int = 20
) -> tuple[Tensor, UpdateReport]:
    """Fit the policy, from `theta` [num_parameters], to the problem's batch as `weigh` weighs it.

    fit_iterations: of L-BFGS, at most. A network of thousands of parameters has no best fit to be reached, only a
        better one.

    The report's facts (`FIT_FACTS`): `weights_kl` and `effective_samples` of `Weights`; `likelihood_gain`, by how much
    the mean of w log pi has risen; `fit_iterations`, how many were used. Its surrogate is the problem's, so that it can
    be compared with other methods'. The KL that it reports is that of the fitted policy, which nothing bounds.

    Raises ValueError unless fit_iterations is at least 1.
    """
    if fit_iterations < 1:
        raise ValueError(f"fit_iterations must be at least 1, got {fit_iterations}")
    clock, facts = Stopwatch(), dict[str, Any]()
    try:
        with clock.timing("gradient"):
            start = problem.start(theta)
            facts |= start.facts
        with clock.timing("search"):
            weights = weigh(_pairs(problem))
            fitted, fit_facts = fit(weighted_likelihood(problem, weights.values), theta, fit_iterations)
            facts["facts"] = weights.facts | fit_facts
            new = problem.candidate(fitted, start.old)
            facts |= moved(theta, new, start)
    except Refused as refusal:
        return theta, UpdateReport(str(refusal), **(facts | refusal.facts), seconds=clock.seconds)
    return new.theta, UpdateReport("accepted", accepted=True, **facts, seconds=clock.seconds)


def weighted_likelihood(problem: Problem, weights: Tensor) -> Problem:
    """The problem whose surrogate is w log pi, given `weights` [N]: samples keep their weights as advantages."""
    batch = _pairs(problem)
    return replace(problem, batch=replace(batch, advantages=weights.to(batch.advantages)), surrogate=_w_log_pi)


def fit(problem: Problem, theta: Tensor, iterations: int) -> tuple[Tensor, dict[str, float]]:
    """Maximise the problem's surrogate from `theta` by L-BFGS: the new theta, of theta's dtype, and facts of the fit.

    Theta is as it was where nothing better was found.
    """

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at = torch.from_numpy(x).to(theta)
        value, gradient = value_and_gradient(problem.policy, at, problem.batch, problem.surrogate, problem.chunk_size)
        return -value, -gradient.double().cpu().numpy()

    first = theta.detach().double().cpu().numpy()
    before = -loss(first)[0]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    facts = {"likelihood_gain": float(-found.fun) - before, "fit_iterations": float(found.nit)}
    return torch.from_numpy(found.x).to(theta), facts


def _w_log_pi(pi: Distribution, batch: Batch) -> Tensor:
    return batch.advantages * pi.log_prob(batch.actions)


def _pairs(problem: Problem) -> Any:
    """The samples as pairs of a state and its action, a `Batch` or that of games.

    Raises ValueError where a state has several actions.
    """
    if not hasattr(problem.batch, "advantages"):
        raise ValueError("a weighted fit needs one action in every state; a vine has several")
    return problem.batch
