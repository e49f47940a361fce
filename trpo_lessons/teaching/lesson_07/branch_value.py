"""Exercise branch_value of lesson 07, The vine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import survives
from trpo_lessons.teaching.lesson_07.shared import Floats, close, nearly_right

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


def cut_and_ended(
    function: BranchFunction, step: Step, state: Floats, _first_action: int, *others: Any
) -> tuple[float, ...]:
    """With each first action, the branch as it is, and one that ends after three steps."""
    starts = [np.array([state[0], fuse]) for fuse in (state[1], 3.0)]
    return tuple(function(step, start, first, *others) for start in starts for first in range(3))


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


@branch_value.property(
    "Your number is right in its first digits and not in its last ones. Is something float32 on the way, or is a small "
    "number added somewhere? Python's floats have 16 digits."
)
def all_digits(student: BranchFunction, rng: Generator) -> bool:
    arguments = small_world(rng)
    return not nearly_right(student(*arguments), roll(*arguments))


@branch_value.property("The world should be stepped once for each row of `noise`, with the second number of that row.")
def luck_comes_from_the_rows(student: BranchFunction, rng: Generator) -> bool:
    _, lucks, noise = noise_used(student, rng)
    return len(lucks) == len(noise) and close(lucks, noise[:, 1])


@branch_value.property(
    "The policy should be asked once for each row of `noise` but the first, with the first number of that row."
)
def numbers_come_from_the_rows(student: BranchFunction, rng: Generator) -> bool:
    numbers, _, noise = noise_used(student, rng)
    # Asking in vain, for the first action or for one after the last step, does no harm.
    asked = [numbers, numbers[1:], numbers[:-1]]
    return any(len(each) == len(noise) - 1 and close(each, noise[1:, 0]) for each in asked)


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
    reward = step(state, first_action, noise[0, 1])[1]
    return survives(lambda: close(student(step, state, first_action, policy, noise, 0.0, value), reward))


@branch_value.property(
    "A constant V of 1 should add gamma to the number of steps taken, where the branch was cut, and one of -1 should "
    "take as much off."
)
def value_is_discounted_to_the_start(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, _ = small_world(rng)
    values: tuple[Value, ...] = (lambda _state: -1.0, lambda _state: 0.0, lambda _state: 1.0)
    worth = [student(step, state, first_action, policy, noise, gamma, value) for value in values]
    return close(np.diff(worth), gamma ** len(noise))


@branch_value.property(
    "What is easy to test holds, but the value is still another one. Go through the definition again, term by term."
)
def the_sum_by_hand(student: BranchFunction, rng: Generator) -> bool:
    arguments = small_world(rng)
    return close(student(*arguments), roll(*arguments))


@branch_value.property("After a termination nothing should be added any more, neither rewards nor V.")
def ends_where_the_episode_ends(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    state = np.array([state[0], 2.0])
    alone = [noise[:3], noise]
    found = [student(step, state, first_action, policy, each, gamma, value) for each in alone]
    return close(found[0], found[1]) and close(
        student(step, state, first_action, policy, noise, gamma, lambda _state: 1000.0), found[1]
    )


@branch_value.property("A reward in the step that ends the episode should count like any other.")
def the_last_reward_counts(student: BranchFunction, rng: Generator) -> bool:
    _, state, first_action, policy, noise, gamma, value = small_world(rng)

    def step(state: Floats, _action: int, _luck: float) -> tuple[Floats, float, bool]:
        ends = bool(state[1] <= 1)
        return np.array([state[0], state[1] - 1]), float(ends), ends

    start = np.array([state[0], 3.0])
    return close(student(step, start, first_action, policy, noise, gamma, value), gamma**2)


@branch_value.property(
    "A branch whose very first step ends the episode goes wrong; tempting, because the first action is often handled "
    "ahead of the loop. It can make the robot fall like any other: its reward is then all there is.",
    edge=True,
)
def the_first_step_may_end_it(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    start = np.array([state[0], 1.0])
    reward = step(start, first_action, noise[0, 1])[1]
    return close(student(step, start, first_action, policy, noise, gamma, value), reward)


@branch_value.property(
    "An end in the very last row goes wrong; tempting, because the branch is cut there as well. It has ended, and "
    "what has ended has no value to add.",
    edge=True,
)
def the_last_step_may_end_it(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    start = np.array([state[0], float(len(noise))])
    arguments = (step, start, first_action, policy, noise, gamma, value)
    return close(student(*arguments), roll(*arguments))


@branch_value.property(
    "What is discounted a lot goes wrong. Is it left out because its discount is small? A value of 1e20 behind 60 "
    "steps with gamma = 0.5 is still worth 87.",
    edge=True,
)
def no_discount_is_too_small(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, *_ = small_world(rng)
    arguments = (step, state, first_action, policy, rng.random((60, 2)), 0.5, lambda _state: 1e20)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


@branch_value.property(
    "A branch of 600 steps goes wrong. Is there a loop over a fixed number of steps? It should have as many as `noise` "
    "has rows.",
    edge=True,
)
def a_long_branch(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, _, _, value = small_world(rng)
    arguments = (step, np.array([state[0], 1e6]), first_action, policy, rng.random((600, 2)), 0.98, value)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


@branch_value.property(
    "A world that answers with numpy's own True and False goes wrong; `is True` is tempting, because it reads like "
    "English. It asks for one certain object; `if terminated:` asks for the truth.",
    edge=True,
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
    "type, which cuts discounted ones to whole numbers. Let the sum be a float from the start.",
    edge=True,
)
def whole_rewards(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)

    def whole_step(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, _, ended = step(state, action, luck)
        return then, 1 + action, ended

    arguments = (whole_step, state, first_action, policy, noise, gamma, value)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


@branch_value.property(
    "With gamma = 1 the value goes wrong. Nothing is discounted then: it is the sum of the rewards, and V at the cut.",
    edge=True,
)
def without_a_discount(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, _, value = small_world(rng)
    arguments = (step, state, first_action, policy, noise, 1.0, value)
    return survives(lambda: close(student(*arguments), roll(*arguments)))


@branch_value.property(
    "The world is stepped again after it has said that the episode is over; multiplying by 0 what it answers then is "
    "tempting, because the sum comes out right. But no one promises that it answers, and steps cost time: stop there.",
    edge=True,
)
def stops_at_the_end(student: BranchFunction, rng: Generator) -> bool:
    step, state, first_action, policy, noise, gamma, value = small_world(rng)
    ends: list[bool] = []

    def listed(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, reward, ended = step(state, action, luck)
        ends.append(ended)
        return then, reward, ended

    student(listed, np.array([state[0], 3.0]), first_action, policy, noise, gamma, value)
    return len(ends) == 3


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


@branch_value.mistake(
    "concept",
    "You write `first_action or ...`; tempting, because it reads like English. Action 0 counts as false: where it is "
    "the first action, the policy chooses in its place. Ask for the first step, not for the action.",
)
def takes_action_0_for_none(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    return roll(step, state, first_action or policy(state, noise[0, 0]), policy, noise, gamma, value)


@branch_value.mistake(
    "order",
    "The policy sees the state in which the branch began, in every step; tempting where the world's answer gets a name "
    "of its own. The policy has to react to the state that the last step led to.",
)
def acts_on_the_beginning(
    step: Step, start: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    return roll(step, start, first_action, lambda _state, number: policy(start, number), noise, gamma, value)


@branch_value.mistake(
    "order",
    "Every step begins in the state in which the branch began; tempting where the world's answer gets a name of its "
    "own. Each step goes on from the state that the one before led to.",
)
def steps_from_the_beginning(
    step: Step, start: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    return roll(
        lambda _state, action, luck: step(start, action, luck), start, first_action, policy, noise, gamma, value
    )


@branch_value.mistake(
    "concept",
    "You add V after every step; tempting, because each step leads to a state of some value. That value is made of the "
    "rewards that come next, and these you add yourself: V stands for what was cut off, once, at the end.",
)
def values_every_step(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    def with_the_value(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        then, reward, ended = step(state, action, luck)
        return then, reward + (0.0 if ended else gamma * value(then)), ended

    return roll(with_the_value, state, first_action, policy, noise, gamma, value, rest="nothing")


@branch_value.mistake(
    "order",
    "You fold the rewards up as q = r + gamma * q, from the first to the last; tempting, because that is the order in "
    "which they came. So the first reward is discounted most. Begin at the end, with V, and go backward.",
)
def folds_forward(
    step: Step, state: Floats, first_action: int, policy: Actor, noise: Floats, gamma: float, value: Value
) -> float:
    answers: list[tuple[Floats, float, bool]] = []

    def listed(state: Floats, action: int, luck: float) -> tuple[Floats, float, bool]:
        answers.append(step(state, action, luck))
        return answers[-1]

    roll(listed, state, first_action, policy, noise, gamma, value)
    then, _, ended = answers[-1]
    q = 0.0 if ended else value(then)
    for _, reward, _ in answers:
        q = reward + gamma * q
    return q
