"""Explorers of lesson 02: how far L and its estimate can be trusted, and what importance weights cost.

The world is the frozen lake of lesson 01, now in fog: the walker feels how slippery the ground is, and sees nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons.improvement_bound import surrogate_objective
from trpo_lessons.mdp import as_float64, draw, evaluate_policy
from trpo_lessons.policies import CategoricalHead, linear_policy
from trpo_lessons.teaching.explorers import Explorer, Slider, Stops, upright
from trpo_lessons.teaching.lesson_01.explorers import lake, text
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

Floats = npt.NDArray[np.float64]
WORLD = lake(gamma=0.9)
# What the walker feels on the path, on the ice and in the water, [S, 1].
SLIPPERY = as_float64([[0.0], [0.3], [1.0]])
POLICY = linear_policy(1, CategoricalHead(3))
# Three weights, all zero, and three biases: at first the walker does the same everywhere.
THETA_OLD = torch.cat([torch.zeros(3, dtype=torch.float64), as_float64([0.9, 0.08, 0.02]).log()])
FARTHEST = 6.0
LARGEST_BATCH = 6400


def table(theta: Tensor) -> Tensor:
    """The policy [S, A] of the walker in the fog, state by state."""
    return POLICY(theta, SLIPPERY).parameters[0].softmax(-1)


def surrogate_of(theta: Tensor) -> Tensor:
    """L (equation 3) as a function of theta, a number."""
    return surrogate_objective(WORLD, table(THETA_OLD), table(theta))


@functools.cache
def uphill() -> Tensor:
    """The direction [6], of length 1, in which L rises fastest from THETA_OLD."""
    theta = THETA_OLD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate_of(theta), theta)
    direction: Tensor = gradient / gradient.norm()
    return direction


# How far can you step?


@dataclass(frozen=True)
class Step:
    """Gains over the old policy's eta along the gradient: of the truth, of L, and of L as one batch sees it.

    The last entry of every array belongs to the chosen step, the others to a range around it.
    """

    samples: int
    steps: Floats  # [n]
    truth: Floats  # [n]
    surrogate: Floats  # [n]
    exact_error: Floats  # [n], standard error of a batch's estimate of the surrogate's gain, in closed form
    exact_share: Floats  # [n], what a sample is worth: effective over actual sample size, in the limit of many
    estimate: Floats  # [n], of this batch
    error: Floats  # [n], standard error that this batch reports
    share: Floats  # [n], effective sample size of this batch over its size


@functools.lru_cache(maxsize=64)
def compute_step(step: float, samples: int, batch: int) -> Step:
    """Step along the gradient; batch number `batch` holds `samples` pairs of state and action from the old policy."""
    steps = torch.cat([torch.linspace(0, min(FARTHEST, 2 * step), 81, dtype=torch.float64), as_float64([step])])
    pi_old, policies = table(THETA_OLD), torch.stack([table(THETA_OLD + t * uphill()) for t in steps])
    old = evaluate_policy(WORLD, pi_old)
    visits = (1 - WORLD.gamma) * old.rho
    pairs = visits[:, None] * pi_old  # [S, A], the distribution of a sample
    ratios = policies / pi_old  # [n, S, A]
    # What one sample says about the gain: its term of equation 15 less the same term at theta_old, in units of eta.
    terms = (ratios - 1) * old.A / (1 - WORLD.gamma)  # [n, S, A]

    uniforms = as_float64(np.random.default_rng(batch).random((2, LARGEST_BATCH)))[:, :samples]
    states = draw(visits.expand(samples, -1), uniforms[0])
    actions = draw(pi_old[states], uniforms[1])
    sampled_terms, weights = terms[:, states, actions], ratios[:, states, actions]  # [n, samples]

    surrogate = (pairs * terms).sum((-2, -1))
    variance = (pairs * terms.square()).sum((-2, -1)) - surrogate.square()
    arrays = {
        "steps": steps,
        "truth": evaluate_policy(WORLD, policies).eta - old.eta,
        "surrogate": surrogate,
        "exact_error": (variance.clamp(min=0) / samples).sqrt(),
        "exact_share": 1 / (pairs * ratios.square()).sum((-2, -1)),
        "estimate": sampled_terms.mean(-1),
        "error": sampled_terms.std(-1) / samples**0.5,
        "share": weights.sum(-1).square() / weights.square().sum(-1) / samples,
    }
    return Step(samples, **{name: array.numpy() for name, array in arrays.items()})


def facts_of_step(numbers: Step) -> str:
    """What L promises, what is true, and how well the batch knows either."""
    promised, error, samples = numbers.surrogate[-1], numbers.exact_error[-1], numbers.samples
    within = abs(numbers.estimate[-1] - promised) < 3 * error
    return (
        f"step {numbers.steps[-1]:g}: L promises a gain of {text(promised)}, and {text(numbers.truth[-1])} is true\n"
        f"{samples} samples know the promise with a standard error of {text(error)}; this batch is within three of "
        f"them: {'yes' if within else 'no'}\n"
        f"seen from there, {samples} samples are worth {text(samples * numbers.exact_share[-1])}"
    )


def draw_step(numbers: Step, figure: FigureBase) -> None:
    """Gains along the step, and below them what a sample is worth."""
    upper, lower = figure.subplots(2, 1, height_ratios=[1.8, 1], sharex=True)
    steps = numbers.steps[:-1]
    low, high = numbers.estimate - 2 * numbers.error, numbers.estimate + 2 * numbers.error
    upper.axhline(0, color=GREY, linewidth=1, linestyle="-")
    upper.fill_between(steps, low[:-1], high[:-1], color=SKY, alpha=0.35, linewidth=0)
    upper.plot(steps, numbers.estimate[:-1], label="L as sampled, ± 2 errors", color=BLUE, linestyle="-.")
    upper.plot(steps, numbers.surrogate[:-1], label="L", color=VERMILION, linestyle="--")
    upper.plot(steps, numbers.truth[:-1], label="true", color=BLACK, linestyle="-", linewidth=2.5)
    upper.errorbar(numbers.steps[-1], numbers.estimate[-1], 2 * numbers.error[-1], fmt="o", color=BLUE, capsize=4)
    upper.set(ylabel="gain", xlim=(0, steps[-1]))
    upper.legend(fontsize=9, loc="upper left", frameon=True, framealpha=0.85, edgecolor="none")
    # Thick and pale below thin and dark: where the two coincide, both are still seen.
    lower.plot(steps, numbers.exact_share[:-1], color=ORANGE, linestyle="-", linewidth=6, alpha=0.5, label="on average")
    lower.plot(steps, numbers.share[:-1], color=BLUE, linestyle="-.", linewidth=1.6, label="this batch")
    for axes in (upper, lower):
        axes.axvline(numbers.steps[-1], color=GREY, linewidth=1, linestyle=":")
    lower.set(xlabel="step along the gradient", ylabel="worth of a sample", ylim=(0, 1.05))
    lower.legend(fontsize=9, loc="lower left")


def alt_of_step(numbers: Step) -> str:
    """What the picture shows."""
    kept = "is above zero" if numbers.truth[-1] > 0 else "is below zero"
    low, high = (numbers.estimate[-1] + sign * 2 * numbers.error[-1] for sign in (-1, 1))
    band = "contains zero" if low < 0 < high else "does not contain zero"
    return (
        f"Gain against step. L rises; at {numbers.steps[-1]:g} the true gain {kept}. The estimate of {numbers.samples} "
        f"samples has a band of two standard errors either way, which {band} there. Below, the worth of a sample is "
        f"{numbers.exact_share[-1]:.2g}."
    )


def step_explorer() -> Explorer[Step]:
    """Step size and sample size against L, its estimate and the truth."""
    return Explorer(
        "How far can you step before L, and then its estimate, part company with the truth?",
        compute=compute_step,
        facts=facts_of_step,
        draw=draw_step,
        alt=alt_of_step,
        controls=[
            Stops("step", "step size", [0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0], 2.0),
            # The picture starts where its three curves are apart.
            Stops("samples", "samples", [25, 100, 400, 1600, LARGEST_BATCH], 100),
            Slider("batch", "batch number", 0, 9, 1, 2),
        ],
        size=(7.6, 4.2),
        panel_height=4.2,
    )


# Pictures that the lesson draws from numbers of its own


def draw_walk(figure: FigureBase, steps: Tensor, promised: Tensor, true: Tensor, haste: Tensor) -> None:
    """Gains [n] along the gradient, and the probability of haste [n, 3] in each state."""
    left, right = figure.subplots(1, 2)
    left.axhline(0, color=GREY, linewidth=1, linestyle="-")
    left.plot(steps, promised, color=VERMILION, linestyle="--", label="L")
    left.plot(steps, true, color=BLACK, linestyle="-", label="true")
    left.set(xlabel="step along the gradient", ylabel="gain over the old policy")
    left.legend()
    for state, line in zip(("path", "ice", "water"), haste.T, strict=True):
        right.plot(steps, line, label=state)
    right.set(xlabel="step along the gradient", ylabel="probability of haste", ylim=(0, 1))
    right.legend()


def draw_estimates(figure: FigureBase, panels: Sequence[tuple[int, Tensor, float, float]]) -> None:
    """For each (samples, estimates [n], exact mean, exact error): a histogram, and the bell curve of the theory."""
    for axes, (count, estimates, mean, error) in zip(figure.subplots(1, len(panels), sharex=True), panels, strict=True):
        axes.hist(estimates, bins=40, density=True, color=SKY)
        x = np.linspace(-0.15, 0.25, 301)
        axes.plot(x, np.exp(-(((x - mean) / error) ** 2) / 2) / (error * math.sqrt(2 * math.pi)), color=BLUE)
        axes.axvline(mean, color=VERMILION, linestyle="--")
        axes.set(title=f"{count} samples", xlabel="estimate", yticks=[], xlim=(-0.15, 0.25))


def draw_objectives(figure: FigureBase, steps: Tensor, promised: Tensor, with_logs: Tensor, true: Tensor) -> None:
    """Gains [n] along the gradient: L, the version with logarithms, and the truth."""
    axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="-")
    axes.plot(steps, promised, color=VERMILION, linestyle="--", label="L: ratio times advantage")
    axes.plot(steps, with_logs, color=PURPLE, linestyle="-.", label="logarithm times advantage")
    axes.plot(steps, true, color=BLACK, linestyle="-", label="true")
    axes.set(xlabel="step along the gradient", ylabel="gain over the old policy")
    axes.legend()


def draw_errors(figure: FigureBase, errors: dict[float, dict[str, float]]) -> None:
    """Bars of the standard error, for each step and for each choice of whose actions are taken."""
    axes, names = figure.subplots(), list(next(iter(errors.values())))
    looks = zip((BLUE, ORANGE, GREEN, GREY), ("", "//", "..", "xx"), strict=True)
    for i, (name, (color, hatch)) in enumerate(zip(names, looks, strict=True)):
        heights = [of_step[name] for of_step in errors.values()]
        axes.bar(np.arange(len(errors)) + 0.2 * i - 0.3, heights, 0.2, label=name, color=color, hatch=hatch)
    axes.set_xticks(range(len(errors)), [f"step {step:g}" for step in errors])
    axes.set_ylabel("standard error, units of eta")
    axes.legend(title="actions from", loc="upper left")


# What do importance weights cost?

LARGEST_SAMPLE, MOST_DIMENSIONS = 1000, 20


@dataclass(frozen=True)
class Weights:
    """Importance weights between two normal policies whose means differ, for actions drawn from the old one."""

    shift: float  # of the mean, in standard deviations, in every coordinate
    dimensions: int
    actions: Floats  # [N], first coordinate
    shares: Floats  # [N], of the total weight, largest first
    kl: float  # nats, either way round: two normal policies with the same spread
    worth: float  # of a sample, in the limit of many: exp(-2 KL)
    half: int  # so many samples carry half of the weight


def compute_weights(shift: float, dimensions: int, samples: int) -> Weights:
    """Draw actions of `dimensions` coordinates from a standard normal policy and weigh them for a shifted one."""
    actions = np.random.default_rng(0).standard_normal((LARGEST_SAMPLE, MOST_DIMENSIONS))[:samples, :dimensions]
    kl = dimensions * shift**2 / 2
    log_weights = shift * actions.sum(-1) - kl
    weights = np.sort(np.exp(log_weights - log_weights.max()))[::-1]
    shares = weights / weights.sum()
    half = int(np.searchsorted(shares.cumsum(), 0.5)) + 1
    return Weights(shift, dimensions, actions[:, 0], shares, kl, math.exp(-2 * kl), half)


def facts_of_weights(numbers: Weights) -> str:
    """The distance, what the samples are worth, and how few of them count."""
    samples = len(numbers.shares)
    worth = samples * numbers.worth
    return (
        f"KL = {text(numbers.kl)}, so a sample is worth exp(-2 KL) = {text(numbers.worth)}\n"
        f"{samples} samples are worth {'less than one' if worth < 1 else text(worth)}\n"
        f"half of all the weight lies on {numbers.half} of them"
    )


def draw_weights(numbers: Weights, figure: FigureBase) -> None:
    """First one coordinate of the two policies, then how the weight is shared out."""
    first, second = figure.subplots(*((2, 1) if upright(figure) else (1, 2)))
    x = np.linspace(-4, 6, 201)
    for mean, name, color, dashes in ((0.0, "old", BLUE, "-"), (numbers.shift, "new", VERMILION, "--")):
        first.plot(
            x, np.exp(-((x - mean) ** 2) / 2) / math.sqrt(2 * math.pi), label=name, color=color, linestyle=dashes
        )
    first.plot(numbers.actions, np.full(len(numbers.actions), -0.015), "|", color=BLACK, markersize=6, alpha=0.5)
    first.set(xlabel="one coordinate of the action", ylabel="density", ylim=(-0.03, 0.45))
    first.legend(fontsize=9)
    samples = len(numbers.shares)
    percent = 100 * np.arange(samples + 1) / samples
    second.plot(
        percent, 100 * np.append(0, numbers.shares.cumsum()), color=VERMILION, linestyle="-", label="they carry"
    )
    second.plot([0, 100], [0, 100], color=GREY, linestyle=":", label="if all weighed the same")
    carried = numbers.shares[: numbers.half].sum()
    second.plot(100 * numbers.half / samples, 100 * carried, "o", color=BLACK)
    second.set(
        title="who carries the weight", xlabel="% of samples, heaviest first", ylabel="% of weight", ylim=(0, 105)
    )
    second.legend(fontsize=9, loc="lower right")


def alt_of_weights(numbers: Weights) -> str:
    """What the picture shows."""
    return (
        f"Two bell curves, {numbers.shift:g} standard deviations apart, and a curve of how the weight is shared out: "
        f"half of it lies on {numbers.half} of {len(numbers.shares)} samples."
    )


def weights_explorer() -> Explorer[Weights]:
    """Shift, dimensions and sample size against the effective sample size."""
    return Explorer(
        "What do importance weights cost?",
        compute=compute_weights,
        facts=facts_of_weights,
        draw=draw_weights,
        alt=alt_of_weights,
        controls=[
            Slider("shift", "shift", 0.0, 2.0, 0.1, 0.5),
            Stops("dimensions", "coordinates", [1, 2, 5, 10, MOST_DIMENSIONS], 1),
            Stops("samples", "samples", [10, 100, LARGEST_SAMPLE], LARGEST_SAMPLE),
        ],
        size=(8.4, 3.8),
        panel_height=4.6,
    )
