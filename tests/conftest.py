"""Settings for every test: one thread each (the processes share the cores), and no test that depends on a clock."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

# Read when torch and numpy are first imported, which happens after this.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

# A reader's matplotlib settings, or a list of fonts that another installation left incomplete, change what lessons draw
# and print. The processes that this one starts (xdist, kernels) inherit the folder.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="matplotlib-")
    atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)

# What a shell starts in the background ignores Ctrl-C, with all that it starts itself; tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("lessons", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("lessons")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lesson", help="only this lesson (as in 03), validated twice; see `make test-lesson`")
