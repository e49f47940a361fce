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
from trpo_lessons.teaching.explorers import Choice, Explorer, Stops, upright
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
OF_MIXTURES, OF_ANY_POLICY = "of mixtures: (6), (8)", "of any policy, too (section 8)"
SHOWN = {OF_MIXTURES: ("(6)", "(8)"), OF_ANY_POLICY: tuple(BOUNDS)}


@dataclass(frozen=True)
class Mixture:
    """Gains over the old policy's eta: of the truth, of L and of every bound, along a range of alpha and at one."""

    gamma: float
    alpha: float
    shown: tuple[str, ...]  # names of the bounds that are shown
    alphas: Floats  # [n]
    truth: Floats  # [n]
    surrogate: Floats  # [n]
    bounds: dict[str, Floats]  # [n] each
    true_gain: float
    promised_gain: float
    guaranteed: dict[str, float]
    safe_alpha: float  # up to here equation 6 guarantees that eta does not fall


def compute_mixture(gamma: float, alpha: float, bounds: str = OF_ANY_POLICY) -> Mixture:
    """Mix always hasty into mostly careful (equation 5)."""
    mdp, old = lake(gamma), MOSTLY_CAREFUL
    alphas = torch.linspace(0, min(1.0, 2 * alpha), 101, dtype=torch.float64)
    eta = evaluate_policy(mdp, old).eta

    def gains(alphas: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mixed = ib.mixture_policy(old, ALWAYS_HASTY, alphas)
        sure = {
            "(6)": ib.mixture_bound(mdp, old, ALWAYS_HASTY, alphas),
            "(8)": ib.simple_mixture_bound(mdp, old, ALWAYS_HASTY, alphas),
            "4 epsilon": ib.total_variation_bound(mdp, old, mixed),
            "linear": ib.linear_bound(mdp, old, mixed),
            "(9), KL": ib.kl_bound(mdp, old, mixed),
        }
        surrogate = ib.surrogate_objective(mdp, old, mixed)
        return evaluate_policy(mdp, mixed).eta - eta, surrogate - eta, {k: v - eta for k, v in sure.items()}

    truth, surrogate, curves = gains(alphas)
    true_gain, promised_gain, guaranteed = gains(as_float64(alpha))
    slope = float(ib.surrogate_objective(mdp, old, ALWAYS_HASTY) - eta)
    price = 2 * float(ib.largest_expected_advantage(mdp, old, ALWAYS_HASTY)) * gamma
    # Where slope alpha equals the penalty of equation 6; a mixture's alpha ends at 1.
    crossing = slope * (1 - gamma) ** 2 / (price - slope * gamma * (1 - gamma))
    return Mixture(
        gamma, alpha, SHOWN[bounds], alphas.numpy(), truth.numpy(), surrogate.numpy(),
        {k: v.numpy() for k, v in curves.items()}, float(true_gain), float(promised_gain),
        {k: float(v) for k, v in guaranteed.items()}, min(1.0, crossing),
    )  # fmt: skip


def facts_of_mixture(numbers: Mixture) -> str:
    """The gains at alpha, and whether equation 6 reaches so far."""
    guaranteed = "; ".join(f"{name}: {text(numbers.guaranteed[name])}" for name in numbers.shown)
    return (
        f"L promises a gain of {text(numbers.promised_gain)}; the true gain is {text(numbers.true_gain)}\n"
        f"guaranteed by {guaranteed}\n"
        f"is (6) sure that eta does not fall? {'yes' if numbers.alpha <= numbers.safe_alpha else 'no'}"
    )


def draw_mixture(numbers: Mixture, figure: FigureBase) -> None:
    """Gains against alpha; bounds that fall out of the picture leave it at the bottom."""
    axes: Axes = figure.subplots()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="-")
    axes.axvline(numbers.alpha, color=GREY, linewidth=1, linestyle=":")
    axes.plot(numbers.alphas, numbers.surrogate, label="promised by L", color=VERMILION, linestyle="--")
    axes.plot(numbers.alphas, numbers.truth, label="true", color=BLACK, linestyle="-", linewidth=2.5)
    for (name, color), dashes in zip(BOUNDS.items(), ("-", "--", "-.", ":", (0, (5, 1))), strict=True):
        if name in numbers.shown:
            axes.plot(numbers.alphas, numbers.bounds[name], label=name, color=color, linestyle=dashes, linewidth=1.5)
    top = float(max(numbers.surrogate.max(), numbers.truth.max()))
    bottom = float(min(0.0, numbers.truth.min()))
    axes.set(ylim=(bottom - 0.9 * top, 1.1 * top), xlim=(0, numbers.alphas[-1]))
    axes.set(xlabel="mixing weight alpha", ylabel="gain over the old policy")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)


def alt_of_mixture(numbers: Mixture) -> str:
    """What the picture shows."""
    best = max(numbers.guaranteed[name] for name in numbers.shown)
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
            Stops(
                "alpha", "alpha", [0.0005, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], 0.2
            ),
            Stops("gamma", "gamma", [0.2, 0.5, 0.8, 0.9, 0.95], 0.9),
            Choice("bounds", "bounds", tuple(SHOWN), OF_MIXTURES),
        ],
        size=(7.0, 4.4),
    )


# What does the discount cost?

GAMMAS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
USUAL_RADIUS = 0.01  # delta of the paper's experiments
RADII = tuple(float(f"{digit}e{exponent}") for exponent in range(-8, 0) for digit in (1, 2, 5))


@dataclass(frozen=True)
class SureStep:
    """Equation 9's penalty for one discount, and the step it leaves to Algorithm 1."""

    gamma: float
    price: float  # C / epsilon
    radius: float  # KL of the step, nats
    moved: float  # total variation of the step
    promised: float
    true_gain: float
    possible: float  # gain of the best policy there is


@functools.cache
def sure_step(gamma: float) -> SureStep:
    """One step of Algorithm 1 from mostly careful."""
    mdp, old = lake(gamma), MOSTLY_CAREFUL
    step, eta = ib.guaranteed_step(mdp, old), evaluate_policy(mdp, old).eta
    corners = [torch.stack(rows) for rows in itertools.product(torch.eye(3, dtype=torch.float64), repeat=3)]
    return SureStep(
        gamma=gamma,
        price=2 * gamma / (1 - gamma) ** 2,
        radius=float(ib.max_kl(old, step)),
        moved=float(ib.max_total_variation(old, step)),
        promised=float(ib.kl_bound(mdp, old, step) - eta),
        true_gain=float(evaluate_policy(mdp, step).eta - eta),
        possible=float(evaluate_policy(mdp, torch.stack(corners)).eta.max() - eta),
    )


@dataclass(frozen=True)
class Penalty:
    """What the best policy within each KL radius promises, what the penalty takes, and what is true, for one discount.

    Gains over the old policy's eta, [n], one for each of RADII.
    """

    gamma: float
    here: int  # index of the radius that is looked at
    promised: Floats
    price: Floats  # C times the radius
    truth: Floats

    @property
    def sure(self) -> Floats:
        """Gains that (9) guarantees."""
        return self.promised - self.price


def compute_penalty(gamma: float, radius: float) -> Penalty:
    """The best step from mostly careful within every radius, in every state by itself."""
    promised, price, truth = _along_the_radii(gamma)
    return Penalty(gamma, RADII.index(radius), promised, price, truth)


@functools.cache
def _along_the_radii(gamma: float) -> tuple[Floats, Floats, Floats]:
    mdp, old = lake(gamma), MOSTLY_CAREFUL
    found = evaluate_policy(mdp, old)
    steps = torch.stack([ib.best_within_kl(old, found.A, radius)[0] for radius in RADII])
    C = float(ib.penalty_coefficient(ib.largest_advantage(mdp, old), gamma))
    promised = ib.surrogate_objective(mdp, old, steps) - found.eta
    return promised.numpy(), C * np.array(RADII), (evaluate_policy(mdp, steps).eta - found.eta).numpy()


def facts_of_penalty(numbers: Penalty) -> str:
    """The penalty, and what the best step within the radius promises, costs and brings."""
    sure = numbers.sure[numbers.here]
    verdict = f"a gain of {text(sure)} is sure" if sure > 0 else "no gain is sure"
    return (
        f"horizon 1 / (1 - gamma) = {1 / (1 - numbers.gamma):.3g}, penalty C = "
        f"{text(2 * numbers.gamma / (1 - numbers.gamma) ** 2)} epsilon\n"
        f"the best step within a KL of {RADII[numbers.here]:g}: L promises a gain of "
        f"{text(numbers.promised[numbers.here])}, the penalty is {text(numbers.price[numbers.here])}\n"
        f"{verdict}; the true gain is {text(numbers.truth[numbers.here])}"
    )


def draw_penalty(numbers: Penalty, figure: FigureBase) -> None:
    """Promise, penalty, what is left of the promise, and truth, against the radius, both axes logarithmic."""
    axes: Axes = figure.subplots()
    sure = np.where(numbers.sure > 0, numbers.sure, np.nan)
    axes.loglog(RADII, numbers.price, label="penalty", color=PURPLE, linestyle="-.")
    axes.loglog(RADII, numbers.promised, label="promised by L", color=VERMILION, linestyle="--")
    axes.loglog(RADII, numbers.truth, label="true", color=BLACK, linestyle="-", linewidth=2.5)
    axes.loglog(RADII, sure, label="sure", color=BLUE, linestyle="-")
    axes.axvline(RADII[numbers.here], color=GREY, linewidth=1, linestyle=":")
    axes.plot(RADII[numbers.here], numbers.promised[numbers.here], "o", color=VERMILION, markersize=7)
    axes.plot(RADII[numbers.here], numbers.price[numbers.here], "s", color=PURPLE, markersize=7)
    axes.set(xlim=(RADII[0], RADII[-1]), ylim=(3e-5, 300), xlabel="KL radius of the step", ylabel="gain, penalty")
    axes.axvline(USUAL_RADIUS, color=GREY, linewidth=1, linestyle="--")
    # Below every curve, whatever gamma; the line of the radius may run behind it.
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    axes.text(USUAL_RADIUS * 1.2, 4.5e-5, "TRPO's\nusual delta", va="bottom", fontsize=8, bbox=behind)
    figure.legend(loc="outside lower center", ncols=4, fontsize=9)


def alt_of_penalty(numbers: Penalty) -> str:
    """What the picture shows."""
    sure = np.array(RADII)[numbers.sure > 0]
    reach = f"up to a radius of {sure[-1]:.2g}, and above it nothing is" if sure.size else "nowhere"
    return (
        f"Against the KL radius, on logarithmic axes: the promise rises slowly, the penalty twice as steeply. "
        f"A gain is sure where the promise is larger: {reach}."
    )


def penalty_explorer() -> Explorer[Penalty]:
    """The KL radius against promise and penalty, for every gamma."""
    return Explorer(
        "Which step is worth its penalty?",
        compute=compute_penalty,
        facts=facts_of_penalty,
        draw=draw_penalty,
        alt=alt_of_penalty,
        controls=[Stops("radius", "KL radius", RADII, 0.01), Stops("gamma", "gamma", GAMMAS, 0.9)],
        size=(7.0, 4.0),
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
    size = "all policies" if numbers.zoom == 1 else f"a corner is 1/{numbers.zoom} of the way to always that action"
    corner = toward if numbers.zoom == 1 else f"toward {toward}"
    return (
        f"the triangle: {size}\n"
        f"L is largest in the corner {corner}: there it promises a gain of {text(promised)}, "
        f"the true gain is {text(truth)}\n"
        f"better than the old policy: {numbers.better} % of the triangle; guaranteed to be: {numbers.guaranteed} %\n"
        f"the best guarantee is a gain of {text(numbers.bound.max())}"
    )


def draw_triangle(numbers: Triangle, figure: FigureBase) -> None:
    """Three triangles in one color scale, and a cut through them."""
    tall = upright(figure)
    mosaic, ratios = ("ab;cd", [1, 1]) if tall else ("abc;ddd", [1.5, 1])
    first, second, third, fourth = figure.subplot_mosaic(mosaic, height_ratios=ratios).values()
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
        left, right, top = corner_labels(numbers.zoom)
        # A second line would lie over the triangle at the top; the other two have no room beside each other for one.
        for corner, place in ((left, (0.06, -0.08)), (right, (0.94, -0.08)), (top.replace("\n", " "), (0.5, 0.99))):
            size = 9 if numbers.zoom == 1 else 8
            axes.text(*place, corner, ha="center", va="top", fontsize=size)
        # A title of the axes would be laid out outside the square that equal scales leave, and be cut off.
        axes.text(0.5, 1.08, title, ha="center", fontsize=12)
        axes.set(aspect="equal", xlim=(-0.15, 1.15), ylim=(-0.2, 1.2))
        axes.axis("off")
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low < tick < high]
    everywhere = [first, second, third, fourth]
    if tall:
        figure.colorbar(drawn, ax=everywhere, location="bottom", ticks=ticks, shrink=0.8, aspect=40, label="gain")
    else:
        figure.colorbar(drawn, ax=everywhere, ticks=ticks, aspect=30, label="gain")
    _draw_cut(numbers, fourth, low, high)


def corner_labels(zoom: int) -> tuple[str, ...]:
    """What a walker does in each corner: an action always or, near the old policy, a percentage of the way to that."""
    if zoom == 1:
        return ACTION_NAMES
    return tuple(f"{100 / zoom:.3g} % of the\nway to {name}" for name in ACTION_NAMES)


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
    axes.legend(fontsize=9)


def _extent(zoom: int) -> str:
    return "all policies" if zoom == 1 else f"those within {100 / zoom:.3g} percent of the way to a corner"


def alt_of_triangle(numbers: Triangle) -> str:
    """What the picture shows."""
    return (
        f"Three triangles of policies colored by gain, {_extent(numbers.zoom)}, and a cut through them. "
        f"L is a plane; the true gain is curved; "
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
        size=(8.4, 4.6),
        panel_height=5.1,
    )
