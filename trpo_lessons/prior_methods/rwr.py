"""Reward-weighted regression, step-based (Peters and Schaal, 2007): fit the policy to exponentially weighted actions.

    w = exp(A / temperature), at most `largest_weight`        theta_new = argmax of mean w log pi_theta(a|s)

Peters and Schaal weigh actions by an immediate reward. Here the advantage stands in its place, as it does for all
methods that are compared: what an action is worth, its whole future included. The temperature says how much a good
action is preferred. At a high one all weights are alike, and the policy is fitted to what it did; at a low one a few
samples are all that counts.

Advantages can have long tails: where hardly anything goes wrong any more, an episode that does is many standard
deviations away, and what avoids it too. Without a limit one sample among two thousand can then outweigh all others, and
the policy is fitted to it alone. The limit, 20, is that of advantage-weighted regression (Peng et al., 2019).

To first order in 1 / temperature, what advantages add to the fit is the natural gradient with the temperature as its
penalty: w is 1 + A / temperature, and the fit to it moves by A^-1 g / temperature. On a finite batch that comes on top
of what a fit to equal weights moves by, which is noise, and at high temperatures most of the step.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from trpo_lessons.prior_methods.weighted_fit import FIT_FACTS, Weights, weighted_fit_update
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch
from trpo_lessons.trpo import UpdateReport

RWR_FACTS = FIT_FACTS


def rwr_update(
    problem: Problem,
    theta: Tensor,
    temperature: float = 1.0,
    largest_weight: float = 20.0,
    fit_iterations: int = 20,
) -> tuple[Tensor, UpdateReport]:
    """One update from `theta` [num_parameters]: the policy fitted to exponential weights, and a report.

    temperature     in units of the advantages, which have standard deviation 1 in training
    largest_weight  of a sample, where one with advantage 0 has weight 1; infinite for no limit
    fit_iterations, and the report's facts: see `weighted_fit_update`

    Raises ValueError unless the temperature is above 0, the largest weight at least 1, and there is one action in every
    state.
    """
    if not (0 < temperature < math.inf and largest_weight >= 1):
        raise ValueError(
            f"need a finite temperature above 0 and a largest weight of at least 1, got {temperature}, {largest_weight}"
        )
    weigh = partial(exponential_weights, temperature=temperature, largest_weight=largest_weight)
    return weighted_fit_update(problem, theta, weigh, fit_iterations)


def exponential_weights(batch: Batch, temperature: float, largest_weight: float = math.inf) -> Weights:
    """exp(A / temperature), at most `largest_weight`, divided by its mean."""
    exponents = (batch.advantages.double() / temperature).clamp(max=math.log(largest_weight))
    return Weights.of(torch.exp(exponents - exponents.max()))  # the largest is 1: nothing overflows
