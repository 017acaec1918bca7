"""The decks: what a chapter shows is on its slides, and each slide fits its screen."""

import pytest
import slides
from bs4 import BeautifulSoup
from test_browser import browser, tab  # noqa: F401

DECKS = slides.chapters()
every_deck = pytest.mark.parametrize("page", DECKS, ids=lambda p: p.stem)
# What of the slide that is seen reaches beyond the screen, or beyond what holds it.
BEYOND = """() => {
  const slide = document.querySelector("section.present");
  const parts = slide.querySelectorAll(".fit, .fit h2, .fit p, mjx-math, pre, svg, table, li");
  return [...parts].filter(part => part.checkVisibility()).filter(part => {
    const { left, top, right, bottom } = part.getBoundingClientRect();
    return left < 0 || top < 0 || right > 1280 || bottom > 720
      || part.matches("pre") && part.scrollWidth > part.clientWidth + 1;
  }).map(part => part.outerHTML.slice(0, 80));
}"""
FOLDED = (
    ".headerlink, .checked, .copybtn, .solution, .tag_exercise, .tag_solution, .tag_worked,"
    " .tag_hide-input .cell_input, .tag_hide-cell, summary, .admonition-title"
)
SMALL = "+getComputedStyle(document.querySelector('section.present .fit')).zoom"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    slides.main(to=folder)
    return folder


def read(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@every_deck
def test_a_deck_has_what_its_page_shows(folder, page):
    whole, deck = read(page), read(folder / page.name)
    found = deck.select(".slides > section")
    least = 5 if page.stem == "introduction" else 12
    assert least <= len(found) <= slides.MOST
    assert not deck.select("section section")
    shown = lambda soup, what: {
        tag["id"] for tag in soup.select(f".math[id^=equation-]{what}")
    }
    article = whole.select_one("article")
    assert shown(deck, ":not(aside *)") == {
        tag["id"]
        for tag in article.select(".math[id^=equation-]")
        if not tag.find_parent(class_="solution")
    }
    figures = article.select(".live-figure")
    assert len(deck.select(".live-figure")) == len(figures) > 0
    for kind in ("title", "exercises", "summary"):
        if kind == "title" or article.select_one(f"section#{kind}"):
            assert len(deck.select(f"section.{kind}")) == 1, kind
    assert deck.select("aside.notes p")
    for tag in deck.select("img[src], script[src], link[href]"):
        source = tag.get("src") or tag.get("href")
        assert (folder / source.partition("?")[0]).exists(), source


@every_deck
def test_each_slide_fits_its_screen(browser, folder, page):  # noqa: F811
    url = (folder / page.name).as_uri()
    screen = {"width": 1280, "height": 720}
    with tab(browser, url, wait=False, viewport=screen) as opened:
        opened.wait_for_selector("html.ready")
        opened.evaluate("Reveal.configure({transition: 'none'})")
        for i in range(
            len(read(folder / page.name).select(".slides > section"))
        ):
            opened.evaluate("i => Reveal.slide(i)", i)
            assert not opened.evaluate(BEYOND), i
            assert opened.evaluate(SMALL) >= 0.6, i
            figure = opened.locator("section.present .live-figure")
            if figure.count() and figure.locator("input[type=range]").count():
                picture = figure.locator(".live-picture")
                figure.locator(".live-skip").click()
                assert not opened.evaluate(BEYOND), i
                before = picture.inner_html()
                slider = figure.locator("input[type=range]").first
                slider.focus()
                last = slider.input_value() == slider.get_attribute("max")
                slider.press("ArrowLeft" if last else "ArrowRight")
                assert picture.inner_html() != before
                assert opened.evaluate("Reveal.getIndices().h") == i
        assert not opened.locator("[data-mjx-error]").count()
        assert not opened.troubles


@every_deck
def test_what_is_not_shown_is_said(folder, page):
    """All text and code of the page is in its deck, apart from folds and solutions."""
    squeezed = lambda tag: "".join(tag.get_text().split())
    deck, article = read(folder / page.name), read(page).select_one("article")
    for soup in (deck, article):
        for gone in soup.select(FOLDED):
            gone.decompose()
    deck, found = squeezed(deck), article.select("section p, .cell_input pre")
    assert len(found) > 10
    for part in found:
        assert squeezed(part) in deck, part


@pytest.mark.parametrize(
    "tags, kind",
    [
        ("", None),
        ("tag_slide", "code"),
        ("tag_nbval-check-output", "evidence"),
        ("tag_nbval-check-output tag_no-slide", None),
    ],
)
def test_tags_choose(tags, kind):
    html = f'<div class="cell {tags}"><div class="cell_input"></div></div>'
    assert slides.kind_of(BeautifulSoup(html, "html.parser").div) == kind


def test_a_part_of_no_name_is_refused():
    with pytest.raises(SystemExit, match="ONLY: no chapter.*'nonesuch'"):
        slides.chapters("nonesuch")
