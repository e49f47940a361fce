"""How nbval compares a lesson's pictures: by their descriptions.

Their bytes depend on the machine that drew them, so nbval skips PNG outputs. Pictures here are HTML as
well, which gives them alternative texts: of these it compares everything but the bytes.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Name the file that leaves out the bytes, where nbval is at work and was told no other."""
    if getattr(config.option, "nbval_sanitize_with", "") is None:
        config.option.nbval_sanitize_with = str(Path(__file__).with_name("nbval.cfg"))
