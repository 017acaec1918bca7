"""The plain edition: nothing of MyST is left in it, and nothing of the page is lost."""

import re
import subprocess
from functools import cache
from urllib.parse import urldefrag

import nbformat
import pytest
from address import address, pages
from conftest import ROOT

PLAIN = ROOT / "_build" / "notebooks"
HTML = ROOT / "_build" / "html"
SOURCES = sorted(ROOT.glob("book/**/*.ipynb"))
every_page = pytest.mark.parametrize(
    "source", SOURCES, ids=lambda path: path.stem
)
LEFTOVERS = {
    "directive": r"^\s*[:`]{3,}\s*\{",
    "role": r"\{[\w:]+\}`",
    "label of an equation": r"\$\$ *\(",
    "target": r"^\([\w-]+\)=",
    "link to a source": r"\]\((?!https://)",
    "formula in more than one line of a quote": r"^>((?!\$\$).)*\$\$((?!\$\$).)*$",
    "script or markup": r"<(?!/?(details|summary)>)/?\w+[^>$]*>",
    "placeholder": r"%s|\bNone\b",
}


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def plain(source):
    return read(PLAIN / source.relative_to(ROOT))


def texts(notebook):
    return [c.source for c in notebook.cells if c.cell_type == "markdown"]


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def page(source):
    return HTML / source.relative_to(ROOT).with_suffix(".html")


def test_every_page_with_code_has_one():
    made = {path.relative_to(PLAIN) for path in PLAIN.glob("**/*.ipynb")}
    assert made == {source.relative_to(ROOT) for source in SOURCES}


@every_page
def test_nothing_of_myst_is_left(source):
    notebook = plain(source)
    nbformat.validate(notebook)
    for text in texts(notebook):
        text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
        for what, pattern in LEFTOVERS.items():
            assert not re.search(pattern, text, re.M), (what, text)
        assert not re.search(r"\\(R|d|norm|inner)\b", text), text


@every_page
def test_the_first_line_leads_to_the_page(source):
    first = texts(plain(source))[0].splitlines()[0]
    path = page(source).relative_to(HTML)
    assert f"({pages(address())}{path})" in first


@every_page
def test_numbers_are_those_of_the_page(source):
    html = page(source).read_text()
    words = " ".join(re.sub(r"<[^>]+>", "", html).split())
    joined = "\n".join(texts(plain(source)))
    equations = re.findall(r'<span class="eqno">\(([\w.]+)\)', html)
    assert re.findall(r"\\tag\{([\w.]+)\}", joined) == equations
    for kind in (r"Exercise [\d.]+ \(", r"Theorem [\d.]+ \("):
        assert set(re.findall(kind, joined)) == set(re.findall(kind, words))


@every_page
def test_links_lead_to_what_the_build_made(source):
    site = pages(address())
    assert f"({site}" in "\n".join(texts(plain(source)))
    for link in re.findall(
        r"\]\((https://[^)\s]+)\)", "\n".join(texts(plain(source)))
    ):
        if link.startswith(site):
            path, anchor = urldefrag(link.removeprefix(site))
            html = (HTML / path).read_text()
            assert not anchor or f'id="{anchor}"' in html, link


@every_page
def test_code_is_that_of_the_source_and_solutions_do_not_run(source):
    """Evidence, tags and order stay. A solution is text, one for each exercise."""
    clone = (ROOT / ".git").exists()
    pinned = re.compile(r"(git\+https://\S+?)@([0-9a-f]{40})\b")
    title = re.compile(r"#@title .+\n")
    kept, hidden = [], []
    for cell in code(read(source)):
        tags = cell.metadata.get("tags", [])
        (
            hidden if "hide-cell" in tags and "setup" not in tags else kept
        ).append(cell)
    found = code(plain(source))
    assert [c.id for c in found] == [c.id for c in kept]
    for cell, original in zip(found, kept, strict=True):
        tags = original.metadata.get("tags", [])
        assert cell.metadata.get("tags", []) == tags
        assert cell.get("outputs") == original.get("outputs")
        folded = any(tag.startswith("hide-") for tag in tags)
        assert bool(title.match(cell.source)) == folded
        assert ("cellView" in cell.metadata) == folded
        assert (
            cell.metadata.get("jupyter", {}).get("source_hidden", False)
            == folded
        )
        text = title.sub("", cell.source, count=1)
        if "setup" in tags and clone:
            commit = pinned.search(text)[2]
            subprocess.run(
                ["git", "-C", ROOT, "cat-file", "-e", commit], check=True
            )
            text = pinned.sub(r"\1", text)
        assert text == original.source
    folds = [t for t in texts(plain(source)) if t.startswith("<details>")]
    shown = re.findall(r"```python\n(.*?)\n```", "\n".join(folds), re.S)
    assert shown == [cell.source for cell in hidden]
    assert len(folds) == "\n".join(texts(read(source))).count(":::{solution}")
    if folds:
        at = next(
            t for t in texts(plain(source)) if t.startswith("## Solutions")
        )
        assert plain(source).cells[-len(folds) - 1].source == at


def test_answers_to_a_question_open_and_keep_their_formulas():
    (found,) = [
        text
        for text in texts(plain(ROOT / "book/03_backward_fixed_point.ipynb"))
        if text.startswith("## Do you have it?")
    ]
    answers = re.findall(
        r"<summary>(.*?)</summary>\n\n\S.*?</details>", found, re.S
    )
    assert len(answers) == 9 and "$m$, one for each state" in answers


@every_page
def test_the_download_is_this_edition(source):
    path = source.relative_to(ROOT)
    assert (HTML / "_sources" / path).read_bytes() == (
        PLAIN / path
    ).read_bytes()
