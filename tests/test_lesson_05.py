"""What lesson 05 shows, computed a second time by other means; the bug hunt; and the twenty lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from teaching_contract import line_of
from torch import Tensor

from trpo_lessons.distributions import DiagGaussian
from trpo_lessons.kl import fisher_vector_product, mean_kl
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import surrogate_gradient, surrogate_value
from trpo_lessons.teaching.hopper_batch import hopper_batch
from trpo_lessons.teaching.lesson_05 import bug_hunt
from trpo_lessons.teaching.lesson_05 import check as checks
from trpo_lessons.teaching.lesson_05 import explorers as lesson
from trpo_lessons.teaching.lesson_05.culprits import ATTACHED, KL_REVERSED, NO_DAMPING, NO_KL, NO_ROOT
from trpo_lessons.teaching.solutions import lesson_05 as solutions
from trpo_lessons.trpo import TrustRegion, trpo_update

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "05_trust_region_step.ipynb"
POLICY, THETA, BATCH = hopper_batch()
PROBLEM = Problem(POLICY, BATCH)


# ---- along the step


def full_step_of(delta: float, damping: float) -> Tensor:
    """The full step [1542], from `trpo_update` itself: a tiny one is never refused, and all others are multiples."""
    tiny, report = trpo_update(PROBLEM, THETA, TrustRegion(delta=1e-8, damping=damping))
    assert report.step_fraction == 1
    return math.sqrt(delta / 1e-8) * (tiny - THETA)


@pytest.mark.parametrize(("delta", "damping"), [(0.01, 0.1), (1.0, 0.001)])
def test_models_and_truth_are_those_of_the_package(delta: float, damping: float) -> None:
    numbers, step = lesson.compute_along(delta, damping, 0.5), full_step_of(delta, damping)
    g, product = surrogate_gradient(POLICY, THETA, BATCH), fisher_vector_product(POLICY, THETA, BATCH)
    before = surrogate_value(POLICY, THETA, BATCH)
    for i in (0, 10, lesson.at_full_step(numbers), -1):
        d = numbers.fractions[i] * step
        assert numbers.kl[i] == pytest.approx(mean_kl(POLICY, THETA, THETA + d, BATCH), rel=1e-5, abs=1e-12)
        assert numbers.gain[i] == pytest.approx(surrogate_value(POLICY, THETA + d, BATCH) - before, rel=1e-5, abs=1e-9)
        assert numbers.kl_model[i] == pytest.approx(0.5 * float(d @ product(d)), rel=1e-5, abs=1e-12)
        assert numbers.gain_model[i] == pytest.approx(float(g @ d), rel=1e-5, abs=1e-12)
    assert numbers.fractions[lesson.at_full_step(numbers)] == pytest.approx(1)


@pytest.mark.parametrize(
    ("delta", "damping", "shrink"), [(0.01, 0.1, 0.5), (1.0, 0.001, 0.5), (1.0, 0.001, 0.9), (2.0, 0.03, 0.8)]
)
def test_the_search_stops_where_the_module_stops(delta: float, damping: float, shrink: float) -> None:
    numbers = lesson.compute_along(delta, damping, shrink)
    region = TrustRegion(delta=delta, damping=damping, shrink=shrink, max_backtracks=lesson.MAX_BACKTRACKS)
    _, report = trpo_update(PROBLEM, THETA, region)
    assert report.accepted
    assert len(numbers.tried) == report.backtracks + 1
    assert numbers.tried[-1] == pytest.approx(report.step_fraction)
    assert numbers.tried_kl[-1] == pytest.approx(report.mean_kl, rel=1e-6)
    assert numbers.tried_gain[-1] == pytest.approx(report.actual_gain, rel=1e-6)
    refused = (numbers.tried_kl[:-1] > delta) | (numbers.tried_gain[:-1] <= 0)
    assert refused.all()


def test_what_the_lesson_says_about_the_picture_is_so() -> None:
    gentle, bold = lesson.compute_along(0.1, 0.1, 0.5), lesson.compute_along(1.0, 0.1, 0.5)
    full = lesson.at_full_step(gentle)
    assert abs(gentle.kl[full] / gentle.kl_model[full] - 1) < 0.02, "the bowl is right within two percent"
    assert 0.7 < gentle.gain[full] / gentle.gain_model[full] < 0.8, "a quarter of the promise is missing"
    assert bold.gain[full] / bold.gain_model[full] < 0.5, "more than half of it is"
    wild, patient = lesson.compute_along(1.0, 0.001, 0.5), lesson.compute_along(1.0, 0.001, 0.9)
    assert wild.tried_kl[0] > 1
    assert wild.tried_gain[0] < 0, "both conditions refuse the full step"
    assert patient.tried_kl[-1] > wild.tried_kl[-1]
    assert patient.tried_gain[-1] < wild.tried_gain[-1], "nearer to the edge, and less gain"
    assert 0 < patient.tried_gain[-1] < 0.1 * patient.gain_model[full] * patient.tried[-1], "question 4"


def test_each_condition_refuses_some_step_alone() -> None:
    inside = lesson.compute_along(2.0, 0.001, 0.9)
    assert (inside.tried_kl[-3:] < 2.0).all()
    assert (inside.tried_gain[-3:-1] < 0).all(), "the last two crosses, refused by the surrogate alone"
    outside = lesson.compute_along(2.0, 1.0, 0.5)
    full = lesson.at_full_step(outside)
    assert outside.tried_kl[0] > 2.0
    assert outside.tried_gain[0] > 0.2, "refused by the KL alone"
    assert outside.kl[full] / outside.kl_model[full] == pytest.approx(1.7, abs=0.05)
    assert outside.gain[full] / outside.gain_model[full] == pytest.approx(0.8, abs=0.02)


def test_facts_count_the_backtracks() -> None:
    assert "after 0 backtracks" in lesson.facts_of_along(lesson.compute_along(0.01, 0.1, 0.5))
    assert "after 1 backtrack:" in lesson.facts_of_along(lesson.compute_along(1.0, 0.001, 0.5))


# ---- the bug hunt


def test_the_healthy_update_is_the_modules() -> None:
    for report in bug_hunt.reports_of(bug_hunt.HEALTHY):
        region = TrustRegion(
            delta=report.delta,
            damping=bug_hunt.DAMPING,
            cg_iterations=bug_hunt.CG_ITERATIONS,
            shrink=bug_hunt.SHRINK,
            max_backtracks=bug_hunt.MAX_BACKTRACKS,
        )
        _, module = trpo_update(PROBLEM, THETA, region)
        assert (report.backtracks, report.fraction) == (module.backtracks, module.step_fraction)
        assert report.kl == pytest.approx(module.mean_kl, rel=1e-6)
        assert report.gain == pytest.approx(module.actual_gain, rel=1e-6)
        assert report.predicted_gain == pytest.approx(module.predicted_gain, rel=1e-6)
        assert report.step_norm == pytest.approx(module.step_norm, rel=1e-6)
        assert report.cg_residual == pytest.approx(module.residual_norms[-1] / module.residual_norms[0], rel=1e-6)


def test_every_bug_leaves_the_trace_that_the_hints_describe() -> None:
    careful, bold = bug_hunt.reports_of(bug_hunt.HEALTHY)
    other_way = bug_hunt.reports_of(KL_REVERSED)
    assert other_way[0].kl == pytest.approx(careful.kl, rel=0.01)
    assert other_way[1].kl <= bug_hunt.BOLD < 0.9 * other_way[1].sampled_kl
    assert abs(bold.kl - bold.sampled_kl) < 0.02 * bold.kl, "the healthy one has no such quarrel"
    short = bug_hunt.reports_of(NO_ROOT)
    assert short[0].kl == pytest.approx(careful.kl / 2, rel=0.01)
    assert short[1].backtracks == 0 < bold.backtracks
    undamped = bug_hunt.reports_of(NO_DAMPING)
    assert undamped[0].cg_residual > 2 * careful.cg_residual
    assert undamped[0].step_norm > 1.3 * careful.step_norm
    assert careful.kl < 0.8 * bug_hunt.CAREFUL < undamped[0].kl
    blind = bug_hunt.reports_of(NO_KL)
    assert blind[1].kl > 1.5 * bug_hunt.BOLD
    assert blind[1].backtracks == 0
    attached = bug_hunt.reports_of(ATTACHED)
    assert all(report.cg_iterations == 1 for report in attached)
    assert all(report.cg_iterations == 10 for kind in bug_hunt.BUGS[:4] for report in bug_hunt.reports_of(kind))


def test_letters_belong_to_the_bugs_that_the_solution_names() -> None:
    for seed in (5, 0, 71):
        lineup = bug_hunt.HUNT.lineup(seed)
        assert list(lineup) == ["healthy", *"ABCDE"]
        for letter, bug in solutions.culprits(seed).items():
            assert lineup[letter] == bug_hunt.reports_of(bug)


def test_the_table_of_reports_fits_a_small_window_and_holds_the_reports() -> None:
    lineup = bug_hunt.HUNT.lineup(3)
    for place, job in enumerate(("careful", "bold")):
        lines = bug_hunt.table(lineup, job).splitlines()
        assert max(map(len, lines)) <= 64
        assert lines[0].split() == list(lineup)
        (norms,) = (line.split()[1:] for line in lines if line.startswith("||step||"))
        assert norms == [f"{pair[place].step_norm:.2g}" for pair in lineup.values()]


def test_the_picture_of_the_reports_is_described_for_every_seed() -> None:
    for seed in (3, 4):
        lineup = bug_hunt.HUNT.lineup(seed)
        figure = Figure()
        bug_hunt.draw(lineup, figure)
        heights = [bar.get_height() for axes in figure.axes for bar in axes.patches]
        told = bug_hunt.alt(lineup)
        for letter, (careful, bold) in lineup.items():
            assert f"{letter} {careful.kl / careful.delta:.2f} and {careful.sampled_kl / careful.delta:.2f}" in told
            assert bold.sampled_kl / bold.delta in heights


def test_an_undetached_policy_has_no_fisher_matrix() -> None:
    small = BATCH[:50]
    v = torch.from_numpy(np.random.default_rng(0).normal(size=POLICY.num_parameters))
    real = fisher_vector_product(POLICY, THETA, small)(v).norm()
    assert bug_hunt.undetached_fisher_product(POLICY, THETA, small)(v).norm() < 1e-10 * real


@pytest.mark.parametrize("estimate", [solutions.sampled_kl, lambda new, old: (old - new).mean()])
def test_the_audit_estimates_kl_from_old_to_new(estimate: object) -> None:
    count = 200_000
    zeros = torch.zeros(count, 1, dtype=torch.float64)
    old, new = DiagGaussian(zeros, zeros), DiagGaussian(zeros + 0.3, zeros - 0.4)
    actions = old.sample(torch.Generator().manual_seed(1))
    log_prob, log_q = new.log_prob(actions), old.log_prob(actions)
    log_w = log_prob - log_q
    error = float((log_w.exp() - 1 - log_w).std()) / count**0.5 + float(log_w.std()) / count**0.5
    found = float(estimate(log_prob, log_q))  # type: ignore[operator]
    forward, backward = float(old.kl(new)[0]), float(new.kl(old)[0])
    assert abs(found - forward) < 4 * error < abs(forward - backward)


def test_the_audit_of_the_hunt_is_exercise_3() -> None:
    new = THETA + full_step_of(0.01, 0.1)
    log_prob = POLICY(new, BATCH.obs).log_prob(BATCH.actions)
    assert bug_hunt.sampled_kl(POLICY, new, BATCH) == pytest.approx(float(solutions.sampled_kl(log_prob, BATCH.log_q)))


def test_the_audit_is_too_high_on_the_actions_that_the_direction_was_fitted_to() -> None:
    halves = BATCH[:2048], BATCH[2048:]
    for fitted, fresh in (halves, halves[::-1]):
        region = TrustRegion(delta=bug_hunt.CAREFUL, damping=bug_hunt.DAMPING)
        new, report = trpo_update(Problem(POLICY, fitted), THETA, region)
        assert report.accepted
        on_fitted, on_fresh = (
            bug_hunt.sampled_kl(POLICY, new, half) / mean_kl(POLICY, THETA, new, half) for half in (fitted, fresh)
        )
        assert on_fitted > 1.05
        assert 0.9 < on_fresh < 1.05


def test_a_wrong_verdict_gets_a_hint_and_never_a_letter() -> None:
    truth = solutions.culprits()
    rotated = dict(zip(truth, [*list(truth.values())[1:], truth["A"]], strict=True))
    line = line_of(checks.culprits, lambda: rotated)
    assert "is somewhere else" in line
    assert "use every name once" in line_of(checks.culprits, lambda: dict.fromkeys("ABCDE", NO_KL))


# ---- the notebook's own code


def twenty_lines() -> str:
    """The notebook's `trpo_step`."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (found,) = [source for source in sources if source.startswith("def trpo_step(")]
    return found


def test_the_update_has_twenty_lines() -> None:
    lines = [line for line in twenty_lines().splitlines() if line.strip()]
    assert len(lines) - 1 == 20, "the def itself aside"


def test_the_twenty_lines_refuse_numbers_that_are_not_finite() -> None:
    names: dict[str, object] = {"torch": torch}
    exec(twenty_lines(), names)
    broken = type(BATCH)(*(x[:64] for x in (BATCH.obs, BATCH.actions, BATCH.advantages * float("nan"), BATCH.log_q)))
    assert torch.equal(names["trpo_step"](POLICY, THETA, broken), THETA)  # type: ignore[operator]


# ---- wrong answers, each told what is wrong with it


def searching(accept, candidates=None, result=None):  # type: ignore[no-untyped-def]
    """A search with its condition `accept(new value, old value, kl, delta)`, its candidates or its result replaced."""

    def search(surrogate, mean_kl, theta, step, delta, shrink, tries):  # type: ignore[no-untyped-def]
        for j in range(tries) if candidates is None else candidates:
            new = theta + shrink**j * step
            if accept(surrogate(new), surrogate(theta), mean_kl(new), delta):
                return new
        return theta if result is None else result(theta, step)

    return search


def in_place_search(surrogate, mean_kl, theta, step, delta, shrink, tries):  # type: ignore[no-untyped-def]
    for _ in range(tries):
        if surrogate(theta + step) > surrogate(theta) and mean_kl(theta + step) <= delta:
            return theta + step
        step *= shrink
    return theta


def right(new: float, old: float, kl: float, delta: float) -> bool:
    return new > old and kl <= delta


WRONG_SEARCHES = {
    "allows 1.5 delta": (searching(lambda n, o, k, d: n > o and k <= 1.5 * d), "half as much KL again, 1.5 delta"),
    "allows 1.2 delta": (searching(lambda n, o, k, d: n > o and k <= 1.2 * d), "above it by a little"),
    "NaN KL": (searching(lambda n, o, k, d: n > o and not k > d), "A KL that is NaN"),
    "NaN surrogate": (searching(lambda n, o, k, d: not n <= o and k <= d), "A surrogate that is NaN"),
    "NaN before": (
        searching(lambda n, o, k, d: k <= d and (n > o or (o != o and n == n))),
        "NaN at the old theta",
    ),
    "below delta": (searching(lambda n, o, k, d: n > o and k < d), "exactly delta is at most delta"),
    "a gain of note": (searching(lambda n, o, k, d: n > o + 1e-8 and k <= d), "however small it is"),
    "ten tries": (searching(right, range(10)), "at most `tries` candidates"),
    "a hundred tries": (searching(right, range(100)), "at most `tries` candidates"),
    "in place": (in_place_search, "in place"),
    "moves anyway": (searching(right, result=lambda t, s: t + 1e-3 * s), "Where no candidate will do"),
    "adds 1": (
        lambda *given: searching(right)(*given) + 1,
        "Where the full step improves the surrogate and its KL is at most delta",
    ),
}
WRONG_STEPS = {
    "epsilon": (
        lambda x, A, c, d: torch.sqrt(2 * d / (torch.dot(x, A(x) + c * x) + 1e-8)) * x,
        "a small number added in a denominator",
    ),
    "double precision": (
        lambda x, A, c, d: solutions.full_step(x, A, c, d).double(),
        "in float32",
    ),
    "backwards": (lambda *given: -solutions.full_step(*given), "a positive multiple"),
    "half the length": (lambda *given: 0.5 * solutions.full_step(*given), "should stand at delta"),
    "damping twice": (
        lambda x, A, c, d: solutions.full_step(x, A, 2 * c, d),
        "half of d times (A + damping I) d, should stand at delta",
    ),
}
WRONG_AUDITS = {
    "ratio of exps": (
        lambda p, q: (p.exp() / q.exp() - 1 - (p - q)).mean(),
        "near -1000",
    ),
    "clipped": (
        lambda p, q: ((p - q).exp().clamp(0.8, 1.2) - 1 - (p - q)).mean(),
        "never negative",
    ),
    "N - 1": (lambda p, q: solutions.sampled_kl(p, q) * len(p) / (len(p) - 1), "Ten copies"),
    "median": (lambda p, q: ((p - q).exp() - 1 - (p - q)).median(), "in a batch that holds each action once"),
}
WRONG_ANSWERS = [
    pytest.param(check, function, said, id=f"{check.name}: {name}")
    for check, answers in (
        (checks.search, WRONG_SEARCHES),
        (checks.full_step, WRONG_STEPS),
        (checks.sampled_kl, WRONG_AUDITS),
    )
    for name, (function, said) in answers.items()
]


@pytest.mark.parametrize(("check", "function", "said"), WRONG_ANSWERS)
def test_a_wrong_answer_is_told_what_is_wrong_with_it(check, function, said) -> None:  # type: ignore[no-untyped-def]
    assert said in line_of(check, function)


def test_the_searches_above_differ_from_a_right_one_where_they_say() -> None:
    assert line_of(checks.search, searching(right)) == "passed"
