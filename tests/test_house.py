"""The house: one address, a small package that imports quickly, one way of depending."""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tomllib

import yaml
from address import COLAB, pages
from conftest import ROOT

ADDRESS = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"][
    "url"
]
PLACES = {".ipynb", ".md", ".yml", ".toml", ".cff"}


def test_the_repository_has_one_address():
    """What is installed, opened, cited and read is at the address of _config.yml."""
    name = ADDRESS.removeprefix("https://github.com/")
    for path in ROOT.glob("book/**/*.ipynb"):
        (installed,) = re.findall(
            r"git\+(https://[^\s\"\\]+)", path.read_text()
        )
        assert installed == ADDRESS, path
    for path in ("pyproject.toml", "CITATION.cff", "CONTRIBUTING.md"):
        assert ADDRESS in (ROOT / path).read_text()
    readme = (ROOT / "README.md").read_text()
    opened = re.findall(
        r"colab\.research\.google\.com/github/(\S+?)/blob", readme
    )
    assert set(opened) == {name}
    sites = re.findall(r"https://[\w-]+\.github\.io/[\w-]+/", readme)
    assert set(sites) == {pages(ADDRESS)}


def test_one_command_moves_the_address(tmp_path):
    """In a copy of the repository, every place follows, and no link to another project;
    back again, nothing changed."""
    house = tmp_path / "house"
    for name in ("book", "_config.yml", "pyproject.toml", "CITATION.cff"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        house.mkdir(exist_ok=True)
        copy(source, house / name)
    for path in ROOT.glob("*.md"):
        shutil.copy(path, house)
    others = (
        f"https://github.com/jax-ml/jax, {ADDRESS}-2 and https://x.github.io/y/"
    )
    (house / "others.md").write_text(others)
    files = [p for p in house.rglob("*") if p.suffix in PLACES]
    before = {p: p.read_text() for p in files}
    old = [ADDRESS, pages(ADDRESS), f"{COLAB}/{ADDRESS.split('/', 3)[3]}/"]
    command = [sys.executable, house / "book/_ext/address.py"]
    fork = "https://github.com/a-student/a.fork-of_it"
    new = [fork, pages(fork), f"{COLAB}/a-student/a.fork-of_it/"]
    subprocess.run([*command, fork], check=True)
    assert (house / "others.md").read_text() == others
    moved = 0
    for path in set(files) - {house / "others.md"}:
        text = path.read_text()
        for one, other in zip(old, new, strict=True):
            assert one not in text and text.count(other) == before[path].count(
                one
            )
            moved += text.count(other)
    assert moved > 20
    subprocess.run([*command, ADDRESS], check=True)
    assert {p: p.read_text() for p in files} == before
    for bad in ("example.org/x", f"{ADDRESS}.git", f"{ADDRESS}/tree/main"):
        refused = subprocess.run([*command, bad], capture_output=True)
        assert refused.returncode, bad
        assert b"URL: expected https://github.com/" in refused.stderr


def python(source):
    # As installed: modules that are imported again are not compiled again.
    written = {
        k: os.environ[k] for k in os.environ if k != "PYTHONDONTWRITEBYTECODE"
    }
    return subprocess.run(
        [sys.executable, "-c", source],
        env=written,
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


def code_lines(*names):
    """Lines of code, without docstrings and comments."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#")
        for name in names
        for line in re.sub(
            r'""".*?"""',
            "",
            (ROOT / f"deqlib/{name}.py").read_text(),
            flags=re.S,
        ).splitlines()
    )


def test_the_mathematics_stays_small():
    """What a chapter explains; what is robustness stands apart."""
    chapters = "solvers linear jacobian equilibrium mixed hessian loss".split()
    assert code_lines(*chapters) < 480
    assert code_lines("_border", "_guard", "_validate") < 400


def test_nothing_belongs_to_one_machine(tmp_path):
    git = ["git", f"--git-dir={tmp_path}/.git", f"--work-tree={ROOT}"]
    subprocess.run([*git, "init", "-q"], check=True)
    files = subprocess.run(
        [*git, "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "README.md" in files
    for name in files:
        path = ROOT / name
        if path.suffix in {".svg", ".png", ".gif"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|Users|work)/\w", text), name


def test_where_a_nan_decides_the_largest_is_taken_by_largest():
    """XLA's own forgets a NaN among many floats on a CPU (jax 0.10)."""
    for path in (ROOT / "deqlib").glob("*.py"):
        taken = re.findall(r"\bjnp\.(?:a?max|a?min)\(", path.read_text())
        assert not taken, path.name


def test_the_listed_mutants_are_of_lines_that_exist():
    """One token more or other than a line of their module, or the line without it."""
    tokens = lambda line: re.findall(r"\w+|[^\w\s]", line)

    def edits(a, b):
        moves = difflib.SequenceMatcher(None, a, b, False).get_opcodes()
        sizes = (
            max(i - h, k - j) for tag, h, i, j, k in moves if tag != "equal"
        )
        return sum(sizes)

    listed = tomllib.loads((ROOT / "tests/mutants.toml").read_text())
    for group in listed["equivalent"] + listed["may-live"]:
        for module in group.keys() - {"why"}:
            source = (ROOT / f"deqlib/{module}.py").read_text().splitlines()
            lines = [tokens(line) for line in source]
            for mutant in group[module]:
                removed = mutant.startswith("- ")
                wanted = tokens(mutant.removeprefix("- "))
                nearest = min(edits(line, wanted) for line in lines)
                assert nearest <= (0 if removed else 2), mutant
