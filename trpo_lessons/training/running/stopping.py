"""Ends of a run before its last iteration: by the clock, by Ctrl-C, and by SIGTERM, which does the same."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from torch import Tensor

from trpo_lessons.distributions import Distribution
from trpo_lessons.policies import Policy


class Deadline:
    """`seconds` from now, or never. An iteration that would probably not end in time is not begun."""

    def __init__(self, seconds: float | None) -> None:
        self._last = time.monotonic()
        self._end = self._last + (math.inf if seconds is None else seconds)

    def allows_another(self) -> bool:
        """Whether as much time is left as has passed since the last call; ask after every iteration."""
        before, self._last = self._last, time.monotonic()
        return self._last + (self._last - before) <= self._end


PATIENCE = 5.0  # seconds after which a second Ctrl-C is raised wherever the program is


class _Wish:
    """Whether somebody wants the program to stop, since when, and whether it was told."""

    def __init__(self) -> None:
        self.since = math.inf
        self.told = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """The handler of both signals."""
        now = time.monotonic()
        if now - self.since > PATIENCE:
            raise KeyboardInterrupt
        self.since = min(self.since, now)


_wish: _Wish | None = None


@contextmanager
def postponed_interrupts() -> Iterator[None]:
    """Ctrl-C and SIGTERM, with which queues and service managers end a process, are noted and raised by `check`.

    Raised at once, KeyboardInterrupt can hit torch between switching gradients off and remembering to switch them on
    again, or half way through an import; and the process is of no use any more. What is wanted after the last `check`
    is raised at the end. A second Ctrl-C after PATIENCE is raised wherever the program is, in an environment that
    hangs, for example.

    Only the main thread can be told of signals; in another one nothing changes, nor where the program has a way of its
    own to handle them.
    """
    global _wish
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = {number: handler for number, handler in usual.items() if signal.getsignal(number) == handler}
    if threading.current_thread() is not threading.main_thread() or _wish or not ours:
        yield
        return
    wish = _wish = _Wish()
    for number in ours:
        signal.signal(number, wish.note)
    try:
        yield
    finally:
        _wish = None
        for number, handler in ours.items():
            signal.signal(number, handler)
    if wish.since < math.inf and not wish.told:
        raise KeyboardInterrupt


def check() -> None:
    """Raise the KeyboardInterrupt that was postponed, if there is one. Call it where nothing is half done."""
    if _wish and _wish.since < math.inf:
        _wish.told = True
        raise KeyboardInterrupt


class AttentivePolicy(Policy):
    """The same policy, which lets a postponed interrupt through whenever it is asked: in sampling and updates alike."""

    def __init__(self, policy: Policy) -> None:
        self._network, self.head = policy._network, policy.head

    def at(self, theta: Tensor) -> Callable[[Tensor], Distribution]:
        """See `Policy.at`."""
        answer = super().at(theta)

        def ask(obs: Tensor) -> Distribution:
            check()
            return answer(obs)

        return ask
