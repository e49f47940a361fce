"""Lesson 04: the numbers behind every picture are true, printed facts are stable, the recorded batch is real."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from teaching_contract import line_of

from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.surrogate import importance_ratios
from trpo_lessons.teaching.checks.properties import normal
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.lesson_04 import check as checks
from trpo_lessons.teaching.lesson_04 import explorers
from trpo_lessons.teaching.lesson_04.enough_iterations import error_bound
from trpo_lessons.teaching.lesson_04.explorers import CG, DESCENT, DIMENSIONS, EVEN, FEW, THREE
from trpo_lessons.teaching.lesson_04.solve import positive_definite

BOWLS = [(10.0, 30, 0.0, 4), (10.0, 30, 10.0, 4), (30.0, 70, 0.0, 8), (2.0, 45, 0.1, 3), (5.0, 10, 100.0, 2)]
KINDS = (EVEN, THREE, FEW)
IN_THE_LESSON = [
    *((EVEN, 1000.0, damping, 10) for damping in (0.0, 0.01, 0.1)),
    (THREE, 1000.0, 0.0, 3),
    (FEW, 1000.0, 0.01, 10),
]


def test_every_check_knows_four_mistakes_or_more():
    assert min(len(check.mistakes) for check in checks.CHECKS) >= 4


# ---- angle and gain --------------------------------------------------------------------------------------------------


def test_angles_are_right_also_when_they_are_tiny():
    x, y = torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 1.0]).double()
    assert explorers.angle_between(x, y) == pytest.approx(45)
    assert explorers.angle_between(x, -3 * x) == pytest.approx(180)
    assert explorers.angle_between(x, torch.tensor([1.0, 1e-9]).double()) == pytest.approx(math.degrees(1e-9))


def test_the_share_of_the_gain_is_a_cosine_in_the_ruler_of_a():
    rng = np.random.default_rng(0)
    A, g, x = positive_definite(rng, 6), normal(rng, 6), normal(rng, 6)
    best = torch.linalg.solve(A, g)
    share = explorers.share_of_best_gain(A, g, x)
    root = torch.linalg.cholesky(A).T  # |root v| is v's length in the ruler of A
    assert share == pytest.approx(float(torch.nn.functional.cosine_similarity(root @ x, root @ best, dim=0)))
    assert explorers.share_of_best_gain(A, g, 7 * x) == pytest.approx(share)
    assert explorers.share_of_best_gain(A, g, best) == pytest.approx(1)


# ---- the bowl --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [0, 30, 90])
def test_the_bowl_is_stretched_along_an_axis_that_is_turned_away_from_g(turn):
    A = explorers.rotated_bowl(10.0, turn)
    axis = torch.tensor([math.cos(math.radians(turn)), math.sin(math.radians(turn))], dtype=torch.float64)
    assert torch.allclose(A @ axis, 10 * axis)
    assert torch.linalg.eigvalsh(A).tolist() == pytest.approx([1, 10])


@pytest.mark.parametrize(("stretch", "turn", "damping", "steps"), BOWLS)
def test_depths_and_paths_of_the_bowl(stretch, turn, damping, steps):
    numbers = explorers.compute_bowl(stretch, turn, damping, steps)
    damped = numbers.A + damping * torch.eye(2, dtype=torch.float64)

    def height(x):
        return 0.5 * x @ damped @ x - numbers.g @ x

    for name, path in numbers.paths.items():
        assert len(path) == steps + 1
        heights = [float(height(x)) for x in path]
        assert all(after <= before + 1e-12 for before, after in pairwise(heights))
        left = (height(path[-1]) - height(numbers.bottom)) / (height(path[0]) - height(numbers.bottom))
        assert numbers.left[name] == pytest.approx(float(left), abs=1e-9)
    assert torch.equal(numbers.paths[CG][1], numbers.paths[DESCENT][1])
    assert torch.allclose(numbers.paths[CG][2], numbers.bottom)
    residuals = [numbers.g - damped @ x for x in numbers.paths[DESCENT]]
    turns = [float(one @ other) for one, other in pairwise(residuals)]
    assert turns == pytest.approx([0] * steps, abs=1e-12)


def test_a_lot_of_damping_leads_to_the_plain_gradient():
    numbers = explorers.compute_bowl(10.0, 30, 100.0, 2)
    assert explorers.angle_between(numbers.bottom, numbers.g) < 3
    assert explorers.angle_between(numbers.exact, numbers.g) > 45


# ---- forty dimensions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_eigenvalues_are_stretched_as_they_say(kind):
    values = explorers.eigenvalues_of(kind, 1000.0)
    assert len(values) == DIMENSIONS
    assert (values.min(), values.max()) == pytest.approx((0.001, 1.0))
    assert len(set(explorers.eigenvalues_of(THREE, 1000.0))) == 3
    assert (explorers.eigenvalues_of(FEW, 1000.0) > 0.1).sum() == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.001, 0.1])
def test_damping_never_raises_the_gain_and_more_iterations_never_lower_it(kind, damping):
    numbers = explorers.compute_convergence(kind, 100.0, damping, 10)
    assert (numbers.gains["damped"] <= numbers.gains["undamped"] + 1e-9).all()
    assert (np.diff(numbers.gains["undamped"]) > -1e-9).all()
    assert numbers.gains["damped"][0] == pytest.approx(numbers.gains["undamped"][0])
    assert numbers.gains["undamped"][-1] == pytest.approx(1, abs=1e-6)
    assert numbers.angles["damped"][-1] > 0.01


def test_three_values_take_three_iterations():
    numbers = explorers.compute_convergence(THREE, 1000.0, 0.0, 3)
    assert numbers.angles["undamped"][1] > 10
    assert numbers.angles["undamped"][2] < 1e-6


# ---- stored text -----------------------------------------------------------------------------------------------------


def test_no_printed_number_is_near_a_rounding_boundary(monkeypatch):
    """A last bit that differs on another machine must not change a digit of a stored fact."""
    seen, plain = [], explorers.shown

    def watched(value, unit=""):
        seen.append(value)
        nudged = {plain(value * (1 + d), unit) for d in (-1e-7, 0, 1e-7)}
        assert len(nudged) == 1, f"{value!r} prints as {nudged}"
        return plain(value, unit)

    monkeypatch.setattr(explorers, "shown", watched)
    for setting in [(10.0, 30, 0.0, 1), (10.0, 30, 0.0, 8), (10.0, 0, 0.0, 1), (10.0, 30, 100.0, 2), *BOWLS[:2]]:
        explorers.facts_of_bowl(explorers.compute_bowl(*setting))
    for setting in IN_THE_LESSON:
        explorers.facts_of_convergence(explorers.compute_convergence(*setting))
    assert len(seen) > 35


def test_numbers_are_printed_in_three_digits():
    assert [explorers.shown(x, "%") for x in (12.3456, 1e-5, 99.96)] == ["12.3 %", "0 %", "100 %"]
    assert explorers.shown(1192.4) == "1190"


# ---- the recorded batch ----------------------------------------------------------------------------------------------


def test_the_recorded_batch_is_the_policy_s_own_and_whole():
    policy, theta, batch = hopper_batch()
    assert (len(batch), policy.num_parameters, theta.dtype) == (4096, 1542, torch.float64)
    assert torch.equal(importance_ratios(policy(theta, batch.obs), batch), torch.ones(4096, dtype=torch.float64))
    assert float(batch.advantages.mean()) == pytest.approx(0, abs=1e-6)
    assert float(batch.advantages.std()) == pytest.approx(1, abs=1e-5)
    z = (batch.actions - policy(theta, batch.obs).mean) / policy(theta, batch.obs).log_std.exp()
    assert z.mean(0).abs().max() < 4 / 4096**0.5  # actions are as the policy draws them
    assert (z.square().mean(0) - 1).abs().max() < 4 * (2 / 4096) ** 0.5


def test_neighbors_in_the_recorded_batch_are_neighbors_in_time():
    _, _, batch = hopper_batch()
    steps = batch.obs.diff(dim=0).norm(dim=1)
    shuffled = (batch.obs[torch.randperm(4096, generator=torch.Generator().manual_seed(0))] - batch.obs).norm(dim=1)
    assert steps.median() < 0.5 * shuffled.median()


def test_log_sigma_has_fisher_information_two():
    policy, theta, batch = hopper_batch()
    v = torch.zeros_like(theta)
    v[-1] = 1
    assert torch.allclose(fisher_vector_product(policy, theta, batch[::16])(v), 2 * v)


# ---- wrong answers, each told what is wrong with it


def twice(*, first_keeps=True, second_keeps=False, mark=False, old_at_new=False):
    """Differentiating the mean KL twice, with one thing done differently."""

    def product(policy, theta, obs, v):
        old = policy(theta, obs).detach()
        new = theta.requires_grad_() if mark else theta.detach().requires_grad_()
        kl = old.kl(policy(theta.detach() if old_at_new else new, obs)).mean()
        (slope,) = torch.autograd.grad(kl, new, create_graph=first_keeps)
        return torch.autograd.grad(torch.dot(slope, v), new, create_graph=second_keeps)[0]

    return product


def slope_at(policy, theta, obs):
    old = policy(theta, obs).detach()
    return torch.func.grad(lambda new: old.kl(policy(new, obs)).mean())


def solving(*, tolerance=0.0, start=torch.zeros_like, below=0.0, looks_after=False, count=None):
    """Conjugate gradient with one thing done differently."""

    def solve(matvec, b, iterations):
        x, r, p = start(b), b.clone(), b.clone()
        rr = torch.dot(r, r)
        for _ in range(iterations if count is None else count):
            if rr <= tolerance and not looks_after:
                break
            a_p = matvec(p)
            alpha = rr / (torch.dot(p, a_p) + below)
            x, r = x + alpha * p, r - alpha * a_p
            rr, before = torch.dot(r, r), rr
            if rr == 0:
                break
            p = r + rr / before * p
        return x

    return solve


def softmax_by_exp(W, obs, v):
    weights = (obs @ W).exp()
    probs, pushed = weights / weights.sum(-1, keepdim=True), obs @ v
    return obs.T @ (probs * (pushed - (probs * pushed).sum(-1, keepdim=True))) / len(obs)


def softmax_difference(W, obs, v):
    return obs.T @ ((obs @ (W + 1e-5 * v)).softmax(-1) - (obs @ (W - 1e-5 * v)).softmax(-1)) / 2e-5 / len(obs)


def in_a_loop(most=10**9, first=0):
    """Counting up until the bound is at or below the tolerance."""

    def count(smallest, largest, damping, tolerance):
        condition, k = (largest + damping) / (smallest + damping), first
        while k < most and (error_bound(k, condition) > tolerance):
            k += 1
        return k

    return count


def drawing(policy, theta, obs, v):
    """The product of a part of the states, drawn anew in every call."""
    return twice()(policy, theta, obs[torch.randint(len(obs), (len(obs),))], v)


def softmax_drawn(W, obs, v):
    probs = (obs @ W).softmax(-1)
    score = torch.nn.functional.one_hot(probs.multinomial(1)[:, 0], W.shape[1]) - probs
    return obs.T @ (score * (score * (obs @ v)).sum(-1, keepdim=True)) / len(obs)


def restarting(matvec, b, iterations, every=5):
    """Conjugate gradient that forgets its direction now and then."""
    x = torch.zeros_like(b)
    while iterations > 0:
        x = x + SOLVE.reference(matvec, b - matvec(x) if x.any() else b, min(every, iterations))
        iterations -= every
    return x


def of_root_and_tolerance(root, factor=0.5):
    """The count by logarithms, from the square root of the condition number as somebody takes it."""

    def count(smallest, largest, damping, tolerance):
        condition = root(smallest, largest, damping)
        return max(0, math.ceil(math.log(factor * tolerance) / math.log((condition - 1) / (condition + 1))))

    return count


SOFTMAX, PRODUCT, SOLVE, COUNT = checks.CHECKS
WRONG_ANSWERS = [
    (SOFTMAX, softmax_by_exp, "With logits around 1000"),
    (SOFTMAX, softmax_difference, "loses its digits"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W.double(), obs.double(), v.double()), "precision of its arguments"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W.clone().requires_grad_(), obs, v), "hang on no graph"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W.requires_grad_(), obs, v).detach(), "hang on no graph"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W, obs, v) * len(obs) / 6, "One state should do"),
    (SOFTMAX, softmax_drawn, "Two calls with the same arguments"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W.float(), obs.float(), v.float()).double(), "a few digits only"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W + v, obs, v), "linear in v"),
    (SOFTMAX, lambda W, obs, v: SOFTMAX.reference(W, obs, W), "linear in v"),
    (PRODUCT, drawing, "Two calls with the same arguments"),
    (PRODUCT, lambda p, t, o, v: twice()(p, t.float(), o.float(), v.float()).double(), "went through float32"),
    (PRODUCT, twice(first_keeps=False), "taken without create_graph=True, which is tempting"),
    (PRODUCT, twice(second_keeps=True), "still hang on their graph"),
    (PRODUCT, twice(mark=True), "leaves a mark on the theta"),
    (PRODUCT, twice(old_at_new=True), "there is no graph to differentiate"),
    (PRODUCT, lambda p, t, o, v: twice()(p, t, o, v) + 1e-3 * v, "added a multiple of v"),
    (PRODUCT, lambda p, t, o, v: slope_at(p, t, o)(t + 1e-4 * v) / 1e-4, "as a finite difference is"),
    (PRODUCT, lambda p, t, o, v: twice()(p, t, o, v / v.norm()), "linear in v"),
    (PRODUCT, lambda p, t, o, v: twice()(p, t.double(), o.double(), v.double()), "in float32"),
    (SOLVE, solving(tolerance=1e-10), "stop below a fixed length"),
    (SOLVE, solving(below=1e-8), "a small number in a denominator"),
    (SOLVE, solving(below=1e-15), "small number"),
    (SOLVE, solving(start=lambda b: torch.zeros(len(b))), "start from torch.zeros_like(b)"),
    (SOLVE, solving(start=lambda b: torch.zeros(len(b)).double()), "start from torch.zeros_like(b)"),
    (SOLVE, solving(looks_after=True), "Where b is 0"),
    (SOLVE, solving(count=100, tolerance=1e-26), "You solve to the end"),
    (SOLVE, lambda A, b, k: solving()(lambda p: A(p.double()).float(), b.float(), k).double(), "a few digits only"),
    (SOLVE, lambda A, b, k: solving()(lambda p: A(p) + 1e-5 * p, b, k), "a small number added to A"),
    (SOLVE, lambda A, b, k: solving()(A, b, min(k, 10)), "at a count of its own"),
    (SOLVE, lambda A, b, k: solving(tolerance=1e-8 * float(b @ b))(A, b, k), "a residual that is small but not 0"),
    (SOLVE, restarting, "start afresh"),
    (COUNT, in_a_loop(most=100), "Does a loop of yours end at a fixed count"),
    (COUNT, in_a_loop(first=1), "0 iterations should be enough"),
    (COUNT, lambda *given: max(0, in_a_loop()(*given) - 1), "your loop ends at the last number that is not enough"),
    (
        COUNT,
        of_root_and_tolerance(lambda low, high, c: math.sqrt(high / low + c)),
        "add the damping to the condition number",
    ),
    (COUNT, of_root_and_tolerance(lambda low, high, c: math.sqrt((low + c) / (high + c))), "is upside down"),
    (COUNT, lambda *given: in_a_loop()(*given) < 10, "yes or no"),
    (COUNT, lambda *given: in_a_loop()(*given) - 0.5, "a whole number"),
    (COUNT, lambda *given: in_a_loop()(*given) + 1, "One iteration less should not be enough"),
]


@pytest.mark.parametrize(("check", "function", "said"), WRONG_ANSWERS)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(check, function, said):
    assert said in line_of(check, function)


def krylov(matvec, b, iterations):
    """The lowest point of the Krylov space, by an orthonormal basis of it: no recurrence at all."""
    basis, images = [], []
    w = b
    for _ in range(iterations):
        for _ in range(2):
            for q in basis:
                w = w - torch.dot(w, q) * q
        if w.norm() <= 1e-12 * b.norm():
            break
        basis.append(w / w.norm())
        images.append(matvec(basis[-1]))
        w = images[-1]
    if not basis:
        return torch.zeros_like(b)
    Q = torch.stack(basis, 1)
    return Q @ torch.linalg.solve(Q.T @ torch.stack(images, 1), Q.T @ b)


def reverse_kl(policy, theta, obs, v):
    old = policy(theta, obs).detach()
    slope = torch.func.grad(lambda new: policy(new, obs).kl(old).mean())
    return torch.func.jvp(slope, (theta,), (v,))[1]


def by_pairs_of_actions(W, obs, v):
    probs, pushed = (obs @ W).softmax(-1), obs @ v
    apart = pushed[:, :, None] - pushed[:, None, :]
    return torch.einsum("nd,na,nb,nab->da", obs, probs, probs, apart) / len(obs)


RIGHT_ANSWERS = [
    (SOFTMAX, by_pairs_of_actions),
    (PRODUCT, twice()),
    (PRODUCT, reverse_kl),
    (SOLVE, solving()),
    (SOLVE, krylov),
    (SOLVE, lambda A, b, k: solving(tolerance=1e-28 * float(b @ b))(A, b, k)),
    (COUNT, in_a_loop()),
    (COUNT, lambda *given: torch.tensor(in_a_loop()(*given))),
    (COUNT, lambda *given: float(in_a_loop()(*given))),
]


@pytest.mark.parametrize(("check", "function"), RIGHT_ANSWERS)
def test_right_answers_written_another_way_pass(check, function):
    assert line_of(check, function) == "passed"
