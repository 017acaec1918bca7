"""The plain notebooks as a course needs them: for students, and for those who teach.

    python book/_ext/course.py student|instructor [--seed SEED]

The student's edition in _build/student has no solutions, and a place for each answer.
The instructor's, in _build/instructor, has each solution behind its exercise, unfolded,
and the mistakes that the check knows by name. With a seed the numbers of those exercises
that can vary are drawn, in both alike, and the checks expect the answers to these.
"""

import argparse
import ast
import inspect
import re
import shutil
import textwrap
from pathlib import Path

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_markdown_cell

from deqlib.notebook.exercises import (
    CHECKS,
    NUMBERS,
    answer_of,
    drawn,
    parts_of,
    values,
)

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "_build" / "notebooks" / "book"
HEADING = re.compile(r"### (Exercise [\w.]+ \(.+\))\n")
SOLUTION = re.compile(
    r"<details>\n<summary>Solution to (.+)</summary>\n\n(.*)\n\n</details>",
    re.S,
)
CODE = re.compile(r"```python\n(.*?)\n```", re.S)
NAME = re.compile(r"""\bcheck\(\s*["']([\w-]+)["']""")
CALL = re.compile(r'check\("([\w-]+)", (.+?)\);?$', re.M)
PLACE = "*Your answer:*"


def check_of(cell):
    """The name of the exercise that a cell of code is the place for, if it is one."""
    found = cell.cell_type == "code" and NAME.search(cell.source)
    return found[1] if found else None


def with_numbers(cells, seed):
    """An exercise, its text and its place for an answer, with the numbers of a seed."""
    text, *places = cells
    names = [name for name in map(check_of, places) if name]
    if seed is None or not names:
        return cells
    (name,) = names
    if not NUMBERS[name]:
        text.source += "\n\n(This exercise is the same for every seed.)"
    for own, instead in drawn(name, seed).values():
        if text.source.count(own) != 1:
            raise ValueError(f"{name}: {own!r} should stand once in its text")
        text.source = text.source.replace(own, instead)
    for place in places:
        place.source = CALL.sub(rf'check("\1", \2, seed={seed});', place.source)
    return cells


def parts(notebook):
    """[cells of the text or of one exercise], and {title of an exercise: solution}."""
    groups, solutions = [], {}
    for cell in notebook.cells:
        text = cell.source if cell.cell_type == "markdown" else ""
        if folded := SOLUTION.fullmatch(text):
            solutions[folded[1]] = folded[2]
        elif HEADING.match(text):
            groups.append([cell])
        elif check_of(cell):
            groups[-1].append(cell)
        elif not text.startswith("## Solutions"):
            groups.append([cell])
    return groups, solutions


def title_of(group):
    found = group[0].cell_type == "markdown" and HEADING.match(group[0].source)
    return found[1] if found else None


def edition(notebook, page, seed, behind):
    """The notebook without its solutions, and with `behind(group, solution)` put behind
    each exercise."""
    groups, solutions = parts(notebook)
    cells = []
    for group in groups:
        title = title_of(group)
        if title:
            group = with_numbers(group, seed)
            group += behind(group, solutions[title], seed)
        cells += group
    for i, cell in enumerate(cells):
        cell.id = f"{cell.cell_type}-{i}"
    notebook.cells = cells
    notebook.metadata["course"] = {"page": page, "seed": seed}
    return notebook


def place_for_words(group, solution, seed):
    """Where no check is, an answer in words, figures and code of one's own."""
    return [] if group[1:] else [new_markdown_cell(PLACE)]


def solution_and_mistakes(group, solution, seed):
    name = next(filter(None, map(check_of, group)), None)
    told = CODE.sub("", solution).strip()
    code = CODE.findall(solution)
    if name and seed is not None and NUMBERS[name]:
        told = f"(With the numbers of the book.) {told}"
        variable = CALL.search(group[-1].source)[2].partition(", seed")[0]
        answer = answer_of(name, seed)
        rounded = np.vectorize(lambda a: float(f"{a:.15g}"))
        parts = tuple(rounded(part).tolist() for part in parts_of(answer))
        answer = parts if len(parts) > 1 else parts[0]
        code = [
            f'{variable} = {answer}\ncheck("{name}", {variable}, seed={seed});'
        ]
    elif seed is not None:
        code = [CALL.sub(rf'check("\1", \2, seed={seed});', c) for c in code]
    cells = [new_markdown_cell(f"**Solution.** {told}")]
    cells += [new_code_cell(c, metadata={"tags": ["solution"]}) for c in code]
    if name and (known := mistakes(name, seed)):
        lines = "\n".join(f"- {hint}" for hint in known)
        cells.append(
            new_markdown_cell(f"**Mistakes that the check names.**\n\n{lines}")
        )
    return cells


def mistakes(name, seed=None):
    """What the check of an exercise says to those who made a mistake that it knows."""
    formula = CHECKS[name].formula
    known = formula(**values(name, seed))[1] if formula else []
    tree = ast.parse(textwrap.dedent(inspect.getsource(CHECKS[name])))
    hints = {}
    for node in ast.walk(tree):
        last = None
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            last = node.elts[1]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "id", "")
            last = node.args[-1] if called in ("expect", "Hint") else None
        if last and (said := said_by(last)):
            hints.setdefault(said, (last.lineno, last.col_offset))
    of_numbers = [hint for _, hint in known]
    return list(dict.fromkeys([*of_numbers, *sorted(hints, key=hints.get)]))


def said_by(node):
    """A text with a space in it; what is filled in later is an ellipsis."""
    if isinstance(node, ast.JoinedStr):
        pieces = [getattr(part, "value", None) for part in node.values]
        text = "".join(p if isinstance(p, str) else "…" for p in pieces)
    else:
        text = getattr(node, "value", None)
    return text if isinstance(text, str) and " " in text else None


BEHIND = {"student": place_for_words, "instructor": solution_and_mistakes}


def write(kind, seed=None, to=None):
    """All pages of an edition; where they are."""
    to = Path(to or ROOT / "_build" / kind)
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for path in sorted(PLAIN.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        notebook = edition(notebook, path.stem, seed, BEHIND[kind])
        nbformat.validate(notebook)
        nbformat.write(notebook, to / path.name)
    return to


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=list(BEHIND))
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    print(f"The notebooks: {write(options.kind, options.seed)}")
