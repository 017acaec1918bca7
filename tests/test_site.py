"""The built book: every link inside it leads somewhere, and it needs no other host."""

from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

HTML = ROOT / "_build" / "html"


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
            goal = (
                (page.parent / unquote(parts.path)).resolve()
                if parts.path
                else page
            )
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


def test_mathjax_is_ours(pages):
    assert (HTML / "_static/mathjax/tex-chtml.js").exists()
    assert any(
        "mathjax/tex-chtml.js" in t
        for t in links(HTML / "book/02_jacobian.html").targets
    )


def test_each_claim_links_to_its_row(pages):
    import json

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


def test_executed_pages_show_no_error(pages):
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for sign in (
            "Traceback (most recent call last)",
            "NotImplementedError",
        ):
            assert sign not in text, page
