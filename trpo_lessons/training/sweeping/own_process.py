"""One run in a process of its own, which `perform` starts and waits for; the process runs `one_run`.

So a run has the memory, the threads and the bits that `trpo-lessons train` would give it, wherever `perform` is called:
in a thread of this program, or in a worker of a cluster. What kills the one leaves the other, except that a run ends
when whoever called `perform` is gone: the process holds the other end of a pipe, which the system closes then.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lessons.training.running.run_errors import InUseError, RunError
from trpo_lessons.training.running.run_folder import RunFolder
from trpo_lessons.training.settings.config import TrainConfig

Wanted = Callable[[], bool]
PROGRAM = "trpo_lessons.training.sweeping.one_run"
POLL = 0.25  # seconds between two looks at a process
GRACE = 10.0  # seconds that a process has to end by itself; what a run has saved is whole in any case


@dataclass(frozen=True)
class Job:
    """A run to be carried out: its settings, its folder, a module that may run for it, and where errors are kept."""

    name: str
    folder: str
    settings: Mapping[str, Any]
    trust_module: str | None
    log: str


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    state     complete, stopped (it goes on later), busy (another process is training it), or failed
    line      of a failed one, why
    remarks   what else should be known, a line each
    """

    state: str
    line: str = ""
    remarks: tuple[str, ...] = ()


def perform(job: Job, wanted: Wanted) -> Outcome:
    """Train `job` to its end, from where it stands, in a new process; or until it is not wanted any more."""
    if not wanted():
        return Outcome("stopped")
    if others := _what_others_did(job):
        return others
    log = Path(job.log)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            answer, status = _carried_out(job, wanted, errors.fileno())
        if log.stat().st_size == 0:
            log.unlink(missing_ok=True)
    except OSError as error:
        return Outcome("failed", f"{error.filename or sys.executable}: {error.strerror or error}")
    if answer:
        found = json.loads(answer)
        outcome = Outcome(found["state"], found["line"], tuple(found["remarks"]))
        if outcome.state == "stopped" and wanted():  # by somebody else
            return Outcome("failed", "its process was told to end; the same command goes on with it")
        return outcome
    if not wanted():
        return Outcome("stopped")
    return Outcome("failed", _why_it_ended(status, log))


def _what_others_did(job: Job) -> Outcome | None:
    """The outcome where another process has the run, or has completed it; then no process need be started."""
    folder, config = RunFolder(Path(job.folder)), TrainConfig.from_json(dict(job.settings))
    try:
        with folder.locked():
            return Outcome("complete") if config.is_complete(*folder.progress()) else None
    except InUseError as error:
        return Outcome("busy", str(error))
    except RunError:
        return None  # it has not begun, or its process will tell


def _carried_out(job: Job, wanted: Wanted, errors: int) -> tuple[bytes, int]:
    """What the process answered, and its exit status."""
    command = [sys.executable, "-P", "-m", PROGRAM]
    # Modules are found where this process finds them. Ctrl-C is for this process: it tells the others.
    modules = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": modules}  # as `trpo-lessons train` has it
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, process_group=0) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process without pipes")
        try:
            with suppress(BrokenPipeError):  # it has ended already; its status tells why
                process.stdin.write(json.dumps(dataclasses.asdict(job)).encode() + b"\n")
                process.stdin.flush()
            while wanted() and not _has_ended(process, POLL):
                pass
        finally:
            _close(process)
        return process.stdout.read(), process.wait()


def _has_ended(process: subprocess.Popen[bytes], within: float) -> bool:
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _close(process: subprocess.Popen[bytes]) -> None:
    """Tell the process to end, and end it if it does not."""
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()
    if not _has_ended(process, GRACE):
        process.kill()


def _why_it_ended(status: int, log: Path) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        memory = ", as happens where memory runs out" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{memory}; the same command goes on with it"
    return f"its process ended with status {status}; {log} has what it said"
