"""The notebooks keep the form of a chapter, and their exercises can be solved."""

import sys

import jax.numpy as jnp
import nbformat
import pytest
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager

from deqlib.notebook import exercises

NOTEBOOKS = sorted(ROOT.glob("book/**/*.ipynb"))
CHAPTERS = [p for p in NOTEBOOKS if "appendices" not in p.parts]
EVIDENCE = "nbval-check-output"
SECTIONS = [
    ", by pencil",
    "From equations to code",
    "Does it work?",
    "What it costs, and how it breaks",
    "Exercises",
    "Summary",
]

every_notebook = pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda p: p.stem
)
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(path, tag=None):
    cells = [c for c in read(path).cells if c.cell_type == "code"]
    return [
        c for c in cells if tag is None or tag in c.metadata.get("tags", [])
    ]


def prose(path):
    return "\n\n".join(
        c.source for c in read(path).cells if c.cell_type == "markdown"
    )


@every_notebook
def test_evidence_is_stored_and_nothing_else(path):
    evidence = code(path, EVIDENCE)
    assert evidence
    for cell in code(path):
        if cell in evidence:
            assert cell.execution_count is not None, cell.source
            assert len(cell.outputs) == 1, cell.source
            assert cell.outputs[0].output_type == "stream", cell.source
            assert cell.outputs[0].text.strip(), cell.source
        else:
            assert not cell.outputs and cell.execution_count is None, (
                cell.source
            )
    assert "widgets" not in read(path).metadata


@every_notebook
def test_setup_cell_is_the_same_everywhere(path):
    first = code(path)[0]
    assert first.metadata.tags == ["setup", "hide-cell"]
    assert first.source == code(NOTEBOOKS[0])[0].source
    assert "%pip install --quiet --no-deps git+https://" in first.source


@every_notebook
def test_cells_are_short(path):
    for cell in code(path):
        if "hide-input" not in cell.metadata.get("tags", []):
            lines = cell.source.splitlines()
            assert len(lines) <= 25, cell.source
            if "setup" not in cell.metadata.get("tags", []):
                assert max(map(len, lines)) <= 80, cell.source


@every_chapter
def test_chapter_keeps_the_template(path):
    text = prose(path)
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    if path.stem != "introduction":
        found = [next(h for h in headings if s in h) for s in SECTIONS]
        assert found == sorted(found, key=headings.index)
    opening, box = text.split(":::{admonition} In this chapter")[:2]
    assert len(opening.split()) <= 160
    for promise in ("You will be able to", "You need", "It takes"):
        assert promise in box
    cells = [c.source for c in read(path).cells]
    live = next(i for i, c in enumerate(cells) if "\nlive_figure(" in c)
    assert ":::{admonition} In this chapter" in cells[live + 1]
    assert text.count(":::{exercise}") >= 4
    assert text.count(":::{exercise}") == text.count(":::{solution}")
    for kind in ("Pencil", "Code", "Break it", "Explore"):
        assert f"*{kind}, " in text
    for heading in ("**In the sources.**", "**Further reading.**"):
        assert heading in text


@every_chapter
def test_figures_have_a_text_for_those_who_cannot_see_them(path):
    for cell in code(path):
        drawn = "plt.subplots" in cell.source or "diagram(" in cell.source
        if drawn and "live_figure(" not in cell.source:
            assert (
                cell.metadata.mystnb.image.alt
                and cell.metadata.mystnb.figure.caption
            )


def run(source, namespace):
    exec(TransformerManager().transform_cell(source), namespace)


def exercise_cells(path):
    """(name, stub, solution) of each exercise with a check."""
    stubs, solutions = code(path, "exercise"), code(path, "solution")
    assert len(stubs) == len(solutions) >= 3
    for stub, solution in zip(stubs, solutions, strict=True):
        name = stub.source.split('check("')[1].split('"')[0]
        yield name, stub.source, solution.source


@pytest.mark.parametrize(
    "path, name, stub, solution",
    [(path, *cells) for path in CHAPTERS for cells in exercise_cells(path)],
    ids=lambda value: (
        value if isinstance(value, str) and len(value) < 30 else ""
    ),
)
def test_solutions_pass_and_stubs_fail(path, name, stub, solution, capsys):
    namespace = {}
    run(code(path, "imports")[0].source, namespace)
    capsys.readouterr()
    run(stub, namespace)
    assert capsys.readouterr().out.startswith("Not yet: ")
    assert f'check("{name}"' in solution
    run(solution, namespace)
    assert capsys.readouterr().out == "Right.\n"


def test_every_check_belongs_to_an_exercise():
    used = [name for path in CHAPTERS for name, *_ in exercise_cells(path)]
    assert sorted(used) == sorted(exercises.CHECKS)


HINTS = {
    "introduction-implicit": (1 / 3, "the second z"),
    "introduction-shapes": (15, "makes a row"),
    "introduction-directional": (lambda g, x, v: g(x), "value first"),
    "introduction-rounding": (0.1, "go smaller"),
    "layers-steps": (131, "a little too large"),
    "layers-damped": (
        (lambda g, a: lambda z: a * z + (1 - a) * g(z), 0.3),
        "belongs to",
    ),
    "layers-growth": (jnp.eye(2) * 0.4, "after three steps"),
    "jacobian-cell": ([2.0, 1.0], "solve with A"),
    "jacobian-dense": (lambda f, x, z: jnp.zeros((3, 4)), "shape should be"),
    "jacobian-singular": (jnp.full((2, 2), 0.1), "A is regular"),
    "backward-row": (([1.0, 0.0], 1), "without the transpose"),
    "backward-truncated": (lambda f, x, z, u, K: jnp.zeros(3), "with K = 1"),
    "backward-uphill": ((jnp.zeros((2, 2)), jnp.ones(2)), "downhill"),
    "slope-halves": (4, "one of the two terms"),
    "slope-gradient": (lambda f, t, x, z, u: jnp.zeros(2), "shape should be"),
    "slope-blind": (lambda t, x, z: t * x + z / 2, "is not zero"),
    "hessian-twice": (8, "counts twice"),
    "hessian-directions": (lambda f, x, z, v, w: jnp.zeros(3), "shape"),
    "hessian-straight": (lambda x, z: x + z / 2, "not bent"),
    "penalty-steep": (128, "one half"),
    "penalty-contractive": (lambda f, x, z: jnp.zeros(2), "shape should be"),
    "penalty-probe": (jnp.array([[1.0, 2.0], [1.0, 1.0]]), "at the columns"),
    "loss-bend": (4, "Term A alone"),
    "loss-terms": (lambda loss, f, x, z: jnp.zeros(2), "shape should be"),
    "loss-saddle": (jnp.zeros(5), "the smallest eigenvalue is"),
    "master-scalar": ((4, 48), "counts twice"),
    "master-product": (lambda loss, f, x, z, v: jnp.zeros(2), "shape"),
    "master-plausible": (lambda loss, f, x, z: jnp.ones((2, 2)), "shape"),
    "mixed-partner": (2, "divide the bracket by A"),
    "mixed-dense": (lambda f, t, x, z: jnp.zeros((3, 4)), "shape should be"),
    "mixed-lucky": (lambda t, x, z: t + x * z / 2, "the printed formula gives"),
}


@pytest.mark.parametrize("name", HINTS)
def test_wrong_answers_get_a_hint(name, capsys):
    answer, hint = HINTS[name]
    exercises.check(name, answer)
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and hint in out


def test_every_exercise_has_a_wrong_answer_here():
    assert set(HINTS) == set(exercises.CHECKS)


def test_a_check_survives_an_answer_that_raises(capsys):
    exercises.check("jacobian-dense", lambda f, x, z: 1 / 0)
    assert "raised ZeroDivisionError" in capsys.readouterr().out
    with pytest.raises(KeyError, match="name: expected one of"):
        exercises.check("no-such-exercise", 1)


def test_the_setup_cell_tells_others_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "deqlib.notebook", None)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    with pytest.raises(ImportError, match=r"deqlib is missing.*pip install -e"):
        run(code(CHAPTERS[0])[0].source, {})
