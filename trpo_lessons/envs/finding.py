"""Which environment a name such as `gym:MODULE:ENV_ID` means, and the module that registers it."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import Error

from trpo_lessons.envs.foreign import in_words, place

PREFIX = "gym:"


def find_spec(env_id: str) -> EnvSpec:
    """What Gymnasium knows of an environment; `module:ENV_ID` imports the module that registers it first.

    The module is looked for where Python looks, and then in the current folder.

    Raises ValueError in one line when there is no such environment.
    """
    module, _, name = env_id.rpartition(":")
    if "MUJOCO_GL" in os.environ:
        # Whatever imports MuJoCo from here on gets physics, also without the OpenGL that this variable names.
        from trpo_lessons.envs import simulator  # noqa: F401
    if module:
        _import(module, env_id)
    try:
        return gymnasium.spec(name)
    except (Error, ImportError) as problem:
        raise ValueError(f"there is no task {PREFIX}{env_id}: {one_line(problem)}{_hint(module, name)}") from problem


def module_to_run(task: str) -> str:
    """The module that `find_spec` would run for a task, as for gym:MODULE:ENV_ID; empty where it would run none.

    A module that this process has imported already does not run again.
    """
    module = task.removeprefix(PREFIX).rpartition(":")[0] if task.startswith(PREFIX) else ""
    return "" if module in sys.modules or not _is_name_of_module(module) else module


def _is_name_of_module(module: str) -> bool:
    return all(part.isidentifier() for part in module.split("."))


def _hint(module: str, name: str) -> str:
    if module and module in sys.modules:
        there = sorted(id_ for id_, spec in gymnasium.registry.items() if _is_of(spec, module))
        return f"; {module} registers {', '.join(there) or 'none: call gymnasium.register in it'}"
    if module or "/" in name or not name:
        return ""
    return f" If a module of yours registers it, name that too: {PREFIX}MODULE:{name}"


def _is_of(spec: EnvSpec, module: str) -> bool:
    point = spec.entry_point
    of = point.rpartition(":")[0] if isinstance(point, str) else getattr(point, "__module__", "")
    return of == module or of.startswith(f"{module}.")


def _import(module: str, env_id: str) -> None:
    """Import a module, in the current folder too, which is searched for this one module and for nothing else."""
    if not _is_name_of_module(module):
        raise ValueError(f"there is no task {PREFIX}{env_id}: {module!r} is not the name of a module")
    root = module.partition(".")[0]
    try:
        if root not in sys.modules and importlib.util.find_spec(root) is None:
            _import_from(os.getcwd(), root)
        importlib.import_module(module)
    except (Exception, SystemExit) as problem:  # the module is somebody else's, and can raise anything
        if isinstance(problem, ModuleNotFoundError) and problem.name == module:
            where = "neither where Python looks (PYTHONPATH can name its folder) nor in the current folder"
            raise ValueError(f"there is no task {PREFIX}{env_id}: {one_line(problem)}, {where}") from problem
        told = f"{in_words(problem)}{_place(problem)}"
        raise ValueError(f"there is no task {PREFIX}{env_id}: importing {module} ends with {told}") from problem


def _import_from(folder: str, name: str) -> None:
    spec = importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None:
        return
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _place(problem: BaseException) -> str:
    if isinstance(problem, SyntaxError):
        return f" ({problem.filename}, line {problem.lineno})"
    return place(problem)


def one_line(problem: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(problem).split())
