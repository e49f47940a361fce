"""Exercise choose_states of lesson 07, The vine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_07.shared import Floats, close

Integers = npt.NDArray[np.int64]


Chooser = Callable[[Integers, Floats], Integers]


def trajectories_and_numbers(rng: Generator) -> tuple[Integers, Floats]:
    """Lengths [E] of a few trajectories, one much longer than the others, and 60 numbers in [0, 1)."""
    lengths = rng.integers(2, 9, size=int(rng.integers(3, 6)))
    lengths[int(rng.integers(len(lengths)))] += 20
    return lengths, rng.random(60)


choose_states = Check("choose_states", minutes=7, inputs=trajectories_and_numbers)


@choose_states.property(
    "Every (trajectory, step) should be a step that was taken: 0 <= step < length of its trajectory."
)
def steps_exist(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = trajectories_and_numbers(rng)
    trajectory, step = np.asarray(student(lengths, uniforms)).T
    return bool((trajectory >= 0).all() and (step >= 0).all() and (step < lengths[trajectory]).all())


@choose_states.property(
    "Numbers spread evenly over [0, 1), as many as the trunk has steps, should choose every step exactly once."
)
def each_step_once(student: Chooser, rng: Generator) -> bool:
    lengths, _ = trajectories_and_numbers(rng)
    evenly = (np.arange(lengths.sum()) + 0.5) / lengths.sum()
    return len(np.unique(student(lengths, evenly), axis=0)) == int(lengths.sum())


@choose_states.property(
    "The same number twice should choose the same step twice: it is the number that chooses, and nothing else."
)
def equal_numbers_choose_equal_steps(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = trajectories_and_numbers(rng)
    found = np.asarray(student(lengths, np.repeat(uniforms, 2)))
    return close(found[0::2], found[1::2])


@choose_states.property("Row n of the answer should belong to number n: numbers in another order, rows in that order.")
def rows_belong_to_numbers(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = trajectories_and_numbers(rng)
    return close(student(lengths, uniforms[::-1].copy()), np.asarray(student(lengths, uniforms))[::-1])


@choose_states.property("With a single trajectory of 10 steps, the number 0.25 should choose step 2, and 0.99 step 9.")
def one_trajectory(student: Chooser, _rng: Generator) -> bool:
    return close(student(np.array([10]), np.array([0.25, 0.99])), [[0, 2], [0, 9]])


@choose_states.property(
    "What is easy to test holds, but some row is still another one. Take one number by hand: which step of the whole "
    "trunk does it choose, and in which trajectory does that lie?"
)
def rows_by_hand(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = trajectories_and_numbers(rng)
    return close(student(lengths, uniforms), chosen_by_hand(lengths, uniforms))


@choose_states.property(
    "Numbers that hit a step exactly go wrong, 0 first of all; rounding up and taking one off is tempting, because it "
    "agrees with cutting off the fraction on every other number. With 16 steps, 0/16 should choose step 0 of the "
    "trunk, 1/16 step 1, and 15/16 the last one."
)
def exact_hits(student: Chooser, rng: Generator) -> bool:
    lengths, hits = rng.permutation([2, 2, 5, 7]), np.arange(16) / 16
    return close(student(lengths, hits), chosen_by_hand(lengths, hits))


@choose_states.property(
    "A trajectory of a single step goes wrong. Its step has number 0, and is as likely as any other.", edge=True
)
def a_single_step(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = rng.permutation([1, 1, 9, 3]), rng.random(60)
    return close(student(lengths, uniforms), chosen_by_hand(lengths, uniforms))


@choose_states.property(
    "A trunk of many thousands of steps goes wrong. Is there a loop, a table or an integer type of fixed size?",
    edge=True,
)
def many_thousands_of_steps(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = rng.permutation([7, 40_000, 3]), rng.random(60)
    return survives(lambda: close(student(lengths, uniforms), chosen_by_hand(lengths, uniforms)))


@choose_states.property(
    "The largest number below 1 goes wrong: it should choose the last step of the trunk. Adding a little against "
    "rounding, or working in float32, makes it 1, and there is no step for 1.",
    edge=True,
)
def the_largest_number(student: Chooser, rng: Generator) -> bool:
    lengths, _ = trajectories_and_numbers(rng)
    last = [len(lengths) - 1, lengths[-1] - 1]
    return survives(lambda: close(student(lengths, np.array([0.5, np.nextafter(1, 0)]))[1:], [last]))


@choose_states.property(
    "Lengths of another integer type, such as int16, should choose the same steps. Their sum may be too large for it: "
    "sum() of Python, and whatever keeps the type of the lengths, then wraps around; `lengths.sum()` does not.",
    edge=True,
)
def lengths_of_another_type(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = rng.permutation([7, 20_000, 20_000]), rng.random(60)
    return survives(lambda: close(student(lengths.astype(np.int16), uniforms), chosen_by_hand(lengths, uniforms)))


@choose_states.property(
    "With no numbers at all there should be no rows, an array of shape (0, 2). An array made of an empty list has lost "
    "its second axis; reshape(-1, 2) gives it back.",
    edge=True,
)
def no_numbers(student: Chooser, rng: Generator) -> bool:
    lengths, _ = trajectories_and_numbers(rng)
    return survives(lambda: np.asarray(student(lengths, np.zeros(0))).shape == (0, 2))


def chosen_by_hand(lengths: Integers, uniforms: Floats) -> Integers:
    """All steps of the trunk in a list, one trajectory after the other, and one picked for each number."""
    steps = np.concatenate([[(e, t) for t in range(length)] for e, length in enumerate(lengths.tolist())])
    return steps[(uniforms * len(steps)).astype(np.int64)]


@choose_states.mistake(
    "concept",
    "You choose a trajectory first, and then one of its steps; tempting, because the trunk is a list of trajectories. "
    "But then a step of a short trajectory is chosen more often than one of a long trajectory: where the robot falls "
    "early would count more. Number all steps of the trunk, and choose among these.",
)
def trajectory_first(lengths: Integers, uniforms: Floats) -> Integers:
    scaled = uniforms * len(lengths)
    trajectory = scaled.astype(np.int64)
    step = ((scaled - trajectory) * lengths[trajectory]).astype(np.int64)
    return np.stack([trajectory, step], axis=1)


@choose_states.mistake(
    "concept",
    "You treat the trunk as a rectangle, every trajectory as long as the longest, and move what lies beyond an end "
    "back to the last step; tempting, because arrays are rectangles. So the last state before a fall is chosen far too "
    "often. Number only the steps that were taken.",
)
def padded_to_a_rectangle(lengths: Integers, uniforms: Floats) -> Integers:
    longest = int(lengths.max())
    trajectory, step = np.divmod((uniforms * len(lengths) * longest).astype(np.int64), longest)
    return np.stack([trajectory, np.minimum(step, lengths[trajectory] - 1)], axis=1)


@choose_states.mistake(
    "concept",
    "You cut every trajectory to the length of the shortest; tempting, because then they fit into an array. What "
    "happens late in a long trajectory would never get a branch, and that is where a policy that has learned "
    "something spends its time.",
)
def cut_to_the_shortest(lengths: Integers, uniforms: Floats) -> Integers:
    shortest = int(lengths.min())
    return np.stack(np.divmod((uniforms * len(lengths) * shortest).astype(np.int64), shortest), axis=1)


@choose_states.mistake(
    "indexing",
    "You never choose the last step of the trunk; tempting, because indices end at the number of steps minus one. The "
    "number is below 1 already: multiply it by the number of steps itself, and cut off the fraction.",
)
def never_the_last(lengths: Integers, uniforms: Floats) -> Integers:
    which = (uniforms * (lengths.sum() - 1)).astype(np.int64)
    ends = np.cumsum(lengths)
    trajectory = np.searchsorted(ends, which, side="right")
    return np.stack([trajectory, which - (ends - lengths)[trajectory]], axis=1)


@choose_states.mistake(
    "order",
    "Your columns are the other way round, step before trajectory; tempting, because arrays of samples begin with "
    "time. The docstring asks for (trajectory, step).",
)
def columns_swapped(lengths: Integers, uniforms: Floats) -> Integers:
    chosen: Integers = choose_states.reference(lengths, uniforms)
    return chosen[:, ::-1].copy()


@choose_states.mistake(
    "indexing",
    "You number the steps moment by moment, the first steps of all trajectories before the second ones; tempting, "
    "because the trajectories are simulated side by side. All steps are as likely as they should be, but the text "
    "numbers one trajectory after the other, and the same numbers have to choose the same states.",
)
def numbered_moment_by_moment(lengths: Integers, uniforms: Floats) -> Integers:
    steps = [(e, t) for t in range(int(lengths.max())) for e, length in enumerate(lengths) if t < length]
    return np.array(steps)[(uniforms * len(steps)).astype(np.int64)]


@choose_states.mistake(
    "order",
    "You sort what you have chosen; tempting, because the trunk is followed in the order of time. All steps are as "
    "likely as they should be, but row n of the answer has to belong to the n-th of the numbers.",
)
def sorted_by_time(lengths: Integers, uniforms: Floats) -> Integers:
    chosen: Integers = choose_states.reference(lengths, np.sort(uniforms))
    return chosen


@choose_states.mistake(
    "indexing",
    "You count the first step of a trajectory as one more step of the trajectory before; tempting, because the sum of "
    "the lengths so far looks like the number of a last step. Steps are numbered from 0: a first trajectory of 5 steps "
    "has the numbers 0 to 4, and 5 begins the next one.",
)
def first_steps_go_to_the_one_before(lengths: Integers, uniforms: Floats) -> Integers:
    which = (uniforms * lengths.sum()).astype(np.int64)
    ends = np.cumsum(lengths)
    trajectory = np.searchsorted(ends, which, side="left")
    return np.stack([trajectory, which - (ends - lengths)[trajectory]], axis=1)


@choose_states.mistake(
    "indexing",
    "You return the number of the step in the whole trunk; tempting, because that is what the uniform number chose. "
    "The second column is the step within its trajectory: take off the steps of all trajectories before it.",
)
def counted_from_the_start_of_the_trunk(lengths: Integers, uniforms: Floats) -> Integers:
    which = (uniforms * lengths.sum()).astype(np.int64)
    return np.stack([np.searchsorted(np.cumsum(lengths), which, side="right"), which], axis=1)


@choose_states.mistake(
    "concept",
    "You keep a step that comes up twice only once; tempting, because a second vine in the same state looks like a "
    "waste. Here every number has a row of its own, and the same step may come up again; leaving it out would also "
    "sort what is left.",
)
def keeps_every_step_once(lengths: Integers, uniforms: Floats) -> Integers:
    chosen: Integers = np.unique(choose_states.reference(lengths, uniforms), axis=0)
    return chosen


@choose_states.mistake(
    "indexing",
    "You count steps from 1; tempting, because people do. Trajectories and steps are numbered from 0, so that the "
    "first state of a trunk is (0, 0), and the last step of a trajectory has its length minus one.",
)
def counts_steps_from_one(lengths: Integers, uniforms: Floats) -> Integers:
    chosen: Integers = choose_states.reference(lengths, uniforms) + np.array([0, 1])
    return chosen


@choose_states.mistake(
    "numerics",
    "You round to the nearest number; tempting, because it looks more exact than cutting off the fraction. But then "
    "the first and the last step of the trunk are chosen half as often as the others.",
)
def rounded_to_the_nearest(lengths: Integers, uniforms: Floats) -> Integers:
    evenly = (np.rint(uniforms * (lengths.sum() - 1)) + 0.5) / lengths.sum()
    chosen: Integers = choose_states.reference(lengths, evenly)
    return chosen
