"""Five updates with a bug in them, and the reports they leave behind: lesson 05 hunts each from its report alone.

Reading on tells you who did it. An update is put together from five parts, and every bug exchanges one of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons.kl import MatrixVectorProduct, fisher_vector_product, mean_kl
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch, surrogate_gradient, surrogate_value
from trpo_lessons.teaching.checks.hunts import HEALTHY, Hunt
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.pictures import BLACK, BLUE, ORANGE
from trpo_lessons.trpo import TrustRegion, natural_direction

DAMPING, SHRINK, CG_ITERATIONS, MAX_BACKTRACKS = 0.03, 0.9, 10, 40
CAREFUL, BOLD = 1e-4, 2.0  # delta of the two jobs, in nats
BUGS = (
    "KL reversed",
    "square root of 2 missing",
    "no damping",
    "search without KL",
    "graph not detached",
)


@dataclass(frozen=True)
class Report:
    """What an update says about itself, and what an auditor measured afterwards. KL in nats.

    cg_iterations, cg_residual  of conjugate gradient: how many, and the last residual relative to the first
    predicted_gain, gain        g^T step, and by how much the surrogate really rose
    kl                          the mean KL as the update itself measured it, at the theta it returned
    sampled_kl                  the auditor's: an estimate of KL(old || new) from log ratios of the batch alone
    backtracks, fraction        how often the step was shrunk, and what was left of it
    step_norm                   ||theta_new - theta_old||
    """

    delta: float
    cg_iterations: int
    cg_residual: float
    predicted_gain: float
    gain: float
    kl: float
    sampled_kl: float
    backtracks: int
    fraction: float
    step_norm: float


@dataclass(frozen=True)
class Parts:
    """What an update is put together from."""

    fisher: Callable[[Policy, Tensor, Batch], MatrixVectorProduct] = fisher_vector_product
    damping: float = DAMPING
    length: Callable[[float, float], float] = lambda delta, curvature: math.sqrt(2 * delta / curvature)
    kl: Callable[[Policy, Tensor, Tensor, Batch], float] = mean_kl
    acceptable: Callable[[float, float, float], bool] = lambda gain, kl, delta: gain > 0 and kl <= delta


def undetached_fisher_product(policy: Policy, theta: Tensor, batch: Batch) -> MatrixVectorProduct:
    """The mean KL differentiated twice, except that theta moves on both sides of it."""

    def product(v: Tensor) -> Tensor:
        at = theta.clone().requires_grad_()
        kl = policy(at, batch.obs).kl(policy(at, batch.obs)).mean()
        (slope,) = torch.autograd.grad(kl, at, create_graph=True)
        (result,) = torch.autograd.grad(torch.dot(slope, v), at)
        return result

    return product


def reversed_kl(policy: Policy, theta_old: Tensor, theta_new: Tensor, batch: Batch) -> float:
    """Mean of KL(new || old)."""
    return mean_kl(policy, theta_new, theta_old, batch)


WHOLE = Parts()
PARTS = {
    HEALTHY: WHOLE,
    "KL reversed": replace(WHOLE, kl=reversed_kl),
    "square root of 2 missing": replace(WHOLE, length=lambda delta, curvature: math.sqrt(delta / curvature)),
    "no damping": replace(WHOLE, damping=0.0),
    "search without KL": replace(WHOLE, acceptable=lambda gain, _kl, _delta: gain > 0),
    "graph not detached": replace(WHOLE, fisher=undetached_fisher_product),
}


def sampled_kl(policy: Policy, theta: Tensor, batch: Batch) -> float:
    """Mean of w - 1 - log w over the batch, with w = pi_theta / q: KL(old || new), estimated without its formula."""
    with torch.no_grad():
        log_w = policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q
    return (log_w.exp() - 1 - log_w).mean().item()


def run_update(parts: Parts, delta: float, policy: Policy, theta: Tensor, batch: Batch) -> Report:
    """One update from `theta` [num_parameters], put together from `parts`, and its report."""
    gradient = surrogate_gradient(policy, theta, batch)
    region = TrustRegion(damping=parts.damping, cg_iterations=CG_ITERATIONS)
    direction = natural_direction(parts.fisher(policy, theta, batch), gradient, region)
    step = parts.length(delta, direction.curvature) * direction.x
    before = surrogate_value(policy, theta, batch)

    def evaluate(fraction: float) -> tuple[float, float]:
        new = theta + fraction * step
        return surrogate_value(policy, new, batch) - before, parts.kl(policy, theta, new, batch)

    search = backtracking_line_search(evaluate, lambda facts: parts.acceptable(*facts, delta), SHRINK, MAX_BACKTRACKS)
    residuals, taken = direction.residual_norms, search.fraction * step
    return Report(
        delta=delta,
        cg_iterations=len(residuals) - 1,
        cg_residual=residuals[-1] / residuals[0],
        predicted_gain=torch.dot(gradient, taken).item(),
        gain=search.facts[0],
        kl=search.facts[1],
        sampled_kl=sampled_kl(policy, theta + taken, batch),
        backtracks=search.backtracks,
        fraction=search.fraction,
        step_norm=taken.norm().item(),
    )


@functools.cache
def reports_of(kind: str) -> tuple[Report, Report]:
    """The reports of the careful and the bold job on the Hopper batch; `kind` is HEALTHY or one of BUGS."""
    policy, theta, batch = hopper_batch()
    careful, bold = (run_update(PARTS[kind], delta, policy, theta, batch) for delta in (CAREFUL, BOLD))
    return careful, bold


HUNT = Hunt(BUGS, reports_of)


Lineup = dict[str, tuple[Report, Report]]
JOBS = {"careful": 0, "bold": 1}
ROWS: dict[str, Callable[[Report], str]] = {
    "CG iterations": lambda r: f"{r.cg_iterations}",
    "residual of CG": lambda r: f"{r.cg_residual:.2f}",
    "promised gain": lambda r: f"{r.predicted_gain:.2g}",
    "gain": lambda r: f"{r.gain:.2g}",
    "KL / delta": lambda r: f"{r.kl / r.delta:.2f}",
    "audit / delta": lambda r: f"{r.sampled_kl / r.delta:.2f}",
    "backtracks": lambda r: f"{r.backtracks}",
    "||step||": lambda r: f"{r.step_norm:.2g}",
}


def table(lineup: Lineup, job: str) -> str:
    """The reports of one job, "careful" or "bold", a column for each update: narrow enough for a small window."""
    reports = [pair[JOBS[job]] for pair in lineup.values()]
    lines = [f"{'':14}" + "".join(f"{name:>8}" for name in lineup)]
    lines += [f"{name:14}" + "".join(f"{shown(report):>8}" for report in reports) for name, shown in ROWS.items()]
    return "\n".join(lines)


def draw(lineup: Lineup, figure: FigureBase) -> None:
    """KL over delta of every update, as it measured it and as the audit did: the careful job left, the bold right."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (job, place) in zip(panels, JOBS.items(), strict=True):
        places, reports = range(len(lineup)), [pair[place] for pair in lineup.values()]
        own, audit = ([value / r.delta for r, value in zip(reports, values, strict=True)] for values in _kls(reports))
        axes.bar([x - 0.2 for x in places], own, 0.4, color=BLUE, label="by its own account")
        axes.bar([x + 0.2 for x in places], audit, 0.4, color=ORANGE, hatch="//", label="audit")
        axes.axhline(1, color=BLACK, linestyle="--", linewidth=1.2)
        axes.set(title=f"{job} job", ylim=(0, 2.1))
        axes.set_xticks(places, lineup)
    panels[-1].legend(loc="upper right")
    figure.supylabel("KL / delta", fontsize=11)


def _kls(reports: list[Report]) -> tuple[list[float], list[float]]:
    return [report.kl for report in reports], [report.sampled_kl for report in reports]


def alt(lineup: Lineup) -> str:
    """What `draw` shows, with its numbers: whichever seed has shuffled the letters."""
    told = []
    for job, place in JOBS.items():
        pairs = ", ".join(
            f"{n} {r[place].kl / r[place].delta:.2f} and {r[place].sampled_kl / r[place].delta:.2f}"
            for n, r in lineup.items()
        )
        told.append(f"In the {job} job: {pairs}.")
    return "Bars of KL over delta, by the update's own account and by the audit, with a dashed line at 1. " + " ".join(
        told
    )
