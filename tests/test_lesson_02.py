"""What the pictures of lesson 02 show, computed a second time by other means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PROPERTY, doubles
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trpo_lessons.distributions import DiagGaussian
from trpo_lessons.improvement_bound import surrogate_objective
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.teaching.lesson_02 import check as checks
from trpo_lessons.teaching.lesson_02 import explorers as lesson
from trpo_lessons.teaching.lesson_02.from_stream import ages
from trpo_lessons.teaching.solutions import lesson_02 as solutions

STEPS = (0.1, 0.5, 2.0, 6.0)


def policy_at(step: float) -> np.ndarray:
    """The walker's policy [S, A] after a step, with softmax written out."""
    weights, biases = np.split((lesson.THETA_OLD + step * lesson.uphill()).numpy(), 2)
    scores = np.exp(lesson.SLIPPERY.numpy() * weights + biases)
    return scores / scores.sum(1, keepdims=True)


# ---- stepping along the gradient


def test_a_right_formula_with_half_the_digits_is_told_so_and_not_something_else() -> None:
    line = checks.estimate.outcome(lambda *arguments: solutions.estimate(*arguments).float()).line
    assert "numbers of type float32, but float64 is asked for. Keep the precision" in line


def gain_and_variance(visits: Tensor, pi_old: Tensor, pi: Tensor, advantages: Tensor) -> tuple[float, float]:
    pairs, terms = visits[:, None] * pi_old, (pi / pi_old - 1) * advantages
    gain = (pairs * terms).sum()
    return float(gain), float((pairs * (terms - gain).square()).sum())


def one_number_after_the_other(*arguments: Tensor) -> int:
    gain, variance = gain_and_variance(*arguments)
    return next((n for n in range(1, 1000) if abs(gain) >= 2 * math.sqrt(variance / n)), 1000)


def always_one_more(*arguments: Tensor) -> int:
    gain, variance = gain_and_variance(*arguments)
    return math.floor(4 * variance / gain**2) + 1


def with_something_for_safety(*arguments: Tensor) -> int:
    gain, variance = gain_and_variance(*arguments)
    return math.ceil(4 * variance / (gain**2 + 1e-12))


def by_powers_from_the_start(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    """gamma^t since the stream began, put right by dividing by what it was when the episode began."""
    powers = torch.full_like(ratios, gamma).cumprod(0)
    at_start = powers[torch.where(starts, torch.arange(len(starts)), 0).cummax(0).values]
    return (powers / at_start * ratios * advantages).sum() / starts.sum()


def by_logarithms(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    discounts = torch.exp(ages(starts) * torch.log(torch.tensor(gamma, dtype=torch.float64)))
    return (discounts * ratios * advantages).sum() / starts.sum()


def in_the_advantages_type(ratios: Tensor, advantages: Tensor, starts: Tensor, gamma: float) -> Tensor:
    terms = torch.zeros_like(advantages)
    terms[:] = gamma ** ages(starts) * ratios * advantages
    return terms.sum() / starts.sum()


def one_episode_less(*arguments: Any) -> Tensor:
    starts = arguments[2]
    return solutions.from_stream(*arguments) * starts.sum() / (starts.sum() - 1)


def truncated(log_prob: Tensor, log_q: Tensor, advantages: Tensor) -> Tensor:
    return (torch.exp(log_prob - log_q) * advantages).to(advantages.dtype).double().mean()


NOT_IN_THE_CATALOG: list[tuple[Callable[..., Any], str, str]] = [
    (lambda p, q, a: (p.exp() / q.exp() * a).mean(), "estimate", "Subtract the logarithms first"),
    (lambda p, q, a: (torch.exp(p - q) * a).sum() / (len(a) - 1), "estimate", "should be the mean of the advantages"),
    (truncated, "estimate", "let the ratios decide its type"),
    (one_number_after_the_other, "samples_needed", "solve for N instead"),
    (always_one_more, "samples_needed", "with exactly 4 samples"),
    (with_something_for_safety, "samples_needed", "has a unit too"),
    (lambda *x: solutions.samples_needed(*x) - 1, "samples_needed", "You round down"),
    (lambda *x: solutions.samples_needed(*x) + 1, "samples_needed", "takes 10 samples"),
    (lambda x: x.exp().sum().square() / (2 * x).exp().sum(), "effective_sample_size", "Subtract the largest log ratio"),
    (lambda x: 1 / x.softmax(0).square().sum() - 1, "effective_sample_size", "they are worth 16/10"),
    (
        lambda x: 1 / (x.softmax(0).square().sum() * (1 - 1 / len(x)) + 1 / len(x) ** 2),
        "effective_sample_size",
        "they are worth 16/10",
    ),
    (lambda x: torch.exp(2 * x.logsumexp(0) - (2 * x).logsumexp(0)), "effective_sample_size", "passed"),
    (
        lambda x: torch.exp(2 * torch.logsumexp(x - x.mean(), 0) - torch.logsumexp(2 * (x - x.mean()), 0)),
        "effective_sample_size",
        "the log ratio -inf",
    ),
    (by_powers_from_the_start, "from_stream", "look for a logarithm of gamma, or for a division"),
    (by_logarithms, "from_stream", "look for a logarithm of gamma"),
    (in_the_advantages_type, "from_stream", "values may come as integers"),
    (one_episode_less, "from_stream", "should be the mean, 2"),
]


@pytest.mark.parametrize(("wrong", "exercise", "told"), NOT_IN_THE_CATALOG)
def test_what_is_wrong_is_what_a_student_is_told(wrong: Callable[..., Any], exercise: str, told: str) -> None:
    assert told in getattr(checks, exercise).outcome(wrong).line


def test_the_long_stream_is_refused_for_its_length_where_gamma_0_is_right() -> None:
    def powers_but_at_zero(*arguments: Any) -> Tensor:
        return (solutions.from_stream if arguments[3] == 0 else by_powers_from_the_start)(*arguments)

    assert "after some thousand steps" in checks.from_stream.outcome(powers_but_at_zero).line


def test_the_numbers_in_the_checks_messages_are_right() -> None:
    half, bent = doubles([[0.5, 0.5]] * 2), doubles([[0.51, 0.49]] * 2)
    advantages, visits = doubles([[1.0, -1.0], [-0.97, 0.97]]), doubles([0.5, 0.5])
    gain, variance = gain_and_variance(visits, half, bent, advantages)
    assert math.isclose(gain, 0.0003, rel_tol=1e-9)
    assert math.isclose(math.sqrt(variance), 0.0197, rel_tol=1e-9)
    assert math.ceil(4 * variance / gain**2) == 17249


def test_the_walker_starts_out_the_same_everywhere() -> None:
    assert np.allclose(lesson.table(lesson.THETA_OLD), [[0.9, 0.08, 0.02]] * 3, atol=1e-12)


def test_uphill_is_the_direction_in_which_the_return_itself_rises_fastest() -> None:
    h = 1e-6
    slopes = []
    for nudge in torch.eye(6, dtype=torch.float64):
        etas = [evaluate_policy(lesson.WORLD, lesson.table(lesson.THETA_OLD + s * h * nudge)).eta for s in (1, -1)]
        slopes.append(float(etas[0] - etas[1]) / (2 * h))
    found = np.array(slopes)
    assert np.allclose(found / np.linalg.norm(found), lesson.uphill(), atol=1e-7)


@pytest.mark.parametrize("step", STEPS)
def test_gains_are_those_of_the_tabular_modules(step: float) -> None:
    numbers = lesson.compute_step(step, 100, 0)
    old, new = policy_at(0), policy_at(step)
    eta = evaluate_policy(lesson.WORLD, old).eta
    assert numbers.steps[-1] == step
    assert math.isclose(numbers.truth[-1], evaluate_policy(lesson.WORLD, new).eta - eta, abs_tol=1e-10)
    assert math.isclose(numbers.surrogate[-1], surrogate_objective(lesson.WORLD, old, new) - eta, abs_tol=1e-10)


@pytest.mark.parametrize("step", STEPS)
def test_error_and_worth_are_the_moments_of_one_sample(step: float) -> None:
    numbers = lesson.compute_step(step, 400, 0)
    old, new = policy_at(0), policy_at(step)
    exact = evaluate_policy(lesson.WORLD, old)
    mean = mean_square = mean_weight_square = 0.0
    for s in range(3):
        for a in range(3):
            chance = 0.1 * float(exact.rho[s]) * old[s, a]
            weight = new[s, a] / old[s, a]
            term = (weight - 1) * float(exact.A[s, a]) / 0.1
            mean += chance * term
            mean_square += chance * term**2
            mean_weight_square += chance * weight**2
    assert math.isclose(numbers.exact_error[-1], math.sqrt((mean_square - mean**2) / 400), rel_tol=1e-9)
    assert math.isclose(numbers.exact_share[-1], 1 / mean_weight_square, rel_tol=1e-9)


def test_batches_agree_with_the_closed_forms_within_their_errors() -> None:
    batches = [lesson.compute_step(2.0, 1600, batch) for batch in range(10)]
    exact = batches[0]
    z = np.array([(b.estimate[-1] - exact.surrogate[-1]) / exact.exact_error[-1] for b in batches])
    assert abs(z.mean()) < 4 / math.sqrt(10)
    assert 0.4 < z.std(ddof=1) < 1.9  # chi-square with 9 degrees of freedom: 1 in 1000 at either end
    assert all(math.isclose(b.error[-1], exact.exact_error[-1], rel_tol=0.2) for b in batches)
    assert all(math.isclose(b.share[-1], exact.exact_share[-1], rel_tol=0.15) for b in batches)


def test_another_batch_is_another_batch_and_more_samples_contain_fewer() -> None:
    one, other = (lesson.compute_step(1.0, 25, batch) for batch in (0, 1))
    assert one.estimate[-1] != other.estimate[-1]
    assert one.surrogate[-1] == other.surrogate[-1]
    few, many = (lesson.compute_step(1.0, samples, 0) for samples in (100, 400))
    # Four times as many samples halve the closed-form error exactly.
    assert math.isclose(few.exact_error[-1], 2 * many.exact_error[-1], rel_tol=1e-12)


def test_what_the_lesson_says_about_the_picture_is_so() -> None:
    numbers = lesson.compute_step(6.0, 400, 0)
    assert (np.diff(numbers.surrogate[:-1]) > -0.01).all(), "L rises, up to a last flat part"
    assert numbers.truth.max() > 0.1
    assert numbers.truth[-1] < -2
    near, far = lesson.compute_step(0.5, 6400, 0), lesson.compute_step(3.0, 6400, 0)
    assert near.surrogate[-1] - 2 * near.error[-1] > 0
    assert far.surrogate[-1] - 2 * far.error[-1] > 0 > far.truth[-1]


def test_facts_say_no_when_a_batch_is_far_off() -> None:
    numbers = lesson.compute_step(1.0, 400, 0)
    assert "yes" in lesson.facts_of_step(numbers)
    unlucky = type(numbers)(**{**vars(numbers), "estimate": numbers.estimate + 4 * numbers.exact_error})
    assert "no" in lesson.facts_of_step(unlucky).split("them: ")[1]


# ---- importance weights


@PROPERTY
@given(st.floats(0, 2), st.sampled_from([1, 2, 5, 10, 20]))
def test_kl_is_that_of_the_distributions_module_either_way_round(shift: float, dimensions: int) -> None:
    numbers = lesson.compute_weights(shift, dimensions, 10)
    zeros = torch.zeros(1, dimensions, dtype=torch.float64)
    old, new = DiagGaussian(zeros, zeros), DiagGaussian(zeros + shift, zeros)
    for kl in (old.kl(new), new.kl(old)):
        assert math.isclose(numbers.kl, float(kl), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(numbers.worth, math.exp(-dimensions * shift**2), rel_tol=1e-12)


def test_the_worth_is_what_many_samples_show() -> None:
    z = np.random.default_rng(1).standard_normal((200_000, 5))
    weights = np.exp(0.3 * z.sum(1) - 5 * 0.3**2 / 2)
    found = weights.sum() ** 2 / (weights**2).sum() / len(weights)
    assert math.isclose(found, lesson.compute_weights(0.3, 5, 10).worth, rel_tol=0.02)


@pytest.mark.parametrize(("shift", "dimensions", "samples"), [(0.0, 1, 10), (0.5, 20, 1000), (2.0, 1, 100)])
def test_half_of_the_weight_is_counted_one_by_one(shift: float, dimensions: int, samples: int) -> None:
    numbers = lesson.compute_weights(shift, dimensions, samples)
    carried, count = 0.0, 0
    for share in sorted(numbers.shares, reverse=True):
        carried, count = carried + share, count + 1
        if carried > 0.5 + 1e-12:
            break
    assert math.isclose(numbers.shares.sum(), 1, rel_tol=1e-12)
    assert abs(numbers.half - count) <= (shift == 0)  # equal weights: exactly half of them carry exactly half
