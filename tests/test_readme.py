"""What the README claims is counted."""

import re

import ledger
from conftest import ROOT
from test_exercises import exercise_cells
from test_notebooks import CHAPTERS, prose

README = " ".join((ROOT / "README.md").read_text().split())


def claimed(pattern):
    return tuple(map(int, re.search(pattern, README).groups()))


def test_exercises():
    texts = [prose(path) for path in CHAPTERS]
    exercises = sum(text.count(":::{exercise}") for text in texts)
    solutions = sum(text.count(":::{solution}") for text in texts)
    checked = sum(len(list(exercise_cells(path))) for path in CHAPTERS)
    assert claimed(
        r"There are (\d+) exercises.* (\d+) of them have a check"
    ) == (
        exercises,
        checked,
    )
    assert solutions == exercises
    for text in texts:
        for exercise in text.split(":::{exercise}")[1:]:
            assert re.search(r"\*[\w ]+, \d+ minutes, ★+\.\*", exercise)


def test_equations():
    labels = [equation.label for equation in ledger.equations()]
    definitions = sum(label.endswith("-definition") for label in labels)
    assert claimed(
        r"(\d+) equations have a number. (\d+) of them only name something; each of "
        r"the other (\d+) has a test"
    ) == (len(labels), definitions, len(labels) - definitions)


def test_chapters_and_minutes():
    assert claimed(r"in (\d+) chapters") == (len(CHAPTERS),)
    minutes = [
        int(re.search(r"\*\*It takes\*\* about (\d+) minutes", prose(path))[1])
        for path in CHAPTERS
    ]
    assert claimed(r"takes (\d+) to (\d+) minutes") == (
        min(minutes),
        max(minutes),
    )


def test_commands_and_files():
    """Each command is one of the Makefile's, and each file that is named is there."""
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z0-9 ]+):", makefile, re.M)
    targets = " ".join(rules).split()
    for command in re.findall(r"make ([a-z0-9]+)", README):
        assert command in targets
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
