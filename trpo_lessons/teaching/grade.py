"""Report a student's notebook exercise by exercise: ``python -m trpo_lessons.teaching.grade FILE``.

The notebook runs in a fresh kernel of this Python, from its own folder, to the end, whatever its cells raise; the file
is not changed. What each exercise's check finds arrives as data, through a file, never by reading printed text. The
notebook's code runs with your rights: grade only what you would open.

Exit status: 0 if every exercise passes, 1 if not, 2 if the file cannot be graded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from trpo_lessons.teaching.checks import RESULTS_VARIABLE

SECONDS_PER_CELL = 120
SECONDS_TO_STOP = 10


class GradingError(Exception):
    """The file cannot be graded; the message is one line for the person who asked."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: status is passed, wrong, not attempted, not checked or did not finish."""

    name: str
    lesson: str
    minutes: int
    status: str
    line: str


@dataclass(frozen=True)
class Report:
    """All exercises of one notebook in the order of the lesson, and the cells that stopped with an error."""

    notebook: str
    exercises: tuple[Exercise, ...]
    errors: tuple[str, ...]

    @property
    def passed(self) -> int:
        return sum(exercise.status == "passed" for exercise in self.exercises)


class _ThisPython(KernelSpecManager):
    """Starts kernels in the running interpreter, whatever kernels are installed elsewhere under the same name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


def grade(path: Path, seconds_per_cell: int = SECONDS_PER_CELL) -> Report:
    """Run the notebook and collect what its checks found.

    Raises GradingError if `path` is no notebook or holds no exercises.
    """
    notebook = _read(path)
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        results.touch()
        errors = asyncio.run(_run(notebook, path, results, seconds_per_cell))
        entries = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    exercises = _exercises(entries)
    if not exercises:
        reason = f"; it stopped early: {errors[0]}" if errors else ""
        raise GradingError(f"{path}: no exercises found, is this a lesson's notebook?{reason}")
    return Report(path.name, exercises, tuple(errors))


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old notebooks lack cell ids, which does not matter here
            notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(notebook)
    except OSError as error:
        raise GradingError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:
        raise GradingError(f"{path}: not a Jupyter notebook") from None
    return notebook


async def _run(notebook: nbformat.NotebookNode, path: Path, results: Path, seconds_per_cell: int) -> list[str]:
    """Execute every cell; return one line for each code cell that stopped with an error."""
    client = NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisPython()),
        timeout=seconds_per_cell,
        allow_errors=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    package_root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {RESULTS_VARIABLE: str(results), "PYTHONPATH": python_path}
    code_cells = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    errors: list[str] = []
    async with client.async_setup_kernel(cleanup_kc=True, env=environment):
        for number, (index, cell) in enumerate(code_cells, start=1):
            problem, goes_on = await _run_cell(client, index, cell, seconds_per_cell)
            if problem:
                errors.append(f"code cell {number}: {problem}")
            if not goes_on:
                break
    return errors


async def _run_cell(client: NotebookClient, index: int, cell: Any, seconds: int) -> tuple[str | None, bool]:
    """Execute one cell; return what went wrong, if anything, and whether the kernel can go on."""
    kernel: Any = client.km
    connection: Any = client.kc
    try:
        await client.async_execute_cell(cell, index)
    except CellTimeoutError:
        await kernel.interrupt_kernel()
        try:
            await connection.wait_for_ready(timeout=SECONDS_TO_STOP)
        except RuntimeError:
            return f"still running after {seconds} s and did not react to an interrupt; later cells were not run", False
        return f"stopped after {seconds} s", True
    except DeadKernelError:
        return "the kernel died here (out of memory, or a crash in compiled code); later cells were not run", False
    raised = [output for output in cell.outputs if output.output_type == "error"]
    if not raised or "raises-exception" in cell.metadata.get("tags", []):
        return None, True
    return f"{raised[0].ename}: {raised[0].evalue}".splitlines()[0], True


def _exercises(entries: list[dict[str, Any]]) -> tuple[Exercise, ...]:
    """What the checks wrote down, in the order in which the lesson declares them; of several calls the last counts."""
    found: dict[tuple[str, str], Exercise] = {}
    for entry in entries:
        key = (entry["lesson"], entry["exercise"])
        if entry["event"] == "declared":
            line = f"{entry['exercise']}: its check was never called"
            found.setdefault(key, Exercise(entry["exercise"], entry["lesson"], entry["minutes"], "not checked", line))
        elif entry["event"] == "started":
            line = f"{entry['exercise']}: the check did not come to an end (an endless loop?)"
            found[key] = replace(found[key], status="did not finish", line=line)
        else:
            found[key] = replace(found[key], status=entry["status"], line=entry["line"])
    return _own(tuple(found.values()))


def _own(exercises: tuple[Exercise, ...]) -> tuple[Exercise, ...]:
    """Those that the notebook itself asks for.

    A lesson may import the checks of lessons before it, to use functions written there: these are declared, too, and
    never called. So what counts is every lesson of which a check was called, and the last one in any case.
    """
    own = {exercise.lesson for exercise in exercises if exercise.status != "not checked"}
    own.add(max((exercise.lesson for exercise in exercises), default=""))
    return tuple(exercise for exercise in exercises if exercise.lesson in own)


def as_text(report: Report) -> str:
    """The report for people, one line an exercise."""
    lines = [report.notebook, *(f"  {exercise.line}" for exercise in report.exercises)]
    lines += [f"  also: {error}" for error in report.errors]
    return "\n".join([*lines, f"{report.passed} of {len(report.exercises)} exercises pass"])


def as_json(report: Report) -> str:
    """The report for programs."""
    return json.dumps(asdict(report) | {"passed": report.passed, "total": len(report.exercises)}, indent=2)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trpo_lessons.teaching.grade",
        description="Report a student's notebook exercise by exercise. The notebook's code runs with your rights.",
        epilog="Exit status: 0 if every exercise passes, 1 if not, 2 if the file cannot be graded.",
    )
    parser.add_argument("file", type=Path, help="the student's notebook; it is not changed")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--seconds-per-cell", type=int, default=SECONDS_PER_CELL, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        report = grade(options.file, options.seconds_per_cell)
    except GradingError as error:
        print(error, file=sys.stderr)
        return 2
    print(as_json(report) if options.json else as_text(report))
    return 0 if report.passed == len(report.exercises) else 1


if __name__ == "__main__":
    sys.exit(main())
