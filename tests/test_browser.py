"""The built book in a real browser: nothing from elsewhere, and figures that move."""

import contextlib
import functools
import gzip
import http.server
import json
import re
import statistics
import threading
from urllib.parse import urljoin, urlsplit

import numpy as np
import pytest
from address import address, pages
from axe_playwright_python.sync_playwright import Axe
from bring import chromium
from conftest import ROOT
from playwright.sync_api import sync_playwright

HTML = ROOT / "_build" / "html"
PREFIX = urlsplit(pages(address())).path
PAGES = sorted(
    str(path.relative_to(ROOT / "book").with_suffix(""))
    for kind in ("ipynb", "md")
    for path in (ROOT / "book").glob(f"**/*.{kind}")
)
CHAPTERS = [page for page in PAGES if not page.startswith("appendices/")]
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()

# The theme's own findings, not ours to mend.
THEME = {"label-content-name-mismatch", "region"}

# Each page is opened once, and all of its tests look at it one after the other.
every_page = pytest.mark.parametrize("opened", PAGES, indirect=True)
every_chapter = pytest.mark.parametrize("opened", CHAPTERS, indirect=True)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Like GitHub Pages: the book below a prefix, 404.html for what is not there."""

    def translate_path(self, path):
        if not path.startswith(PREFIX):
            return str(HTML / "nothing-here")
        return super().translate_path("/" + path.removeprefix(PREFIX))

    def send_error(self, code, message=None, explain=None):
        body = (HTML / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def served():
    assert HTML.exists(), "build the book first: make book"
    handler = functools.partial(Handler, directory=str(HTML))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    assert path, "no Chromium here: run `python tests/bring.py`"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def tab(browser, url, wait=True, mode="light", **options):
    """A page in a fresh profile; what goes wrong on it collects in `tab.troubles`."""
    context = browser.new_context(
        **{"viewport": {"width": 1280, "height": 900}} | options
    )
    context.set_default_timeout(20_000)
    if mode and options.get("java_script_enabled", True):
        context.add_init_script(f"localStorage.setItem('mode', '{mode}')")
    page = context.new_page()
    page.troubles, page.asked = [], set()
    note = page.troubles.append
    ours = urlsplit(url).netloc
    page.on(
        "request", lambda request: page.asked.add(urlsplit(request.url).path)
    )
    page.on(
        "request",
        lambda request: (
            urlsplit(request.url).netloc not in ("", ours)
            and note(f"other host: {request.url}")
        ),
    )
    page.on("requestfailed", lambda request: note(f"missing: {request.url}"))
    page.on(
        "response",
        lambda answer: (
            answer.status >= 400
            and answer.url != url
            and note(f"{answer.status}: {answer.url}")
        ),
    )
    page.on("pageerror", lambda error: note(f"error: {error}"))
    page.on(
        "console",
        lambda message: (
            message.type == "error"
            and message.location["url"] != url
            and note(message.text)
        ),
    )
    page.goto(url)
    if wait:
        settle(page)
    yield page
    context.close()


def settle(page):
    """MathJax typesets after loading, and loads its fonts then."""
    page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
    page.evaluate("window.MathJax?.startup?.promise")
    page.wait_for_load_state("networkidle")


@pytest.fixture(scope="module")
def opened(browser, request):
    url = (HTML / f"book/{request.param}.html").as_uri()
    with tab(browser, url) as opened:
        still(opened)
        yield opened


def still(opened):
    """A tab that is not drawn never ends a transition: colours change at once."""
    opened.add_style_tag(
        content="*, ::before, ::after {transition: none !important}"
    )


def resize(opened, width):
    opened.set_viewport_size({"width": width, "height": 800})
    opened.mouse.move(0, 0)  # what it rests on would change its colour


WITHOUT_MATHS = ("bibliography", "api", "building", "glossary", "guide")


@every_page
def test_page_is_whole_and_asks_no_other_host(opened):
    resize(opened, 375)
    opened.evaluate("window.formulasFit")
    maths = opened.locator("mjx-container").count()
    assert maths or opened.url.endswith(
        tuple(f"{name}.html" for name in WITHOUT_MATHS)
    )
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    clipped = opened.eval_on_selector_all(
        "div.math:has(mjx-container)",
        """all => all.filter(one => {
          const formula = one.querySelector("mjx-container");
          return formula.scrollWidth > formula.clientWidth + 2;
        }).map(one => one.id || one.textContent)""",
    )
    assert not clipped
    cut = opened.eval_on_selector_all(
        "div.cell_output pre",
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => "
        "one.textContent)",
    )
    assert not cut
    alone = opened.eval_on_selector_all(
        "span.math",
        """all => all.filter(one => one.nextSibling?.nodeType === Node.TEXT_NODE
          && /^[.,;:!?)]/.test(one.nextSibling.data)
          && getComputedStyle(one.parentElement).whiteSpace !== "nowrap"
        ).map(one => one.textContent)""",
    )
    assert not alone, "a line may begin with what belongs to a formula"
    assert not opened.locator(
        ".math:not(:has(mjx-container))"
    ).all_inner_texts()
    unknown = opened.locator("[data-mjx-error], mjx-mtext[style*='red']")
    assert not unknown.all_inner_texts()
    assert not opened.troubles


@functools.cache
def zipped(path):
    return len(gzip.compress((HTML / path).read_bytes(), 6))


@pytest.mark.parametrize("page", PAGES)
def test_served_page_asks_no_other_host_and_its_buttons_work(
    browser, served, page
):
    with tab(browser, f"{served}book/{page}.html") as opened:
        assert not opened.troubles
        weight = sum(zipped(path.removeprefix(PREFIX)) for path in opened.asked)
        assert weight < 600_000, f"{weight / 1000:.0f} kB, gzipped"
        if page in CHAPTERS:
            colab = opened.locator("a[href*='colab.research.google.com']").first
            path = address().removeprefix("https://github.com/")
            assert colab.get_attribute("href") == (
                "https://colab.research.google.com/github/"
                f"{path}/blob/colab/book/{page}.ipynb"
            )
            source = f"a[href$='{page}.ipynb'][href^='../_sources']"
            link = opened.locator(source).first.get_attribute("href")
            answer = opened.request.get(urljoin(opened.url, link))
            assert answer.ok and answer.json()["nbformat"] == 4


@every_chapter
def test_formulas_have_their_room_before_they_are_set(opened):
    """So that a line ends where it will end: widths, as the page gives them and as set."""
    resize(opened, 375)
    sizes = opened.eval_on_selector_all(
        "span.math.notranslate:has(mjx-container)",
        """all => all.map(one => [
          1.05 * parseFloat(getComputedStyle(one).getPropertyValue("--w")),
          one.querySelector("mjx-container").getBoundingClientRect().width
            / parseFloat(getComputedStyle(one).fontSize),
        ]).filter(([_, set]) => set)""",
    )
    room, needed = np.array(sizes).T
    assert abs(room.sum() / needed.sum() - 1) < 0.1
    assert np.mean(abs(room - needed) < 0.1 * needed + 0.1) > 0.8


def hashes(page):
    return page.eval_on_selector_all(
        ".live-picture", "all => all.map(one => one.innerHTML)"
    )


def changes(page, before, i):
    """Whether picture i, and no other, has changed."""
    after = hashes(page)
    return [k for k in range(len(after)) if after[k] != before[k]] == [i]


def skip(figure):
    """Open the controls of a figure that still asks."""
    if "live-asks" in figure.get_attribute("class"):
        figure.locator(".live-skip").click()


def restart(figure):
    """Its controls as they were when the page was opened, whatever test came before."""
    for control in figure.locator("input").all():
        control.evaluate(
            """input => {
              input.value = input.defaultValue;
              input.checked = input.defaultChecked;
              input.dispatchEvent(new Event("input"));
            }"""
        )


@every_chapter
def test_a_figure_asks_before_it_moves(opened):
    """By keyboard: a choice opens the controls, a move brings the answer."""
    resize(opened, 1280)
    figures = opened.locator(".live-figure")
    assert figures.count()
    if opened.locator(".live-asks").count() < figures.count():
        opened.reload()  # another test has asked
        settle(opened)
        still(opened)
    for figure in figures.all():
        controls, answer, said, again = (
            figure.locator(f".live-{part}")
            for part in ("controls", "answer", "said", "skip")
        )
        assert not controls.is_visible() and not answer.is_visible()
        choice = figure.locator(".live-choice").last
        choice.focus()
        opened.keyboard.press("Enter")
        assert choice.get_attribute("aria-pressed") == "true"
        assert figure.locator("[aria-pressed=true]").count() == 1
        assert controls.is_visible() and not answer.is_visible()
        assert choice.inner_text() in said.inner_text()
        assert "Move the figure to see." in said.inner_text()
        assert said.get_attribute("role") == "status"
        assert again.inner_text() == "Show the answer"
        move_to_the_answer(figure)
        assert answer.is_visible() and not again.is_visible()
        assert "Move the figure" not in said.inner_text()


def move_to_the_answer(figure):
    data = json.loads(figure.locator("script").text_content())
    frame = data["answered"][0]
    for control in reversed(figure.locator("input").all()):
        count = len(json.loads(control.get_attribute("data-texts")))
        frame, value = divmod(frame, count)
        control.evaluate(
            """(input, value) => {
              if (input.type === "checkbox") input.checked = value;
              else input.value = value;
              input.dispatchEvent(new Event("input"));
            }""",
            value,
        )


def test_who_skips_the_question_gets_the_answer_alone(browser):
    url = (HTML / f"book/{CHAPTERS[0]}.html").as_uri()
    with tab(browser, url) as opened:
        figure = opened.locator(".live-figure").first
        skip(figure)
        said = figure.locator(".live-said")
        assert said.inner_text() == "Move the figure to see."
        move_to_the_answer(figure)
        assert figure.locator(".live-answer").is_visible()
        assert said.inner_text() == ""


@every_chapter
@pytest.mark.parametrize("width", [1280, 375])
def test_live_figures_move_their_own_picture(opened, width):
    resize(opened, width)
    figures = opened.locator(".live-figure")
    assert figures.count()
    for i, figure in enumerate(figures.all()):
        picture = figure.locator(".live-picture")
        skip(figure)
        restart(figure)
        for switch in figure.locator("input[type=checkbox]").all():
            for press in (
                lambda: opened.keyboard.press("Space"),
                switch.click,
            ):
                switch.focus()
                before = hashes(opened)
                press()
                assert changes(opened, before, i), "by switch"
        for slider in figure.locator("input[type=range]").all():
            slider.focus()
            before, said = (
                hashes(opened),
                picture.get_attribute("aria-label"),
            )
            last = slider.input_value() == slider.get_attribute("max")
            opened.keyboard.press("ArrowLeft" if last else "ArrowRight")
            assert changes(opened, before, i), "by keyboard"
            assert picture.get_attribute("aria-label") != said
            value = slider.get_attribute("aria-valuetext")
            assert value in picture.get_attribute("aria-label")
            assert figure.locator("output", has_text=value).count()

            slider.scroll_into_view_if_needed()
            before, box = hashes(opened), slider.bounding_box()
            share = float(slider.input_value()) / float(
                slider.get_attribute("max")
            )
            opened.mouse.click(
                box["x"] + box["width"] * (0.1 if share > 0.5 else 0.9),
                box["y"] + box["height"] / 2,
            )
            assert changes(opened, before, i), "by pointer"

        play, before = figure.locator(".live-play"), hashes(opened)
        play.click()
        assert play.inner_text() == "Pause"
        assert changes(opened, before, i), "by play"
        if width == 1280:  # how it plays is not a question of the width
            before, drawn = hashes(opened), picture.inner_html()
            opened.wait_for_function(
                "([picture, drawn]) => picture.innerHTML !== drawn",
                arg=[picture.element_handle(), drawn],
                polling=100,
            )
            assert changes(opened, before, i), "play goes on"
        play.click()
        assert play.inner_text() == "Play"
        if width == 1280:
            before = hashes(opened)
            opened.wait_for_timeout(900)
            assert hashes(opened) == before, "pause"
    assert not opened.troubles


@every_chapter
def test_a_move_is_shown_within_50_ms(opened):
    """On a machine too busy for that, within twice the time to draw the picture anew."""
    resize(opened, 1280)
    for figure in opened.locator(".live-figure").all():
        skip(figure)
    times = opened.evaluate(
        """async () => {
          const moves = [], drawings = [];
          const shown = async (times, change) => {
            await new Promise(requestAnimationFrame);
            const start = performance.now();
            change().getBoundingClientRect();
            await new Promise(requestAnimationFrame);
            times.push(performance.now() - start);
          };
          for (const input of document.querySelectorAll(".live-figure input[type=range]")) {
            input.scrollIntoView({block: "center"});
            for (let i = 0; i <= Math.min(input.max, 12); i++) {
              await shown(moves, () => {
                input.value = i;
                input.dispatchEvent(new Event("input"));
                return input.closest(".live-figure");
              });
              await shown(drawings, () => {
                const figure = input.closest(".live-figure");
                const picture = figure.querySelector(".live-picture");
                picture.innerHTML = picture.innerHTML;
                return figure;
              });
            }
          }
          return [moves, drawings];
        }"""
    )
    move, drawing = map(statistics.median, times)
    print(f"{opened.url}: {move:.0f} ms, drawing alone {drawing:.0f} ms")
    assert move < max(50, 2 * drawing)


@every_page
def test_axe_finds_nothing_but_the_themes_own(opened):
    resize(opened, 1280)
    theme = "theme => document.documentElement.dataset.theme = theme"
    # A token of code has its colours from its class: one of a kind is looked at.
    opened.eval_on_selector_all(
        ".highlight span",
        """all => {
          const seen = new Set();
          for (const one of all.filter(one => one.checkVisibility())) {
            const around = [one, one.parentElement, one.closest(".highlight").parentElement];
            const kind = around.map(element => element.className).join("|");
            one.style.visibility = seen.has(kind) ? "hidden" : "visible";
            seen.add(kind);
          }
        }""",
    )
    # What passes need not be described, and a file may not ask for style sheets. In the
    # dark nothing changes but colours.
    every = {"resultTypes": ["violations"], "preload": False}
    colours = every | {"runOnly": ["color-contrast"]}
    for mode, options in (("dark", colours), ("light", every)):
        opened.evaluate(theme, mode)
        found = Axe().run(opened, options=options).response["violations"]
        ours = {
            f["id"]: [
                (n["html"][:200], n["failureSummary"]) for n in f["nodes"]
            ]
            for f in found
            if f["id"] not in THEME
        }
        assert not ours, mode


@pytest.mark.parametrize("where", ["file", "http"])
def test_search_finds_the_adjoint(browser, served, where):
    start = {"file": HTML.as_uri() + "/", "http": served}[where]
    with tab(browser, f"{start}search.html?q=adjoint", wait=False) as opened:
        hits = opened.locator("#search-results li a")
        hits.first.wait_for()
        opened.wait_for_timeout(500)
        assert any("backward fixed point" in h for h in hits.all_inner_texts())
        assert not opened.troubles


@pytest.mark.parametrize("page", CHAPTERS)
def test_without_scripts_there_is_a_still_picture_and_tex(browser, page):
    url = (HTML / f"book/{page}.html").as_uri()
    with tab(browser, url, wait=False, java_script_enabled=False) as opened:
        formulas = opened.locator(".bd-article .math")
        assert all(one.is_visible() for one in formulas.all()[:20])
        for figure in opened.locator(".live-figure").all():
            assert figure.locator(".live-picture svg path").count() > 5
            assert figure.locator(".live-picture svg").is_visible()
            assert figure.locator(".live-note").is_visible()
            assert "At " in figure.locator(".live-note").inner_text()
            assert figure.locator(".live-question p").is_visible()
            assert figure.locator(".live-answer").is_visible()
            assert not figure.locator(".live-skip").is_visible()
            assert not figure.locator(".live-controls").is_visible()


@every_chapter
def test_on_paper_there_is_a_still_picture_with_its_values(opened):
    resize(opened, 1280)
    figure = opened.locator(".live-figure").first
    skip(figure)
    assert figure.locator(".live-controls").is_visible()
    assert not figure.locator(".live-note").is_visible()
    first = figure.locator("input").first
    switch = first.get_attribute("type") == "checkbox"
    first.press("Space" if switch else "ArrowLeft")
    value = figure.locator("output").first.inner_text()
    opened.emulate_media(media="print")
    assert not figure.locator(".live-controls").is_visible()
    assert f"= {value}" in figure.locator(".live-note").inner_text()
    assert figure.locator(".live-picture svg").is_visible()
    for figure in opened.locator(".live-figure").all():
        assert figure.locator(".live-question p").is_visible()
        assert figure.locator(".live-choice").first.is_visible()
        assert figure.locator(".live-answer").is_visible()
        assert not figure.locator(".live-skip").is_visible()
    opened.emulate_media(media="screen")


def test_play_is_slow_for_those_who_want_less_motion(browser):
    url = (HTML / "book/introduction.html").as_uri()
    with tab(browser, url, reduced_motion="reduce") as opened:
        skip(opened.locator(".live-figure").first)
        opened.locator(".live-play").first.click()
        before = hashes(opened)
        opened.wait_for_timeout(1000)
        assert hashes(opened) == before
        opened.wait_for_timeout(1000)
        assert hashes(opened) != before


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_keep_to_the_mode(browser, mode):
    """In the dark a figure's white turns dark, and its frame lets the page through."""
    url = (HTML / "book/02_jacobian.html").as_uri()
    with tab(browser, url, mode=mode) as opened:
        assert opened.evaluate("document.documentElement.dataset.theme") == mode
        for selector in (".live-picture svg", ".cell_output img"):
            style = opened.locator(selector).first.evaluate(
                "e => [getComputedStyle(e).filter, getComputedStyle(e).mixBlendMode,"
                " getComputedStyle(e.closest('.text_html') ?? e).backgroundColor]"
            )
            dark = [
                "invert(1) hue-rotate(180deg)",
                "screen",
                "rgba(0, 0, 0, 0)",
            ]
            assert (style == dark) == (mode == "dark"), style


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_without_a_choice_the_mode_is_the_systems(browser, mode):
    url = (HTML / "book/appendices/notation.html").as_uri()
    with tab(browser, url, mode=None, color_scheme=mode) as opened:
        body = opened.locator("body")
        colour = body.evaluate("one => getComputedStyle(one).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", colour)[:3]))
        assert (brightness < 300) == (mode == "dark"), colour
        logo = opened.locator(".navbar-brand img:visible").bounding_box()
        assert 0 < logo["height"] <= 100


def test_a_formula_broken_for_the_phone_is_whole_where_there_is_room(browser):
    url = (HTML / "book/04_mixed_hessian.html").as_uri()
    with tab(browser, url) as opened:
        for width, lines in ((1280, 1), (375, 2), (1280, 1)):
            resize(opened, width)
            opened.evaluate("window.formulasFit")
            aligned = opened.locator(
                "#equation-mixed-hessian mjx-mtable mjx-mtable"
            )
            assert aligned.locator("mjx-mtr").count() == lines
        assert not opened.troubles


@pytest.mark.parametrize("page", ["04_mixed_hessian", "12_physics_as_a_loss"])
def test_a_chapter_says_how_many_minutes_are_left(browser, page):
    url = (HTML / f"book/{page}.html").as_uri()
    with tab(browser, url) as opened:
        note = opened.locator(".time-left")
        assert note.text_content() == "45 minutes to the exercises"
        seen = []
        for place in ("#does-it-work", "#exercises"):
            opened.evaluate(
                "place => document.querySelector(place)"
                ".scrollIntoView({behavior: 'instant'})",
                place,
            )
            opened.wait_for_timeout(200)
            seen.append(note.text_content())
        assert re.fullmatch(
            r"(10|15|20|25|30) minutes to the exercises", seen[0]
        )
        assert seen[1] == "the exercises"


def test_an_unknown_address_leads_back_to_the_book(browser, served):
    with tab(browser, urljoin(served, "no/such/page.html")) as opened:
        assert opened.get_by_text("No page here").is_visible()
        assert not opened.troubles
        opened.get_by_role("link", name="the first page").click()
        opened.wait_for_url("**/introduction.html")
