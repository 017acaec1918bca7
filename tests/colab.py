"""Runs each chapter as a reader does in Colab; fails if one fails or changes a version.

    python tests/colab.py [part of a notebook's name]

The interpreter's environment plays Colab: that of `make colab`, or Colab's own image.
Each notebook is copied alone into an empty folder and believes that it is in Colab. Its
setup cell installs deqlib from the repository's address, for which git hands out the
files of this folder as they stand.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
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
for figure in [o for o in gc.get_objects() if isinstance(o, LiveFigure)]:
    *sliders, picture = figure.widget().children
    for slider in sliders:
        before = picture.value
        slider.index = (slider.index + 1) % len(slider.options)
        assert picture.value != before, (figure.says, slider.description)
        print("moved", slider.description)
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


def snapshot(folder):
    """A repository whose only commit holds this folder's files as they stand."""
    git = ["git", "-c", "user.name=colab", "-c", "user.email=colab@localhost"]
    listed = [*git, "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-coz"]
    files = subprocess.run(
        [*listed, "--exclude-standard"], capture_output=True, check=True
    )
    for name in filter(None, files.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "now"]):
        subprocess.run([*git, "-C", folder, *command], check=True)


def run(path, home):
    """Run one notebook; return the figures' sliders that were moved."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(MOVE))
    folder = home / path.stem
    folder.mkdir()
    nbformat.write(notebook, folder / path.name)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    said = [o.text for o in notebook.cells[-1].outputs if "text" in o]
    return "".join(said).count("moved")


def main(part=""):
    paths = [
        path
        for path in sorted(ROOT.glob("book/**/*.ipynb"))
        if part in path.name and '"setup"' in path.read_text()
    ]
    assert paths, f"no notebook is named like {part!r}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "repository").mkdir()
        snapshot(home / "repository")
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
        before = versions()
        print(
            f"Python {sys.version.split()[0]}, jax {before['jax']}, "
            f"ipywidgets {before['ipywidgets']}"
        )
        for path in paths:
            since = time.monotonic()
            uninstall = [sys.executable, "-m", "pip", "uninstall", "-qqy"]
            subprocess.run([*uninstall, "deqlib"], check=True)
            moved = run(path, home)
            after = versions()
            if changed := changes(before, after):
                raise SystemExit(f"{path.name} changed versions: {changed}")
            assert "deqlib" in after, f"{path.name} did not bring deqlib"
            print(
                f"{path.name}: {moved} sliders moved, "
                f"{time.monotonic() - since:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
