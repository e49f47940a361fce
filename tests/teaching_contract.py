"""What every check and every explorer of every lesson must satisfy. Raises AssertionError with the reason."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.image
import numpy as np
import torch

from trpo_lessons.teaching import pictures
from trpo_lessons.teaching.checks import CONCEPTUAL, Check
from trpo_lessons.teaching.checks.comparing import as_array, copy_of, parts, proportional_or_shifted
from trpo_lessons.teaching.explorers import Choice, Explorer, Slider, View

FLOAT = re.compile(r"(?<![\w.])[-+−]?\d+\.\d+(?:[eE][-+]?\d+)?")


def stub(*_arguments: Any) -> Any:
    raise NotImplementedError


def flat(value: Any) -> list[float]:
    """Every number in a returned value, in order."""
    members = parts(value)
    if members is not None:
        return [number for member in members for number in flat(member)]
    array = as_array(value)
    return [] if array is None or array.dtype.kind in "USO" else [float(x) for x in np.asarray(array).ravel().real]


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with every number, array or tensor of floats changed."""
    if isinstance(value, tuple | list):
        return type(value)(changed(member, change) for member in value)
    array = as_array(value)
    return change(value) if array is not None and array.dtype.kind == "f" else value


def line_of(check: Check, function: Callable[..., Any]) -> str:
    outcome = check.outcome(function)
    assert "\n" not in outcome.line
    assert outcome.line.startswith(f"{check.name}: ")
    return outcome.line.removeprefix(f"{check.name}: ")


def assert_check_keeps_contract(check: Check) -> None:
    """The reference passes; every mistake gets its own message; every kind of bad function gets a clear line."""
    assert line_of(check, check.reference) == "passed"
    assert line_of(check, stub) == f"not attempted yet (about {check.minutes} minutes)"
    assert check.properties, "a check needs at least one property"
    _assert_mistakes_are_told_apart(check)
    _assert_mistakes_are_no_multiples(check)
    _assert_careless_functions_are_named(check)
    if check.unique:
        _assert_altered_solutions_are_refused(check)


def _assert_mistakes_are_told_apart(check: Check) -> None:
    assert len(check.mistakes) >= 3, "a catalog has three mistakes or more"
    messages = [mistake.message for mistake in check.mistakes]
    assert len(set(messages)) == len(messages)
    for mistake in check.mistakes:
        # Whoever is right in all that is compared, and wrong in something else, must not be told of this mistake.
        assert not check._behaves_like(check.reference, mistake.function), f"{mistake.name}: is not seen to be wrong"
        assert line_of(check, mistake.function) == f"not yet. {' '.join(mistake.message.split())}", mistake.name
        assert mistake.message[0].isupper(), f"{mistake.name}: a message is a sentence"
        assert mistake.message.rstrip().endswith("."), f"{mistake.name}: a message is a sentence"
        assert len(mistake.message.split()) >= 10, f"{mistake.name}: say why the mistake is tempting"
    conceptual = sum(mistake.kind in CONCEPTUAL for mistake in check.mistakes)
    assert 2 * conceptual >= len(check.mistakes), "at least half of the mistakes are conceptual"


def _assert_mistakes_are_no_multiples(check: Check) -> None:
    def behavior(function: Callable[..., Any]) -> list[float]:
        draws = [check.inputs(np.random.default_rng(seed)) for seed in range(6)]
        with contextlib.suppress(RuntimeError, TypeError, ValueError):  # some mistakes show in an error, not in numbers
            return [number for inputs in draws for number in flat(check.behavior(function, *copy_of(inputs)))]
        return []

    behaviors = {mistake.name: behavior(mistake.function) for mistake in check.mistakes}
    for one, other in itertools.combinations(behaviors, 2):
        if len(behaviors[one]) == len(behaviors[other]):
            same = proportional_or_shifted(behaviors[one], behaviors[other])
            assert not same, f"{one} and {other} differ only by a constant"


def _assert_careless_functions_are_named(check: Check) -> None:
    def fails(*_arguments: Any) -> Any:
        raise LookupError("a reason\nof two lines")

    def changes_arguments(*arguments: Any) -> Any:
        answer = check.reference(*copy_of(arguments))
        for argument in arguments:
            if isinstance(argument, np.ndarray) and argument.dtype.kind == "f":
                argument += 1
            elif isinstance(argument, torch.Tensor) and argument.dtype.is_floating_point:
                argument.data += 1
        return answer

    assert "stopped with LookupError: a reason of two lines" in line_of(check, fails)
    assert "returned None" in line_of(check, lambda *_: None)
    assert "is asked for" in line_of(check, lambda *_: "a text")
    inputs = check.inputs(np.random.default_rng(0))
    if any(getattr(as_array(argument), "ndim", 0) and as_array(argument).dtype.kind == "f" for argument in inputs):
        assert "changes its arguments" in line_of(check, changes_arguments)
    if any(array.dtype.kind == "f" for array in [as_array(check.reference(*inputs))] if array is not None):
        nan = line_of(check, lambda *arguments: changed(check.reference(*arguments), lambda x: x * float("nan")))
        assert "NaN" in nan

    _assert_careless_types_are_named(check, inputs)


def _assert_careless_types_are_named(check: Check, inputs: tuple[Any, ...]) -> None:
    def asks_for_gradients(*arguments: Any) -> Any:
        answer = check.reference(*copy_of(arguments))
        for argument in arguments:
            if isinstance(argument, torch.Tensor) and argument.dtype.is_floating_point:
                argument.requires_grad_()
        return answer

    if any(isinstance(argument, torch.Tensor) and argument.dtype.is_floating_point for argument in inputs):
        assert check.outcome(asks_for_gradients).status == "wrong", (
            "the caller's tensor asks for gradients, and it passes"
        )
    answer = check.reference(*copy_of(inputs))
    if isinstance(answer, torch.Tensor) and answer.ndim:
        as_numpy = line_of(check, lambda *arguments: check.reference(*arguments).detach().numpy())
        assert "a NumPy array, but a torch tensor is asked for" in as_numpy
        if answer.dtype.is_floating_point and not answer.requires_grad:
            left_on = check.outcome(lambda *arguments: check.reference(*arguments).clone().requires_grad_())
            assert left_on.status == "wrong", "an answer that still asks for gradients passes"


def _assert_altered_solutions_are_refused(check: Check) -> None:
    """A check that lets a scaled, shifted or negated solution pass tests too little."""
    inputs = check.inputs(np.random.default_rng(1))
    answer = check.reference(*copy_of(inputs))
    for name, change in {"scaled": lambda x: x * 1.01, "shifted": lambda x: x + 0.01, "negated": lambda x: -x}.items():
        if flat(changed(answer, change)) != flat(answer):
            altered = check.outcome(lambda *arguments, change=change: changed(check.reference(*arguments), change))
            assert altered.status == "wrong", f"a {name} solution passes"


@dataclass(frozen=True)
class Window:
    """A browser window with a notebook in JupyterLab: what of the notebook is seen of it, in px."""

    size: tuple[int, int]
    visible: int  # height of the notebook that is on the screen
    column: int  # width of a cell's output


# Measured in JupyterLab 4, its side bar folded out; tests/test_browser.py measures again.
PRINTED = 107  # letters of printed text in a line of the wider window
NARROW = 74  # in the other one: a table that is wider than that cannot be read there
INDENT = 2  # of the facts that `Explorer.static` prints
WINDOWS = (Window((1280, 800), visible=679, column=848), Window((1024, 768), visible=647, column=592))


def shown_height(explorer: Explorer[Any], view: View, window: Window) -> float:
    """How high an explorer is from its title to the end of its picture, in px, as the style sheets have it.

    A line of text is 28 px high in the title and 1.5 times 13 px in the facts, a control 28 px. All but the sliders
    over a list of values have a margin of 2 px above and below.
    """
    title = 4 + 28 * lines(explorer.title, window.column / 7.5)  # bold letters are 7.5 px wide
    controls = sum(32 if isinstance(control, Slider | Choice) else 28 for control in explorer.controls.values())
    facts = 4 + 19.5 * lines(view.facts, window.column / 6.6)  # these letters 6.3 px, and lines break between words
    rows, columns = matplotlib.image.imread(io.BytesIO(view.picture)).shape[:2]
    width = min(pictures.shown_width(view.picture), window.column - 4)
    return title + controls + 32 + facts + width * rows / columns + 7


def lines(text: str, letters: float) -> int:
    """How many lines a text takes where so many letters fit into one."""
    return sum(max(1, math.ceil(len(line) / letters)) for line in text.splitlines())


def assert_explorer_keeps_contract(explorer: Explorer[Any]) -> None:
    """Every control works at both ends; facts obey the rule for stored text; every picture has a description.

    Title, controls, facts and picture are on the screen together.
    """
    assert explorer.controls
    assert explorer.title.strip()
    start = explorer.settings
    for name, control in explorer.controls.items():
        ends = [control.low, control.high] if isinstance(control, Slider) else [control.values[0], control.values[-1]]
        for end in ends:
            view = explorer.render(**(start | {name: end}))
            assert view.picture.startswith(b"\x89PNG"), (name, end)
            assert len(view.alt.split()) >= 5, f"{name} = {end}: say what the picture shows"
            assert_stored_text(view.facts)
            longest = max(view.facts.splitlines(), key=len)
            assert len(longest) + INDENT <= PRINTED, f"{len(longest)} letters break where they are printed: {longest}"
            assert_stored_text(view.alt)
            assert_on_the_screen(explorer, view)
    assert explorer.settings == start, "render must not move the controls"


def assert_on_the_screen(explorer: Explorer[Any], view: View) -> None:
    """Whoever moves a slider sees what happens, without scrolling, and in letters that can be read."""
    widest = WINDOWS[0].column
    shown = pictures.shown_width(view.picture)
    assert shown <= widest, f"a picture of {shown} px is made smaller even where {widest} px are free"
    for window in WINDOWS:
        height = shown_height(explorer, view, window)
        assert height <= window.visible, (
            f"{explorer.title} {height:.0f} px high in a window of {window.size}, where {window.visible} px are visible"
        )


def assert_stored_text(text: str) -> None:
    """At most three significant digits, no path, no object address."""
    assert text.strip()
    for number in FLOAT.findall(text):
        digits = re.sub(r"[eE].*", "", number).lstrip("-+−").replace(".", "").lstrip("0")
        assert len(digits) <= 3, f"{number} has more than three significant digits in: {text}"
    assert " at 0x" not in text
    assert not re.search(r"/(home|root|usr|tmp|work|Users)/", text)
