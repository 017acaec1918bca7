"""The notebooks keep the form of a chapter."""

import re
import symtable
import sys

import nbformat
import pytest
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager

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
def test_a_printed_table_fits_a_phone(path):
    """46 characters at 375 px: in a row that wraps, no column is one."""
    for cell in code(path, EVIDENCE):
        lines = cell.outputs[0].text.splitlines()
        rows = lines[1:]  # the first may be a header
        if len(rows) >= 2 and all(re.search(r"\d", row) for row in rows):
            assert max(map(len, lines)) <= 46, cell.outputs[0].text


@every_notebook
def test_setup_is_the_same_everywhere(path):
    """One folded cell brings deqlib, in the same way on each page, and then imports."""
    first = code(path)[0]
    assert first.metadata.tags == ["setup", "imports", "hide-cell"]
    setup, imports = first.source.split("\nsetup()\n\n")
    assert setup == code(NOTEBOOKS[0])[0].source.split("\nsetup()\n\n")[0]
    assert "%pip install --quiet --no-deps git+https://" in setup
    assert "\nfrom deqlib" in imports


@every_notebook
def test_cells_are_short(path):
    for cell in code(path):
        if not {"hide-input", "setup"} & set(cell.metadata.get("tags", [])):
            lines = cell.source.splitlines()
            assert len(lines) <= 25, cell.source
            assert max(map(len, lines)) <= 80, cell.source


def names(source):
    """(defined, used): the global names that a cell binds, and those that it reads."""
    top = symtable.symtable(source, "cell", "exec")
    scopes, defined, used = [top], set(), set()
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if scope is top and symbol.is_assigned() or symbol.is_imported():
                defined.add(symbol.get_name())
            elif symbol.is_referenced() and (
                scope is top or symbol.is_global()
            ):
                used.add(symbol.get_name())
    return defined, used


@every_chapter
def test_what_a_visible_cell_uses_is_visible_or_named(path):
    folded, text = set(), ""
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text += cell.source
            continue
        tags = set(cell.metadata.get("tags", []))
        defined, used = names(TransformerManager().transform_cell(cell.source))
        if "hide-input" in tags:
            folded |= defined
        elif not {"hide-cell", "setup"} & tags:
            for name in used & folded:
                assert re.search(rf"`{name}[`(]", text), (name, cell.source)
            folded -= defined


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
def test_few_cells_are_open(path):
    folded = {"hide-input", "hide-cell", "setup"}
    tags = [set(c.metadata.get("tags", [])) for c in code(path)]
    assert sum(not folded & each for each in tags) <= 25


@every_chapter
def test_a_good_answer_to_explore_has_a_plot(path):
    """In the fold of the exercise's solution."""
    cells = read(path).cells
    (at,) = [i for i, c in enumerate(cells) if "*Explore, " in c.source]
    assert ":::{solution}" in cells[at].source
    worked = []
    while "worked" in cells[at + 1].metadata.get("tags", []):
        at += 1
        worked.append(cells[at].source)
    assert "plt.subplots(" in worked[-1]


@every_chapter
def test_the_summary_says_where_next(path):
    assert "Where next?" in prose(path).split("## Summary")[1]


@every_chapter
def test_each_live_figure_asks(path):
    figures = [c.source for c in code(path) if "\nlive_figure(" in c.source]
    assert figures
    for source in figures:
        assert source.count("predict=Question(") == 1


def test_the_map_has_each_chapter_with_its_minutes():
    text = prose(CHAPTERS[-1])
    assert CHAPTERS[-1].stem == "introduction"
    for number, path in enumerate(CHAPTERS[:-1], 1):
        minutes = re.search(r"It takes\*\* about (\d+)", prose(path))[1]
        title = rf"\[{number} [^\]]+\]\({path.stem}\)"
        assert re.search(rf"\| {title} \| [^|]+\? \| {minutes} \|", text), path


@every_chapter
def test_figures_have_a_text_for_those_who_cannot_see_them(path):
    for cell in code(path):
        drawn = "plt.subplots" in cell.source or "diagram(" in cell.source
        if drawn and "live_figure(" not in cell.source:
            assert (
                cell.metadata.mystnb.image.alt
                and cell.metadata.mystnb.figure.caption
            )
            # A black line is white in the dark.
            for word in ("black", "white"):
                assert word not in cell.metadata.mystnb.figure.caption


def run(source, namespace):
    exec(TransformerManager().transform_cell(source), namespace)


def test_the_setup_cell_tells_others_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "deqlib.notebook", None)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    with pytest.raises(ImportError, match=r"deqlib is missing.*pip install -e"):
        run(code(CHAPTERS[0])[0].source, {})
