"""Exercise full_step of lesson 05, The trust-region step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_05.shared import close

Product = Callable[[Tensor], Tensor]
StepFunction = Callable[[Tensor, Product, float, float], Tensor]


def direction_and_bowl(rng: Generator) -> tuple[Tensor, Product, float, float]:
    """A direction x [n], v -> A v with a random positive definite A, a damping and a delta."""
    size = int(rng.integers(3, 7))
    root = normal(rng, size, size)
    A = root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)
    return normal(rng, size), lambda v: A @ v, float(rng.uniform(0.2, 1.0)), float(rng.uniform(0.005, 0.05))


full_step = Check("full_step", minutes=6, inputs=direction_and_bowl)


def damped_curvature(v: Tensor, product: Product, damping: float) -> Tensor:
    """v^T (A + damping I) v."""
    return torch.dot(v, product(v) + damping * v)


@full_step.property("The step should point along x: a positive multiple of it.")
def along_x(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    step = student(x, product, damping, delta)
    return close(step / step.norm(), x / x.norm())


@full_step.property("Only the direction of x should count: 7 x has to give the same step as x.")
def whatever_the_length_of_x(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(student(7 * x, product, damping, delta), student(x, product, damping, delta))


@full_step.property("At the end of the step the damped bowl, half of d times (A + damping I) d, should stand at delta.")
def ends_on_the_boundary(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(0.5 * damped_curvature(student(x, product, damping, delta), product, damping), delta)


@full_step.property("Without damping the bowl, half of d times A d, should stand at delta.")
def ends_on_the_boundary_without_damping(student: StepFunction, rng: Generator) -> bool:
    x, product, _, delta = direction_and_bowl(rng)
    return close(0.5 * damped_curvature(student(x, product, 0.0, delta), product, 0.0), delta)


@full_step.property(
    "A millionth of x has to give the same step as x. Is a small number added in a denominator? Where x is short, it "
    "is not small, and the step comes out too short."
)
def however_short_x_is(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return close(student(1e-6 * x, product, damping, delta), student(x, product, damping, delta))


@full_step.property("With x in float32 the step should be in float32, as a policy that learns has it.")
def step_keeps_the_precision(student: StepFunction, rng: Generator) -> bool:
    x, product, damping, delta = direction_and_bowl(rng)
    return student(x.float(), lambda v: product(v.double()).float(), damping, delta).dtype == torch.float32


@full_step.mistake(
    "concept",
    "Your fraction is upside down: x times (A + damping I) x belongs below; tempting, because both stand under a root. "
    "Where the bowl is steep the step has to be short.",
)
def turns_the_fraction_over(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(damped_curvature(x, product, damping) / (2 * delta)) * x


@full_step.mistake(
    "concept",
    "You add the damping to every entry of A x; tempting, because product(x) + damping runs without complaint. Damping "
    "stands on the diagonal of A: product(x) + damping * x.",
)
def adds_damping_to_every_entry(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, product(x) + damping)) * x


@full_step.mistake(
    "concept",
    "You damp one entry of x only; tempting, because damping is there for the flattest axis. It stands in every place "
    "of the diagonal: the bowl that the solve believed in has damping * x.x in it, for all entries.",
)
def damps_one_entry(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (torch.dot(x, product(x)) + damping * x[0] ** 2)) * x


@full_step.mistake(
    "concept",
    "You scale the bowl's gradient, (A + damping I) x, in the place of x; tempting, because it is what was just "
    "computed. It points along g again, and the solve was for nothing. The step is along x.",
)
def steps_along_the_gradient(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / damped_curvature(x, product, damping)) * (product(x) + damping * x)


@full_step.mistake(
    "constant",
    "Your step is the square root of 2 too short; tempting, because the constraint reads like a plain quadratic form. "
    "The bowl is one HALF of d times A d: the first term of the KL's expansion that does not vanish.",
)
def forgets_the_half(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(delta / damped_curvature(x, product, damping)) * x


@full_step.mistake(
    "concept",
    "You solve with damping and scale without it; tempting, because the true KL has no damping in it. Where A is "
    "nearly flat the denominator then nearly vanishes, and the step is enormous. Solve and scale use the same matrix.",
)
def scales_without_damping(x: Tensor, product: Product, _damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, product(x))) * x


@full_step.mistake(
    "concept",
    "You forgot the square root; tempting, because 2 delta over x.Ax already looks like a length. The bowl grows with "
    "the square of the step: four times the delta, twice the step.",
)
def forgets_the_root(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return 2 * delta / damped_curvature(x, product, damping) * x


@full_step.mistake(
    "concept",
    "You give the step a fixed length in parameters; tempting, because a radius is a length. That is the trust region "
    "of the plain gradient (equation 19). Here lengths are measured by A: x.Ax in the place of x.x.",
)
def measures_in_parameters(x: Tensor, _product: Product, _damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / torch.dot(x, x)) * x


@full_step.mistake(
    "concept",
    "You add damping itself to x.Ax; tempting, because both are numbers. Damping stands on the diagonal of A, as c I, "
    "and x pays it for every entry: c times x.x comes with it.",
)
def adds_damping_once(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (torch.dot(x, product(x)) + damping)) * x


@full_step.mistake(
    "concept",
    "You divide by the squared length of (A + damping I) x; tempting, because that vector is the gradient and lies at "
    "hand. The bowl pairs it with x itself: x times (A + damping I) x.",
)
def squares_the_product(x: Tensor, product: Product, damping: float, delta: float) -> Tensor:
    return torch.sqrt(2 * delta / (product(x) + damping * x).square().sum()) * x
