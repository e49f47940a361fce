"""Checks of bug hunts: whose bug is it, under letters that a seed shuffles. See `teaching.hunts`.

A lesson's module declares the hints and the confusions; all of them speak of bugs, none of a letter:

    culprits = HuntCheck("culprits", hunt=HUNT, minutes=15, inputs=no_arguments)
    culprits.hint("no damping", "Look for a system that is harder to solve.")
    culprits.confusion("no damping", "graph not detached", "concept", "Both ...; tempting, because ...")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator

from trpo_lessons.teaching.checks import Check, Function, Kind
from trpo_lessons.teaching.checks.hunts import SEED, Hunt

Verdicts = Callable[[], dict[str, str]]


class HuntCheck(Check):
    """The check of a function that takes nothing and returns {letter: bug}.

    `check.NAME(function, seed)` judges an answer about the line-up of that seed. It is translated into the letters of
    the lessons' own line-up first, so that hints and mistakes need to know one line-up only.
    """

    def __init__(
        self, name: str, *, hunt: Hunt[Any], minutes: int, inputs: Callable[[Generator], tuple[Any, ...]]
    ) -> None:
        super().__init__(name, minutes=minutes, inputs=inputs)
        self.hunt, self._truth = hunt, hunt.truth()
        names = ", ".join(map(repr, hunt.bugs))
        first, last = hunt.letters[0], hunt.letters[-1]
        self.property(
            f"Give each of the letters {first} to {last} one of these names, and use every name once: {names}."
        )(self._uses_every_name_once)

    def __call__(self, student: Function, seed: int = SEED) -> None:
        """Print one line: not attempted yet, passed, or what is wrong and why it is tempting."""
        super().__call__(self._translated(student, seed) if callable(student) else student)

    def hint(self, bug: str, text: str) -> None:
        """Declare what a student reads whose answer has this bug somewhere else, unless a confusion explains it."""

        def is_named_right(student: Function, _rng: Generator) -> bool:
            return self._letters_of(bug, student()) == self._letters_of(bug, self._truth)

        self.property(f"{bug!r} is somewhere else. {text}")(is_named_right)

    def confusion(self, one: str, other: str, kind: Kind, text: str) -> None:
        """Declare what a student reads who took two bugs for each other and has the rest right."""
        exchange = {one: other, other: one}

        def swapped() -> dict[str, str]:
            return {letter: exchange.get(bug, bug) for letter, bug in self._truth.items()}

        swapped.__name__ = f"{one} for {other}"
        self.mistake(kind, f"You took {one!r} and {other!r} for each other; {text}")(swapped)

    def _translated(self, student: Verdicts, seed: int) -> Verdicts:
        usual = {bug: letter for letter, bug in self._truth.items()}
        letters = {letter: usual[bug] for letter, bug in self.hunt.truth(seed).items()}

        def answer() -> Any:
            verdicts = student()
            if not isinstance(verdicts, dict):
                return verdicts
            return {letters.get(letter, letter): bug for letter, bug in verdicts.items()}

        return answer

    def _uses_every_name_once(self, student: Function, _rng: Generator) -> bool:
        answer = student()
        return sorted(answer) == sorted(self.hunt.letters) and sorted(answer.values()) == sorted(self.hunt.bugs)

    @staticmethod
    def _letters_of(bug: str, verdicts: dict[str, str]) -> list[str]:
        return sorted(letter for letter, name in verdicts.items() if name == bug)
