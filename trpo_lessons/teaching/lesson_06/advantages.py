"""Exercise advantages of lesson 06, Single path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal, survives
from trpo_lessons.teaching.lesson_06.shared import (
    ROWS,
    TOLERANCE,
    WAYS_TO_END,
    WITHOUT_AN_END,
    close,
    first,
    one_row_up,
    record,
    the_last_one_everywhere,
    whole_numbers,
)

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
