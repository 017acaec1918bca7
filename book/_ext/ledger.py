"""The equation ledger: every numbered equation of the book beside the test that holds it.

An equation is numbered by a label behind it, `$$ … $$ (label)`. A label that ends in
`-definition` names something; every other label claims something, and a test marked
`@pytest.mark.equation(label)` evaluates both of its sides. The tests write what they
measured to `_build/ledger.json`; this extension makes the ledger page from it, and
links each equation to its row.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "_build" / "ledger.json"
PAGE = "book/appendices/ledger"
BLOCK = re.compile(
    r"^\$\$\n(?P<latex>(?:(?!\$\$).)*)\n\$\$( \((?P<label>[\w-]+)\))?$",
    re.M | re.S,
)


class Equation(NamedTuple):
    label: str
    latex: str
    page: Path  # relative to the root

    @property
    def is_definition(self):
        return self.label.endswith("-definition")


def pages():
    """The book's chapters and appendices, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [
        toc["root"],
        *(c["file"] for p in toc["parts"] for c in p["chapters"]),
    ]
    return [next(ROOT.glob(f"{name}.*")) for name in names]


def prose(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return text
    # Not by nbformat: importing it takes seconds, and every test run imports this.
    cells = json.loads(text)["cells"]
    sources = [c["source"] for c in cells if c["cell_type"] == "markdown"]
    return "\n\n".join(map("".join, sources))


def equations():
    """Every numbered equation of the book."""
    return [
        Equation(m["label"], m["latex"].strip(), page.relative_to(ROOT))
        for page in pages()
        for m in BLOCK.finditer(prose(page))
        if m["label"]
    ]


def measured():
    """What the tests measured: {label: {test, error, runs}}."""
    if not LEDGER.exists():
        raise ExtensionError(
            f"{LEDGER} is missing: run the equation tests first"
        )
    return json.loads(LEDGER.read_text(encoding="utf-8"))


class LedgerTable(SphinxDirective):
    """One row for each equation: label, statement, chapter, test, error."""

    def run(self):
        rows = measured()
        self.env.note_dependency(str(LEDGER))
        text = []
        for e in equations():
            row = rows.get(e.label)
            if row is None and not e.is_definition:
                raise ExtensionError(f"equation {e.label} has no test")
            latex = " ".join(e.latex.split())
            chapter = f"[{chapter_title(e.page)}](/{e.page.as_posix()})"
            entry = [
                f"({row_id(e.label)})=",
                f"{{eq}}`{e.label}` `{e.label}`, {chapter}",
                "",
                f"$$\n{latex}\n$$",
            ]
            if row:
                entry += [
                    "",
                    f"**{spoken(row['error'])}** in {row['runs']} comparisons by "
                    f"`{row['test'].split('::')[1]}`",
                ]
            else:
                entry += ["", "a definition: it says what a symbol means"]
            text += [
                ":::{div} ledger-row",
                *"\n".join(entry).split("\n"),
                ":::",
                "",
            ]
        held = len([e for e in equations() if not e.is_definition])
        text.insert(0, f"{held} equations, each held by a test.\n")
        return self.parse_text("\n".join(text))

    def parse_text(self, text):
        box = nodes.container()
        self.state.nested_parse(text.split("\n"), self.content_offset, box)
        return box.children


def spoken(error):
    return f"error {error:.0e}" if error else "no error"


def row_id(label):
    return f"row-{label}"


def chapter_title(page):
    heading = re.search(r"^# (.+)$", prose(ROOT / page), re.M)
    return heading[1]


def link_equations(app, doctree, docname):
    """Behind each equation that claims something: its error, linking to its row."""
    if docname == PAGE or app.builder.format != "html":
        return
    rows = measured()
    for block in list(doctree.findall(nodes.math_block)):
        row = rows.get(block.get("label"))
        if row is None:
            continue
        link = make_refnode(
            app.builder,
            docname,
            PAGE,
            row_id(block["label"]),
            nodes.Text(f"checked, {spoken(row['error'])}"),
            f"The test of equation {block['label']} in the ledger",
        )
        note = nodes.paragraph("", "", link, classes=["checked"])
        block.parent.insert(block.parent.index(block) + 1, note)


def setup(app):
    app.add_directive("ledger", LedgerTable)
    app.connect("doctree-resolved", link_equations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
