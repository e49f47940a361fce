"""Exercise in_other_parameters of lesson 03, The KL constraint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_03.shared import close, metric

ChangeFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def other_parameters(rng: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A gradient [n], a Fisher matrix [n, n] and an invertible change of parameters [n, n]."""
    n = int(rng.integers(2, 5))
    return normal(rng, n), metric(rng, n), 2 * torch.eye(n, dtype=torch.float64) + 0.5 * normal(rng, n, n)


in_other_parameters = Check("in_other_parameters", minutes=10, inputs=other_parameters)


@in_other_parameters.property(
    "A step e in phi is the step B e in theta. L should rise by the same in both: your gradient . e should be g . B e."
)
def same_slope(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(student(g, A, B)[0] @ e, g @ (B @ e))


@in_other_parameters.property(
    "A step e in phi is the step B e in theta. The policy should move equally far in both: e . A' e should be "
    "(B e) . A (B e), where A' is your matrix."
)
def same_distance(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(e @ student(g, A, B)[1] @ e, (B @ e) @ A @ (B @ e))


@in_other_parameters.property(
    "The natural direction in phi, taken to theta by B, should be the natural direction in theta."
)
def same_natural_direction(student: ChangeFunction, rng: Generator) -> bool:
    g, A, B = other_parameters(rng)
    return close(B @ torch.linalg.solve(*reversed(student(g, A, B))), torch.linalg.solve(A, g))


@in_other_parameters.property(
    "Parameters may be to spare, as the softmax walker's were: then A has no inverse. Nothing here needs one."
)
def without_an_inverse(student: ChangeFunction, rng: Generator) -> bool:
    g, _, B = other_parameters(rng)
    e = normal(rng, len(g))
    return close(e @ student(g, torch.outer(g, g), B)[1] @ e, (g @ (B @ e)).square())


@in_other_parameters.mistake(
    "concept",
    "You treat the gradient as a step and take it to phi with the inverse of B; tempting, because phi is the inverse "
    "of B times theta. A gradient is a list of slopes, 'so much per unit of phi': where the unit of phi is larger, a "
    "step has a smaller number and the slope a larger one.",
)
def inverts(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.inv(B)
    return inverse @ g, inverse @ A @ inverse.T


@in_other_parameters.mistake(
    "concept",
    "Your matrix is right, but the gradient is divided by B as if it were a step; tempting, because steps go that way. "
    "Steps and gradients change oppositely, so that slope times step, the gain, stays the same.",
)
def inverts_the_gradient(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.solve(B, g), B.T @ A @ B


@in_other_parameters.mistake(
    "order",
    "B and its transpose have changed places; tempting, because theta is B phi. The derivative in phi_j collects what "
    "phi_j does to every theta_i, which is the column j of B.",
)
def transposed(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B @ g, B @ A @ B.T


@in_other_parameters.mistake(
    "concept",
    "Your Fisher matrix stays what it was; tempting, because KL does not depend on the parameters. The number does "
    "not, but its second derivatives count change per unit of the parameters, and the units are others.",
)
def leaves_the_matrix(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, A.clone()


@in_other_parameters.mistake(
    "concept",
    "Your gradient stays what it was; tempting, because L is the same function of the policy. But a gradient is "
    "taken in parameters: the chain rule brings one factor for it, and two for a matrix of second derivatives.",
)
def leaves_the_gradient(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return g.clone(), B.T @ A @ B


@in_other_parameters.mistake(
    "concept",
    "Your matrix is that of a linear map in another basis, with B and its inverse on the sides; tempting, because that "
    "is how matrices are taught to change. The Fisher matrix is no map from steps to steps. It takes two steps and "
    "gives a number, so each side gets the B of its step.",
)
def similarity(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, torch.linalg.solve(B, A @ B)


@in_other_parameters.mistake(
    "order",
    "B stands on one side of the matrix only; tempting, because one factor is right for the gradient. Second "
    "derivatives are taken twice, so the chain rule brings B twice: the result has to be symmetric again.",
)
def one_side(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, B.T @ A


@in_other_parameters.mistake(
    "order",
    "B stands on the right-hand side of the matrix only; tempting, because a matrix times B looks like a change of "
    "columns. A product of two steps, e . A f, needs both of them in theta: B e and B f.",
)
def other_side(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, A @ B


@in_other_parameters.mistake(
    "order",
    "The gradient is right; in the matrix B and its transpose have changed places; tempting, because B A B^T is how "
    "the covariance of B x follows from that of x. The score takes B^T, like a gradient: its covariance is B^T A B.",
)
def transposes_the_matrix(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    return B.T @ g, B @ A @ B.T


@in_other_parameters.mistake(
    "order",
    "You go the other way, from phi to theta; tempting, because one of the two has to be the inverse. Given are "
    "gradient and matrix in theta: a step e in phi is the step B e there, and no inverse is needed.",
)
def goes_the_other_way(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.inv(B)
    return inverse.T @ g, inverse.T @ A @ inverse
