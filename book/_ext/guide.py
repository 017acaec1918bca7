"""The part of the teaching guide that is taken from the chapters and their checks.

`{chapters-to-teach}` lists for each chapter what it needs and gives, how long it takes,
and which mistakes its exercises bring to light: those that the checks know by name.
"""

import json
import re

import ledger
from course import CALL, mistakes
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

EXERCISE = re.compile(
    r":::\{exercise\} (?P<title>.+)\n:label: (?P<label>.+)\n"
    r"\*(?P<kind>[\w ]+), (?P<minutes>\d+) minutes, (?P<stars>★+)\.\*"
)


def chapters():
    """The pages with exercises, in reading order: (page, prose, [exercise])."""
    for page in ledger.pages():
        text = ledger.prose(page)
        if found := list(EXERCISE.finditer(text)):
            yield page, text, found


def check_names(page):
    """{label of an exercise: name of its check}: the next cell that calls check."""
    names, label = {}, None
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        for match in EXERCISE.finditer(source):
            label = match["label"]
        if "exercise" in cell["metadata"].get("tags", []):
            names[label] = CALL.search(source)[1]
    return names


def told(text, words):
    return re.search(rf"\*\*{words}\*\* (.+)", text)[1]


def described(page, text, exercises):
    minutes = sum(int(match["minutes"]) for match in exercises)
    reading = re.search(r"\d+", told(text, "It takes"))[0]
    path = page.relative_to(ledger.ROOT).as_posix()
    names = check_names(page)
    yield f"**[{ledger.chapter_title(page.relative_to(ledger.ROOT))}](/{path}).** "
    yield f"Reading {reading} minutes, exercises {minutes}. "
    yield f"Needs: {told(text, 'You need')} Afterwards one can "
    yield f"{told(text, 'You will be able to')}\n\n"
    for match in exercises:
        name = names.get(match["label"])
        hints = mistakes(name) if name else []
        said = " ".join(f"“{hint.partition(chr(10))[0]}”" for hint in hints)
        by_hand = "See the [rubrics](rubrics)."
        if match["kind"] != "Explore":
            by_hand = "No check."
        yield f"- {{ref}}`{match['label']}`, *{match['title']}*, "
        yield f"{match['kind'].lower()}, {match['minutes']} minutes. "
        yield f"{said or by_hand}\n"
    yield "\n"


class ChaptersToTeach(SphinxDirective):
    def run(self):
        text = "".join(
            part for chapter in chapters() for part in described(*chapter)
        )
        for page, *_ in chapters():
            self.env.note_dependency(str(page))
        box = nodes.container()
        self.state.nested_parse(text.split("\n"), self.content_offset, box)
        return box.children


def setup(app):
    app.add_directive("chapters-to-teach", ChaptersToTeach)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
