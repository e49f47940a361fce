"""Call a function in a process of its own, because graphics libraries can take the process down with them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ProcessError(Exception):
    """The process ended without a result; the message is one line that says why."""


# What an exception says is part of the answer: libraries print more as they go down, and that would hide it.
# It finds modules where its parent does, and not, as Python would by itself, in the current folder first.
_CHILD = """
import pickle, sys
file = open(sys.argv[1], "rb")
sys.path[:] = pickle.load(file)
try:
    function, arguments, options = pickle.load(file)
    answer = function(*arguments, **options), None
except Exception as error:
    answer = None, " ".join(str(error).split()) or type(error).__name__
with open(sys.argv[2], "wb") as file:
    pickle.dump(answer, file)
"""


def in_own_process(
    function: Callable[P, R], environment: Mapping[str, str], timeout: float, *arguments: P.args, **options: P.kwargs
) -> R:
    """`function(*arguments, **options)`, a function of a module, with these variables added to the environment.

    Raises ProcessError when the process crashes, raises, or takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        call, answer = Path(folder, "call"), Path(folder, "answer")
        call.write_bytes(pickle.dumps(sys.path) + pickle.dumps((function, arguments, options)))
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _CHILD, str(call), str(answer)],
                env={**os.environ, **environment},
                capture_output=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise ProcessError(f"no answer within {timeout:g} s") from None
        if done.returncode or not answer.exists():
            raise ProcessError(_why(done))
        result, problem = pickle.loads(answer.read_bytes())
    if problem is not None:
        raise ProcessError(problem)
    returned: R = result
    return returned


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    return (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"])[-1]
