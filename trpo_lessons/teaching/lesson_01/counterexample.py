"""Exercise counterexample of lesson 01, The policy-improvement bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import TabularMDP, evaluate_policy, random_policy
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_01.shared import random_mdp

ROUNDING = 1e-9


def mdp_and_policy(rng: Generator) -> tuple[TabularMDP, Tensor]:
    """A small MDP and a policy [S, A]."""
    mdp = random_mdp(rng)
    return mdp, random_policy(mdp, rng, 2.0)


def judged(function: Callable[[TabularMDP, Tensor], Tensor], mdp: TabularMDP, pi_old: Tensor) -> str:
    """What kind of answer this is; only "broken" is a counterexample."""
    pi_new = function(mdp, pi_old)
    if pi_new.shape != pi_old.shape or pi_new.dtype != pi_old.dtype:
        return "another kind of table"
    if not pi_new.isfinite().all():
        return "not finite"
    try:
        lie = float(ib.surrogate_objective(mdp, pi_old, pi_new) - evaluate_policy(mdp, pi_new).eta)
    except ValueError:
        return "no policy"
    if torch.equal(pi_new, pi_old):
        return "the old policy"
    if abs(lie) < ROUNDING:
        return "rounding"
    if lie < 0:
        return "too pessimistic"
    penalty = float(ib.surrogate_objective(mdp, pi_old, pi_new) - ib.printed_theorem_bound(mdp, pi_old, pi_new))
    return "broken" if lie > penalty + ROUNDING else "held"


counterexample = Check("counterexample", minutes=15, inputs=mdp_and_policy, behavior=judged, unique=False)


@counterexample.property(
    "Not on every problem drawn does your policy break the printed theorem. Far from the old policy it holds, and in "
    "about half of all directions L is too pessimistic, so that any bound holds. Search: try directions, with a small "
    "step, until one breaks it by more than 1e-9."
)
def breaks_the_theorem(student: Callable[[TabularMDP, Tensor], Tensor], rng: Generator) -> bool:
    # A direction that is fixed beforehand breaks it on every other problem: four a draw leave no room for luck.
    return all(judged(student, *mdp_and_policy(rng)) == "broken" for _ in range(4))


def first_judged(wanted: str, mdp: TabularMDP, pi_old: Tensor, alpha: float) -> Tensor:
    """The first random direction in which a step of `alpha` is judged as `wanted`."""
    rng = np.random.default_rng(1)
    while True:
        pi_new = ib.mixture_policy(pi_old, random_policy(mdp, rng, 0.3), alpha)
        if judged(lambda *_, pi_new=pi_new: pi_new, mdp, pi_old) == wanted:
            return pi_new


@counterexample.mistake(
    "concept",
    "For your policy L promises too much, but the printed penalty still covers the lie; tempting, because a large "
    "step makes a large lie. Compare the orders: the lie shrinks with the square of the step, this penalty with its "
    "cube, so look where the cube is the smaller of the two.",
)
def steps_too_far(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return first_judged("held", mdp, pi_old, 1.0)


@counterexample.mistake(
    "sign",
    "For your policy eta is above L, so every lower bound that starts from L holds; tempting, because L is wrong "
    "there too. You need a lie in the other direction: eta below L.",
)
def finds_l_too_pessimistic(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return first_judged("too pessimistic", mdp, pi_old, 0.01)


@counterexample.mistake(
    "concept",
    "You return the old policy; tempting, because the smaller the step, the worse the printed bound does. But at a "
    "step of zero L, the bound and eta are all the same number.",
)
def stands_still(_mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return pi_old.clone()


@counterexample.mistake(
    "numerics",
    "Your step is so small that L and eta differ by less than 1e-9; tempting, because smaller steps break the bound "
    "by a larger factor. At that size you compare rounding errors, which prove nothing. Take a larger step.",
)
def steps_too_little(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return ib.mixture_policy(pi_old, random_policy(mdp, np.random.default_rng(1)), 1e-7)


@counterexample.mistake(
    "indexing",
    "What you return is no policy: a row does not add up to 1, or holds a negative number; tempting, because adding "
    "a small random table is the first way to change a policy. Use mixture_policy, or add rows that sum to zero.",
)
def adds_noise(mdp: TabularMDP, pi_old: Tensor) -> Tensor:
    return pi_old + 0.01 * random_policy(mdp, np.random.default_rng(1))
