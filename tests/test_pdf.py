"""The printed book: all pages in one, whose links and names hold, and a PDF of it."""

import re

import pdf
import pytest
from bs4 import BeautifulSoup


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    pdf.main(target)
    return target


def test_the_whole_book_is_in_one_page(printed):
    page = pdf.HTML.parent / "book.html"
    book = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    listed = [p for _, part in pdf.table_of_contents() for p in part]
    for page in listed:
        article = book.find("article", id=pdf.prefix(page))
        original = pdf.read(page).select_one("article")
        for what in ("h2", ".math", ".eqno", "figure", ".exercise"):
            assert len(article.select(what)) == len(original.select(what))
    names = [tag["id"] for tag in book.select(":not(svg *)[id]")]
    links = [a["href"] for a in book.select("a[href]:not(svg *)")]
    inside = {link[1:] for link in links if link.startswith("#")}
    assert len(inside) > 100 and inside <= set(names), inside - set(names)
    assert not {name for name in inside if names.count(name) > 1}
    assert all(link.startswith(("#", "https://", "html/")) for link in links)
    for link in links:
        if link.startswith("html/"):
            assert (pdf.HTML.parent / link).exists(), link


def test_it_prints(printed):
    content = printed.read_bytes()
    assert content.startswith(b"%PDF") and b"/Outlines" in content
    assert len(re.findall(rb"/Type\s*/Page\b", content)) > 40
