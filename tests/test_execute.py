"""Notebooks are executed into the cache: what each cost is kept, a failure is named."""

import time

import execute
import nbformat
import pytest
from jupyter_cache import get_cache


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(name, source): a notebook of one cell, the only one there is."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("DEQLIB_FRAMES", "")
    monkeypatch.setattr(execute, "cache", lambda: get_cache(tmp_path / "cache"))

    def write(name, source):
        cell = nbformat.v4.new_code_cell(source)
        path = tmp_path / name
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
        monkeypatch.setattr(execute, "chosen", lambda part="": [path])
        return path

    return write


def test_what_a_notebook_costs_is_kept(write, capfd):
    path = write(
        "good.ipynb",
        "import jax, numpy as np\nfor k in (2, 3):\n"
        "    print(float(jax.jit(lambda x: x @ x)(np.ones(k))))",
    )
    execute.main()
    cost = execute.cost_of(path)
    assert cost["programs"] == 2
    assert 0 < cost["slowest_cell"] < cost["execution_seconds"]
    _, found = execute.cache().merge_match_into_notebook(execute.read(path))
    assert [cell.execution_count for cell in found.cells] == [1]
    assert found.cells[0].outputs[0].text == "2.0\n3.0\n"
    capfd.readouterr()
    execute.main()  # from the cache, and told again
    row = capfd.readouterr().out.splitlines()[-1].split()
    assert row[0] == "good" and row[-1] == "2"


def test_a_notebook_that_fails_is_named(write):
    path = write("bad.ipynb", "1 / 0")
    with pytest.raises(SystemExit, match="bad.ipynb failed:(.|\n)*1 / 0"):
        execute.main()
    assert execute.cost_of(path) is None


def test_the_first_that_fails_ends_the_others(write, monkeypatch):
    paths = [write("slow.ipynb", "import time; time.sleep(99)")]
    paths += [write("bad.ipynb", "1 / 0"), write("next.ipynb", "1")]
    monkeypatch.setattr(execute, "chosen", lambda part="": paths)
    start = time.monotonic()
    with pytest.raises(SystemExit, match="^bad.ipynb failed:"):
        execute.main()
    assert time.monotonic() - start < 60
    assert not any(map(execute.cost_of, paths))


def test_a_part_of_no_name_is_refused():
    with pytest.raises(SystemExit, match="ONLY: no notebook.*'nonesuch'"):
        execute.chosen("nonesuch")
