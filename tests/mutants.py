"""Changes deqlib's mathematics, one operator or number at a time: some test must fail.

Cosmic Ray makes the mutants and runs the tests, in a copy of the repository. Fails below
95 % killed, or at a survivor that tests/mutants.toml does not list with a reason.
"""

import argparse
import ast
import os
import random
import re
import shlex
import shutil
import sys
import tomllib
from collections import Counter
from pathlib import Path
from time import monotonic

from cosmic_ray.commands import execute, init
from cosmic_ray.config import load_config
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.tools.filters.operators_filter import OperatorsFilter
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "tests" / "mutants.toml"
COPY = ROOT / "_build" / "mutants"
LEAST = 0.95
SKIPPED = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)


def copy_repository():
    """What the tests of the mathematics need: a mutant never stands in your files."""
    shutil.rmtree(COPY, ignore_errors=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in ("deqlib", "tests", "book"):
        shutil.copytree(ROOT / name, COPY / name, ignore=no_caches)
    shutil.copy(ROOT / "pyproject.toml", COPY)
    # Without it jsonschema knows one format less, and each start takes half the time.
    (COPY / "tests/rfc3987_syntax.py").write_text("raise ImportError\n")


def unmutated_lines(source):
    """Those of signatures, and of the module's constants."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield from range(node.lineno, node.body[0].lineno)
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield node.lineno


def changed(mutation):
    """The line that a mutation makes; or, with "- " before it, the one it removes."""
    source = mutation.module_path.read_text()
    operator = get_operator(mutation.operator_name)()
    mutant = mutate_code(source, operator, mutation.occurrence).splitlines()
    lines, row = source.splitlines(), mutation.start_pos[0] - 1
    if len(mutant) < len(lines):
        return f"- {lines[row].strip()}"
    return re.sub(r"(?<=[(\[]) ", "", mutant[row].strip())


def skip(db, items):
    db.set_multiple_results([item.job_id for item in items], SKIPPED)


def listed(settings, kind, module):
    """{mutant: reason} of tests/mutants.toml."""
    return {
        line: group["why"]
        for group in settings[kind]
        for line in group.get(module, [])
    }


def mutants_of(module, settings, db):
    """Those that mean something, in an order that depends on the source alone."""
    path = Path("deqlib", f"{module}.py")
    init([path], db, {})
    OperatorsFilter().filter(db, argparse.Namespace(config=CONFIG))
    unmutated = set(unmutated_lines(path.read_text()))
    equivalent = listed(settings, "equivalent", module)
    unseen = equivalent | listed(settings, "may-live", module)
    kept, skipped = [], []
    for item in db.pending_work_items:
        (m,) = item.mutations
        flag = re.search("Replace(True|False)", m.operator_name)
        signature = m.start_pos[0] in unmutated and not flag
        same = not signature and changed(m) in equivalent
        (skipped if signature or same else kept).append(item)
        unseen.pop(changed(m), None)
    if unseen:
        sys.exit(f"No mutant of {module} makes {list(unseen)}: {CONFIG.name}")
    skip(db, skipped)
    order = lambda m: (m.operator_name, m.occurrence)
    return sorted(kept, key=lambda item: order(item.mutations[0]))


def run(module, settings, config, share, seed):
    """How many mutants there are; of those run, the row, what it makes, and its end."""
    with use_db(COPY / f"{module}.sqlite") as db:
        items = mutants_of(module, settings, db)
        random.Random(seed).shuffle(items)
        chosen = items[: round(share * len(items))]
        skip(db, items[len(chosen) :])
        execute(db, config)
        results = dict(db.results)
        ends = []
        for item in chosen:
            (m,), result = item.mutations, results[item.job_id]
            lives = result.test_outcome != TestOutcome.KILLED
            end = "timed out" if result.output == "timeout" else "killed"
            ends.append(
                (m.start_pos[0], changed(m), "survived" if lives else end)
            )
        return len(items), sorted(ends)


def baseline(module, tests, python):
    """What runs a module's tests, and its seconds; it has to pass without a mutant."""
    files = [f"tests/test_{name}.py" for name in tests]
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:nbval"]
    command = shlex.join([python, "-m", "pytest", *options, *files])
    start = monotonic()
    outcome, output = run_tests(command, None)
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"{output}\nThe tests of {module} fail without a mutant.")
    return {"test-command": command, "timeout": 3 * (monotonic() - start)}


def main():
    settings = tomllib.loads(CONFIG.read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=list(settings["tests"]))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    copy_repository()
    os.chdir(COPY)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    config = load_config(CONFIG)
    found = {
        module: baseline(module, settings["tests"][module], arguments.python)
        for module in arguments.modules
    }
    # What a mutant compiles is of no use to the next.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e6"
    sums, unlisted = Counter(), 0
    for module, of_module in found.items():
        config.update(of_module)
        total, ends = run(
            module, settings, config, arguments.share, arguments.seed
        )
        counts = Counter(end for *_, end in ends)
        print(f"{module}: {len(ends)} of {total} mutants, {dict(counts)}")
        reasons = listed(settings, "may-live", module)
        for row, line, end in ends:
            if end == "survived":
                unlisted += line not in reasons
                why = reasons.get(line, "NO REASON IS LISTED")
                print(f"  deqlib/{module}.py:{row}: {line}\n    {why}")
        sums += counts
    killed = sums["killed"] + sums["timed out"]
    print(
        f"{killed} of {sums.total()} mutants killed, {unlisted} unlisted live"
    )
    if unlisted or killed < LEAST * sums.total():
        sys.exit(f"Wanted: {LEAST:.0%}, and a reason for each that lives.")


if __name__ == "__main__":
    main()
