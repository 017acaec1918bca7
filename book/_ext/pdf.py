"""The whole book as one PDF: its built pages, one behind the other, as Chromium prints.

    python book/_ext/pdf.py out.pdf

Folded setup, imports and code of figures stay away; solutions are open.
"""

import sys
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from address import address, pages
from bring import chromium
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
AWAY = ", ".join(
    [
        ".headerlink",
        ".live-controls",
        ".live-figure script",
        ".prev-next-area",
        ".tag_setup",
        ".tag_imports",
        ".tag_hide-input > details",
        "dl.py .viewcode-link",
    ]
)
STYLE = """
@page { size: A4; margin: 22mm 20mm; @bottom-center { content: counter(page); font: 9pt sans-serif; } }
@page :first { @bottom-center { content: ""; } }
html { font-size: 13px; }
body { display: block; line-height: 1.45; background: white; color: black; }
.title-page { height: 245mm; display: flex; flex-direction: column; justify-content: center; text-align: center; }
.title-page h1 { font-size: 3.2em; }
.title-page svg { max-width: 24rem !important; margin: 4em auto; display: block; }
.contents ul { list-style: none; padding-left: 1.2em; }
article, .contents { break-before: page; }
.bd-content p, .bd-content li { line-height: 1.45; margin-bottom: 0.7em; }
h1, h2, h3, h4, summary { break-after: avoid; }
div.cell_input, div.highlight, .exercise, .theorem, .live-figure, figure, .ledger-row, mjx-container[display="true"], tr { break-inside: avoid; }
details.hide > summary, .toggle-button { display: none !important; }
a { text-decoration: none; }
div.highlight pre { white-space: pre-wrap; font-size: 11px; }
"""


def table_of_contents():
    """[(part or None, [page, ...]), ...]"""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    parts = [
        (part["caption"], [c["file"] for c in part["chapters"]])
        for part in toc["parts"]
    ]
    return [(None, [toc["root"]]), *parts]


def read(page):
    return BeautifulSoup(
        (HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser"
    )


def prefix(page):
    return page.replace("/", "-")


def rebase(link, page, inside):
    """A link of `page`, as seen from _build/html, or from inside the one long page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return link
    path = (HTML / page).parent / parts.path if parts.path else HTML / page
    goal = path.resolve().relative_to(HTML).as_posix().removesuffix(".html")
    if goal in inside:
        return f"#{prefix(goal)}" + f"--{parts.fragment}" * bool(parts.fragment)
    if path.suffix == ".html":
        return pages(address()) + goal + ".html"
    return f"html/{goal}"


def chapter(page, inside):
    """The article of a page, whose names and links hold in the whole book."""
    article = read(page).select_one("article")
    for gone in article.select(AWAY):
        gone.decompose()
    for details in article.select("details"):
        details["open"] = ""
    for toggled in article.select(".dropdown, .toggle"):
        toggled["class"] = [
            c for c in toggled["class"] if c not in ("dropdown", "toggle")
        ]
    for named in article.select(":not(svg *)[id]"):
        named["id"] = f"{prefix(page)}--{named['id']}"
    for tag, attribute in (("a", "href"), ("img", "src")):
        for linked in article.select(f"{tag}[{attribute}]:not(svg *)"):
            linked[attribute] = rebase(linked[attribute], page, inside)
    article["id"] = prefix(page)
    return article


def whole():
    """The book as one HTML page, to stand beside the folder html."""
    toc = table_of_contents()
    inside = {page for _, listed in toc for page in listed}
    first = read(toc[0][1][0])
    book, contents = "", ""
    for part, listed in toc:
        if part:
            contents += f"<h3>{part}</h3>"
        contents += "<ul>"
        for page in listed:
            article = chapter(page, inside)
            title = article.h1.get_text()
            contents += f'<li><a href="#{prefix(page)}">{title}</a></li>'
            book += str(article)
        contents += "</ul>"
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    head = "".join(
        str(tag)
        for tag in first.head.select("link[rel=stylesheet], script")
        if tag.name == "link"
        or "MathJax" in tag.text
        or "mathjax" in tag.get("src", "")
    ).replace("../_static", "html/_static")
    picture = first.select_one(".live-picture svg")
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head>'
        f'<meta charset="utf-8"><title>{config["title"]}</title>{head}'
        f"<style>{STYLE}</style></head><body>"
        f'<div class="title-page"><h1>{config["title"]}</h1>{picture}'
        f"<p>{config['author']}</p><p>{pages(address())}</p></div>"
        f'<nav class="contents"><h1>Contents</h1>{contents}</nav>'
        f'<div class="bd-content">{book}</div></body></html>'
    )


def main(target):
    source = ROOT / "_build" / "book.html"
    source.write_text(whole(), encoding="utf-8")
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(source.as_uri())
        page.evaluate("() => MathJax.startup.promise")
        page.pdf(
            path=target, prefer_css_page_size=True, outline=True, tagged=True
        )
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
