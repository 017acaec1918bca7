"""The built book: every link inside it leads somewhere, and it needs no other host."""

import gzip
import json
import re
import time
from functools import cache
from html.parser import HTMLParser
from importlib.metadata import version
from operator import attrgetter
from urllib.parse import unquote, urlsplit

import evidence
import execute
import matplotlib.pyplot as plt
import programs
import pytest
import yaml
from address import address
from address import pages as published
from conftest import ROOT

import deqlib
from deqlib.notebook import Parameter, live_figure

HTML = ROOT / "_build" / "html"
PREFIX = urlsplit(published(address())).path


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.loads, self.names = [], [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if attributes.get("id"):
            self.names.add(attributes["id"])
        for kind in ("href", "src"):
            if attributes.get(kind):
                self.targets.append(attributes[kind])
                if tag in ("script", "img", "link", "iframe", "source"):
                    self.loads.append(
                        (tag, attributes.get("rel"), attributes[kind])
                    )


@cache
def links(page):
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.fixture(scope="module")
def pages():
    found = sorted(HTML.glob("**/*.html"))
    assert len(found) > 10, "build the book first: make book"
    return [p for p in found if "_static" not in p.parts]


def test_internal_links_lead_somewhere(pages):
    broken = []
    for page in pages:
        for target in links(page).targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = unquote(parts.path)
            goal = (page.parent / path).resolve() if path else page
            if path.startswith(PREFIX):
                goal = HTML / path.removeprefix(PREFIX)
            if goal.is_dir():
                goal /= "index.html"
            if not goal.exists():
                broken.append(f"{page.relative_to(HTML)}: {target}")
            elif parts.fragment and goal.suffix == ".html":
                if unquote(parts.fragment) not in links(goal).names:
                    broken.append(f"{page.relative_to(HTML)}: {target}")
    assert not broken, "\n".join(broken)


def test_no_page_loads_anything_from_another_host(pages):
    for page in pages:
        for tag, rel, target in links(page).loads:
            if rel != "canonical":
                assert not urlsplit(target).netloc, (page, tag, target)


def test_a_table_is_a_table(pages):
    """Not its Markdown: what a cell prints as Markdown needs `markdown_format`."""
    raw = re.compile(r"<p>\s*\|[^<]*\|[^<]*\|")
    for page in pages:
        assert not raw.search(page.read_text(encoding="utf-8")), page.name


def test_mathjax_is_ours(pages):
    assert (HTML / "_static/mathjax/tex-chtml.js").exists()
    assert any(
        "mathjax/tex-chtml.js" in t
        for t in links(HTML / "book/02_jacobian.html").targets
    )


def test_each_claim_links_to_its_row(pages):
    ledger = json.loads((ROOT / "_build" / "ledger.json").read_text())
    rows = links(HTML / "book/appendices/ledger.html").names
    linked = {
        urlsplit(target).fragment
        for page in pages
        if page.name != "ledger.html"
        for target in links(page).targets
    }
    for label in ledger:
        assert f"row-{label}" in rows
        assert f"row-{label}" in linked


FIGURE = re.compile(
    r'<div class="live-figure".*?<script type="application/json">.*?</script>',
    re.S,
)


def weight(*parts):
    return len(gzip.compress(b"".join(parts)))


def test_pages_and_figures_are_light(pages):
    """150 kB for a figure, 1 MB for a page with all that is ours on it, gzipped."""
    ours = [
        (HTML / "_static" / name).read_bytes()
        for name in ("book.css", "live.js", "logo.svg")
    ]
    for page in pages:
        text = page.read_bytes()
        pictures = [
            (page.parent / target).read_bytes()
            for tag, _, target in links(page).loads
            if tag == "img" and "_images" in target
        ]
        whole = weight(text, *ours, *pictures)
        figures = FIGURE.findall(text.decode())
        weights = [weight(figure.encode()) for figure in figures]
        if figures:
            print(f"{page.name}: {whole} bytes, live figures {weights}")
        assert whole < 1_000_000, page
        assert all(weight < 150_000 for weight in weights), page


def test_words_of_the_glossary_explain_themselves(pages):
    """Each link to a term carries its meaning, which shows under the pointer."""
    glossary = HTML / "book/appendices/glossary.html"
    terms = re.findall(r'<dt id="(term-[^"]+)"', glossary.read_text())
    assert len(terms) >= 20
    linked = set()
    for page in pages:
        found = re.findall(
            r'<a class="reference internal" href="[^"]*#(term-[^"]+)" title="([^"]*)"><span class="xref std std-term"',
            page.read_text(encoding="utf-8"),
        )
        if re.match(r"\d\d_", page.stem):
            assert len(found) >= 2, page
        for term, meaning in found:
            assert term in terms and len(meaning) > 30, (page, term)
            linked.add(term)
    assert len(linked) >= 12


def plain(x):
    """A straight line."""
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, x])
    return figure


def test_frames_are_all_there_and_cheap(pages):
    """Those of a page take no longer than 500 pictures of a line."""
    line = live_figure(plain, x=Parameter("x", [1.0], 1.0))
    since = time.process_time()
    for _ in range(10):
        line.svg(x=1.0)
    unit = (time.process_time() - since) / 10
    found = 0
    for page in pages:
        seconds = 0
        for figure in FIGURE.findall(page.read_text(encoding="utf-8")):
            data = json.loads(
                re.search(r"json\">(.*)</script>", figure, re.S)[1]
            )
            count = 1
            for last in re.findall(r'type="range" min="0" max="(\d+)"', figure):
                count *= int(last) + 1
            count *= 2 ** figure.count('type="checkbox"')
            assert len(data["frames"]) == count <= 400
            name = re.search(r'data-says="(.{30})', figure)[1]
            spent = float(re.search(r'data-seconds="([\d.]+)"', figure)[1])
            print(f"{page.name}: {count} frames in {spent} s, {name}")
            seconds, found = seconds + spent, found + 1
        print(f"{page.name}: {seconds / unit:.0f} plain pictures")
        assert seconds < 500 * unit, page
    assert found >= 5


every_notebook = pytest.mark.parametrize(
    "path", execute.chosen(), ids=lambda p: p.stem
)


@every_notebook
def test_a_chapter_compiles_few_programs(path):
    cost = execute.cost_of(path)
    assert cost, "build the book first: make book"
    assert 0 < cost["programs"] <= programs.CHAPTER


@every_notebook
def test_the_build_printed_the_stored_evidence(path):
    """What nbval compares; it need not execute once more what the build has executed."""
    _, built = execute.cache().merge_match_into_notebook(execute.read(path))
    compared = 0
    for cell, stored in zip(built.cells, execute.read(path).cells, strict=True):
        if evidence.EVIDENCE in cell.metadata.get("tags", []):
            assert [o.text for o in cell.outputs] == [
                o.text for o in stored.outputs
            ], cell.source
            compared += 1
    assert compared


def test_links_are_previewed(pages):
    for name in ("introduction", "02_jacobian"):
        text = (HTML / f"book/{name}.html").read_text(encoding="utf-8")
        tags = dict(
            re.findall(r'<meta property="og:(\w+)" content="([^"]+)"', text)
        )
        assert tags["title"] and len(tags["description"]) > 60
        assert tags["site_name"] == "Differentiating Equilibria"
        card = tags["image"].split("/_images/")[1]
        assert (HTML / "_images" / card).stat().st_size > 10_000


def test_executed_pages_show_no_error(pages):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for sign in (
            "Traceback (most recent call last)",
            "raise NotImplementedError",  # a stub
        ):
            assert sign not in text, page


def test_the_address_that_is_shared_has_a_title_and_a_card():
    index = (HTML / "index.html").read_text()
    assert "<title>Differentiating Equilibria</title>" in index
    first = published(address()) + "book/introduction.html"
    assert f'<link rel="canonical" href="{first}">' in index
    for card in ("og:title", "og:description", "og:image", "twitter:card"):
        assert f'"{card}"' in index
    assert (HTML / re.search(r'og:image" content="([^"]+)', index)[1].removeprefix(
        published(address()))).exists()  # fmt: skip
    sitemap = (HTML / "sitemap.xml").read_text()
    listed = re.findall(r"<loc>(.*?)</loc>", sitemap)
    assert set(listed) == {
        f"{published(address())}book/{page.relative_to(HTML / 'book')}"
        for page in (HTML / "book").rglob("*.html")
    }


def test_the_foot_of_a_page():
    page = (HTML / "book/04_mixed_hessian.html").read_text()
    foot = re.search(r'<div class="extra_footer">(.*?)</div>', page, re.S)[1]
    assert "differentiating-equilibria.pdf" in foot
    assert f"deqlib {version('deqlib')}" in foot and "Last updated" in page
    form = re.search(r"issues/new\?template=([\w.]+)&page=([\w/]+)", foot)
    assert form[2] == "book/04_mixed_hessian"
    fields = yaml.safe_load(
        (ROOT / ".github/ISSUE_TEMPLATE" / form[1]).read_text()
    )
    assert "page" in [field.get("id") for field in fields["body"]]


def test_equations_of_appendices_have_numbers_of_their_own():
    numbers = []
    for page in ("matrix_calculus", "notation"):
        html = (HTML / f"book/appendices/{page}.html").read_text()
        numbers += re.findall(r'<span class="eqno">\(([\w.]+)\)', html)
    assert numbers == [f"A.{k}" for k in range(1, len(numbers) + 1)] and numbers


def test_each_solution_is_right_on_the_page():
    """As its chapter was executed: setup, imports and all that stands before it."""
    right = 0
    for page in (HTML / "book").glob("*.html"):
        html = page.read_text()
        assert "Not yet:" not in html, page.name
        right += html.count("<span></span>Right.")
    tagged = [
        p.read_text().count('"solution"') for p in ROOT.glob("book/*.ipynb")
    ]
    assert right == sum(tagged) > 30


def test_names_of_the_api_page_can_be_used():
    """As they stand there, typed after `import deqlib`."""
    html = (HTML / "book/appendices/api.html").read_text()
    names = re.findall(r'<dt class="sig[^>]* id="(deqlib[\w.]+)"', html)
    assert {f"deqlib.{name}" for name in deqlib.__all__} - set(names) <= {
        "deqlib.check",
        "deqlib.linear",
        "deqlib.models",
    }
    for name in names:
        assert callable(attrgetter(name.removeprefix("deqlib."))(deqlib)), name
