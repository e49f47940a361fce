"""What the README tells people who fork the course, or get stuck."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml  # type: ignore[import-untyped]
from nbformat.v4 import new_code_cell, new_notebook, new_output

from trpo_lessons.cli import commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_a_fork_validates_its_lessons_from_the_first_push() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/validate.yml").read_text())
    assert "push" in workflow[True]  # YAML reads the key `on` as a truth
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o100
    assert job["steps"][0]["uses"].startswith("actions/checkout@")


def test_links_into_the_repository_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    inside = [link for pair in links for link in pair if link and "://" not in link]
    assert len(inside) > 10
    assert [link for link in inside if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "trpo_lessons/YOUR_OWN.md"])
def test_nothing_is_said_twice(page: str) -> None:
    blocks = [block for block in (ROOT / page).read_text().split("\n\n") if block.startswith("#") or len(block) > 60]
    assert len(blocks) > 10
    assert sorted(blocks) == sorted(set(blocks))


def test_a_lesson_takes_as_long_as_it_says_itself() -> None:
    told = {
        name: int(minutes) for name, minutes in re.findall(r"\(notebooks/(.*?\.ipynb)\).*\| (\d+) \|$", README, re.M)
    }
    said = {}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        opening = nbformat.read(path, as_version=4).cells[0].source
        said[path.name] = int(re.findall(r"\*\*Minutes:\*\* (\d+)", opening)[0])
    assert told == said


@pytest.mark.parametrize(("stored", "told"), [("4", "1 passed"), ("5", "1 failed")])
def test_the_command_for_a_notebook_of_one_s_own_notices_a_changed_output(
    stored: str, told: str, tmp_path: Path
) -> None:
    (options,) = re.findall(r"`\.venv/bin/python (-m pytest .*--nbval) NOTEBOOK`", README)
    cell = new_code_cell("2 + 2", outputs=[new_output("execute_result", {"text/plain": stored}, execution_count=1)])
    cell.execution_count = 1
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), tmp_path / "mine.ipynb")
    done = subprocess.run(
        [sys.executable, *options.split(), "mine.ipynb"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert told in done.stdout, done.stdout + done.stderr


def test_it_says_that_a_run_of_a_module_must_be_trusted() -> None:
    """What the commands ask for must be findable where people look first."""
    for command in ("evaluate", "watch", "resume"):
        assert "--trust-module" in [option for each in commands.commands[command].params for option in each.opts]
        assert re.search(rf"`{command}`[^.]*--trust-module MODULE", README.replace("\n", " "))
