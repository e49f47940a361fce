"""Lesson 01: the numbers behind every picture are true, printed facts are stable, answers are told apart."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from trpo_lessons import improvement_bound as ib
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.teaching.lesson_01 import check as checks
from trpo_lessons.teaching.lesson_01 import explorers
from trpo_lessons.teaching.lesson_01.counterexample import ROUNDING, judged, mdp_and_policy

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
    found = [explorers.sure_step(gamma) for gamma in explorers.GAMMAS]
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
    assert explorers.sure_step(0.9).possible == pytest.approx(float(best - eta))


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
def test_promise_penalty_and_truth_along_the_radii(gamma):
    numbers, mdp, old = explorers.compute_penalty(gamma, 0.001), explorers.lake(gamma), explorers.MOSTLY_CAREFUL
    assert explorers.RADII[numbers.here] == 0.001
    found = evaluate_policy(mdp, old)
    step, _ = ib.best_within_kl(old, found.A, 0.001)
    assert numbers.sure[numbers.here] == pytest.approx(float(ib.kl_bound(mdp, old, step) - found.eta), rel=1e-6)
    assert numbers.truth[numbers.here] == pytest.approx(float(evaluate_policy(mdp, step).eta - found.eta), rel=1e-9)
    assert (numbers.sure <= numbers.truth + 1e-12).all()
    # The largest sure gain is Algorithm 1's; no radius of the slider has more, the nearest ones nearly as much.
    best = explorers.sure_step(gamma).promised
    assert numbers.sure.max() <= best * (1 + 1e-9)
    assert numbers.sure.max() > 0.8 * best
    figure = Figure()
    explorers.draw_penalty(numbers, figure)
    drawn = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(drawn["penalty"], numbers.price)
    np.testing.assert_array_equal(drawn["promised by L"], numbers.promised)
    np.testing.assert_array_equal(drawn["true"], numbers.truth)


def test_labels_of_the_corners_say_where_they_are():
    assert explorers.corner_labels(1) == ("careful", "hasty", "wait")
    assert explorers.corner_labels(100)[1] == "1 % of the\nway to hasty"
    figure = Figure()
    explorers.draw_triangle(explorers.compute_triangle(0.9, 10), figure)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert "10 % of the\nway to careful" in written
    assert "careful" not in written


def test_the_mixture_starts_with_the_bounds_that_have_been_explained():
    start = explorers.mixture_explorer().settings
    numbers = explorers.compute_mixture(**start)
    figure = Figure()
    explorers.draw_mixture(numbers, figure)
    assert set(explorers.BOUNDS) & {line.get_label() for line in figure.axes[0].lines} == {"(6)", "(8)"}
    assert "epsilon" not in explorers.facts_of_mixture(numbers)


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
        for radius in explorers.RADII:
            explorers.facts_of_penalty(explorers.compute_penalty(gamma, radius))
    for gamma, zoom in [(0.2, 1), (0.9, 1), *TRIANGLES]:
        explorers.facts_of_triangle(explorers.compute_triangle(gamma, zoom))
    assert len(seen) > 100


def test_numbers_are_printed_in_three_digits():
    printed = [explorers.text(x) for x in (0.012345, 19799.99, -3e-17, 12.3456, 2.29e-7, -math.inf)]
    assert printed == ["0.0123", "19800", "0", "12.3", "2.29e-07", "minus infinity"]


# ---- the counterexample ----------------------------------------------------------------------------------------------


def test_answers_to_the_counterexample_are_told_apart():
    mdp, pi_old = mdp_and_policy(np.random.default_rng(0))
    expected = {
        "steps_too_far": "held",
        "finds_l_too_pessimistic": "too pessimistic",
        "stands_still": "the old policy",
        "steps_too_little": "rounding",
        "adds_noise": "no policy",
    }
    assert {m.name for m in checks.counterexample.mistakes} == set(expected)
    for mistake in checks.counterexample.mistakes:
        assert judged(mistake.function, mdp, pi_old) == expected[mistake.name]
    assert judged(checks.counterexample.reference, mdp, pi_old) == "broken"


def test_a_correct_bound_cannot_be_broken_by_the_reference_counterexample():
    for seed in range(20):
        mdp, pi_old = mdp_and_policy(np.random.default_rng(seed))
        pi_new = checks.counterexample.reference(mdp, pi_old)
        eta = evaluate_policy(mdp, pi_new).eta
        assert ib.printed_theorem_bound(mdp, pi_old, pi_new) > eta + ROUNDING
        for bound in (ib.total_variation_bound, ib.kl_bound, ib.linear_bound):
            assert bound(mdp, pi_old, pi_new) < eta


# ---- wrong answers, written otherwise than in the catalog ------------------------------------------------------------


def told(check, answer):
    return check.outcome(answer).line


def direction_without_a_search(mdp, pi_old):
    direction = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    return ib.mixture_policy(pi_old, direction.expand(mdp.num_states, -1), 0.01)


def search_of_one_row(mdp, pi_old):
    return checks.counterexample.reference(mdp, pi_old)[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (direction_without_a_search, "Not on every problem"),
        (search_of_one_row, "array of shape (3,)"),
        (lambda mdp, pi: ib.mixture_policy(pi, 1.0 - pi, 0.01), "no policy"),
        (lambda mdp, pi: (pi.log() * 1.01).exp(), "no policy"),
        (lambda mdp, pi: pi, "You return the old policy"),
        (lambda mdp, pi: checks.counterexample.reference(mdp, pi).float(), "float32"),
        (lambda mdp, pi: (pi.log() * (1 + 1e-8)).softmax(-1), "rounding errors"),
    ],
)
def test_counterexamples_that_are_none_are_told_why(answer, words):
    assert words in told(checks.counterexample, answer)


def of(mdp, pi):
    return evaluate_policy(mdp, pi)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda m, p, q: of(m, p).eta + (of(m, p).rho @ (of(m, p).A * q)).sum(), "passed"),
        (lambda m, p, q: of(m, p).eta + torch.einsum("s,sa,sa", of(m, p).rho, q - p, of(m, p).Q), "passed"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ (q * of(m, q).A).sum(-1), "zero in every state"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ (p * of(m, p).A).sum(-1), "zero in every state"),
        (lambda m, p, q: of(m, p).eta + m.rho0 @ (q * of(m, p).A).sum(1), "rho0"),
        (lambda m, p, q: of(m, p).eta + torch.sum(q * of(m, p).A), "Every state counts the same"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ torch.mean(q * of(m, p).A, 1), "mean over the actions"),
        (lambda m, p, q: of(m, q).eta + of(m, p).rho @ (q * of(m, p).A).sum(1), "eta(pi_new), which L"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ (q / p * of(m, p).A).sum(1), "without the weights pi_old"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ (p * (q / p) * of(m, p).A).sum(1), "never take an action"),
        (lambda m, p, q: of(m, q).eta, "equation 2"),
        (lambda m, p, q: of(m, p).eta + of(m, p).rho @ (q * of(m, p).A).sum(1) * m.gamma, "by equation 4"),
        (lambda m, p, q: of(m, p.T).eta, "stopped with ValueError"),
    ],
)
def test_surrogates_that_are_wrong_are_told_why(answer, words):
    assert words in told(checks.surrogate, answer)


def gradient(m, z, weights=None, pi=None, A=None):
    pi = z.softmax(1) if pi is None else pi
    found = of(m, pi)
    return (found.rho if weights is None else weights)[:, None] * pi * (found.A if A is None else A)


def gradient_by_backward(m, z):
    of(m, z.requires_grad_().softmax(1)).eta.backward()
    return z.grad.clone()


def gradient_by_backward_on_a_copy(m, z):
    copy = z.clone().requires_grad_()
    return torch.autograd.grad(of(m, copy.softmax(1)).eta, copy)[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (gradient_by_backward_on_a_copy, "passed"),
        (gradient_by_backward, "the caller's logits"),
        (lambda m, z: gradient(m, z, weights=torch.ones(len(z))), "leave the visits out"),
        (lambda m, z: gradient(m, z) * (1 - m.gamma), "1 - gamma times the gradient"),
        (lambda m, z: gradient(m, z) / z.shape[0], "mean over the states"),
        (lambda m, z: gradient(m, z, weights=m.rho0), "rho0"),
        (lambda m, z: -gradient(m, z), "downhill"),
        (lambda m, z: gradient(m, z) * (1 - z.softmax(1)) / z.softmax(1), "differentiate log pi"),
        (lambda m, z: gradient(m, z, A=of(m, z.softmax(1)).Q), "Q where A belongs"),
        (lambda m, z: gradient(m, z) / z.softmax(1), "not in the logits"),
        (lambda m, z: gradient(m, z.exp().div(z.exp().sum(1, keepdim=True)).log()), "which softmax avoids"),
        (lambda m, z: gradient(m, z, pi=z.softmax(0)), "normalized over the states"),
        (lambda m, z: gradient(m, z, pi=z), "are these logits"),
        (lambda m, z: gradient(m, z) * m.gamma, "A tiny step along your gradient"),
    ],
)
def test_policy_gradients_that_are_wrong_are_told_why(answer, words):
    assert words in told(checks.policy_gradient, answer)


def coupled(p, q, guard=0.0):
    shared = torch.minimum(p, q)
    return torch.diag(shared) + torch.outer(p - shared, q - shared) / ((p - shared).sum() + guard)


def filled_in_order(p, q):
    """The leftovers as transport from corner to corner: another maximal coupling."""
    shared = torch.minimum(p, q)
    rest_p, rest_q = p - shared, q - shared
    table = torch.diag(shared)
    for a in range(len(p)):
        for b in range(len(q)):
            moved = torch.minimum(rest_p[a], rest_q[b])
            table[a, b] += moved
            rest_p[a] -= moved
            rest_q[b] -= moved
    return table


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (coupled, "passed"),
        (filled_in_order, "passed"),
        (lambda p, q: coupled(p, q, guard=1e-8), "guard against 0"),
        (lambda p, q: coupled(p.float(), q.float()).double(), "so is rounding"),
        (lambda p, q: coupled(q, p), "transposed"),
        (lambda p, q: torch.diag(p), "drawn from p"),
        (lambda p, q: torch.outer(p, q).fill_diagonal_(0) + torch.diag(torch.minimum(p, q)), "diagonal of the ind"),
        (lambda p, q: p[:, None] * q, "independently"),
        (lambda p, q: torch.outer(p, p), "column b of the table should be q(b)"),
        (lambda p, q: torch.minimum(p[:, None], q[None, :]), "joint distribution: no entry"),
        (lambda p, q: coupled(p, q)[:3, :3], "array of shape (3, 3)"),
    ],
)
def test_couplings_that_are_wrong_are_told_why(answer, words):
    assert words in told(checks.coupling, answer)


def bound(m, p, q, kl=None, epsilon=None, L=None, factor=2.0):
    kl = (p * (p / q).log()).sum(1).max() if kl is None else kl
    epsilon = of(m, p).A.abs().max() if epsilon is None else epsilon
    L = ib.surrogate_objective(m, p, q) if L is None else L
    return L - factor * epsilon * m.gamma / (1 - m.gamma) ** 2 * kl


def bound_without_gamma(m, p, q):
    return bound(m, p, q, factor=0.0) - 2 * of(m, p).A.abs().max() / (1 - m.gamma) ** 2 * ib.max_kl(p, q)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (bound, "passed"),
        (lambda m, p, q: bound(m, p, q, factor=4.0), "pay 4 epsilon"),
        (lambda m, p, q: bound(m, p, q, kl=(p * (p / q).log()).sum(1).mean()), "average the KL divergence over the st"),
        (lambda m, p, q: bound(m, p, q, kl=of(m, p).rho @ (p * (p / q).log()).sum(1) * (1 - m.gamma)), "rare state"),
        (lambda m, p, q: bound(m, p, q, kl=(p * (p / q).log()).sum()), "of all states"),
        (lambda m, p, q: bound(m, p, q, kl=(p * (p / q).log()).mean(1).max()), "mean over the actions"),
        (lambda m, p, q: bound(m, p, q, kl=(p * (q / p).log()).sum(1).max()), "upside down"),
        (lambda m, p, q: bound(m, p, q, kl=(q * (q / p).log()).sum(1).max()), "wrong way round"),
        (lambda m, p, q: bound(m, p, q, epsilon=of(m, p).A.max()), "without the absolute value"),
        (lambda m, p, q: bound(m, p, q, epsilon=-of(m, p).A.min()), "largest loss"),
        (lambda m, p, q: bound(m, p, q, epsilon=of(m, q).A.abs().max()), "under the new policy"),
        (lambda m, p, q: bound(m, p, q, epsilon=(q * of(m, p).A).sum(1).abs().max()), "Theorem 1 prints"),
        (lambda m, p, q: bound(m, p, q, L=of(m, p).eta), "from eta(pi_old)"),
        (bound_without_gamma, "gamma out of the numerator"),
        (lambda m, p, q: ib.total_variation_bound(m, p, q), "squared total variation; tempting, because it is true"),
        (lambda m, p, q: of(m, q).eta, "eta(pi_new) itself"),
        (lambda m, p, q: bound(m, p, q, factor=2.001), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, factor=1.0), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, factor=2 * m.gamma), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, factor=2 / math.log(2)), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, epsilon=of(m, p).A.abs().mean()), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, epsilon=of(m, p).Q.abs().max()), "but the factor is not C"),
        (lambda m, p, q: bound(m, p, q, kl=ib.max_kl(p, q).sqrt()), "in another proportion"),
        (lambda m, p, q: bound(m, p, q, kl=ib.kl_divergence(p, q).min()), "in another proportion"),
        (lambda m, p, q: bound(m, p, q, kl=(p * (p / q).log()).max()), "in another proportion"),
        (ib.linear_bound, "in another proportion"),
        (lambda m, p, q: bound(m, p, q, kl=ib.max_kl(p, q) ** 2), "should be a lower bound"),
    ],
)
def test_bounds_that_are_wrong_are_told_why(answer, words):
    assert words in told(checks.lower_bound, answer) or words in told(checks.lower_bound, answer).lower()
