"""Exercise coupling of lesson 01, The policy-improvement bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_01.shared import close


def two_distributions(rng: Generator) -> tuple[Tensor, Tensor]:
    """Two distributions over four actions."""
    return torch.from_numpy(rng.dirichlet(np.ones(4))), torch.from_numpy(rng.dirichlet(np.ones(4)))


# What happens when the actions differ is free, as long as the marginals are right: several answers are good.
coupling = Check("coupling", minutes=15, inputs=two_distributions, unique=False)
Coupling = Callable[[Tensor, Tensor], Tensor]


@coupling.property("The table should be a joint distribution: no entry below 0, and all of them together 1.")
def coupling_is_a_distribution(student: Coupling, rng: Generator) -> bool:
    joint = student(*two_distributions(rng))
    return bool(joint.min() >= -1e-12) and close(joint.sum(), 1.0, 1e-6)


@coupling.property("Summed over its columns, row a of the table should be p(a): the first action follows p.")
def coupling_has_rows_p(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).sum(1), p, 1e-6)


@coupling.property("Summed over its rows, column b of the table should be q(b): the second action follows q.")
def coupling_has_columns_q(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).sum(0), q, 1e-6)


@coupling.property(
    "The two actions should be equal as often as possible. Both can be a at most min(p(a), q(a)) of the time; your "
    "diagonal holds less."
)
def coupling_agrees_as_often_as_possible(student: Coupling, rng: Generator) -> bool:
    p, q = two_distributions(rng)
    return close(student(p, q).diagonal(), torch.minimum(p, q), 1e-6)


@coupling.property(
    "Two distributions may be nearly the same, or hold a probability of one in a million million; then your table is "
    "off. Adding a small number to a divisor is tempting as a guard against 0, and so is rounding. Here nothing is "
    "divided by 0, for p and q are not equal."
)
def coupling_of_neighbors(student: Coupling, rng: Generator) -> bool:
    p, other = two_distributions(rng)
    skewed = torch.tensor([1e-12, 1e-6, 0.3, 0.0], dtype=torch.float64)
    skewed[3] = 1 - skewed.sum()
    pairs = [(p, (1 - 1e-7) * p + 1e-7 * other), (skewed, other), (p, skewed)]
    return all(is_maximal(student(p.clone(), q.clone()), p, q, 1e-6) for p, q in pairs)


def is_maximal(joint: Tensor, p: Tensor, q: Tensor, rtol: float) -> bool:
    """Whether `joint` is a maximal coupling, measured by how far p and q are apart."""
    apart = float((p - q).abs().sum()) / 2
    rest = joint - torch.diag(joint.diagonal())
    rows, columns = p - torch.minimum(p, q), q - torch.minimum(p, q)
    off = torch.stack([rest.sum(1) - rows, rest.sum(0) - columns, joint.diagonal() - torch.minimum(p, q)])
    return bool(joint.min() >= -1e-15 and off.abs().max() <= rtol * apart + 1e-15)


@coupling.property("There may be two actions only, and the table is then 2 by 2.")
def coupling_of_coins(student: Coupling, rng: Generator) -> bool:
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(2))) for _ in range(2))
    return is_maximal(student(p.clone(), q.clone()), p, q, 1e-9)


@coupling.mistake(
    "concept",
    "You draw the two actions independently; tempting, because the marginals are then right. But they differ most "
    "of the time, even where p and q are equal. Let them share as much as both have.",
)
def independent(p: Tensor, q: Tensor) -> Tensor:
    return torch.outer(p, q)


@coupling.mistake(
    "concept",
    "You feed one uniform number to both cumulative distributions; tempting, because it is one source of randomness "
    "and the marginals are right. But the cuts are shifted against each other, so an action that both like equally "
    "is drawn at different times. Put the shared probability of each action on the diagonal first.",
)
def one_uniform_for_both(p: Tensor, q: Tensor) -> Tensor:
    ends_p, ends_q = p.cumsum(0), q.cumsum(0)
    ends = torch.minimum(ends_p[:, None], ends_q[None, :])
    starts = torch.maximum((ends_p - p)[:, None], (ends_q - q)[None, :])
    return (ends - starts).clamp(min=0)


@coupling.mistake(
    "conditioning",
    "You scale the shared part up until it fills the table; tempting, because then the actions never differ. But "
    "that is the joint distribution given that they agree, and its marginals are neither p nor q.",
)
def always_agrees(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared / shared.sum())


@coupling.mistake(
    "order",
    "Your table is transposed: its rows add up to q and its columns to p; tempting, because the diagonal looks "
    "right either way. The first action, which picks the row, follows p.",
)
def transposed(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared) + torch.outer(q - shared, p - shared) / (p - shared).sum()


@coupling.mistake(
    "constant",
    "You multiply what is left of p and of q without dividing by their total; tempting, because a product of two "
    "distributions is one. These two add up to D_TV, not to 1, so their product adds up to its square.",
)
def leftovers_not_divided(p: Tensor, q: Tensor) -> Tensor:
    shared = torch.minimum(p, q)
    return torch.diag(shared) + torch.outer(p - shared, q - shared)


@coupling.mistake(
    "concept",
    "You put min(p, q) on the diagonal of the independent table, and leave the rest of it; tempting, because the "
    "diagonal is what matters. But then rows and columns add up to too much: what lies off the diagonal has to be what "
    "is left of p and of q.",
)
def changes_the_diagonal_only(p: Tensor, q: Tensor) -> Tensor:
    joint = torch.outer(p, q)
    return joint - torch.diag(joint.diagonal()) + torch.diag(torch.minimum(p, q))


@coupling.mistake(
    "concept",
    "Both actions are always the same one, drawn from p; tempting, because they then never differ. But the second one "
    "has to follow q: the columns must add up to q.",
)
def follows_p_twice(p: Tensor, q: Tensor) -> Tensor:  # noqa: ARG001
    return torch.diag(p)


@coupling.mistake(
    "concept",
    "You spread what is left evenly over the table; tempting, because the total is then right. What is left of p "
    "belongs to the actions that p likes better, and what is left of q to those that q does: fill row a and column b "
    "in proportion to both.",
)
def spreads_the_rest_evenly(p: Tensor, q: Tensor) -> Tensor:
    shared, size = torch.minimum(p, q), len(p)
    rest = (1 - shared.sum()) / (size * (size - 1))
    return torch.diag(shared) + rest * (1 - torch.eye(size, dtype=torch.float64))


@coupling.mistake(
    "order",
    "Your diagonal holds max(p, q), and the rest is taken away elsewhere; tempting, because agreement is to be as "
    "large as it can be. Both actions are a together only when p and q both have it: at most min(p(a), q(a)) of the "
    "time.",
)
def takes_the_larger(p: Tensor, q: Tensor) -> Tensor:
    larger = torch.maximum(p, q)
    return torch.diag(larger) - torch.outer(larger - p, larger - q) / (larger - p).sum()
