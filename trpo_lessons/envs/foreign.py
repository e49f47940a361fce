"""Somebody else's code: what it raises is reported as theirs, in one line with file and line."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium

OURS = str(Path(__file__).parents[1])
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_GYMNASIUM = Path(gymnasium.__file__).parent
_CALLERS = (OURS, *(str(_GYMNASIUM / part) for part in ("vector", "wrappers", "core.py", "envs/registration.py")))
_BUILT_IN = "<"  # begins the name of a file that is none


class OneLine(Exception):  # noqa: N818 (a base of errors)
    """An error whose message is one line that says whose fault it is and what to do; notebooks show no more of it.

    Where it comes from, with all that other code raised before, is its `__cause__` and its `__traceback__`.
    """

    def _render_traceback_(self) -> list[str]:  # IPython looks for this name
        return [f"{type(self).__name__}: {self}"]


class EnvironmentFault(OneLine):
    """The code of an environment raised; the message is one line: what, in which file, line and function.

    What it raised is the `__cause__`.
    """


@contextmanager
def foreign_code(task: str) -> Iterator[None]:
    """Report what the environment of `task` raises meanwhile as its own. Raises EnvironmentFault.

    sys.exit is among that: an environment must not end, as if all were well, the program that plays it.
    Exceptions that this package has made, for observations of a wrong shape for example, say enough and pass.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if type(error).__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise
        raise EnvironmentFault(f"the environment {task} raised {in_words(error)}{place(error)}") from error


def in_words(error: BaseException) -> str:
    """Its type and what it says, in one line."""
    said = " ".join(str(error).split())
    return type(error).__name__ + (f": {said}" if said else "")


def place(error: BaseException) -> str:
    """(FILE, line LINE, in FUNCTION): the last of the user's own on the way to the error, or else of another package.

    Empty where the way leads through nothing but our code and what of Gymnasium calls environments: a method that is
    called with arguments that it does not take raises there, but the line to be mended is elsewhere.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_CALLERS)]
    own = [frame for frame in frames if not frame.filename.startswith((*_INSTALLED, _BUILT_IN))]
    last = (own or frames)[-1:]
    return "".join(f" ({_file(each.filename)}, line {each.lineno}, in {each.name})" for each in last)


def _file(name: str) -> str:
    """The name of a file, or of the cell of a notebook, whose files nobody has ever seen."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    cell = shell.compile.format_code_name(name) if shell else None
    return " ".join(cell) if cell else name
