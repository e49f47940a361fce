"""Validates lessons, and shows that validation would notice if one were broken.

    static_faults(notebook)            what is wrong with the file as it is stored
    run_strict(path, scratch)          strict nbval in a fresh process: {code cell: why it failed, or ""}
    missed_canaries(path, scratch)     damages a copy of the lesson on purpose: the damage that stayed unnoticed

Code cells are counted from 0, as nbval counts them. A cell that skips comparison carries metadata
``{"lesson": {"skip_reason": "...", "sabotage": "..."}}``: why its output cannot be stable, and a statement which, run
after the cell, makes its result what it would be if the cell had done nothing (``returns[:] = 0``). The next code cell
must notice that.

nbval does not notice everything: it passes a cell whose outputs were stripped together with its execution count
(`static_faults` refuses that), and compares neither pictures, widget views nor anything of a skipped cell. So this
module is also a pytest plugin, loaded into the nbval process, that compares the *kinds* of output of every cell, stored
against fresh: a blanked picture, a widget that is gone or an emptied skipped cell then turns validation red.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat import NotebookNode
from nbval.plugin import NbCellError, find_comment_markers, find_metadata_tags

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
COMPARED_TEXT = ("text/plain", "text/html", "text/markdown", "text/latex")
UNSTABLE = {
    "a path of somebody's machine": r"(?<![\w.])(?:/(?:home|Users|root|tmp|private)/\w|[A-Z]:\\Users)|site-packages",
    "an object address": r"\b0x[0-9a-fA-F]{6,}",
    "a warning": r"\b\w*Warning\b",
}
# A decimal number; a version such as 0.1.0 is none.
DECIMAL = re.compile(r"(?<![\w.])(\d*\.\d+)(?![\d]|\.\d)")
# Where a cell moves the controls of the explorer above it: `explorer.set(...)` or `slider.value = ...`.
MOVES_CONTROLS = re.compile(r"\.set\(|\.value\s*=[^=]")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_skipped(cell: NotebookNode) -> bool:
    """Whether nbval would leave this cell's outputs uncompared."""
    options = {**dict(find_metadata_tags(cell.metadata)), **dict(find_comment_markers(cell.source))}
    return options.get("check") is False or "skip" in options or "check_exception" in options


def shows_widget(cell: NotebookNode) -> bool:
    return any(WIDGET_VIEW in output.get("data", {}) for output in cell.outputs)


def kinds(outputs: list[NotebookNode]) -> set[str]:
    """What sorts of output there are: names of streams, MIME types, "error"."""
    found: set[str] = set()
    for output in outputs:
        found |= {output.name} if output.output_type == "stream" else set(output.get("data", {"error": None}))
    return found


# ---- the stored file -------------------------------------------------------------------------------------------------


def static_faults(notebook: NotebookNode) -> list[str]:
    """Everything wrong with a notebook that can be seen without running it; an empty list if all is well."""
    cells = code_cells(notebook)
    faults = [f"cell {number}: {fault}" for number in range(len(cells)) for fault in _cell_faults(cells, number)]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        faults.append("its kernel is not python3, which every Jupyter has")
    skipped = sum(map(is_skipped, cells))
    if skipped * 10 > len(cells):
        faults.append(f"{skipped} of {len(cells)} code cells skip comparison: more than one in ten")
    return faults


def _cell_faults(cells: list[NotebookNode], number: int) -> Iterator[str]:
    cell, following = cells[number], cells[number + 1] if number + 1 < len(cells) else None
    if cell.execution_count != number + 1:
        yield f"execution count {cell.execution_count}, not {number + 1}: run all cells in a fresh kernel, and save"
    if {"stderr", "error"} & kinds(cell.outputs):
        yield "its stored output holds an error or a warning"
    for what, pattern in UNSTABLE.items():
        if any(re.search(pattern, text) for text in _texts(cell)):
            yield f"its stored output holds {what}"
    for number_text in DECIMAL.findall("" if is_skipped(cell) else "\n".join(_texts(cell))):
        if len(number_text.replace(".", "").lstrip("0")) > 3:
            yield f"its stored output gives {number_text}: more than the three digits that every machine agrees on"
    if is_skipped(cell):
        lesson = cell.metadata.get("lesson", {})
        if len(lesson.get("skip_reason", "")) < 20:
            yield "skips comparison without a skip_reason in its metadata"
        if following is None or is_skipped(following) or not lesson.get("sabotage"):
            yield "skips comparison, so it needs a sabotage in its metadata, and a next cell that would notice it"
    moved = following is not None and MOVES_CONTROLS.search(following.source) and "stdout" in kinds(following.outputs)
    if shows_widget(cell) and not moved:
        yield "shows a widget, so the next code cell must move its controls and print the facts"


def _texts(cell: NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        yield from (output.text,) if output.output_type == "stream" else ()
        yield from (text for mime, text in output.get("data", {}).items() if mime in COMPARED_TEXT)


# ---- strict nbval ----------------------------------------------------------------------------------------------------


def run_strict(path: Path, scratch: Path) -> dict[int, str]:
    """Run `path` under strict nbval in a process of its own; why each code cell failed, "" where it did not."""
    report = scratch / f"{path.stem}.xml"
    report.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "nbval.plugin",
        "-p",
        Path(__file__).stem,
        "-p",
        "no:cacheprovider",
    ]
    command += ["--nbval", "--nbval-cell-timeout=300", "--nbval-kernel-startup-timeout=300", "--color=no"]
    command += ["-c", os.devnull, f"--rootdir={path.parent}", f"--junitxml={report}", str(path)]
    # A reader's own IPython settings and the outer pytest's options would change what the cells print.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"IPYTHONDIR": str(scratch / "ipython"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if not report.exists():
        raise RuntimeError(f"nbval did not run on {path.name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    results: dict[int, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failures = [element.text or "" for element in case if element.tag in ("failure", "error")]
        results[int(case.attrib["name"].removeprefix("Cell "))] = "\n".join(failures)
    return results


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """In the nbval process: after nbval's own comparison, compare the kinds of output of every cell that ran."""
    result = yield
    cell: Any = item
    fresh = getattr(cell, "test_outputs", None)
    if fresh is not None and kinds(fresh) != kinds(cell.cell.outputs):
        message = f"Cell outputs differ in kind: stored {sorted(kinds(cell.cell.outputs))}, now {sorted(kinds(fresh))}"
        raise NbCellError(cell.cell_num, message, cell.cell.source)
    return result


# ---- canaries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canary:
    """Damage done on purpose; validation must fail at code cell `cell`, for a reason that holds `symptom`."""

    cell: int
    damage: str
    symptom: str = "Cell outputs differ"


def missed_canaries(path: Path, scratch: Path) -> list[str]:
    """Damage copies of a lesson at cells drawn from its content, and tell what validation did not notice.

    One run carries several canaries, each at a cell of its own, because nbval judges every cell by itself. A cell that
    fails without a canary is reported too: then a canary's neighbor might have failed for the wrong reason.
    """
    notebook = nbformat.read(path, as_version=4)
    draw = random.Random(hashlib.sha256(path.read_bytes()).digest())
    damaged, canaries = _plant(notebook, draw)
    lost = [] if canaries else ["no cell has a digit in its output, or an output that could be blanked"]
    lost += _unnoticed(damaged, canaries, scratch, f"{path.stem}_canaries", strangers_allowed=False)
    for number, cell in enumerate(code_cells(notebook)):
        if is_skipped(cell):
            damaged, canary = _sabotage(notebook, number)
            name = f"{path.stem}_sabotage_{number}"
            lost += _unnoticed(damaged, [canary], scratch, name, strangers_allowed=True)
    return lost


def _unnoticed(
    damaged: NotebookNode, canaries: list[Canary], scratch: Path, name: str, *, strangers_allowed: bool
) -> list[str]:
    last = max((canary.cell for canary in canaries), default=-1)
    copy = nbformat.from_dict(damaged)
    while len(code_cells(copy)) > last + 1:
        copy.cells.pop()  # what comes after the last canary only costs time
    target = scratch / f"{name}.ipynb"
    nbformat.write(copy, target)
    results = run_strict(target, scratch)
    lost = [
        f"cell {canary.cell}: {canary.damage} went unnoticed"
        for canary in canaries
        if canary.symptom not in results[canary.cell] or not results[canary.cell]
    ]
    strangers = {number for number, reason in results.items() if reason} - {canary.cell for canary in canaries}
    if strangers and not strangers_allowed:
        number = min(strangers)
        lost.append(f"cell {number} failed though nothing was done to it:\n{results[number]}")
    return lost


def _plant(notebook: NotebookNode, draw: random.Random) -> tuple[NotebookNode, list[Canary]]:
    """A copy with every explorer's callbacks broken, every widget gone, two cells blanked and two digits changed."""
    damaged = nbformat.from_dict(notebook)
    cells = code_cells(damaged)
    canaries = []
    for number, cell in enumerate(cells):
        if shows_widget(cell):
            cell.source = RUN_UNSEEN.format(source=cell.source)
            canaries += [Canary(number, "a removed widget"), Canary(number + 1, "a broken callback", symptom="")]
    if canaries:
        cells[0].source = BREAK_CALLBACKS + cells[0].source

    def free(wanted: Any) -> list[int]:
        taken = {canary.cell for canary in canaries}
        numbers = [number for number, cell in enumerate(cells) if number not in taken and wanted(cell)]
        return draw.sample(numbers, min(2, len(numbers)))

    for number in free(lambda cell: not is_skipped(cell) and any(re.search(r"\d", text) for text in _texts(cell))):
        change = _change_digit(cells[number], draw)
        canaries.append(Canary(number, f"a changed digit ({change})"))
    for number in free(lambda cell: bool(cell.outputs)):
        cells[number].outputs = []
        canaries.append(Canary(number, "blanked outputs"))
    return damaged, canaries


def _sabotage(notebook: NotebookNode, number: int) -> tuple[NotebookNode, Canary]:
    """A copy in which a skipped cell is left with a worthless result: the next code cell must notice."""
    damaged = nbformat.from_dict(notebook)
    cell = code_cells(damaged)[number]
    statement = cell.metadata.lesson.sabotage
    cell.source += f"\n{statement}\n"
    return damaged, Canary(number + 1, f"a skipped cell sabotaged with {statement!r}", symptom="")


def _change_digit(cell: NotebookNode, draw: random.Random) -> str:
    """Change one digit of the stored output, wherever nbval compares it; tells which."""
    places: list[tuple[Any, str]] = []
    for output in cell.outputs:
        holder = output if output.output_type == "stream" else output.get("data", {})
        places += [(holder, key) for key in ("text", *COMPARED_TEXT) if re.search(r"\d", holder.get(key, ""))]
    holder, key = draw.choice(places)
    text: str = holder[key]
    at = draw.choice([match.start() for match in re.finditer(r"\d", text)])
    digit = str((int(text[at]) + draw.randint(1, 9)) % 10)
    holder[key] = text[:at] + digit + text[at + 1 :]
    return f"{text[at]} to {digit}"


# The cell runs, but nothing of it reaches the page.
RUN_UNSEEN = """\
from IPython.utils.capture import capture_output
with capture_output():
    get_ipython().run_cell({source!r})
"""
# Observers of the libraries' own are left alone: without them no widget could be built.
BREAK_CALLBACKS = textwrap.dedent(
    """\
    import traitlets as _traitlets
    _observe = _traitlets.HasTraits.observe
    def _observe_libraries_only(self, handler, *args, **kwargs):
        if (getattr(handler, "__module__", None) or "").partition(".")[0] in ("ipywidgets", "traitlets"):
            _observe(self, handler, *args, **kwargs)
    _traitlets.HasTraits.observe = _observe_libraries_only
    """
)
