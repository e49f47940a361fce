"""Exercise fisher_product_elsewhere of lesson 08, Nine methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from numpy.random import Generator
from torch import Tensor

from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.lesson_08.shared import agree, nearly_right

Product = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def samples(rng: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores [N, n], log probabilities [N] under pi and under q, and a vector [n]."""
    num, n = int(rng.integers(6, 12)), int(rng.integers(3, 6))
    log_pi = torch.from_numpy(rng.uniform(-3.0, -0.2, size=num))
    return 0.3 + normal(rng, num, n), log_pi, log_pi + 0.7 * normal(rng, num), normal(rng, n)


fisher_product_elsewhere = Check("fisher_product_elsewhere", minutes=8, inputs=samples)


@fisher_product_elsewhere.property(
    "Your product is right to a few digits only. Is something rounded or computed in float32, or a small number added?"
)
def has_all_digits(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = samples(rng)
    return not nearly_right(student(scores, log_pi, log_q, v), weighted(scores, (log_pi - log_q).exp(), v))


@fisher_product_elsewhere.property(
    "Where q is pi itself, the product should be that of lesson 03: the mean of score times (score . v)."
)
def empirical_where_q_is_pi(student: Product, rng: Generator) -> bool:
    scores, log_pi, _, v = samples(rng)
    return agree(student(scores, log_pi, log_pi.clone(), v), scores.T @ (scores @ v) / len(scores))


@fisher_product_elsewhere.property(
    "Here q draws each of three actions exactly as often as it says, so nothing is left to chance. The product should "
    "be that of the softmax policy's own Fisher matrix, diag(p) - p p^T with p the probabilities of pi."
)
def analytic_without_noise(student: Product, rng: Generator) -> bool:
    counts = torch.from_numpy(rng.integers(1, 6, size=3))
    q, p = counts.double() / counts.sum(), torch.softmax(normal(rng, 3), 0)
    actions, v = torch.repeat_interleave(torch.arange(3), counts), normal(rng, 3)
    scores = torch.eye(3, dtype=torch.float64)[actions] - p
    expected = (torch.diag(p) - torch.outer(p, p)) @ v
    return agree(student(scores, p.log()[actions], q.log()[actions], v), expected)


@fisher_product_elsewhere.property("With twice the vector, the product should be twice as long: a matrix is linear.")
def linear_in_v(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = samples(rng)
    return agree(student(scores, log_pi, log_q, 2 * v), 2 * student(scores, log_pi, log_q, v))


@fisher_product_elsewhere.property("Every sample twice over should change nothing: it is a mean.")
def twice_the_samples(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = samples(rng)
    twice = student(scores.repeat(2, 1), log_pi.repeat(2), log_q.repeat(2), v)
    return agree(twice, student(scores, log_pi, log_q, v))


@fisher_product_elsewhere.property(
    "However large a sample's ratio is, it should count in proportion. It is tempting to clip ratios or to leave out "
    "large ones, because a few samples then cannot outvote all others; but it makes the mean biased, at every N."
)
def large_ratios(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = samples(rng)
    near, far = log_q.clone(), log_q.clone()
    near[0], far[0] = (float(log_pi[0]) - math.log(ratio) for ratio in (100.0, 1e10))
    added = student(scores, log_pi, far, v) - student(scores, log_pi, near, v)
    return agree(added, (1e10 - 100) * scores[0] * (scores[0] @ v) / len(scores))


@fisher_product_elsewhere.property(
    "Log probabilities near -800 go wrong; exp(log_pi) / exp(log_q) is tempting, because the ratio is one of "
    "probabilities. But exp(-800) is 0 on a computer: subtract the logarithms first.",
    edge=True,
)
def small_densities(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = samples(rng)
    return agree(student(scores, log_pi - 800, log_q - 800, v), student(scores, log_pi, log_q, v))


@fisher_product_elsewhere.property("A single sample should give ratio times score times (score . v).", edge=True)
def one_sample(student: Product, rng: Generator) -> bool:
    scores, log_pi, log_q, v = (each[:1] for each in samples(rng))
    v = torch.ones(scores.shape[1], dtype=torch.float64)
    ratio = (log_pi - log_q).exp()
    return agree(student(scores, log_pi, log_q, v), ratio * scores[0] * (scores[0] @ v))


def weighted(scores: Tensor, weights: Tensor, v: Tensor) -> Tensor:
    """The mean of weight times score times (score . v)."""
    return scores.T @ (weights * (scores @ v)) / len(scores)


@fisher_product_elsewhere.mistake(
    "conditioning",
    "This is the plain mean over the actions of the batch; tempting, because it is the empirical matrix by its name. "
    "Its expectation is taken over q, and it is the Fisher matrix where q is pi and nowhere else.",
)
def forgets_the_ratio(scores: Tensor, log_pi: Tensor, _log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores, torch.ones_like(log_pi), v)


@fisher_product_elsewhere.mistake(
    "order",
    "Your ratio is upside down, q over pi; tempting, because q is where the actions come from. An action counts more "
    "if pi likes it more than q did: divide by whatever drew the sample.",
)
def turns_the_ratio_over(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores, (log_q - log_pi).exp(), v)


@fisher_product_elsewhere.mistake(
    "concept",
    "Your ratio counts twice, because you weigh the scores and then multiply weighted scores; tempting, because "
    "ratio times score is the gradient of the surrogate. An expectation over pi needs the ratio once.",
)
def weighs_twice(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores, (2 * (log_pi - log_q)).exp(), v)


@fisher_product_elsewhere.mistake(
    "order",
    "You average the scores first and multiply afterwards; tempting, because one backward pass through a mean gives "
    "that. The product of means has rank one and goes to zero: multiply sample by sample, then average.",
)
def averages_first(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    mean = ((log_pi - log_q).exp()[:, None] * scores).mean(0)
    return mean * (mean @ v)


@fisher_product_elsewhere.mistake(
    "concept",
    "You subtract the mean score; tempting, because a covariance does. The expectation of the score under pi is known "
    "to be zero in every state, so that nothing has to be estimated and taken away.",
)
def centers_the_scores(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores - scores.mean(0), (log_pi - log_q).exp(), v)


@fisher_product_elsewhere.mistake(
    "numerics",
    "Your weights are differences of logarithms; tempting, because logarithms are what you were given. The ratio of "
    "two probabilities is exp of the difference of their logarithms.",
)
def weights_are_logarithms(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores, log_pi - log_q, v)


@fisher_product_elsewhere.mistake(
    "concept",
    "You weigh with pi alone; tempting, because the expectation is over pi. Drawn actions occur as often as q draws "
    "them already, and dividing by q takes that back.",
)
def weighs_with_pi(scores: Tensor, log_pi: Tensor, _log_q: Tensor, v: Tensor) -> Tensor:
    return weighted(scores, log_pi.exp(), v)


@fisher_product_elsewhere.mistake(
    "concept",
    "You divide by the sum of the ratios; tempting, because equation 17 does. There it makes a constant harmless; "
    "here it makes a mean that is biased at every N, and a plain mean over N is asked for.",
)
def normalises_the_ratios(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return scores.T @ (torch.softmax(log_pi - log_q, 0) * (scores @ v))


@fisher_product_elsewhere.mistake(
    "indexing",
    "You square the scores and multiply by v parameter by parameter; tempting, because it needs no second product. "
    "That is the diagonal of the matrix alone.",
)
def keeps_the_diagonal(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return ((log_pi - log_q).exp()[:, None] * scores.square()).mean(0) * v


@fisher_product_elsewhere.mistake(
    "constant",
    "You add the products up; tempting, because scores.T @ (...) does. With a sum, twice as much data would make the "
    "same two policies twice as different: divide by N.",
)
def adds_up(scores: Tensor, log_pi: Tensor, log_q: Tensor, v: Tensor) -> Tensor:
    return scores.T @ ((log_pi - log_q).exp() * (scores @ v))
