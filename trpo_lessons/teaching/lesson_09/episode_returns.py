"""Exercise episode_returns of lesson 09, Locomotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.lesson_09.shared import Flags, Floats, agree

Answer = tuple[Floats, Floats]
Count = Callable[[Floats, Flags, Flags, Floats], Answer]


class Record(NamedTuple):
    """What is handed to `episode_returns`."""

    rewards: Floats
    terminated: Flags
    truncated: Flags
    so_far: Floats

    def part(self, rows: slice, copies: slice = slice(None)) -> Record:
        """Some of the rows, of some of the copies."""
        columns = (self.rewards[rows, copies], self.terminated[rows, copies], self.truncated[rows, copies])
        return Record(*columns, self.so_far[copies])

    @property
    def ended(self) -> Flags:
        """Where no further step belongs to the same episode."""
        return self.terminated | self.truncated


def record(rng: Generator) -> Record:
    """Some steps of two to four robots, each with an end of every kind; one end is of both kinds at once."""
    rows, copies = int(rng.integers(11, 15)), int(rng.integers(2, 5))
    terminated, truncated = np.zeros((2, rows, copies), dtype=np.bool_)
    for e in range(copies):
        fall, cut, both = rng.permutation(rows - 1)[:3]
        terminated[[fall, both], e] = True
        truncated[[cut, both], e] = True
    return Record(rng.normal(1, 1, size=(rows, copies)), terminated, truncated, rng.normal(5, 3, size=copies))


def counted(
    x: Record, counts: Flags, resets: Flags, so_far: Floats | None = None, late: bool = False
) -> tuple[list[float], Floats]:
    """Returns noted where `counts`, in order of rows; sums that begin anew where `resets`.

    late: an end is seen before its step's reward is added.
    """
    running, found = (x.so_far if so_far is None else so_far).copy(), []
    for t in range(len(x.rewards)):
        before = running.copy()
        running += x.rewards[t]
        found += list((before if late else running)[counts[t]])
        running[resets[t]] = x.rewards[t][resets[t]] if late else 0.0
    return found, running


def as_answer(found: tuple[list[float], Floats]) -> Answer:
    """As arrays."""
    return np.array(found[0], dtype=np.float64), found[1]


episode_returns = Check("episode_returns", minutes=10, inputs=record, arguments=Record)


@episode_returns.property("There should be one return for every step with which an episode ended or was cut.")
def one_for_each_end(student: Count, rng: Generator) -> bool:
    x = record(rng)
    return len(student(*x)[0]) == int(x.ended.sum())


@episode_returns.property(
    "Nothing should be lost, and nothing counted twice: the returns and what is still running should add up to all "
    "rewards and so_far."
)
def nothing_is_lost(student: Count, rng: Generator) -> bool:
    x = record(rng)
    finished, so_far = student(*x)
    return agree(np.sum(finished) + np.sum(so_far), x.rewards.sum() + x.so_far.sum())


@episode_returns.property("Two batches one after the other should give the same returns as one of twice the length.")
def batches_can_be_joined(student: Count, rng: Generator) -> bool:
    x = record(rng)
    first, so_far = student(*x.part(slice(7)))
    second, last = student(*x.part(slice(7, None))._replace(so_far=so_far))
    whole, end = student(*x)
    return agree(np.concatenate([first, second]), whole) and agree(last, end)


@episode_returns.property("Returns should stand in the order of rows, and those of one row in the order of the copies.")
def in_order_of_rows(student: Count, rng: Generator) -> bool:
    x = record(rng)
    return agree(student(*x)[0], as_answer(counted(x, x.ended, x.ended))[0])


@episode_returns.property("Where nothing ends there is no return, and all that was earned is still running.", edge=True)
def no_end(student: Count, rng: Generator) -> bool:
    x = record(rng)
    nowhere = np.zeros_like(x.terminated)
    finished, so_far = student(x.rewards, nowhere, nowhere, x.so_far)
    return np.size(finished) == 0 and agree(so_far, x.so_far + x.rewards.sum(0))


@episode_returns.property("An episode that ends in the last row leaves nothing that is still running.", edge=True)
def ends_in_the_last_row(student: Count, rng: Generator) -> bool:
    x = record(rng)
    x.truncated[-1] = True
    finished, so_far = student(*x)
    return agree(so_far, np.zeros_like(x.so_far)) and agree(finished, as_answer(counted(x, x.ended, x.ended))[0])


@episode_returns.mistake(
    "termination",
    "You count falls alone; tempting, because an episode that was cut did not end by itself. But the best episodes are "
    "the ones that nothing ends but the clock: without them your robot seems to get worse as it gets better.",
)
def counts_falls(x: Record) -> Answer:
    return as_answer(counted(x, x.terminated, x.ended))


@episode_returns.mistake(
    "termination",
    "You take only falls for ends; tempting, because `terminated` says that an episode is over. Where one was cut, the "
    "next row is a new episode as well: the return of the old one is missing, and its rewards end up in another.",
)
def sees_falls_only(x: Record) -> Answer:
    return as_answer(counted(x, x.terminated, x.terminated))


@episode_returns.mistake(
    "termination",
    "You count cuts alone; tempting, because one that lasted to the clock is whole. One that fell is over, too, and "
    "its return is what the fall cost: without those your robot never seems to fall.",
)
def counts_cuts(x: Record) -> Answer:
    return as_answer(counted(x, x.truncated, x.ended))


@episode_returns.mistake(
    "termination",
    "You take only cuts for ends; tempting, because the clock ends most episodes of a good robot. After a fall the "
    "next row is a new episode as well, and its rewards belong to another return.",
)
def sees_cuts_only(x: Record) -> Answer:
    return as_answer(counted(x, x.truncated, x.truncated))


@episode_returns.mistake(
    "termination",
    "You ask for both flags at once; tempting, because both are about ends. Either of them ends an episode: | instead "
    "of &.",
)
def asks_for_both_flags(x: Record) -> Answer:
    both = x.terminated & x.truncated
    return as_answer(counted(x, both, both))


@episode_returns.mistake(
    "concept",
    "You leave out the episodes that began before the batch; tempting, because only their ends are here. Their "
    "beginnings are not lost, they are in so_far: count them whole.",
)
def leaves_out_what_began_earlier(x: Record) -> Answer:
    begun_here = np.cumsum(x.ended, axis=0) - x.ended > 0
    return as_answer(counted(x, x.ended & begun_here, x.ended))


@episode_returns.mistake(
    "indexing",
    "You note one return for a row; tempting, because mostly a single copy ends in it. Several may end in the same "
    "row, and each of them is an episode.",
)
def one_for_a_row(x: Record) -> Answer:
    last_of_row = x.ended & (np.cumsum(x.ended[:, ::-1], axis=1)[:, ::-1] == 1)
    return as_answer(counted(x, last_of_row, x.ended))


@episode_returns.mistake(
    "termination",
    "After a cut your sum runs on; tempting, because nothing happened to the robot. But the next row is a new episode, "
    "and its rewards belong to another return.",
)
def runs_on_after_a_cut(x: Record) -> Answer:
    return as_answer(counted(x, x.ended, x.terminated))


@episode_returns.mistake(
    "concept",
    "You begin at zero in the first row; tempting, because the batch does. The episodes there began in an earlier one, "
    "and what they earned then is in so_far.",
)
def forgets_the_past(x: Record) -> Answer:
    return as_answer(counted(x, x.ended, x.ended, np.zeros_like(x.so_far)))


@episode_returns.mistake(
    "concept",
    "You count the unfinished episodes, too; tempting, because their rewards are real. They are returns of half an "
    "episode, and in a short batch most of the numbers would be such: wait until they end.",
)
def counts_the_unfinished(x: Record) -> Answer:
    found, running = counted(x, x.ended, x.ended)
    return np.array([*found, *running]), running


@episode_returns.mistake(
    "order",
    "You look for the end before you add the reward; tempting, because the flag seems to come first. The step with "
    "which an episode ends belongs to it, and so does what it earned.",
)
def looks_too_early(x: Record) -> Answer:
    return as_answer(counted(x, x.ended, x.ended, late=True))


@episode_returns.mistake(
    "concept",
    "You do not begin anew after an end; tempting, because a cumulative sum is one call. Then every return contains "
    "those of all episodes before it.",
)
def never_begins_anew(x: Record) -> Answer:
    return as_answer(counted(x, x.ended, np.zeros_like(x.ended)))


@episode_returns.mistake(
    "termination",
    "An end with both flags is counted twice; tempting, because each flag is looked at in turn. It is one episode: "
    "ask whether either is up.",
)
def counts_both_flags(x: Record) -> Answer:
    running, found = x.so_far.copy(), []
    for t in range(len(x.rewards)):
        running += x.rewards[t]
        for flags in (x.terminated[t], x.truncated[t]):
            found += list(running[flags])
        running[x.ended[t]] = 0.0
    return np.array(found), running


@episode_returns.mistake(
    "indexing",
    "Your returns are in order of the copies; tempting, because a loop over the robots comes first. In the log they "
    "are needed in the order in which they happened: rows first.",
)
def by_copies(x: Record) -> Answer:
    found: list[float] = []
    for e in range(len(x.so_far)):
        of_one = x.part(slice(None), slice(e, e + 1))
        found += counted(of_one, of_one.ended, of_one.ended)[0]
    return np.array(found), counted(x, x.ended, x.ended)[1]


@episode_returns.mistake(
    "detachment",
    "You hand back the so_far that you were given; tempting, because its name has not changed. It is for the next "
    "batch: what the episodes that are running *now* have earned.",
)
def hands_back_what_it_got(x: Record) -> Answer:
    return np.array(counted(x, x.ended, x.ended)[0]), x.so_far.copy()
