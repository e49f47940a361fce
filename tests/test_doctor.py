"""The doctor tells what works from what does not, and what to do about it."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

from trpo_lessons import doctor
from trpo_lessons.doctor import Finding, checkup


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
    assert doctor.check_rendering().remedy == "unset MUJOCO_GL and try again"


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
