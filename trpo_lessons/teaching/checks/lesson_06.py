"""Checks of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.envs.obs_statistics import RunningMoments
from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.hunting import HuntCheck
from trpo_lessons.teaching.column_hunt import HUNT

TOLERANCE = 1e-6


def normal(rng: Generator, *shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape))


def whole_numbers(rng: Generator, *shape: int) -> Tensor:
    """Integers from 0 to 2."""
    return torch.from_numpy(rng.integers(0, 3, size=shape))


def close(one: Any, other: Any) -> bool:
    """Equal up to the rounding of float32, which a number times a bool tensor brings in unasked."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=TOLERANCE, atol=TOLERANCE))


def survives(holds: Callable[[], bool]) -> bool:
    """False as well where the student's function stops with an error, so that the property's words are what is read."""
    try:
        return holds()
    except NotImplementedError:
        raise
    except Exception:
        return False


# ---- returns ---------------------------------------------------------------------------------------------------------

ReturnsFunction = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]
ROWS = 12
LONG, WITHOUT_AN_END = 2000, 350  # rows: 0.7 and 0.1 to such a power are 0 on a computer


class Record(NamedTuple):
    """What is handed to `returns`: columns [T] or [T, E], and gamma."""

    rewards: Tensor
    next_values: Tensor
    over: Tensor  # terminated
    cut: Tensor  # truncated
    gamma: float

    @property
    def ended(self) -> Tensor:
        """Where the episode does not go on."""
        return self.over | self.cut

    @property
    def worth_after(self) -> Tensor:
        """What stands in the place of the future where an episode ended: nothing, or a value where it was cut."""
        return torch.where(self.over, 0.0, self.next_values)


def record(rng: Generator) -> Record:
    """Twelve steps of one environment: rewards, next values, two kinds of ends, gamma. The last episode goes on.

    One step is the last of its episode for both reasons at once, as when a pole falls in the very step of the limit.
    """
    terminated, truncated = torch.zeros(2, ROWS, dtype=torch.bool)
    over, cut, both = (int(t) for t in rng.permutation(ROWS - 1)[:3])
    terminated[[over, both]] = True
    truncated[[cut, both]] = True
    return Record(normal(rng, ROWS), normal(rng, ROWS), terminated, truncated, float(rng.uniform(0.6, 0.95)))


def first(flags: Tensor) -> int:
    """Where the first True is."""
    return int(flags.int().argmax())


Ends = tuple[bool, bool]  # terminated, truncated
WAYS_TO_END: tuple[Ends, ...] = ((True, False), (True, True), (False, True))


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


def the_last_one_everywhere(found: Tensor) -> Tensor:
    """What a list [T, ...] holds to which one tensor was appended T times: the row that was worked out last."""
    return found[:1].expand_as(found).clone()


def one_row_up(flags: Tensor) -> Tensor:
    """What stands in the next row, [T] or [T, E]; nothing in the last."""
    return torch.cat([flags[1:], torch.zeros_like(flags[:1])])


@returns.mistake(
    "indexing",
    "You look for an end in the flags of the next row; tempting, because some programs keep a flag with the state that "
    "it led to. Here the flags of row t say what happened after step t: they stand beside its reward.",
)
def reads_the_flags_of_the_next_row(x: Record) -> Tensor:
    return from_the_end(x._replace(over=one_row_up(x.over), cut=one_row_up(x.cut)))


# ---- less_baseline ---------------------------------------------------------------------------------------------------

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


# ---- advantages ------------------------------------------------------------------------------------------------------

AdvantageFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float, float], Tensor]


class Steps(NamedTuple):
    """What is handed to `advantages`: columns [T, E], gamma and lambda."""

    rewards: Tensor
    values: Tensor
    next_values: Tensor
    over: Tensor  # terminated
    cut: Tensor  # truncated
    gamma: float
    lam: float

    @property
    def ended(self) -> Tensor:
        """Where the episode does not go on."""
        return self.over | self.cut

    @property
    def going_on(self) -> Tensor:
        """1 where the episode goes on, else 0; in float64: a number times a bool tensor would be float32."""
        return (~self.ended).double()

    @property
    def residuals(self) -> Tensor:
        """The right ones."""
        return self.rewards + self.gamma * self.next_values * ~self.over - self.values

    @property
    def estimates(self) -> Tensor:
        """The right ones."""
        return sum_of_residuals(self.residuals, self.gamma * self.lam * self.going_on)

    def of_environment(self, e: int) -> Steps:
        """One column alone, [T, 1]."""
        rewards, values, next_values, over, cut = (column[:, e : e + 1] for column in self[:5])
        return Steps(rewards, values, next_values, over, cut, self.gamma, self.lam)


def steps(rng: Generator) -> Steps:
    """Twelve steps of three environments: rewards, values, next values, both kinds of ends, gamma, lambda."""
    columns = zip(*(record(rng)[:4] for _ in range(3)), strict=True)
    rewards, next_values, terminated, truncated = (torch.stack(column, 1) for column in columns)
    values = normal(rng, ROWS, 3)
    inside = ~(terminated | truncated)[:-1]
    next_values[:-1][inside] = values[1:][inside]  # the state a step leads to is the one the next begins in
    gamma = float(rng.uniform(0.85, 0.95))
    return Steps(rewards, values, next_values, terminated, truncated, gamma, float(rng.uniform(0.4, 0.7)))


advantages = Check("advantages", minutes=12, inputs=steps, arguments=Steps, tolerance=TOLERANCE)


@advantages.property("Every environment should be as if it were alone: what happens in one is nothing to the others.")
def environments_are_strangers(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    alone = [student(*x.of_environment(e)) for e in range(3)]
    return close(student(*x), torch.cat(alone, dim=1))


@advantages.property("With lambda = 0 an advantage should be the surprise: r + gamma V(next) - V, and nothing else.")
def lambda_zero_is_the_residual(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    return close(student(*x._replace(lam=1e-9)), x.residuals)  # who divides by it is told so further down


@advantages.property("With lambda = 1 advantage plus value should obey the recursion of returns inside an episode.")
def lambda_one_is_the_return(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    found, inside = x.values + student(*x._replace(lam=1.0)), ~x.ended[:-1]
    return close(found[:-1][inside], (x.rewards[:-1] + x.gamma * found[1:])[inside])


@advantages.property("What happens in the next episode should not change the advantages of the one before it.")
def episodes_do_not_leak(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    for e in range(3):
        t = first(x.ended[:, e])
        later = x.rewards.clone()
        later[t + 1 :, e] += 10
        if not close(student(*x)[: t + 1, e], student(*x._replace(rewards=later))[: t + 1, e]):
            return False
    return True


@advantages.property("One step of one environment, neither ended nor cut: r + gamma V(next) - V, whatever lambda is.")
def a_single_step(student: AdvantageFunction, rng: Generator) -> bool:
    reward, value, after = normal(rng, 3, 1, 1).unbind()
    none = torch.zeros(1, 1, dtype=torch.bool)
    return close(student(reward, value, after, none, none, 0.9, 0.7), reward + 0.9 * after - value)


@advantages.property(
    "What is easy to test holds, but the value is still another one. Go through the formula again, term by term."
)
def the_formula(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    return close(student(*x), x.estimates)


@advantages.property(
    "An episode that ends in the very last row goes wrong; tempting, because that row is often worked out ahead of the "
    "loop. Its surprise has next_values only if the episode was not terminated there, as in every other row."
)
def ends_in_the_last_row(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    over, cut = (torch.tensor(flags) for flags in zip(*WAYS_TO_END, strict=True))  # one way for each environment
    ended = x._replace(over=torch.cat([x.over[:-1], over[None]]), cut=torch.cat([x.cut[:-1], cut[None]]))
    return close(student(*ended), ended.estimates)


@advantages.property(
    "Your advantages get lost in a long record; a cumulative sum with weights (gamma lambda)^t, divided by them in the "
    "end, is tempting because it needs no loop. After some hundreds of rows such weights are smaller than any number "
    "that a computer has. From the last row back no power is needed."
)
def long_records(student: AdvantageFunction, rng: Generator) -> bool:
    rewards, values, next_values = normal(rng, 3, WITHOUT_AN_END, 2).unbind()
    over, cut = torch.from_numpy(rng.random((2, WITHOUT_AN_END, 2)) < 0.02).unbind()
    x = Steps(rewards, values, next_values, over, cut, 0.5, 0.2)
    return close(student(*x), x.estimates)


@advantages.property(
    "With gamma = 0 or lambda = 0 an advantage should be one surprise, and yours is not; it is tempting to divide by "
    "one of them somewhere. From the last row back nothing has to be divided."
)
def with_zeros(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)
    return all(close(student(*each), each.residuals) for each in (x._replace(gamma=0.0), x._replace(lam=0.0)))


@advantages.property(
    "With whole numbers for rewards, such as cart-pole's 1, 1, 1, your advantages are cut to whole numbers, too; "
    "tempting, because zeros_like(rewards) has the right shape. It has the rewards' type as well: take that of values."
)
def whole_rewards(student: AdvantageFunction, rng: Generator) -> bool:
    x = steps(rng)._replace(rewards=whole_numbers(rng, ROWS, 3))
    return survives(lambda: close(student(*x), x.estimates))


def sum_of_residuals(residuals: Tensor, decay: Tensor) -> Tensor:
    """From the end back: residual plus decay [T, E] times what comes later."""
    found, later = torch.zeros_like(residuals), torch.zeros_like(residuals[0])
    for t in reversed(range(len(residuals))):
        later = residuals[t] + decay[t] * later
        found[t] = later
    return found


@advantages.mistake(
    "termination",
    "Your surprise bootstraps through a termination; tempting, because next_values has a number there. After the end "
    "there is nothing to come: the surprise of that step is its reward less the value.",
)
def residual_through_a_termination(x: Steps) -> Tensor:
    return sum_of_residuals(x.rewards + x.gamma * x.next_values - x.values, x.gamma * x.lam * x.going_on)


@advantages.mistake(
    "termination",
    "At a time limit your surprise has no value for what comes next; tempting, because one flag, done, is what many "
    "environments give. Then every last step of a good episode looks like a disaster. Only a termination ends it all.",
)
def residual_without_a_value_at_a_limit(x: Steps) -> Tensor:
    return x._replace(over=x.ended).estimates


@advantages.mistake(
    "termination",
    "You take the next row of `values` for the state that a step led to; tempting, because inside an episode they are "
    "the same. At a time limit the next row is the first state of another episode: next_values has the right one.",
)
def values_of_the_next_episode(x: Steps) -> Tensor:
    return x._replace(next_values=torch.cat([x.values[1:], x.next_values[-1:]])).estimates


@advantages.mistake(
    "termination",
    "Your sum runs on into the next episode after a time limit; tempting, because the step was given its value, as if "
    "the episode went on. It goes on where nobody looks: a cut stops the sum as an end does.",
)
def sums_across_a_limit(x: Steps) -> Tensor:
    return x._replace(cut=x.over).estimates


@advantages.mistake(
    "termination",
    "Your sum never stops at an end; tempting, because the surprises are right and the rest is one recursion. The "
    "next row may belong to another episode: later surprises count only while the same episode goes on.",
)
def sums_across_every_end(x: Steps) -> Tensor:
    return sum_of_residuals(x.residuals, torch.full_like(x.rewards, x.gamma * x.lam))


@advantages.mistake(
    "concept",
    "Gamma and lambda have changed places in the surprise; tempting, because they stand side by side in the sum. "
    "The surprise compares V with one step more of the same return, and that return is discounted by gamma.",
)
def lambda_in_the_residual(x: Steps) -> Tensor:
    return sum_of_residuals(x._replace(gamma=x.lam).residuals, x.gamma * x.lam * x.going_on)


@advantages.mistake(
    "concept",
    "Later surprises decay by lambda alone; tempting, because gamma is in the surprise already. A surprise k steps "
    "later is worth gamma^k today, as a reward is, and lambda^k says how far we trust it: both.",
)
def decays_by_lambda_alone(x: Steps) -> Tensor:
    return sum_of_residuals(x.residuals, x.lam * x.going_on)


@advantages.mistake(
    "concept",
    "Lambda has no effect: later surprises decay by gamma alone; tempting, because discounted sums always look so. "
    "That is lambda = 1, the return less the value, with all its noise.",
)
def forgets_lambda(x: Steps) -> Tensor:
    return x._replace(lam=1.0).estimates


@advantages.mistake(
    "order",
    "You carry surprises forward in time, so an action is judged by what came before it; tempting, because loops "
    "count upward. Start in the last row and go back.",
)
def carries_residuals_forward(x: Steps) -> Tensor:
    found, past = torch.zeros_like(x.rewards), torch.zeros_like(x.rewards[0])
    for t in range(len(x.rewards)):
        found[t] = x.residuals[t] + x.gamma * x.lam * past
        past = torch.where(x.ended[t], 0.0, found[t])
    return found


@advantages.mistake(
    "concept",
    "You do not subtract V: these are estimates of Q; tempting, because returns need no subtraction. An advantage says "
    "how much better than usual; without the baseline the noise is that of whole returns.",
)
def forgets_the_baseline(x: Steps) -> Tensor:
    return x.values + x.estimates


@advantages.mistake(
    "concept",
    "You standardize the estimates; tempting, because an update is given standardized ones. That comes one line later: "
    "the value function is fitted to advantages plus values, and needs them in the units of the rewards.",
)
def standardises(x: Steps) -> Tensor:
    return (x.estimates - x.estimates.mean()) / x.estimates.std()


@advantages.mistake(
    "concept",
    "You take the mean of the batch off; tempting, because a baseline is a mean. V is the baseline here, and it has "
    "been subtracted already. Who standardizes does that one line later, and V is fitted to advantages plus values.",
)
def takes_the_mean_off(x: Steps) -> Tensor:
    return x.estimates - x.estimates.mean()


@advantages.mistake(
    "indexing",
    "All your rows hold the same numbers; tempting, because `later *= decay` and `later += surprise` look like "
    "assignments. They change one tensor in place, and a list to which it is appended in every row holds that one "
    "tensor T times. Make a new one in each row: later = surprise + decay * later.",
)
def the_same_tensor_in_all_rows(x: Steps) -> Tensor:
    return the_last_one_everywhere(x.estimates)


@advantages.mistake(
    "constant",
    "You multiply the sum by 1 - lambda; tempting, because the n-step estimates have such weights. In terms of "
    "surprises these weights have been added up already, and the factor is gone: at lambda = 1 nothing would be left.",
)
def weighs_twice(x: Steps) -> Tensor:
    return (1 - x.lam) * x.estimates


@advantages.mistake(
    "concept",
    "You stop at the first surprise, whatever lambda is; tempting, because it looks like an advantage, and with an "
    "exact V it would be one. Later surprises count as well, each with gamma lambda more: that is lambda = 0.",
)
def stops_at_one_residual(x: Steps) -> Tensor:
    return x.residuals


@advantages.mistake(
    "indexing",
    "An end in one environment ends the sums of all; tempting, because `if` asks for one answer and `any` gives it. "
    "The columns are strangers to each other: decide for each, with torch.where or a column of zeros and ones.",
)
def one_end_ends_all(x: Steps) -> Tensor:
    return sum_of_residuals(x.residuals, x.gamma * x.lam * x.going_on.amin(1, keepdim=True).expand_as(x.rewards))


@advantages.mistake(
    "indexing",
    "You look for an end in the flags of the next row; tempting, because some programs keep a flag with the state that "
    "it led to. Here the flags of row t say what happened after step t: they stand beside its reward.",
)
def flags_of_the_next_row(x: Steps) -> Tensor:
    return x._replace(over=one_row_up(x.over), cut=one_row_up(x.cut)).estimates


@advantages.mistake(
    "order",
    "Your numbers are right, but in the order in which you found them: the last row comes first. It is tempting to "
    "append while walking back; then the list has to be turned around.",
)
def last_row_first(x: Steps) -> Tensor:
    return x.estimates.flip(0)


# ---- one_iteration ---------------------------------------------------------------------------------------------------

Normalise = Callable[[Tensor], Tensor]
Collect = Callable[[Tensor, Normalise], Tensor]
Update = Callable[[Tensor, Tensor], Tensor]
Result = tuple[Tensor, RunningMoments]
Iteration = Callable[[Tensor, RunningMoments, Collect, Update], Result]


class Between(NamedTuple):
    """What is handed to `one_iteration`."""

    theta: Tensor
    statistics: RunningMoments
    collect: Collect
    update: Update

    def raw_obs(self) -> Tensor:
        """What the policy sees when it follows theta with these statistics."""
        return self.collect(self.theta, self.statistics.normalise)


def moments_of(raw_obs: Tensor) -> RunningMoments:
    """Those of this batch alone."""
    return RunningMoments.empty(raw_obs.shape[-1]).including(raw_obs)


def between_two_iterations(rng: Generator) -> Between:
    """Theta [3], statistics of thirty earlier observations, a policy's walk through raw observations, an update."""
    statistics = RunningMoments.empty(3).including(2 * normal(rng, 30, 3) + 1)
    noise, start = normal(rng, 12, 3), normal(rng, 3)

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        raw, rows = 5 * start, []
        for wind in noise:
            rows.append(raw)
            raw = raw + wind + torch.tanh(theta * normalise(raw))
        return torch.stack(rows)

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        return theta + torch.tanh(obs.double()).square().mean(0)

    return Between(normal(rng, 3), statistics, collect, update)


one_iteration = Check("one_iteration", minutes=6, inputs=between_two_iterations, arguments=Between)


@one_iteration.property(
    "One iteration follows the policy once and updates once: call `collect` and then `update`, once each. What the new "
    "policy does is for the next iteration to see."
)
def collects_once_and_updates_once(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    called: list[str] = []

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        called.append("collect")
        return x.collect(theta, normalise)

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        called.append("update")
        return x.update(theta, obs)

    student(x.theta, x.statistics, collect, update)
    return called == ["collect", "update"]


@one_iteration.property("The theta that comes back should be the one that `update` returned.")
def the_new_theta_comes_back(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    updated = normal(rng, 3)
    after, _ = student(*x._replace(update=lambda _theta, _obs: updated.clone()))
    return close(after, updated)


@one_iteration.property("The policy should act on observations that are normalized by the statistics as they stand.")
def acts_on_normalised_observations(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    raw_obs = torch.full((2, 3), 1.5, dtype=torch.float64)
    given: list[Tensor] = []

    def collect(theta: Tensor, normalise: Normalise) -> Tensor:
        given.append(normalise(raw_obs))
        return x.collect(theta, normalise)

    student(*x._replace(collect=collect))
    return close(given[0], x.statistics.normalise(raw_obs))


@one_iteration.property("The update should be given the very numbers that the policy saw while it collected.")
def updates_on_what_was_seen(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    learned_from: list[Tensor] = []

    def update(theta: Tensor, obs: Tensor) -> Tensor:
        learned_from.append(obs)
        return x.update(theta, obs)

    student(*x._replace(update=update))
    return close(learned_from[0], x.statistics.normalise(x.raw_obs()))


@one_iteration.property("The statistics that come back should know the old observations and the new ones.")
def statistics_grow(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    _, after = student(*x)
    return close(after.mean, x.statistics.including(x.raw_obs()).mean)


@one_iteration.property(
    "What is easy to test holds, but theta or the statistics are still others. Count, mean and deviations should be "
    "those of `including` the raw observations, once."
)
def all_of_the_statistics(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)
    theta, after = student(*x)
    raw_obs = x.raw_obs()
    right = x.statistics.including(raw_obs)
    of_theta = close(theta, x.update(x.theta, x.statistics.normalise(raw_obs)))
    return of_theta and after.count == right.count and close(after.deviations, right.deviations)


@one_iteration.property(
    "The first iteration goes wrong, where nothing has been seen yet. It is no exception: statistics of nothing leave "
    "observations as they are, and policy and update see the same numbers."
)
def the_first_iteration(student: Iteration, rng: Generator) -> bool:
    x = between_two_iterations(rng)._replace(statistics=RunningMoments.empty(3))
    theta, after = student(*x)
    raw_obs = x.raw_obs()
    return close(theta, x.update(x.theta, raw_obs)) and close(after.mean, raw_obs.mean(0))


@one_iteration.mistake(
    "order",
    "You renew the statistics before the update; tempting, because fresh ones are better. The update then sees numbers "
    "that the policy never saw, and its ratios do not start at 1. Update first, renew afterward.",
)
def renews_before_the_update(x: Between) -> Result:
    raw_obs = x.raw_obs()
    statistics = x.statistics.including(raw_obs)
    return x.update(x.theta, statistics.normalise(raw_obs)), statistics


@one_iteration.mistake(
    "concept",
    "The statistics never change; tempting, because they must not move. Not between collecting and updating; from one "
    "iteration to the next they have to, or the policy squints at places that it first reaches late. Hand back what "
    "`including` returns: it leaves the old moments as they were.",
)
def never_renews(x: Between) -> Result:
    return x.update(x.theta, x.statistics.normalise(x.raw_obs())), x.statistics


@one_iteration.mistake(
    "conditioning",
    "You hand raw observations to the update; tempting, because they are what collect returns. The policy acted on "
    "normalized ones: its probabilities at raw ones are those of another policy.",
)
def updates_on_raw_observations(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, raw_obs), x.statistics.including(raw_obs)


@one_iteration.mistake(
    "conditioning",
    "You normalize the batch by its own mean and variance; tempting, because that is what one does to data in a table. "
    "While the batch was collected nobody knew them: the policy saw the older statistics, and so must the update.",
)
def normalises_by_the_batch(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, moments_of(raw_obs).normalise(raw_obs)), x.statistics.including(raw_obs)


@one_iteration.mistake(
    "concept",
    "You put normalized observations into the statistics; tempting, because these are the ones at hand. Then the "
    "statistics learn that everything has mean 0 and variance 1, and forget the units of the world: include raw ones.",
)
def includes_normalised_observations(x: Between) -> Result:
    obs = x.statistics.normalise(x.raw_obs())
    return x.update(x.theta, obs), x.statistics.including(obs)


@one_iteration.mistake(
    "concept",
    "You replace the statistics by those of the new batch; tempting, because the newest policy matters most. They then "
    "jump with the luck of every batch, and each jump is a change of policy that no trust region holds back.",
)
def forgets_what_was_seen(x: Between) -> Result:
    raw_obs = x.raw_obs()
    return x.update(x.theta, x.statistics.normalise(raw_obs)), moments_of(raw_obs)


@one_iteration.mistake(
    "concept",
    "You include the batch twice; tempting where statistics are renewed both after collecting and after the update. "
    "Each observation counts once, or the newest ones weigh double.",
)
def includes_the_batch_twice(x: Between) -> Result:
    raw_obs = x.raw_obs()
    theta = x.update(x.theta, x.statistics.normalise(raw_obs))
    return theta, x.statistics.including(raw_obs).including(raw_obs)


@one_iteration.mistake(
    "concept",
    "Your policy collects on raw observations and learns on normalized ones; tempting, because normalising looks like "
    "a matter of learning. The policy is the network with its normalization: both belong to acting, too.",
)
def acts_on_raw_observations(x: Between) -> Result:
    raw_obs = x.collect(x.theta, lambda raw: raw)
    return x.update(x.theta, x.statistics.normalise(raw_obs)), x.statistics.including(raw_obs)


# ---- miscounted ------------------------------------------------------------------------------------------------------


def nothing(_rng: Generator) -> tuple[()]:
    """The function takes no arguments."""
    return ()


miscounted = HuntCheck("miscounted", hunt=HUNT, minutes=12, inputs=nothing)

miscounted.hint(
    "limit taken for an end",
    "Where an episode is cut, nothing is put in the place of V: look for rows at limits that look like disasters.",
)
miscounted.hint(
    "value after a fall",
    "A network has an opinion of the floor, too. With it a fall costs less than it should, or seems a gain.",
)
miscounted.hint(
    "sum across resets",
    "The mean at an end hardly changes, for the next episode's surprises are 0 on average. But a fall from a given "
    "lean has one certain advantage, so its spread should be 0.",
)
miscounted.hint(
    "lambda left out",
    "Then luck is added up to the end of the episode. At an end there is nothing left to add, so look elsewhere.",
)
miscounted.hint(
    "log q of the next row",
    "The advantages are in order. At theta_old the policy is compared with itself: what should every ratio be?",
)
miscounted.hint(
    "log q not detached",
    "The advantages are in order, and the ratios too, wherever theta goes. What is the slope of a constant?",
)
miscounted.confusion(
    "limit taken for an end",
    "value after a fall",
    "termination",
    "tempting, because both are wrong at an end. One takes a future from who still stood, the other gives one to who "
    "fell: too low at limits, too high at falls.",
)
miscounted.confusion(
    "sum across resets",
    "lambda left out",
    "conditioning",
    "tempting, because both add up too much, and show in the spread. One adds what follows an end, and changes rows at "
    "an end; the other adds too much before it, and changes none of those.",
)
miscounted.confusion(
    "log q of the next row",
    "log q not detached",
    "detachment",
    "tempting, because both leave the advantages alone. With numbers of another row the ratios are not 1; with log q "
    "that follows theta they are 1 everywhere, and nothing is left to climb.",
)
miscounted.confusion(
    "value after a fall",
    "sum across resets",
    "termination",
    "tempting, because both count something after a fall. An opinion of the floor is one number and moves the mean; "
    "another episode is luck and makes a spread.",
)
