"""Explorers of lesson 04: conjugate gradient in two dimensions, and in forty.

In both, `stretch` is the ratio of the largest to the smallest eigenvalue of A, the exact direction is A^-1 g without
damping, and the gain of a direction is what it earns when it is scaled onto the trust region 1/2 d^T A d = delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from trpo_lessons.conjugate_gradient import conjugate_gradient
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, Stops
from trpo_lessons.teaching.pictures import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILION

Floats = npt.NDArray[np.float64]
DAMPINGS = (0.0, 0.001, 0.01, 0.1, 1.0)


# ---- what both explorers measure


def angle_between(x: Tensor, y: Tensor) -> float:
    """The angle between two directions [n], in degrees; accurate also when it is tiny."""
    u, v = x / x.norm(), y / y.norm()
    return math.degrees(2 * math.atan2((u - v).norm().item(), (u + v).norm().item()))


def share_of_best_gain(A: Tensor, g: Tensor, x: Tensor) -> float:
    """The gain of direction x [n] on the boundary of the trust region, as a share of what A^-1 g gains there.

    Scaled onto 1/2 d^T A d = delta, x gains g^T x sqrt(2 delta / x^T A x); delta cancels.
    """
    best = torch.linalg.solve(A, g)
    return (torch.dot(g, x) / torch.sqrt(torch.dot(x, A @ x) * torch.dot(g, best))).item()


def conjugate_gradient_path(A: Tensor, b: Tensor, iterations: int) -> list[Tensor]:
    """The points [n] that conjugate gradient visits: the start, 0, and the one after each iteration."""
    return [conjugate_gradient(lambda v: A @ v, b, k).x for k in range(iterations + 1)]


def steepest_descent_path(A: Tensor, b: Tensor, iterations: int) -> list[Tensor]:
    """The points [n] of going downhill on 1/2 x^T A x - b^T x, every time to the lowest point on the line."""
    points = [torch.zeros_like(b)]
    for _ in range(iterations):
        r = b - A @ points[-1]
        if r.norm() <= 1e-10 * b.norm():
            points.append(points[-1])
            continue
        points.append(points[-1] + torch.dot(r, r) / torch.dot(r, A @ r) * r)
    return points


def shown(value: float, unit: str = "") -> str:
    """Three significant digits and the unit; what is below 0.001 is 0."""
    digits = f"{float(f'{value:.3g}') if abs(value) > 1e-3 else 0:g}"
    return f"{digits} {unit}" if unit else digits


# ---- two dimensions


@dataclass(frozen=True)
class Bowl:
    """Both methods on the bowl 1/2 x^T (A + damping I) x - g^T x, and what conjugate gradient's last point is worth."""

    A: Tensor  # [2, 2], without damping
    g: Tensor  # [2]
    damping: float
    steps: int
    exact: Tensor  # [2], A^-1 g
    bottom: Tensor  # [2], (A + damping I)^-1 g
    paths: dict[str, list[Tensor]]
    left: dict[str, float]  # how much of the bowl's depth is still below the last point, as a share
    angle: float  # of conjugate gradient's last point to the exact direction, degrees
    gain: float  # of conjugate gradient's last point as a direction, share of the best gain


CG, DESCENT = "conjugate gradient", "steepest descent"


def rotated_bowl(stretch: float, turn: float) -> Tensor:
    """A [2, 2] with eigenvalue `stretch` along an axis `turn` degrees from g = (1, 0), and 1 across it."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    R = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return R @ torch.diag(torch.tensor([stretch, 1.0], dtype=torch.float64)) @ R.T


def compute_bowl(stretch: float, turn: int, damping: float, steps: int) -> Bowl:
    """Run both methods for `steps` steps from the origin."""
    A, g = rotated_bowl(stretch, turn), torch.tensor([1.0, 0.0], dtype=torch.float64)
    damped = A + damping * torch.eye(2, dtype=torch.float64)
    paths = {CG: conjugate_gradient_path(damped, g, steps), DESCENT: steepest_descent_path(damped, g, steps)}
    exact, bottom = torch.linalg.solve(A, g), torch.linalg.solve(damped, g)

    def depth_left(x: Tensor) -> float:
        return (torch.dot(x - bottom, damped @ (x - bottom)) / torch.dot(bottom, damped @ bottom)).item()

    left = {name: depth_left(path[-1]) for name, path in paths.items()}
    last = paths[CG][-1]
    angle, gain = angle_between(last, exact), share_of_best_gain(A, g, last)
    return Bowl(A, g, damping, steps, exact, bottom, paths, left, angle, gain)


def facts_of_bowl(numbers: Bowl) -> str:
    """How far down each method is, and what conjugate gradient's direction is worth."""
    lines = [
        f"{name}, {_steps(numbers)}: {shown(100 * left, '%')} of the depth left" for name, left in numbers.left.items()
    ]
    direction = f"{shown(numbers.angle, 'degrees')} from the exact one, {shown(100 * numbers.gain, '%')} of its gain"
    return "\n".join([*lines, f"conjugate gradient's direction: {direction}"])


def _steps(numbers: Bowl) -> str:
    return f"{numbers.steps} step{'s' if numbers.steps > 1 else ''}"


MARKS = {CG: (BLUE, "o-"), DESCENT: (VERMILION, "s--")}


def draw_bowl(numbers: Bowl, figure: FigureBase) -> None:
    """Left, the way down the bowl; right, directions scaled onto the trust region."""
    left, right = figure.subplots(1, 2)
    _draw_the_way_down(numbers, left)
    _draw_the_trust_region(numbers, right)
    entries = [axes.get_legend_handles_labels() for axes in (left, right)]
    handles, labels = entries[0][0] + entries[1][0], entries[0][1] + entries[1][1]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)


def _draw_the_way_down(numbers: Bowl, axes: Axes) -> None:
    points = torch.stack([*numbers.paths[CG], *numbers.paths[DESCENT], numbers.bottom]).numpy()
    center, reach = (points.max(0) + points.min(0)) / 2, 0.62 * max(float(np.ptp(points, axis=0).max()), 1e-9)
    grid = np.linspace(-reach, reach, 121)
    x, y = np.meshgrid(center[0] + grid, center[1] + grid)
    away = np.stack([x, y], -1) - numbers.bottom.numpy()
    damped = numbers.A.numpy() + numbers.damping * np.eye(2)
    height = np.einsum("...i,ij,...j->...", away, damped, away) / 2
    axes.contour(x, y, height, levels=height.max() * np.linspace(0.02, 1, 9) ** 2, colors=GREY, linewidths=0.7)
    for name in (DESCENT, CG):
        color, marks = MARKS[name]
        path = torch.stack(numbers.paths[name]).numpy()
        axes.plot(*path.T, marks, color=color, label=name, markersize=6, linewidth=1.6)
    axes.plot(*numbers.bottom.numpy(), "*", color=GREEN, markersize=15, label="bottom of the bowl", zorder=4)
    axes.set(title="the way down", xlabel="$x_1$", ylabel="$x_2$", box_aspect=1)
    axes.set(xlim=center[0] + reach * np.array([-1, 1]), ylim=center[1] + reach * np.array([-1, 1]))
    axes.xaxis.set_major_locator(MaxNLocator(2))


def _draw_the_trust_region(numbers: Bowl, axes: Axes) -> None:
    radius = torch.sqrt(torch.dot(numbers.g, numbers.exact))  # so large that the exact step is A^-1 g itself
    turns = torch.linspace(0, 2 * math.pi, 241, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(numbers.A)
    circle = torch.stack([turns.cos(), turns.sin()]) / values.sqrt()[:, None]
    ellipse = (radius * (vectors @ circle)).numpy()
    axes.plot(*ellipse, color=BLACK, linestyle="-", linewidth=1.4)
    along = (
        ("gain along g", numbers.g, ORANGE, ":", 3.5),
        ("gain along the exact direction", numbers.exact, GREEN, "-", 2.5),
        ("gain along conjugate gradient's", numbers.paths[CG][-1], BLUE, "--", 1.5),
    )
    for name, x, color, dashes, width in along:
        d1, d2 = (radius / torch.sqrt(torch.dot(x, numbers.A @ x)) * x).tolist()
        style = {"arrowstyle": "-|>", "color": color, "linewidth": width}
        axes.annotate("", (d1, d2), (0, 0), arrowprops=style)
        axes.axvline(d1, color=color, linestyle=dashes, linewidth=1.2, label=name)
    edge = 1.15 * float(np.abs(ellipse).max())
    axes.set(title="the step", ylabel="$d_2$", box_aspect=1, xlim=(-edge, edge), ylim=(-edge, edge))
    axes.set_xlabel("$d_1$: the gain")
    axes.xaxis.set_major_locator(MaxNLocator(3))


def alt_of_bowl(numbers: Bowl) -> str:
    """What the picture shows."""
    return (
        f"Two panels. Left, level sets of a bowl with the points of both methods after {_steps(numbers)}. Right, "
        f"the trust region as an ellipse with three arrows to its edge, along g, along the exact direction and along "
        f"conjugate gradient's, which earns {shown(100 * numbers.gain, '%')} of the best gain."
    )


def bowl_explorer() -> Explorer[Bowl]:
    """A bowl to stretch and to turn: conjugate gradient against steepest descent."""
    return Explorer(
        "Two ways down a bowl: which direction do they find?",
        compute=compute_bowl,
        facts=facts_of_bowl,
        draw=draw_bowl,
        alt=alt_of_bowl,
        controls=[
            Stops("stretch", "stretch", [1.0, 2.0, 5.0, 10.0, 30.0], 10.0),
            Slider("turn", "turn (degrees from g)", 0, 90, 5, 30),
            Stops("damping", "damping", [*DAMPINGS, 10.0, 100.0], 0.0),
            Slider("steps", "steps", 1, 8, 1, 1),
        ],
        size=(6.6, 4.2),
    )


# ---- forty dimensions

DIMENSIONS = 40
EVEN, THREE, FEW = "evenly spread", "three values", "four large"


@dataclass(frozen=True)
class Convergence:
    """Conjugate gradient on a diagonal A, with the damping that is set and without any, after 0 to 40 iterations."""

    eigenvalues: Floats  # [40], without damping
    damping: float
    iterations: int
    angles: dict[str, Floats]  # [40] after 1 to 40 iterations, degrees to the exact direction
    gains: dict[str, Floats]  # [40] share of the best gain


def eigenvalues_of(kind: str, stretch: float) -> Floats:
    """Forty eigenvalues from 1 / stretch to 1: evenly spread on a log scale, of three values, or four large ones."""
    if kind == THREE:
        return np.repeat([1.0, stretch**-0.5, 1 / stretch], [10, 10, 20])
    if kind == FEW:
        return np.concatenate([np.geomspace(1, 0.3, 4), np.geomspace(2, 1, DIMENSIONS - 4) / stretch])
    return np.geomspace(1, 1 / stretch, DIMENSIONS)


def compute_convergence(kind: str, stretch: float, damping: float, iterations: int) -> Convergence:
    """g has the same length along every axis."""
    eigenvalues = eigenvalues_of(kind, stretch)
    A = torch.diag(torch.from_numpy(eigenvalues))
    g = torch.full((DIMENSIONS,), DIMENSIONS**-0.5, dtype=torch.float64)
    exact = torch.linalg.solve(A, g)
    angles, gains = {}, {}
    for name, c in {"damped": damping, "undamped": 0.0}.items():
        path = conjugate_gradient_path(A + c * torch.eye(DIMENSIONS, dtype=torch.float64), g, DIMENSIONS)[1:]
        angles[name] = np.array([angle_between(x, exact) for x in path])
        gains[name] = np.array([share_of_best_gain(A, g, x) for x in path])
    return Convergence(eigenvalues, damping, iterations, angles, gains)


def facts_of_convergence(numbers: Convergence) -> str:
    """Where the direction stands after so many iterations."""
    k, smallest, largest = numbers.iterations, numbers.eigenvalues.min(), numbers.eigenvalues.max()
    condition = (largest + numbers.damping) / (smallest + numbers.damping)
    after = f"after {k} iteration{'s' if k > 1 else ''}"
    lines = [
        f"condition number{' with damping' if numbers.damping else ''}: {shown(condition)}",
        f"{after}: {shown(numbers.angles['damped'][k - 1], 'degrees')} from the exact direction, "
        f"{shown(100 * numbers.gains['damped'][k - 1], '%')} of the best gain",
    ]
    if numbers.damping:
        angle, gain = numbers.angles["undamped"][k - 1], numbers.gains["undamped"][k - 1]
        lines.append(f"without damping it would be {shown(angle, 'degrees')} and {shown(100 * gain, '%')}")
    return "\n".join(lines)


def draw_convergence(numbers: Convergence, figure: FigureBase) -> None:
    """Angle and gain against iterations."""
    left, right = figure.subplots(1, 2)
    iterations = np.arange(1, DIMENSIONS + 1)
    for axes, curves, factor, title in (
        (left, numbers.angles, 1, "angle, degrees"),
        (right, numbers.gains, 100, "gain, % of best"),
    ):
        axes.axvline(numbers.iterations, color=GREY, linestyle=":", linewidth=1.2)
        axes.plot(iterations, factor * curves["undamped"], color=ORANGE, linestyle="--", label="no damping")
        if numbers.damping:
            label = f"damping {numbers.damping:g}"
            axes.plot(iterations, factor * curves["damped"], color=BLUE, linestyle="-", label=label)
        axes.plot(
            numbers.iterations,
            factor * curves["damped"][numbers.iterations - 1],
            "o",
            color=BLACK,
            zorder=4,
            clip_on=False,
        )
        axes.set(title=title, xlabel="iterations", xlim=(0, DIMENSIONS))
    left.set_ylim(-3, 93)
    right.set_ylim(0, 104)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)


def alt_of_convergence(numbers: Convergence) -> str:
    """What the picture shows."""
    k = numbers.iterations
    return (
        f"Two panels against the number of iterations: the angle to the exact direction falls and the gain rises. With "
        f"damping {numbers.damping:g}, after {k} iterations, the angle is "
        f"{shown(numbers.angles['damped'][k - 1], 'degrees')} and the gain "
        f"{shown(100 * numbers.gains['damped'][k - 1], '%')} of the best."
    )


def convergence_explorer() -> Explorer[Convergence]:
    """Iterations, damping and the spectrum against angle and gain."""
    return Explorer(
        "How many iterations are enough, and what does damping do to the direction?",
        compute=compute_convergence,
        facts=facts_of_convergence,
        draw=draw_convergence,
        alt=alt_of_convergence,
        controls=[
            Choice("kind", "eigenvalues", [EVEN, THREE, FEW], EVEN),
            Stops("stretch", "stretch", [10.0, 100.0, 1000.0, 10000.0], 1000.0),
            Stops("damping", "damping", DAMPINGS, 0.0),
            Slider("iterations", "iterations", 1, DIMENSIONS, 1, 10),
        ],
        size=(7.6, 3.8),
    )
