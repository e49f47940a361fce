"""The project as a whole: versions that agree, modules in reading order, make targets that keep their word."""

from __future__ import annotations

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml
from notebook_harness import NOTEBOOKS
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import trpo_lessons

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "trpo_lessons"
# design.md's table: a module may import from lines above its own, and nothing else of the package.
READING_ORDER = [
    ["distributions"],
    ["mdp"],
    ["improvement_bound"],
    ["convolution"],
    ["policies"],
    ["surrogate"],
    ["kl"],
    ["problem"],
    ["conjugate_gradient"],
    ["line_search"],
    ["trpo"],
    ["envs"],
    ["advantages"],
    ["single_path"],
    ["rollout_set"],
    ["vine"],
    ["value_function"],
    ["prior_methods"],
    ["zoo_names"],
    ["training"],
    ["viewing"],
    ["zoo", "doctor", "bench"],
    ["cli"],
    ["teaching"],
]
LINE_OF = {module: number for number, line in enumerate(READING_ORDER) for module in line}
CORE = {module for line in READING_ORDER[: LINE_OF["vine"] + 1] for module in line} - {"convolution", "envs"}


# ---- versions --------------------------------------------------------------------------------------------------------


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pins() -> dict[str, str]:
    found = [Requirement(line.partition(" #")[0].strip()) for line in lock_lines()]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in found}


def ranges() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in project["dependencies"] + extras]


def test_lock_holds_exact_versions_and_nothing_else() -> None:
    for line in lock_lines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+( ; .+?)?\s+# via .+", line), line
        assert "+" not in line.partition(" ")[0], f"a local build, which others cannot get: {line}"
        assert not line.startswith(("nvidia-", "cuda-", "triton")), f"torch brings these itself: {line}"


def test_lock_serves_every_range_of_pyproject() -> None:
    for requirement in ranges():
        assert requirement.specifier, f"{requirement.name} has no range in pyproject.toml"
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_conda_users_get_the_same_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [line for line in environment["dependencies"] if isinstance(line, str)]
    [pip] = [line["pip"] for line in environment["dependencies"] if isinstance(line, dict)]
    assert pip == ["-r requirements.lock", "-e ."], "a package named here could disagree with the lock"
    python, *others = conda
    assert others == ["pip"], "a package from conda could disagree with the lock"
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert SpecifierSet(requires).contains(python.removeprefix("python="))


def test_ranges_admit_torch_2_11_and_python_3_12() -> None:
    [torch] = [requirement for requirement in ranges() if requirement.name == "torch"]
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert torch.specifier.contains("2.11.0")
    assert SpecifierSet(requires).contains("3.11.0")
    assert SpecifierSet(requires).contains("3.12.0")


# ---- modules ---------------------------------------------------------------------------------------------------------


def module_of(path: Path) -> str:
    """The line of the reading order a file belongs to; "" for the package's own __init__."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return {"__init__": "", "__main__": "cli"}.get(first, first)


def imported_modules(source: str) -> Iterator[str]:
    """Modules of the package that the source imports, anywhere in it, by any spelling."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write trpo_lessons.… in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
        parts = [name.split(".") for name in names]
        yield from (part[1] for part in parts if part[0] == "trpo_lessons" and len(part) > 1)


def import_faults(module: str, source: str) -> list[str]:
    if module and module not in LINE_OF:
        return [f"{module} has no place in the reading order: give it one in READING_ORDER"]
    line = LINE_OF.get(module, -1)
    imported = [name for name in imported_modules(source) if not name.startswith("__") and name != module]
    return [f"{module} imports {name}, which does not stand above it" for name in imported if LINE_OF[name] >= line]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_only_from_above(path: Path) -> None:
    assert import_faults(module_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("kl", "from trpo_lessons.surrogate import Batch", False),
        ("kl", "from trpo_lessons import surrogate, __version__", False),
        ("envs", "from trpo_lessons.envs.base import RestorableVectorEnv", False),
        ("kl", "from trpo_lessons.trpo import trpo_update", True),
        ("kl", "from trpo_lessons import trpo", True),
        ("kl", "import trpo_lessons.trpo as t", True),
        ("kl", "def f():\n    from trpo_lessons.trpo import trpo_update", True),
        ("kl", "import importlib\nimportlib.import_module('trpo_lessons.trpo')", True),
        ("vine", "from trpo_lessons.single_path import sample_single_path", False),
        ("single_path", "from trpo_lessons.vine import sample_vine", True),
        ("cli", "from trpo_lessons.teaching import start", True),
        ("", "from trpo_lessons.kl import mean_kl", True),
        ("helpers", "import math", True),
    ],
)
def test_the_order_rule_catches_each_way_to_break_it(module: str, source: str, caught: bool) -> None:
    assert bool(import_faults(module, source)) == caught


def test_package_docstring_gives_the_reading_order() -> None:
    listed = re.findall(r"^    ([a-z_]+(?:, [a-z_]+)*) {2,}\S", trpo_lessons.__doc__ or "", flags=re.MULTILINE)
    names = [name for line in listed for name in line.split(", ")]
    existing = {module_of(path) for path in PACKAGE.rglob("*.py")} - {""}
    assert set(names) == existing
    assert names == sorted(names, key=LINE_OF.__getitem__)


def code_lines(path: Path) -> int:
    """How many lines hold code."""
    return len(lines_of_code(path))


def lines_of_code(path: Path) -> set[int]:
    """Numbers of the lines that hold code: blank lines, comments and docstrings are left out."""
    tree = ast.parse(path.read_text())
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        first = node.body[0] if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    no_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in no_code]
    spans = [range(token.start[0], token.end[0] + 1) for token in tokens if token.type != tokenize.ENCODING]
    return {line for span in spans for line in span} - docstrings


def test_the_core_can_be_read_in_an_hour() -> None:
    sizes = {path.name: code_lines(path) for path in PACKAGE.rglob("*.py") if module_of(path) in CORE}
    assert sum(sizes.values()) <= 1300, sizes


def core_functions() -> list[tuple[str, int, int]]:
    """Of every function of the core: its name, lines of code, and parameters, self aside."""
    found = []
    for path in (path for path in PACKAGE.rglob("*.py") if module_of(path) in CORE):
        lines = lines_of_code(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
                parameters = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                given = [each.arg for each in parameters if each.arg not in ("self", "cls")]
                found.append((f"{path.stem}.{node.name}", len(body), len(given)))
    return found


def test_functions_of_the_core_are_short_and_ask_for_little() -> None:
    functions = core_functions()
    assert [name for name, length, _ in functions if length > 45] == []
    assert [name for name, _, parameters in functions if parameters > 7] == []
    assert statistics.median(length for _, length, _ in functions) <= 5
    assert len(functions) > 150


def test_code_lines_leaves_out_what_is_not_code(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text('"""Two\n\nlines."""\n\n# comment\nx = 1  # one\n\ndef f():\n    "doc"\n    return (\n        x)')
    assert code_lines(path) == 4


# ---- what is committed -----------------------------------------------------------------------------------------------


# After a letter, digit or dot it is part of a web address or a longer path; "me" is nobody.
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:(?:home|Users)/(?!me\b)\w|(?:root|work)/[\w.]|tmp/[\w.-]*\d)|[A-Z]:\\\\?Users"
)


def committed_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    faults = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        faults += [f"{path.relative_to(ROOT)}: {match.group()}" for match in MACHINE_PATH.finditer(text)]
    assert faults == []


@pytest.mark.parametrize("path", ["/ho" + "me/ada/x", "/Us" + "ers/ada", "/ro" + "ot/.venv", "/tm" + "p/job.12/out"])
def test_a_path_of_somebodys_machine_is_recognized(path: str) -> None:
    assert MACHINE_PATH.search(f'open("{path}")')


def test_readme_opens_with_the_two_commands_and_lists_every_lesson() -> None:
    readme = (ROOT / "README.md").read_text()
    first_block = readme.split("```")[1]
    assert re.findall(r"^make (\w+)", first_block, flags=re.MULTILINE) == ["lab", "test"]
    assert [path.name for path in NOTEBOOKS if path.name not in readme] == []
    assert [name for name in re.findall(r"\]\(([\w/.-]+)\)", readme) if not (ROOT / name).exists()] == []


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nmake test")


def narrows_a_type(test: ast.expr) -> bool:
    """Whether an assertion tells mypy what its author knows: isinstance(...), or `is not None`."""
    test = test.operand if isinstance(test, ast.UnaryOp) else test
    if isinstance(test, ast.Call):
        return isinstance(test.func, ast.Name) and test.func.id == "isinstance"
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.IsNot)


def test_no_claim_rests_on_assert() -> None:
    """`python -O` leaves assertions out, and a verdict would say yes to anything."""
    claims = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and not narrows_a_type(node.test)
    ]
    assert claims == []


def test_a_verdict_stops_a_lesson_under_python_o() -> None:
    program = "from trpo_lessons.teaching import verdict; verdict('0 is 0', 0 == 0); verdict('0 is 1', 0 == 1)"
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "0 is 0: yes\n"
    assert "AssertionError: this should hold and does not: 0 is 1" in done.stderr


# ---- make ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose .venv is made of stand-ins: pip fails while a file `offline` exists, jupyter tells its call."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    for lesson in ("00_start_here", "01_bound"):
        cell = nbformat.v4.new_code_cell(f"'{lesson} as it came'", execution_count=1)
        cell.metadata["jupyter"] = {"source_hidden": True}
        cell.outputs = [nbformat.v4.new_output("stream", text="the answer")]
        facts = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "widgets": {"of": "the recording"}}
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata=facts)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{lesson}.ipynb")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = f'case "$2" in pip) test ! -e offline;; *) exec "{sys.executable}" "$@";; esac'
    script(tmp_path / ".venv/bin/python", python)
    script(tmp_path / ".venv/bin/jupyter", 'echo "jupyter $*, in $(basename "$PWD")"')
    return tmp_path


def script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "LESSON")  # these tests run inside `make test` themselves
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(["make", *arguments], cwd=checkout, env=environment, capture_output=True, text=True)


def test_setup_that_fails_starts_again_next_time(checkout: Path) -> None:
    (checkout / "offline").touch()
    assert make(checkout, "setup").returncode != 0
    assert not (checkout / ".venv/.ready").exists()
    (checkout / "offline").unlink()
    assert make(checkout, "setup").returncode == 0
    assert "Nothing to be done" in make(checkout, "setup").stdout


def test_setup_runs_again_when_the_lock_changes(checkout: Path) -> None:
    assert make(checkout, "setup").returncode == 0
    later = (checkout / ".venv/.ready").stat().st_mtime + 5
    os.utime(checkout / "requirements.lock", (later, later))
    (checkout / "offline").touch()
    assert make(checkout, "setup").returncode != 0
    assert not (checkout / ".venv/.ready").exists()


def test_an_old_python_is_refused_and_nothing_is_lost(checkout: Path) -> None:
    assert make(checkout, "setup").returncode == 0
    pretend = f'"{sys.executable}" -c "import sys; sys.version_info = (3, 10, 4); exec(sys.argv[1])" "$2"'
    script(checkout / "python3.10", pretend)
    refused = make(checkout, "setup", "PYTHON=./python3.10")
    assert refused.returncode == 2
    assert "needs Python 3.11 or newer and ./python3.10 is 3.10" in refused.stderr
    assert (checkout / ".venv/.ready").exists()


def assert_came_without_outputs(checkout: Path, lesson: str) -> None:
    notebook = nbformat.read(checkout / "my_lessons" / f"{lesson}.ipynb", as_version=4)
    [cell] = notebook.cells
    assert cell.source == f"'{lesson} as it came'"
    assert (cell.outputs, cell.execution_count) == ([], None)
    assert cell.metadata["jupyter"] == {"source_hidden": True}, "a collapsed cell stays collapsed"
    assert notebook.metadata == {"kernelspec": {"name": "python3", "display_name": "Python 3"}}, "no explorer of old"


def test_lab_copies_new_lessons_and_never_overwrites(checkout: Path) -> None:
    mine = checkout / "my_lessons" / "00_start_here.ipynb"
    mine.parent.mkdir()
    mine.write_text("my answers")
    opened = make(checkout, "lab", "LAB_OPTIONS=--no-browser")
    assert opened.returncode == 0, opened.stderr
    assert mine.read_text() == "my answers"
    assert_came_without_outputs(checkout, "01_bound")
    assert sorted(path.name for path in mine.parent.iterdir()) == ["00_start_here.ipynb", "01_bound.ipynb", "Makefile"]
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in opened.stdout
    assert re.search(r"^jupyter lab --ip=127\.0\.0\.1 .*--no-browser, in my_lessons$", opened.stdout, re.MULTILINE)


def test_reset_brings_one_lesson_back_and_keeps_the_students(checkout: Path) -> None:
    make(checkout, "lab")
    for lesson in ("00_start_here", "01_bound"):
        (checkout / "my_lessons" / f"{lesson}.ipynb").write_text("my answers")
    assert make(checkout, "reset", "LESSON=01").returncode == 0
    assert_came_without_outputs(checkout, "01_bound")
    others = [path for path in (checkout / "my_lessons").glob("*.ipynb") if path.name != "01_bound.ipynb"]
    assert [(path.name[:2], path.read_text()) for path in sorted(others)] == [
        ("00", "my answers"),
        ("01", "my answers"),
    ]


def test_terminals_of_the_lab_find_the_course_s_own_python(checkout: Path, tmp_path: Path) -> None:
    """Also where the student's ~/.bashrc puts another one first, as conda and pyenv do."""
    opened = make(checkout, "lab")
    rc = checkout / ".venv" / "terminal.bashrc"
    assert f"'--rcfile', '{rc}'" in opened.stdout
    other = checkout / "home" / "other"
    other.mkdir(parents=True)
    script(other / "python", "true")
    (checkout / "home" / ".bashrc").write_text(f'export PATH="{other}:$PATH" MINE=kept\n')
    command = ["bash", "--rcfile", str(rc), "-i", "-c", 'command -v python; echo "$MINE"']
    environment = os.environ | {"HOME": str(checkout / "home")}
    done = subprocess.run(command, cwd=checkout / "my_lessons", env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == [str(checkout / ".venv/bin/python"), "kept"]


def test_targets_work_in_the_folder_of_the_students_copies(checkout: Path) -> None:
    make(checkout, "lab")
    done = make(checkout / "my_lessons", "reset", "LESSON=00")
    assert done.returncode == 0, done.stderr
    assert "my_lessons/00_start_here.ipynb is as it came" in done.stdout
    assert "Name a lesson that there is" in make(checkout / "my_lessons", "reset", "LESSON=77").stderr


@pytest.mark.parametrize("arguments", [["reset"], ["reset", "LESSON=77"], ["test-lesson", "LESSON=77"]])
def test_a_lesson_that_is_not_there_is_refused(checkout: Path, arguments: list[str]) -> None:
    refused = make(checkout, *arguments)
    assert refused.returncode == 2
    assert "Name a lesson that there is" in refused.stderr
