"""Exercise returns of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal, survives
from trpo_lessons.teaching.lesson_06.shared import (
    LONG,
    ROWS,
    TOLERANCE,
    WAYS_TO_END,
    WITHOUT_AN_END,
    Ends,
    Record,
    close,
    one_row_up,
    record,
    the_last_one_everywhere,
    whole_numbers,
)

ReturnsFunction = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def with_last_row(flags: Tensor, value: bool) -> Tensor:
    """The same flags [T] or [T, E], but for the last row."""
    changed = flags.clone()
    changed[-1] = value
    return changed


def ended_in_the_last_row(x: Record, ends: Ends) -> Record:
    """The same record with these flags in its last row."""
    over, cut = ends
    return x._replace(over=with_last_row(x.over, over), cut=with_last_row(x.cut, cut))


def by_the_definition(x: Record) -> Tensor:
    """Returns [T] by the double loop: from every row forward in time, to the first end or to the last row."""

    def of_row(start: int) -> Tensor:
        total, weight = torch.zeros_like(x.next_values[0]), 1.0
        for t in range(start, len(x.rewards)):
            total, weight = total + weight * x.rewards[t], weight * x.gamma
            if x.ended[t]:
                break
        return total if x.over[t] else total + weight * x.next_values[t]

    return torch.stack([of_row(start) for start in range(len(x.rewards))])


returns = Check("returns", minutes=10, inputs=record, arguments=Record, tolerance=TOLERANCE)


@returns.property(
    "Where a step neither ends nor is cut, its return should be its reward plus gamma times the next one."
)
def returns_obey_the_recursion(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)
    found, inside = student(*x), ~x.ended[:-1]
    return close(found[:-1][inside], (x.rewards[:-1] + x.gamma * found[1:])[inside])


@returns.property("After a termination nothing comes: the return of that step should be its reward alone.")
def a_termination_ends_all(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)
    return close(student(*x)[x.over], x.rewards[x.over])


@returns.property("At a time limit the return should be the reward plus gamma times the value of the state it led to.")
def a_limit_leaves_a_value(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)
    only_cut = x.cut & ~x.over
    return close(student(*x)[only_cut], (x.rewards + x.gamma * x.next_values)[only_cut])


@returns.property("The last row is cut as well, by the end of the record: what follows it is worth its next value.")
def the_record_is_cut(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)
    return close(student(*x)[-1], x.rewards[-1] + x.gamma * x.next_values[-1])


@returns.property(
    "What is easy to test holds, but the value is still another one. Go through the definition again, term by term."
)
def returns_are_those_of_the_double_loop(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)
    return close(student(*x), by_the_definition(x))


@returns.property(
    "Your last row gets a value though its episode ended there; tempting, because the record is cut in that row. A "
    "pole can fall in the very last row, and then nothing follows: ask the flags first, there as elsewhere."
)
def a_fall_in_the_last_row_ends_all(student: ReturnsFunction, rng: Generator) -> bool:
    records = [ended_in_the_last_row(record(rng), ends) for ends in WAYS_TO_END if ends[0]]
    return all(close(student(*x), by_the_definition(x)) for x in records)


@returns.property(
    "A time limit in the very last row goes wrong; tempting, because that row is cut twice, by the limit and by the "
    "end of the record. It is one cut: what follows is worth next_values there, counted once."
)
def a_limit_in_the_last_row_is_one_cut(student: ReturnsFunction, rng: Generator) -> bool:
    x = ended_in_the_last_row(record(rng), (False, True))
    return close(student(*x), by_the_definition(x))


@returns.property(
    "A record of a single row goes wrong: its return is the reward alone if the episode ended there, and else the "
    "reward plus gamma times its next value."
)
def one_row(student: ReturnsFunction, rng: Generator) -> bool:
    whole = record(rng)
    rewards, next_values, over, cut = (column[-1:] for column in whole[:4])
    alone = Record(rewards, next_values, over, cut, whole.gamma)
    rows = [ended_in_the_last_row(alone, ends) for ends in ((False, False), *WAYS_TO_END)]
    return all(close(student(*x), by_the_definition(x)) for x in rows)


@returns.property(
    "Your returns get lost in a long record; a cumulative sum of gamma^t r, divided by gamma^t in the end, is tempting "
    "because it needs no loop. After some hundreds of rows such powers are smaller than any number that a computer "
    "has. From the last row back, `reward + gamma * future` needs no power at all."
)
def long_records_keep_their_digits(student: ReturnsFunction, rng: Generator) -> bool:
    rewards, next_values = normal(rng, 2, LONG).unbind()
    ends = torch.from_numpy(rng.random((2, LONG)) < 0.04)
    many = Record(rewards, next_values, ends[0], ends[1], 0.7)
    none = torch.zeros(WITHOUT_AN_END, dtype=torch.bool)
    single = Record(rewards[:WITHOUT_AN_END], next_values[:WITHOUT_AN_END], none, none, 0.1)
    return all(close(student(*x), from_the_end(x)) for x in (many, single))


@returns.property(
    "With gamma = 0 a return is the reward itself, and yours is not; it is tempting to divide by a power of gamma "
    "somewhere, which is 0 here. From the last row back nothing has to be divided."
)
def with_gamma_zero_only_the_reward_counts(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)._replace(gamma=0.0)
    return close(student(*x), x.rewards)


@returns.property(
    "With whole numbers for rewards, such as cart-pole's 1, 1, 1, your returns are cut to whole numbers; tempting, "
    "because zeros_like(rewards) has the right shape. It has the rewards' type as well: take that of next_values."
)
def whole_rewards_have_returns_with_fractions(student: ReturnsFunction, rng: Generator) -> bool:
    x = record(rng)._replace(rewards=whole_numbers(rng, ROWS))
    return survives(lambda: close(student(*x), by_the_definition(x)))


def from_the_end(x: Record, where: Tensor | None = None, by: Tensor | None = None, last: float = 1.0) -> Tensor:
    """Returns from the end back; the future is replaced `by` [T] `where` [T] is true. By default what is right.

    `last` is a factor of the value that follows the last row.
    """
    where, by = x.ended if where is None else where, x.worth_after if by is None else by
    found, future = torch.zeros_like(x.rewards), last * x.next_values[-1]
    for t in reversed(range(len(x.rewards))):
        future = x.rewards[t] + x.gamma * torch.where(where[t], by[t], future)
        found[t] = future
    return found


@returns.mistake(
    "termination",
    "You continue through a termination with the value of the state it led to; tempting, because next_values has an "
    "entry there. The pole lies on the floor: nothing follows, and a network's opinion of that state means nothing.",
)
def bootstraps_through_a_termination(x: Record) -> Tensor:
    return from_the_end(x, by=x.next_values)


@returns.mistake(
    "termination",
    "You take the time limit for an end: tempting, because the episode is over and the environment was reset. But "
    "the pole still stood, and only the looking ended. What would have followed is worth next_values at that step.",
)
def takes_the_limit_for_an_end(x: Record) -> Tensor:
    return from_the_end(x, by=torch.zeros_like(x.rewards))


@returns.mistake(
    "termination",
    "Nothing follows your last row; tempting, because there the record stops. It is a cut like a time limit: the "
    "episode goes on in the next batch, and what follows is worth next_values in the last row.",
)
def takes_the_last_row_for_an_end(x: Record) -> Tensor:
    return from_the_end(x, last=0.0)


@returns.mistake(
    "termination",
    "You take every cut for an end, the time limit and the end of the record; tempting, because no more rewards are "
    "written down there. They would have come: in both places next_values says what they are worth.",
)
def takes_every_cut_for_an_end(x: Record) -> Tensor:
    return from_the_end(x, by=torch.zeros_like(x.rewards), last=0.0)


@returns.mistake(
    "order",
    "Your numbers are right, but in the order in which you found them: the last row comes first. It is tempting to "
    "append while walking back; then the list has to be turned around.",
)
def never_turned_around(x: Record) -> Tensor:
    return from_the_end(x).flip(0)


@returns.mistake(
    "termination",
    "Your sums run on into the next episode; tempting, because the rows stand one under the other. A step can earn "
    "nothing in an episode that begins after a reset: at both kinds of end the future has to be replaced.",
)
def leaks_across_episodes(x: Record) -> Tensor:
    return from_the_end(x, where=torch.zeros_like(x.over))


@returns.mistake(
    "concept",
    "At a time limit you add the value to the returns of the next episode; tempting, because a value is one more "
    "thing to come. It stands in the place of the future that nobody saw: replace, do not add.",
)
def adds_value_and_next_episode(x: Record) -> Tensor:
    paid = x.rewards + x.gamma * torch.where(x.cut, x.worth_after, 0.0)
    return from_the_end(x._replace(rewards=paid), where=x.over)


@returns.mistake(
    "order",
    "Where a step is terminated and truncated at once, you bootstrap; tempting, because the limit was reached. The "
    "pole fell in that very step, and what has fallen has no future: termination comes first.",
)
def lets_the_limit_win(x: Record) -> Tensor:
    return from_the_end(x, by=torch.where(x.cut, x.next_values, 0.0))


@returns.mistake(
    "concept",
    "You add the value of the next state in every row: that is the one-step estimate; tempting, because next_values "
    "is complete. Here rewards are to be added up as far as they were seen, and a value used where the seeing ends.",
)
def bootstraps_at_every_step(x: Record) -> Tensor:
    return x.rewards + x.gamma * x.worth_after


@returns.mistake(
    "order",
    "You add up in the order of time, so each row holds its past; tempting, because that is how rewards arrive. "
    "What an action earns comes after it: start in the last row and go back.",
)
def adds_up_the_past(x: Record) -> Tensor:
    found, past = torch.zeros_like(x.rewards), torch.zeros_like(x.rewards[0])
    for t in range(len(x.rewards)):
        found[t] = x.rewards[t] + x.gamma * past
        past = torch.where(x.ended[t], 0.0, found[t])
    return found


@returns.mistake(
    "indexing",
    "You do not discount the value at a cut; tempting, because it is discounted inside already. It is the worth of "
    "the state one step later, so it counts gamma times, like the return that it replaces.",
)
def does_not_discount_the_value(x: Record) -> Tensor:
    return from_the_end(x._replace(next_values=x.next_values / x.gamma))


@returns.mistake(
    "indexing",
    "All your rows hold the same number; tempting, because `future *= gamma` and `future += ...` look like "
    "assignments. They change one tensor in place, and a list to which it is appended in every row holds that one "
    "tensor T times. Make a new one in each row: future = reward + gamma * future.",
)
def one_tensor_in_all_rows(x: Record) -> Tensor:
    return the_last_one_everywhere(from_the_end(x))


@returns.mistake(
    "indexing",
    "You look for an end in the flags of the next row; tempting, because some programs keep a flag with the state that "
    "it led to. Here the flags of row t say what happened after step t: they stand beside its reward.",
)
def reads_the_flags_of_the_next_row(x: Record) -> Tensor:
    return from_the_end(x._replace(over=one_row_up(x.over), cut=one_row_up(x.cut)))
