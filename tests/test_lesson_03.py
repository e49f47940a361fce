"""What the pictures of lesson 03 show, computed a second time by other means."""

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
from scipy.optimize import minimize
from torch import Tensor

from trpo_lessons.distributions import Categorical
from trpo_lessons.improvement_bound import kl_divergence, surrogate_objective
from trpo_lessons.kl import fisher_matrix, mean_kl
from trpo_lessons.mdp import evaluate_policy
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.lesson_03 import check as checks
from trpo_lessons.teaching.lesson_03 import explorers as lesson
from trpo_lessons.teaching.lesson_03.empirical_fisher import small_batch
from trpo_lessons.teaching.solutions import lesson_03 as solutions

DELTAS = (0.001, 0.01, 0.3)
INSTRUMENTS = [(1, "path"), (10, "path"), (6, "mean"), (4, "ice")]
OBS = torch.from_numpy(lesson.SLIPPERY)[:, None]
THETA_OLD = torch.from_numpy(lesson.THETA_OLD)
weights_and_biases = st.tuples(st.floats(-8, 8), st.floats(-4, 4))


def table(theta: torch.Tensor) -> torch.Tensor:
    """The policy [S, A] as the package sees it."""
    return lesson.POLICY(theta, OBS).log_probs.exp()


def mean_kl_of(theta: torch.Tensor) -> torch.Tensor:
    rho = evaluate_policy(lesson.walk(), table(THETA_OLD)).rho
    return (1 - lesson.walk().gamma) * rho @ kl_divergence(table(THETA_OLD), table(theta))


# ---- exercises: wrong answers outside the catalog are told what is wrong with them


def kl_rows(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def quotient_first(visits: Tensor, p: Tensor, q: Tensor) -> Tensor:
    return visits @ torch.xlogy(p, p / q).sum(-1)


def with_something_for_safety(visits: Tensor, p: Tensor, q: Tensor) -> Tensor:
    return visits @ (p * ((p + 1e-12) / (q + 1e-12)).log()).sum(-1)


def asks_theta_for_gradients(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    theta.requires_grad_()
    log_prob = policy(theta, batch.obs).log_prob(batch.actions)
    scores = torch.stack([torch.autograd.grad(one, theta, retain_graph=True)[0] for one in log_prob])
    return scores.T @ scores / len(batch)


def with_damping(policy: Policy, theta: Tensor, batch: Batch) -> Tensor:
    return solutions.empirical_fisher(policy, theta, batch) + 1e-6 * torch.eye(len(theta))


def by_inverses(g: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    inverse = torch.linalg.inv(B)
    return B.T @ g, torch.linalg.inv(inverse @ torch.linalg.inv(A) @ inverse.T)


def damped_penalty(g: Tensor, A: Tensor, delta: float) -> Tensor:
    return solutions.matching_penalty(g, A + 1e-14 * torch.eye(len(g)), delta)


def penalty_by_bisection(g: Tensor, A: Tensor, delta: float) -> float:
    low, high, x = 0.0, 1e4, torch.linalg.solve(A, g)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if float(g @ x) / (2 * middle**2) > delta else (low, middle)
    return low


NOT_IN_THE_CATALOG: list[tuple[Callable[..., Any], str, str]] = [
    (lambda v, p, q: v @ kl_rows(p, q) * 1.01, "average_kl", "half of log 4/3"),
    (lambda v, p, q: v @ kl_rows(p, q) / v.square().sum(), "average_kl", "three quarters of that"),
    (lambda v, p, q: v @ kl_rows(p, q) / math.log(2), "average_kl", "You count in bits"),
    (lambda v, p, q: v @ kl_rows(p, q), "average_kl", "the limit of p log p"),
    (quotient_first, "average_kl", "The quotient of its probabilities is 0/0"),
    (with_something_for_safety, "average_kl", "the distance should be infinite"),
    (asks_theta_for_gradients, "empirical_fisher", "theta comes back asking for gradients"),
    (with_damping, "empirical_fisher", "the squared length of the score"),
    (by_inverses, "in_other_parameters", "Nothing here needs one"),
    (lambda g, A, B: (B.T @ g, B.T @ A @ B * 1.01), "in_other_parameters", "should be (B e) . A (B e)"),
    (lambda *x: solutions.matching_penalty(*x) / 2, "matching_penalty", "is half of what it should be"),
    (lambda *x: solutions.matching_penalty(*x) * 2, "matching_penalty", "half of step . A step should be delta"),
    (damped_penalty, "matching_penalty", "Something added to A"),
    (penalty_by_bisection, "matching_penalty", "a search that ends too early"),
]


@pytest.mark.parametrize(("wrong", "exercise", "told"), NOT_IN_THE_CATALOG)
def test_what_is_wrong_is_what_a_student_is_told(wrong: Callable[..., Any], exercise: str, told: str) -> None:
    assert told in getattr(checks, exercise).outcome(wrong).line


def test_a_batch_of_another_policy_tells_the_ratio_from_the_logarithm() -> None:
    """Where pi is q, the ratio and log pi have the same derivative; a check with such batches would let both pass."""
    policy, theta, batch = small_batch(np.random.default_rng(0))
    ratios = (policy(theta, batch.obs).log_prob(batch.actions) - batch.log_q).exp()
    assert (ratios - 1).abs().max() > 0.1


def test_what_is_never_visited_counts_nothing_even_where_it_gave_an_action_up() -> None:
    pi_old, pi_new = doubles([[0.5, 0.5], [0.5, 0.5]]), doubles([[0.25, 0.75], [0.0, 1.0]])
    assert math.isclose(solutions.average_kl(doubles([1.0, 0.0]), pi_old, pi_new), math.log(4 / 3) / 2)
    assert solutions.average_kl(doubles([0.5, 0.5]), pi_old, pi_new) == math.inf


# ---- the walker


def test_the_policy_has_two_parameters_and_starts_out_the_same_everywhere() -> None:
    assert lesson.POLICY.num_parameters == 2
    assert np.allclose(table(THETA_OLD), [[0.9, 0.1]] * 3, atol=1e-12)


@PROPERTY
@given(weights_and_biases)
def test_closed_forms_agree_with_the_packages_modules(theta: tuple[float, float]) -> None:
    p, known = lesson.haste(np.array(theta)), lesson.problem()
    pi_old, pi = table(THETA_OLD), table(doubles(theta))
    assert np.allclose(pi[:, 1], p, atol=1e-12)
    eta = evaluate_policy(lesson.walk(), pi_old).eta
    assert math.isclose(known.promised(p), surrogate_objective(lesson.walk(), pi_old, pi) - eta, abs_tol=1e-10)
    assert math.isclose(known.true(p), evaluate_policy(lesson.walk(), pi).eta - eta, abs_tol=1e-10)
    assert math.isclose(known.mean_kl(p), mean_kl_of(doubles(theta)), rel_tol=1e-9, abs_tol=1e-12)


def test_gradient_and_fisher_matrix_are_the_derivatives() -> None:
    known = lesson.problem()
    gradient = torch.func.grad(lambda theta: surrogate_objective(lesson.walk(), table(THETA_OLD), table(theta)))
    assert np.allclose(known.gradient, gradient(THETA_OLD), atol=1e-12)
    assert np.allclose(known.fisher, torch.func.hessian(mean_kl_of)(THETA_OLD), atol=1e-12)


def test_a_batch_of_visited_states_tends_to_the_same_matrix_and_distance() -> None:
    counts = np.round(10_000 * lesson.problem().visits).astype(int)
    obs = OBS.repeat_interleave(torch.from_numpy(counts), dim=0)
    assert np.allclose(fisher_matrix(lesson.POLICY, THETA_OLD, obs), lesson.problem().fisher, atol=2e-5)
    nothing = torch.zeros(len(obs))
    theta = THETA_OLD + doubles([-2.0, 0.3])
    found = mean_kl(lesson.POLICY, THETA_OLD, theta, Batch(obs, nothing, nothing, nothing))
    assert math.isclose(found, mean_kl_of(theta), rel_tol=1e-3)


@pytest.mark.parametrize(("marks", "zero"), INSTRUMENTS)
def test_another_instrument_describes_the_same_policies(marks: int, zero: str) -> None:
    B = lesson.change_of_parameters(marks, lesson.zero_marks()[zero])
    weight, bias = -0.7, 0.4
    reading = marks * (lesson.SLIPPERY - lesson.zero_marks()[zero])
    by_hand = 1 / (1 + np.exp(-(weight * reading + bias)))
    assert np.allclose(lesson.haste(B @ [weight, bias]), by_hand, atol=1e-12)


def test_the_mean_zero_and_six_marks_standardize_what_is_felt() -> None:
    visits, felt = lesson.problem().visits, lesson.SLIPPERY - lesson.zero_marks()["mean"]
    assert abs(visits @ felt) < 1e-12
    assert math.isclose(6 * math.sqrt(visits @ felt**2), 1, abs_tol=0.01)


# ---- the trust region


@pytest.mark.parametrize("delta", DELTAS)
def test_curves_are_what_their_names_say(delta: float) -> None:
    numbers = lesson.compute_region(delta, 10, "ice")
    known = lesson.problem()
    kls = [mean_kl_of(THETA_OLD + torch.from_numpy(step)) for step in numbers.edge[::30]]
    assert np.allclose(kls, delta, rtol=1e-9)
    assert np.allclose(0.5 * np.einsum("ni,ij,nj->n", numbers.ellipse, known.fisher, numbers.ellipse), delta)
    lengths = np.linalg.norm(numbers.circle @ numbers.to_shown.T, axis=1)
    assert np.allclose(lengths, np.linalg.norm(numbers.to_shown @ numbers.landings["vanilla"].step))


@pytest.mark.parametrize("delta", DELTAS)
def test_the_exact_step_is_the_best_by_another_optimizer(delta: float) -> None:
    exact = lesson.compute_region(delta, 1, "path").landings["exact"]
    known = lesson.problem()
    found = minimize(
        lambda d: -float(known.promised(lesson.haste(lesson.THETA_OLD + d))),
        x0=0.8 * exact.step,
        constraints=[{"type": "ineq", "fun": lambda d: delta - known.mean_kl(lesson.haste(lesson.THETA_OLD + d))}],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    assert math.isclose(exact.kl, delta, rel_tol=1e-9)
    assert math.isclose(exact.promised, -found.fun, rel_tol=1e-6)


@pytest.mark.parametrize(("marks", "zero"), INSTRUMENTS)
def test_vanilla_and_natural_solve_their_problems(marks: int, zero: str) -> None:
    numbers, known = lesson.compute_region(0.01, marks, zero), lesson.problem()
    B = np.linalg.inv(numbers.to_shown)
    vanilla, natural = (numbers.to_shown @ numbers.landings[name].step for name in ("vanilla", "natural"))
    gradient, fisher = B.T @ known.gradient, B.T @ known.fisher @ B
    assert np.allclose(vanilla / np.linalg.norm(vanilla), gradient / np.linalg.norm(gradient), atol=1e-12)
    for step in (vanilla, natural):
        assert math.isclose(step @ fisher @ step / 2, 0.01, rel_tol=1e-9)
    tries = np.random.default_rng(0).normal(size=(1000, 2))
    tries *= np.sqrt(0.02 / np.einsum("ni,ij,nj->n", tries, fisher, tries))[:, None]
    assert (tries @ gradient).max() <= natural @ gradient + 1e-12


def test_only_the_vanilla_step_depends_on_the_instrument() -> None:
    ends: dict[str, list[Any]] = {"vanilla": [], "natural": [], "exact": []}
    for marks, zero in INSTRUMENTS:
        numbers = lesson.compute_region(0.03, marks, zero)
        assert numbers.same
        for name, landing in numbers.landings.items():
            ends[name].append(landing.p)
    assert np.ptp(ends["natural"], axis=0).max() < 1e-12
    assert np.ptp(ends["exact"], axis=0).max() < 1e-12
    assert np.ptp(ends["vanilla"], axis=0).min() > 0.03


def test_facts_say_no_when_the_step_is_not_the_natural_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanilla_step(gradient: np.ndarray, fisher: np.ndarray, delta: float) -> np.ndarray:
        return gradient * math.sqrt(2 * delta / (gradient @ fisher @ gradient))

    assert lesson.facts_of_region(lesson.compute_region(0.01, 10, "path")).endswith("yes")
    monkeypatch.setattr(lesson, "natural_step", vanilla_step)
    assert lesson.facts_of_region(lesson.compute_region(0.01, 10, "path")).endswith("no")


def test_what_the_lesson_says_about_the_picture_is_so() -> None:
    vanilla = {delta: lesson.compute_region(delta, 1, "path").landings["vanilla"] for delta in (0.03, 0.1, 0.3)}
    assert all(landing.promised > 0 for landing in vanilla.values())
    assert vanilla[0.03].true > 0 > vanilla[0.1].true > vanilla[0.3].true
    assert lesson.compute_region(0.01, 6, "mean").angle < 1 < 30 < lesson.compute_region(0.01, 10, "path").angle
    natural = lesson.compute_region(0.1, 1, "path").landings["natural"]
    assert natural.kl < 0.08, "too short on the side where KL grows more slowly than its parabola"


# ---- the parabola


@PROPERTY
@given(st.sampled_from([0.01, 0.1, 0.5, 0.99]), st.floats(-4, 4))
def test_both_kls_are_those_of_the_distributions_module(chance: float, step: float) -> None:
    numbers = lesson.compute_parabola(chance, step)
    logit = math.log(chance / (1 - chance))
    old, new = (Categorical(doubles([[0.0, z]])) for z in (logit, logit + step))
    assert math.isclose(numbers.forward[-1], old.kl(new), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(numbers.backward[-1], new.kl(old), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(numbers.new_chance, new.log_probs.exp()[0, 1], rel_tol=1e-9)


@pytest.mark.parametrize("chance", [0.01, 0.3, 0.9])
def test_the_quadratic_model_is_what_both_kls_tend_to(chance: float) -> None:
    numbers = lesson.compute_parabola(chance, 1e-3)
    for kl in (numbers.forward[-1], numbers.backward[-1]):
        assert math.isclose(kl, numbers.quadratic[-1], rel_tol=2e-3)
    up, down = (lesson.compute_parabola(0.01, step) for step in (2.0, -2.0))
    assert up.forward[-1] > up.quadratic[-1] == down.quadratic[-1] > down.forward[-1]
