"""Who carries out the runs of a sweep: threads of this process, each with one process at a time, or a Dask cluster.

Both are an executor as `concurrent.futures` has it, so that another one of that kind could take their place.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trpo_lessons.training.running.run_errors import RunError, cannot_write
from trpo_lessons.training.sweeping.own_process import Wanted

ANSWER_WITHIN = 20.0  # seconds that a scheduler has


@dataclass(frozen=True)
class Hands:
    """An executor, what tells its tasks whether they are still wanted, and what makes them unwanted."""

    executor: Executor
    wanted: Wanted
    dismiss: Callable[[], None]


@contextmanager
def this_machine(workers: int) -> Iterator[Hands]:
    """So many runs at a time, here."""
    dismissed = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="sweep") as executor:
        try:
            yield Hands(executor, lambda: not dismissed.is_set(), dismissed.set)
        finally:
            dismissed.set()


@contextmanager
def dask_cluster(address: str, out: Path) -> Iterator[Hands]:
    """As many runs at a time as the cluster's workers have threads. All of its machines must see the folder `out`.

    Raises RunError (one line) when the package distributed is not installed, or nobody answers at `address`.
    """
    try:
        from distributed import Client
    except ImportError as error:
        told = 'a Dask cluster needs the package distributed: pip install "trpo-lessons[cluster]"'
        raise RunError(f"{told} ({error})") from error
    try:
        client = Client(address, timeout=ANSWER_WITHIN)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise RunError(f"no Dask scheduler answers at {address} ({told}); start one with: dask scheduler") from error
    with client, _lease(out) as lease:
        # What is asked for twice runs twice: a run that was broken off has the same arguments as its first part.
        executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        yield Hands(executor, lease.holds, lease.end)


@dataclass(frozen=True)
class Lease:
    """A file that is there as long as somebody waits for results.

    On the machine that holds it, its lock tells of an end by SIGKILL too. Other machines may not see locks.
    """

    path: str
    host: str

    def holds(self) -> bool:
        """Whether somebody still waits."""
        if socket.gethostname() != self.host:
            return os.path.exists(self.path)
        try:
            handle = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # it is locked, or there are no locks here
            return True
        finally:
            os.close(handle)
        return False

    def end(self) -> None:
        """Nobody waits any more."""
        Path(self.path).unlink(missing_ok=True)


@contextmanager
def _lease(out: Path) -> Iterator[Lease]:
    host = socket.gethostname()
    for path in out.glob(f".sweep-{host}-*.lease"):  # of those that were killed
        if not (left := Lease(str(path), host)).holds():
            left.end()
    lease = Lease(str(out / f".sweep-{host}-{secrets.token_hex(4)}.lease"), host)
    try:
        handle = os.open(lease.path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise cannot_write(Path(lease.path), error) from error
    with suppress(OSError):  # where there are no locks an end by SIGKILL is not noticed; runs go on to their own end
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield lease
    finally:
        lease.end()
        os.close(handle)
