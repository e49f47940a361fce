"""sb3-contrib's TRPO in a process of its own, which trains only while it is asked to."""

from __future__ import annotations

import multiprocessing
import signal
import time
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Self

from trpo_lessons.bench.sb3_peer import peer_model
from trpo_lessons.training import RunError

STEPS = 2048  # one iteration of its recipe


class PeerError(RunError):
    """sb3-contrib cannot be measured; the message is one line that says why."""


class PeerProcess:
    """Trains one model a little at a time."""

    def __init__(self, task: str) -> None:
        """Raises PeerError when sb3-contrib is not installed or does not work."""
        if not find_spec("sb3_contrib"):
            raise PeerError("sb3-contrib is not installed")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_learn_when_asked, args=(theirs, task), daemon=True)
        self._process.start()
        theirs.close()
        self.steps_per_second()  # the first steps load and compile things

    def steps_per_second(self) -> float:
        """Train for one iteration; simulator steps a second. Raises PeerError when it has ended."""
        try:
            self._connection.send("go on")
            speed: float = self._connection.recv()
        except (EOFError, OSError) as error:
            raise PeerError("sb3-contrib is installed but does not train here") from error
        return speed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _learn_when_asked(connection: Connection, task: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the other one ends this one
    model = peer_model(task, seed=0)
    while True:
        connection.recv()
        start = time.perf_counter()
        model.learn(STEPS, reset_num_timesteps=False)
        connection.send(STEPS / (time.perf_counter() - start))
