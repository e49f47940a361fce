"""The `trpo-lessons` command in processes of its own, which a test can kill, interrupt, or give a disk that is full.

Starting Python and importing torch takes seconds, so one process does that once and forks a child for each command. The
child runs the real `main` with real files, signals and limits.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIME_LIMIT = 300  # seconds after which a command that hangs is ended by SIGALRM
_numbers = itertools.count()


@dataclass(frozen=True)
class Outcome:
    """Exit status (minus the signal's number for a process that a signal ended) and what was printed."""

    status: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """The one line on standard error that is left when progress bars and warnings of libraries are taken away."""
        lines = [line.split("\r")[-1] for line in self.stderr.splitlines()]
        own = [line for line in lines if line.startswith("trpo-lessons: ")]
        assert len(own) == 1, self.stderr
        assert "Traceback" not in self.stderr, self.stderr
        return own[0].removeprefix("trpo-lessons: ")


def command(
    *arguments: object,
    cwd: Path | None = None,
    kill_at: int | None = None,
    interrupt_at: int | None = None,
    kill_after: float | None = None,
    interrupt_after: float | None = None,
    file_size: int | None = None,
) -> Outcome:
    """Run `trpo-lessons ARGUMENTS` to its end.

    kill_at, interrupt_at: SIGKILL or SIGINT just before this operation on the file system, counting from 1, where
        operations are opening a file to write, renaming, removing, and making a directory.
    kill_after, interrupt_after: the same, seconds after the start.
    file_size: writing fails beyond so many bytes in any one file.
    """
    printed = _scratch() / str(next(_numbers))
    job = {
        "arguments": [str(argument) for argument in arguments],
        "cwd": str(cwd or _scratch()),
        "printed": str(printed),
        "at": kill_at or interrupt_at,
        "after": kill_after if interrupt_after is None else interrupt_after,
        "signal": signal.SIGKILL if interrupt_at is None and interrupt_after is None else signal.SIGINT,
        "file_size": file_size,
    }
    [status] = _asked([job])
    return _outcome(status, printed)


def at_once(*commands: Sequence[object], cwd: Path) -> list[Outcome]:
    """Run several commands, each the arguments of `trpo-lessons`, that begin at the same instant."""
    jobs = [{**_JOB, "arguments": [str(each) for each in arguments], "cwd": str(cwd)} for arguments in commands]
    printed = [_scratch() / str(next(_numbers)) for _ in jobs]
    statuses = _asked([{**job, "printed": str(path)} for job, path in zip(jobs, printed, strict=True)])
    return [_outcome(status, path) for status, path in zip(statuses, printed, strict=True)]


_JOB: dict[str, Any] = {"at": None, "after": None, "signal": signal.SIGKILL, "file_size": None}


def _asked(jobs: list[dict[str, Any]]) -> list[int]:
    """What became of the jobs, which the server begins together."""
    server = _server()
    assert server.stdin
    assert server.stdout
    server.stdin.write(json.dumps(jobs) + "\n")
    server.stdin.flush()
    statuses: list[int] = json.loads(server.stdout.readline())
    return statuses


def _outcome(status: int, printed: Path) -> Outcome:
    return Outcome(status, printed.with_suffix(".out").read_text(), printed.with_suffix(".err").read_text())


@functools.cache
def _scratch() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    atexit.register(process.kill)
    return process


def _serve() -> None:
    import torch

    import trpo_lessons.envs.mujoco
    import trpo_lessons.training  # noqa: F401

    torch.optim.Adam([torch.zeros(1)])  # loads half of torch when it is first called

    for line in sys.stdin:
        jobs = json.loads(line)
        ready, started = os.pipe()
        gate, opening = os.pipe()
        children = []
        for job in jobs:
            child = os.fork()
            if child == 0:
                os.close(opening)
                _run(job, started, gate)
            children.append(child)
        os.close(started)
        for _ in jobs:
            os.read(ready, 1)
        for end in (ready, gate, opening):
            os.close(end)
        if jobs[0]["after"] is not None:
            time.sleep(jobs[0]["after"])
            os.kill(children[0], jobs[0]["signal"])
        statuses = [os.waitpid(child, 0)[1] for child in children]
        print(json.dumps([os.waitstatus_to_exitcode(status) for status in statuses]), flush=True)


def _run(job: dict[str, Any], started: int, gate: int) -> None:
    from trpo_lessons import cli

    for stream, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(job["printed"] + suffix, os.O_WRONLY | os.O_CREAT, 0o600), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(TIME_LIMIT)
    os.chdir(job["cwd"])
    if job["file_size"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    if job["at"] is not None:
        _signal_at(job["at"], job["signal"])
    # What comes before the command has begun is not the command's to handle: it waits until then.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    begin = cli.commands.main

    def begun(*arguments: Any, **options: Any) -> Any:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return begin(*arguments, **options)

    cli.commands.main = begun  # type: ignore[method-assign]
    status = 1
    os.write(started, b".")
    os.close(started)
    os.read(gate, 1)  # until all are here
    try:
        status = cli.main(job["arguments"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _signal_at(operation: int, number: int) -> None:
    count = 0

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and bool(details[2] & (os.O_WRONLY | os.O_RDWR)) and str(details[0]) != os.devnull
        if writes or event in ("os.rename", "os.remove", "os.mkdir"):
            count += 1
            if count == operation:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
