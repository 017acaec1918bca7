"""The house: one address, a small package that imports quickly, one way of depending."""

import re
import shutil
import subprocess
import sys

import yaml
from conftest import ROOT

ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"][
    "url"
]
PLACES = {".ipynb", ".md", ".yml", ".toml", ".cff"}
MODULES = sorted((ROOT / "deqlib").glob("*.py"))


def test_the_repository_has_one_address():
    """Wherever a repository's address stands, it is the one of _config.yml."""
    places = [
        *ROOT.glob("book/**/*.ipynb"),
        *ROOT.glob("*.md"),
        *ROOT.glob("*.cff"),
    ]
    places += [ROOT / "pyproject.toml"]
    found = 0
    for place in places:
        for address in re.findall(
            r"https://github\.com/[\w.-]+/[\w.-]*\w", place.read_text()
        ):
            assert address == ADDRESS, place
            found += 1
    assert found >= 6


def test_one_command_moves_the_address(tmp_path):
    """In a copy of the repository, every place follows; back again, nothing changed."""
    house = tmp_path / "house"
    for name in ("book", "_config.yml", "pyproject.toml", "CITATION.cff"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        house.mkdir(exist_ok=True)
        copy(source, house / name)
    for path in ROOT.glob("*.md"):
        shutil.copy(path, house)
    files = [p for p in house.rglob("*") if p.suffix in PLACES]
    before = {p: p.read_text() for p in files}
    places = [p for p in files if ADDRESS in before[p]]
    assert len(places) >= 9
    command = [sys.executable, house / "book/_ext/address.py"]
    fork = "https://github.com/a-student/a.fork-of_it"
    subprocess.run([*command, fork], check=True)
    for path in places:
        text = path.read_text()
        assert fork in text and ADDRESS not in text, path
    subprocess.run([*command, ADDRESS], check=True)
    assert {p: p.read_text() for p in files} == before
    bad = subprocess.run([*command, "example.org/x"], capture_output=True)
    assert bad.returncode and b"URL: expected https://github.com/" in bad.stderr


def python(source):
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_importing_deqlib_takes_a_twentieth_of_jax():
    source = (
        "from time import perf_counter as now; start = now(); import jax; "
        "middle = now(); import deqlib; print((now() - middle) / (middle - start))"
    )
    assert min(float(python(source)) for _ in range(3)) < 0.05


def test_deqlib_depends_on_jax_alone():
    source = "import jax, sys; a = set(sys.modules); import deqlib; print(*set(sys.modules) - a)"
    packages = {name.split(".")[0] for name in python(source).split()}
    for other in ("matplotlib", "ipywidgets", "IPython", "optax"):
        assert other not in packages
    assert "deqlib.notebook" not in python(source).split()


def test_deqlib_stays_small():
    lines = [
        line
        for module in MODULES
        for line in re.sub(
            r'""".*?"""', "", module.read_text(), flags=re.S
        ).splitlines()
        if line.strip() and not line.strip().startswith("#")
    ]
    assert len(lines) < 620


def test_nothing_belongs_to_one_machine():
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in files:
        path = ROOT / name
        if path.suffix in {".svg", ".png", ".ico"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|Users|work)/\w", text), name
