"""Exercise less_baseline of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_06.shared import close

BaselineFunction = Callable[[Tensor, Tensor], Tensor]


def tries(rng: Generator) -> tuple[Tensor, Tensor]:
    """Returns [N] of tries that began in one of three states [N]; every state has been tried two times or more.

    Two tries from the first state had the same return: another try is another try, however it went.
    """
    counts = rng.integers(2, 6, size=3)
    counts[0] += 1
    states = torch.from_numpy(rng.permutation([s for s in range(3) for _ in range(counts[s])]))
    worth = 3 * normal(rng, 3)[states] + normal(rng, len(states)) + 5
    one, other = torch.nonzero(states == 0).flatten()[:2].tolist()
    worth[other] = worth[one]
    return worth, states


def alike(states: Tensor) -> Tensor:
    """1 where two tries began in the same state, else 0, [N, N]; in float64."""
    return (states[:, None] == states).double()


def others(states: Tensor) -> Tensor:
    """The same without the tries themselves."""
    return alike(states) - torch.eye(len(states)).double()


def mean_over(weights: Tensor, worth: Tensor) -> Tensor:
    """For every try the mean of `worth` [N] by its row of `weights` [N, N]."""
    return weights @ worth / weights.sum(1)


less_baseline = Check("less_baseline", minutes=8, inputs=tries)


@less_baseline.property("A number added to all returns should change nothing: baselines rise with them.")
def a_constant_drops_out(student: BaselineFunction, rng: Generator) -> bool:
    worth, states = tries(rng)
    return close(student(worth + 100, states), student(worth, states))


@less_baseline.property("Numbers added to all returns from one state should change nothing, a different one for each.")
def a_constant_of_each_state_drops_out(student: BaselineFunction, rng: Generator) -> bool:
    worth, states = tries(rng)
    return close(student(worth + 10 * normal(rng, 3)[states], states), student(worth, states))


def rise_of_all(student: BaselineFunction, rng: Generator) -> tuple[Tensor, Tensor]:
    """What one more in the return of the first try changes in every entry, [N]; and the states."""
    worth, states = tries(rng)
    more = worth.clone()
    more[0] += 1
    return student(more, states) - student(worth, states), states


@less_baseline.property("If one return is larger by 1, that entry should be larger by 1: its baseline must not notice.")
def own_return_is_not_in_the_baseline(student: BaselineFunction, rng: Generator) -> bool:
    rise, _ = rise_of_all(student, rng)
    return close(rise[0], 1.0)


@less_baseline.property(
    "If one return is larger by 1, the n - 1 other tries from its state should each lose 1 / (n - 1), and no try from "
    "another state should notice."
)
def others_count_alike(student: BaselineFunction, rng: Generator) -> bool:
    rise, states = rise_of_all(student, rng)
    alike = states[1:] == states[0]
    return close(rise[1:], -alike.double() / alike.sum())


@less_baseline.property(
    "What is easy to test holds, but the value is still another one. Take one try by hand: its return less the mean of "
    "the other returns from its state."
)
def the_others_by_hand(student: BaselineFunction, rng: Generator) -> bool:
    worth, states = tries(rng)
    return close(student(worth, states), less_the_others(worth, states))


@less_baseline.property(
    "States that are not numbered 0, 1, 2 go wrong; tempting is a loop over range(number of states). A state's number "
    "is its name, and a batch may have visited 3, 7 and 40 alone: loop over states.unique()."
)
def numbers_are_names(student: BaselineFunction, rng: Generator) -> bool:
    worth, states = tries(rng)
    names = torch.from_numpy(3 + np.cumsum(rng.integers(2, 20, size=3)))[rng.permutation(3)]
    return close(student(worth, names[states]), less_the_others(worth, states))


@less_baseline.property(
    "In a batch of hundreds of states something goes wrong. Is there a loop over a fixed number of states or tries?"
)
def many_states(student: BaselineFunction, rng: Generator) -> bool:
    states = torch.from_numpy(rng.permutation(np.repeat(np.arange(150), 2)))
    worth = normal(rng, len(states))
    return close(student(worth, states), less_the_others(worth, states))


@less_baseline.mistake(
    "conditioning",
    "Each return is in its own baseline; tempting, because that is simply the mean of its state. But then the baseline "
    "depends on the action that it is to judge, and shrinks every signal by (n - 1) / n. Leave the try itself out.",
)
def includes_itself(worth: Tensor, states: Tensor) -> Tensor:
    return worth - mean_over(alike(states), worth)


@less_baseline.mistake(
    "concept",
    "You subtract the mean over all tries, whatever their state; tempting, because almost any constant is a fair "
    "baseline. But it leaves in how good the state was, and the action is not to be praised for that.",
)
def forgets_the_state(worth: Tensor, _states: Tensor) -> Tensor:
    return worth - worth.mean()


@less_baseline.mistake(
    "sign",
    "You add the baseline; tempting, because it drops out of the mean gradient whatever its sign. Out of the noise it "
    "does not: the noise is least where what is left is small, so subtract.",
)
def adds_the_baseline(worth: Tensor, states: Tensor) -> Tensor:
    return worth + mean_over(others(states), worth)


@less_baseline.mistake(
    "concept",
    "You divide by the spread within each state too; tempting, because advantages are often standardized. Over a "
    "whole batch that is one factor for all; state by state it changes which states the gradient listens to.",
)
def standardises_each_state(worth: Tensor, states: Tensor) -> Tensor:
    count, mean = alike(states).sum(1), mean_over(alike(states), worth)
    variance = (mean_over(alike(states), worth.square()) - mean.square()) * count / (count - 1)  # as torch's std has it
    return (worth - mean) / variance.clamp(min=1e-12).sqrt()


@less_baseline.mistake(
    "concept",
    "You return the baseline itself; tempting, because finding it was the work. What an update wants is the return "
    "less the baseline: how much better than usual this try was.",
)
def returns_the_baseline(worth: Tensor, states: Tensor) -> Tensor:
    return mean_over(others(states), worth)


@less_baseline.mistake(
    "conditioning",
    "You divide by n - 1, and the try itself is still in the sum; tempting, because n - 1 is the number of the others. "
    "Then the baseline is too large, and it contains what it is to judge: take the try out of the sum as well.",
)
def divides_by_too_few(worth: Tensor, states: Tensor) -> Tensor:
    return worth - alike(states) @ worth / others(states).sum(1)


@less_baseline.mistake(
    "constant",
    "You leave the try itself out of the sum and still divide by n; tempting, because n tries came from the state. "
    "Then the baseline is too small, and a number added to all returns no longer drops out: divide by n - 1.",
)
def divides_by_too_many(worth: Tensor, states: Tensor) -> Tensor:
    return worth - others(states) @ worth / alike(states).sum(1)


def less_the_others(worth: Tensor, states: Tensor) -> Tensor:
    """What is right."""
    return worth - mean_over(others(states), worth)


@less_baseline.mistake(
    "sign",
    "You subtract the return from the baseline; tempting, because both orders measure the same distance. An update "
    "raises what is positive: it would learn to do what went worse than usual.",
)
def baseline_less_the_return(worth: Tensor, states: Tensor) -> Tensor:
    return -less_the_others(worth, states)


@less_baseline.mistake(
    "concept",
    "You divide by a standard deviation as well; tempting, because an update is given standardized advantages. That is "
    "another step, for the whole batch at once; here only the baseline is asked for.",
)
def standardises_the_batch(worth: Tensor, states: Tensor) -> Tensor:
    found = less_the_others(worth, states)
    return found / found.std()


@less_baseline.mistake(
    "concept",
    "Your baseline is the mean of all other tries, whatever their state; tempting, because it leaves the try itself "
    "out. But it leaves in how good the state was, and the action is not to be praised for that.",
)
def others_of_every_state(worth: Tensor, _states: Tensor) -> Tensor:
    return worth - (worth.sum() - worth) / (len(worth) - 1)


@less_baseline.mistake(
    "order",
    "Your numbers are right, but they stand state by state; tempting, because that is how they were found. Entry n "
    "belongs to try n: put every number back where its return stood.",
)
def stands_state_by_state(worth: Tensor, states: Tensor) -> Tensor:
    return less_the_others(worth, states)[states.argsort(stable=True)]


@less_baseline.mistake(
    "concept",
    "You leave out every try whose return equals this one's; tempting, because that leaves out the try itself. Another "
    "try can have the same return, and then it counts: compare positions, not returns.",
)
def leaves_out_equal_returns(worth: Tensor, states: Tensor) -> Tensor:
    return worth - mean_over(alike(states) * (worth[:, None] != worth), worth)
