"""Exercise best_candidate of lesson 00, Start here."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check

Floats = npt.NDArray[np.float64]


def candidates(rng: Generator) -> tuple[Floats, Floats, float]:
    """Forty policies that promise more the further away they are, and a penalty that stops some of them."""
    kl = rng.uniform(0.01, 1.0, size=40)
    return np.sqrt(kl) + rng.normal(scale=0.5, size=40), kl, float(rng.uniform(1.0, 5.0))


best_candidate = Check("best_candidate", minutes=5, inputs=candidates)
ChoiceFunction = Callable[[Floats, Floats, float], int]


@best_candidate.property("An index is asked for: a whole number from 0 to one less than the number of candidates.")
def returns_an_index(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return operator.index(student(L, kl, C)) in range(len(L))


@best_candidate.property(
    "Another candidate has a larger lower bound on its return than the one you choose. Write the bound for rewards "
    "down first, and then look for its largest value."
)
def has_the_largest_bound(student: ChoiceFunction, rng: Generator) -> bool:
    return all(chooses_the_best(student, *candidates(rng)) for _ in range(20))


def chooses_the_best(student: ChoiceFunction, L: Floats, kl: Floats, C: float) -> bool:
    """Whether no candidate has a larger lower bound; arguments are copies, so that none is used up."""
    bound = L - C * kl
    return bool(bound[student(L.copy(), kl.copy(), C)] == bound.max())


@best_candidate.property(
    "L may be negative for all of them, when every candidate promises a loss; the largest lower bound is still wanted."
)
def chooses_among_losses(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return chooses_the_best(student, L - 10.0, kl, C)


@best_candidate.property("With C = 0 distance costs nothing, and the candidate with the largest L should be chosen.")
def free_distance_leaves_l(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, _ = candidates(rng)
    return chooses_the_best(student, L, kl, 0.0)


@best_candidate.property("Among candidates with the same L, the closest one should be chosen: distance is penalized.")
def prefers_closeness(student: ChoiceFunction, rng: Generator) -> bool:
    kl = rng.uniform(0.1, 1.0, size=8)
    return chooses_the_best(student, np.full(8, 0.3), kl, 1.0)


@best_candidate.property(
    "The old policy may be among the candidates, at a distance of 0: nothing is subtracted from its L, and nothing may "
    "be divided by its distance."
)
def standing_still_is_a_candidate(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    kl[0], L[0] = 0.0, 0.1
    cases = ((L, C), (L, 100.0), (L - 10.0, C))
    return all(chooses_the_best(student, promises, kl, price) for promises, price in cases)


@best_candidate.property(
    "Distances may be tiny and C huge, as they are in lesson 01: their product is what counts, not the size of either."
)
def sizes_do_not_matter(student: ChoiceFunction, rng: Generator) -> bool:
    L, kl, C = candidates(rng)
    return chooses_the_best(student, L, 1e-9 * kl, 1e9 * C)


@best_candidate.mistake(
    "sign",
    "You minimize L + C kl, which is the paper's form, for costs. It is tempting to copy it; but L counts rewards "
    "here, so what is bounded is bounded from below, and the largest lower bound is wanted.",
)
def minimizes_like_the_paper(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmin(L + C * kl))


@best_candidate.mistake(
    "sign",
    "You maximize L + C kl: the further away, the better. It is tempting to turn min into max and leave the rest; but "
    "only L changes its sign, the penalty is a distance and has to be subtracted.",
)
def rewards_distance(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L + C * kl))


@best_candidate.mistake(
    "concept",
    "You maximize L alone. It is tempting because L is what is promised; but L can be trusted only near the old "
    "policy, and the penalty says how much is lost with the distance.",
)
def trusts_the_promise(L: Floats, kl: Floats, C: float) -> int:  # noqa: ARG001
    return int(np.argmax(L))


@best_candidate.mistake(
    "constant",
    "You subtract the distance as it is, without C. It is tempting because L minus distance looks complete; but C says "
    "how much of a promise each nat of distance may cost, and it can be any size.",
)
def forgets_the_factor(L: Floats, kl: Floats, _C: float) -> int:
    return int(np.argmax(L - kl))


@best_candidate.mistake(
    "sign",
    "You take the smallest L - C kl: the bound is the right one, and you pick the candidate it likes least. It is "
    "tempting because the paper minimizes; of a return we want the most, so the largest lower bound is chosen.",
)
def picks_the_smallest_bound(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmin(L - C * kl))


@best_candidate.mistake(
    "indexing",
    "You count the candidates from 1. It is tempting because people do; an index in Python counts from 0, and "
    "np.argmax returns one that needs no correction.",
)
def counts_from_one(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L - C * kl)) + 1


@best_candidate.mistake(
    "concept",
    "You return the value of the best bound. It is tempting because max and argmax are written alike; here the "
    "candidate itself is wanted, by its index.",
)
def returns_the_bound(L: Floats, kl: Floats, C: float) -> float:
    return float(np.max(L - C * kl))


@best_candidate.mistake(
    "concept",
    "You choose the closest candidate. It is tempting because it is the safest; but the bound weighs what is promised "
    "against the distance, and standing still gains nothing.",
)
def stays_closest(L: Floats, kl: Floats, C: float) -> int:  # noqa: ARG001
    return int(np.argmin(kl))


@best_candidate.mistake(
    "concept",
    "Among the candidates with a positive L - C kl you take the one with the largest L. It is tempting because each of "
    "them is sure to gain something; but the bound says how much is sure, and the largest sure gain is wanted.",
)
def trusts_what_is_sure_to_gain(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(np.where(L - C * kl > 0, L, -np.inf)))


@best_candidate.mistake(
    "concept",
    "You maximize L per unit of distance. It is tempting as a rate of return; but the bound is a difference, and a "
    "ratio prefers a candidate that goes nowhere.",
)
def ratio_instead_of_difference(L: Floats, kl: Floats, C: float) -> int:
    return int(np.argmax(L / (C * kl)))
