"""Backtracking line search: try a step, and shrink it until it is acceptable.

Reading order: after `conjugate_gradient`. Lesson 05.

What a step means and what makes it acceptable belongs to the caller: `evaluate` maps a fraction of the full step to
whatever facts the decision needs, and `acceptable` decides. Nothing is changed here that would have to be undone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Facts = TypeVar("Facts")


@dataclass(frozen=True)
class SearchResult(Generic[Facts]):
    """The outcome of a line search.

    fraction    the accepted fraction of the full step, in (0, 1]; 0.0 when no candidate was acceptable
    facts       what `evaluate` said about the accepted candidate, or about the last one tried
    backtracks  how often the step was shrunk
    """

    fraction: float
    facts: Facts
    backtracks: int

    @property
    def accepted(self) -> bool:
        return self.fraction > 0


def backtracking_line_search(
    evaluate: Callable[[float], Facts],
    acceptable: Callable[[Facts], bool],
    shrink: float = 0.5,
    max_backtracks: int = 10,
) -> SearchResult[Facts]:
    """Try the fractions 1, shrink, shrink^2, ... and accept the first whose facts are acceptable (appendix C).

    Raises ValueError unless 0 < shrink < 1 and max_backtracks >= 0.
    """
    if not 0 < shrink < 1 or max_backtracks < 0:
        raise ValueError(f"need 0 < shrink < 1 and max_backtracks >= 0, got {shrink} and {max_backtracks}")
    fraction = 1.0
    for backtracks in range(max_backtracks + 1):
        facts = evaluate(fraction)
        if acceptable(facts):
            return SearchResult(fraction, facts, backtracks)
        fraction *= shrink
    return SearchResult(0.0, facts, max_backtracks)
