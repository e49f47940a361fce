"""The lessons run to what is stored in them, and validation would notice if they did not.

`make test-lesson LESSON=03` runs this for one lesson, twice over.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_harness import (
    BREAK_CALLBACKS,
    NOTEBOOKS,
    WIDGET_VIEW,
    code_cells,
    given_away,
    plan_canaries,
    run_strict,
    static_faults,
    validate,
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = metafunc.config.getoption("--lesson")
    if "lesson" in metafunc.fixturenames:
        lessons = [path for path in NOTEBOOKS if chosen is None or path.name.startswith(f"{chosen}_")]
        if not lessons:
            raise pytest.UsageError(f"there is no lesson {chosen}")
        metafunc.parametrize("lesson", lessons, ids=[path.stem for path in lessons])
    if "run" in metafunc.fixturenames:
        metafunc.parametrize("run", ["once"] if chosen is None else ["first", "second"])


def test_lesson_is_stored_whole_and_clean(lesson: Path) -> None:
    assert static_faults(nbformat.read(lesson, as_version=4)) == []


def test_no_code_line_of_a_lesson_is_cut_in_a_window_of_1280_pixels(lesson: Path) -> None:
    """JupyterLab has room for 104 characters there; `notebooks/ruff.toml` holds the rule for whoever formats."""
    lines = [line for cell in code_cells(nbformat.read(lesson, as_version=4)) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 104] == []


def test_every_picture_of_an_exported_lesson_has_its_alternative_text(lesson: Path) -> None:
    """With the template that nbconvert takes if it is told nothing; it writes a sentence of its own where none is."""
    html, _ = HTMLExporter().from_filename(str(lesson))
    alts = [str(image.get("alt", "")) for image in BeautifulSoup(html, "html.parser").find_all("img")]
    assert len(alts) >= 4
    assert [alt for alt in alts if len(alt.split()) < 5 or alt.startswith("No description")] == []


def test_lesson_runs_to_its_stored_outputs(lesson: Path, run: str, tmp_path: Path) -> None:
    """Once, and damage done to it on the way is noticed; `make test-lesson` does it twice."""
    results, unnoticed = validate(lesson, tmp_path)
    assert len(results) == len(code_cells(nbformat.read(lesson, as_version=4)))
    assert "\n".join(reason for reason in results.values() if reason) == "", f"{lesson.name}, {run} run"
    assert unnoticed == []


# ---- the harness itself, on a lesson made for the purpose ------------------------------------------------------------

SETTINGS = "import ipywidgets, random\nscale = 7\nscale"
WIDGET = """
slider, area = ipywidgets.IntSlider(value=1), ipywidgets.HTML()
slider.observe(lambda change: setattr(area, "value", f"{change.new * scale} apples"), names="value")
slider.value = 2
ipywidgets.VBox([slider])
"""
MOVED = "slider.value = 3\nprint(area.value)"
LIVE = "# NBVAL_IGNORE_OUTPUT\ndraws = [random.random() for _ in range(5)]\nprint(draws)"
NOTICED = "print('all five drawn:', min(draws) > 0)"
PICTURE = """
import base64
from IPython.display import display
png = base64.b64encode(random.randbytes(99)).decode()
html = f'<img alt="12 dots" src="data:image/png;base64,{png}">'
display({"image/png": png, "text/html": html, "text/plain": "Picture: 12 dots"}, raw=True)
"""
REASON = {"skip_reason": "Random numbers without a seed differ every time.", "sabotage": "draws = [0.0] * 5"}


def make_lesson(*sources: str) -> NotebookNode:
    """An executed notebook with these code cells and enough others that one may skip comparison."""
    fillers = [f"print({number} * 11)" for number in range(1, 11)]
    notebook = new_notebook(cells=[new_code_cell(source) for source in (*sources, *fillers)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in notebook.cells:
        if "NBVAL" in cell.source:
            cell.metadata["lesson"] = dict(REASON)
    NotebookClient(notebook, timeout=60).execute()
    return notebook


@pytest.fixture(scope="module")
def good() -> NotebookNode:
    return make_lesson(SETTINGS, WIDGET, MOVED, LIVE, NOTICED, PICTURE)


def save(notebook: NotebookNode, folder: Path) -> Path:
    path = folder / "99_example.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_good_lesson_passes_and_its_canaries_are_noticed(good: NotebookNode, tmp_path: Path) -> None:
    path = save(good, tmp_path)
    assert static_faults(nbformat.read(path, as_version=4)) == []
    results, unnoticed = validate(path, tmp_path)
    assert (set(results.values()), unnoticed) == ({""}, [])


def test_a_damaged_file_turns_red_where_the_damage_is(good: NotebookNode, tmp_path: Path) -> None:
    """What canaries try inside a run, done to the file itself."""
    notebook = nbformat.from_dict(good)
    cells = code_cells(notebook)
    cells[0].source = BREAK_CALLBACKS + cells[0].source
    cells[4].outputs[0].text = cells[4].outputs[0].text.replace("five", "six")
    html = cells[5].outputs[0].data["text/html"]
    cells[5].outputs[0].data["text/html"] = html.replace("12 dots", "13 dots")
    cells[6].outputs = []
    results = run_strict(save(notebook, tmp_path), tmp_path)
    assert {number for number, reason in results.items() if reason} == {2, 4, 5, 6}


def test_canaries_leave_the_lesson_as_it_was(tmp_path: Path) -> None:
    """What comes after them uses the widget, the data and a name that damage had bound anew."""
    later = "slider.value = 4\nprint(area.value, len(set(draws)), scale, 'sys' in dir(), '_observe' in dir())"
    path = save(make_lesson(SETTINGS, WIDGET, MOVED, LIVE, NOTICED, later), tmp_path)
    assert "28 apples 5 7 False False" in path.read_text()
    results, unnoticed = validate(path, tmp_path)
    assert (set(results.values()), unnoticed) == ({""}, [])


def test_canaries_of_a_cell_that_fails_are_not_taken_for_noticed(good: NotebookNode, tmp_path: Path) -> None:
    notebook = nbformat.from_dict(good)
    code_cells(notebook)[2].source = "raise ValueError"
    results, unnoticed = validate(save(notebook, tmp_path), tmp_path)
    assert [number for number, reason in results.items() if reason] == [2]
    assert {line.partition(":")[0] for line in unnoticed} == {"cell 2"}
    assert "cell 2: a broken callback went unnoticed" in unnoticed


def test_every_kind_of_damage_is_tried(good: NotebookNode) -> None:
    canaries = plan_canaries(good, random.Random(0))
    tried = {canary.damage.partition(" (")[0].partition(" with")[0] for canary in canaries}
    assert tried == {
        "blanked outputs",
        "a changed digit",
        "a removed widget",
        "a broken callback",
        "a skipped cell sabotaged",
    }
    assert [canary.cell for canary in canaries if "digit" in canary.damage] == [0, 1, 2, 5, *range(6, 16)]


def test_what_nbval_does_not_compare_is_compared_by_kind(good: NotebookNode, tmp_path: Path) -> None:
    notebook = nbformat.from_dict(good)
    cells = code_cells(notebook)
    cells[1].source = cells[1].source.replace("ipywidgets.VBox([slider])", "print('VBox')")
    cells[3].outputs = []
    del cells[5].outputs[0].data["image/png"]
    results = run_strict(save(notebook, tmp_path), tmp_path)
    assert {number for number, reason in results.items() if "Cell outputs differ" in reason} == {1, 3, 5}
    assert {number for number, reason in results.items() if reason} == {1, 3, 5}


def test_a_lesson_that_cannot_notice_damage_is_reported(tmp_path: Path) -> None:
    blind = "slider.value = 3\nprint('moved')"  # prints the same whether or not the callback ran
    careless = "print(len(draws))"
    path = save(make_lesson(SETTINGS, WIDGET, blind, LIVE, careless), tmp_path)
    results, unnoticed = validate(path, tmp_path)
    assert set(results.values()) == {""}
    assert unnoticed == [
        "cell 2: a broken callback went unnoticed",
        "cell 4: a skipped cell sabotaged with 'draws = [0.0] * 5' went unnoticed",
    ]


def test_a_collapsed_drawing_is_no_fault(good: NotebookNode) -> None:
    notebook = nbformat.from_dict(good)
    hides(DRAWS)(code_cells(notebook))
    assert static_faults(notebook) == []


def stderr(cells: list[NotebookNode]) -> None:
    cells[0].outputs = [new_output("stream", name="stderr", text="careful")]


def prints(text: str) -> Callable[[list[NotebookNode]], None]:
    def damage(cells: list[NotebookNode]) -> None:
        cells[0].outputs = [new_output("stream", name="stdout", text=text)]

    return damage


@pytest.mark.parametrize("text", ["1234 steps", "0.00123", "1.23e-12", "version 0.12.345", "delta = .01, 45.6%."])
def test_text_that_every_machine_prints_may_be_stored(good: NotebookNode, text: str) -> None:
    notebook = nbformat.from_dict(good)
    prints(text)(code_cells(notebook))
    assert static_faults(notebook) == []


def undescribed(cells: list[NotebookNode]) -> None:
    data = cells[5].outputs[0].data
    data["text/html"] = data["text/html"].replace("12 dots", " ")


def described_where_nobody_reads_it(cells: list[NotebookNode]) -> None:
    del cells[5].outputs[0].data["text/html"]
    cells[5].outputs[0].metadata["image/png"] = {"alt": "12 dots"}


DRAWS = "with pictures.figure('Dots.') as figure:\n" + "    figure.text(0, 0, '.')\n" * 10


def draws_at_length(cells: list[NotebookNode]) -> None:
    cells[6].source = DRAWS


def hides(source: str) -> Callable[[list[NotebookNode]], None]:
    def damage(cells: list[NotebookNode]) -> None:
        cells[6].source, cells[6].metadata["jupyter"] = source, {"source_hidden": True}

    return damage


def never_run(cells: list[NotebookNode]) -> None:
    cells[4].execution_count, cells[4].outputs = None, []


def out_of_order(cells: list[NotebookNode]) -> None:
    cells[4].execution_count, cells[5].execution_count = cells[5].execution_count, cells[4].execution_count


def without_reason(cells: list[NotebookNode]) -> None:
    del cells[3].metadata["lesson"]["skip_reason"]


def without_sabotage(cells: list[NotebookNode]) -> None:
    del cells[3].metadata["lesson"]["sabotage"]


def skips_two(cells: list[NotebookNode]) -> None:
    cells[6].metadata["tags"] = ["nbval-skip"]


def unmoved(cells: list[NotebookNode]) -> None:
    cells[2].source = "print(area.value)"


QUESTION, ASKED_ANSWER = "**Predict.** At 3 dots, and at 5?", "<details>At 3 it is 0.75, at 5 it is 0.9.</details>"


@pytest.mark.parametrize(
    ("source", "output", "told"),
    [
        ("dots.set(n=3)", "value 0.75", "0.75"),  # the very number
        ("dots.static({'n': 5}, {'n': 3})", "value 0.9 value 0.75", "0.75, 0.9"),
        ("dots.static({'n': 0.9})", "value 4", "0.9"),  # the setting is the answer
        ("dots.set(n=4)", "value 0.8", None),
        ("dots.set(n=3)", "3 dots", None),  # the question names it, too
        ("show_dots(3)", "value 0.75", "0.75"),
        (
            "axes.set(title='dots')",
            "value 0.75",
            None,
        ),  # no explorer: a cell that computes the answer stands before it, as ever
    ],
)
def test_an_explorer_does_not_give_the_answer_away(source: str, output: str, told: str | None) -> None:
    cell = new_code_cell(source, outputs=[new_output("stream", name="stdout", text=output)])
    view = new_output("display_data", {WIDGET_VIEW: {"model_id": "1"}})
    explorer = new_code_cell("dots = explorer()\ndots", outputs=[view])
    asked = [new_markdown_cell(QUESTION), explorer, cell, new_markdown_cell(ASKED_ANSWER)]
    expected = [] if told is None else [f"cell 1: gives away {told}, which the answer below names"]
    assert given_away(new_notebook(cells=asked)) == expected
    known = [new_markdown_cell("0.75 is half of 1.5, and 0.9 of 1.8."), *asked]
    assert given_away(new_notebook(cells=known)) == [], "what has been said before is not given away"
    assert given_away(new_notebook(cells=[*asked[:2], asked[3], cell])) == [], "after the answer it may be shown"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (stderr, "cell 0: its stored output holds an error or a warning"),
        (prints("DeprecationWarning: use the other"), "cell 0: its stored output holds a warning"),
        (prints("saved to /ho" + "me/ada/run"), "cell 0: its stored output holds a path of somebody's machine"),
        (prints("<object at 0x7f3a5c0d1e80>"), "cell 0: its stored output holds an object address"),
        (
            prints("eta 0.01234"),
            "cell 0: its stored output gives 0.01234: more than the three digits that every machine",
        ),
        (never_run, "cell 4: execution count None, not 5: run all cells in a fresh kernel, and save"),
        (out_of_order, "cell 4: execution count 6, not 5: run all cells in a fresh kernel, and save"),
        (without_reason, "cell 3: skips comparison without a skip_reason in its metadata"),
        (without_sabotage, "cell 3: skips comparison, so it needs a sabotage in its metadata, and a next cell that"),
        (skips_two, "2 of 16 code cells skip comparison: more than one in ten"),
        (undescribed, "cell 5: shows a picture without alternative text"),
        (described_where_nobody_reads_it, "cell 5: shows a picture that is no HTML <img>"),
        (draws_at_length, "cell 6: 11 lines of drawing: collapse it, in a cell of its own"),
        (hides("print(1)"), "cell 6: is collapsed and draws nothing"),
        (hides(DRAWS + "verdict('0 is 0', 0 == 0)"), "cell 6: is collapsed, so verdict belongs into a cell that can"),
        (hides(DRAWS + "def f(x): return x"), "cell 6: is collapsed, so what it defines or asserts belongs into a"),
        (unmoved, "cell 1: shows a widget, so the next code cell must move its controls and print the facts"),
    ],
)
def test_each_fault_of_a_stored_file_is_named(
    good: NotebookNode, damage: Callable[[list[NotebookNode]], None], fault: str
) -> None:
    notebook = nbformat.from_dict(good)
    damage(code_cells(notebook))
    assert any(found.startswith(fault) for found in static_faults(notebook)), static_faults(notebook)
