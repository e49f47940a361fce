"""Bug hunts: colleagues with one bug each, under letters that a seed shuffles, told apart by what they leave behind.

A lesson says which bugs there are and what each leaves behind (`Hunt`), draws a line-up with a number of the student's
own, so that letters cannot be passed on, and checks the answer with `checks.hunting.HuntCheck`.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

HEALTHY = "healthy"
SEED = 5  # of the lessons as they come
Evidence = TypeVar("Evidence")


@dataclass(frozen=True)
class Hunt(Generic[Evidence]):
    """A hunt for several bugs.

    bugs      their names, which are what a student answers with
    evidence  what the work with that bug in it leaves behind, by name; and that of HEALTHY work
    """

    bugs: tuple[str, ...]
    evidence: Callable[[str], Evidence]

    @property
    def letters(self) -> tuple[str, ...]:
        """One for each suspect."""
        return tuple(string.ascii_uppercase[: len(self.bugs)])

    def truth(self, seed: int = SEED) -> dict[str, str]:
        """The bug behind each letter. Raises ValueError for a negative seed."""
        order = np.random.default_rng(seed).permutation(len(self.bugs))
        return {letter: self.bugs[i] for letter, i in zip(self.letters, order, strict=True)}

    def lineup(self, seed: int = SEED) -> dict[str, Evidence]:
        """What the healthy one and every suspect leave behind, the healthy one first."""
        suspects = {letter: self.evidence(bug) for letter, bug in self.truth(seed).items()}
        return {HEALTHY: self.evidence(HEALTHY)} | suspects
