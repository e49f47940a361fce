"""Validates lessons, and shows that validation would notice if one were broken.

    static_faults(notebook)   what is wrong with the file as it is stored
    run_strict(path, scratch) strict nbval in a fresh process: {code cell: why it failed, or ""}
    validate(path, scratch)   the same, and every kind of damage tried on the way: what stayed unnoticed

Code cells are counted from 0, as nbval counts them. A cell that skips comparison carries metadata
``{"lesson": {"skip_reason": "...", "sabotage": "..."}}``: why its output cannot be stable, and a statement which, run
after the cell, makes its result what it would be if the cell had done nothing (``returns = 0 * returns``; it may bind
names anew, and must leave objects as they are). The next code cell must notice that.

nbval does not notice everything: it passes a cell whose outputs were stripped together with its execution count
(`static_faults` refuses that), and compares neither pictures, widget views nor anything of a skipped cell. So this
module is also a pytest plugin, loaded into the nbval process, that compares the *kinds* of output of every cell, stored
against fresh: a blanked picture, a widget that is gone or an emptied skipped cell then turns validation red.

Canaries are tried by the same plugin, in the same run, as soon as the cell they belong to has passed: what is stored is
damaged and compared once more with what has just been computed, or a cell is run once more after its callbacks were
broken, its widget hidden or its data sabotaged. Then the lesson's names are bound as they were, and the lesson goes on.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from nbval.plugin import NbCellError, find_comment_markers, find_metadata_tags

SANITIZER = Path(__file__).parent.parent / "notebooks" / "nbval.cfg"
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
# What nbval leaves out before it compares (notebooks/nbval.cfg): a picture's bytes.
PICTURE_BYTES = re.compile(r"data:image/(?:png|gif);base64,[A-Za-z0-9+/=]+")
# Longer drawing than this is in the reader's way: it stands in a collapsed cell, or in the package.
DRAWING_LINES = 10
# Where a cell moves the controls of the explorer above it: `explorer.set(...)` or `slider.value = ...`.
MOVES_CONTROLS = re.compile(r"\.set\(|\.value\s*=[^=]")
# The same, or a stored picture of settings: `explorer.static(...)`. A plot's `axes.set(...)` is neither.
SHOWS_SETTINGS = re.compile(r"\b(\w+)\.(?:set|static)\(|\bshow_\w+\(")
ASKS = re.compile(r"\*\*(predict|find out)", re.IGNORECASE)
ANSWER = re.compile(r"<details>(.*?)</details>", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[-+]?\d+)?")


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
    return faults + given_away(notebook)


def given_away(notebook: NotebookNode) -> list[str]:
    """Numbers that an explorer's cell shows between a question and its answer, and that the answer names.

    Only those that a reader has met nowhere before: in no text, code or output up to the question. So a number that
    the question itself holds is none, and neither is an answer in words, or one that is rounded in another way.
    """
    faults, met, asked, number, explorers = [], set[str](), None, -1, {None}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            number += 1
            held = set(NUMBER.findall("\n".join([cell.source, *_texts(cell)])))
            if shows_widget(cell):
                explorers.add(cell.source.split()[-1])
            if asked is not None and any(name in explorers for name in _settings_shown_by(cell)):
                answer = next(
                    (found for after in notebook.cells[place:] if (found := ANSWER.search(after.source))), None
                )
                told = (held - asked) & set(NUMBER.findall(answer[1] if answer else ""))
                if told:
                    faults.append(f"cell {number}: gives away {', '.join(sorted(told))}, which the answer below names")
        else:
            held = set(NUMBER.findall(cell.source))
        met |= held
        if cell.cell_type == "markdown" and ("<details>" in cell.source or ASKS.search(cell.source)):
            asked = set(met) if ASKS.search(ANSWER.sub("", cell.source)) else None
    return faults


def _settings_shown_by(cell: NotebookNode) -> list[str | None]:
    """Names of what the cell calls `set` or `static` of; None for a function of the lesson that shows settings."""
    return [found[1] for found in SHOWS_SETTINGS.finditer(cell.source)]


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
    yield from filter(None, (picture_fault(output.get("data", {})) for output in cell.outputs))
    yield from code_faults(cell)
    moved = following is not None and MOVES_CONTROLS.search(following.source) and "stdout" in kinds(following.outputs)
    if shows_widget(cell) and not moved:
        yield "shows a widget, so the next code cell must move its controls and print the facts"


def _texts(cell: NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        yield from (output.text,) if output.output_type == "stream" else ()
        data = output.get("data", {})
        yield from (PICTURE_BYTES.sub("PICTURE", data[mime]) for mime in COMPARED_TEXT if mime in data)


def picture_fault(data: dict[str, Any]) -> str | None:
    """Why a picture's alternative text does not reach the page; None if it does, or if this is no picture."""
    if "image/png" not in data:
        return None
    images = BeautifulSoup(data.get("text/html", ""), "html.parser").find_all("img")
    if not images:
        return "shows a picture that is no HTML <img>, so its alternative text does not reach the page"
    missing = [image for image in images if not str(image.get("alt", "")).strip()]
    return "shows a picture without alternative text" if missing else None


def code_faults(cell: NotebookNode) -> Iterator[str]:
    """Whether drawing is in the reader's way, and whether what is collapsed only draws."""
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:  # a line of IPython's own
        return
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With) and "figure(" in ast.unparse(node.items[0])]
    lines = sum((block.end_lineno or 0) - block.lineno + 1 for block in blocks)
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        if lines > DRAWING_LINES:
            yield f"{lines} lines of drawing: collapse it, in a cell of its own"
        return
    if not lines:
        yield "is collapsed and draws nothing"
    for node in ast.walk(tree):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if called in ("verdict", "print") or isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assert):
            yield f"is collapsed, so {called or 'what it defines or asserts'} belongs into a cell that can be seen"


# ---- strict nbval ----------------------------------------------------------------------------------------------------


def run_strict(path: Path, scratch: Path) -> dict[int, str]:
    """Run `path` under strict nbval in a process of its own; why each code cell failed, "" where it did not."""
    return _nbval(path, scratch, {})


def validate(path: Path, scratch: Path) -> tuple[dict[int, str], list[str]]:
    """What `run_strict` finds, and which damage, done on purpose on the way, nobody would have noticed."""
    draw = random.Random(hashlib.sha256(path.read_bytes()).digest())
    canaries = plan_canaries(nbformat.read(path, as_version=4), draw)
    plan, noticed = scratch / f"{path.stem}.plan", scratch / f"{path.stem}.noticed"
    plan.write_text(json.dumps([asdict(canary) for canary in canaries]))
    noticed.write_text("")
    failures = _nbval(path, scratch, {PLAN: str(plan), NOTICED: str(noticed)})
    seen = noticed.read_text().splitlines()
    lost = [f"cell {canary.cell}: {canary.damage} went unnoticed" for canary in canaries if str(canary) not in seen]
    return failures, lost if canaries else ["no cell has an output that could be damaged"]


def _nbval(path: Path, scratch: Path, variables: dict[str, str]) -> dict[int, str]:
    report = scratch / f"{path.stem}.xml"
    report.unlink(missing_ok=True)
    plugins = ["-p", "nbval.plugin", "-p", Path(__file__).stem, "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins]
    command += ["--nbval", "--nbval-cell-timeout=300", "--nbval-kernel-startup-timeout=300", "--color=no"]
    command += [f"--nbval-sanitize-with={SANITIZER}"]
    command += ["-c", os.devnull, f"--rootdir={path.parent}", f"--junitxml={report}", str(path)]
    # A reader's own IPython settings and the outer pytest's options would change what the cells print.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"IPYTHONDIR": str(scratch / "ipython"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
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
    """In the nbval process: after nbval's own comparison, compare the kinds of output; then try the cell's canaries."""
    result = yield
    cell: Any = item
    if getattr(cell, "test_outputs", None) is not None:
        _compare_kinds(cell)
        if PLAN in os.environ:
            _try_canaries(cell)
    return result


def _compare_kinds(cell: Any) -> None:
    stored, fresh = kinds(cell.cell.outputs), kinds(cell.test_outputs)
    if stored != fresh:
        message = f"Cell outputs differ in kind: stored {sorted(stored)}, now {sorted(fresh)}"
        raise NbCellError(cell.cell_num, message, cell.cell.source)


# ---- canaries --------------------------------------------------------------------------------------------------------

PLAN, NOTICED = "LESSON_CANARIES", "LESSON_CANARIES_NOTICED"


@dataclass(frozen=True)
class Canary:
    """Damage done on purpose, after code cell `cell` has passed.

    `stored` damages what the file holds. `hides_widget` and `before` run a cell once more: with nothing of it reaching
    the page, or after this code and the cell before it.
    """

    cell: int
    damage: str
    stored: str | None = None  # outputs as JSON
    hides_widget: bool = False
    before: str = ""


def plan_canaries(notebook: NotebookNode, draw: random.Random) -> list[Canary]:
    """For every output: gone, and with one digit changed. For every explorer: gone, and its callbacks broken. For every
    skipped cell: its sabotage."""
    cells, canaries = code_cells(notebook), []
    for number, cell in enumerate(cells):
        if cell.outputs:
            canaries.append(Canary(number, "blanked outputs", stored="[]"))
        if not is_skipped(cell) and any(re.search(r"\d", text) for text in _texts(cell)):
            outputs, change = _change_digit(cell, draw)
            canaries.append(Canary(number, f"a changed digit ({change})", stored=outputs))
        if shows_widget(cell):
            canaries.append(Canary(number, "a removed widget", hides_widget=True))
            broken = f"{BREAK_CALLBACKS}\n{RUN_UNSEEN.format(source=cell.source)}"
            canaries.append(Canary(number + 1, "a broken callback", before=broken))
        if is_skipped(cell):
            statement = cell.metadata.get("lesson", {}).get("sabotage", "")
            canaries.append(Canary(number + 1, f"a skipped cell sabotaged with {statement!r}", before=statement))
    return canaries


def _change_digit(cell: NotebookNode, draw: random.Random) -> tuple[str, str]:
    """The stored outputs with one digit changed, wherever nbval compares it; and which."""
    outputs = [nbformat.from_dict(output) for output in cell.outputs]
    places: list[tuple[Any, str]] = []
    for output in outputs:
        holder = output if output.output_type == "stream" else output.get("data", {})
        compared = [(key, PICTURE_BYTES.sub("", holder.get(key, ""))) for key in ("text", *COMPARED_TEXT)]
        places += [(holder, key) for key, text in compared if re.search(r"\d", text)]
    holder, key = draw.choice(places)
    text = str(holder[key])
    left_out = [at for match in PICTURE_BYTES.finditer(text) for at in range(*match.span())]
    at = draw.choice(sorted({match.start() for match in re.finditer(r"\d", text)} - set(left_out)))
    digit = str((int(text[at]) + draw.randint(1, 9)) % 10)
    holder[key] = text[:at] + digit + text[at + 1 :]
    return json.dumps(outputs), f"{text[at]} to {digit}"


def _try_canaries(cell: Any) -> None:
    """In the nbval process: try the canaries of a cell that has passed, and note which were noticed."""
    fresh = cell.test_outputs
    for entry in json.loads(Path(os.environ[PLAN]).read_text()):
        canary = Canary(**entry)
        if canary.cell != cell.cell_num:
            continue
        if canary.stored is not None:
            noticed = _would_notice(cell, fresh, nbformat.from_dict(json.loads(canary.stored)))
        else:
            noticed = _notices_when_run(cell, canary)
        if noticed:
            with open(os.environ[NOTICED], "a", encoding="utf-8") as file:
                file.write(f"{canary}\n")


def _would_notice(cell: Any, fresh: list[NotebookNode], stored: list[NotebookNode]) -> bool:
    """Whether a cell with these outputs stored would fail, for what it has just computed."""
    if kinds(stored) != kinds(fresh):
        return True
    return bool(cell.options["check"]) and not cell.compare_outputs(fresh, stored)


def _notices_when_run(cell: Any, canary: Canary) -> bool:
    """Run a cell once more, damaged, and bind the lesson's names as they were afterwards."""
    try:
        if _failure(cell, SAVE_NAMES, []):
            return False
        if canary.hides_widget:
            hidden = _failure(cell, RUN_UNSEEN.format(source=cell.cell.source), cell.cell.outputs)
            return "Cell outputs differ" in hidden
        return not _failure(cell, canary.before, []) and bool(_failure(cell, cell.cell.source, cell.cell.outputs))
    finally:
        left = _failure(cell, RESTORE_NAMES, [])
        assert not left, left


def _failure(cell: Any, source: str, stored: list[NotebookNode]) -> str:
    """Run `source` in the lesson's kernel as if it stood in this cell with `stored` outputs: why it fails, or ""."""
    original = cell.cell
    cell.cell = nbformat.from_dict({**original, "source": source, "outputs": stored, "execution_count": 1})
    try:
        cell.runtest()
        _compare_kinds(cell)
    except NbCellError as error:
        return str(error) or "failed"
    finally:
        cell.cell = original
    return ""


# The cell runs, but nothing of it reaches the page.
RUN_UNSEEN = """\
from IPython.utils.capture import capture_output
with capture_output():
    get_ipython().run_cell({source!r})
"""
# Observers of the libraries' own are left alone: without them no widget could be built.
BREAK_CALLBACKS = """\
import traitlets as _traitlets
_observe = _traitlets.HasTraits.observe
def _observe_libraries_only(self, handler, *args, **kwargs):
    if (getattr(handler, "__module__", None) or "").partition(".")[0] in ("ipywidgets", "traitlets"):
        _observe(self, handler, *args, **kwargs)
_traitlets.HasTraits.observe = _observe_libraries_only
"""
SAVE_NAMES = """\
def _save():
    import sys, traitlets
    sys.lesson_names = {**globals()}, traitlets.HasTraits.observe
    del sys.lesson_names[0]["_save"]
_save()
"""
RESTORE_NAMES = """\
def _restore():
    import sys, traitlets
    names, traitlets.HasTraits.observe = sys.lesson_names
    for name in set(globals()) - set(names):
        del globals()[name]
    globals().update(names)
_restore()
"""
