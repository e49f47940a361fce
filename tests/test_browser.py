"""A lesson in JupyterLab, in a real browser: cells run without an error, and a slider obeys the keyboard."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from teaching_contract import WINDOWS, Window, shown_height

from trpo_lessons.teaching.lesson_00 import explorers

ROOT = Path(__file__).parents[1]
LESSON = "00_start_here.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = "--no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-quic"
SECONDS = 1000  # of playwright's milliseconds

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab of its own, in a folder with a copy of the lesson."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(ROOT / "notebooks" / LESSON, folder)
    settings = folder / "settings" / "@jupyterlab"
    for plugin, values in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # keep every cell in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        (settings / plugin).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{plugin}.jupyterlab-settings").write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": folder, "open_browser": False}
    command = [sys.executable, "-m", "jupyterlab", "--LabApp.expose_app_in_browser=True", "--allow-root"]
    command += [f"--ServerApp.{name}={value}" for name, value in options.items()]
    command += [f"--IdentityProvider.token={token}", f"--LabApp.user_settings_dir={folder / 'settings'}"]
    command += [f"--LabApp.workspaces_dir={folder / 'workspaces'}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/api?token={token}", folder / "log")
            yield f"http://127.0.0.1:{port}/lab/tree/{LESSON}?token={token}"
        finally:
            server.terminate()


def _wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(lab: str) -> Iterator[Any]:
    """The lesson in a browser, its kernel ready."""
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", *QUIET.split()]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(60 * SECONDS)
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function(f"{KERNEL}?.connectionStatus === 'connected' && {KERNEL}.status === 'idle'")
        yield page
        browser.close()


KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
MODEL = "window.jupyterapp.shell.currentWidget.content.model.toJSON()"


@pytest.fixture(scope="module")
def notebook(page: Any) -> dict[str, Any]:
    """The notebook as the page holds it after all its cells have run."""
    # The stored outputs would hide a cell that did not run.
    page.evaluate("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"{MODEL}.cells.every(cell => cell.cell_type !== 'code' || cell.execution_count !== null)"
        f" && {KERNEL}.status === 'idle'",
        timeout=240 * SECONDS,
    )
    held: dict[str, Any] = page.evaluate(MODEL)
    return held


def test_all_cells_run_without_an_error(page: Any, notebook: dict[str, Any]) -> None:
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    stored = json.loads((ROOT / "notebooks" / LESSON).read_text(encoding="utf-8"))["cells"]
    with_output = [bool(cell["outputs"]) for cell in stored if cell["cell_type"] == "code"]
    assert [bool(cell["outputs"]) for cell in cells] == with_output
    assert page.get_by_text("Error displaying widget").count() == 0


def test_the_keyboard_moves_a_slider_and_text_and_picture_follow(page: Any, notebook: dict[str, Any]) -> None:
    explorer = page.locator(".jp-OutputArea-output:has([role=slider])").first
    handle = explorer.locator("[role=slider]").first
    facts, picture = explorer.locator("[role=status]"), explorer.locator("img")
    before = picture.get_attribute("src"), picture.get_attribute("alt")
    handle.focus()
    page.keyboard.press("Home")
    playwright.expect(facts).to_contain_text("gamma = 0.05", timeout=30 * SECONDS)
    playwright.expect(picture).not_to_have_attribute("src", str(before[0]), timeout=30 * SECONDS)
    playwright.expect(picture).not_to_have_attribute("alt", str(before[1]))
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 300, "the picture is not drawn"

    for _ in range(3):  # what the slider shows can be edited, and comes in between
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Reset":
            break
    page.keyboard.press("Enter")
    playwright.expect(facts).to_contain_text("gamma = 0.9", timeout=30 * SECONDS)


def test_every_picture_has_an_alternative_text_in_the_lab(page: Any, notebook: dict[str, Any]) -> None:
    """As axe-core sees it: stored pictures, live ones and explorers'."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run('.jp-Notebook', {runOnly: ['image-alt']})")
    nodes = {
        kind: [node["html"][:80] for rule in found[kind] for node in rule["nodes"]] for kind in ("violations", "passes")
    }
    assert nodes["violations"] == []
    assert len(nodes["passes"]) >= 8


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: f"{window.size[0]}x{window.size[1]}")
def test_an_explorer_is_as_high_as_its_style_sheets_say(page: Any, notebook: dict[str, Any], window: Window) -> None:
    """What tests/teaching_contract.py adds up for every explorer of every lesson, measured here for those of one."""
    width, height = window.size
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(1 * SECONDS)
    assert page.locator(".jp-WindowedPanel-outer").first.bounding_box()["height"] == pytest.approx(
        window.visible, abs=2
    )
    shown = page.locator(".jp-OutputArea-output .widget-vbox:has([role=status])")
    for place, build in enumerate((explorers.foresight, explorers.step_size)):
        box, explorer = shown.nth(place).bounding_box(), build()
        assert box["width"] == pytest.approx(window.column, abs=2)
        expected = shown_height(explorer, explorer.render(**explorer.settings), window)
        assert box["height"] == pytest.approx(expected, abs=24), "more than a line of text off"
        assert box["height"] <= expected + 2, "the sum is too small"


@pytest.mark.parametrize("width", [1280, 1024])
def test_nothing_is_wider_than_its_place(page: Any, notebook: dict[str, Any], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 768})
    page.wait_for_timeout(1 * SECONDS)
    too_wide = page.evaluate(
        """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-RenderedMarkdown')]
        .filter(place => place.scrollWidth > place.clientWidth)
        .map(place => `${place.scrollWidth - place.clientWidth} px: ${place.textContent.trim().slice(0, 60)}`)"""
    )
    assert too_wide == []
    stored = page.evaluate(
        "() => [...document.querySelectorAll('[role=group] img')].map(i => i.getBoundingClientRect().width)"
    )
    assert stored
    assert min(stored) >= 380, "a panel too small to be read"


def test_explorers_come_back_while_their_kernel_lives_and_only_then(page: Any, notebook: dict[str, Any]) -> None:
    """What lesson 00 says of a lesson that is opened again. Last: it ends the kernel."""
    shown = page.locator(".jp-OutputArea-output .widget-vbox:has([role=status])")
    missing = page.get_by_text("Error displaying widget: model not found")
    count = shown.count()
    assert count == 2
    _open_again(page)
    playwright.expect(shown).to_have_count(count, timeout=30 * SECONDS)
    assert missing.count() == 0

    page.evaluate(f"{KERNEL.removesuffix('?.session?.kernel')}.shutdown()")
    _open_again(page)
    playwright.expect(missing).to_have_count(count, timeout=30 * SECONDS)
    assert shown.count() == 0


def _open_again(page: Any) -> None:
    page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(f"{KERNEL}?.connectionStatus === 'connected' && {KERNEL}.status === 'idle'")
