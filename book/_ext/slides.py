"""A deck of slides for each chapter, made from its built page.

    python book/_ext/slides.py [part of a chapter's name]

On the slides: the title, each live figure, each numbered equation and theorem with the
sentence before it, what evidence prints, the exercises, the summary. All other text, and the
code that the page does not fold, goes into the notes that a speaker sees (key S). A code cell with the tag `slide`
comes in with its code, one with `no-slide` stays away. The decks lie in _build/slides with
all that they need to run without a network; reveal.js is that of sphinx-revealjs.
"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from address import ROOT, address, pages
from bs4 import BeautifulSoup

HTML = ROOT / "_build" / "html"
SLIDES = ROOT / "_build" / "slides"
MOST, LINES = 20, 26
NOT_SHOWN = ".headerlink, .checked, .copybtn"
ROOM = {"equation": 2, "evidence": 2}  # that many may share a slide
SCRIPTS = ("MathJax", "mathjax", "wide.js")
STYLES = ("theme", "pygments", "mystnb", "proof", "exercise", "book.css")


def chapters(part=""):
    found = [p for p in HTML.glob("book/*.html") if part in p.stem]
    if not found:
        raise SystemExit(f"ONLY: no chapter's name contains {part!r}")
    return sorted(found, key=lambda p: (p.stem != "introduction", p.stem))


class Slide:
    """A heading, what stands below it, and what is said."""

    def __init__(self, heading, kind):
        self.heading, self.kind = heading, kind
        self.shown, self.said, self.count = [], [], 0

    def add(self, lead, item):
        self.shown += [lead, item]
        self.count += 1

    def html(self):
        # To reveal.js a section is a slide.
        shown, said = (
            re.sub(r"<(/?)section\b", r"<\1div", "".join(map(str, parts)))
            for parts in (self.shown, self.said)
        )
        notes = f'<aside class="notes">{said}</aside>' if said else ""
        return (
            f'<section class="{self.kind}"><div class="fit">'
            f"<h2>{self.heading}</h2>{shown}</div>{notes}</section>"
        )


def kind_of(tag):
    """What a part of a page is on a slide; None if it is only said."""
    classes = tag.get("class", [])
    if "math" in classes and tag.get("id", "").startswith("equation-"):
        return "equation"
    if "theorem" in classes:
        return "theorem"
    if "cell" in classes and "tag_no-slide" not in classes:
        if tag.select_one(".live-figure"):
            return "figure"
        if "tag_nbval-check-output" in classes:
            return "evidence"
        source = tag.select_one(".cell_output .highlight")
        if source and source.get_text().count("\n") <= LINES:
            return "source"
        if "tag_slide" in classes:
            return "code"
    return None


def item(tag, kind):
    """Of a cell that is no code on the slide, what it prints or draws."""
    if kind in ("figure", "evidence", "source"):
        return "".join(map(str, tag.select(".cell_output")))
    return tag


def last_sentence(paragraph):
    """It leads to what stands below; whole where it is short."""
    inner = paragraph.decode_contents().strip()
    if len(paragraph.get_text()) > 160:
        parts = re.split(r"(?<=[.?!]) (?=[A-Z<])", inner)
        while len(parts) > 1 and len(text(parts[-1])) < 12:
            parts[-2:] = [" ".join(parts[-2:])]
        inner = parts[-1]
        if len(text(inner)) > 400:
            return ""
    return f"<p>{BeautifulSoup(inner, 'html.parser')}</p>"


def text(html):
    return BeautifulSoup(html, "html.parser").get_text()


def add_section(section, slides):
    """The slides of a section of a chapter, behind those there are."""
    heading = section.find(re.compile("h[23]")).decode_contents()
    said, lead = [], ""
    for part in section.find_all(True, recursive=False):
        if part.name in ("h2", "h3"):
            continue
        if part.name == "section":
            slides[-1].said += said
            said, lead = [], ""
            add_section(part, slides)
            continue
        kind = kind_of(part)
        if kind is None:
            said.append(part)
            lead = last_sentence(part) if part.name == "p" else ""
            continue
        last = slides[-1]
        same = (last.heading, last.kind) == (heading, kind)
        if not same or last.count == ROOM.get(kind, 1):
            slides.append(last := Slide(heading, kind))
        last.said += said
        if kind != "figure" and "cell" in part.get("class", []):
            last.said += part.select(".cell_input")
        last.add(lead, item(part, kind))
        said, lead = [], ""
    slides[-1].said += said


def exercises(section):
    """One slide that names them all."""
    slide = Slide(section.h2.decode_contents(), "exercises")
    rows = []
    for one in section.select(".exercise"):
        told = one.select_one("section > p > em")
        title = one.select_one(".admonition-title").decode_contents()
        rows.append(f"<li>{title}<br><small>{told or ''}</small></li>")
    slide.add("", f"<ul>{''.join(rows)}</ul>")
    slide.said = section.select(".exercise section")
    return slide


def summary(section):
    """Its first paragraph or list, a line for each sentence."""
    slide = Slide(section.h2.decode_contents(), "summary")
    first = section.find(["p", "ul", "ol"], recursive=False)
    if first.name == "p":
        inner = re.split(r"(?<=[.!]) (?=[A-Z<])", first.decode_contents())
        first = "<ul>" + "".join(f"<li>{one}</li>" for one in inner) + "</ul>"
    slide.add("", first)
    slide.said = section.find_all("p", recursive=False)[1:]
    return slide


def fewer(slides):
    """No more than MOST: from the section with most of it, evidence is said, not shown."""
    slides = list(slides)
    while len(slides) > MOST:
        shown = [s for s in slides if s.kind == "evidence"]
        count = lambda s: sum(s.heading == other.heading for other in slides)
        gone = max(reversed(shown), key=count)
        at = slides.index(gone)
        slides[at - 1].said += gone.said + gone.shown
        slides.remove(gone)
    return slides


def deck(page):
    """(title, slides) of a chapter."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article")
    for gone in article.select(NOT_SHOWN):
        gone.decompose()
    for tag, attribute in (("a", "href"), ("img", "src")):
        for one in article.select(f"{tag}[{attribute}]:not(svg *)"):
            one[attribute] = moved(one[attribute], page)
    for told in article.select(":not(svg *)[title]"):
        del told["title"]
    chapter = article.select_one("section")
    title = chapter.h1.decode_contents()
    first = Slide(title, "title")
    if able := chapter.select_one(".admonition li"):
        first.add("", f"<p>{able.decode_contents()}</p>")
    slides, last = [first], {"exercises": exercises, "summary": summary}
    for part in chapter.find_all(True, recursive=False):
        if part.name == "section" and part["id"] in last:
            slides.append(last[part["id"]](part))
        elif part.name == "section":
            add_section(part, slides)
        elif kind_of(part) == "figure":
            slides.append(Slide(title, "figure"))
            slides[-1].add("", item(part, "figure"))
        elif part.name != "h1":
            first.said.append(part)
    return title, fewer(slides)


def moved(link, page):
    """A link of a page as it holds in a deck: pictures beside it, pages on the web."""
    if urlsplit(link).scheme:
        return link
    path = page.relative_to(HTML).as_posix()
    if "_images/" in link:
        return link[link.index("_images/") :]
    return urljoin(pages(address()) + path, link)


HEAD = """<!doctype html>
<html lang="en" data-theme="light" class="measured">
<head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="reveal/dist/reveal.css">
{head}
<link rel="stylesheet" href="_static/slides.css">
<script defer src="_static/live.js"></script>
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script defer src="_static/slides.js"></script>
</head>
<body><div class="reveal"><div class="slides bd-content">
{slides}
</div></div></body></html>
"""


def head(page):
    """The page's styles, and its scripts for formulas."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    kept = []
    for tag in soup.head.select("link[rel=stylesheet], script"):
        told = f"{tag.get('href', '')}{tag.get('src', '')}{tag.string or ''}"
        if any(
            n in told for n in (SCRIPTS if tag.name == "script" else STYLES)
        ):
            kept.append(str(tag).replace("../_static", "_static"))
    return "\n".join(kept)


def main(part="", to=SLIDES):
    to.mkdir(parents=True, exist_ok=True)
    source = importlib.util.find_spec("sphinx_revealjs").origin
    reveal = Path(source).parent / "_static" / "revealjs"
    for folder, name, goal in (
        (reveal, "dist", to / "reveal"),
        (reveal, "plugin/notes", to / "reveal"),
        (HTML, "_static", to),
        (HTML, "_images", to),
    ):
        shutil.copytree(folder / name, goal / name, dirs_exist_ok=True)
    shutil.copy2(reveal / "LICENSE", to / "reveal")
    for page in chapters(part):
        title, slides = deck(page)
        (to / page.name).write_text(
            HEAD.format(
                title=text(title),
                head=head(page),
                slides="\n".join(slide.html() for slide in slides),
            ),
            encoding="utf-8",
        )
        print(f"{page.name}: {len(slides)} slides")
    if to == SLIDES:
        print(f"The slides: {to.relative_to(ROOT)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
