"""Six ways to fill a batch's columns wrongly, and what each leaves behind: lesson 06 hunts them.

Reading on tells you who did it. A batch of the balancing act is put together from advantages and log probabilities, and
every bug exchanges one part of that. All numbers come from float64 and a seeded numpy generator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.teaching.checks.hunts import HEALTHY, Hunt
from trpo_lessons.teaching.lesson_06.explorers import FALLEN, UPRIGHT, balancing_act, pushes_back

COPIES, ROWS, LIMIT, LAM = 200, 120, 50, 0.9
SKILL = 0.75
V_OF_THE_FLOOR = 25.0  # a network's opinion of a state it was never fitted to
BUGS = (
    "limit taken for an end",
    "value after a fall",
    "sum across resets",
    "lambda left out",
    "log q of the next row",
    "log q not detached",
)


@dataclass(frozen=True)
class Columns:
    """A record [T, E] of the balancing act, with the values that a network gives to the states; float64."""

    states: Tensor
    actions: Tensor
    rewards: Tensor
    values: Tensor
    next_values: Tensor
    terminated: Tensor
    truncated: Tensor


@functools.cache
def record() -> tuple[Tensor, Columns]:
    """The logits [S, A] of the policy that acted, and its record. V is exact but for the floor."""
    act, pi = balancing_act(), pushes_back(SKILL)
    network = evaluate_policy(act, pi).V.clone()
    network[FALLEN] = V_OF_THE_FLOOR
    rng, likely, P = np.random.default_rng(6), pi.numpy(), act.P.numpy()
    states, ages, rows = np.full(COPIES, UPRIGHT), np.zeros(COPIES, dtype=np.int64), []
    for _ in range(ROWS):
        actions = (rng.random(COPIES) < likely[states, 1]).astype(np.int64)
        chances = P[states, actions].cumsum(axis=1)
        then = (rng.random((COPIES, 1)) >= chances).sum(axis=1)
        ages += 1
        fell, stopped = then == FALLEN, ages == LIMIT
        rows.append((states, actions, then, fell, stopped))
        states, ages = np.where(fell | stopped, UPRIGHT, then), np.where(fell | stopped, 0, ages)
    before, taken, after, over, cut = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
    rewards = act.r[before, taken]
    return pi.log(), Columns(before, taken, rewards, network[before], network[after], over, cut)


@dataclass(frozen=True)
class Parts:
    """What is exchanged.

    no_future  where a residual has no next value, [T, E]
    stops      where the sum of residuals stops, [T, E]
    lam        lambda
    log_q      from log pi(a|s) [T, E], with its gradient, to the log q that is subtracted from it
    """

    no_future: Callable[[Columns], Tensor] = lambda x: x.terminated
    stops: Callable[[Columns], Tensor] = lambda x: x.terminated | x.truncated
    lam: float = LAM
    log_q: Callable[[Tensor], Tensor] = lambda log_pi: log_pi.detach()


WHOLE = Parts()
PARTS = {
    HEALTHY: WHOLE,
    "limit taken for an end": replace(WHOLE, no_future=lambda x: x.terminated | x.truncated),
    "value after a fall": replace(WHOLE, no_future=lambda x: torch.zeros_like(x.terminated)),
    "sum across resets": replace(WHOLE, stops=lambda x: torch.zeros_like(x.terminated)),
    "lambda left out": replace(WHOLE, lam=1.0),
    "log q of the next row": replace(WHOLE, log_q=lambda log_pi: log_pi.detach().roll(-1, dims=0)),
    "log q not detached": replace(WHOLE, log_q=lambda log_pi: log_pi),
}


@dataclass(frozen=True)
class Evidence:
    """Mean and spread of the raw advantages in three kinds of rows, ratios at theta_old, and the gradient of L there.

    falls, limits, inside  (mean, standard deviation) where an episode fell, was cut by its limit, or went on
    ratios                 (least, largest)
    gradient_length        of L at theta_old, with standardized advantages
    cosine                 the auditor's: to the gradient of the same batch with the exact advantages; nan for a zero
    """

    falls: tuple[float, float]
    limits: tuple[float, float]
    inside: tuple[float, float]
    ratios: tuple[float, float]
    gradient_length: float
    cosine: float


def advantages_of(parts: Parts, x: Columns, gamma: float) -> Tensor:
    """[T, E], with what `parts` exchange."""
    residuals = x.rewards + gamma * torch.where(parts.no_future(x), 0.0, x.next_values) - x.values
    decay = gamma * parts.lam * (~parts.stops(x)).double()
    found, later = torch.zeros_like(residuals), torch.zeros_like(residuals[0])
    for t in reversed(range(ROWS)):
        later = residuals[t] + decay[t] * later
        found[t] = later
    return found


def gradient_and_ratios(log_q: Callable[[Tensor], Tensor], advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Of L at theta_old, in the logits [S, A], with standardized `advantages` [T, E]; and the ratios [T, E]."""
    logits, x = record()
    at = logits.clone().requires_grad_()
    log_pi = at.log_softmax(dim=1)[x.states, x.actions]
    ratios = torch.exp(log_pi - log_q(log_pi))
    standardised = (advantages - advantages.mean()) / advantages.std()
    (gradient,) = torch.autograd.grad((ratios * standardised).mean(), at)
    return gradient, ratios.detach()


@functools.cache
def evidence_of(kind: str) -> Evidence:
    """What a batch with this bug leaves behind; `kind` is HEALTHY or one of BUGS."""
    _, x = record()
    act, parts = balancing_act(), PARTS[kind]
    advantages = advantages_of(parts, x, act.gamma)
    exact = evaluate_policy(act, pushes_back(SKILL)).A[x.states, x.actions]
    truth, _ = gradient_and_ratios(WHOLE.log_q, exact)
    gradient, ratios = gradient_and_ratios(parts.log_q, advantages)
    length = float(gradient.norm())
    cosine = float((gradient * truth).sum() / (length * truth.norm())) if length > 1e-12 else float("nan")
    places = (x.terminated, x.truncated & ~x.terminated, ~(x.terminated | x.truncated))
    rows = [advantages[place] for place in places]
    falls, limits, inside = ((float(row.mean()), float(row.std())) for row in rows)
    return Evidence(falls, limits, inside, (float(ratios.min()), float(ratios.max())), length, cosine)


HUNT = Hunt(BUGS, evidence_of)


def table(lineup: dict[str, Evidence]) -> str:
    """The evidence of a line-up, a line for each suspect."""
    lines = [
        f"{'':7}{'A at falls':>13}{'A at limits':>13}{'A elsewhere':>13}{'start ratio':>12}{'gradient':>15}",
        f"{'':7}{'  mean spread' * 3}  from    to  length cosine",
    ]
    for name, e in lineup.items():
        pairs = "".join(f"{short(mean):>6}{short(spread):>7}" for mean, spread in (e.falls, e.limits, e.inside))
        cosine = "none" if math.isnan(e.cosine) else f"{e.cosine:.2f}"
        ends = f"{short(e.ratios[0]):>6}{short(e.ratios[1]):>6}{short(e.gradient_length):>8}{cosine:>7}"
        lines.append(f"{name:7}{pairs}{ends}")
    return "\n".join(lines)


def short(number: float) -> str:
    """Two or three digits; what is only rounding is 0."""
    size = abs(number)
    return "0" if size < 1e-9 else f"{number:.1f}" if size >= 1 else f"{number:.2f}" if size >= 0.1 else f"{number:.3f}"
