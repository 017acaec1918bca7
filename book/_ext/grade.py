"""Grades a folder of notebooks: each exercise right, or what was said to it.

    python book/_ext/grade.py FOLDER [--seed SEED] [--limit SECONDS]

A submission is a notebook of the student's edition, with answers. It runs in a kernel of
its own, in an empty folder: first the page's setup, then the cells that were changed or
added, then, if a name is missing, what stands before them on the page. The checks are
called by the grader. Writes grades.csv and grades.json into the folder, and prints for
the class which mistake was made how often.

A notebook says which seed it has, and people can change that: name the course's seed, and
all are graded by its numbers. This is no sandbox. The code runs with your rights: it may read your files and use the
network. Grade work of people whom you do not know in a container or a virtual machine.
"""

import argparse
import ast
import csv
import json
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import nbformat
from course import ROOT, check_of, write
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbformat.v4 import new_code_cell, new_notebook

import deqlib

CHAPTERS = ROOT / "book"
TOOLS = {"check", "linear", "models", "Solution"} | {
    name for name in deqlib.__all__ if name in vars(deqlib.solvers)
}
DERIVED = set(deqlib.__all__) - TOOLS  # what an exercise may ask to write
MARK, SLOW, DEAD = "deqlib-grade:", "took too long", "ended Python"

# Runs first in each kernel. What the checks are made of is noted, and put back if an
# answer changes it.
GRADER = """
def _make_grader():
    import contextlib, io, json, sys
    import deqlib.notebook.exercises as exercises

    check, write, dumps = exercises.check, sys.stdout.write, json.dumps
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] == "deqlib"]
    before = [(m, dict(vars(m))) for m in modules]
    checks = dict(exercises.CHECKS)

    def restore():
        changed = []
        for module, names in before:
            for name, value in names.items():
                if not name.startswith("__") and vars(module).get(name) is not value:
                    changed.append(module.__name__ + "." + name)
                    setattr(module, name, value)
        if dict(exercises.CHECKS) != checks:
            changed.append("deqlib.notebook.exercises.CHECKS")
            exercises.CHECKS.clear()
            exercises.CHECKS.update(checks)
        return changed

    def grade(mark, name, answer, seed):
        changed, said = restore(), io.StringIO()
        with contextlib.redirect_stdout(said):
            right = check(name, answer, seed)
        changed += restore()
        words = " ".join(said.getvalue().removeprefix("Not yet: ").split())
        found = {"right": right and not changed, "said": words, "changed": changed}
        print(mark + dumps(found))

    return grade

_grade = _make_grader()
del _make_grader
"""


class Failed(Exception):
    """What a cell came to: an error's name and message, a time out, a dead kernel."""


class SetupFailed(Exception):
    """Nothing of a submission could be graded."""


class Kernel:
    """A process that runs cells in a folder, started anew when it hangs or dies."""

    def __init__(self, folder, limit):
        self.folder, self.limit, self.running = folder, limit, ExitStack()

    def start(self):
        self.stop()
        self.notebook = new_notebook()
        self.client = NotebookClient(
            self.notebook,
            timeout=self.limit,
            kernel_name="python3",
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            resources={"metadata": {"path": str(self.folder)}},
        )
        self.running.enter_context(self.client.setup_kernel())

    def stop(self):
        self.running.close()

    def run(self, source):
        """What a cell prints; raises Failed."""
        cell = new_code_cell(source)
        self.notebook.cells.append(cell)
        try:
            self.client.execute_cell(cell, len(self.notebook.cells) - 1)
        except CellTimeoutError:
            raise Failed(SLOW, f"more than {self.limit} s") from None
        except CellExecutionError as error:
            raise Failed(error.ename, error.evalue) from None
        except DeadKernelError:
            raise Failed(DEAD, "the kernel died") from None
        return "".join(
            output.text
            for output in cell.outputs
            if output.output_type == "stream"
        )


def split(source):
    """A cell's source without its call of check, and the source of its answer."""
    source = TransformerManager().transform_cell(source)
    tree, answer = ast.parse(source), None
    for node in tree.body:
        call = getattr(node, "value", None)
        if isinstance(node, ast.Expr) and isinstance(call, ast.Call):
            if getattr(call.func, "id", "") == "check" and len(call.args) > 1:
                answer = ast.unparse(call.args[1])
                tree.body.remove(node)
                break
    return ast.unparse(tree), answer


def taken(sources):
    """Which functions of deqlib a program names. (jax.jvp is JAX's.)"""
    found = set()
    for source in sources:
        try:
            tree = ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.ImportFrom):
                if (node.module or "").startswith("deqlib"):
                    found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute):
                if getattr(node.value, "id", "") != "jax":
                    found.add(node.attr)
    return found & DERIVED


def solutions(page):
    """{name of an exercise: source of its solution}"""
    notebook = nbformat.read(CHAPTERS / f"{page}.ipynb", as_version=4)
    return {
        check_of(cell): cell.source
        for cell in notebook.cells
        if "solution" in cell.metadata.get("tags", [])
    }


def grade(path, editions, limit, seed=None):
    """{name of an exercise: {"right", "said", "notes"}} of a submission."""
    try:
        notebook = nbformat.read(path, as_version=4)
        page = notebook.metadata["course"]["page"]
        own_seed = notebook.metadata["course"]["seed"]
        given = nbformat.read(editions / f"{page}.ipynb", as_version=4)
    except Exception as error:
        return {
            "-": result(
                False, f"is no notebook of the student's edition: {error}"
            )
        }
    code = lambda nb: [c for c in nb.cells if c.cell_type == "code"]
    known = {c.source for c in code(given)}
    expected = list(filter(None, map(check_of, code(given))))
    with tempfile.TemporaryDirectory() as folder:
        kernel = Kernel(Path(folder), limit)
        try:
            seed = own_seed if seed is None else seed
            setup = code(given)[0].source
            found = answers(kernel, code(notebook), setup, known, seed, page)
        except SetupFailed as error:
            return {name: result(False, str(error)) for name in expected}
        finally:
            kernel.stop()
    missing = result(
        False, "the cell of this exercise is missing, or its check."
    )
    return {name: found.get(name, missing) for name in expected}


def result(right, said, notes=()):
    return {"right": right, "said": said, "notes": list(notes)}


def answers(kernel, cells, setup, known, seed, page):
    own = solutions(page)
    found, helpers, skipped = {}, [], []

    def begin(again=()):
        kernel.start()
        for source in [setup, GRADER, *again]:
            try:
                kernel.run(source)
            except Failed as error:
                if source in (setup, GRADER):
                    said = f"not graded: the page's setup failed, {error}"
                    raise SetupFailed(said) from None

    def attempt(run):
        """Run it; if a name is missing, run what stands before it on the page first."""
        try:
            return run()
        except Failed as error:
            if error.args[0] != "NameError" or not skipped:
                raise
        for one in skipped:
            kernel.run(one)
        skipped.clear()
        return run()

    begin()
    for cell in cells[1:]:
        name, source = check_of(cell), cell.source
        if name is None and source in known:
            skipped.append(source)
            continue
        notes = []
        try:
            program, answer = split(source)
        except SyntaxError as error:
            where = f"line {error.lineno}: {error.msg}"
            if name:
                found[name] = result(False, f"is no Python, {where}")
            continue
        if name and name in own:
            used = taken([source, *helpers]) - taken([own[name]])
            notes += [f"uses deqlib.{one}" for one in sorted(used)]
        if name and "check" in redefined(program, helpers):
            notes.append("redefines check")
        for again in (True, False):
            try:
                attempt(partial(kernel.run, program))
                if name:
                    judge = partial(judged, kernel, name, answer, seed, notes)
                    found[name] = attempt(judge)
                else:
                    helpers.append(source)
            except Failed as error:
                kind, message = error.args
                if name:
                    found[name] = result(False, f"{kind}: {message}", notes)
                if kind in (SLOW, DEAD):
                    begin(helpers)
                # What ends Python may have been an earlier cell, with a delay.
                if kind == DEAD and again:
                    continue
            break
        if files := left_behind(kernel.folder):
            if name:
                found[name]["notes"].append(f"wrote {', '.join(files)}")
    return found


def judged(kernel, name, answer, seed, notes):
    """What the check says. The mark is new each time: an answer cannot print it."""
    mark = f"{MARK}{os.urandom(8).hex()}:"
    said = kernel.run(f"_grade({mark!r}, {name!r}, ({answer}), {seed!r})")
    told = said.rpartition(mark)[2].splitlines()
    if not told:
        return result(False, "the grader was not heard.", notes)
    told = json.loads(told[0])
    notes = notes + [f"changes {one}" for one in told["changed"]]
    return result(told["right"], told["said"], notes)


def redefined(program, helpers):
    names = set()
    for source in [program, *helpers]:
        for node in ast.walk(
            ast.parse(TransformerManager().transform_cell(source))
        ):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def left_behind(folder):
    """The files that a cell wrote beside it, which are removed."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.unlink()
    return sorted(str(path.relative_to(folder)) for path in files)


def grade_all(folder, limit=60, seed=None, workers=None):
    """{submission: {exercise: result}}, in as many kernels at a time as there are cores."""
    paths = sorted(
        path
        for path in Path(folder).rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    )
    if not paths:
        raise SystemExit(f"FOLDER: expected notebooks in {folder}, found none")
    with tempfile.TemporaryDirectory() as editions:
        # The kind of the cells, not their numbers: those of any seed.
        editions = write("student", to=Path(editions) / "student")
        count = min(workers or os.cpu_count(), len(paths))
        with ProcessPoolExecutor(count, get_context("spawn")) as pool:
            one = partial(grade, editions=editions, limit=limit, seed=seed)
            names = [str(path.relative_to(folder)) for path in paths]
            return dict(zip(names, pool.map(one, paths), strict=True))


def of_the_class(grades):
    """{exercise: Counter of what was said to those whose answer is not right}"""
    said = {}
    for found in grades.values():
        for name, one in found.items():
            counted = said.setdefault(name, Counter())
            counted["right" if one["right"] else one["said"]] += 1
    return said


def report(folder, grades):
    """grades.csv and grades.json in the folder; the class as text."""
    folder, said = Path(folder), of_the_class(grades)
    with open(folder / "grades.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["submission", "exercise", "right", "said", "notes"])
        for submission, found in grades.items():
            for name, one in found.items():
                notes = "; ".join(one["notes"])
                row = [submission, name, int(one["right"]), one["said"], notes]
                rows.writerow([guarded(cell) for cell in row])
    whole = {"submissions": grades, "class": said}
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (folder / "grades.json").write_text(text + "\n")
    lines = []
    for name, counted in said.items():
        lines.append(f"{name}: {counted['right']} of {counted.total()} right")
        wrong = [item for item in counted.most_common() if item[0] != "right"]
        lines += [f"  {count:3d}  {text}" for text, count in wrong]
    return "\n".join(lines)


def guarded(cell):
    """No formula: a spreadsheet runs what begins like one."""
    return f"'{cell}" if str(cell)[:1] in tuple("=+-@") else cell


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--limit", type=int, default=60, help="seconds for a cell"
    )
    parser.add_argument("--seed", type=int, help="that of the course")
    options = parser.parse_args()
    if not options.folder.is_dir():
        sys.exit(
            f"FOLDER: expected a folder of notebooks, got {options.folder}"
        )
    grades = grade_all(options.folder, options.limit, options.seed)
    print(report(options.folder, grades))
    print(f"\nBy submission: {options.folder}/grades.csv and grades.json")


if __name__ == "__main__":
    main()
