"""Known mistakes. Each check holds for the update as it is, and fails for the update with the mistake put in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import mutant, small_problem
from torch import Tensor
from trpo_twins import (
    TO_THE_END,
    Spy,
    Update,
    cosine,
    full_step,
    naive_fisher,
    naive_full_step,
    naive_gradient,
    naive_mean_kl,
    naive_surrogate,
    run,
)

from trpo_lessons import problem, surrogate, trpo
from trpo_lessons.distributions import Distribution
from trpo_lessons.kl import fisher_vector_product
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch, sampled_surrogate
from trpo_lessons.trpo import TrustRegion, UpdateReport, trpo_update


def check_that_only_the_fisher_product_is_thinned(update: Update) -> None:
    problem = small_problem("mlp-gaussian", 31)
    fisher, spied_surrogate = Spy(fisher_vector_product), Spy(sampled_surrogate)
    new, report = run(
        problem,
        update,
        delta=0.05,
        fisher=fisher,
        surrogate=spied_surrogate,
        fisher_stride=5,
    )
    assert [len(samples) for samples in fisher.seen] == [7]
    assert torch.equal(fisher.seen[0].obs, problem.batch.obs[::5])
    assert len(spied_surrogate.seen) >= 3, "gradient, value before, value after"
    assert all(torch.equal(samples.obs, problem.batch.obs) for samples in spied_surrogate.seen)
    assert report.mean_kl == pytest.approx(naive_mean_kl(problem, new), rel=1e-10)
    assert report.mean_kl != pytest.approx(naive_mean_kl(problem, new, problem.batch.obs[::5]), rel=1e-3)


def test_subsampling_thins_the_fisher_product_only() -> None:
    check_that_only_the_fisher_product_is_thinned(trpo_update)


def check_mean_kl_within_delta(update: Update) -> None:
    for kind in ("linear-gaussian", "linear-categorical", "mlp-gaussian"):
        for seed in range(12):
            problem = small_problem(kind, 10, seed)
            new, _ = run(problem, update, delta=0.3, damping=0.01)
            assert naive_mean_kl(problem, new) <= 0.3 * (1 + 1e-9)


def check_scale(update: Update) -> None:
    problem, delta, damping = small_problem("mlp-gaussian", 30), 1e-4, 0.5
    damped = naive_fisher(problem) + damping * np.eye(problem.policy.num_parameters)
    step = full_step(problem, update, delta=delta, damping=damping)
    assert 0.5 * step @ damped @ step == pytest.approx(delta, rel=1e-8)


def check_direction(update: Update) -> None:
    problem, damping = small_problem("mlp-gaussian", 30), 0.5
    step = full_step(problem, update, damping=damping, **TO_THE_END)
    assert cosine(torch.tensor(step), torch.tensor(naive_full_step(problem, 0.01, damping))) > 1 - 1e-9


def check_rejected_steps_are_undone(update: Update) -> None:
    def deceptive(pi: Distribution, batch: Batch) -> Tensor:
        return sampled_surrogate(pi, batch) - 1e9 * old.kl(pi)

    problem = small_problem("mlp-gaussian", 20)
    old = problem.policy(problem.theta, problem.batch.obs)
    new, report = run(problem, update, surrogate=deceptive)
    assert not report.accepted
    assert torch.equal(new, problem.theta)


def check_improvement(update: Update) -> None:
    for seed in range(30):
        problem = small_problem("mlp-gaussian", 6, seed)
        new, report = run(problem, update, delta=1.0, damping=0.001)
        if report.accepted:
            assert naive_surrogate(problem, new) > naive_surrogate(problem, problem.theta)


def check_predicted_gain(update: Update) -> None:
    problem = small_problem("mlp-gaussian", 6, seed=2)
    new, report = run(problem, update, delta=1.0, damping=0.001)
    assert report.accepted
    assert report.backtracks > 0
    step = (new - problem.theta).numpy()
    assert report.predicted_gain == pytest.approx(naive_gradient(problem) @ step, rel=1e-9)


def check_unequal_chunks(update: Update) -> None:
    problem = small_problem("mlp-gaussian", 23)
    whole, _ = run(problem, update)
    chunked, _ = run(problem, update, chunk_size=20)
    assert (chunked - whole).norm() <= 1e-8 * (whole - problem.theta).norm()


AVERAGE_OF_AVERAGES = mutant(
    surrogate,
    ("sum_of(chunk).double() for", "sum_of(chunk).double() / len(chunk) for"),
    (".sum(0) / len(rows)", ".sum(0) / len(list(chunks(rows, chunk_size)))"),
)
IN_TRPO, IN_PROBLEM = trpo, problem

# What is checked, where the mistake is made, what stands there and what the mistake makes of it.
MISTAKES: dict[str, tuple[Callable[[Update], None], ModuleType, list[tuple[str, str]], dict[str, Any]]] = {
    "KL the wrong way round": (
        check_mean_kl_within_delta,
        IN_PROBLEM,
        [("chunk.also.kl(pi)", "pi.kl(chunk.also)")],
        {},
    ),
    "a search that never looks at KL": (
        check_mean_kl_within_delta,
        IN_TRPO,
        [("if candidate.mean_kl > delta:", "if False:")],
        {},
    ),
    "a KL of 1.5 delta accepted": (
        check_mean_kl_within_delta,
        IN_TRPO,
        [("candidate.mean_kl > delta:", "candidate.mean_kl > 1.5 * delta:")],
        {},
    ),
    "KL measured on the thinned states": (
        check_that_only_the_fisher_product_is_thinned,
        IN_PROBLEM,
        [("StatesAnd(self.states, old)", "StatesAnd(self.states, old)[::5]")],
        {},
    ),
    "gradient and search thinned too": (
        check_that_only_the_fisher_product_is_thinned,
        IN_TRPO,
        [
            (
                "start = problem.start(theta)",
                "problem = replace(problem, batch=problem.batch[::5]); start = problem.start(theta)",
            )
        ],
        {"replace": replace},
    ),
    "the factor 2 forgotten": (
        check_scale,
        IN_TRPO,
        [("2 * region.delta / direction.curvature", "region.delta / direction.curvature")],
        {},
    ),
    "no damping in the scale": (
        check_scale,
        IN_TRPO,
        [
            (
                "(2 * region.delta / direction.curvature)",
                "(2 * region.delta / (direction.curvature - region.damping * direction.x.dot(direction.x).item()))",
            )
        ],
        {},
    ),
    "no damping in the solve": (
        check_direction,
        IN_TRPO,
        [("conjugate_gradient(damped, gradient", "conjugate_gradient(product, gradient")],
        {},
    ),
    "the plain gradient": (check_direction, IN_TRPO, [(" * direction.x", " * start.gradient")], {}),
    "rejected parameters left in place": (
        check_rejected_steps_are_undone,
        IN_TRPO,
        [
            ('raise Refused(f"line search', 'raise Refused(theta=result.facts.theta, reason=f"line search'),
            ("return theta, UpdateReport(str(refusal)", 'return refusal.facts.pop("theta"), UpdateReport(str(refusal)'),
        ],
        {},
    ),
    "a search that never looks at the surrogate": (
        check_improvement,
        IN_TRPO,
        [("if candidate.surrogate <= surrogate_before:", "if False:")],
        {},
    ),
    "the gain of the full step predicted": (
        check_predicted_gain,
        IN_TRPO,
        [("moved(theta, result.facts, start)", "moved(theta, replace(result.facts, theta=theta + full_step), start)")],
        {"replace": replace},
    ),
    "an average of averages": (
        check_unequal_chunks,
        IN_PROBLEM,
        [],
        {
            "value_and_gradient": AVERAGE_OF_AVERAGES.value_and_gradient,
            "mean_over": AVERAGE_OF_AVERAGES.mean_over,
        },
    ),
}


def broken_update(module: ModuleType, changes: list[tuple[str, str]], names: dict[str, Any]) -> Update:
    broken = mutant(module, *changes, **names)
    if module is IN_TRPO:
        return broken.trpo_update  # type: ignore[no-any-return]

    def update(given: Problem, theta: Tensor, region: TrustRegion) -> tuple[Tensor, UpdateReport]:
        columns = {each.name: getattr(given, each.name) for each in fields(Problem)}
        return trpo_update(broken.Problem(**columns), theta, region)

    return update


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_would_be_noticed(mistake: str) -> None:
    check, *where = MISTAKES[mistake]
    check(trpo_update)
    with pytest.raises(AssertionError):
        check(broken_update(*where))
