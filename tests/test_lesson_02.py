"""What the pictures of lesson 02 show, computed a second time by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from trpo_lessons.distributions import DiagGaussian
from trpo_lessons.improvement_bound import surrogate_objective
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.teaching.checks import lesson_02 as checks
from trpo_lessons.teaching.explorers import lesson_02 as lesson
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
