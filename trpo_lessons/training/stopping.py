"""Ends of a run before its last iteration: by the clock, and by SIGTERM, which ends a run the way Ctrl-C does."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Deadline:
    """`seconds` from now, or never. An iteration that would probably not end in time is not begun."""

    def __init__(self, seconds: float | None) -> None:
        self._last = time.monotonic()
        self._end = self._last + (math.inf if seconds is None else seconds)

    def allows_another(self) -> bool:
        """Whether as much time is left as has passed since the last call; ask after every iteration."""
        before, self._last = self._last, time.monotonic()
        return self._last + (self._last - before) <= self._end


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM, with which queues and service managers end a process, raises KeyboardInterrupt meanwhile.

    Only the main thread can be told of signals; in another one nothing changes, nor where the program has a way of its
    own to handle SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
