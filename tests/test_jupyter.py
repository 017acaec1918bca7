"""A chapter of the plain edition in a real JupyterLab: no red formula, figures that move.

    PYTHONPATH=tests:book/_ext python tests/test_jupyter.py 04_mixed_hessian folder

does the same for any page, and puts screenshots into the folder, to be looked at.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from bring import chromium
from conftest import ROOT
from playwright.sync_api import sync_playwright
from test_browser import ARGUMENTS

PLAIN = ROOT / "_build" / "notebooks" / "book"
OPTIONS = (
    "--no-browser --allow-root --ServerApp.token= --LabApp.news_url=None "
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"
).split()
# All cells are in the page, and not only those that are on the screen; no question asked.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}
READY = """() => {
  const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
  const texts = prompts.map(one => one.textContent).filter(Boolean);
  return texts.at(-1).match(/\\d/) && !texts.some(text => text.includes("*"));
}"""
RED = "mjx-merror, [data-mjx-error], mjx-container [style*='red'], [mathcolor='red']"
FAILED = ".jp-RenderedText[data-mime-type$='stderr'], .jp-RenderedText[data-mime-type$='error']"


@contextlib.contextmanager
def jupyter(home):
    """The address of a JupyterLab, as `make lab` has it, that serves the folder `home`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kinds = (
        "JUPYTERLAB_SETTINGS",
        "JUPYTERLAB_WORKSPACES",
        "JUPYTER_CONFIG",
        "JUPYTER_DATA",
    )
    own = {f"{kind}_DIR": str(home / f".{kind}") for kind in kinds}
    for name, settings in SETTINGS.items():
        path = home / f".{kinds[0]}/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *OPTIONS]
        + [
            f"--config={ROOT / 'book/_ext/lab.py'}",
            f"--ServerApp.port={port}",
            f"--ServerApp.root_dir={home}",
        ],
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait()


def move(page, figure):
    """Skip its question; then, for each slider, whether the picture follows it."""
    picture = figure.locator(".live-picture .widget-html-content")
    figure.get_by_role("button", name="Skip the question").click()
    figure.locator(".noUi-handle").first.wait_for()
    for handle in figure.locator(".noUi-handle").all():
        before = picture.inner_html()
        ends = [
            handle.get_attribute(f"aria-value{end}") for end in ("now", "max")
        ]
        handle.press("ArrowLeft" if ends[0] == ends[1] else "ArrowRight")
        for _ in range(50):
            page.wait_for_timeout(100)
            if changed := picture.inner_html() != before:
                break
        yield changed


def run(name, home, folder=None):
    """Open a page's notebook, run all of it, move each slider; what was seen."""
    shutil.copy(PLAIN / f"{name}.ipynb", home)
    path = chromium()
    assert path, "no Chromium here: run `python tests/bring.py`"
    seen = {"troubles": []}
    with jupyter(home) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: seen["troubles"].append(str(error)))
        page.on(
            "console",
            lambda message: (
                message.type == "error"
                and seen["troubles"].append(
                    (message.text, message.location["url"])
                )
            ),
        )
        page.goto(f"{address}/doc/tree/{name}.ipynb")
        page.locator("mjx-container").first.wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_function(READY, timeout=180_000)
        figures = page.locator(".widget-vbox.live-figure")
        figures.first.wait_for()
        seen["moved"] = [ok for one in figures.all() for ok in move(page, one)]
        page.locator(".jp-showHiddenCellsButton").click()
        page.evaluate(
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        page.wait_for_timeout(1000)
        seen["formulas"] = page.locator("mjx-container").count()
        seen["red"] = page.locator(RED).all_inner_texts()
        seen["failed"] = page.locator(FAILED).all_inner_texts()
        if folder:
            folder.mkdir(exist_ok=True, parents=True)
            cells = page.locator(".jp-Notebook-cell")
            for i in range(0, cells.count(), 3):
                cells.nth(i).evaluate("one => one.scrollIntoView()")
                page.wait_for_timeout(200)
                page.screenshot(path=folder / f"{i:03d}.png")
        browser.close()
    return seen


def test_a_chapter_runs_in_jupyterlab(tmp_path):
    seen = run("01_equilibrium_layers", tmp_path)
    assert seen["moved"] == [True] * 4
    assert seen["formulas"] > 100
    assert not seen["red"] and not seen["failed"] and not seen["troubles"], seen


def test_a_save_without_a_change_leaves_no_difference(tmp_path):
    source = ROOT / "book/04_mixed_hessian.ipynb"
    copy = Path(shutil.copy(source, tmp_path))
    path, before = chromium(), copy.stat().st_mtime_ns
    with jupyter(tmp_path) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS
        )
        page = browser.new_page()
        page.goto(f"{address}/doc/tree/{copy.name}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        page.locator(".jp-Cell").first.click()
        page.keyboard.press("Control+s")
        for _ in range(100):
            page.wait_for_timeout(100)
            if copy.stat().st_mtime_ns != before:
                break
        browser.close()
    assert copy.stat().st_mtime_ns != before, "it was not saved"
    assert copy.read_bytes() == source.read_bytes()


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as home:
        print(run(sys.argv[1], Path(home), Path(sys.argv[2])))
