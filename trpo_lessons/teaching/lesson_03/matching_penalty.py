"""Exercise matching_penalty of lesson 03, The KL constraint."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_03.shared import close, metric

PenaltyFunction = Callable[[Tensor, Tensor, float], Tensor]


def root(x: Tensor) -> Tensor:
    """The square root."""
    return x.sqrt()


def quadratic_problem(rng: Generator) -> tuple[Tensor, Tensor, float]:
    """A gradient [3], a Fisher matrix [3, 3] and a delta."""
    return normal(rng, 3), metric(rng, 3), float(rng.uniform(0.005, 0.1))


matching_penalty = Check("matching_penalty", minutes=10, inputs=quadratic_problem)


@matching_penalty.property(
    "Your coefficient is half of what it should be; tempting, because the derivative of d . A d has a factor of 2. The "
    "penalty is lam times *half* of d . A d, whose derivative is lam A d."
)
def remembers_the_half_of_the_penalty(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return not close(2 * student(g, A, delta), root(g @ torch.linalg.solve(A, g) / (2 * delta)))


@matching_penalty.property(
    "Take the best step for your coefficient, A^-1 g / lam: half of step . A step should be delta."
)
def lands_on_the_edge(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    step = torch.linalg.solve(A, g) / student(g, A, delta)
    return close(0.5 * step @ A @ step, delta)


@matching_penalty.property(
    "Count rewards in cents, and every gain is 100 times as large: only a coefficient that is 100 times as large "
    "still matches delta."
)
def follows_the_rewards(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(100 * g, A, delta), 100 * student(g, A, delta))


@matching_penalty.property("The coefficient should not depend on how the policy is written down: theta = B phi.")
def same_in_other_parameters(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    B = 2 * torch.eye(3, dtype=torch.float64) + 0.5 * normal(rng, 3, 3)
    return close(student(B.T @ g, B.T @ A @ B, delta), student(g, A, delta))


@matching_penalty.property(
    "A Fisher matrix may be small, of the order of 1e-12, where a policy is nearly deterministic: the coefficient then "
    "grows by the square root of what A lost. Something added to A, or a search that ends too early, gets in the way."
)
def small_matrices(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(g, 1e-12 * A, delta), 1e6 * student(g, A, delta))


@matching_penalty.property(
    "delta may be anything above 0: a trust region of a millionth the size takes a coefficient 1000 times as large."
)
def any_delta(student: PenaltyFunction, rng: Generator) -> bool:
    g, A, delta = quadratic_problem(rng)
    return close(student(g, A, 1e-6 * delta), 1e3 * student(g, A, delta))


@matching_penalty.mistake(
    "concept",
    "You divide the length of g by the root of 2 delta; tempting, because that is right for equation 19, where the "
    "ruler is the parameters themselves. With KL as the ruler, the gradient too is measured by A: g . A^-1 g.",
)
def measures_in_parameters(g: Tensor, _A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = g.norm() / math.sqrt(2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You put A where its inverse belongs: g . A g; tempting, because a step is measured by A. A gradient is not a "
    "step. The step is A^-1 g, and (A^-1 g) . A (A^-1 g) = g . A^-1 g.",
)
def measures_the_gradient_like_a_step(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ A @ g / (2 * delta))


@matching_penalty.mistake(
    "concept",
    "You return the factor in front of A^-1 g, the length of the step; tempting, because that is what lesson 05 will "
    "need. The coefficient divides: the higher the price of KL, the shorter the step.",
)
def returns_the_step_size(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(2 * delta / (g @ torch.linalg.solve(A, g)))


@matching_penalty.mistake(
    "concept",
    "The square root is missing. The gain falls with 1 / lam and KL with 1 / lam squared; tempting to overlook, "
    "because one solves for lam squared.",
)
def forgets_the_root(g: Tensor, A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = g @ torch.linalg.solve(A, g) / (2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You make the step as long as the root of 2 delta in the parameters; tempting, because length is what one sees. "
    "The direction is the natural one, but its length has to be measured with A as well: half of step . A step.",
)
def measures_the_step_in_parameters(g: Tensor, A: Tensor, delta: float) -> Tensor:
    coefficient: Tensor = torch.linalg.solve(A, g).norm() / math.sqrt(2 * delta)
    return coefficient


@matching_penalty.mistake(
    "concept",
    "You divide by the diagonal of A, parameter by parameter; tempting, because no system has to be solved. What two "
    "parameters do together to the policy is then ignored, and the step misses the edge.",
)
def divides_by_the_diagonal(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root((g.square() / A.diagonal()).sum() / (2 * delta))


@matching_penalty.mistake(
    "constant",
    "A factor of root 2 is missing: the quadratic picture of KL has a one half in front; tempting to drop it, because "
    "it does not move the direction. Your step covers only half of the KL that it may.",
)
def forgets_the_half(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ torch.linalg.solve(A, g) / delta)


@matching_penalty.mistake(
    "concept",
    "The root stands over g . A^-1 g only, not over 2 delta; tempting, because delta looks like a length. It is a "
    "squared one: KL grows with the square of the step, so delta belongs under the root.",
)
def leaves_delta_out_of_the_root(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(g @ torch.linalg.solve(A, g)) / (2 * delta)


@matching_penalty.mistake(
    "order",
    "You multiply by 2 delta where you should divide; tempting, because a larger delta makes a larger step. The "
    "coefficient is the price that keeps the step small: more room, lower price.",
)
def multiplies_by_delta(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return root(2 * delta * (g @ torch.linalg.solve(A, g)))
