"""Exercise effective_sample_size of lesson 02, The surrogate loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.mdp import as_float64
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_02.shared import close

SizeFunction = Callable[[Tensor], Tensor]


def log_ratios_of_a_batch(rng: Generator) -> tuple[Tensor]:
    """Log ratios [N] of a batch."""
    return (normal(rng, int(rng.integers(5, 30))),)


effective_sample_size = Check("effective_sample_size", minutes=8, inputs=log_ratios_of_a_batch)


@effective_sample_size.property(
    "Two samples, one with three times the weight of the other: the sum is 1 + 3 and the sum of squares 1 + 9, so they "
    "are worth 16/10."
)
def size_of_one_and_three(student: SizeFunction, rng: Generator) -> bool:
    log_weights = as_float64([0.0, math.log(3)])
    return close(student(log_weights), 1.6) and close(student(log_weights + rng.normal()), 1.6)


@effective_sample_size.property(
    "Every sample twice over is worth twice as much: the definition has two sums over the samples, and no N of its own."
)
def size_of_everything_twice(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.cat([log_ratios, log_ratios])), 2 * as_float64(student(log_ratios)))


@effective_sample_size.property("N samples of equal weight are worth N, also where the weight is not 1.")
def size_of_equal_weights(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.full_like(log_ratios, rng.normal())), len(log_ratios))


@effective_sample_size.property(
    "Adding 1000 to all log ratios multiplies every weight by the same factor and should change nothing, but exp(1000) "
    "is too large for a float64. Subtract the largest log ratio before you take exp."
)
def size_without_overflow(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return all(close(student(log_ratios + shift), student(log_ratios)) for shift in (1000, -1000))


@effective_sample_size.property(
    "One sample that outweighs all others by far leaves you with one, also when its log ratio is 2000."
)
def size_of_one_heavy_weight(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    log_ratios[2] = 2000
    return close(student(log_ratios), 1)


@effective_sample_size.property("A single sample is worth one, whatever its weight.")
def size_of_one_sample(student: SizeFunction, rng: Generator) -> bool:
    return close(student(normal(rng, 1)), 1)


@effective_sample_size.property(
    "An action that the new policy never takes has the log ratio -inf and the weight 0: it should count for nothing, "
    "and not turn the answer into NaN."
)
def size_with_a_weight_of_zero(student: SizeFunction, rng: Generator) -> bool:
    (log_ratios,) = log_ratios_of_a_batch(rng)
    return close(student(torch.cat([log_ratios, as_float64([-math.inf])])), student(log_ratios))


@effective_sample_size.mistake(
    "concept",
    "You divide N by the mean squared weight; tempting, because weights average 1, so their sum is N. They do so in "
    "the long run; in this batch they add up to something else. Take the sum they really have.",
)
def assumes_a_mean_of_one(log_ratios: Tensor) -> Tensor:
    return len(log_ratios) / torch.exp(2 * log_ratios).mean()


@effective_sample_size.mistake(
    "order",
    "Your fraction is upside down: the more unequal your weights, the larger it gets; tempting, because the formula "
    "has a square above and a square below. The square of the sum goes on top.",
)
def upside_down(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return weights.square().sum()


@effective_sample_size.mistake(
    "concept",
    "You measure how many samples match the heaviest one; tempting, because a single heavy weight is the worst case. "
    "Two weights of the same size would then already hide all others; squares count every weight.",
)
def counts_in_units_of_the_heaviest(log_ratios: Tensor) -> Tensor:
    return torch.exp(log_ratios - log_ratios.max()).sum()


@effective_sample_size.mistake(
    "concept",
    "You take exp of the entropy of the normalized weights; tempting, because that is an effective number too. But it "
    "is not the one that the variance of a weighted mean is governed by, which has squared weights in it.",
)
def takes_the_entropy(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return torch.exp(-(weights * weights.log()).sum())


@effective_sample_size.mistake(
    "concept",
    "You put the log ratios themselves in the place of the weights; tempting, because they are what you are given. A "
    "weight is exp of its log ratio.",
)
def forgets_to_exponentiate(log_ratios: Tensor) -> Tensor:
    return log_ratios.sum().square() / log_ratios.square().sum()


@effective_sample_size.mistake(
    "concept",
    "The sum on top is not squared; tempting, because for weights that add up to 1 the square is 1 as well. Yours do "
    "not add up to 1, and without the square a common factor no longer cancels.",
)
def forgets_the_square_on_top(log_ratios: Tensor) -> Tensor:
    weights = torch.exp(log_ratios)
    return weights.sum() / weights.square().sum()


@effective_sample_size.mistake(
    "constant",
    "You go by the variance of the weights and let it divide by N - 1, as .var() and .std() do; tempting, because "
    "N / (1 + variance / squared mean) is the same formula. It is so for the plain mean of the squares, over N.",
)
def divides_by_one_less(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return len(weights) / (1 + weights.var() / weights.mean().square())


@effective_sample_size.mistake(
    "constant",
    "You return what one sample is worth, a share between 0 and 1; tempting, because shares compare batches of "
    "different sizes. Asked for is a number of samples.",
)
def returns_the_share(log_ratios: Tensor) -> Tensor:
    weights = log_ratios.softmax(0)
    return 1 / weights.square().sum() / len(weights)
