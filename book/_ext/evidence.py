"""Execute the book's notebooks and store what their evidence cells print; strip the rest.

Evidence cells carry the tag `nbval-check-output`. nbval compares what they print with
what is stored here, so look at the difference before you commit it.

nbstripout can't do this: it keeps the execution counts of all cells or of none.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = "nbval-check-output"


def refresh(path):
    notebook = nbformat.read(path, as_version=4)
    # A kernel may send one text in several pieces: they are coalesced.
    how = {"timeout": 300, "kernel_name": "python3", "coalesce_streams": True}
    NotebookClient(notebook, **how).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        if EVIDENCE not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    names = sys.argv[1:] or [""]
    paths = sorted(ROOT.glob("book/**/*.ipynb"))
    chosen = [p for p in paths if any(name in p.name for name in names)]
    if not chosen:
        raise SystemExit(f"no notebook's name contains {' or '.join(names)}")
    for path in chosen:
        print(path.relative_to(ROOT))
        refresh(path)
