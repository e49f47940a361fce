"""Explorer of lesson 05: KL and surrogate along the step of one real Hopper batch, and where the search stops."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import FigureBase
from torch import Tensor

from trpo_lessons.kl import fisher_vector_product, mean_kl
from trpo_lessons.line_search import backtracking_line_search
from trpo_lessons.surrogate import surrogate_gradient, surrogate_value
from trpo_lessons.teaching.explorers import Explorer, Stops
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.lesson_01.explorers import text
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREY, VERMILION
from trpo_lessons.trpo import TrustRegion, natural_direction

Floats = npt.NDArray[np.float64]
FARTHEST, POINTS = 1.25, 26  # of the full step
MAX_BACKTRACKS = 40


@dataclass(frozen=True)
class Along:
    """What happens along the full step beta x. KL in nats, gains in units of the standardized advantages."""

    delta: float
    fractions: Floats  # [n], of the full step; the entry 1 is among them
    kl: Floats  # [n], true mean KL
    gain: Floats  # [n], true gain of the surrogate
    kl_model: Floats  # [n], 1/2 d^T A d, without damping
    gain_model: Floats  # [n], g^T d
    tried: Floats  # [k], the fractions that the search tried, in order; the last one was accepted
    tried_kl: Floats  # [k]
    tried_gain: Floats  # [k]


@functools.lru_cache(maxsize=8)
def direction(damping: float) -> tuple[Tensor, float, float]:
    """x [1542], ten iterations of conjugate gradient; x^T (A + damping I) x; and g^T x, on the Hopper batch."""
    policy, theta, batch = hopper_batch()
    gradient = surrogate_gradient(policy, theta, batch)
    found = natural_direction(fisher_vector_product(policy, theta, batch), gradient, TrustRegion(damping=damping))
    return found.x, found.curvature, torch.dot(gradient, found.x).item()


@functools.lru_cache(maxsize=64)
def compute_along(delta: float, damping: float, shrink: float) -> Along:
    """Evaluate the models and the truth along the full step, and search."""
    policy, theta, batch = hopper_batch()
    x, curvature, slope = direction(damping)
    beta = math.sqrt(2 * delta / curvature)
    before = surrogate_value(policy, theta, batch)

    def evaluate(fraction: float) -> tuple[float, float, float]:
        new = theta + fraction * beta * x
        return fraction, mean_kl(policy, theta, new, batch), surrogate_value(policy, new, batch) - before

    tried: list[tuple[float, float, float]] = []

    def acceptable(facts: tuple[float, float, float]) -> bool:
        tried.append(facts)
        return facts[1] <= delta and facts[2] > 0

    found = backtracking_line_search(evaluate, acceptable, shrink, MAX_BACKTRACKS)
    if not found.accepted:
        raise RuntimeError("a step this short should improve the surrogate, and does not")
    fractions, kl, gain = np.array([evaluate(f) for f in np.linspace(0, FARTHEST, POINTS)]).T
    undamped = curvature - damping * torch.dot(x, x).item()
    return Along(
        delta,
        fractions,
        kl,
        gain,
        0.5 * (beta * fractions) ** 2 * undamped,
        beta * fractions * slope,
        *np.array(tried).T,
    )


def at_full_step(numbers: Along) -> int:
    """Where in the arrays the full step is."""
    return int(np.abs(numbers.fractions - 1).argmin())


def facts_of_along(numbers: Along) -> str:
    """Model and truth at the full step, and what the search made of it."""
    full, delta, backtracks = at_full_step(numbers), numbers.delta, len(numbers.tried) - 1
    promised = numbers.gain_model[full] * numbers.tried[-1]
    # Two digits: the share that damping leaves may be close to 1, with a third digit at the edge of rounding (0.98452).
    kl_model, kl = f"{numbers.kl_model[full] / delta:.2f}", text(numbers.kl[full] / delta)
    taken, gain = text(numbers.tried[-1]), text(numbers.tried_gain[-1])
    return (
        f"full step: KL {kl_model} delta by the bowl, {kl} delta in truth; "
        f"gain {text(numbers.gain_model[full])} by the slope, {text(numbers.gain[full])} in truth\n"
        f"accepted: {taken} of the full step, after {backtracks} backtrack{'s' * (backtracks != 1)}: "
        f"KL {text(numbers.tried_kl[-1] / delta)} delta, gain {gain} (promised {text(promised)})"
    )


def draw_along(numbers: Along, figure: FigureBase) -> None:
    """KL above, the surrogate below; models dashed, the truth solid, candidates as marks."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    fractions, delta = numbers.fractions, numbers.delta
    upper.axhline(1, color=GREY, linewidth=1.5, linestyle=":")
    upper.plot(fractions, numbers.kl_model / delta, color=VERMILION, linestyle="--", label="bowl")
    upper.plot(fractions, numbers.kl / delta, color=BLUE, linestyle="-", label="true")
    lower.axhline(0, color=GREY, linewidth=1.5, linestyle=":")
    lower.plot(fractions, numbers.gain_model, color=VERMILION, linestyle="--", label="slope")
    lower.plot(fractions, numbers.gain, color=BLUE, linestyle="-", label="true")
    for axes, values in ((upper, numbers.tried_kl / delta), (lower, numbers.tried_gain)):
        axes.plot(numbers.tried[:-1], values[:-1], "x", color=BLACK, markersize=8, markeredgewidth=2, label="refused")
        axes.plot(numbers.tried[-1:], values[-1:], "o", color=BLACK, markersize=8, label="accepted")
    upper.set(ylabel="mean KL / delta", ylim=(0, max(1.6, 1.05 * numbers.tried_kl[0] / delta)))
    lower.set(xlabel="fraction of the full step", ylabel="gain of L", xlim=(0, FARTHEST))
    upper.legend(fontsize=9, loc="upper left", ncols=2)
    lower.legend(fontsize=9, loc="upper left", ncols=2)


def alt_of_along(numbers: Along) -> str:
    """What the picture shows."""
    full = at_full_step(numbers)
    return (
        f"Mean KL and gain of the surrogate against the fraction of the full step. At the full step the true KL is "
        f"{numbers.kl[full] / numbers.delta:.2g} delta, and the true gain {numbers.gain[full]:.2g} where the straight "
        f"line has {numbers.gain_model[full]:.2g}. A dot at {numbers.tried[-1]:.2g} marks the accepted step."
    )


def along_explorer() -> Explorer[Along]:
    """delta, damping and backtracking factor against KL and surrogate along the step."""
    return Explorer(
        "How far along the step can you trust slope and bowl, and where does the search stop?",
        compute=compute_along,
        facts=facts_of_along,
        draw=draw_along,
        alt=alt_of_along,
        controls=[
            Stops("delta", "delta", [0.001, 0.01, 0.1, 0.5, 1.0, 2.0], 0.01),
            Stops("damping", "damping", [0.0, 0.001, 0.01, 0.03, 0.1, 1.0], 0.1),
            Stops("shrink", "shrink factor", [0.5, 0.7, 0.8, 0.9], 0.5),
        ],
        size=(7.6, 4.6),
    )
