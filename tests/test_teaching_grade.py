"""Grading runs a student's notebook in a kernel of its own and reports what the checks found."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import nbformat
import pytest

from trpo_lessons.teaching.checks import RESULTS_VARIABLE
from trpo_lessons.teaching.grade import GradingError, _exercises, _run, as_json, as_text, grade, main

IMPORT = "from teaching_fixture import weighted_mean_check, score_check, weighted_mean, probabilities"


def write_notebook(path: Path, *cells: str, tags: dict[int, str] | None = None) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    for index, tag in (tags or {}).items():
        notebook.cells[index].metadata["tags"] = [tag]
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell("Read this."))
    nbformat.write(notebook, path)
    return path


@pytest.fixture(autouse=True)
def _fixture_lesson_can_be_imported(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    (folder / "data.txt").write_text("found")
    path = write_notebook(
        folder / "homework.ipynb",
        IMPORT,
        "def stub(values, weights):\n    raise NotImplementedError",
        "weighted_mean_check(stub)\nweighted_mean_check(weighted_mean)",
        "1 / 0",
        "score_check(probabilities)",
        "assert open('data.txt').read() == 'found'",
        "raise KeyError('announced')",
        tags={6: "raises-exception"},
    )
    before = path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        report = grade(path)
    assert path.read_bytes() == before
    return report


def test_every_exercise_is_reported_in_the_lesson_s_order(report):
    assert [(exercise.name, exercise.status) for exercise in report.exercises] == [
        ("weighted_mean", "passed"),
        ("log_softmax_score", "wrong"),
    ]
    assert report.exercises[1].line.startswith("log_softmax_score: not yet. You return the probabilities themselves;")


def test_grading_goes_on_after_an_error_and_names_its_cell(report):
    assert report.errors == ("code cell 4: ZeroDivisionError: division by zero",)


def test_the_report_reads_well(report):
    assert as_text(report).splitlines() == [
        "homework.ipynb",
        "  weighted_mean: passed",
        f"  {report.exercises[1].line}",
        "  also: code cell 4: ZeroDivisionError: division by zero",
        "1 of 2 exercises pass",
    ]


def test_the_report_as_json(report):
    parsed = json.loads(as_json(report))
    assert (parsed["passed"], parsed["total"], parsed["notebook"]) == (1, 2, "homework.ipynb")
    assert parsed["exercises"][0] == {
        "name": "weighted_mean",
        "lesson": "teaching_fixture",
        "minutes": 4,
        "status": "passed",
        "line": "weighted_mean: passed",
    }


def test_the_command_succeeds_only_if_every_exercise_passes(tmp_path, capsys):
    solved = write_notebook(
        tmp_path / "solved.ipynb",
        IMPORT + ", log_softmax_score",
        "weighted_mean_check(weighted_mean)\nscore_check(log_softmax_score)",
    )
    assert main([str(solved)]) == 0
    assert capsys.readouterr().out.endswith("2 of 2 exercises pass\n")


def test_an_exercise_whose_check_was_deleted_does_not_pass(tmp_path, capsys):
    partial = write_notebook(tmp_path / "partial.ipynb", IMPORT, "weighted_mean_check(weighted_mean)")
    assert main([str(partial), "--json"]) == 1
    parsed = json.loads(capsys.readouterr().out)
    assert [exercise["status"] for exercise in parsed["exercises"]] == ["passed", "not checked"]


def test_a_cell_that_does_not_end_is_stopped_and_later_cells_run(tmp_path):
    path = write_notebook(tmp_path / "loop.ipynb", "while True:\n    pass", "1 / 0")
    notebook = nbformat.read(path, as_version=4)
    errors = asyncio.run(_run(notebook, path, tmp_path / "results", seconds_per_cell=2))
    assert errors == ["code cell 1: stopped after 2 s", "code cell 2: ZeroDivisionError: division by zero"]


def test_a_kernel_that_dies_is_reported(tmp_path):
    path = write_notebook(tmp_path / "crash.ipynb", "import os", "os._exit(1)", "1 / 0")
    notebook = nbformat.read(path, as_version=4)
    (error,) = asyncio.run(_run(notebook, path, tmp_path / "results", seconds_per_cell=60))
    assert error.startswith("code cell 2: the kernel died here")


def test_a_check_that_never_ended_is_told_from_one_that_was_never_called():
    def entry(event, exercise, **details):
        return {"event": event, "exercise": exercise, "lesson": "lesson_99"} | details

    entries = [
        entry("declared", "one", minutes=1),
        entry("declared", "two", minutes=2),
        entry("declared", "three", minutes=3),
        entry("started", "two"),
        entry("started", "three"),
        entry("finished", "three", status="wrong", line="three: not yet. Why."),
        entry("started", "three"),
        entry("finished", "three", status="passed", line="three: passed"),
    ]
    assert [exercise.status for exercise in _exercises(entries)] == ["not checked", "did not finish", "passed"]


def test_a_lesson_that_uses_functions_of_earlier_ones_is_graded_by_its_own_exercises(tmp_path, capsys):
    """Lessons 05, 06 and 09 import the checks of lessons before them for `own_functions.gather`."""
    solved = write_notebook(
        tmp_path / "05_solved.ipynb",
        "from trpo_lessons.teaching.lesson_04 import check as check_04\n"
        "from trpo_lessons.teaching.lesson_05 import check\n"
        "from trpo_lessons.teaching.own_functions import gather\n"
        "from trpo_lessons.teaching.solutions import lesson_05 as solutions",
        "check.full_step(solutions.full_step)\ncheck.search(solutions.search)\n"
        "check.sampled_kl(solutions.sampled_kl)\ncheck.culprits(solutions.culprits)",
        "gather(check_04.solve, check.search, here={'search': solutions.search})",
    )
    assert main([str(solved)]) == 0
    assert capsys.readouterr().out.endswith("4 of 4 exercises pass\n")


def test_what_counts_are_lessons_whose_checks_were_called_and_the_last_one():
    def lessons_of(*events):
        entries = [{"event": "declared", "exercise": "one", "lesson": f"lesson_0{n}", "minutes": 1} for n in (4, 5, 6)]
        entries += [{"event": "started", "exercise": "one", "lesson": f"lesson_0{n}"} for n in events]
        return [exercise.lesson for exercise in _exercises(entries)]

    assert lessons_of() == ["lesson_06"]
    assert lessons_of(6) == ["lesson_06"]
    assert lessons_of(4) == ["lesson_04", "lesson_06"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("print('a script')", "not a Jupyter notebook"),
        ('{"cells": 3}', "not a Jupyter notebook"),
        ("[]", "not a Jupyter notebook"),
    ],
)
def test_a_bad_file_is_one_clear_line_and_status_2(tmp_path, capsys, content, message):
    path = tmp_path / "bad.ipynb"
    if content is not None:
        path.write_text(content)
    assert main([str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{path}: {message}\n"


def test_a_notebook_without_exercises_cannot_be_graded(tmp_path):
    path = write_notebook(tmp_path / "other.ipynb", "import nowhere_to_be_found", "2 + 2")
    with pytest.raises(GradingError, match=r"no exercises found, is this a lesson's notebook.*No module named"):
        grade(path)


def test_checks_write_nothing_in_a_student_s_own_session(monkeypatch, tmp_path, capsys):
    from teaching_fixture import weighted_mean, weighted_mean_check

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RESULTS_VARIABLE, raising=False)
    weighted_mean_check(weighted_mean)
    assert capsys.readouterr().out == "weighted_mean: passed\n"
    assert os.listdir(tmp_path) == []
