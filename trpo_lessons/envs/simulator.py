"""MuJoCo, also where no picture can be drawn: import it from here.

`import mujoco` loads the OpenGL that the variable MUJOCO_GL names, and fails where that is not installed. Physics needs
none, and what draws here (`viewing.opengl`) does so in a process of its own. So where the import fails, MuJoCo is
imported without its renderer; it is then there for whoever imports it later, such as Gymnasium's environments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Batch", "mujoco", "rollout"]


@contextmanager
def _environment_kept() -> Iterator[None]:
    # MuJoCo sets a variable of PyOpenGL's, for which another OpenGL would be refused in a later process.
    before = {name: os.environ.get(name) for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


try:
    with _environment_kept():
        import mujoco  # type: ignore[import-untyped]
except Exception:  # a library that is not there is a RuntimeError, an AttributeError or an OSError
    with _environment_kept():
        os.environ["MUJOCO_GL"] = "off"
        import mujoco  # its compiled parts are loaded already, and found again

from mujoco import rollout  # noqa: E402
from mujoco.batch import Batch  # type: ignore[import-untyped]  # noqa: E402
