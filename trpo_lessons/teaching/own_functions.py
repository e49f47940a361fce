"""A student's own functions, gathered from the lessons and put together: the update that then trains.

    parts = gather(check.product, check.solve, here={"solve": solve})    # by name: the student's, or the package's
    update = update_from(**parts)                                        # (policy, theta, batch, ...) -> theta

A function of another lesson is read from that lesson's notebook in the same folder, as it was last saved. Of its cells
only imports, definitions and constants are executed, so nothing of it runs but what the function needs.
"""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from torch import Tensor

from trpo_lessons.kl import mean_kl
from trpo_lessons.policies import Policy
from trpo_lessons.surrogate import Batch, surrogate_gradient, surrogate_value
from trpo_lessons.teaching.checks import Check, Function, Status

NOT_USED: dict[Status, str] = {
    "not attempted": "the package's, as yours is not written yet",
    "wrong": "the package's, as yours does not pass its check yet",
}


def gather(*exercises: Check, here: Mapping[str, Function], folder: Path | None = None) -> dict[str, Function]:
    """For every exercise the student's function where it passes its check, the package's where not; by name.

    `here` holds the functions of the lesson that asks, by name. Those of other lessons come from their notebooks in
    `folder`, by default the current one, which is where Jupyter runs a notebook. Prints a line an exercise: whose
    function it is, and why, in the words of its check where it does not pass.
    """
    parts = {}
    for exercise in exercises:
        mine = here.get(exercise.name) or from_lesson(exercise.lesson, exercise.name, folder or Path())
        found = exercise.outcome(mine) if mine else None
        status: Status = found.status if found else "not attempted"
        parts[exercise.name] = mine if mine and status == "passed" else exercise.reference
        why = f" ({found.line})" if found and status == "wrong" else ""
        print(f"{exercise.name}, lesson {exercise.lesson[-2:]}: {NOT_USED.get(status, 'yours')}{why}")
    return parts


def from_lesson(lesson: str, name: str, folder: Path) -> Function | None:
    """The function `name` as the student's notebook of that lesson ("lesson_04") in `folder` defines it last.

    None where there is no such notebook, or where it does not define one.
    """
    found = None
    for notebook in sorted(folder.glob(f"{lesson[-2:]}_*.ipynb")):
        names: dict[str, Any] = {"__name__": notebook.stem}
        for statement in _definitions(notebook):
            # An import that is missing here, or a default that needs what another cell computes: go on without.
            with contextlib.suppress(Exception):
                exec(_compiled(statement, notebook.name), names)
        found = names.get(name, found)
    return found if callable(found) else None


def _definitions(notebook: Path) -> Iterator[ast.stmt]:
    """The imports, functions, classes and constants at the top level of a notebook's code cells, in order."""
    for cell in _cells(notebook):
        if cell.cell_type == "code":
            yield from filter(_defines, _statements(cell.source))


def _statements(source: str) -> list[ast.stmt]:
    """A cell's statements; lines for IPython become calls, which define nothing. None where it is no Python at all."""
    if source.startswith("%%"):  # %%time and its like stand above Python; what stands below another does not parse
        source = source.partition("\n")[2]
    try:
        return ast.parse(TransformerManager().transform_cell(source)).body  # type: ignore[no-untyped-call]
    except SyntaxError:
        return []


def _cells(notebook: Path) -> list[nbformat.NotebookNode]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old notebooks lack cell ids, which does not matter here
            cells: list[nbformat.NotebookNode] = nbformat.read(notebook, as_version=4).cells  # type: ignore[no-untyped-call]
    except Exception:  # nbformat raises of every kind for what is no notebook
        return []
    return cells


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        try:
            ast.literal_eval(statement.value or ast.Constant(None))
        except ValueError:
            return False
        return True
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def _compiled(statement: ast.stmt, where: str) -> Any:
    # Annotations stay text, as everywhere in this file: they may name what is not defined here.
    module = ast.Module([statement], [])
    return compile(module, where, "exec", annotations.compiler_flag, dont_inherit=True)


def update_from(
    *,
    fisher_product: Callable[[Policy, Tensor, Tensor, Tensor], Tensor],
    solve: Callable[[Callable[[Tensor], Tensor], Tensor, int], Tensor],
    full_step: Callable[[Tensor, Callable[[Tensor], Tensor], float, float], Tensor],
    search: Callable[..., Tensor],
) -> Callable[..., Tensor]:
    """TRPO's update, put together from what lessons 04 and 05 ask for; surrogate and mean KL are the package's.

    The result maps (policy, theta [num_parameters], batch) and, by name, delta in nats, damping, shrink, iterations of
    conjugate gradient and tries of the search to the new theta.
    """

    def update(
        policy: Policy,
        theta: Tensor,
        batch: Batch,
        delta: float = 0.01,
        damping: float = 0.1,
        shrink: float = 0.5,
        iterations: int = 10,
        tries: int = 11,
    ) -> Tensor:
        def product(v: Tensor) -> Tensor:
            return fisher_product(policy, theta, batch.obs, v)

        def surrogate(new: Tensor) -> float:
            return surrogate_value(policy, new, batch)

        def kl_from_old(new: Tensor) -> float:
            return mean_kl(policy, theta, new, batch)

        gradient = surrogate_gradient(policy, theta, batch)
        x = solve(lambda v: product(v) + damping * v, gradient, iterations)
        step = full_step(x, product, damping, delta)
        return search(surrogate, kl_from_old, theta, step, delta, shrink, tries)

    return update
