"""Runs each page with code as a reader does in Colab, in the plain edition that the build
makes; fails if one fails or changes a version.

    python tests/colab.py [part of a notebook's name]

The interpreter's environment plays Colab: that of `make colab`, or Colab's own image.
Each notebook is copied alone into an empty folder and believes that it is in Colab. The
setup cell of the first installs deqlib from the repository's address, for which git hands
out the files of this folder as they stand. Run to the end, the exercises are open still;
then their solutions are pasted in, and have to pass.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "_build" / "notebooks"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from address import address

BELIEVE = """
import sys, unittest.mock
try:
    import google.colab
except ImportError:
    sys.modules["google.colab"] = unittest.mock.MagicMock()
"""
VERSIONS = """
import importlib.metadata, json
print(json.dumps({d.name: d.version for d in importlib.metadata.distributions()}))
"""
# Moves each slider of each live figure and sees that the picture changes.
MOVE = """
import gc
from deqlib.notebook.live import LiveFigure

def move_all(figure):
    picture, asked, choices, controls, answer = figure.widget().children
    choices.value = choices.options[-1]
    for slider in controls.children[:-1]:
        before = picture.value
        if hasattr(slider, "options"):
            slider.index = (slider.index + 1) % len(slider.options)
        else:
            slider.value = not slider.value
        assert picture.value != before, (figure.says, slider.description)
        print("moved", slider.description)

for figure in [o for o in gc.get_objects() if isinstance(o, LiveFigure)]:
    move_all(figure)
"""


def versions():
    """{distribution: version}, as a new process sees them."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", VERSIONS], capture_output=True, check=True
    )
    return json.loads(done.stdout)


def changes(before, after):
    """What the chapter did to the environment, apart from bringing deqlib."""
    names = sorted((before.keys() | after.keys()) - {"deqlib"})
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def snapshot(folder, name):
    """A repository whose only commit, of the given name, holds these files as they are."""
    git = ["git", f"--git-dir={folder}/.git", f"--work-tree={ROOT}"]
    git += ["-c", "user.name=colab", "-c", "user.email=colab@localhost"]
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["commit", "-qm", "now"],
        ["tag", name],
    ):
        subprocess.run([*git, *command], check=True)


def said(cells):
    outputs = [output for cell in cells for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def solved(notebook):
    """A cell of code for each solution that has some."""
    solutions = (c.source for c in notebook.cells if "<details>" in c.source)
    codes = (re.findall(r"```python\n(.*?)```", s, re.S) for s in solutions)
    return [
        nbformat.v4.new_code_cell("\n".join(code)) for code in codes if code
    ]


def run(path, home):
    """Run one notebook, and say what it took."""
    since = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    move, solutions = nbformat.v4.new_code_cell(MOVE), solved(notebook)
    notebook.cells += [move, *solutions]
    folder = home / path.stem
    folder.mkdir()
    nbformat.write(notebook, folder / path.name)
    try:
        NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    except Exception as error:
        raise SystemExit(f"{path.name} failed:\n{error}") from None
    stubs = [
        cell
        for cell in notebook.cells
        if "exercise" in cell.metadata.get("tags", [])
    ]
    first, right = (
        said(stubs).count("Not yet: "),
        said(solutions).count("Right."),
    )
    if not first == right == len(stubs):
        raise SystemExit(
            f"{path.name}: of {len(stubs)} exercises with a check {first} are open at "
            f"first, and {right} are right with their solutions"
        )
    moved, took = said([move]).count("moved"), time.monotonic() - since
    print(
        f"{path.name}: {moved} sliders moved, {right} exercises solved, {took:.0f} s",
        flush=True,
    )


def main(part=""):
    paths = [p for p in NOTEBOOKS.glob("**/*.ipynb") if part in p.name]
    assert paths, f"no notebook is named like {part!r}: was the book built?"
    pinned = re.search(r"git\+https://[^@\s]+@(\w+)", paths[0].read_text())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "repository").mkdir()
        snapshot(home / "repository", pinned[1] if pinned else "now")
        startup = home / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        (startup / "believe.py").write_text(BELIEVE)
        os.environ |= {
            "IPYTHONDIR": str(home / "ipython"),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{home}/repository.insteadOf",
            "GIT_CONFIG_VALUE_0": address(),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        uninstall = [sys.executable, "-m", "pip", "uninstall", "-qqy"]
        subprocess.run([*uninstall, "deqlib"], check=True)
        before = versions()
        print(
            f"Python {sys.version.split()[0]}, jax {before['jax']}, "
            f"ipywidgets {before['ipywidgets']}"
        )
        # All have the same setup cell. The first of them brings deqlib for the others.
        first, *others = sorted(paths, key=lambda path: -path.stat().st_size)
        run(first, home)
        assert "deqlib" in versions(), f"{first.name} did not bring deqlib"
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            running = [pool.submit(run, path, home) for path in others]
            for done in as_completed(running):
                if done.exception():
                    pool.shutdown(cancel_futures=True)
                    raise done.exception()
        if changed := changes(before, versions()):
            raise SystemExit(f"a notebook changed versions: {changed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
