"""Store what the evidence cells of the executed notebooks print; strip the rest.

Evidence cells carry the tag `nbval-check-output`. nbval compares what they print with
what is stored here, so look at the difference before you commit it.

nbstripout can't do this: it keeps the execution counts of all cells or of none.
"""

import sys

import execute
import nbformat

EVIDENCE = "nbval-check-output"


def refresh(path):
    _, notebook = execute.cache().merge_match_into_notebook(execute.read(path))
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if EVIDENCE not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute.main(*sys.argv[1:])
    for path in execute.chosen(*sys.argv[1:]):
        refresh(path)
