"""Exercise solve of lesson 04, Conjugate gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_04.shared import close, keeps_the_type

MatVec = Callable[[Tensor], Tensor]


Solver = Callable[[MatVec, Tensor, int], Tensor]


def positive_definite(rng: Generator, n: int) -> Tensor:
    """A random symmetric matrix [n, n] with eigenvalues between 1 and 20."""
    Q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return torch.from_numpy((Q * rng.uniform(1, 20, size=n)) @ Q.T)


def system(rng: Generator) -> tuple[MatVec, Tensor, int]:
    """A product with a positive definite matrix [6, 6], a right-hand side and fewer iterations than it takes."""
    A = positive_definite(rng, 6)
    return lambda v: A @ v, normal(rng, 6), int(rng.integers(3, 5))


def three_solutions(function: Solver, matvec: MatVec, b: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the system; of one whose residual is zero after one iteration; of one whose residual grows in the first."""
    steep, across = torch.tensor([1.0, 100.0]).double(), torch.tensor([1.0, 0.25]).double()
    return (
        function(matvec, b.clone(), iterations),
        function(lambda v: 2 * v, torch.ones(3, dtype=torch.float64), 3),
        function(lambda v: steep * v, across, 2),
    )


solve = Check("solve", minutes=15, inputs=system, behavior=three_solutions)


@solve.property(
    "x is right to a few digits only. Is something turned into float32 on the way, or a small number added to A or to "
    "what you divide by?"
)
def solution_has_all_its_digits(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    mine, exact = student(lambda v: A @ v, b, 4), variant(lambda v: A @ v, b, 4)
    return close(mine, exact, 1e-8) or not close(mine, exact, 1e-4)


@solve.property("With as many iterations as A has rows, A x should be b.")
def solves(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    return close(A @ student(lambda v: A @ v, b, 5), b, 1e-6)


@solve.property("After one iteration x should be the lowest point along b, which is (b . b) / (b . A b) times b.")
def first_step_is_along_b(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    return close(student(lambda v: A @ v, b, 1), torch.dot(b, b) / torch.dot(b, A @ b) * b)


@solve.property("With few iterations x should be only as near as they come: `iterations` says how many there are.")
def does_as_many_as_asked_for(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(student(lambda v: A @ v, b, 3), variant(lambda v: A @ v, b, 3), 1e-8)


@solve.property("When the residual is exactly zero the solution is found, and x should stay where it is.")
def stays_at_the_solution(student: Solver, _rng: Generator) -> bool:
    return close(student(lambda v: 2 * v, torch.ones(3, dtype=torch.float64), 3), torch.full((3,), 0.5).double())


@solve.property(
    "With b a billion times smaller, x should be a billion times smaller. Do you stop below a fixed length, or keep a "
    "small number in a denominator? Gradients come in every size: compare with b's own length, or with 0."
)
def whatever_the_size_of_b(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(1e9 * student(lambda v: A @ v, 1e-9 * b, 4), student(lambda v: A @ v, b, 4), 1e-7)


@solve.property(
    "With A a billion times flatter, x should be a billion times longer. Is a small number added to p . A p? It does "
    "not protect, it changes the step."
)
def whatever_the_size_of_a(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 6), normal(rng, 6)
    return close(1e-9 * student(lambda v: 1e-9 * (A @ v), b, 4), student(lambda v: A @ v, b, 4), 1e-7)


@solve.property(
    "x should have the precision of b, in float64 and in float32: start from torch.zeros_like(b), not from torch.zeros."
)
def solution_keeps_the_precision(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 5), normal(rng, 5)
    single = student(lambda v: A.float() @ v, b.float(), 3)
    return keeps_the_type(single, b.float()) and keeps_the_type(student(lambda v: A @ v, 0 * b, 3), b)


@solve.property("With no iterations at all x should be 0, where it starts.")
def starts_at_zero(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 4), normal(rng, 4)
    return close(student(lambda v: A @ v, b, 0), torch.zeros(4, dtype=torch.float64))


@solve.property("Where b is 0 there is nothing to do: x should be 0. Look before the first step, not only after it.")
def stays_at_zero(student: Solver, rng: Generator) -> bool:
    A = positive_definite(rng, 4)
    return close(student(lambda v: A @ v, torch.zeros(4, dtype=torch.float64), 3), torch.zeros(4, dtype=torch.float64))


@solve.property(
    "x is right, but you ask for more than one product in an iteration, and products are what costs. Keep A p in a "
    "variable; the residual follows from it."
)
def one_product_an_iteration(student: Solver, rng: Generator) -> bool:
    A, b, calls = positive_definite(rng, 5), normal(rng, 5), 0

    def matvec(v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return A @ v

    student(matvec, b, 4)
    return calls <= 5  # one more, for a residual computed at the start, is forgiven


@solve.property(
    "On a system with forty rows, 24 iterations should come as near as 24 products can; on six rows yours do. Does "
    "your loop end sooner, at a count of its own or at a residual that is small but not 0? Or does it start afresh "
    "from the residual now and then? `iterations` says how many, and every direction builds on the last."
)
def goes_all_the_way_in_many_dimensions(student: Solver, rng: Generator) -> bool:
    A, b = positive_definite(rng, 40), normal(rng, 40)
    return close(student(lambda v: A @ v, b, 24), variant(lambda v: A @ v, b, 24), 1e-8)


Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def variant(
    matvec: MatVec,
    b: Tensor,
    iterations: int,
    *,
    next_p: Rule = lambda r, _r_before, p, ratio: r + ratio * p,
    alpha: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda r, p, a_p: torch.dot(r, r) / torch.dot(p, a_p),
    sign: int = -1,
    stops: bool = True,
) -> Tensor:
    """Conjugate gradient with one of its parts replaced."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        if stops and torch.dot(r, r) == 0:
            break
        a_p = matvec(p)
        step = alpha(r, p, a_p)
        x, before = x + step * p, r
        r = r + sign * step * a_p
        p = next_p(r, before, p, torch.dot(r, r) / torch.dot(before, before))
    return x


@solve.mistake(
    "concept",
    "You go along the residual every time: that is steepest descent; tempting, because the residual is the steepest "
    "way down. Each of its steps undoes part of the last. Keep the old direction in play: p = r + (new rr / old rr) p.",
)
def descends_steepest(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, _p, _ratio: r)


@solve.mistake(
    "order",
    "Your ratio of squared residuals is always 1: r is overwritten before its old length is used; tempting, because "
    "the formula writes both with the letter r. Keep the old r . r in a variable.",
)
def forgets_the_old_length(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, _ratio: r + p)


@solve.mistake(
    "concept",
    "Your ratio is one of lengths, where squared lengths belong; tempting, because lengths are what residuals are "
    "reported by. Conjugacy asks for (new r . new r) / (old r . old r), without roots.",
)
def takes_the_ratio_of_lengths(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r + ratio.sqrt() * p)


@solve.mistake(
    "order",
    "Your ratio of squared residuals is upside down; tempting, because alpha has the old one on top. In the new "
    "direction the new one goes on top: as the residual gets small, the old direction has to fade.",
)
def turns_ratio_upside_down(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r + p / ratio)


@solve.mistake(
    "sign",
    "You subtract the old direction from the residual; tempting, because Gram-Schmidt subtracts. Its coefficient here "
    "is negative already, and the two signs cancel: p = r + (new rr / old rr) p.",
)
def subtracts_the_old_direction(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda r, _before, p, ratio: r - ratio * p)


@solve.mistake(
    "sign",
    "Your residual moves the wrong way; tempting, because x is updated with a plus. The residual is b - A x, so when x "
    "grows by alpha p it shrinks by alpha A p.",
)
def grows_the_residual(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, sign=1)


@solve.mistake(
    "concept",
    "Your step length divides by p . p, where the curvature p . A p belongs; tempting, because that normalizes p. How "
    "far down the lowest point lies depends on how the bowl curves along p, and A knows that.",
)
def ignores_the_curvature(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, alpha=lambda r, p, _a_p: torch.dot(r, r) / torch.dot(p, p))


@solve.mistake(
    "order",
    "Your new direction is made from the residual before the step; tempting, because the lines can be written in "
    "either order. Update the residual first: the next direction starts from where you now are.",
)
def uses_the_stale_residual(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, next_p=lambda _r, before, p, ratio: before + ratio * p)


@solve.mistake(
    "termination",
    "You go on when the residual is exactly zero, and divide 0 by 0; tempting, because on random systems it never "
    "happens. It does when A is a multiple of the identity, for example with nothing but damping. Stop there.",
)
def never_stops(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, stops=False)


@solve.mistake(
    "order",
    "Your p and your r are one and the same tensor at the start: p = r gives it a second name, and r -= ... changes "
    "what p sees; tempting, because the method starts with both equal to b. The first direction is then lost. Write "
    "p = r.clone(), or r = r - ..., which makes a new tensor.",
)
def shares_a_tensor_at_the_start(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r = torch.zeros_like(b), b.clone()
    p = r
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        x = x + alpha * p
        r -= alpha * a_p
        p = r + torch.dot(r, r) / rr * p
    return x


@solve.mistake(
    "order",
    "Your p and your r stay one and the same tensor all the way: p = r, and then r -= ... and p *= ... both change it; "
    "tempting, because in place saves memory. Residual and direction are two vectors: p = r.clone().",
)
def shares_a_tensor_all_the_way(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r = torch.zeros_like(b), b.clone()
    p = r
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        x = x + alpha * p
        r -= alpha * a_p
        p *= torch.dot(r, r) / rr
        p += r
    return x


@solve.mistake(
    "order",
    "You take the step length from before with the direction from now: x moves along the new p; tempting, because p is "
    "updated in the same loop. Move x along the p that alpha was computed for, and renew p last.",
)
def moves_along_the_next_direction(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        r = r - alpha * a_p
        p = r + torch.dot(r, r) / rr * p
        x = x + alpha * p
    return x


@solve.mistake(
    "concept",
    "You keep one step length for all iterations, that of the first; tempting, because a learning rate is a constant. "
    "Each direction has a curvature of its own, and its lowest point elsewhere: alpha = (r . r) / (p . A p) every "
    "time.",
)
def keeps_the_first_step_length(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    first = torch.dot(b, b) / torch.dot(b, matvec(b))
    return variant(matvec, b, iterations, alpha=lambda _r, _p, _a_p: first)


@solve.mistake(
    "termination",
    "You solve to the end, whatever `iterations` says; tempting, because a better x looks like a better answer. Every "
    "iteration costs a product with A, and a few are enough for the update: the caller decides how many.",
)
def solves_to_the_end(matvec: MatVec, b: Tensor, _iterations: int) -> Tensor:
    return variant(matvec, b, len(b))


@solve.mistake(
    "indexing",
    "You do one iteration more than asked for; tempting, because the start looks like a step to be counted. The start "
    "x = 0 costs no product; every iteration costs one.",
)
def goes_one_further(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations + 1)


@solve.mistake(
    "termination",
    "You stop as soon as the residual is longer than before; tempting, because it looks as if things got worse. The "
    "residual may go up on its way: what falls with every iteration is the bowl's height. Go on until it is 0.",
)
def stops_where_the_residual_rises(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        rr = torch.dot(r, r)
        if rr == 0:
            break
        a_p = matvec(p)
        alpha = rr / torch.dot(p, a_p)
        after = r - alpha * a_p
        if torch.dot(after, after) > rr:
            break
        x, p, r = x + alpha * p, after + torch.dot(after, after) / rr * p, after
    return x


@solve.mistake(
    "concept",
    "Your x starts at b; tempting, because r and p do. The residual b - A x is b only where x is 0: what you add up is "
    "the solution, and b on top of it.",
)
def starts_at_b(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return b + variant(matvec, b, iterations)


@solve.mistake(
    "concept",
    "Your step length has p . p on top; tempting, because p . A p stands below. The slope along p is p . r, which is "
    "r . r: p has the earlier directions in it, and is longer than r.",
)
def puts_p_on_top(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations, alpha=lambda _r, p, a_p: torch.dot(p, p) / torch.dot(p, a_p))


@solve.mistake(
    "indexing",
    "You stop one iteration early; tempting, because the start looks like the first point. The start x = 0 costs no "
    "product; every iteration costs one, and as many as asked for are to be done.",
)
def stops_one_short(matvec: MatVec, b: Tensor, iterations: int) -> Tensor:
    return variant(matvec, b, iterations - 1)
