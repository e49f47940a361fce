"""Lesson 01: the numbers behind every picture are true, printed facts are stable, answers are told apart."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.teaching.checks import lesson_01 as checks
from trpo_lessons.teaching.explorers import lesson_01 as explorers

MIXTURES = [(gamma, alpha) for gamma in (0.2, 0.5, 0.8, 0.9, 0.95) for alpha in (0.0005, 0.02, 0.2, 1.0)]
TRIANGLES = [(0.05, 1), (0.5, 1), (0.5, 10), (0.9, 100)]


def test_every_check_knows_four_mistakes_or_more():
    assert min(len(check.mistakes) for check in checks.CHECKS) >= 4


# ---- the lake --------------------------------------------------------------------------------------------------------


def test_haste_pays_on_the_path_and_not_on_the_ice():
    found = evaluate_policy(explorers.lake(0.9), explorers.MOSTLY_CAREFUL)
    assert found.A[explorers.PATH].argmax() == explorers.HASTY
    assert found.A[explorers.ICE].argmax() == explorers.CAREFUL
    # Once in the water nothing matters, up to rounding.
    assert found.A[explorers.WATER].abs().max() < 1e-14


# ---- the mixture -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "alpha"), MIXTURES)
def test_curves_of_the_mixture_are_gains_and_bounds_lie_below_the_truth(gamma, alpha):
    numbers, mdp = explorers.compute_mixture(gamma, alpha), explorers.lake(gamma)
    old, eta = explorers.MOSTLY_CAREFUL, evaluate_policy(mdp, explorers.MOSTLY_CAREFUL).eta
    assert numbers.alphas[0] == 0
    assert numbers.alphas[-1] == min(1, 2 * alpha)
    for i in (0, 37, 100):
        mixed = (1 - numbers.alphas[i]) * old + numbers.alphas[i] * explorers.ALWAYS_HASTY
        assert numbers.truth[i] == pytest.approx(float(evaluate_policy(mdp, mixed).eta - eta), abs=1e-11)
        assert numbers.surrogate[i] == pytest.approx(float(ib.surrogate_objective(mdp, old, mixed) - eta), abs=1e-11)
    assert set(numbers.bounds) == set(explorers.BOUNDS)
    for name, curve in numbers.bounds.items():
        assert (curve <= numbers.truth + 1e-11).all(), name
        assert curve[0] == pytest.approx(0, abs=1e-11)
        assert numbers.guaranteed[name] <= numbers.true_gain + 1e-11


@pytest.mark.parametrize("gamma", [0.2, 0.5, 0.8, 0.9, 0.95])
def test_equation_6_ends_where_the_explorer_says(gamma):
    numbers, mdp = explorers.compute_mixture(gamma, 0.1), explorers.lake(gamma)
    at_the_end = ib.mixture_bound(mdp, explorers.MOSTLY_CAREFUL, explorers.ALWAYS_HASTY, numbers.safe_alpha)
    surplus = float(at_the_end - evaluate_policy(mdp, explorers.MOSTLY_CAREFUL).eta)
    assert surplus >= -1e-11
    if numbers.safe_alpha < 1:
        assert surplus < 1e-11


def test_the_picture_of_the_mixture_shows_its_numbers():
    numbers, figure = explorers.compute_mixture(0.9, 0.05), Figure()
    explorers.draw_mixture(numbers, figure)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(drawn["true"], numbers.truth)
    np.testing.assert_array_equal(drawn["promised by L"], numbers.surrogate)
    for name in explorers.BOUNDS:
        np.testing.assert_array_equal(drawn[name], numbers.bounds[name])


# ---- the penalty -----------------------------------------------------------------------------------------------------


def test_the_penalty_grows_and_the_sure_step_shrinks_with_the_horizon():
    found = [explorers.compute_penalty(gamma) for gamma in explorers.GAMMAS]
    assert (np.diff([one.price for one in found]) > 0).all()
    assert (np.diff([one.radius for one in found]) < 0).all()
    for one in found:
        assert one.price == pytest.approx(2 * one.gamma / (1 - one.gamma) ** 2)
        assert 0 < one.promised <= one.true_gain <= one.possible
        assert 2 * one.moved**2 <= one.radius
    # Per horizon, as the lesson's summary says: 1 / (1 - gamma) ten times as long, KL a hundredth.
    by_gamma = {one.gamma: one for one in found}
    assert by_gamma[0.99].radius / by_gamma[0.999].radius == pytest.approx(100, rel=0.2)


def test_no_policy_gains_more_than_the_best_one_named():
    mdp = explorers.lake(0.9)
    best = evaluate_policy(mdp, torch.eye(3, dtype=torch.float64)[[explorers.HASTY, explorers.CAREFUL, 0]]).eta
    eta = evaluate_policy(mdp, explorers.MOSTLY_CAREFUL).eta
    assert explorers.compute_penalty(0.9).possible == pytest.approx(float(best - eta))


# ---- the triangle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "zoom"), TRIANGLES)
def test_the_triangle_holds_gains_of_the_policies_in_it(gamma, zoom):
    numbers, mdp = explorers.compute_triangle(gamma, zoom), explorers.lake(gamma)
    old = explorers.UNDECIDED.expand(3, 3)
    eta = evaluate_policy(mdp, old).eta
    here = int(np.abs(numbers.weights - explorers.UNDECIDED.numpy()).sum(1).argmin())
    for gains in (numbers.truth, numbers.surrogate, numbers.bound):
        assert gains[here] == pytest.approx(0, abs=1e-11)
    for i in (0, 100, len(numbers.weights) - 1):
        row = explorers.UNDECIDED + (torch.from_numpy(numbers.weights[i]) - explorers.UNDECIDED) / zoom
        pi = row.expand(3, 3)
        assert numbers.truth[i] == pytest.approx(float(evaluate_policy(mdp, pi).eta - eta), abs=1e-11)
        assert numbers.surrogate[i] == pytest.approx(float(ib.surrogate_objective(mdp, old, pi) - eta), abs=1e-11)
    # L is a plane over the triangle; the bound never exceeds the truth; every star is where its gain is largest.
    plane, residual, *_ = np.linalg.lstsq(numbers.weights, numbers.surrogate, rcond=None)
    assert np.abs(numbers.weights @ plane - numbers.surrogate).max() < 1e-10
    assert (numbers.bound <= numbers.truth + 1e-11).all()
    assert numbers.guaranteed <= numbers.better
    for name, index in numbers.best.items():
        assert getattr(numbers, name)[index] == getattr(numbers, name).max()
    assert numbers.cut["surrogate"][-1] == pytest.approx(numbers.surrogate.max())
    assert numbers.cut["truth"][0] == pytest.approx(0, abs=1e-11)


# ---- stored text -----------------------------------------------------------------------------------------------------


def test_no_printed_number_is_near_a_rounding_boundary(monkeypatch):
    """A last bit that differs on another machine must not change a digit of a stored fact."""
    seen = []

    def watched(value):
        seen.append(value)
        nudged = {plain(value * (1 + d)) for d in (-1e-7, 0, 1e-7)}
        assert len(nudged) == 1, f"{value!r} prints as {nudged}"
        return plain(value)

    plain = explorers.text
    monkeypatch.setattr(explorers, "text", watched)
    for gamma, alpha in [(0.9, 0.5), (0.9, 0.05), (0.9, 0.005), *MIXTURES]:
        explorers.facts_of_mixture(explorers.compute_mixture(gamma, alpha))
    for gamma in explorers.GAMMAS:
        explorers.facts_of_penalty(explorers.compute_penalty(gamma))
    for gamma, zoom in [(0.2, 1), (0.9, 1), *TRIANGLES]:
        explorers.facts_of_triangle(explorers.compute_triangle(gamma, zoom))
    assert len(seen) > 100


def test_numbers_are_printed_in_three_digits():
    printed = [explorers.text(x) for x in (0.012345, 19799.99, -3e-17, 12.3456, 2.29e-7, -math.inf)]
    assert printed == ["0.0123", "19800", "0", "12.3", "2.29e-07", "minus infinity"]


# ---- the counterexample ----------------------------------------------------------------------------------------------


def test_answers_to_the_counterexample_are_told_apart():
    mdp, pi_old = checks.mdp_and_policy(np.random.default_rng(0))
    expected = {
        "steps_too_far": "held",
        "finds_l_too_pessimistic": "too pessimistic",
        "stands_still": "the old policy",
        "steps_too_little": "rounding",
        "adds_noise": "no policy",
    }
    assert {m.name for m in checks.counterexample.mistakes} == set(expected)
    for mistake in checks.counterexample.mistakes:
        assert checks.judged(mistake.function, mdp, pi_old) == expected[mistake.name]
    assert checks.judged(checks.counterexample.reference, mdp, pi_old) == "broken"


def test_a_correct_bound_cannot_be_broken_by_the_reference_counterexample():
    for seed in range(20):
        mdp, pi_old = checks.mdp_and_policy(np.random.default_rng(seed))
        pi_new = checks.counterexample.reference(mdp, pi_old)
        eta = evaluate_policy(mdp, pi_new).eta
        assert ib.printed_theorem_bound(mdp, pi_old, pi_new) > eta + checks.ROUNDING
        for bound in (ib.total_variation_bound, ib.kl_bound, ib.linear_bound):
            assert bound(mdp, pi_old, pi_new) < eta
