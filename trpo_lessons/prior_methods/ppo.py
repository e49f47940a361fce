"""Proximal policy optimisation (Schulman et al., 2017): many small steps, and a surrogate that stops paying.

    maximise over theta  mean of  min(r A, clip(r, 1 - clip, 1 + clip) A)        r = pi_theta(a|s) / pi_old(a|s)

There is no constraint. A sample whose ratio has gone far enough in the direction that its advantage asks for adds
nothing more to the objective, and has no gradient: the other samples decide where theta goes from there, and may take
its ratio further still. What holds the policy back is that, the length of the steps, and how many of them there are;
the KL that comes of it is found out afterwards.

The steps are Adam's, on minibatches. Each update begins with moments of zero, so that it is a function of its problem
and theta alone, as all methods here are. Implementations that keep one Adam for the whole run carry its moments from
batch to batch. There is no bonus for entropy, which the paper has in games, and V is fitted as it is for TRPO.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.problem import Problem, Refused
from trpo_lessons.surrogate import Batch, Surrogate, importance_ratios, mean_over, value_and_gradient
from trpo_lessons.trpo import Stopwatch, UpdateReport, moved

PPO_FACTS = ("clipped_share", "largest_ratio", "gradient_steps")


def ppo_update(
    problem: Problem,
    theta: Tensor,
    clip: float = 0.2,
    epochs: int = 10,
    minibatch_size: int = 64,
    learning_rate: float = 3e-4,
) -> tuple[Tensor, UpdateReport]:
    """One update from `theta` [num_parameters]: the theta after all steps on the problem's batch, and a report.

    clip            how far a ratio pays, on either side of 1 (section 3 of the paper named above)
    epochs          how often each sample is used
    minibatch_size  samples to a step; the last step of an epoch may have fewer
    learning_rate   of Adam: about how far a step moves each parameter

    The report's facts (`PPO_FACTS`), at the new theta: `clipped_share` of the samples have a ratio outside
    1 - clip to 1 + clip; `largest_ratio`, 1 / r where that is larger; `gradient_steps` were taken. Its surrogate is the
    problem's, not clipped, so that it can be compared with other methods'.

    Raises ValueError for settings out of range, and where there is not one action in every state. Refused where
    something is not finite, or the gradient at `theta` is zero.
    """
    if not (0 < clip < 1 and epochs >= 1 and minibatch_size >= 1 and 0 < learning_rate < math.inf):
        raise ValueError(
            "need 0 < clip < 1, epochs and minibatch_size >= 1 and a finite learning rate above 0, got "
            f"{clip}, {epochs}, {minibatch_size}, {learning_rate}"
        )
    if not hasattr(problem.batch, "advantages"):
        raise ValueError("a ratio is clipped for one action in every state; a vine has several")
    clock, facts = Stopwatch(), dict[str, Any]()
    try:
        with clock.timing("gradient"):
            start = problem.start(theta)
            facts |= start.facts
        with clock.timing("search"):
            objective = partial(clipped_surrogate, clip=clip)
            ascended, steps = _ascend(problem, objective, theta, epochs, minibatch_size, learning_rate)
            new = problem.candidate(ascended, start.old)
            facts |= moved(theta, new, start)
            facts["facts"] = {**_ratios_at(problem, new.theta, clip), "gradient_steps": float(steps)}
    except Refused as refusal:
        return theta, UpdateReport(str(refusal), **(facts | refusal.facts), seconds=clock.seconds)
    return new.theta, UpdateReport("accepted", accepted=True, **facts, seconds=clock.seconds)


def clipped_surrogate(pi: Distribution, batch: Batch, clip: float) -> Tensor:
    """Its terms, [N]: the lower of what the ratio and the clipped ratio are worth (equation 7 there).

    The lower one: a ratio that went the wrong way is not clipped, and its sample goes on pulling it back.
    """
    ratios = importance_ratios(pi, batch)
    return torch.minimum(ratios * batch.advantages, ratios.clamp(1 - clip, 1 + clip) * batch.advantages)


def _ascend(
    problem: Problem, objective: Surrogate, theta: Tensor, epochs: int, minibatch_size: int, learning_rate: float
) -> tuple[Tensor, int]:
    """Theta after Adam's steps up the objective, and how many there were.

    Each epoch takes the samples in another order; the orders are the same in every update.
    """
    at = theta.detach().clone()
    adam = torch.optim.Adam([at], lr=learning_rate, maximize=True)
    generator, steps = torch.Generator().manual_seed(0), 0
    for _ in range(epochs):
        order = torch.randperm(len(problem.batch), generator=generator)
        for rows in torch.split(order, minibatch_size):
            some = problem.batch[rows.to(theta.device)]
            _, at.grad = value_and_gradient(problem.policy, at, some, objective, problem.chunk_size)
            adam.step()
            steps += 1
    return at, steps


def _ratios_at(problem: Problem, theta: Tensor, clip: float) -> dict[str, float]:
    largest: list[Tensor] = []

    def outside(batch: Any) -> Tensor:
        logs = problem.policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q
        largest.append(logs.abs().max())
        is_outside: Tensor = (logs < math.log1p(-clip)) | (logs > math.log1p(clip))
        return is_outside.double().sum()

    with torch.no_grad():
        share = mean_over(problem.batch, outside, problem.chunk_size).item()
    return {"clipped_share": share, "largest_ratio": torch.stack(largest).max().double().exp().item()}
