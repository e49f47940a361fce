"""The doctor tells what works from what does not, and what to do about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from trpo_lessons import doctor
from trpo_lessons.doctor import Finding, checkup
from trpo_lessons.viewing import opengl


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in checkup()}


def test_everything_the_course_needs_works_here(findings: dict[str, Finding]) -> None:
    """The tests run in the environment that the repository sets up: what the doctor misses here is its own mistake."""
    assert set(findings) == set(doctor.CHECKS)
    assert [finding for finding in findings.values() if finding.ok is False] == []


def test_every_finding_is_one_line_and_has_a_remedy_unless_it_works(findings: dict[str, Finding]) -> None:
    for finding in findings.values():
        assert finding.detail
        assert "\n" not in finding.detail + finding.remedy
        assert bool(finding.remedy) == (finding.ok is not True), finding


def test_versions_are_those_that_are_installed(findings: dict[str, Finding]) -> None:
    assert f"torch {metadata.version('torch')}" in findings["packages"].detail
    assert findings["Python"].detail.startswith(".".join(map(str, sys.version_info[:3])))


def test_the_table_shows_verdicts_and_remedies() -> None:
    table = doctor.as_text([
        Finding("one", True, "fine"),
        Finding("number two", False, "not there", "get it"),
        Finding("three", None, "not there either", "or do not"),
    ])  # fmt: skip
    assert table.splitlines() == [
        "works     one         fine",
        "missing   number two  not there",
        "                      -> get it",
        "optional  three       not there either",
        "                      -> or do not",
        "Missing and needed: 1.",
    ]
    assert doctor.as_text([Finding("one", True, "fine")]).endswith("Everything the course needs works.")


def test_a_missing_or_old_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "numpy>=99",
        "torch>=1",
        "no-such-package>=1",
        'pytest>=999; extra == "dev"',
        'x; python_version<"3"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _package: requirements)
    finding = doctor.check_packages()
    assert finding.ok is False
    assert finding.detail == f"numpy is {metadata.version('numpy')}, needs >=99; no-such-package is not installed"
    assert "make lab" in finding.remedy


def test_widgets_of_two_versions_do_not_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "jupyterlab_widgets" else real(name))
    finding = doctor.check_widgets()
    assert finding.ok is False
    assert finding.detail.startswith("jupyterlab_widgets is 1.0, needs ")


def test_widgets_that_jupyterlab_does_not_find(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    finding = doctor.check_widgets()
    assert finding.ok is False
    assert "JupyterLab does not find its widget extension" in finding.detail


def test_a_kernel_that_is_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    spec = KernelSpec(argv=["/opt/other/bin/python", "-m", "ipykernel_launcher"], resource_dir="/opt/kernels/python3")
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda _self, _name: spec)
    finding = doctor.check_kernel()
    assert finding.ok is False
    assert "/opt/other/bin/python" in finding.detail
    assert "kernelspec remove python3" in finding.remedy


def test_a_missing_game_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from ale_py import roms

    real = roms.get_rom_path
    monkeypatch.setattr(roms, "get_rom_path", lambda game: None if game == "qbert" else real(game))
    assert doctor.check_games().detail == "the ROM of qbert is missing"


def test_rendering_that_fails_or_hangs_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    finding = doctor.check_rendering(backends=["no-such-backend"])
    assert finding.ok is None
    assert "none of no-such-backend draws" in finding.detail
    assert doctor.check_rendering(backends=["egl"], timeout=0.01).ok is None
    monkeypatch.setenv("MUJOCO_GL", "no-such-backend")
    finding = doctor.check_rendering(backends=["none-either"])
    assert finding.ok is None
    assert finding.detail.startswith("MUJOCO_GL=no-such-backend draws nothing; robots are drawn as flat figures")
    assert finding.remedy.startswith("unset MUJOCO_GL, and for more install")


def test_a_renderer_that_would_draw_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opengl, "draws", lambda backend, _timeout: backend == "second")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert doctor.check_rendering(backends=["first", "second"]).remedy == "unset MUJOCO_GL: second draws"
    monkeypatch.setenv("MUJOCO_GL", "second")
    assert doctor.check_rendering(backends=["first", "second"]).ok is True
    monkeypatch.setenv("MUJOCO_GL", "Off")
    finding = doctor.check_rendering(backends=["second"])
    assert (finding.ok, finding.remedy) == (None, "unset MUJOCO_GL for more")
    assert finding.detail.startswith("switched off by MUJOCO_GL=Off")


OPENGLS = [("no-such-opengl", "hopper"), ("no-such-opengl", "gym:Hopper-v5"), ("osmesa", "hopper"), ("off", "hopper")]
STEPS = """
import json, os, sys
from trpo_lessons import doctor, envs
found = [doctor.check_simulators().ok]
for task in ("hopper", "gym:Hopper-v5"):
    env = envs.make(task, 2, seed=0, threads=1)
    env.reset()
    found.append(float(env.step(0.5 + 0 * env.action_space.sample())[0].sum()))
from trpo_lessons.viewing import drawing
print(json.dumps([found, os.environ.get("MUJOCO_GL"), os.environ.get("PYOPENGL_PLATFORM")]))
"""


@pytest.mark.parametrize(("chosen", "first"), OPENGLS)
def test_physics_needs_no_renderer(chosen: str, first: str) -> None:
    """Whatever MUJOCO_GL names, there or not, and whichever task imports MuJoCo first; the variable is left alone."""
    steps = STEPS.replace('("hopper", "gym:Hopper-v5")', '("gym:Hopper-v5", "hopper")') if "gym" in first else STEPS
    environment = {**os.environ, "MUJOCO_GL": chosen, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYOPENGL_PLATFORM", None)
    done = subprocess.run([sys.executable, "-c", steps], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (works, own, gymnasiums), variable, platform = json.loads(done.stdout.splitlines()[-1])
    assert works
    assert own == gymnasiums
    assert (variable, platform) == (chosen, None)


def test_mujoco_is_imported_in_one_place_and_where_it_draws() -> None:
    """Every other import of it would fail where there is no renderer."""
    package = Path(doctor.__file__).parent
    imports = re.compile(r"^\s*(import mujoco|from mujoco)", re.MULTILINE)
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if imports.search(path.read_text())}
    assert found == {"envs/simulator.py", "viewing/opengl.py"}


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 5e8})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    assert doctor.check_disk().ok is False


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise ImportError("no module\nof that name")

    monkeypatch.setattr(doctor, "CHECKS", {"thing": broken})
    (finding,) = checkup()
    assert finding == Finding("thing", False, "ImportError: no module of that name", doctor.REINSTALL)
    monkeypatch.setattr(doctor, "CHECKS", {"rendering": broken})
    assert checkup()[0].ok is None, "no lesson needs it"
