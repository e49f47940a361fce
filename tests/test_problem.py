"""What a problem answers does not depend on how its states are cut up, and remembers without a graph."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import KINDS, normal, small_problem

from trpo_lessons.kl import max_kl, mean_kl
from trpo_lessons.problem import Candidate
from trpo_lessons.trpo import kl_or_surrogate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [None, 1, 4, 7])
def test_a_candidate_has_the_kl_and_the_surrogate_of_its_theta(kind: str, chunk_size: int | None) -> None:
    case = small_problem(kind, 15)
    problem = replace(case, chunk_size=chunk_size)
    new = case.theta + 0.1 * normal(9, len(case.theta))
    found = problem.candidate(new, problem.start(case.theta).old)
    assert found.mean_kl == pytest.approx(mean_kl(case.policy, case.theta, new, case.batch), rel=1e-10)
    assert found.max_kl == pytest.approx(max_kl(case.policy, case.theta, new, case.batch), rel=1e-10)
    assert found.surrogate == pytest.approx(case.value(new), rel=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_what_the_old_policy_said_is_kept_without_a_graph(chunk_size: int | None) -> None:
    """A graph for each chunk would keep the memory that chunks are there to save."""
    case = small_problem("mlp-gaussian", 15)
    theta = case.theta.clone().requires_grad_()
    old = replace(case, chunk_size=chunk_size).start(theta).old
    assert not any(parameter.requires_grad for parameter in old.parameters)


def test_a_surrogate_that_stays_what_it_was_is_no_improvement() -> None:
    candidate = Candidate(normal(0, 2), surrogate=0.25, mean_kl=0.001, max_kl=0.002)
    assert "does not improve" in kl_or_surrogate(candidate, 0.25, delta=0.01)
    assert kl_or_surrogate(replace(candidate, surrogate=0.2500001), 0.25, delta=0.01) == ""
