"""Explorers of lesson 03: the trust region of a policy with two parameters, and how good its quadratic picture is.

The world is the frozen lake in fog of lesson 02, without waiting. The walker is hasty with a probability that depends
on how slippery the ground feels: sigmoid(theta[0] * slippery + theta[1]), a weight and a bias. The explorers compute
with these closed forms; `POLICY` is the same policy as the package's modules want it, and tests hold the two together.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import expit, rel_entr  # type: ignore[import-untyped]
from torch import Tensor

from trpo_lessons.distributions import Categorical
from trpo_lessons.mdp import TabularMDP, evaluate_policy
from trpo_lessons.policies import linear_policy
from trpo_lessons.teaching import pictures
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops
from trpo_lessons.teaching.lesson_01.explorers import ICE, PATH, WATER, lake, text
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, VERMILION

Floats = npt.NDArray[np.float64]
# What the walker feels on the path, on the ice and in the water.
SLIPPERY = np.array([0.0, 0.3, 1.0])
THETA_OLD = np.array([0.0, math.log(0.1 / 0.9)])  # hasty once in ten, wherever it is


@dataclass(frozen=True)
class HasteHead:
    """Careful (0) or hasty (1): the network's one output is the logit of haste. No parameter is to spare."""

    num_inputs: int = 1
    num_free: int = 0

    def initial_free(self) -> Tensor:
        return torch.empty(0)

    def __call__(self, outputs: Tensor, free: Tensor) -> Categorical:  # noqa: ARG002
        return Categorical(torch.cat([torch.zeros_like(outputs), outputs], -1))


POLICY = linear_policy(1, HasteHead())


def walk() -> TabularMDP:
    """The frozen lake with the actions careful and hasty."""
    world = lake(gamma=0.9)
    return TabularMDP(world.P[:, :2], world.r[:, :2], world.rho0, world.gamma)


def haste(theta: Floats) -> Floats:
    """Probability of haste in each state [..., 3] under the parameters [..., 2]."""
    logits = theta[..., :1] * SLIPPERY + theta[..., 1:]
    return np.asarray(expit(logits), dtype=np.float64)


def kl_of(old: Floats, new: Floats) -> Floats:
    """KL(old || new) of two-action policies with these probabilities of haste, state by state."""
    return np.asarray(rel_entr(old, new) + rel_entr(1 - old, 1 - new), dtype=np.float64)


class Problem:
    """Everything that is to be known about the old policy."""

    def __init__(self) -> None:
        self.world, self.old = walk(), haste(THETA_OLD)
        found = evaluate_policy(self.world, np.stack([1 - self.old, self.old], -1))
        self.eta = float(found.eta)
        self.visits = (1 - self.world.gamma) * found.rho.numpy()
        self.rho, self.better = found.rho.numpy(), (found.A[:, 1] - found.A[:, 0]).numpy()
        features = np.stack([SLIPPERY, np.ones(3)], -1)  # [S, 2]
        spread = self.old * (1 - self.old)
        self.gradient = (self.rho * spread * self.better) @ features
        self.fisher = (features.T * (self.visits * spread)) @ features

    def promised(self, p: Floats) -> Floats:
        """Gain of L for probabilities of haste [..., 3]: linear, since the rest is careful."""
        return np.asarray((self.rho * (p - self.old) * self.better).sum(-1))

    def true(self, p: Floats) -> float:
        """Gain of eta for probabilities of haste [3]."""
        return float(evaluate_policy(self.world, np.stack([1 - p, p], -1)).eta) - self.eta

    def mean_kl(self, p: Floats) -> Floats:
        """Mean of KL(old || new) over the old policy's visits."""
        return np.asarray((self.visits * kl_of(self.old, p)).sum(-1))


@functools.cache
def problem() -> Problem:
    """The one problem of this lesson."""
    return Problem()


STATE_NAMES = ("path", "ice", "water")


def tables(thetas: Tensor) -> Tensor:
    """The policies [n, S, A] of many parameters [n, 2] at once."""
    probability = torch.sigmoid(thetas[:, :1] * torch.from_numpy(SLIPPERY) + thetas[:, 1:])
    return torch.stack([1 - probability, probability], -1)


def percent(p: float) -> str:
    """Two digits; next to nothing is 0."""
    return f"{float(f'{100 * p:.2g}') if p > 1e-7 else 0:g} %"


def in_words(probabilities: Tensor) -> str:
    """Probabilities [3], state by state, as text."""
    return ", ".join(f"{state} {percent(p)}" for state, p in zip(STATE_NAMES, probabilities.tolist(), strict=True))


def draw_loops(figure: FigureBase, loops: dict[int, Tensor]) -> None:
    """Where all steps of one length lead: haste [n, 3] on the ice against haste on the path, for each instrument."""
    axes = figure.subplots()
    for (marks, ends), color, dashes in zip(loops.items(), (BLUE, VERMILION), ("-", "--"), strict=True):
        axes.plot(100 * ends[:, PATH], 100 * ends[:, ICE], label=f"water at {marks}", color=color, linestyle=dashes)
    axes.plot(10, 10, "o", color=BLACK, label="old policy")
    axes.set(xlabel="haste on the path, %", ylabel="haste on the ice, %", title="where all steps of length 0.5 lead")
    figure.legend(loc="outside lower center", ncols=3)


def draw_sorted_kls(figure: FigureBase, of_penalty: Tensor, of_constraint: Tensor) -> None:
    """The mean KL of the step in every batch, shortest step first, with a penalty and with a constraint."""
    axes = figure.subplots()
    for name, kls, color, dashes in (
        ("penalty", of_penalty, VERMILION, "--"),
        ("constraint", of_constraint, BLUE, "-"),
    ):
        axes.plot(np.linspace(0, 100, len(kls)), kls.sort().values, label=name, color=color, linestyle=dashes)
    axes.axhline(0.01, color=BLACK, linestyle=":", linewidth=1.2, label="delta")
    axes.set(xlabel="% of batches, shortest step first", ylabel="mean KL of the step")
    axes.legend()


# The trust region

EDGE = 361  # points on a closed curve


@dataclass(frozen=True)
class Landing:
    """Where a step ends, and what it brings."""

    step: Floats  # [2], in the plain parameters
    p: Floats  # [3], probabilities of haste
    promised: float
    true: float
    kl: float


@dataclass(frozen=True)
class Region:
    """A trust region, its quadratic picture and three steps. Curves are [EDGE, 2] in the plain parameters."""

    delta: float
    marks: int
    to_shown: Floats  # [2, 2], takes steps in plain parameters to the ones that are shown
    edge: Floats  # where the mean KL is delta
    ellipse: Floats  # where its quadratic model is delta
    circle: Floats  # the steps that are as long as the vanilla one, in the parameters shown
    landings: dict[str, Landing]
    angle: float  # degrees between gradient and natural step, in the parameters shown
    same: bool  # the natural step, computed in the parameters shown, leads to the same policy as in the plain ones


def zero_marks() -> dict[str, float]:
    """Where an instrument may have its zero: how slippery it is there."""
    return {"path": SLIPPERY[PATH], "mean": float(problem().visits @ SLIPPERY), "ice": SLIPPERY[ICE]}


def change_of_parameters(marks: int, zero: float) -> Floats:
    """B of theta = B phi, [2, 2], if the instrument has its zero at `zero` and shows `marks` more at zero + 1."""
    # w x + b = w' marks (x - zero) + b'
    return np.array([[marks, 0.0], [-marks * zero, 1.0]])


def natural_step(gradient: Floats, fisher: Floats, delta: float) -> Floats:
    """The best step of the linear model inside the ellipse (equation 18)."""
    direction = np.linalg.solve(fisher, gradient)
    return np.asarray(direction * math.sqrt(2 * delta / (direction @ fisher @ direction)))


@functools.cache
def edge_of(delta: float) -> tuple[Floats, Floats]:
    """The steps [EDGE, 2] at which the mean KL is delta, and the one of them that raises L most."""
    known = problem()
    round_it = np.linalg.inv(np.linalg.cholesky(known.fisher).T)  # takes a circle to the ellipse

    def outward(angles: Floats) -> Floats:
        """The step in each direction at which KL reaches delta."""
        directions = np.stack([np.cos(angles), np.sin(angles)], -1) @ round_it.T
        low, high = np.zeros(len(angles)), np.full(len(angles), 30 * math.sqrt(2 * delta))
        for _ in range(60):
            middle = (low + high) / 2
            inside = known.mean_kl(haste(THETA_OLD + middle[:, None] * directions)) < delta
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return low[:, None] * directions

    angles = np.linspace(0, 2 * math.pi, EDGE)
    edge = outward(angles)
    around = angles[known.promised(haste(THETA_OLD + edge)).argmax()]
    search = minimize_scalar(
        lambda angle: -float(known.promised(haste(THETA_OLD + outward(np.array([angle]))[0]))),
        bounds=(around - 0.05, around + 0.05),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return edge, outward(np.array([search.x]))[0]


def compute_region(delta: float, marks: int, zero: str) -> Region:
    """Three steps of the same size, by a walker whose instrument for slipperiness has other marks and another zero."""
    known, B = problem(), change_of_parameters(marks, zero_marks()[zero])
    to_shown = np.asarray(np.linalg.inv(B), dtype=np.float64)
    gradient, fisher = B.T @ known.gradient, B.T @ known.fisher @ B
    vanilla = gradient * math.sqrt(2 * delta / (gradient @ fisher @ gradient))
    natural = natural_step(gradient, fisher, delta)
    edge, exact = edge_of(delta)

    def land(step: Floats) -> Landing:
        p = haste(THETA_OLD + step)
        return Landing(step, p, float(known.promised(p)), known.true(p), float(known.mean_kl(p)))

    landings = {"vanilla": land(B @ vanilla), "natural": land(B @ natural), "exact": land(exact)}
    plain = haste(THETA_OLD + natural_step(known.gradient, known.fisher, delta))
    circle = np.stack([f(np.linspace(0, 2 * math.pi, EDGE)) for f in (np.cos, np.sin)], -1)
    cosine = gradient @ natural / np.linalg.norm(gradient) / np.linalg.norm(natural)
    return Region(
        delta=delta,
        marks=marks,
        to_shown=to_shown,
        edge=edge,
        ellipse=math.sqrt(2 * delta) * circle @ np.linalg.inv(np.linalg.cholesky(known.fisher)),
        circle=np.linalg.norm(vanilla) * circle @ B.T,
        landings=landings,
        angle=math.degrees(math.acos(min(1.0, cosine))),
        same=bool(np.abs(landings["natural"].p - plain).max() < 1e-9),
    )


def facts_of_region(numbers: Region) -> str:
    """What each step promises, brings and costs; what depends on the parameters and what does not."""
    lines = [
        f"{name}: L promises {text(one.promised)}, true {text(one.true)}, mean KL {text(one.kl)}"
        for name, one in numbers.landings.items()
    ]
    lines.append(f"between the gradient and the natural step: {numbers.angle:.2g} degrees")
    lines.append(
        "the natural step is the same policy as with 1 mark and the zero on the path, within 1e-9: "
        f"{'yes' if numbers.same else 'no'}"
    )
    return "\n".join(lines)


STEPS = {"vanilla": (VERMILION, "s", 9), "natural": (BLUE, "o", 8), "exact": (GREEN, "*", 13)}
CURVES: dict[str, tuple[str, Literal["-", "--", ":"]]] = {
    "KL = delta": (BLACK, "-"),
    "its quadratic model": (BLUE, "--"),
    "as long as vanilla": (VERMILION, ":"),
}
WIDTH_TO_HEIGHT = 1.25


def draw_region(numbers: Region, figure: FigureBase, rows: int = 1) -> None:
    """The plane of the parameters, and the plane of the policies they stand for, in one row or in two."""
    first, second = figure.subplots(rows, 2 // rows).flat
    _draw_parameters(numbers, first)
    _draw_policies(numbers, second)
    lines = [Line2D([], [], color=c, linestyle=dashes, label=name) for name, (c, dashes) in CURVES.items()]
    points = [
        Line2D([], [], color=c, marker=m, markersize=8, linestyle="none", label=name)
        for name, (c, m, _) in STEPS.items()
    ]
    figure.legend(handles=lines + points, loc="outside lower center", ncols=2 if rows == 2 else 6, fontsize=9)


def _gain_surface(axes: Axes, x: Floats, y: Floats, gains: Floats) -> None:
    """Level sets of L, with a bar that says which color is high."""
    surface = axes.contourf(x, y, gains, levels=14, alpha=0.55)
    bar = axes.figure.colorbar(surface, ax=axes, label="gain of L")
    bar.locator = MaxNLocator(5)
    bar.update_ticks()


def _draw_parameters(numbers: Region, axes: Axes) -> None:
    shown = numbers.to_shown.T
    curves = [curve @ shown for curve in (numbers.edge, numbers.ellipse, numbers.circle)]
    low, high = np.min([curve.min(0) for curve in curves], axis=0), np.max([curve.max(0) for curve in curves], axis=0)
    # Both axes have the same scale, or a circle would not be one.
    half_width = 0.54 * max(high[0] - low[0], WIDTH_TO_HEIGHT * (high[1] - low[1]))
    half, middle = np.array([half_width, half_width / WIDTH_TO_HEIGHT]), (low + high) / 2
    x, y = (np.linspace(m - h, m + h, 61) for m, h in zip(middle, half, strict=True))
    steps = np.stack(np.meshgrid(x, y), -1) @ np.linalg.inv(shown)
    _gain_surface(axes, x, y, problem().promised(haste(THETA_OLD + steps)))
    for curve, (color, dashes) in zip(curves, CURVES.values(), strict=True):
        axes.plot(*curve.T, color=color, linestyle=dashes, linewidth=1.6)
    axes.plot(0, 0, "o", color="white", markeredgecolor=BLACK, markersize=7)
    for name, (color, marker, size) in STEPS.items():
        step = numbers.landings[name].step @ shown
        axes.plot([0, step[0]], [0, step[1]], color=color, linestyle="-", linewidth=1.2)
        axes.plot(*step, marker, color=color, markeredgecolor="white", markersize=size)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), aspect="equal", title="parameters")
    axes.set(xlabel="change of the weight", ylabel="change of the bias")
    axes.grid(False)


def _draw_policies(numbers: Region, axes: Axes) -> None:
    old = 100 * problem().old
    edge = 100 * haste(THETA_OLD + numbers.edge)[:, [PATH, ICE]]
    ends = {name: 100 * landing.p[[PATH, ICE]] for name, landing in numbers.landings.items()}
    low, high = np.min([edge.min(0), *ends.values()], axis=0), np.max([edge.max(0), *ends.values()], axis=0)
    x, y = (np.linspace(a - 0.08 * (b - a), b + 0.08 * (b - a), 41) for a, b in zip(low, high, strict=True))
    p = np.stack([*np.meshgrid(x, y), np.full((41, 41), old[WATER])], -1) / 100
    _gain_surface(axes, x, y, problem().promised(p))
    axes.plot(*edge.T, color=BLACK, linestyle="-", linewidth=1.6)
    axes.plot(*old[[PATH, ICE]], "o", color="white", markeredgecolor=BLACK, markersize=7)
    for name, (color, marker, size) in STEPS.items():
        axes.plot(*ends[name], marker, color=color, markeredgecolor="white", markersize=size)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), title="policies")
    axes.set(xlabel="haste on the path, %", ylabel="haste on the ice, %")
    axes.grid(False)


def alt_of_region(numbers: Region) -> str:
    """What the picture shows."""
    share = numbers.landings["vanilla"].promised / numbers.landings["natural"].promised
    return (
        "The plane of the two parameters, with level sets of L from blue, low, to yellow, high, the region where KL "
        f"is below {numbers.delta:g}, an ellipse close to it and a circle; and the plane of policies. The vanilla step "
        f"is {numbers.angle:.2g} degrees off the natural one and promises {100 * share:.0f} percent of its gain; "
        "natural and exact step lie close."
    )


def region_explorer() -> Explorer[Region]:
    """Delta and the choice of parameters against the three steps."""
    return Explorer(
        "Which step is best inside the trust region, and which one depends on the instrument?",
        compute=compute_region,
        facts=facts_of_region,
        draw=draw_region,
        alt=alt_of_region,
        controls=[
            Stops("delta", "delta", [0.001, 0.003, 0.01, 0.03, 0.1, 0.3], 0.01),
            Stops("marks", "marks from path to water", [1, 2, 4, 6, 8, 10], 1),
            Choice("zero", "zero of the scale", list(zero_marks()), "path"),
        ],
        # Wide rather than tall, so that sliders and pictures are on the screen together.
        size=(8.4, 4.0),
    )


def show_regions(*settings: tuple[float, int, str]) -> None:
    """Draw the trust region for each (delta, marks, zero) side by side, and print the facts of each."""
    numbers = [compute_region(*setting) for setting in settings]
    captions = [f"delta = {delta:g}, marks = {marks}, zero: {zero}" for delta, marks, zero in settings]
    drawn = []
    for caption, one in zip(captions, numbers, strict=True):
        with pictures.style():
            figure = pictures.new_figure(4.6, 6.4)
            draw_region(one, figure, rows=2)
            figure.suptitle(caption)
            drawn.append((pictures.png(figure), f"{caption}: {alt_of_region(one)}"))
    pictures.display_panels("Three steps in the plane of the parameters and in that of the policies.", drawn)
    for caption, one in zip(captions, numbers, strict=True):
        print(f"{caption}\n  " + facts_of_region(one).replace("\n", "\n  "))


# How good is the quadratic picture?


@dataclass(frozen=True)
class Parabola:
    """KL of a policy with two actions against the change of its logit; the last entry belongs to the chosen step."""

    chance: float  # old probability of the action
    new_chance: float
    steps: Floats  # [n]
    forward: Floats  # [n], KL(old || new)
    backward: Floats  # [n], KL(new || old)
    quadratic: Floats  # [n], half the Fisher information times the step squared


def compute_parabola(chance: float, step: float) -> Parabola:
    """Change the logit of an action that has the probability `chance`."""
    steps = np.append(np.linspace(-5, 5, 201), step)
    old, new = np.array(chance), np.asarray(expit(math.log(chance / (1 - chance)) + steps))
    quadratic = 0.5 * chance * (1 - chance) * steps**2
    return Parabola(chance, float(new[-1]), steps, kl_of(old, new), kl_of(new, old), quadratic)


def facts_of_parabola(numbers: Parabola) -> str:
    """Three distances of the same two policies."""
    forward, backward, quadratic = numbers.forward[-1], numbers.backward[-1], numbers.quadratic[-1]
    return (
        f"the action's probability goes from {text(numbers.chance)} to {text(numbers.new_chance)}\n"
        f"KL(old || new) = {text(forward)}, KL(new || old) = {text(backward)}, quadratic model {text(quadratic)}"
    )


def draw_parabola(numbers: Parabola, figure: FigureBase) -> None:
    """The three distances against the step."""
    axes: Axes = figure.subplots()
    steps = numbers.steps[:-1]
    axes.plot(steps, numbers.forward[:-1], label="KL(old || new)", color=BLACK, linestyle="-", linewidth=2.5)
    axes.plot(steps, numbers.backward[:-1], label="KL(new || old)", color=PURPLE, linestyle="-.")
    axes.plot(steps, numbers.quadratic[:-1], label="quadratic model", color=BLUE, linestyle="--")
    axes.axvline(numbers.steps[-1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(numbers.steps[-1], numbers.forward[-1], "o", color=ORANGE, markeredgecolor=BLACK, markersize=8, zorder=3)
    top = max(2.2 * float(max(numbers.forward[-1], numbers.quadratic[-1])), 0.1 * float(numbers.quadratic[:-1].max()))
    axes.set(xlabel="change of the logit", ylabel="nats", xlim=(-5, 5), ylim=(0, top))
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)


def alt_of_parabola(numbers: Parabola) -> str:
    """What the picture shows."""
    side = "above" if numbers.forward[-1] > numbers.quadratic[-1] else "below or on"
    return (
        f"Three curves that touch zero at a step of zero. At {numbers.steps[-1]:g} the KL divergence "
        f"of old and new policy is {side} the parabola that stands for it."
    )


def parabola_explorer() -> Explorer[Parabola]:
    """Old probability and step against KL, the other KL, and the quadratic model."""
    return Explorer(
        "How good is the quadratic picture of KL?",
        compute=compute_parabola,
        facts=facts_of_parabola,
        draw=draw_parabola,
        alt=alt_of_parabola,
        controls=[
            Stops("chance", "old probability", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99], 0.1),
            Slider("step", "change of the logit", -4.0, 4.0, 0.5, 1.0),
        ],
        size=(6.6, 3.8),
    )
