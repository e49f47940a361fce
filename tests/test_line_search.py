"""The line search: which fractions it tries, which it takes, and that it takes none when none will do."""

from __future__ import annotations

import pytest
from helpers import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from trpo_lessons.line_search import backtracking_line_search


class Recorder:
    """An `evaluate` whose facts are the fraction itself, and which remembers what was asked."""

    def __init__(self) -> None:
        self.tried: list[float] = []

    def __call__(self, fraction: float) -> float:
        self.tried.append(fraction)
        return fraction


@PROPERTY
@given(st.floats(0.05, 0.95), st.integers(0, 12), st.integers(0, 15))
def test_fractions_shrink_geometrically_until_the_first_acceptable_one(
    shrink: float, max_backtracks: int, good_from: int
) -> None:
    evaluate = Recorder()
    result = backtracking_line_search(evaluate, lambda _: len(evaluate.tried) > good_from, shrink, max_backtracks)
    accepted = good_from <= max_backtracks
    expected = [shrink**j for j in range(min(good_from, max_backtracks) + 1)]
    assert evaluate.tried == pytest.approx(expected, rel=1e-12)
    assert result.accepted == accepted
    assert result.fraction == (evaluate.tried[-1] if accepted else 0.0)
    assert result.facts == evaluate.tried[-1]
    assert result.backtracks == len(evaluate.tried) - 1


def test_a_full_step_that_is_acceptable_is_taken_whole() -> None:
    result = backtracking_line_search(Recorder(), lambda _: True)
    assert (result.fraction, result.backtracks) == (1.0, 0)


def test_the_first_acceptable_fraction_is_taken_and_not_the_best() -> None:
    # The objective is best at a quarter; half is acceptable and comes first.
    result = backtracking_line_search(lambda fraction: -abs(fraction - 0.25), lambda value: value > -0.5)
    assert (result.fraction, result.facts, result.backtracks) == (0.5, -0.25, 1)


def test_by_default_the_step_is_halved_at_most_ten_times() -> None:
    evaluate = Recorder()
    backtracking_line_search(evaluate, lambda _: False)
    assert evaluate.tried == [2.0**-j for j in range(11)]


def test_halving_is_exact() -> None:
    evaluate = Recorder()
    backtracking_line_search(evaluate, lambda _: False, shrink=0.5, max_backtracks=3)
    assert evaluate.tried == [1.0, 0.5, 0.25, 0.125]


def test_when_nothing_is_acceptable_the_fraction_is_zero_and_the_last_facts_tell_why() -> None:
    result = backtracking_line_search(lambda fraction: f"at {fraction}", lambda _: False, max_backtracks=2)
    assert not result.accepted
    assert (result.fraction, result.facts, result.backtracks) == (0.0, "at 0.25", 2)


def test_without_backtracks_there_is_one_try() -> None:
    evaluate = Recorder()
    assert not backtracking_line_search(evaluate, lambda _: False, max_backtracks=0).accepted
    assert evaluate.tried == [1.0]


@pytest.mark.parametrize(
    ("shrink", "max_backtracks"), [(0.0, 5), (1.0, 5), (1.5, 5), (-0.5, 5), (float("nan"), 5), (0.5, -1)]
)
def test_settings_out_of_range_are_refused_before_anything_is_evaluated(shrink: float, max_backtracks: int) -> None:
    evaluate = Recorder()
    with pytest.raises(ValueError, match="need 0 < shrink < 1 and max_backtracks >= 0, got"):
        backtracking_line_search(evaluate, lambda _: True, shrink, max_backtracks)
    assert evaluate.tried == []
