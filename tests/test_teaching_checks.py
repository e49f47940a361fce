"""Checks say what is wrong: the framework on a small lesson, and the contract on every lesson's checks."""

from __future__ import annotations

import importlib
import json
import pkgutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teaching_contract import assert_check_keeps_contract, line_of
from teaching_fixture import CHECKS, ignores_weights, log_softmax_score, score_check, weighted_mean, weighted_mean_check

import trpo_lessons.teaching.checks as checks_package
import trpo_lessons.teaching.solutions as solutions_package
from trpo_lessons import teaching
from trpo_lessons.teaching.checks import Check
from trpo_lessons.teaching.checks.comparing import (
    close,
    copy_of,
    difference_in_form,
    has_nan,
    proportional_or_shifted,
    same,
    snapshot,
)
from trpo_lessons.teaching.checks.time_limit import time_limit

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def lesson_modules() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules(teaching.__path__)]
    return [name for name in names if name.startswith("lesson_")]


def checks_of(lesson: str) -> list[Check]:
    return list(importlib.import_module(f"{teaching.__name__}.{lesson}.check").CHECKS)


ALL_CHECKS = [(lesson, check) for lesson in lesson_modules() for check in checks_of(lesson)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_fixture_lesson_keeps_the_contract(check):
    assert_check_keeps_contract(check)


@pytest.mark.parametrize(("lesson", "check"), ALL_CHECKS, ids=lambda value: getattr(value, "name", value))
def test_every_lesson_keeps_the_contract(lesson, check):
    assert check.lesson == lesson
    assert_check_keeps_contract(check)


@pytest.mark.parametrize("lesson", lesson_modules())
def test_a_lesson_has_three_exercises_each_under_its_own_name(lesson):
    module = importlib.import_module(f"{teaching.__name__}.{lesson}.check")
    names = {name: value for name, value in vars(module).items() if isinstance(value, Check)}
    assert len(names) >= 3
    assert names == {check.name: check for check in module.CHECKS}


@pytest.mark.parametrize("lesson", lesson_modules())
def test_an_exercise_has_a_module_of_its_own(lesson):
    package = importlib.import_module(f"{teaching.__name__}.{lesson}")
    found = {}
    for name in {module.name for module in pkgutil.iter_modules(package.__path__)} - {"check"}:
        module = importlib.import_module(f"{package.__name__}.{name}")
        found |= {value.name: name for value in vars(module).values() if isinstance(value, Check)}
    assert found == {check.name: check.name for check in checks_of(lesson)}


def test_lessons_never_import_solutions():
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        assert "solutions" not in code, notebook.name


def test_importing_checks_does_not_import_solutions():
    imports = "; ".join(f"import {teaching.__name__}.{lesson}.check" for lesson in lesson_modules()) or "pass"
    script = f"import sys; {imports}; print([name for name in sys.modules if 'teaching.solutions' in name])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_solution_belongs_to_a_check():
    for module in pkgutil.iter_modules(solutions_package.__path__):
        solutions = importlib.import_module(f"{solutions_package.__name__}.{module.name}")
        public = {name for name in vars(solutions) if not name.startswith("_")}
        for check in checks_of(module.name):
            assert check.name in public


# --- one line each -----------------------------------------------------------------------------------------------


def test_a_call_prints_exactly_one_line(capsys):
    def talkative(values, weights):
        print("in here")
        np.log(np.zeros(1))  # a warning, which belongs to the student's own session
        return weighted_mean(values, weights)

    weighted_mean_check(talkative)
    captured = capsys.readouterr()
    assert captured.out == "weighted_mean: passed\n"
    assert captured.err == ""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (3.0, "Hand over the function itself"),
        (lambda _: 1.0, "stopped with TypeError"),
        (lambda *_: 1 / 0, "stopped with ZeroDivisionError: division by zero"),
        (lambda *_: None, "returned None"),
        (lambda values, _: values, "returned an array of shape (5,), but a single number is asked for"),
        (lambda *_: [1.0], "returned a list, but a number is asked for"),
        (lambda *_: np.nan, "returned NaN"),
        (lambda *_: np.inf, "returned an infinite value"),
        (lambda *_: 1j, "complex"),
        (lambda *_: 0.0, "The mean of equal values should be that value"),
    ],
)
def test_careless_functions_get_their_own_line(function, expected):
    assert expected in line_of(weighted_mean_check, function)


def test_half_the_precision_is_named():
    assert "numbers of type float32, but float64 is asked for" in line_of(
        score_check, lambda logits, index: score_check.reference(logits, index).float()
    )


def test_half_the_precision_of_a_member_is_named():
    check = Check("pair", minutes=1, inputs=lambda rng: (rng.normal(),), solutions=__name__)
    check.property("The second should be the square of the first.")(
        lambda student, rng: abs(np.diff(student(float(x := rng.normal()))).item() - (x * x - x)) < 1e-12
    )
    assert "as value 2, numbers of type float32, but float64 is asked for" in line_of(
        check, lambda x: (x, np.float32(x * x))
    )
    assert line_of(check, pair) == "passed"


def pair(x):
    return x, x * x


def test_a_path_without_a_return_is_named_where_only_some_calls_take_it():
    def first_call_only(values, weights, calls=[]):  # noqa: B006
        calls.append(1)
        return weighted_mean(values, weights) if len(calls) == 1 else None

    assert "Does every path end with a return?" in line_of(weighted_mean_check, first_call_only)


def test_a_numpy_array_is_not_a_tensor():
    line = line_of(score_check, lambda logits, index: score_check.reference(logits, index).numpy())
    assert "returned a NumPy array, but a torch tensor is asked for" in line


def test_a_function_that_changes_its_arguments_is_refused_even_if_its_value_is_right():
    def in_place(values, weights):
        weights /= weights.sum()
        return float(values @ weights)

    assert "changes its arguments in place" in line_of(weighted_mean_check, in_place)


def test_an_error_on_some_inputs_only_is_found():
    def fragile(values, weights):
        if len(values) == 4:
            raise ValueError("no fours")
        return weighted_mean(values, weights)

    assert "stopped with ValueError: no fours" in line_of(weighted_mean_check, fragile)


def test_a_stub_behind_a_branch_still_counts_as_not_attempted():
    def half_done(values, weights):
        if len(values) == 4:
            raise NotImplementedError
        return weighted_mean(values, weights)

    assert line_of(weighted_mean_check, half_done).startswith("not attempted yet")


def test_a_value_no_property_catches_is_still_refused():
    """The properties of the small lesson hold for any mean; this one is a mean, with other weights."""

    def squared_weights(values, weights):
        return weighted_mean(values, weights**2)

    assert "the value is still another one" in line_of(weighted_mean_check, squared_weights)


def test_a_mistake_is_recognized_before_the_failed_property_is_named():
    assert line_of(weighted_mean_check, ignores_weights).startswith("not yet. You forget the weights")


def test_two_calls_print_the_same_line():
    assert weighted_mean_check.outcome(ignores_weights) == weighted_mean_check.outcome(ignores_weights)


def test_inputs_differ_between_draws_and_between_exercises():
    draws = [weighted_mean_check._rng(draw).normal() for draw in range(20)] + [score_check._rng(0).normal()]
    assert len(set(draws)) == len(draws)


def test_a_property_that_meets_the_wrong_kind_of_thing_fails_instead_of_raising():
    check = Check("doubled", minutes=1, inputs=lambda rng: (torch.tensor(rng.normal()),), solutions="teaching_fixture")
    check.reference = lambda x: 2 * x  # type: ignore[misc]

    @check.property("The derivative should be 2: keep the graph.")
    def derivative(student, rng):
        x = torch.tensor(rng.normal(), requires_grad=True)
        return float(torch.autograd.grad(student(x), x)[0]) == 2.0

    assert check.outcome(lambda x: 2 * x).status == "passed"
    assert line_of(check, lambda x: 2 * x.detach()) == "not yet. The derivative should be 2: keep the graph."


def test_behavior_tells_detached_values_apart():
    def value_and_gradient(function, x):
        x = x.clone().requires_grad_()
        value = function(x)
        return value, torch.autograd.grad(value, x)[0]

    check = Check(
        "cube",
        minutes=1,
        inputs=lambda rng: (torch.tensor(rng.normal()),),
        behavior=value_and_gradient,
        solutions="teaching_fixture",
    )
    check.reference = lambda x: x**3  # type: ignore[misc]

    @check.mistake("detachment", "One factor is detached.")
    def detached(x):
        return x**2 * x.detach()

    assert line_of(check, detached) == "not yet. One factor is detached."


# --- what no function should do -----------------------------------------------------------------------------------


def never_ends(values, weights):
    while len(values):
        values = values[:]
    return 0.0


def never_ends_in_torch(values, weights):
    x = torch.ones(200, 200)
    while x.sum() > 0:
        x = x @ torch.eye(200)
    return 0.0


def never_ends_and_catches(values, weights):
    while True:
        try:
            values = values[:]
        except Exception:
            continue


@pytest.mark.parametrize("endless", [never_ends, never_ends_in_torch, never_ends_and_catches])
def test_an_endless_loop_ends_with_a_line_that_says_so(monkeypatch, endless):
    monkeypatch.setattr(checks_package, "SECONDS", 0.3)
    before = signal.getsignal(signal.SIGALRM)
    line = line_of(weighted_mean_check, endless)
    assert line.startswith("not yet. Your function had not come to an end after 0.3 seconds at line ")
    assert "a loop whose condition never becomes false" in line
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_endless_loop_on_some_inputs_only_ends_as_well(monkeypatch):
    monkeypatch.setattr(checks_package, "SECONDS", 0.3)

    def sometimes(values, weights):
        return never_ends(values, weights) if len(values) == 4 else weighted_mean(values, weights)

    assert "had not come to an end" in line_of(weighted_mean_check, sometimes)


def test_an_interrupt_by_the_student_comes_through(monkeypatch):
    def interrupted(values, weights):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weighted_mean_check.outcome(interrupted)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_timer_of_somebody_else_goes_on_and_a_thread_has_none():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        with time_limit(5):
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 5
        assert 5 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
        lines = []
        thread = threading.Thread(target=lambda: lines.append(line_of(weighted_mean_check, weighted_mean)))
        thread.start()
        thread.join()
        assert lines == ["passed"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not rang


def test_an_error_says_where_in_the_student_s_own_code():
    def adds_unlike_things(values, weights):
        total = 0
        return total + np.linalg.norm("not a number")

    first = adds_unlike_things.__code__.co_firstlineno
    line = line_of(weighted_mean_check, adds_unlike_things)
    assert f' at line {first + 2}, `return total + np.linalg.norm("not a number")`. Call it yourself' in line


def test_a_mistake_that_raises_is_known_by_its_error():
    check = Check("slope", minutes=1, inputs=lambda rng: (torch.tensor(rng.normal()),), solutions="teaching_fixture")

    def slope(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(x**2, x)[0]

    check.reference = slope  # type: ignore[misc]

    @check.mistake("detachment", "The argument does not ask for gradients.")
    def no_graph(x):
        return torch.autograd.grad(x**2, x)[0]

    def otherwise_written(x):
        y = x * x
        return torch.autograd.grad(y, x)[0]

    assert line_of(check, slope) == "passed"
    assert line_of(check, otherwise_written) == "not yet. The argument does not ask for gradients."
    assert "ZeroDivisionError: division by zero at line" in line_of(check, lambda x: 1 / 0)

    @check.property("The slope of a square at x is twice x.")
    def is_twice_x(student, rng):
        x = torch.tensor(rng.normal())
        return torch.allclose(student(x), 2 * x)

    assert line_of(check, lambda x: 3 * x) == "not yet. The slope of a square at x is twice x."


def test_arguments_are_watched_in_every_call():
    def in_place_for_four(values, weights):
        answer = weighted_mean(values, weights)
        if len(values) == 4:
            values *= 0
        return answer

    assert "changes its arguments in place" in line_of(weighted_mean_check, in_place_for_four)


def test_ordinary_inputs_come_before_edges():
    check = Check("mean", minutes=1, inputs=lambda rng: (rng.normal(size=5),), solutions="teaching_fixture")
    check.reference = lambda values: float(values.mean()) if len(values) else 0.0  # type: ignore[misc]

    @check.property("The mean of nothing should be 0.", edge=True)
    def of_nothing(student, rng):
        return student(np.zeros(0)) == 0

    @check.property("The mean of equal values should be that value.")
    def of_equal_values(student, rng):
        return abs(student(np.full(3, 2.0)) - 2) < 1e-12

    assert check.outcome(check.reference).status == "passed"
    assert line_of(check, lambda values: float(values.sum())).endswith("The mean of equal values should be that value.")
    assert "the value is still another one" in line_of(check, lambda values: float(np.median(values)))
    assert line_of(check, lambda values: float(np.sum(values) / len(values))) == (
        "not yet. The mean of nothing should be 0."
    )


def test_nan_fails_a_property_that_would_not_notice():
    check = Check("size", minutes=1, inputs=lambda rng: (rng.normal(),), solutions="teaching_fixture")
    check.reference = abs  # type: ignore[misc]

    @check.property("A size should not be negative.")
    def not_negative(student, rng):
        return not student(float(1000 * rng.normal())) < 0

    assert check.outcome(abs).status == "passed"
    assert line_of(check, lambda x: abs(x) if abs(x) < 5 else float("nan")).endswith("A size should not be negative.")


# --- comparing ---------------------------------------------------------------------------------------------------


def test_form_looks_inside_containers():
    assert difference_in_form((1.0, np.zeros(2)), (1.0, np.zeros(2))) is None
    assert "as value 2, an array of shape (3,)" in difference_in_form((1.0, np.zeros(3)), (1.0, np.zeros(2)))
    assert "2 values, but 3 are asked for" in difference_in_form((1, 2), (1, 2, 3))
    assert "a list, but a tuple is asked for" in difference_in_form([1, 2], (1, 2))


def test_whole_numbers_and_scalar_arrays_count_as_numbers():
    for answer in (1, 1.0, np.float32(1), np.array(1.0), torch.tensor(1.0)):
        assert difference_in_form(answer, 1.0) is None


@given(st.integers(0, 2**32), st.integers(3, 9), st.floats(0.1, 10), st.floats(-5, 5))
def test_multiples_and_shifts_are_recognized_and_nothing_else(seed, size, factor, shift):
    numbers, others = np.random.default_rng(seed).normal(size=(2, size))
    assert proportional_or_shifted(numbers, factor * numbers)
    assert proportional_or_shifted(numbers, -numbers)
    assert proportional_or_shifted(numbers, numbers + shift)
    assert not proportional_or_shifted(numbers, others)
    assert not proportional_or_shifted(numbers, 2 * numbers + 1)
    assert not proportional_or_shifted(np.append(numbers, 1), np.append(2 * numbers, np.nan))
    assert proportional_or_shifted(np.append(numbers, np.nan), np.append(2 * numbers, np.nan))


def test_close_compares_members_and_shapes():
    assert close({"a": np.ones(2)}, {"a": np.ones(2) + 1e-12}, 1e-9)
    assert not close({"a": np.ones(2)}, {"a": np.ones(3)}, 1e-9)
    assert not close((1.0, 2.0), (1.0,), 1e-9)
    assert not close(1.0, 1.1, 1e-9)
    assert close("left", "left", 1e-9)
    assert not close("left", "right", 1e-9)
    assert not close("left", np.ones(2), 1e-9)


def test_copies_are_deep_and_generators_start_alike():
    array, generator = np.ones(2), torch.Generator().manual_seed(1)
    copied, other = copy_of((array, generator))
    copied += 1
    assert same(array, np.ones(2))
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=other))


def test_numbers_are_compared_by_their_own_size():
    tiny = np.array([3e-9, 1e-9])
    assert close(tiny * (1 + 1e-10), tiny, 1e-8)
    assert not close(tiny * 1.01, tiny, 1e-8)
    assert not close(2e-9, 1e-9, 1e-8)
    assert not close(np.array([1e6, 1.001e-3]), np.array([1e6, 1e-3]), 1e-8)
    assert close(1e-17, 0.0, 1e-8)
    assert not close(1e-12, 0.0, 1e-8)
    assert close(1e12 * (1 + 1e-10), 1e12, 1e-8)
    assert close(np.array([np.inf, 1.0]), np.array([np.inf, 1.0]), 1e-8)


def test_types_that_are_nearly_right():
    indices = np.arange(3)
    assert difference_in_form(indices.astype(np.int32), indices) is None
    assert "numbers of type float64, but int64" in difference_in_form(indices.astype(float), indices)
    whole = difference_in_form(indices, indices.astype(float))
    assert "whole numbers (int64), but float64 is asked for" in whole
    assert "cuts off" in whole
    tensor = torch.ones(2)
    assert "a NumPy array, but a torch tensor" in difference_in_form(tensor.numpy(), tensor)


def test_one_array_collected_again_and_again_is_named():
    row = np.ones(2)
    assert "one and the same array 2 times" in difference_in_form([row, row], [np.ones(2), np.ones(2)])
    assert difference_in_form([row, row.copy()], [np.ones(2), np.ones(2)]) is None
    assert difference_in_form([row, row], [row, row]) is None


def test_a_snapshot_notices_changed_values():
    values, tensor = np.ones(2), torch.ones(2)
    for change in (lambda: values.__setitem__(0, 2), lambda: tensor.add_(1)):
        before = snapshot((values, [tensor], "name", object()))
        assert same(before, snapshot((values, [tensor], "name", object())))
        change()
        assert not same(before, snapshot((values, [tensor], "name", object())))


def test_gradients_left_on_are_named_and_told_last():
    left = line_of(score_check, lambda logits, index: log_softmax_score(logits, index).requires_grad_())
    assert left == (
        "not yet. The numbers are right, but they still ask for gradients (requires_grad). Detach what you return."
    )
    callers = line_of(score_check, lambda logits, index: log_softmax_score(logits.requires_grad_(), index).detach())
    assert "switches requires_grad on for a tensor of its caller's" in callers
    wrong_too = line_of(score_check, lambda logits, index: 2 * log_softmax_score(logits, index).requires_grad_())
    assert "requires_grad" not in wrong_too


def test_nan_is_found_anywhere():
    assert has_nan({"a": [1.0, torch.tensor([0.0, float("nan")])]})
    assert not has_nan(({"a": np.array([1, np.inf])}, "nan", None))
