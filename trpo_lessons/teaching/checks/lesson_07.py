"""Checks of lesson 07, The vine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.lesson_06 import survives

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def close(one: Any, other: Any) -> bool:
    """Equal up to rounding."""
    return bool(np.allclose(np.asarray(one), np.asarray(other), rtol=1e-9, atol=1e-9))


# ---- choose_states ---------------------------------------------------------------------------------------------------

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
    lengths, hits = rng.permutation([1, 2, 5, 8]), np.arange(16) / 16
    return close(student(lengths, hits), chosen_by_hand(lengths, hits))


@choose_states.property(
    "A trunk of many thousands of steps goes wrong, or a trajectory of a single step. Is there a loop or a number of "
    "fixed size?"
)
def long_and_short(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = rng.permutation([1, 1, 40_000, 3]), rng.random(60)
    return close(student(lengths, uniforms), chosen_by_hand(lengths, uniforms))


@choose_states.property("Lengths of another integer type, such as int32, should choose the same steps.")
def lengths_of_another_type(student: Chooser, rng: Generator) -> bool:
    lengths, uniforms = trajectories_and_numbers(rng)
    return close(student(lengths.astype(np.int32), uniforms), chosen_by_hand(lengths, uniforms))


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
    "numerics",
    "You round to the nearest number; tempting, because it looks more exact than cutting off the fraction. But then "
    "the first and the last step of the trunk are chosen half as often as the others.",
)
def rounded_to_the_nearest(lengths: Integers, uniforms: Floats) -> Integers:
    evenly = (np.rint(uniforms * (lengths.sum() - 1)) + 0.5) / lengths.sum()
    chosen: Integers = choose_states.reference(lengths, evenly)
    return chosen


# ---- branch_value ----------------------------------------------------------------------------------------------------

Step = Callable[[Floats, int, float], tuple[Floats, float, bool]]
Actor = Callable[[Floats, float], int]
Value = Callable[[Floats], float]
BranchFunction = Callable[[Step, Floats, int, Actor, Floats, float, Value], float]


def small_world(rng: Generator) -> tuple[Step, Floats, int, Actor, Floats, float, Value]:
    """A world with a position and a fuse that burns down, and all that a branch in it needs."""
    drift, pull, worth = (float(x) for x in rng.uniform(0.3, 0.9, size=3))

    def step(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        position, fuse = state
        position, fuse = drift * position + pull * (action - 1) + luck, fuse - 1
        return np.array([position, fuse]), float(position + 0.3 * action), bool(fuse <= 0)

    def policy(state: Floats, number: float) -> int:
        return int(np.floor(3 * number + 2 * state[0])) % 3

    def value(state: Floats) -> float:
        return float(1 + worth * state[0])

    length = int(rng.integers(5, 9))
    state = np.array([float(rng.normal()), 100.0])
    return step, state, int(rng.integers(3)), policy, rng.random((length, 2)), float(rng.uniform(0.6, 0.9)), value


def cut_and_ended(function: BranchFunction, step: Step, state: Floats, *others: Any) -> tuple[float, ...]:
    """The branch as it is, and one that ends after three steps."""
    return tuple(function(step, np.array([state[0], fuse]), *others) for fuse in (state[1], 3.0))


branch_value = Check("branch_value", minutes=12, inputs=small_world, behavior=cut_and_ended)


def noise_used(student: BranchFunction, rng: Generator) -> tuple[list[float], list[float], Floats]:
    """The numbers that the policy gets, and the luck that the world gets, call by call; and the noise [steps, 2]."""
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    numbers: list[float] = []
    lucks: list[float] = []

    def listed_step(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        lucks.append(luck)
        return step(state, action, luck)

    def listed_policy(state: Floats, number: float) -> int:
        numbers.append(number)
        return policy(state, number)

    student(listed_step, state, first_action, listed_policy, noise, gamma, value)
    return numbers, lucks, noise


@branch_value.property("The world should be stepped once for each row of `noise`, with the second number of that row.")
def luck_comes_from_the_rows(student: BranchFunction, rng: Generator) -> bool:
    _, lucks, noise = noise_used(student, rng)
    return len(lucks) == len(noise) and close(lucks, noise[:, 1])


@branch_value.property(
    "The policy should be asked once for each row of `noise` but the first, with the first number of that row."
)
def numbers_come_from_the_rows(student: BranchFunction, rng: Generator) -> bool:
    numbers, _, noise = noise_used(student, rng)
    asked = numbers[1:] if len(numbers) == len(noise) else numbers  # asking in vain for the first action does no harm
    return len(asked) == len(noise) - 1 and close(asked, noise[1:, 0])


@branch_value.property(
    "A branch of one step should be worth its first reward, undiscounted, plus gamma times V of the state it led to."
)
def one_step(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    then, reward, _ = step(state, first_action, noise[0, 1])
    found = student(step, state, first_action, policy, noise[:1], gamma, value)
    return close(found, reward + gamma * value(then))


@branch_value.property("With gamma = 0 nothing but the reward of the first action should count.")
def nothing_but_the_first_reward(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, _, value = small_world(rng)
    return close(
        student(step, state, first_action, policy, noise, 0.0, value), step(state, first_action, noise[0, 1])[1]
    )


@branch_value.property("After a termination nothing should be added any more, neither rewards nor V.")
def ends_where_the_episode_ends(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    state = np.array([state[0], 2.0])
    alone = [noise[:3], noise]
    found = [student(step, state, first_action, policy, each, gamma, value) for each in alone]
    return close(found[0], found[1]) and close(
        student(step, state, first_action, policy, noise, gamma, lambda _state: 1000.0), found[1]
    )


@branch_value.property("A constant V of 1 should add gamma to the number of steps taken, where the branch was cut.")
def value_is_discounted_to_the_start(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, _ = small_world(rng)
    with_one = student(step, state, first_action, policy, noise, gamma, lambda _state: 1.0)
    with_none = student(step, state, first_action, policy, noise, gamma, lambda _state: 0.0)
    return close(with_one - with_none, gamma ** len(noise))


@branch_value.property("A reward in the step that ends the episode should count like any other.")
def the_last_reward_counts(student: BranchFunction, rng: Generator) -> bool:
    _, state, first_action, policy, noise, gamma, value = small_world(rng)

    def step(state: Floats, _action: int, _luck: float) -> tuple[Floats, float, bool]:
        ends = bool(state[1] <= 1)
        return np.array([state[0], state[1] - 1]), float(ends), ends

    start = np.array([state[0], 3.0])
    return close(student(step, start, first_action, policy, noise, gamma, value), gamma**2)


@branch_value.property(
    "What is easy to test holds, but the value is still another one. Go through the definition again, term by term."
)
def the_sum_by_hand(student: BranchFunction, rng: Generator) -> bool:
    arguments = small_world(rng)
    return close(student(*arguments), roll(*arguments))


@branch_value.property(
    "A branch whose very first step ends the episode goes wrong; tempting, because the first action is often handled "
    "ahead of the loop. It can make the robot fall like any other: its reward is then all there is."
)
def the_first_step_may_end_it(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    start = np.array([state[0], 1.0])
    reward = step(start, first_action, noise[0, 1])[1]
    return close(student(step, start, first_action, policy, noise, gamma, value), reward)


@branch_value.property(
    "An end in the very last row goes wrong; tempting, because the branch is cut there as well. It has ended, and "
    "what has ended has no value to add."
)
def the_last_step_may_end_it(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    start = np.array([state[0], float(len(noise))])
    arguments = (step, start, first_action, policy, noise, gamma, value)
    return close(student(*arguments), roll(*arguments))


@branch_value.property(
    "A branch of 300 steps goes wrong. Is there a loop over a fixed number of steps? It should have as many as `noise` "
    "has rows."
)
def a_long_branch(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, _, _, value = small_world(rng)
    arguments = (step, np.array([state[0], 1e6]), first_action, policy, rng.random((300, 2)), 0.98, value)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


@branch_value.property(
    "A world that answers with numpy's own True and False goes wrong; `is True` is tempting, because it reads like "
    "English. It asks for one certain object; `if terminated:` asks for the truth."
)
def truth_of_another_type(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)

    def numpy_step(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, reward, ended = step(state, action, luck)
        return then, reward, np.bool_(ended)  # type: ignore[return-value]

    others = (np.array([state[0], 3.0]), first_action, policy, noise, gamma, value)
    return close(student(numpy_step, *others), roll(step, *others))


@branch_value.property(
    "A world whose rewards are whole numbers, as cart-pole's are, goes wrong; tempting is an array of the rewards' own "
    "type, which cuts discounted ones to whole numbers. Let the sum be a float from the start."
)
def whole_rewards(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)

    def whole_step(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, _, ended = step(state, action, luck)
        return then, 1 + action, ended

    arguments = (whole_step, state, first_action, policy, noise, gamma, value)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


def roll(
    step: Step,
    state: Floats,
    first_action: int,
    policy: Actor,
    noise: Floats,
    gamma: float,
    value: Value,
    *,
    force: str = "first",
    discount_from: int = 0,
    stop: bool = True,
    rest: str = "cut",
    power: int = 0,
    skip: int = 0,
    stale: bool = False,
    late: bool = False,
) -> float:
    """A branch with one thing done in another way; the mistakes below say which."""
    total, t, terminated, before = 0.0, 0, False, state
    for t, (number, luck) in enumerate(noise, start=1):
        seen = before if stale else state
        forced = {"first": t == 1, "never": False, "always": True}[force]
        action = first_action if forced else policy(seen, noise[t - 2, 0] if late else number)
        before = state
        state, reward, ended = step(state, action, luck)
        total += gamma ** (t - 1 + discount_from) * reward if t > skip else 0.0
        terminated = terminated or ended
        if terminated and stop:
            break
    if rest == "nothing" or (terminated and rest == "cut"):
        return total
    return total + gamma ** {0: t, 1: t - 1, 2: 0}[power] * value(state)


@branch_value.mistake(
    "concept",
    "The policy chooses the first action too; tempting, because it is in charge everywhere else. Then all branches of "
    "a state estimate V, and none of them Q of its own first action: that one is given.",
)
def lets_the_policy_begin(*arguments: Any) -> float:
    return roll(*arguments, force="never")


@branch_value.mistake(
    "concept",
    "You repeat the first action to the end; tempting, because the branch is named after it. Q(s, a) is the worth of "
    "doing a ONCE and following the policy from then on.",
)
def repeats_the_first_action(*arguments: Any) -> float:
    return roll(*arguments, force="always")


@branch_value.mistake(
    "indexing",
    "You leave out the reward of the first action; tempting, because the branch seems to begin after it. It is the "
    "one reward that depends on the first action for certain.",
)
def forgets_the_first_reward(*arguments: Any) -> float:
    return roll(*arguments, skip=1)


@branch_value.mistake(
    "order",
    "You discount the first reward; tempting, because it comes after a step. The sum begins with gamma to the power "
    "of 0; the value at the cut, after n rewards, has gamma to the power of n.",
)
def discounts_the_first_reward(*arguments: Any) -> float:
    return roll(*arguments, discount_from=1)


@branch_value.mistake(
    "termination",
    "You add V after a termination; tempting, because the rollout is over there as well. But it was not cut: the "
    "episode ended, nothing follows, and nothing is to be added.",
)
def values_what_has_ended(*arguments: Any) -> float:
    return roll(*arguments, rest="always")


@branch_value.mistake(
    "termination",
    "You go on after a termination; tempting, because the noise has more rows. What is simulated then is another "
    "episode, or nothing at all: return when `terminated` says so.",
)
def plays_on_after_the_end(*arguments: Any) -> float:
    return roll(*arguments, stop=False)


@branch_value.mistake(
    "concept",
    "You add V at the cut without discounting it; tempting, because V is a discounted sum already. It is one seen "
    "from the cut; the branch is valued where it begins, n steps earlier.",
)
def forgets_to_discount_the_value(*arguments: Any) -> float:
    return roll(*arguments, power=2)


@branch_value.mistake(
    "indexing",
    "Your value at the cut is discounted one step too little; tempting, because the last reward has gamma to the "
    "power of n - 1. V comes after that reward: n steps from the beginning.",
)
def discounts_the_value_one_step_less(*arguments: Any) -> float:
    return roll(*arguments, power=1)


@branch_value.mistake(
    "concept",
    "You leave V out where the branch was cut; tempting, because the paper does, and its Q is that of a limited "
    "length. Here the caller hands you a value function; one that returns 0 gives the paper's estimate.",
)
def leaves_the_value_out(*arguments: Any) -> float:
    return roll(*arguments, rest="nothing")


@branch_value.mistake(
    "order",
    "The policy sees the state before last; tempting to write by choosing the action before the state is brought up "
    "to date. It has to react to the state that the last step led to.",
)
def acts_on_an_old_state(*arguments: Any) -> float:
    return roll(*arguments, stale=True)


@branch_value.mistake(
    "indexing",
    "The policy uses the number of the row before; tempting, because the action is chosen as soon as the last step is "
    "over. Row t holds what step t needs, the policy's number and the world's luck; the number of row 0 stays unused.",
)
def uses_the_row_before(*arguments: Any) -> float:
    return roll(*arguments, late=True)


@branch_value.mistake(
    "concept",
    "You do not discount; tempting, because the rewards of so short a rollout could simply be added up, as a score is. "
    "Q is the discounted sum: the reward of step t counts gamma to the power of t.",
)
def discounts_nothing(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, _gamma: float, value: Value
) -> float:
    return roll(step, state, first_action, policy, noise, 1.0, value)


@branch_value.mistake(
    "concept",
    "You take V of the state in which the branch begins off; tempting, because an update wants advantages. What is "
    "asked for is Q. A vine needs no baseline: what is the same for all branches of a state cancels by itself.",
)
def takes_the_value_off(*arguments: Any) -> float:
    return roll(*arguments) - float(arguments[6](arguments[1]))


@branch_value.mistake(
    "order",
    "You hand the policy's number to the world and the world's luck to the policy; tempting, because a row holds two "
    "numbers that look alike. The policy's comes first.",
)
def swaps_number_and_luck(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    return roll(step, state, first_action, policy, noise[:, ::-1], gamma, value)


@branch_value.mistake(
    "termination",
    "You leave out the reward of the step that ends the episode; tempting, because the episode is over when you see "
    "it. The step was taken, and its reward was earned: add it first, then stop.",
)
def drops_the_last_reward(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    def unpaid(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, reward, ended = step(state, action, luck)
        return then, 0.0 if ended else reward, ended

    return roll(unpaid, state, first_action, policy, noise, gamma, value)


@branch_value.mistake(
    "indexing",
    "Your branch has one step too many, and uses row 0 of the noise twice; tempting, because the first action stands "
    "outside the policy's loop. It is a step like the others: it uses up row 0, and the policy begins with row 1.",
)
def takes_one_step_too_many(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    return roll(step, state, first_action, policy, np.concatenate([noise[:1], noise]), gamma, value)


@branch_value.mistake(
    "indexing",
    "You add V of the state in which the branch began; tempting, because it is the state you were given. What was cut "
    "off lies behind the last step: add V of the state that this step led to.",
)
def values_the_beginning(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    worth = value(state)
    return roll(step, state, first_action, policy, noise, gamma, lambda _state: worth)


@branch_value.mistake(
    "order",
    "You add V of the state that the last action was chosen in; tempting where the value is worked out before the "
    "state is brought up to date. That action's reward is in the sum already: V belongs to the state it led to.",
)
def values_the_last_state_but_one(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    seen = [state]

    def remembering(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        seen.append(state)
        return step(state, action, luck)

    return roll(remembering, state, first_action, policy, noise, gamma, lambda _state: value(seen[-1]))


# ---- random_numbers --------------------------------------------------------------------------------------------------

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
    "repeat the vine, and a number that is worked on is no longer uniform."
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
    "With a single state, branch or step an axis is lost; `squeeze` is tempting, because it tidies up. The shapes are "
    "[N, K] and [length, N, K] also where one of these is 1."
)
def sizes_of_one(student: Dealer, rng: Generator) -> bool:
    fresh, *_ = sizes_and_source(rng)
    for sizes in ((1, 3, 4), (3, 1, 4), (3, 4, 1), (1, 1, 1)):
        num_states, num_branches, length = sizes
        first, later = student(fresh, *sizes)
        if first.shape != (num_states, num_branches) or later.shape != (length, num_states, num_branches):
            return False
    return True


@random_numbers.property("Hundreds of states go wrong. Is there a number of fixed size?")
def many_states(student: Dealer, rng: Generator) -> bool:
    first, later = student(lambda *shape: rng.random(shape), 300, 2, 3)
    return len(np.unique(first)) == 600 and len(np.unique(later)) == 900


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
    "A policy with the same luck in every step is another policy: steps need fresh numbers.",
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


# ---- self_normalised -------------------------------------------------------------------------------------------------

Terms = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def rollout_set(rng: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log probabilities [N, K] of first actions under pi, pi_old and q, and Q-values [N, K]; N is not K."""
    num_states = int(rng.integers(2, 6))
    shape = (num_states, num_states + int(rng.integers(1, 3)))
    log_pi, log_pi_old, log_q = (torch.from_numpy(np.log(rng.uniform(0.05, 0.9, size=shape))) for _ in range(3))
    return log_pi, log_pi_old, log_q, torch.from_numpy(2 + rng.normal(size=shape))


def terms_and_slope(function: Terms, log_pi: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """The terms, and the gradient of a mixture of them in log_pi."""
    at = log_pi.clone().requires_grad_()
    terms = function(at, *others)
    mixed = (terms * torch.linspace(1, 2, len(terms), dtype=torch.float64)).sum()
    if not mixed.requires_grad:
        return terms.detach(), torch.zeros_like(log_pi)
    (slope,) = torch.autograd.grad(mixed, at)
    return terms.detach(), slope


self_normalised = Check("self_normalised", minutes=8, inputs=rollout_set, behavior=terms_and_slope)


@self_normalised.property("If all K Q-values of a state are the same, the term of that state should be that value.")
def constant_values_come_back(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    return close(student(log_pi, log_pi_old, log_q, q_values[:, :1].expand_as(q_values).clone()), q_values[:, 0])


@self_normalised.property("A term should lie between the smallest and the largest Q-value of its state: it is a mean.")
def terms_are_means(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    terms = student(log_pi, log_pi_old, log_q, q_values)
    return bool((terms > q_values.min(1).values - 1e-9).all() and (terms < q_values.max(1).values + 1e-9).all())


@self_normalised.property(
    "With uniform q and every action once, the term should be the sum of pi times Q: equation 16. Which two of the "
    "three log probabilities does that leave?"
)
def agrees_with_equation_16(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    log_pi = torch.log_softmax(log_pi, dim=1)
    uniform = torch.full_like(log_q, -float(np.log(log_q.shape[1])))
    return close(student(log_pi, log_pi_old, uniform, q_values), (log_pi.exp() * q_values).sum(1))


@self_normalised.property("Where log_pi changes, the terms should change with it, so that their gradient is not zero.")
def has_a_gradient(student: Terms, rng: Generator) -> bool:
    _, slope = terms_and_slope(student, *rollout_set(rng))
    return bool(slope.abs().max() > 1e-9)


@self_normalised.property(
    "The terms are right, and their gradient in log_pi is not. Is a part of the quotient cut off from it?"
)
def has_the_right_gradient(student: Terms, rng: Generator) -> bool:
    arguments = rollout_set(rng)
    return close(terms_and_slope(student, *arguments)[1], terms_and_slope(self_normalised.reference, *arguments)[1])


@self_normalised.property(
    "What is easy to test holds, but the terms are still others. Go through equation 17 again, for a q of its own."
)
def equation_17(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    found = student(log_pi, log_pi_old, log_q, q_values)
    return close(found, weighted_means(log_pi, log_q, q_values))


@self_normalised.property("With a single branch the term should be its Q-value: a mean of one.")
def a_single_branch(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = (each[:, :1] for each in rollout_set(rng))
    return close(student(log_pi, log_pi_old, log_q, q_values), q_values[:, 0])


@self_normalised.property(
    "Log probabilities near -800 go wrong; exp(log_pi) / exp(log_q) is tempting, because the formula has a quotient of "
    "probabilities. But exp(-800) is 0 on a computer, and the density of a long action can be that small: subtract the "
    "logarithms first."
)
def small_densities(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    found = student(log_pi - 800, log_pi_old - 800, log_q - 800, q_values)
    return close(found, weighted_means(log_pi, log_q, q_values))


@self_normalised.property(
    "A state whose log ratios are all near -800, or all near 800, goes wrong; exp of them is tempting, and is 0 or "
    "infinite. A factor common to all weights of a state drops out: take the largest log ratio off first. Weights "
    "that are divided by their sum are a softmax of their logarithms."
)
def ratios_of_any_size(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    right = weighted_means(log_pi, log_q, q_values)
    found = [student(log_pi + shift, log_pi_old, log_q, q_values) for shift in (-800.0, 800.0)]
    return all(close(each, right) for each in found)


@self_normalised.property(
    "An action that the new policy never takes, with log_pi = -inf, goes wrong: its weight is 0, and the others share "
    "the mean."
)
def an_action_that_is_gone(student: Terms, rng: Generator) -> bool:
    log_pi, log_pi_old, log_q, q_values = rollout_set(rng)
    gone = log_pi.clone()
    gone[:, 0] = -math.inf
    found = student(gone, log_pi_old, log_q, q_values)
    return close(found, weighted_means(log_pi[:, 1:], log_q[:, 1:], q_values[:, 1:]))


def weighted_means(log_pi: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    """The terms, from weights of ordinary size."""
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "detachment",
    "Your weights are detached; tempting, because weights are often constants. Here theta is in nothing but the "
    "weights: without their gradient the update does not move at all.",
)
def detaches_the_weights(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return weighted_means(log_pi.detach(), log_q, q_values)


@self_normalised.mistake(
    "concept",
    "You divide by K; tempting, because a mean divides by the count. The sum of the weights is K only on average: "
    "dividing by the sum itself is what makes a constant in the Q-values harmless.",
)
def divides_by_the_count(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return ((log_pi - log_q).exp() * q_values).mean(1)


@self_normalised.mistake(
    "concept",
    "Your weights are pi over pi_old; tempting, because equation 17 is printed like that. It means q = pi_old. These "
    "actions came from another q, and importance weights divide by whatever drew the sample.",
)
def as_printed(log_pi: Tensor, log_pi_old: Tensor, _log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_pi_old).exp()
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "order",
    "Your weights are upside down, q over pi; tempting, because q is what we have samples of. A sample counts more "
    "if pi likes it more than q did.",
)
def turns_weights_over(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_q - log_pi, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "concept",
    "Your weights are pi alone; tempting, because equation 16 has just pi. There every action occurs once; drawn "
    "actions occur as often as q draws them, and dividing by q takes that back.",
)
def forgets_q(log_pi: Tensor, _log_pi_old: Tensor, _log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_pi, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "indexing",
    "You divide by a sum over states; tempting, because axis 0 comes first. Each state has its own sum, over its K "
    "branches: axis 1.",
)
def normalises_over_states(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return (torch.softmax(log_pi - log_q, dim=0) * q_values).sum(1)


@self_normalised.mistake(
    "detachment",
    "You hold the sum of the weights fixed; tempting, because it looks like a normalising constant. It depends on "
    "theta. Its gradient is what takes the mean Q of each state off, so that only differences count.",
)
def holds_the_sum_fixed(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum(1).detach()


@self_normalised.mistake(
    "numerics",
    "You average the log ratios instead of the ratios; tempting, because logarithms are what you were given. Weights "
    "are ratios of probabilities: exp of the difference.",
)
def weights_are_logarithms(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = log_pi - log_q
    return (weights * q_values).sum(1) / weights.sum(1)


@self_normalised.mistake(
    "concept",
    "You take the mean off the Q-values first; tempting, because a baseline removes noise. The quotient does that "
    "already: the gradient stays as it is. But the value of the term is no longer that of the objective.",
)
def takes_the_mean_off(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    centered = q_values - q_values.mean(1, keepdim=True)
    return (torch.softmax(log_pi - log_q, dim=1) * centered).sum(1)


@self_normalised.mistake(
    "sign",
    "Your terms have the wrong sign; tempting, because the paper minimises costs, and optimisers minimise losses. Q is "
    "made of rewards here, and L is made as large as possible.",
)
def minimises(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    return -(torch.softmax(log_pi - log_q, dim=1) * q_values).sum(1)


@self_normalised.mistake(
    "indexing",
    "You divide all terms by one sum, over states and branches together; tempting, because sum() without an axis adds "
    "up everything. Each state has its own sum, over its K branches.",
)
def divides_by_one_sum(log_pi: Tensor, _log_pi_old: Tensor, log_q: Tensor, q_values: Tensor) -> Tensor:
    weights = (log_pi - log_q).exp()
    return (weights * q_values).sum(1) / weights.sum()


# ---- affordable_states -----------------------------------------------------------------------------------------------

Planner = Callable[[int, int, int, int], int]


def plan(rng: Generator) -> tuple[int, int, int, int]:
    """A budget, the steps of the trunk, K, and the length of a rollout."""
    return (
        int(rng.integers(30_000, 60_000)),
        int(rng.integers(3_000, 9_000)),
        int(rng.integers(3, 9)),
        int(rng.integers(11, 60)),
    )


affordable_states = Check("affordable_states", minutes=4, inputs=plan)


@affordable_states.property("A budget that trunk and 7 states use up to the last step should allow exactly 7 states.")
def to_the_last_step(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, num_branches, length = plan(rng)
    return student(trunk_steps + 7 * num_branches * length, trunk_steps, num_branches, length) == 7


@affordable_states.property("One step less than 7 states need should allow 6: a state without all branches is none.")
def whole_states_only(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, num_branches, length = plan(rng)
    return student(trunk_steps + 7 * num_branches * length - 1, trunk_steps, num_branches, length) == 6


@affordable_states.property("A number of states should be an integer, of type int: 12, and not 12.0.")
def an_integer(student: Planner, rng: Generator) -> bool:
    return isinstance(student(*plan(rng)), int | np.integer)


@affordable_states.property(
    "What is easy to test holds, but the number is still another one. Pay for the trunk, then for state after state."
)
def paid_one_by_one(student: Planner, rng: Generator) -> bool:
    budget, trunk_steps, num_branches, length = plan(rng)
    left, states = budget - trunk_steps, 0
    while left >= num_branches * length:
        left, states = left - num_branches * length, states + 1
    return student(budget, trunk_steps, num_branches, length) == states


@affordable_states.property(
    "Where little is left behind the trunk the number goes wrong: one step less than a state needs pays for 0 states, "
    "and `max(1, ...)`, tempting because a vine without branches is none, would overdraw the budget."
)
def none_at_all(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, num_branches, length = plan(rng)
    needed = num_branches * length
    return [student(trunk_steps + left, trunk_steps, num_branches, length) for left in (1, needed - 1)] == [0, 0]


@affordable_states.property("One branch of one step in each state should cost one step a state.")
def smallest_branches(student: Planner, rng: Generator) -> bool:
    budget, trunk_steps, *_ = plan(rng)
    return student(budget, trunk_steps, 1, 1) == budget - trunk_steps


@affordable_states.mistake(
    "concept",
    "You forgot the trunk; tempting, because no Q-value comes from it. Its steps are simulated all the same, and a "
    "comparison at equal steps that leaves them out flatters the vine.",
)
def forgets_the_trunk(budget: int, _trunk_steps: int, num_branches: int, length: int) -> int:
    return budget // (num_branches * length)


@affordable_states.mistake(
    "concept",
    "You pay for one rollout in each state; tempting, because its K branches share their random numbers. They share "
    "luck, not steps: each goes its own way and has to be simulated.",
)
def pays_once_for_a_state(budget: int, trunk_steps: int, _num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // length


@affordable_states.mistake(
    "concept",
    "You count the trunk as one of the K branches; tempting, because it passes through the state. Its action there is "
    "not one of the K that were drawn, and it goes on with other random numbers: K branches are K new rollouts.",
)
def takes_the_trunk_for_a_branch(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // ((num_branches - 1) * length)


@affordable_states.mistake(
    "concept",
    "You pay for the whole trunk again in every state; tempting, because each state needs one to lie on. All states "
    "lie on the same trunk: it is paid for once.",
)
def pays_for_the_trunk_again(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return budget // (trunk_steps + num_branches * length)


@affordable_states.mistake(
    "indexing",
    "You round up; tempting, because a little is left over. What is left does not pay for a whole state any more, and "
    "the budget would be overdrawn.",
)
def rounds_up(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return -((trunk_steps - budget) // (num_branches * length))


@affordable_states.mistake(
    "concept",
    "You pay for one step less in each branch; tempting, because its first state lies on the trunk, which is paid for. "
    "But the step out of it is another one, with another first action: all `length` steps are new.",
)
def takes_the_first_step_for_paid(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // (num_branches * (length - 1))


@affordable_states.mistake(
    "numerics",
    "You round to the nearest number; tempting, because it looks more exact. Half a state cannot be had: what is left "
    "has to pay for all branches, or the budget is overdrawn.",
)
def rounds_to_the_nearest_state(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return round((budget - trunk_steps) / (num_branches * length))


@affordable_states.mistake(
    "concept",
    "You pay for the first action and for `length` steps after it; tempting, because the policy takes over only then. "
    "The first action is the first of the branch's `length` steps.",
)
def pays_extra_for_first_actions(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // (num_branches * (length + 1))
