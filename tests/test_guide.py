"""The teaching guide: its programs run, and it leaves out no chapter and no exercise."""

import re

import guide
import jax
import ledger
import numpy as np
import pytest
from conftest import ROOT
from course import mistakes
from test_notebooks import CHAPTERS

from deqlib.notebook.exercises import CHECKS

TEACHING = ROOT / "book" / "appendices" / "teaching"
PROGRAMS = re.findall(
    r"```python\n(.*?)```", (TEACHING / "projects.md").read_text(), re.S
)


def test_it_finds_each_chapter_and_each_check():
    found = list(guide.chapters())
    assert {page for page, *_ in found} == set(CHAPTERS)
    names = [guide.check_names(page) for page, *_ in found]
    assert sorted(n for one in names for n in one.values()) == sorted(CHECKS)


def test_a_chapter_is_described_with_its_mistakes():
    page, text, exercises = next(
        c for c in guide.chapters() if c[0].stem.startswith("05")
    )
    said = "".join(guide.described(page, text, exercises))
    assert "Reading 45 minutes, exercises 105." in said
    for name in ("slope-halves", "slope-gradient", "slope-blind"):
        assert all(hint.split("\n")[0] in said for hint in mistakes(name))


def test_each_explore_exercise_has_answers_at_three_levels():
    rubrics = (TEACHING / "rubrics.md").read_text()
    parts = re.findall(r"\{ref\}`([\w-]+)`\n: (.+)", rubrics)
    explore = [
        match["label"]
        for *_, found in guide.chapters()
        for match in found
        if match["kind"] == "Explore"
    ]
    assert [label for label, _ in parts] == explore
    for _, text in parts:
        levels = re.findall(r"\*(Adequate|Good|Excellent):\*", text)
        assert levels == ["Adequate", "Good", "Excellent"]


def test_the_twelve_weeks_go_through_all_chapters():
    text = (TEACHING / "guide.md").read_text().split("## Twelve weeks")[1]
    weeks = re.findall(r"^\| (\d+) \| ([^|]*\d+) \|", text, re.M)
    assert [int(week) for week, _ in weeks] == list(range(1, 13))
    assert [int(re.findall(r"\d+", c)[-1]) for _, c in weeks] == list(
        range(1, 13)
    )


def test_there_are_ten_projects():
    text = ledger.prose(TEACHING / "projects.md")
    assert len(re.findall(r"^## \d+\. ", text, re.M)) == 10
    assert text.count("irst step") >= 9 and len(PROGRAMS) == 11


@pytest.mark.parametrize("number", range(1, 11))
def test_the_first_step_of_a_project_runs(number):
    names = {}
    for program in (PROGRAMS[0], PROGRAMS[number]):
        exec(program, names)
    arrays = [v for v in names.values() if isinstance(v, jax.Array)]
    assert arrays or number == 9
    assert all(np.isfinite(np.asarray(a)).all() for a in arrays)
    assert number != 9 or names["verdict"].right
