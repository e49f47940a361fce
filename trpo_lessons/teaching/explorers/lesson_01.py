"""Explorers of lesson 01: how far a mixture may go, what the discount costs, and a triangle of policies.

All three live on the frozen lake of the lesson (`lake`), where hurrying pays on the path and not on the ice.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, as_float64, evaluate_policy
from trpo_lessons.teaching.explorers import Explorer, Stops
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

Floats = npt.NDArray[np.float64]
PATH, ICE, WATER = STATES = range(3)
CAREFUL, HASTY, WAIT = ACTIONS = range(3)
ACTION_NAMES = ("careful", "hasty", "wait")
# The policy that every explorer starts from, the same in every state: careful 80 times in 100.
MOSTLY_CAREFUL = as_float64([[0.8, 0.1, 0.1]] * 3)
ALWAYS_HASTY = as_float64([[0.0, 1.0, 0.0]] * 3)


def lake(gamma: float) -> TabularMDP:
    """A way home along a frozen lake: states PATH, ICE and WATER, actions CAREFUL, HASTY and WAIT.

    A hasty step on the path is a short cut over the ice. A hasty step on the ice may end in the water, which is cold
    and hard to get out of, whatever one does there.
    """
    P = np.zeros((3, 3, 3))
    P[PATH, CAREFUL] = 0.9, 0.1, 0.0
    P[PATH, HASTY] = 0.1, 0.9, 0.0
    P[PATH, WAIT] = 1.0, 0.0, 0.0
    P[ICE, CAREFUL] = 0.8, 0.2, 0.0
    P[ICE, HASTY] = 0.4, 0.2, 0.4
    P[ICE, WAIT] = 0.0, 0.9, 0.1
    P[WATER, :] = 0.25, 0.0, 0.75
    r = np.array([[0.5, 1.0, 0.2], [0.5, 1.0, 0.2], [-1.0, -1.0, -1.0]])
    return TabularMDP(as_float64(P), as_float64(r), as_float64([1.0, 0.0, 0.0]), gamma)


def text(value: float) -> str:
    """Three significant digits, without an exponent for large numbers; what is zero up to rounding is 0."""
    if value == -np.inf:
        return "minus infinity"
    rounded = float(f"{value if abs(value) > 1e-12 else 0:.3g}")
    return f"{rounded:.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"


# How far may the mixture go?

BOUNDS = {"(6)": BLUE, "(8)": SKY, "4 epsilon": PURPLE, "linear": GREEN, "(9), KL": ORANGE}


@dataclass(frozen=True)
class Mixture:
    """Gains over the old policy's eta: of the truth, of L and of every bound, along a range of alpha and at one."""

    gamma: float
    alpha: float
    alphas: Floats  # [n]
    truth: Floats  # [n]
    surrogate: Floats  # [n]
    bounds: dict[str, Floats]  # [n] each
    true_gain: float
    promised_gain: float
    guaranteed: dict[str, float]
    safe_alpha: float  # up to here equation 6 guarantees that eta does not fall


def compute_mixture(gamma: float, alpha: float) -> Mixture:
    """Mix always hasty into mostly careful (equation 5)."""
    mdp, old = lake(gamma), MOSTLY_CAREFUL
    alphas = torch.linspace(0, min(1.0, 2 * alpha), 101, dtype=torch.float64)
    eta = evaluate_policy(mdp, old).eta

    def gains(alphas: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mixed = ib.mixture_policy(old, ALWAYS_HASTY, alphas)
        bounds = {
            "(6)": ib.mixture_bound(mdp, old, ALWAYS_HASTY, alphas),
            "(8)": ib.simple_mixture_bound(mdp, old, ALWAYS_HASTY, alphas),
            "4 epsilon": ib.total_variation_bound(mdp, old, mixed),
            "linear": ib.linear_bound(mdp, old, mixed),
            "(9), KL": ib.kl_bound(mdp, old, mixed),
        }
        surrogate = ib.surrogate_objective(mdp, old, mixed)
        return evaluate_policy(mdp, mixed).eta - eta, surrogate - eta, {k: v - eta for k, v in bounds.items()}

    truth, surrogate, bounds = gains(alphas)
    true_gain, promised_gain, guaranteed = gains(as_float64(alpha))
    slope = float(ib.surrogate_objective(mdp, old, ALWAYS_HASTY) - eta)
    price = 2 * float(ib.largest_expected_advantage(mdp, old, ALWAYS_HASTY)) * gamma
    # Where slope alpha equals the penalty of equation 6; a mixture's alpha ends at 1.
    crossing = slope * (1 - gamma) ** 2 / (price - slope * gamma * (1 - gamma))
    return Mixture(
        gamma, alpha, alphas.numpy(), truth.numpy(), surrogate.numpy(), {k: v.numpy() for k, v in bounds.items()},
        float(true_gain), float(promised_gain), {k: float(v) for k, v in guaranteed.items()}, min(1.0, crossing),
    )  # fmt: skip


def facts_of_mixture(numbers: Mixture) -> str:
    """The gains at alpha, and how far equation 6 reaches."""
    guaranteed = "; ".join(f"{name}: {text(gain)}" for name, gain in numbers.guaranteed.items())
    return (
        f"L promises a gain of {text(numbers.promised_gain)}; the true gain is {text(numbers.true_gain)}\n"
        f"guaranteed by {guaranteed}\n"
        f"(6) guarantees that eta does not fall up to alpha = {numbers.safe_alpha:.2g}"
    )


def draw_mixture(numbers: Mixture, figure: FigureBase) -> None:
    """Gains against alpha; bounds that fall out of the picture leave it at the bottom."""
    axes: Axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="-")
    axes.axvline(numbers.alpha, color=GREY, linewidth=1, linestyle=":")
    axes.plot(numbers.alphas, numbers.surrogate, label="promised by L", color=VERMILION, linestyle="--")
    axes.plot(numbers.alphas, numbers.truth, label="true", color=BLACK, linestyle="-", linewidth=2.5)
    for (name, color), dashes in zip(BOUNDS.items(), ("-", "--", "-.", ":", (0, (5, 1))), strict=True):
        axes.plot(numbers.alphas, numbers.bounds[name], label=name, color=color, linestyle=dashes, linewidth=1.5)
    top = float(max(numbers.surrogate.max(), numbers.truth.max()))
    bottom = float(min(0.0, numbers.truth.min()))
    axes.set(ylim=(bottom - 0.9 * top, 1.1 * top), xlim=(0, numbers.alphas[-1]))
    axes.set(xlabel="mixing weight alpha", ylabel="gain over the old policy")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)


def alt_of_mixture(numbers: Mixture) -> str:
    """What the picture shows."""
    best = max(numbers.guaranteed.values())
    side = "above" if numbers.true_gain > 0 else "below"
    kept = "still guarantees a gain" if best > 0 else "guarantees any gain"
    which = "one of the bounds" if best > 0 else "none of the bounds"
    return (
        f"Gain against alpha up to {numbers.alphas[-1]:.3g}. L is a rising straight line, the true gain bends away "
        f"below it and is {side} zero at alpha = {numbers.alpha:g}, where {which} {kept}."
    )


def mixture_explorer() -> Explorer[Mixture]:
    """Alpha and gamma against eta, L and each bound."""
    return Explorer(
        "How far can you mix in haste before L lies, and before the bounds give up?",
        compute=compute_mixture,
        facts=facts_of_mixture,
        draw=draw_mixture,
        alt=alt_of_mixture,
        controls=[
            Stops("alpha", "alpha", [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], 0.2),
            Stops("gamma", "gamma", [0.2, 0.5, 0.8, 0.9, 0.95], 0.9),
        ],
        size=(7.0, 4.4),
    )


# What does the discount cost?

GAMMAS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
USUAL_RADIUS = 0.01  # delta of the paper's experiments


@dataclass(frozen=True)
class Penalty:
    """Equation 9's penalty for one discount, and the step it leaves to Algorithm 1."""

    gamma: float
    price: float  # C / epsilon
    radius: float  # KL of the step, nats
    moved: float  # total variation of the step
    promised: float
    true_gain: float
    possible: float  # gain of the best policy there is


@functools.cache
def compute_penalty(gamma: float) -> Penalty:
    """One step of Algorithm 1 from mostly careful."""
    mdp, old = lake(gamma), MOSTLY_CAREFUL
    step, eta = ib.guaranteed_step(mdp, old), evaluate_policy(mdp, old).eta
    corners = [torch.stack(rows) for rows in itertools.product(torch.eye(3, dtype=torch.float64), repeat=3)]
    return Penalty(
        gamma=gamma,
        price=2 * gamma / (1 - gamma) ** 2,
        radius=float(ib.max_kl(old, step)),
        moved=float(ib.max_total_variation(old, step)),
        promised=float(ib.kl_bound(mdp, old, step) - eta),
        true_gain=float(evaluate_policy(mdp, step).eta - eta),
        possible=float(evaluate_policy(mdp, torch.stack(corners)).eta.max() - eta),
    )


def facts_of_penalty(numbers: Penalty) -> str:
    """The penalty and the step, in numbers."""
    return (
        f"horizon 1 / (1 - gamma) = {1 / (1 - numbers.gamma):.3g}, penalty C = {text(numbers.price)} epsilon\n"
        f"the best guaranteed step has KL = {text(numbers.radius)} and moves {text(100 * numbers.moved)} % of the "
        f"probability\n"
        f"it is sure to gain {text(numbers.promised)}, gains {text(numbers.true_gain)}, "
        f"and {text(numbers.possible)} could be gained in all"
    )


def draw_penalty(numbers: Penalty, figure: FigureBase) -> None:
    """Penalty and step size against the horizon, both logarithmic, with the chosen discount marked."""
    left, right = figure.subplots(1, 2)
    all_of_them = [compute_penalty(gamma) for gamma in GAMMAS]
    horizons = [1 / (1 - one.gamma) for one in all_of_them]
    here = 1 / (1 - numbers.gamma)
    left.loglog(horizons, [one.price for one in all_of_them], color=VERMILION, linestyle="-")
    left.plot(here, numbers.price, "o", color=BLACK, markersize=8)
    left.set(title="penalty C / epsilon", xlabel="horizon 1 / (1 - gamma)")
    right.loglog(horizons, [one.radius for one in all_of_them], color=BLUE, linestyle="-")
    right.axhline(USUAL_RADIUS, color=GREY, linestyle="--")
    right.text(max(horizons), 1.5 * USUAL_RADIUS, "TRPO's usual delta", ha="right", va="bottom", fontsize=9)
    right.plot(here, numbers.radius, "o", color=BLACK, markersize=8)
    right.set(title="KL of the sure step", xlabel="horizon 1 / (1 - gamma)")


def alt_of_penalty(numbers: Penalty) -> str:
    """What the picture shows."""
    return (
        f"Two lines against the horizon on logarithmic axes: the penalty rises as its square, the guaranteed step "
        f"falls. At gamma = {numbers.gamma:g} the penalty is {text(numbers.price)} epsilon and the step's KL "
        f"{text(numbers.radius)}."
    )


def penalty_explorer() -> Explorer[Penalty]:
    """Gamma against the penalty, and against the step that the penalty leaves."""
    return Explorer(
        "What does looking further ahead cost?",
        compute=compute_penalty,
        facts=facts_of_penalty,
        draw=draw_penalty,
        alt=alt_of_penalty,
        controls=[Stops("gamma", "gamma", GAMMAS, 0.9)],
        size=(7.6, 3.4),
    )


# A triangle of policies

SIDE = 50  # the triangle's side, in steps of the grid
UNDECIDED = as_float64([0.6, 0.2, 0.2])


@dataclass(frozen=True)
class Triangle:
    """Policies that do the same in every state, in a triangle around the old one; gains over the old one's eta."""

    gamma: float
    zoom: int
    weights: Floats  # [n, 3], where in the triangle; its corners are the unit vectors
    truth: Floats  # [n]
    surrogate: Floats  # [n]
    bound: Floats  # [n], equation 9
    better: int  # percent of the triangle in which eta is larger than at the old policy
    guaranteed: int  # percent in which the bound is
    best: dict[str, int]  # the point [index] where each is largest
    cut: dict[str, Floats]  # [101], the same gains on the way from the old policy to where L is largest


def compute_triangle(gamma: float, zoom: int) -> Triangle:
    """Evaluate a grid of policies; `zoom` shrinks the triangle of all policies toward the old one."""
    mdp, old = lake(gamma), UNDECIDED.expand(3, 3)
    weights = np.array([(i, j, SIDE - i - j) for i in range(SIDE + 1) for j in range(SIDE + 1 - i)]) / SIDE
    eta = evaluate_policy(mdp, old).eta

    def gains(weights: Floats) -> dict[str, Floats]:
        rows = UNDECIDED + (as_float64(weights) - UNDECIDED) / zoom
        policies = rows[:, None, :].expand(-1, 3, 3)
        return {
            "truth": (evaluate_policy(mdp, policies).eta - eta).numpy(),
            "surrogate": (ib.surrogate_objective(mdp, old, policies) - eta).numpy(),
            "bound": (ib.kl_bound(mdp, old, policies) - eta).numpy(),
        }

    def percent_above_zero(gain: Floats) -> int:
        return round(100 * float((gain > 1e-12).mean()))

    found = gains(weights)
    best = {name: int(gain.argmax()) for name, gain in found.items()}
    way = np.linspace(0, 1, 101)[:, None]
    return Triangle(
        gamma=gamma,
        zoom=zoom,
        weights=weights,
        **found,
        better=percent_above_zero(found["truth"]),
        guaranteed=percent_above_zero(found["bound"]),
        best=best,
        cut=gains((1 - way) * UNDECIDED.numpy() + way * weights[best["surrogate"]]),
    )


def facts_of_triangle(numbers: Triangle) -> str:
    """Where L is largest and what happens there; how much of the triangle is better, and how much surely so."""
    peak = numbers.best["surrogate"]
    toward = ACTION_NAMES[int(numbers.weights[peak].argmax())]
    promised, truth = numbers.surrogate[peak], numbers.truth[peak]
    size = "all policies" if numbers.zoom == 1 else f"a corner is 1/{numbers.zoom} of the way to that action"
    return (
        f"the triangle: {size}\n"
        f"L is largest in the corner {toward}: there it promises a gain of {text(promised)}, "
        f"the true gain is {text(truth)}\n"
        f"better than the old policy: {numbers.better} % of the triangle; guaranteed to be: {numbers.guaranteed} %\n"
        f"the best guarantee is a gain of {text(numbers.bound.max())}"
    )


def draw_triangle(numbers: Triangle, figure: FigureBase) -> None:
    """Three triangles in one color scale, and a cut through them."""
    (first, second), (third, fourth) = figure.subplots(2, 2)
    low = float(min(numbers.truth.min(), numbers.surrogate.min()))
    high = float(max(numbers.truth.max(), numbers.surrogate.max()))
    levels = np.linspace(low, high, 24)
    x, y = _corner_coordinates(numbers.weights)
    panels = (
        (first, "true gain", "truth"),
        (second, "gain that L sees", "surrogate"),
        (third, "sure gain (9)", "bound"),
    )
    for axes, title, name in panels:
        gain = np.clip(getattr(numbers, name), low, high)
        drawn = axes.tricontourf(x, y, gain, levels=levels, extend="min")
        axes.tricontour(x, y, gain, levels=[0.0], colors="white", linewidths=1.2)
        axes.plot(*_corner_coordinates(UNDECIDED.numpy()), "o", color="white", markeredgecolor=BLACK, markersize=7)
        best = numbers.best[name]
        axes.plot(x[best], y[best], "*", color=VERMILION, markeredgecolor="white", markersize=13, clip_on=False)
        for corner, place in zip(ACTION_NAMES, ((0, -0.11), (1, -0.11), (0.5, 0.9)), strict=True):
            axes.text(*place, corner, ha="center", fontsize=8)
        # A title of the axes would be laid out outside the square that equal scales leave, and be cut off.
        axes.text(0.5, 1.04, title, ha="center", fontsize=12)
        axes.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.14, 1.15))
        axes.axis("off")
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low < tick < high]
    figure.colorbar(
        drawn, ax=[first, second, third, fourth], location="bottom", ticks=ticks, shrink=0.8, aspect=40, label="gain"
    )
    _draw_cut(numbers, fourth, low, high)


def _corner_coordinates(weights: Floats) -> tuple[Floats, Floats]:
    """Where in the plane a triple of probabilities [..., 3] lies: careful left, hasty right, wait on top."""
    return weights[..., HASTY] + weights[..., WAIT] / 2, weights[..., WAIT] * 3**0.5 / 2


def _draw_cut(numbers: Triangle, axes: Axes, low: float, high: float) -> None:
    way = np.linspace(0, 1, 101)
    axes.axhline(0, color=GREY, linewidth=1, linestyle="-")
    axes.plot(way, numbers.cut["truth"], color=BLACK, linestyle="-", label="true")
    axes.plot(way, numbers.cut["surrogate"], color=VERMILION, linestyle="--", label="L")
    axes.plot(way, numbers.cut["bound"], color=ORANGE, linestyle=":", label="(9)")
    axes.set(title="from old to best L", ylim=(low, high + 0.1 * (high - low)))
    axes.set_xticks([0, 1], ["old", "best L"])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.legend(fontsize=8)


def alt_of_triangle(numbers: Triangle) -> str:
    """What the picture shows."""
    return (
        f"Three triangles of policies colored by gain, and a cut through them. L is a plane; the true gain is curved; "
        f"the bound falls off around the old policy and is above zero in {numbers.guaranteed} percent of the triangle."
    )


def triangle_explorer() -> Explorer[Triangle]:
    """All policies that do the same in every state, colored by eta, L and the lower bound."""
    return Explorer(
        "Where is eta higher, where does L say so, and where is it sure?",
        compute=compute_triangle,
        facts=facts_of_triangle,
        draw=draw_triangle,
        alt=alt_of_triangle,
        controls=[
            Stops("gamma", "gamma", [0.05, 0.2, 0.5, 0.8, 0.9], 0.5),
            Stops("zoom", "zoom on the old policy", [1, 3, 10, 30, 100], 1),
        ],
        size=(7.0, 7.2),
    )
