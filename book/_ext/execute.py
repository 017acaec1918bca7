"""Execute notebooks beforehand, two at a time, into the cache that the build reads.

    python book/_ext/execute.py [part of a name]

Prints what each one cost, as it ends. The first that fails is named, with its error,
and ends the run. What the cache holds already is not executed again.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
ROW = "{:<36}{:>8}{:>8}{:>14}{:>10}"


def cache():
    return get_cache(ROOT / "_build" / ".jupyter_cache")


def chosen(part=""):
    """The notebooks whose name contains `part`."""
    paths = sorted(p for p in ROOT.glob("book/**/*.ipynb") if part in p.stem)
    if not paths:
        raise SystemExit(f"ONLY: no notebook's name contains {part!r}")
    return paths


def read(path):
    return nbformat.read(path, as_version=4)


def cost_of(path):
    """What the notebook cost when it was executed, as it stands; None if it was not."""
    try:
        return cache().match_cache_notebook(read(path)).data
    except KeyError:
        return None


async def execute(path):
    """The executed notebook and what it cost, told by a first and a last cell."""
    notebook, cell = read(path), nbformat.v4.new_code_cell
    # No name of the chapter's is taken. What is imported is no garbage, see
    # `compile_quickly`.
    patient = "__import__('gc').set_threshold(20_000, 50, 100)"
    counter = "__import__('programs')"
    first, last = cell(f"{patient}; {counter};"), cell(f"{counter}.tell()")
    notebook.cells = [first, *notebook.cells, last]
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,  # a kernel may send one text in several pieces
        resources={"metadata": {"path": str(path.parent)}},
    )
    since = time.monotonic()
    await client.async_execute(
        stderr=subprocess.DEVNULL,  # what cells write there is kept
    )
    cost = {"execution_seconds": time.monotonic() - since}
    cost |= json.loads(last.outputs[0].text)
    notebook.cells = notebook.cells[1:-1]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cost["slowest_cell"] = max(map(seconds, code))
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    return notebook, cost


def seconds(cell):
    """How long a cell ran, as the kernel's messages tell."""
    times = cell.metadata.pop("execution")
    start, end = (
        datetime.fromisoformat(times[message])
        for message in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - start).total_seconds()


def show(path, cost):
    times = (
        cost["cpu_seconds"],
        cost["execution_seconds"],
        cost["slowest_cell"],
    )
    numbers = [f"{seconds:.1f}" for seconds in times]
    print(ROW.format(path.stem, *numbers, cost["programs"]), flush=True)


def main(part=""):
    here, there = str(Path(__file__).parent), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, there]))
    os.environ["DEQLIB_FRAMES"] = "1"  # the site needs all pictures of a figure
    costs = {path: cost_of(path) for path in chosen(part)}
    print(ROW.format("", "CPU s", "wall s", "slowest cell", "programs"))
    for path, cost in costs.items():
        if cost:
            show(path, cost)
    left = [path for path, cost in costs.items() if not cost]
    # No long one comes last. The longest of all is short: a table, in an appendix.
    left.sort(
        key=lambda path: (
            path.parent.name != "appendices",
            -path.stat().st_size,
        )
    )
    try:
        asyncio.run(execute_all(left))
    except ExceptionGroup as failed:
        raise SystemExit(str(failed.exceptions[0])) from None


async def execute_all(paths):
    """The first that fails ends the others."""
    turn = asyncio.Semaphore(2)

    async def in_turn(path):
        async with turn:
            try:
                notebook, cost = await execute(path)
            except Exception as error:
                raise RuntimeError(f"{path.name} failed:\n{error}") from None
        bundle = CacheBundleIn(notebook, str(path), data=cost)
        cache().cache_notebook_bundle(
            bundle, check_validity=False, overwrite=True
        )
        show(path, cost)

    async with asyncio.TaskGroup() as tasks:
        for path in paths:
            tasks.create_task(in_turn(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
