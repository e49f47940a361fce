"""A time limit for a block of Python, for functions that may never come to an end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A bare `except:` inside a loop catches the first one; it does not catch them for ever.
AGAIN_AFTER = 0.1


class TimeIsUpError(BaseException):
    """What ends the block: no subclass of Exception, which the code inside might catch and go on."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeIsUpError inside the block once it has taken this long, between two operations of Python.

    One operation in compiled code is not cut short. The timer is the process's own (SIGALRM), so that only the main
    thread can be stopped, which is where a notebook's cells and a script run; in others, and where there is no such
    signal, the block has no limit. A timer that is running already goes on afterward.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeIsUpError

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-3), interval)
