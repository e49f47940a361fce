"""Exercise affordable_states of lesson 07, The vine."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives

Planner = Callable[[int, int, int, int], int]


def plan(rng: Generator) -> tuple[int, int, int, int]:
    """A budget, the steps of the trunk, K, and the length of a rollout."""
    return (
        int(rng.integers(30_000, 60_000)),
        int(rng.integers(3_000, 9_000)),
        int(rng.integers(3, 9)),
        int(rng.integers(11, 60)),
    )


def over_a_state(planner: Planner, budget: int, trunk_steps: int, num_branches: int, length: int) -> list[int]:
    """What it plans as the budget grows from this one by the price of one state and a little: seven budgets."""
    price = num_branches * length
    return [planner(budget + n * price // 6, trunk_steps, num_branches, length) for n in range(7)]


affordable_states = Check("affordable_states", minutes=4, inputs=plan, behavior=over_a_state)


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
    "and `max(1, ...)`, tempting because a vine without branches is none, would overdraw the budget.",
    edge=True,
)
def none_at_all(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, num_branches, length = plan(rng)
    needed = num_branches * length
    return [student(trunk_steps + left, trunk_steps, num_branches, length) for left in (1, needed - 1)] == [0, 0]


@affordable_states.property(
    "Some numbers of states come out one too small, although the budget pays for them to the last step. Is there a "
    "quotient of floats, such as 49 * (1 / 49), which is below 1? Whole numbers have a quotient of their own, `//`.",
    edge=True,
)
def any_number_to_the_last_step(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, *_ = plan(rng)
    prices = itertools.product(range(2, 9), range(2, 60), (1, 7))
    return all(student(trunk_steps + n * k * length, trunk_steps, k, length) == n for k, length, n in prices)


@affordable_states.property(
    "Large numbers go wrong: a budget of billions of steps, or many branches of many steps. Is there float32, an "
    "integer type of fixed size, or a limit? There are states enough, says the text.",
    edge=True,
)
def large_numbers(student: Planner, rng: Generator) -> bool:
    _, trunk_steps, *_ = plan(rng)

    def exact(num_branches: int, length: int, states: int) -> bool:
        budget = trunk_steps + states * num_branches * length
        found = [student(budget - short, trunk_steps, num_branches, length) for short in (1, 0)]
        return found == [states - 1, states]

    return survives(lambda: exact(64, 10_000, 150_000) and exact(1000, 10**7, 7))


@affordable_states.property("One branch of one step in each state should cost one step a state.", edge=True)
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
    "You count branches, and the question is for how many states; tempting, because the paper counts Q-values, and "
    "each branch is one. A state has K of them.",
)
def counts_branches(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // (num_branches * length) * num_branches


@affordable_states.mistake(
    "concept",
    "You pay for the first action and for `length` steps after it; tempting, because the policy takes over only then. "
    "The first action is the first of the branch's `length` steps.",
)
def pays_extra_for_first_actions(budget: int, trunk_steps: int, num_branches: int, length: int) -> int:
    return (budget - trunk_steps) // (num_branches * (length + 1))
