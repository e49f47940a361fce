"""What works on this machine, and what to do about the rest.

`checkup()` is what `trpo-lessons doctor` prints and what lesson 00 shows as a table. Every check tries the real thing:
the simulator takes steps, a picture is rendered, a game is loaded.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE = "trpo-lessons"
GAMES = ("beam_rider", "breakout", "enduro", "pong", "qbert", "seaquest", "space_invaders")
DISK_NEEDED = 1e9  # bytes: a class run takes a few megabytes, and an Atari run at most some hundred
FLAT = "robots are drawn as flat figures, and everything else works"
INSTALL_OPENGL = "for more install libegl1 and libgl1 (Debian, Ubuntu), or libosmesa6"
REINSTALL = "run make lab or make test in the repository: both set up the environment again"


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    ok      True: works. False: the course needs it and it does not work. None: it does not work, and nothing in the
            lessons needs it.
    detail  what was found, one line
    remedy  what to do about it, one line; empty when ok is True
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""

    @property
    def verdict(self) -> str:
        """`works`, `missing` or `optional`."""
        return {True: "works", False: "missing", None: "optional"}[self.ok]


def checkup() -> list[Finding]:
    """Check everything, in a few seconds; never raises. A check that fails in an unforeseen way is a finding too."""
    return [_guarded(name, check) for name, check in CHECKS.items()]


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as a table for a terminal, with the remedies under what does not work."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:<8}  {finding.name:<{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':<8}  {'':<{width}}  -> {finding.remedy}")
    missing = sum(finding.ok is False for finding in findings)
    lines.append(f"Missing and needed: {missing}." if missing else "Everything the course needs works.")
    return "\n".join(lines)


def check_python() -> Finding:
    """Python is one that the package supports."""
    detail = f"{platform.python_version()} in {sys.prefix}"
    requires = Requirement(f"python{metadata.metadata(PACKAGE)['Requires-Python']}")
    ok = requires.specifier.contains(platform.python_version(), prereleases=True)
    return Finding("Python", ok, detail, "" if ok else f"install {requires}, then {REINSTALL}")


def check_packages() -> Finding:
    """Every package that the course imports has a version in the range that pyproject.toml asks for."""
    unmet = unmet_requirements(PACKAGE)
    if unmet:
        return Finding("packages", False, "; ".join(unmet), REINSTALL)
    main = ("torch", "numpy", "gymnasium", "mujoco")
    return Finding("packages", True, ", ".join(f"{name} {metadata.version(name)}" for name in main))


def check_processors() -> Finding:
    """How many processors this process may use, and how many threads torch takes."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{usable} usable of {os.cpu_count()}, {torch.get_num_threads()} torch threads"
    remedy = "everything runs, at about half the speed; use --set threads=1 for training" if usable < 2 else ""
    return Finding("processors", True if usable > 1 else None, detail, remedy)


def check_disk() -> Finding:
    """The current folder can be written to and has room for runs."""
    free = shutil.disk_usage(".").free
    detail = f"{free / 1e9:.0f} GB free in the current folder"
    if not os.access(".", os.W_OK):
        return Finding("disk", False, "the current folder cannot be written to", "go to a folder of your own")
    return Finding("disk", free >= DISK_NEEDED, detail, "" if free >= DISK_NEEDED else "make room: 1 GB is enough")


def check_simulators() -> Finding:
    """Cart-pole and MuJoCo's hopper take steps."""
    import numpy as np

    from trpo_lessons import envs

    for task in ("cartpole", "hopper"):
        env = envs.make(task, 2, seed=0, threads=2)
        env.reset()
        env.action_space.seed(0)
        for _ in range(5):
            obs, *_ = env.step(env.action_space.sample())
        env.close()
        if not np.isfinite(obs).all():
            return Finding("simulators", False, f"{task} returns numbers that are not finite", REINSTALL)
    return Finding("simulators", True, f"cart-pole and hopper step (MuJoCo {metadata.version('mujoco')})")


def check_games() -> Finding:
    """The Atari games of the paper are there and load."""
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    for game in GAMES:
        path = roms.get_rom_path(game)
        if path is None or not path.exists():
            return Finding("Atari games", False, f"the ROM of {game} is missing", f"{REINSTALL}; ROMs come with ale-py")
        ale_py.ALEInterface().loadROM(path)
    return Finding("Atari games", True, f"{len(GAMES)} games load (ale-py {metadata.version('ale-py')})")


def check_rendering(backends: Sequence[str] = (), timeout: float = 20) -> Finding:
    """MuJoCo draws a picture without a window, by one of the `backends` (by default all that this system can have)."""
    from trpo_lessons.viewing import opengl

    backends = backends or opengl.BACKENDS
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen.lower() in opengl.OFF:
        return Finding("rendering", None, f"switched off by MUJOCO_GL={chosen}; {FLAT}", "unset MUJOCO_GL for more")
    if backend := opengl.working_backend(backends, timeout):
        return Finding("rendering", True, f"MuJoCo draws with MUJOCO_GL={backend}")
    if not chosen:
        return Finding("rendering", None, f"none of {', '.join(backends)} draws; {FLAT}", INSTALL_OPENGL)
    other = next((backend for backend in backends if opengl.draws(backend, timeout)), None)
    remedy = f"unset MUJOCO_GL: {other} draws" if other else f"unset MUJOCO_GL, and {INSTALL_OPENGL}"
    return Finding("rendering", None, f"MUJOCO_GL={chosen} draws nothing; {FLAT}", remedy)


def check_widgets() -> Finding:
    """The sliders' Python half and their browser half have versions that belong together."""
    unmet = unmet_requirements("ipywidgets")
    extension = Path(sys.prefix, "share/jupyter/labextensions/@jupyter-widgets/jupyterlab-manager/package.json")
    if not unmet and not extension.exists():
        unmet = [f"JupyterLab does not find its widget extension in {sys.prefix}"]
    if unmet:
        return Finding("widgets", False, "; ".join(unmet), REINSTALL)
    browser_half = json.loads(extension.read_text())["version"]
    return Finding("widgets", True, f"ipywidgets {metadata.version('ipywidgets')}, in the browser {browser_half}")


def check_kernel() -> Finding:
    """Notebooks run with this Python, not with another one that a kernel of the same name points to."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("python3")
    program = spec.argv[0]
    if not os.path.isabs(program) or Path(program).parent == Path(sys.executable).parent:
        return Finding("notebook kernel", True, f"python3 is {sys.executable}")
    remedy = f"remove that kernel: {shutil.which('jupyter') or 'jupyter'} kernelspec remove python3"
    return Finding("notebook kernel", False, f"python3 is {program}, named in {spec.resource_dir}", remedy)


def check_gpu() -> Finding:
    """Whether torch can use a GPU."""
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding("GPU", True, f"{properties.name}, {properties.total_memory / 1e9:.0f} GB")
    if torch.version.cuda is None:
        return Finding("GPU", None, "this torch is built for CPUs", "nothing to do: training runs on the CPU")
    return Finding("GPU", None, "torch finds no CUDA device", "nothing to do: training runs on the CPU")


def check_browser() -> Finding:
    """A Chromium, with which the tests move the sliders of a real notebook page."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found:
        return Finding("browser for tests", True, found)
    return Finding("browser for tests", None, "no Chromium found", "the tests that need one are skipped")


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": check_python,
    "packages": check_packages,
    "processors": check_processors,
    "disk": check_disk,
    "simulators": check_simulators,
    "Atari games": check_games,
    "rendering": check_rendering,
    "widgets": check_widgets,
    "notebook kernel": check_kernel,
    "GPU": check_gpu,
    "browser for tests": check_browser,
}


OPTIONAL = ("rendering", "GPU", "browser for tests")


def unmet_requirements(package: str) -> list[str]:
    """What `package` requires and this environment lacks, one line each; optional extras aside."""
    unmet = []
    for line in metadata.requires(package) or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            unmet.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            unmet.append(f"{requirement.name} is {found}, needs {requirement.specifier}")
    return unmet


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if name in OPTIONAL:
            return Finding(name, None, text, "nothing to do: no lesson needs it")
        return Finding(name, False, text, REINSTALL)
