"""What only shows across lessons: pointers, counts, numbers of equations and the times that syllabi allow."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import nbformat
import pytest
from teaching_contract import NARROW

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
LAST_EQUATION = 19  # the paper's last number; policy iteration, after it, has none
SESSION, WEEK = 120, 3 * 120  # minutes


def prose_of(path: Path) -> str:
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


PROSE = {path.name[:2]: prose_of(path) for path in NOTEBOOKS}
LESSONS = sorted(PROSE)


def minutes_of(lesson: str) -> tuple[int, int]:
    """In all, and of exercises, as the lesson says at its top."""
    (told,) = re.findall(r"\*\*Minutes:\*\* (\d+), of which (\d+) are exercises", PROSE[lesson])
    return int(told[0]), int(told[1])


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_minutes_of_the_exercises_add_up_to_what_is_said_at_the_top(lesson):
    headings = [int(minutes) for minutes in re.findall(r"^### Exercise .* · (\d+) minutes$", PROSE[lesson], re.M)]
    checks = importlib.import_module(f"trpo_lessons.teaching.lesson_{lesson}.check")
    assert sorted(headings) == sorted(check.minutes for check in checks.CHECKS)
    assert minutes_of(lesson)[1] == sum(headings)


@pytest.mark.parametrize("lesson", LESSONS)
def test_no_star_within_a_word_turns_prose_into_italics(lesson):
    """Two of the game's names in a paragraph did: `Q*bert` is written with a backslash."""
    prose = re.sub(r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", "", PROSE[lesson], flags=re.S)
    assert re.findall(r"\w+(?<!\\)\*\w+", re.sub(r"\*\*", "", prose)) == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_pointer_to_a_section_of_a_lesson_leads_to_one(lesson):
    """Cut at brackets and stops, so that `lesson 03 (section 4 of the paper)` is no pointer."""
    text = " ".join(PROSE[lesson].split())
    pointers = re.findall(r"[Ll]esson (\d\d),? section (\d+)", text)
    pointers += [(there, section) for section, there in re.findall(r"section (\d+) of lesson (\d\d)", text)]
    for there, section in pointers:
        assert re.search(rf"^## {section} · ", PROSE[there], re.M), f"lesson {there} has no section {section}"


def test_there_are_pointers_to_follow():
    assert len(re.findall(r"[Ll]esson \d\d,? section \d|section \d+ of lesson \d\d", " ".join(PROSE.values()))) > 1


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_points_to_lessons_that_there_are(lesson):
    assert set(re.findall(r"[Ll]essons? (\d\d)", PROSE[lesson])) <= set(LESSONS)


@pytest.mark.parametrize("lesson", LESSONS)
def test_equations_have_the_numbers_of_the_paper(lesson):
    tags = [
        int(number) for numbers in re.findall(r"\\tag\{([\d, ]+)\}", PROSE[lesson]) for number in numbers.split(",")
    ]
    (paper,) = re.findall(r"\*\*Paper:\*\* (.*?)(?:\n\n|\Z)", PROSE[lesson], re.S)
    cited = [
        int(number) for part in re.findall(r"equations? ([\d, andto]+)", paper) for number in re.findall(r"\d+", part)
    ]
    assert all(1 <= number <= LAST_EQUATION for number in tags + cited)


def test_the_map_names_the_equations_that_the_lessons_name():
    rows = re.findall(r"^\| \[?\*{0,2}(\d\d) .*\| ([^|]*) \|$", PROSE["00"], re.M)
    assert [lesson for lesson, _ in rows] == LESSONS

    def numbers(text: str) -> set[int]:
        ranges = re.findall(r"(\d+)(?:(?:–| to )(\d+))?", text)
        return {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}

    for lesson, paper in rows:
        if "eqs. " in paper:
            (cited,) = re.findall(r"\*\*Paper:\*\* .*?equations? ([\d, andto\n]+)", PROSE[lesson], re.S)
            assert numbers(paper.partition("eqs. ")[2]) == numbers(cited), f"lesson {lesson}"


def test_numbered_predictions_are_counted():
    numbered = re.findall(r"\*\*Predict \((\d+) of (\d+)\)\.\*\*", PROSE["00"])
    assert numbered == [(str(k), str(len(numbered))) for k in range(1, len(numbered) + 1)]
    assert len(numbered) == len(re.findall(r"\*\*Predict\b", PROSE["00"]))


def syllabus(name: str) -> str:
    (text,) = re.findall(rf"\*\*{name}\*\*(.*?)(?:\n\n|\Z)", PROSE["00"], re.S)
    return " ".join(text.split())


def lessons_in(text: str) -> list[str]:
    """Of `05 and 06` two, of `08 to 10` three."""
    spans = re.findall(r"(\d\d)(?: to (\d\d))?", text)
    return [f"{n:02}" for first, last in spans for n in range(int(first), int(last or first) + 1)]


def test_six_weeks_have_room_for_every_lesson_with_its_exercises():
    weeks = re.split(r"Week \d: ", syllabus("Six weeks"))[1:]
    lessons = [lessons_in(week) for week in weeks]
    assert [lesson for week in lessons for lesson in week] == LESSONS
    assert [sum(minutes_of(lesson)[0] for lesson in week) <= WEEK for week in lessons] == [True] * len(weeks)


def test_two_weeks_have_room_for_their_lessons_without_exercises():
    told = syllabus("Two weeks")
    for _, lesson in re.findall(r" (\d+): (\d\d)\b", told):
        if lesson != "01":  # spread over sessions 1 to 3, with lesson 00
            whole, exercises = minutes_of(lesson)
            assert whole - exercises <= SESSION, lesson
    assert minutes_of("00")[0] + minutes_of("01")[0] <= 3 * SESSION


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_no_line_of_a_printed_table_breaks_in_a_narrow_window(path: Path) -> None:
    """A sentence may; a line with columns, two or more blanks apart, can no longer be read then."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    printed = "".join(out.text for cell in cells for out in cell.outputs if out.output_type == "stream")
    assert [line for line in printed.splitlines() if re.search(r"\S {2,}\S", line) and len(line) > NARROW] == []
