"""Exercise random_numbers of lesson 07, The vine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_07.shared import Floats

Fresh = Callable[..., Floats]
Dealer = Callable[[Fresh, int, int, int], tuple[Floats, Floats]]


def sizes_and_source(rng: Generator) -> tuple[Fresh, int, int, int]:
    """A source of fresh random numbers, N, K and the length of rollouts; all sizes differ."""
    num_states, num_branches, length = (int(n) for n in 2 + rng.permutation(4)[:3])
    return lambda *shape: rng.random(shape), num_states, num_branches, length


def who_shares(dealer: Dealer, fresh: Fresh, *sizes: int) -> tuple[Floats, Floats]:
    """Which numbers are equal to which: among the first ones and with the later ones."""
    first, later = dealer(fresh, *sizes)
    every = np.concatenate([first.ravel(), later.ravel()])
    same = (every[:, None] == every[None, :]).astype(np.float64)
    return same[: first.size], same[first.size :]


random_numbers = Check("random_numbers", minutes=8, inputs=sizes_and_source, behavior=who_shares, unique=False)


@random_numbers.property(
    "All numbers should come from `fresh`, as it gave them; a generator of one's own is tempting, but then nobody can "
    "repeat the vine; and what is worked on may be uniform no longer, or no longer independent of the others."
)
def come_from_fresh(student: Dealer, rng: Generator) -> bool:
    fresh, *sizes = sizes_and_source(rng)
    given: list[Floats] = []

    def listed(*shape: int) -> Floats:
        given.append(fresh(*shape))
        return given[-1]

    first, later = student(listed, *sizes)
    everything = np.concatenate([np.ravel(each) for each in given])
    return bool(np.isin(first, everything).all() and np.isin(later, everything).all())


@random_numbers.property("Every branch should have a number of its own for its first action: all N * K differ.")
def first_numbers_differ(student: Dealer, rng: Generator) -> bool:
    first, _ = student(*sizes_and_source(rng))
    return len(np.unique(first)) == first.size


@random_numbers.property("In every later step, the branches of one state should all use the same number.")
def branches_of_a_state_share(student: Dealer, rng: Generator) -> bool:
    _, later = student(*sizes_and_source(rng))
    return bool((later == later[:, :, :1]).all())


@random_numbers.property(
    "Only the branches of one state, in one of the later steps, should have a number in common: no other is used "
    "twice, not by two states, not in two steps, and not for a first action and again later."
)
def nothing_else_is_shared(student: Dealer, rng: Generator) -> bool:
    first, later = student(*sizes_and_source(rng))
    return len(np.unique(np.concatenate([first.ravel(), later[:, :, 0].ravel()]))) == first.size + later[:, :, 0].size


@random_numbers.property(
    "Which number goes where depends on the numbers: sorting them, or choosing among them, is tempting where more are "
    "drawn than used. But the smallest of several is no longer uniform: take them as they come."
)
def dealt_blindly(student: Dealer, rng: Generator) -> bool:
    _, *sizes = sizes_and_source(rng)
    one, other = (
        places_of_numbers(student, np.random.default_rng(seed), *sizes) for seed in rng.integers(10**9, size=2)
    )
    return np.array_equal(one, other)


@random_numbers.property(
    "With a single state, branch or step an axis is lost; `squeeze` is tempting, because it tidies up. The shapes are "
    "[N, K] and [length, N, K] also where one of these is 1.",
    edge=True,
)
def sizes_of_one(student: Dealer, rng: Generator) -> bool:
    fresh, *_ = sizes_and_source(rng)
    for sizes in ((1, 3, 4), (3, 1, 4), (3, 4, 1), (1, 1, 1)):
        num_states, num_branches, length = sizes
        first, later = student(fresh, *sizes)
        if first.shape != (num_states, num_branches) or later.shape != (length, num_states, num_branches):
            return False
    return True


@random_numbers.property(
    "With a single state, branch or step other numbers are shared than usual. The rule is the same there: every first "
    "action its own number, every later step of a state one for its branches.",
    edge=True,
)
def dealt_alike_with_sizes_of_one(student: Dealer, rng: Generator) -> bool:
    fresh, *_ = sizes_and_source(rng)
    return all(rightly_shared(*student(fresh, *sizes)) for sizes in ((1, 3, 4), (3, 1, 4), (3, 4, 1), (1, 1, 1)))


@random_numbers.property(
    "Hundreds of states, branches or steps go wrong. Is there a number of fixed size, or a stream that begins again?",
    edge=True,
)
def many_of_each(student: Dealer, rng: Generator) -> bool:
    fresh, *_ = sizes_and_source(rng)
    return all(rightly_shared(*student(fresh, *sizes)) for sizes in ((700, 2, 3), (2, 700, 3), (2, 3, 700)))


def rightly_shared(first: Floats, later: Floats) -> bool:
    """Whether the branches of a state have one number in common in each later step, and nothing else is shared."""
    different = np.unique(np.concatenate([first.ravel(), later[:, :, 0].ravel()]))
    return bool((later == later[:, :, :1]).all()) and len(different) == first.size + later[:, :, 0].size


def places_of_numbers(student: Dealer, source: Generator, *sizes: int) -> npt.NDArray[np.int64]:
    """The numbers that the vine is dealt, first ones and later ones: each as its place among all that were drawn."""
    given: list[Floats] = []

    def listed(*shape: int) -> Floats:
        given.append(source.random(shape))
        return given[-1]

    first, later = student(listed, *sizes)
    drawn = np.concatenate([np.ravel(each) for each in given])
    order = np.argsort(drawn)
    places: npt.NDArray[np.int64] = order[np.searchsorted(drawn[order], np.concatenate([first.ravel(), later.ravel()]))]
    return places


@random_numbers.mistake(
    "concept",
    "You share the numbers of the first actions as well; tempting, because the branches should have everything else "
    "in common. But the policy turns the same number into the same action: all K branches coincide, and there is "
    "nothing left to compare.",
)
def shares_first_actions_too(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    first = np.repeat(fresh(num_states, 1), num_branches, axis=1)
    return first, np.repeat(fresh(length, num_states, 1), num_branches, axis=2)


@random_numbers.mistake(
    "concept",
    "You give every branch numbers of its own; tempting, because samples should be independent. Unbiased it is, but "
    "what counts is the difference between branches of a state, and there common luck cancels.",
)
def shares_nothing(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    return fresh(num_states, num_branches), fresh(length, num_states, num_branches)


@random_numbers.mistake(
    "concept",
    "You use the same numbers in every state; tempting, because then all is common. Within a state luck should "
    "cancel; across states it should average out, and it cannot if every state has the same luck.",
)
def shares_across_states_too(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    later = np.tile(fresh(length, 1, 1), (1, num_states, num_branches))
    return fresh(num_states, num_branches), later


@random_numbers.mistake(
    "order",
    "You share across states what should be shared across branches; tempting, because two axes are easily taken for "
    "each other. `later` is [length, N, K]: a state's branches lie along the last axis.",
)
def shares_along_the_wrong_axis(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    later = np.repeat(fresh(length, 1, num_branches), num_states, axis=1)
    return fresh(num_states, num_branches), later


@random_numbers.mistake(
    "concept",
    "You use one number for all steps of a rollout; tempting, because it is common to the branches, as it should be. "
    "A policy with the same luck in every step is another policy: steps need fresh numbers. One array that is filled "
    "again and again, and put into a list each time, comes out like that too: put a copy in.",
)
def repeats_over_time(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    later = np.tile(fresh(1, num_states, 1), (length, 1, num_branches))
    return fresh(num_states, num_branches), later


@random_numbers.mistake(
    "concept",
    "You use the numbers of the first actions again in the first of the later steps; tempting, because a stream has "
    "one beginning. Then the second action of a branch knows the first, and the branches of a state have different "
    "luck there.",
)
def uses_first_numbers_again(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    first = fresh(num_states, num_branches)
    later = np.repeat(fresh(length, num_states, 1), num_branches, axis=2)
    return first, np.concatenate([first[None], later[1:]])


@random_numbers.mistake(
    "concept",
    "You deal the later numbers once for each branch, and give the same ones to every step; tempting, because a branch "
    "then has its own luck. It is the wrong way round twice: branches of a state share, steps do not.",
)
def one_number_for_each_branch(fresh: Fresh, num_states: int, num_branches: int, length: int) -> tuple[Floats, Floats]:
    return fresh(num_states, num_branches), np.tile(fresh(1, num_states, num_branches), (length, 1, 1))
