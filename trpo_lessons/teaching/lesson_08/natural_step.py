"""Exercise natural_step of lesson 08, Nine methods."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_08 import shared

Step = Callable[[Tensor, Tensor, float, float], Tensor]
# damping * torch.eye(n) has float32's precision in torch; whoever writes that shall pass.
DIGITS = 1e-6


def quadratic_problem(rng: Generator) -> tuple[Tensor, Tensor, float, float]:
    """A Fisher matrix [n, n], a gradient [n], a penalty and a damping."""
    n = int(rng.integers(3, 6))
    root = normal(rng, n, n + 1)
    return root @ root.T / n, normal(rng, n), float(rng.uniform(0.3, 4.0)), float(rng.uniform(0.2, 0.9))


def damped(A: Tensor, damping: float) -> Tensor:
    """A + damping I."""
    return A + damping * torch.eye(len(A), dtype=A.dtype)


def solved(A: Tensor, g: Tensor) -> Tensor:
    """A^-1 g."""
    x: Tensor = torch.linalg.solve(A, g)
    return x


def agree(one: Tensor, other: Tensor) -> bool:
    """Equal up to float32's rounding of the damping."""
    return shared.agree(one, other, DIGITS)


natural_step = Check("natural_step", minutes=6, inputs=quadratic_problem, tolerance=DIGITS)


@natural_step.property(
    "Your step is right to a few digits only. Is something rounded or computed in float32, or does a solver stop "
    "early? torch.linalg.solve gives all digits of what it is given."
)
def has_all_digits(student: Step, rng: Generator) -> bool:
    A, g, penalty, damping = quadratic_problem(rng)
    right = solved(damped(A, damping), g) / penalty
    return not shared.nearly_right(student(A, g, penalty, damping), right, DIGITS)


@natural_step.property(
    "Your step is half as long as it should be; tempting, because the derivative of d . A d is 2 A d. The penalty is "
    "lambda times *half* of d . A d, whose derivative is lambda A d."
)
def remembers_the_half(student: Step, rng: Generator) -> bool:
    A, g, penalty, damping = quadratic_problem(rng)
    return not agree(2 * penalty * damped(A, damping) @ student(A, g, penalty, damping), g)


@natural_step.property("A step of zero improves nothing. Solve for d, and return it.")
def steps_at_all(student: Step, rng: Generator) -> bool:
    return bool(student(*quadratic_problem(rng)).abs().max() > 0)


@natural_step.property("With twice the penalty the step should be half as long, in the same direction.")
def halves_with_twice_the_penalty(student: Step, rng: Generator) -> bool:
    A, g, penalty, damping = quadratic_problem(rng)
    return agree(2 * student(A, g, 2 * penalty, damping), student(A, g, penalty, damping))


@natural_step.property(
    "Count rewards in cents, and g is 100 times as long: so should the step be. Nothing in equation 18 notices units."
)
def follows_the_units(student: Step, rng: Generator) -> bool:
    A, g, penalty, damping = quadratic_problem(rng)
    return agree(student(A, 100 * g, penalty, damping), 100 * student(A, g, penalty, damping))


@natural_step.property("At your step, the slope of g . d - lambda / 2 d . (A + damping I) d should be zero.")
def is_the_best(student: Step, rng: Generator) -> bool:
    A, g, penalty, damping = quadratic_problem(rng)
    return agree(penalty * damped(A, damping) @ student(A, g, penalty, damping), g)


@natural_step.property(
    "A matrix of rank one goes wrong, although damping makes it invertible. Add the damping before you solve.",
    edge=True,
)
def a_singular_matrix(student: Step, rng: Generator) -> bool:
    _, g, penalty, damping = quadratic_problem(rng)
    A = torch.outer(g.flip(0), g.flip(0))
    return agree(penalty * damped(A, damping) @ student(A, g, penalty, damping), g)


@natural_step.mistake(
    "order",
    "You multiply by the penalty; tempting, because equation 18 has a coefficient before A^-1 g. It is 1 / lambda: a "
    "larger penalty on distance makes shorter steps.",
)
def multiplies_by_the_penalty(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    return penalty * solved(damped(A, damping), g)


@natural_step.mistake(
    "concept",
    "You leave the matrix out; tempting, because g / lambda is the step that optimisers take. It is that of equation "
    "19, which measures distance in parameters and not between policies.",
)
def plain_gradient(_A: Tensor, g: Tensor, penalty: float, _damping: float) -> Tensor:
    return g / penalty


@natural_step.mistake(
    "order",
    "You multiply g by the matrix; tempting, because a Fisher product is what there is a function for. The step is "
    "the d for which A d is g: solve, or multiply by the inverse.",
)
def multiplies_by_the_matrix(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    return damped(A, damping) @ g / penalty


@natural_step.mistake(
    "concept",
    "You scale the step to a KL, as TRPO does; tempting, because lesson 05 ended with it. Here the penalty is given "
    "and not delta: nothing is scaled, and what KL comes of it is found out afterwards.",
)
def scales_to_a_kl(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    x = solved(damped(A, damping), g)
    return torch.sqrt(2 * penalty / (x @ damped(A, damping) @ x)) * x


@natural_step.mistake(
    "conditioning",
    "You leave the damping out; tempting, because it is not in equation 18. Where the matrix is nearly singular, the "
    "step then follows the noise of directions that hardly change the policy in the visited states.",
)
def forgets_the_damping(A: Tensor, g: Tensor, penalty: float, _damping: float) -> Tensor:
    return solved(A, g) / penalty


@natural_step.mistake(
    "order",
    "You add the damping after you multiplied the matrix by lambda; tempting, because lambda A is the curvature. "
    "Damping belongs to the ruler: lambda multiplies A + damping I as a whole.",
)
def dampens_the_product(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    return solved(damped(penalty * A, damping), g)


@natural_step.mistake(
    "sign",
    "Your step goes down; tempting, because optimisers minimise a loss. Here g is the slope of something that is to "
    "grow, and the new theta is theta plus the step.",
)
def goes_down(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    return -solved(damped(A, damping), g) / penalty


@natural_step.mistake(
    "concept",
    "You make the direction a unit vector first; tempting, because then lambda alone seems to give the length. How "
    "far to go is in the length of A^-1 g: where there is little to gain, the step should be short.",
)
def normalises(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    x = solved(damped(A, damping), g)
    unit: Tensor = x / x.norm()
    return unit / penalty


@natural_step.mistake(
    "concept",
    "You divide by the diagonal alone; tempting, because Adam and its relatives do, and nothing has to be solved. "
    "What two parameters do together to the policy is in the other entries.",
)
def divides_by_the_diagonal(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    return g / damped(A, damping).diagonal() / penalty


@natural_step.mistake(
    "numerics",
    "You invert entry by entry; tempting, because 1 / A looks like an inverse. It is one for numbers: the inverse of "
    "a matrix is torch.linalg.inv, and torch.linalg.solve is better than either.",
)
def inverts_entry_by_entry(A: Tensor, g: Tensor, penalty: float, damping: float) -> Tensor:
    inverse: Tensor = 1 / damped(A, damping)
    return inverse @ g / penalty
