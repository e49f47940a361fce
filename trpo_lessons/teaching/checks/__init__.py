"""Checks for exercises: ``check.NAME(student_function)`` prints one line that says what to do next.

An exercise's module, such as ``lesson_00/discounted_returns.py``, declares its check like this::

    discounted_return = Check("discounted_return", minutes=5, inputs=lambda rng: (rng.normal(size=6), 0.9))

    @discounted_return.property("the return of one reward should be that reward, undiscounted")
    def one_reward(student, rng):
        reward = rng.normal()
        return abs(student(np.array([reward]), 0.5) - reward) < 1e-12

    @discounted_return.mistake("order", "you discount the past instead of the future; tempting, because ...")
    def backwards(rewards, gamma):
        return sum(gamma ** (len(rewards) - 1 - t) * r for t, r in enumerate(rewards))

Properties are tried on fresh random inputs, in the order in which they are declared. Those of edges (``edge=True``: an
empty array, gamma = 0, a probability that underflows) come after all others and after the value itself, so that the
first thing that fails is the thing that is wrong. A function that fails is compared with the lesson's catalogue of
tempting mistakes: if it behaves like one of them on random inputs, the student reads that mistake's message, otherwise
the description of the property that failed. One that has not come to an end after ``SECONDS`` is stopped; one that
raises, changes what it was given, or returns NaN is told so. The reference is ``solutions.<lesson>.<NAME>``; its values
are never shown. A lesson's ``check`` module names its checks ``in_order``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator

from trpo_lessons.teaching.checks.comparing import (
    asks_for_gradients,
    close,
    copy_of,
    difference_in_form,
    has_nan,
    lost_precision,
    same,
    snapshot,
)
from trpo_lessons.teaching.checks.time_limit import TimeIsUpError, time_limit

Function = Callable[..., Any]
Property = Callable[[Function, Generator], bool]
Kind = Literal[
    "sign", "order", "conditioning", "detachment", "termination", "concept", "constant", "indexing", "numerics"
]
CONCEPTUAL: frozenset[str] = frozenset({"sign", "order", "conditioning", "detachment", "termination", "concept"})
Status = Literal["not attempted", "passed", "wrong"]
# Where `teaching.grade` collects outcomes; unset in a student's own session.
RESULTS_VARIABLE = "TRPO_LESSONS_CHECK_RESULTS"
DRAWS = 5
NOTHING = "Your function returned None. Does every path end with a return?"
SECONDS = 10.0  # one call of a student's function; those of the solutions take milliseconds


@dataclass(frozen=True)
class Mistake:
    """A wrong implementation that a thoughtful student may write, and what such a student should be told."""

    name: str
    kind: Kind
    message: str
    function: Function


@dataclass(frozen=True)
class Outcome:
    """What a check found, and the one line it prints."""

    exercise: str
    status: Status
    line: str


class _FoundError(Exception):
    """Carries the first thing found wrong out of the nested calls; never leaves this module."""


class Check:
    """One exercise's check.

    `inputs(rng)` draws the arguments of one call. `behavior(function, *arguments)` is what is compared with the
    reference and with the mistakes; by default the value returned. Give another one where the value alone does not tell
    them apart, for example the value and its gradient in an exercise about detaching.

    Where mistakes differ from what is right in a detail only, let `arguments` be a named tuple of what `inputs` draws:
    mistakes are then functions of one such tuple, whose properties can hold what they have in common.

    Set `unique=False` if several different answers are right; the properties alone then decide.
    """

    def __init__(
        self,
        name: str,
        *,
        minutes: int,
        inputs: Callable[[Generator], tuple[Any, ...]],
        arguments: Function | None = None,
        behavior: Function | None = None,
        tolerance: float = 1e-8,
        unique: bool = True,
        solutions: str | None = None,
    ) -> None:
        self.name, self.minutes, self.inputs, self.tolerance, self.unique = name, minutes, inputs, tolerance, unique
        self.behavior: Function = behavior or (lambda function, *arguments: function(*arguments))
        self._arguments = arguments
        self.properties: list[tuple[str, Property]] = []
        self.edges: list[tuple[str, Property]] = []
        self.mistakes: list[Mistake] = []
        # The lesson is where the inputs are drawn: lesson_03.average_kl finds its answer in solutions.lesson_03.
        places = inputs.__module__.split(".")
        self.lesson = next((name for name in places if name.startswith("lesson_")), places[-1])
        self._solutions = solutions or f"trpo_lessons.teaching.solutions.{self.lesson}"

    def property(self, otherwise: str, edge: bool = False) -> Callable[[Property], Property]:
        """Declare a property; `otherwise` is what a student reads if it fails and no known mistake explains it.

        With `edge`, it is about inputs out of the ordinary: it is tried when everything else holds.
        """

        def declare(function: Property) -> Property:
            (self.edges if edge else self.properties).append((otherwise, function))
            return function

        return declare

    def mistake(self, kind: Kind, message: str) -> Callable[[Function], Function]:
        """Declare a tempting mistake; `message` says what is wrong and why it is tempting."""

        def declare(function: Function) -> Function:
            self.mistakes.append(Mistake(function.__name__, kind, message, self._taking_arguments(function)))
            return function

        return declare

    def _taking_arguments(self, function: Function) -> Function:
        named = self._arguments
        return function if named is None else lambda *arguments: function(named(*arguments))

    @functools.cached_property
    def reference(self) -> Function:
        """The solution, looked up by lesson and name."""
        solution: Function = getattr(importlib.import_module(self._solutions), self.name)
        return solution

    def __call__(self, student: Function) -> None:
        """Print one line: not attempted yet, passed, or what is wrong and why it is tempting."""
        self._record("started")
        outcome = self.outcome(student)
        self._record("finished", status=outcome.status, line=outcome.line)
        print(outcome.line)

    def outcome(self, student: Function) -> Outcome:
        """What `__call__` prints, with its status. Never raises for anything the student's function does."""
        # One line is promised: what the function prints or warns about on thirty calls would bury it.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                problem = self._problem_with_form(student) or self._first_failed_property(student)
                if problem is None:
                    return self._say("passed", "passed")
                return self._say("wrong", f"not yet. {self._explain(student) or self._imprecise(student) or problem}")
            except NotImplementedError:
                return self._say("not attempted", f"not attempted yet (about {self.minutes} minutes)")
            except _FoundError as found:
                return self._say("wrong", f"not yet. {self._explain_error(found) or found}")

    def _say(self, status: Status, text: str) -> Outcome:
        return Outcome(self.name, status, f"{self.name}: {' '.join(text.split())}")

    def declare(self) -> None:
        """Tell `teaching.grade` of this exercise, whether or not it is attempted."""
        self._record("declared", minutes=self.minutes)

    def _record(self, event: str, **details: Any) -> None:
        path = os.environ.get(RESULTS_VARIABLE)
        if path:
            entry = {"event": event, "exercise": self.name, "lesson": self.lesson} | details
            with open(path, "a", encoding="utf-8") as results:
                results.write(json.dumps(entry) + "\n")

    def _rng(self, draw: int) -> Generator:
        # Seeded, so that a lesson prints the same line twice; by name, so that exercises do not share inputs.
        return np.random.default_rng([draw, *self.name.encode()])

    def _problem_with_form(self, student: Function) -> str | None:
        """Call once; refuse errors, nothing returned and changed arguments; report another shape or type, or NaN."""
        if not callable(student):
            raise _FoundError(f"Hand over the function itself, without calling it: check.{self.name}({self.name}).")
        arguments = self.inputs(self._rng(0))
        answer = _guarded(student)(*copy_of(arguments))
        if answer is None:
            raise _FoundError(NOTHING)
        return difference_in_form(answer, self.reference(*copy_of(arguments)))

    def _first_failed_property(self, student: Function) -> str | None:
        watched = _Watched(student)
        failed = self._first_failed(watched, self.properties)
        if failed is None and self.unique and not self._behaves_like(student, self.reference):
            failed = (
                "What is easy to test holds, but the value is still another one. "
                "Go through the definition again, term by term."
            )
        failed = failed or self._first_failed(watched, self.edges)
        return failed or watched.blind or self._left_graph(student)

    def _first_failed(self, watched: _Watched, properties: list[tuple[str, Property]]) -> str | None:
        for otherwise, holds in properties:
            if not all(watched.keeps(holds, self._rng(draw), otherwise) for draw in range(1, DRAWS + 1)):
                return NOTHING if watched.returned_none else otherwise
        return None

    def _left_graph(self, student: Function) -> str | None:
        """Said last: the numbers are right, and whoever works with them is in for a surprise."""
        given, others = (copy_of(self.inputs(self._rng(0))) for _ in range(2))
        before = asks_for_gradients(given)
        answer, expected = _guarded(student)(*given), self.reference(*others)
        if asks_for_gradients(given) and not before:
            return (
                "Your function switches requires_grad on for a tensor of its caller's. Work on a tensor of your own: "
                "x.detach().requires_grad_() makes one, x.requires_grad_() alone does not."
            )
        if asks_for_gradients(answer) and not asks_for_gradients(expected):
            return "The numbers are right, but they still ask for gradients (requires_grad). Detach what you return."
        return None

    def _imprecise(self, student: Function) -> str | None:
        """A number with too few digits fails properties that its formula satisfies: then say so."""
        arguments = self.inputs(self._rng(0))
        return lost_precision(_guarded(student)(*copy_of(arguments)), self.reference(*copy_of(arguments)))

    def _behaves_like(self, student: Function, other: Function) -> bool:
        for draw in range(1, DRAWS + 1):
            arguments = self.inputs(self._rng(100 + draw))
            try:
                theirs = self.behavior(other, *copy_of(arguments))
                mine = self.behavior(_guarded(student), *copy_of(arguments))
            except (_FoundError, NotImplementedError):
                raise
            except Exception:
                return False
            if not close(mine, theirs, self.tolerance):
                return False
        return True

    def _explain(self, student: Function) -> str | None:
        for mistake in self.mistakes:
            if self._behaves_like(student, mistake.function):
                return mistake.message
        return None

    def _explain_error(self, found: _FoundError) -> str | None:
        """The message of a mistake in the catalog that raises what the student's function raised."""
        error = found.__cause__
        if error is None:
            return None
        arguments = self.inputs(self._rng(0))
        for mistake in self.mistakes:
            try:
                self.behavior(mistake.function, *copy_of(arguments))
            except Exception as other:
                if type(other) is type(error) and str(other) == str(error):
                    return mistake.message
        return None


def in_order(*checks: Check) -> tuple[Check, ...]:
    """The checks of a lesson in its own order, in which `teaching.grade` reports them."""
    for check in checks:
        check.declare()
    return checks


class _Watched:
    """A student's function while properties are tried.

    NaN is neither above nor below anything, so that a property may hold because it did not notice. `blind` is the
    description of the first one that did: said in the end, for most often another property does notice.
    `returned_none`: in the property that was tried last, some call returned None.
    """

    def __init__(self, student: Function) -> None:
        self.student = _guarded(student)
        self.blind: str | None = None
        self.returned_none = self._nan = False

    def keeps(self, holds: Property, rng: Generator, otherwise: str) -> bool:
        self.returned_none = self._nan = False
        try:
            kept = bool(holds(self._call, rng))
        except (_FoundError, NotImplementedError):
            raise
        except Exception:
            # The function returned something the property cannot work with, such as a tensor that has lost its graph.
            return False
        if kept and self._nan:
            self.blind = self.blind or otherwise
        return kept

    def _call(self, *arguments: Any, **options: Any) -> Any:
        answer = self.student(*arguments, **options)
        self.returned_none |= answer is None
        self._nan |= has_nan(answer) and not has_nan(arguments)
        return answer


def _guarded(student: Function) -> Function:
    """The same function; what it does that no function should is told to the student.

    It is given `SECONDS`, and must leave its arguments as they are.
    """

    @functools.wraps(student)
    def call(*arguments: Any, **options: Any) -> Any:
        before = snapshot(arguments)
        try:
            with time_limit(SECONDS):
                answer = student(*arguments, **options)
        except NotImplementedError:
            raise
        except TimeIsUpError as stopped:
            raise _FoundError(
                f"Your function had not come to an end after {SECONDS:g} seconds{_where(stopped, student)}, and was "
                "stopped. Is there a loop whose condition never becomes false?"
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".rstrip(".: \n")
            advice = "Call it yourself on a small example to see why."
            raise _FoundError(f"Your function stopped with {reason}{_where(error, student)}. {advice}") from error
        if not same(before, snapshot(arguments)):
            raise _FoundError(
                "Your function changes its arguments in place; whoever called it will find other numbers. "
                "Work on a copy, or use operations that return a new array."
            )
        return answer

    return call


def _where(error: BaseException, student: Function) -> str:
    """The line of the student's own code that was at work, as " at line 3, `y = x / n`"; "" if there is none."""
    code = getattr(inspect.unwrap(student), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    if not own:
        return ""
    text = f", `{own[-1].line}`" if own[-1].line else ""
    return f" at line {own[-1].lineno}{text}"
