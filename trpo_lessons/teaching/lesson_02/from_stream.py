"""Exercise from_stream of lesson 02, The surrogate loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal

StreamFunction = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def stream(rng: Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    """Ratios and advantages [T] of several episodes in a row, where an episode starts [T], and a discount."""
    starts = torch.cat([torch.arange(n) == 0 for n in rng.integers(2, 6, size=int(rng.integers(2, 5)))])
    ratios, advantages = torch.exp(0.5 * normal(rng, len(starts))), normal(rng, len(starts))
    return ratios, advantages, starts, float(rng.uniform(0.5, 0.95))


# A number to the power of a tensor of integers has float32's precision in torch; whoever writes that shall pass.
from_stream = Check("from_stream", minutes=12, inputs=stream, tolerance=1e-5)


def near(one: Any, other: Any) -> bool:
    """Equal up to float32's rounding."""
    return bool(torch.allclose(as_float64(one), as_float64(other), rtol=1e-5, atol=1e-5))


def ages(starts: Tensor) -> Tensor:
    """Steps [T] since the episode began."""
    now = torch.arange(len(starts), dtype=torch.float64)
    return now - torch.where(starts, now, 0).cummax(0).values


def along_each_episode(ratios: Tensor, starts: Tensor) -> Tensor:
    """Product [T] of an episode's ratios up to and including each step."""
    return torch.cat([part.cumprod(0) for part in torch.split(ratios, episode_lengths(starts))])


def episode_lengths(starts: Tensor) -> list[int]:
    """How many steps each episode has."""
    found: list[int] = torch.bincount(starts.long().cumsum(0) - 1).tolist()
    return found


@from_stream.property(
    "Two episodes of one step each, which bring 1 and 3: L is about one episode, so the estimate should be the mean, 2."
)
def mean_of_two(student: StreamFunction, rng: Generator) -> bool:
    _, _, _, gamma = stream(rng)
    ones = torch.ones(2, dtype=torch.float64)
    return near(student(ones, as_float64([1.0, 3.0]), torch.tensor([True, True]), gamma), 2)


@from_stream.property(
    "A step counts gamma^t, t steps after its episode began. One episode of T steps with all ratios and advantages 1 "
    "should give (1 - gamma^T) / (1 - gamma)."
)
def ones_add_up(student: StreamFunction, rng: Generator) -> bool:
    _, _, _, gamma = stream(rng)
    ones = torch.ones(int(rng.integers(2, 9)), dtype=torch.float64)
    answer = student(ones, ones.clone(), torch.arange(len(ones)) == 0, gamma)
    return near(answer, (1 - gamma ** len(ones)) / (1 - gamma))


@from_stream.property(
    "A ratio should touch its own step only: change the ratio of a step without advantage, and nothing should change."
)
def ratios_touch_their_own_step(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, gamma = stream(rng)
    advantages[starts] = 0
    other = torch.where(starts, 2 * ratios, ratios)
    return near(student(other, advantages, starts, gamma), student(ratios, advantages, starts, gamma))


@from_stream.property(
    "Each episode starts anew: the same episodes written down twice in a row should give the same estimate."
)
def twice_is_the_same(student: StreamFunction, rng: Generator) -> bool:
    *columns, gamma = stream(rng)
    ratios, advantages, starts = columns
    twice = student(ratios.repeat(2), advantages.repeat(2), starts.repeat(2), gamma)
    return near(twice, student(ratios, advantages, starts, gamma))


@from_stream.property(
    "At gamma = 0 only the first step of each episode counts, and at gamma = 1 all steps count alike. If you get NaN "
    "there, look for a logarithm of gamma, or for a division by one of its powers."
)
def both_ends_of_gamma(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, _ = stream(rng)
    terms = ratios * advantages
    at_ends = [student(ratios, advantages, starts, gamma) for gamma in (0.0, 1.0)]
    return near(at_ends[0], terms[starts].sum() / starts.sum()) and near(at_ends[1], terms.sum() / starts.sum())


@from_stream.property(
    "A stream may be long: after some thousand steps gamma^t is 0 to a float64. If later episodes then count nothing, "
    "or NaN comes out, you count time from the start of the stream and put it right by a division."
)
def thousands_of_steps(student: StreamFunction, rng: Generator) -> bool:
    starts = (torch.arange(3000) % 1000) == 0
    ratios, advantages = torch.exp(0.5 * normal(rng, 3000)), normal(rng, 3000)
    return near(student(ratios, advantages, starts, 0.5), (0.5 ** ages(starts) * ratios * advantages).sum() / 3)


@from_stream.property(
    "Games pay whole numbers, so values may come as integers. The estimate is a real number all the same: let the "
    "ratios decide its type."
)
def whole_numbers(student: StreamFunction, rng: Generator) -> bool:
    ratios, advantages, starts, gamma = stream(rng)
    whole = (10 * advantages).round()
    return near(student(ratios, whole.long(), starts, gamma), student(ratios, whole, starts, gamma))


@from_stream.mistake(
    "concept",
    "You multiply the ratios up along the episode; tempting, because that is how likely the whole way is under the new "
    "policy. It corrects the states as well, so it estimates the right-hand side of equation 1, the truth, at a price "
    "that grows exponentially with time. L keeps the old states: one ratio a step.",
)
def multiplies_along_the_way(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    terms = gamma ** ages(starts) * along_each_episode(ratios, starts) * advantages
    return terms.sum() / starts.sum()


@from_stream.mistake(
    "termination",
    "Your discount goes on falling from one episode to the next; tempting, because the stream is one array. Time "
    "starts anew with every episode, so later episodes hardly count in your sum, and they are as good as the first.",
)
def never_restarts(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** torch.arange(len(ratios), dtype=torch.float64) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You count all steps alike; tempting, because most code does. Then states are weighed with how often they are "
    "visited, not with rho, which counts a visit at time t gamma^t.",
)
def forgets_the_discount(ratios: Tensor, advantages: Tensor, starts: Tensor, _gamma: float) -> Tensor:
    return (ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "order",
    "You discount from the end: the last step of an episode counts 1; tempting, because returns are summed up from "
    "behind. Here gamma^t belongs to the time t since the start.",
)
def discounts_from_the_end(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    lengths = torch.tensor(episode_lengths(starts))
    to_go = lengths.repeat_interleave(lengths) - 1 - ages(starts)
    return (gamma**to_go * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You leave out the ratios; tempting, because the advantages along the way are what the gain is made of. But under "
    "the old policy they average to zero, in every state: without the new policy's actions there is no gain to see.",
)
def leaves_out_the_ratios(_ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "Your terms are (ratio - 1) times advantage. In expectation that is the same, and less noisy, because the "
    "advantages that you take away average to zero; tempting, and often wise. Asked for is the plain estimate, ratio "
    "times advantage, which has the noise of the old policy's own advantages in it.",
)
def takes_away_the_old(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * (ratios - 1) * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You add the episodes up; tempting, because the terms of one episode are added up. L is what one episode brings on "
    "average: every first step in the stream opens another one, so divide by how many there are.",
)
def adds_the_episodes_up(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios * advantages).sum()


@from_stream.mistake(
    "concept",
    "You divide by the number of steps; tempting, because a mean is over all samples. L is what one *episode* brings: "
    "its sum over time stays a sum, and only the episodes are averaged.",
)
def averages_over_steps(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios * advantages).mean()


@from_stream.mistake(
    "indexing",
    "Your first step counts gamma; tempting, because loops like to discount before they add. The first step of an "
    "episode is at time 0 and counts gamma^0 = 1: nobody has had to wait for it.",
)
def discounts_the_first_step(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** (ages(starts) + 1) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You multiply by 1 - gamma; tempting, because (1 - gamma) rho is the distribution that this lesson draws from. "
    "Asked for are units of eta, the sum over rho as it is, which adds up to 1 / (1 - gamma).",
)
def normalizes_the_visits(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (1 - gamma) * (gamma ** ages(starts) * ratios * advantages).sum() / starts.sum()


@from_stream.mistake(
    "concept",
    "You divide by the sum of the discounts, for a weighted average; tempting, because weights of a mean add up to 1. "
    "L is a sum over time: a longer way brings more. Divide by the number of episodes only.",
)
def divides_by_the_discounts(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    discounts = gamma ** ages(starts)
    return (discounts * ratios * advantages).sum() / discounts.sum()


@from_stream.mistake(
    "termination",
    "Your last episode is missing; tempting, because an episode seems to end where the next one starts, and after the "
    "last one nothing starts. The end of the stream ends it.",
)
def drops_the_last_episode(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    complete = starts.long().cumsum(0) < starts.sum()
    return (gamma ** ages(starts) * ratios * advantages)[complete].sum() / (starts.sum() - 1)


@from_stream.mistake(
    "concept",
    "You divide the ratios by their mean; tempting, because they should average to 1, and then they do. That is the "
    "idea of equation 17. The plain estimate is asked for, which leaves the ratios as they are.",
)
def divides_by_the_mean_ratio(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    return (gamma ** ages(starts) * ratios / ratios.mean() * advantages).sum() / starts.sum()
