"""Questions that a page answers without a kernel: choices that open, and fields."""

import json

import ask
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT
from course import CALL
from docutils.core import publish_doctree
from docutils.parsers.rst import directives
from docutils.utils import SystemMessage
from test_browser import CHAPTERS, HTML, browser, tab  # noqa: F401
from test_notebooks import code

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
LAST = [p["chapters"][-1]["file"] for p in TOC["parts"] if p.get("numbered")]
asking = pytest.mark.parametrize("page", [TOC["root"], *LAST])


def soup(page):
    html = (HTML / f"{page}.html").read_text(encoding="utf-8")
    return BeautifulSoup(html, "html.parser")


@asking
def test_three_questions(page):
    """At the end of each part; and before the first."""
    found = soup(page).select(".ask")
    assert len(found) == 3
    for question in found:
        assert len(question.select("details.choice")) == 3
        (right,) = question.select("details.right")
        assert "Right." in right.get_text()
        for other in question.select("details.other"):
            assert other.select("a[href]"), "it leads to what helps"
        assert not question.select("summary a"), (
            "a click on it opens the answer"
        )
        assert not question.select("details[open]")


@asking
def test_an_answer_opens_by_keyboard(browser, page):  # noqa: F811
    url = (HTML / f"{page}.html").as_uri()
    with tab(browser, url, java_script_enabled=False, wait=False) as opened:
        for choice in opened.locator("details.choice").all():
            said = choice.locator("p").last
            assert not said.is_visible()
            choice.locator("summary").press("Enter")
            assert said.is_visible()


def fields(page):
    """[(form, name of its exercise)] as they stand on a page."""
    for form in soup(f"book/{page}").select("form.answer"):
        cell = form.find_previous(class_="tag_exercise")
        yield json.loads(form["data-known"]), CALL.search(cell.get_text())[1]


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_field_knows_the_mistakes_of_the_check(browser, page):  # noqa: F811
    path = ROOT / f"book/{page}.ipynb"
    stubs = [CALL.search(c.source)[1] for c in code(path, "exercise")]
    expected = [name for name in stubs if ask.known(name)]
    assert [name for _, name in fields(page)] == expected
    if not expected:
        return
    url = (HTML / f"book/{page}.html").as_uri()
    with tab(browser, url, wait=False) as opened:  # formulas are not asked for
        for i, (known, _) in enumerate(fields(page)):
            form = opened.locator("form.answer").nth(i)
            said = form.locator("output")

            def answer(text, form=form, said=said):
                form.locator("input").fill(str(text))
                form.locator("input").press("Enter")
                return said.inner_text()

            (right, _), *mistakes = known
            written = lambda form, values: " ".join(map(form.format, values))
            many = f"{len(right)} numbers" if len(right) > 1 else "a number"
            assert answer(written("{}", right)) == "Right."
            assert answer(written("{}/2", [2 * x for x in right])) == "Right."
            for nonsense in ("", "x", written("{}", [*right, 1.0])):
                assert answer(nonsense).startswith(f"Write {many}, such as")
            far = [1.234 * x + 77 for x in right]
            assert answer(written("{}", far)).startswith("Not yet. It is none")
            for value, hint in mistakes:
                assert (
                    answer(written("{}", value))
                    == f"Not yet: {' '.join(hint.split())}"
                )
        assert not opened.troubles


def test_there_are_fields():
    assert sum(1 for page in CHAPTERS for _ in fields(page)) >= 14
    ready = [name for _, name in fields("introduction")]
    assert ready == ["introduction-implicit", "introduction-shapes"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("Why?\n", "one list of at least two"),
        ("Why?\n\nso\n  Right.\n", "one list of at least two"),
        (
            "Why?\n\nso\n  No.\n\nor\n  No.\n",
            "one answer that begins with Right",
        ),
    ],
)
def test_a_question_without_its_answers_is_refused(text, words):
    directives.register_directive("ask", ask.Ask)
    body = ".. ask::\n\n   " + text.replace("\n", "\n   ")
    quiet = {"report_level": 5, "halt_level": 3}
    with pytest.raises(SystemMessage, match=words):
        publish_doctree(body, settings_overrides=quiet)
