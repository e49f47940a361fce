"""What is told, in one line each, where a run cannot go on."""

from __future__ import annotations

import errno
from pathlib import Path

from trpo_lessons.envs.foreign import OneLine


class RunError(OneLine):
    """A run folder that cannot be used; the message is one line that says what to do."""


class InUseError(RunError):
    """A run folder in which another process is training."""


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to tell a person when the disk refuses, most often because it is full."""
    remedy = "then resume"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "make room, then resume"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        remedy = "it is write-protected: permit it, or copy the run to where you may write, then resume"
    return RunError(f"cannot write {path} ({error.strerror or error}); {remedy}")
