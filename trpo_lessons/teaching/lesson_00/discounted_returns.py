"""Exercise discounted_returns of lesson 00, Start here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check

Floats = npt.NDArray[np.float64]

discounted_returns = Check(
    "discounted_returns",
    minutes=8,
    inputs=lambda rng: (rng.normal(size=6), float(rng.uniform(0.5, 0.9))),
)
ReturnsFunction = Callable[[Floats, float], Floats]


@discounted_returns.property("The last entry should be the last reward itself: nothing comes after it.")
def last_return_is_last_reward(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=4)
    return bool(abs(student(rewards, 0.7)[-1] - rewards[-1]) < 1e-12)


@discounted_returns.property("Each entry should be its own reward plus gamma times the entry after it.")
def returns_obey_the_recursion(student: ReturnsFunction, rng: Generator) -> bool:
    rewards, gamma = rng.normal(size=7), float(rng.uniform(0.3, 0.99))
    returns = student(rewards, gamma)
    return obeys_the_recursion(returns, rewards, gamma)


def obeys_the_recursion(returns: Floats, rewards: npt.NDArray[Any], gamma: float) -> bool:
    """Whether G_t = r_t + gamma G_{t+1} from the first step to the last, where G is the reward itself."""
    after = np.append(returns[1:], 0.0)
    return returns.shape == rewards.shape and bool(np.allclose(returns, rewards + gamma * after, rtol=1e-9, atol=1e-10))


@discounted_returns.property("An episode may have a single step: its return is its reward.")
def one_step_is_an_episode(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=1)
    return obeys_the_recursion(student(rewards, 0.7), rewards, 0.7)


@discounted_returns.property(
    "Rewards may be whole numbers, in an array of integers, and your returns are then cut to whole numbers; tempting, "
    "because zeros_like(rewards) and rewards.copy() look like an empty array and keep the type. Ask for floats."
)
def whole_rewards_have_fractional_returns(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.integers(-3, 4, size=6)
    return obeys_the_recursion(student(rewards, 0.5), rewards, 0.5)  # type: ignore[arg-type]


@discounted_returns.property(
    "Short episodes come out right, one of 1200 steps does not. Dividing by gamma**t, or subtracting a long sum from "
    "a longer one, is tempting because it needs no loop; but late in an episode gamma**t is 0 to rounding, and the "
    "digits are gone. Build the sum from the end."
)
def long_episodes_keep_their_digits(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=1200) * 10.0 ** rng.integers(-3, 4, size=1200)
    return obeys_the_recursion(student(rewards, 0.5), rewards, 0.5)


@discounted_returns.property(
    "With gamma = 0 only the present counts, and every return is its reward. Yours are not; a division by a power of "
    "gamma is tempting where sums are turned around, and here it divides by 0."
)
def without_a_future_returns_are_rewards(student: ReturnsFunction, rng: Generator) -> bool:
    rewards = rng.normal(size=5)
    return bool(np.allclose(student(rewards, 0.0), rewards, rtol=0, atol=1e-12))


@discounted_returns.mistake(
    "order",
    "You add up from the first step on, so each entry holds the past of its step. It is tempting because the loop runs "
    "in the order of time; but what an action earns comes after it, so the sum has to be built from the end.",
)
def from_the_front(rewards: Floats, gamma: float) -> Floats:
    returns, total = np.zeros(len(rewards)), 0.0
    for t, reward in enumerate(rewards):
        total = reward + gamma * total
        returns[t] = total
    return returns


@discounted_returns.mistake(
    "concept",
    "You discount from the start of the episode: entry t comes out gamma**t too small. It is tempting because eta is "
    "written so; but a return is counted from its own step, where the first reward has weight 1.",
)
def discounts_from_the_start(rewards: Floats, gamma: float) -> Floats:
    weighted = rewards * gamma ** np.arange(len(rewards))
    return np.cumsum(weighted[::-1])[::-1].copy()


@discounted_returns.mistake(
    "concept",
    "You add the rewards up and never discount them. It is tempting because what is still to come is what an "
    "action earns; but a reward that comes k steps later counts gamma**k.",
)
def never_discounts(rewards: Floats, _gamma: float) -> Floats:
    return np.cumsum(rewards[::-1])[::-1].copy()


@discounted_returns.mistake(
    "concept",
    "You add gamma times the next reward, and stop there. It is tempting because the formula looks one step ahead; but "
    "what stands there is the next return, which holds everything that follows.",
)
def looks_one_step_ahead(rewards: Floats, gamma: float) -> Floats:
    return rewards + gamma * np.append(rewards[1:], 0.0)


@discounted_returns.mistake(
    "concept",
    "Every entry is the return of the whole episode. It is tempting because that is one sum; but an action cannot be "
    "credited with rewards that came before it.",
)
def whole_episode_everywhere(rewards: Floats, gamma: float) -> Floats:
    return np.full(len(rewards), float(rewards @ gamma ** np.arange(len(rewards))))


@discounted_returns.mistake(
    "indexing",
    "You discount the first reward too: every entry is gamma times too small. It is tempting because gamma multiplies "
    "everything in the loop; but it belongs to the future alone.",
)
def discounts_the_present(rewards: Floats, gamma: float) -> Floats:
    returns, future = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        future = gamma * (rewards[t] + future)
        returns[t] = future
    return returns


@discounted_returns.mistake(
    "indexing",
    "Each entry is the return of the step after it. It is tempting because what an action earns comes later; but the "
    "reward of a step is what its own action brought, and it comes first in its return.",
)
def starts_one_step_late(rewards: Floats, gamma: float) -> Floats:
    returns, future = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        returns[t] = future
        future = rewards[t] + gamma * future
    return returns


@discounted_returns.mistake(
    "termination",
    "You leave out the last step: its return is 0, and its reward is missing from all the others. It is tempting "
    "because the last step has no next one; but the return after it is 0, and its own reward still counts.",
)
def leaves_out_the_last_step(rewards: Floats, gamma: float) -> Floats:
    returns = np.zeros(len(rewards))
    for t in reversed(range(len(rewards) - 1)):
        returns[t] = rewards[t] + gamma * returns[t + 1]
    return returns


@discounted_returns.mistake(
    "concept",
    "You multiply each reward by gamma once, and add without discounting. It is tempting because every reward then "
    "has a gamma; but it is the future as a whole that is multiplied, once more at every step back.",
)
def discounts_rewards_once(rewards: Floats, gamma: float) -> Floats:
    return np.cumsum(gamma * rewards[::-1])[::-1].copy()


@discounted_returns.mistake(
    "order",
    "Your numbers are right, but in the order in which you found them: the last step comes first. It is tempting to "
    "append while walking backward; then the list has to be turned around.",
)
def never_turned_around(rewards: Floats, gamma: float) -> Floats:
    returns, future = [], 0.0
    for reward in rewards[::-1]:
        future = reward + gamma * future
        returns.append(future)
    return np.array(returns)
