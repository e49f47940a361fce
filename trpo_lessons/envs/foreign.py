"""Somebody else's code: what it raises is reported as theirs, in one line with file and line."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OURS = str(Path(__file__).parents[1])
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_BUILT_IN = "<"  # begins the name of a file that is none


class EnvironmentFault(Exception):  # noqa: N818 (it is named for what happened)
    """The code of an environment raised; the message is one line: what, in which file, line and function.

    What it raised is the `__cause__`.
    """


@contextmanager
def foreign_code(task: str) -> Iterator[None]:
    """Report what the environment of `task` raises meanwhile as its own. Raises EnvironmentFault.

    Exceptions that this package has made, for observations of a wrong shape for example, say enough and pass.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] == __name__.partition(".")[0]:
            raise
        said = " ".join(str(error).split())
        told = type(error).__name__ + (f": {said}" if said else "")
        raise EnvironmentFault(f"the environment {task} raised {told} ({place(error)})") from error


def place(error: BaseException) -> str:
    """File, line and function: the last of the user's own on the way to the error, or else of a package beside ours."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(OURS)]
    own = [frame for frame in frames if not frame.filename.startswith((*_INSTALLED, _BUILT_IN))]
    last = (own or frames or traceback.extract_tb(error.__traceback__))[-1]
    return f"{last.filename}, line {last.lineno}, in {last.name}"
