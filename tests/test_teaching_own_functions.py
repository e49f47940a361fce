"""A student's functions are found in the notebooks beside the lesson, and train; what is not right is not used."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from trpo_lessons.policies import CategoricalHead, mlp_policy
from trpo_lessons.problem import Problem
from trpo_lessons.surrogate import Batch
from trpo_lessons.teaching.lesson_00 import explorers as cartpole
from trpo_lessons.teaching.lesson_04 import check as lesson_04
from trpo_lessons.teaching.lesson_05 import check as lesson_05
from trpo_lessons.teaching.own_functions import from_lesson, gather, update_from
from trpo_lessons.teaching.solutions import lesson_04 as solutions_04
from trpo_lessons.teaching.solutions import lesson_05 as solutions_05
from trpo_lessons.trpo import TrustRegion, trpo_update

EXERCISES = lesson_04.fisher_product, lesson_04.solve, lesson_05.full_step, lesson_05.search
NOT_WRITTEN, WRONG = "not written yet", "does not pass its check yet"

SETTING_UP = """
import torch
import no_such_module_anywhere
from pathlib import Path
"""
HELPERS = """
ENOUGH: float = 1e-30
touched = Path("touched")
touched.write_text("a statement that is no definition has run")

def square(u):
    return torch.dot(u, u)
"""
SOLVE = """
%matplotlib inline
"""
OWN_SOLVE = '''
def solve(matvec, b: torch.Tensor, iterations: NotDefinedHere) -> torch.Tensor:
    """Mine."""
    x, r, p = torch.zeros_like(b), b, b
    for _ in range(iterations):
        if square(r) < ENOUGH:
            break
        a_p = matvec(p)
        x = x + square(r) / torch.dot(p, a_p) * p
        r, before = r - square(r) / torch.dot(p, a_p) * a_p, square(r)
        p = r + square(r) / before * p
    return x

check.solve(solve)
'''


def write_notebook(path: Path, *sources: str) -> None:
    cells = [new_markdown_cell("def solve("), *map(new_code_cell, sources)]
    nbformat.write(new_notebook(cells=cells), path)


def toy_problem():
    rng = np.random.default_rng(0)
    policy = mlp_policy(4, CategoricalHead(3), (5,))
    theta, obs = torch.from_numpy(rng.normal(size=policy.num_parameters)), torch.from_numpy(rng.normal(size=(80, 4)))
    actions = policy(theta, obs).sample_from(torch.from_numpy(rng.random((80, 1))))
    log_q = policy(theta, obs).log_prob(actions)
    return policy, theta, Batch(obs, actions, torch.from_numpy(rng.normal(size=80)), log_q)


@pytest.mark.parametrize("settings", [{}, {"delta": 0.5, "damping": 0.01, "shrink": 0.8}, {"delta": 1e-6}])
def test_put_together_from_the_solutions_it_takes_the_steps_of_trpo_update(settings):
    update = update_from(
        fisher_product=solutions_04.fisher_product,
        solve=solutions_04.solve,
        full_step=solutions_05.full_step,
        search=solutions_05.search,
    )
    policy, theta, batch = toy_problem()
    new, report = trpo_update(Problem(policy, batch), theta, TrustRegion(**settings))
    assert report.accepted
    assert (update(policy, theta, batch, **settings) - new).norm() < 1e-8 * report.step_norm


def test_a_function_is_read_from_its_lesson_with_what_it_needs_and_nothing_else_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, HELPERS, SOLVE, OWN_SOLVE)
    mine = from_lesson("lesson_04", "solve", Path())
    assert mine is not None
    assert mine.__doc__ == "Mine."
    assert lesson_04.solve.outcome(mine).status == "passed"
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "first", ["%matplotlib inline", "!ls", "%%time", "%load_ext autoreload\n%autoreload 2", "torch?"]
)
def test_a_line_for_ipython_does_not_hide_what_its_cell_defines(tmp_path, first):
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, f"{first}\n{HELPERS}", f"{first}\n{OWN_SOLVE}")
    mine = from_lesson("lesson_04", "solve", tmp_path)
    assert mine is not None
    assert lesson_04.solve.outcome(mine).status == "passed"


def test_a_cell_in_another_language_and_one_with_a_slip_are_passed_over(tmp_path):
    shell, slip = "%%bash\nfor f in *; do echo $f; done", "def solve(matvec, b, iterations:\n    return b"
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, HELPERS, OWN_SOLVE, shell, slip)
    mine = from_lesson("lesson_04", "solve", tmp_path)
    assert mine is not None
    assert mine.__doc__ == "Mine."


def test_what_a_function_lacks_outside_its_notebook_is_named(tmp_path, capsys):
    computed = "small = torch.tensor(1e-30)\n" + HELPERS.replace("ENOUGH: float = 1e-30", "")
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, computed, OWN_SOLVE.replace("ENOUGH", "small"))
    parts = gather(lesson_04.solve, here={}, folder=tmp_path)
    assert parts["solve"] is solutions_04.solve
    assert "name 'small' is not defined" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "not JSON", '{"cells": 3}', '{"cells": [{"cell_type": "code"}]}'])
def test_a_lesson_that_is_missing_or_damaged_has_no_function(tmp_path, content):
    if content:
        (tmp_path / "04_mine.ipynb").write_text(content)
    assert from_lesson("lesson_04", "solve", tmp_path) is None


def test_the_student_s_functions_are_used_where_they_pass_and_lines_say_so(tmp_path, capsys):
    unwritten = "def fisher_product(policy, theta, obs, v):\n    raise NotImplementedError"
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, HELPERS, OWN_SOLVE, unwritten)

    def full_step(x, product, damping, delta):
        return solutions_05.full_step(x, product, damping, delta)

    def search(surrogate, mean_kl, theta, step, delta, shrink, tries):
        return theta + step

    parts = gather(*EXERCISES, here={"full_step": full_step, "search": search}, folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{exercise.name}, lesson {exercise.lesson[-2:]}" for exercise in EXERCISES
    ]
    for line, said in zip(
        lines, (NOT_WRITTEN, ": yours", ": yours", f"{WRONG} ({EXERCISES[3].outcome(search).line})"), strict=True
    ):
        assert line.endswith(said)
    assert parts["full_step"] is full_step
    assert parts["solve"].__doc__ == "Mine."
    assert parts["fisher_product"] is solutions_04.fisher_product
    assert parts["search"] is solutions_05.search


def test_the_lessons_as_they_come_have_nothing_written(capsys):
    gather(*EXERCISES, here={}, folder=Path(__file__).parents[1] / "notebooks")
    assert [line.endswith(NOT_WRITTEN) for line in capsys.readouterr().out.splitlines()] == [True] * 4


def test_own_functions_are_called_when_cart_pole_is_learned(tmp_path):
    """Three iterations; lesson 05 shows that twenty-five are enough."""
    write_notebook(tmp_path / "04_mine.ipynb", SETTING_UP, HELPERS, OWN_SOLVE)
    parts, calls = gather(*EXERCISES, here={}, folder=tmp_path), []

    def counted(matvec, b, iterations):
        calls.append(iterations)
        return parts["solve"](matvec, b, iterations)

    update = update_from(**parts | {"solve": counted})
    snapshots = cartpole.learn(lambda *problem: update(*problem, delta=0.02))
    thetas = [snapshot.theta for _, snapshot in zip(range(3), snapshots, strict=False)]
    assert calls == [10, 10, 10]
    assert not torch.equal(thetas[0], thetas[1])
