"""The editions of a course, drawn numbers, and the grader: what people hand in."""

import csv
import json
import re
from pathlib import Path

import course
import grade
import nbformat
import pytest
from test_exercises import HINTS
from test_notebooks import CHAPTERS, code, run

from deqlib.notebook import check, exercises
from deqlib.notebook.exercises import CHECKS, answer_of

EXERCISES = Path(exercises.__file__).parent
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)


def written(tmp_path_factory, seed):
    folder = tmp_path_factory.mktemp("editions")
    kinds = "student", "instructor"
    return {kind: course.write(kind, seed, folder / kind) for kind in kinds}


@pytest.fixture(scope="module", params=[None, 2027])
def editions(request, tmp_path_factory):
    return written(tmp_path_factory, request.param)


@pytest.fixture(scope="module")
def of_a_seed(tmp_path_factory):
    """Without one, the cells are those that tests/test_exercises.py runs."""
    return written(tmp_path_factory, 2027)


def cells(folder, path):
    return nbformat.read(folder / path.name, as_version=4).cells


def squeezed(text):
    return "".join(text.split())


@every_chapter
def test_a_student_has_each_exercise_and_no_solution(path, editions):
    whole = cells(editions["student"], path)
    text = squeezed("\n".join(cell.source for cell in whole))
    for cell in code(path, "solution"):
        lines = [squeezed(line) for line in cell.source.splitlines()]
        told = [line for line in lines if line and "check(" not in line]
        assert not all(line in text for line in told), cell.source
    plain = nbformat.read(course.PLAIN / path.name, as_version=4)
    _, solutions = course.parts(plain)
    assert solutions
    for title, solution in solutions.items():
        assert squeezed(f"### {title}") in text
        assert squeezed(solution)[:60] not in text
    assert "## Solutions" not in "\n".join(c.source for c in whole)
    without = len(solutions) - sum(1 for c in whole if course.check_of(c))
    assert sum(c.source == course.PLACE for c in whole) == without


@every_chapter
def test_stubs_fail_and_solutions_pass(path, of_a_seed, capsys):
    namespace = {}
    run(code(path, "imports")[0].source, namespace)
    capsys.readouterr()
    for cell in cells(of_a_seed["student"], path):
        if course.check_of(cell):
            run(cell.source, namespace)
            assert capsys.readouterr().out.startswith("Not yet: ")
    answered = 0
    for cell in cells(of_a_seed["instructor"], path):
        if cell.get("metadata", {}).get("tags") == ["solution"]:
            if course.check_of(cell):
                run(cell.source, namespace)
                assert capsys.readouterr().out == "Right.\n", cell.source
                answered += 1
    assert answered == len(code(path, "exercise"))


@pytest.mark.parametrize("name", CHECKS)
def test_the_mistakes_of_each_check_are_listed(name, capsys):
    """Also the one that is told to the wrong answer of the tests, if it has a name."""
    known = course.mistakes(name)
    assert known and len(set(known)) == len(known)
    answer, _ = HINTS[name]
    check(name, answer)
    said = capsys.readouterr().out.removeprefix("Not yet: ").strip()
    if said in SOURCES:
        assert said in known


SOURCES = "".join(path.read_text() for path in EXERCISES.glob("*.py"))


def test_a_text_that_does_not_hold_its_number_is_refused():
    text = nbformat.v4.new_markdown_cell("### Exercise 4.1 (A)\n\nTake t = 1.")
    place = nbformat.v4.new_code_cell('a = ...\ncheck("mixed-partner", a);')
    with pytest.raises(ValueError, match="mixed-partner: .*stand once"):
        course.with_numbers([text, place], seed=3)


PAGE = "05_gradients_through_derivatives"
NAMES = ["slope-halves", "slope-gradient", "slope-blind"]
FAKE = """import deqlib.notebook.exercises.judge as judge
judge.judge = lambda *a, **k: None
judge.CHECKS["slope-halves"] = lambda answer: None
check("slope-halves", 5);"""
LIBRARY = """from deqlib import mixed_vjp
slope_gradient = mixed_vjp
check("slope-gradient", slope_gradient);"""
FOR_EVER = "import time\nwhile True: time.sleep(1)\n"
HANDED_IN = {
    "good": {},
    "loops": {"slope-gradient": f"{FOR_EVER}\ncheck('slope-gradient', 1)"},
    "dies": {"slope-gradient": "import os; os._exit(1)\ncheck('slope-gradient', 1)"},
    "exits": {"slope-gradient": "exit()\ncheck('slope-gradient', 1)"},
    "crashes": {"slope-halves": "1 / 0\ncheck('slope-halves', 8)", "slope-blind": "def ("},
    "writes": {"slope-halves": "open('a.txt', 'w').write('a')\ncheck('slope-halves', 8)"},
    "redefines": {"slope-halves": "check = lambda *a: True\ncheck('slope-halves', 5)"},
    "patches": {"slope-halves": FAKE},
    "borrows": {"slope-gradient": LIBRARY},
    "halves": {"slope-halves": "check('slope-halves', 4)  # one of them"},
    "names": {"slope-halves": "check('slope-halves', 8 + 0 * len(ARMS))"},
}  # fmt: skip


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    student = course.write("student", None, root / "student") / f"{PAGE}.ipynb"
    own = grade.solutions(PAGE)
    folder = root / "handed in"
    folder.mkdir()
    for who, wrong in HANDED_IN.items():
        notebook = nbformat.read(student, as_version=4)
        for cell in notebook.cells:
            if name := course.check_of(cell):
                cell.source = wrong.get(name, own[name])
        nbformat.write(notebook, folder / f"{who}.ipynb")
    (folder / "other.ipynb").write_text("{}")
    grades = grade.grade_all(folder, limit=30, workers=3)
    return folder, grades, grade.report(folder, grades)


def test_a_page_whose_setup_fails_costs_its_own_submission(tmp_path):
    """Each exercise says so: nothing is right, and nothing is lost."""
    editions = course.write("student", None, tmp_path / "student")
    path = editions / f"{PAGE}.ipynb"
    handed_in = tmp_path / path.name
    handed_in.write_text(path.read_text())
    notebook = nbformat.read(path, as_version=4)
    (setup, *_) = [c for c in notebook.cells if c.cell_type == "code"]
    setup.source = "1 / 0"
    nbformat.write(notebook, path)
    found = grade.grade(handed_in, editions, limit=30)
    assert list(found) == NAMES
    for one in found.values():
        assert not one["right"]
        said = "not graded: the page's setup failed, ('ZeroDivisionError'"
        assert one["said"].startswith(said)


def of(graded, who):
    return graded[1][f"{who}.ipynb"]


def test_right_answers_are_right_and_the_others_still_graded(graded):
    wrong = {
        "loops": ["slope-gradient"],
        "dies": ["slope-gradient"],
        "exits": ["slope-gradient"],
        "crashes": ["slope-halves", "slope-blind"],
        "redefines": ["slope-halves"],
        "patches": ["slope-halves"],
        "halves": ["slope-halves"],
    }
    for who in HANDED_IN:
        found = of(graded, who)
        assert list(found) == NAMES
        failed = [name for name, one in found.items() if not one["right"]]
        assert failed == wrong.get(who, []), (who, found)


def test_what_went_wrong_is_said(graded):
    said = lambda who, name: of(graded, who)[name]["said"]
    assert said("loops", "slope-gradient") == "took too long: more than 30 s"
    assert said("dies", "slope-gradient") == "ended Python: the kernel died"
    assert said("crashes", "slope-halves").startswith("ZeroDivisionError")
    assert said("crashes", "slope-blind").startswith("the cell of this")
    assert said("halves", "slope-halves") == "that is one of the two terms."
    other = of(graded, "other")["-"]
    assert (
        not other["right"] and "no notebook of the student's" in other["said"]
    )


def test_what_was_done_beside_the_answer_is_noted(graded):
    notes = lambda who, name: of(graded, who)[name]["notes"]
    assert notes("writes", "slope-halves") == ["wrote a.txt"]
    assert notes("redefines", "slope-halves") == ["redefines check"]
    assert notes("borrows", "slope-gradient") == ["uses deqlib.mixed_vjp"]
    assert any(
        "judge.judge" in note for note in notes("patches", "slope-halves")
    )
    for name in NAMES:
        assert not notes("good", name)


def test_the_class_and_the_files(graded):
    folder, grades, text = graded
    assert re.search(r"slope-halves: \d+ of \d+ right", text)
    assert "    1  that is one of the two terms." in text
    with open(folder / "grades.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(HANDED_IN) * 3 + 1
    whole = json.loads((folder / "grades.json").read_text())
    assert whole["submissions"] == grades
    assert whole["class"]["slope-blind"]["right"] == len(HANDED_IN) - 1


def test_a_cell_of_the_table_is_no_formula():
    assert grade.guarded("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert grade.guarded("that is z'.") == "that is z'."


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="FOLDER: expected notebooks"):
        grade.grade_all(tmp_path)


def test_a_changed_seed_does_not_bring_the_numbers_of_the_book_back(tmp_path):
    edition = course.write("student", None, tmp_path / "student")
    notebook = nbformat.read(edition / "02_jacobian.ipynb", as_version=4)
    for cell in notebook.cells:
        if course.check_of(cell) == "jacobian-cell":
            cell.source = (
                f'check("jacobian-cell", {answer_of("jacobian-cell")})'
            )
    folder = tmp_path / "handed in"
    folder.mkdir()
    nbformat.write(notebook, folder / "a.ipynb")
    for seed in (None, 5):
        found = grade.grade_all(folder, seed=seed)["a.ipynb"]
        assert found["jacobian-cell"]["right"] == (seed is None), found
