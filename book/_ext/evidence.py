"""Execute the book's notebooks and store what their evidence cells print; strip the rest.

Evidence cells carry the tag `nbval-check-output`. nbval compares what they print with
what is stored here, so look at the difference before you commit it.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = "nbval-check-output"


def merged(outputs):
    """A kernel may send one text in several pieces."""
    result = []
    for output in outputs:
        if result and output.output_type == result[-1].output_type == "stream":
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def refresh(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        if EVIDENCE not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
        cell.outputs = merged(cell.outputs)
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    chosen = [Path(name) for name in sys.argv[1:]]
    for notebook in chosen or sorted(ROOT.glob("book/**/*.ipynb")):
        print(notebook)
        refresh(notebook)
