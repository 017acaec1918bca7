"""The plain edition: the pages with code as notebooks that Colab and Jupyter can show.

Neither of them knows MyST. When a page is written, Sphinx has settled its numbers,
references and citations, so the notebook is made from Sphinx's document: prose as
Markdown, what has a frame as a block quote, an exercise as a heading. Code cells are those
of the source, with their plotting folded. Solutions go to the end, where no run meets
them. The notebooks lie in _build/notebooks, and behind the page's download button.
"""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from address import ROOT
from docutils import nodes
from nbformat.v4 import new_markdown_cell
from sphinx_exercise.nodes import exercise_enumerable_node, solution_node
from sphinx_markdown_builder.contexts import (
    IndentContext,
    SubContextParams,
    TitleContext,
)
from sphinx_markdown_builder.translator import MarkdownTranslator
from sphinx_proof.nodes import proof_node, theorem_node

FIRST = (
    "*This notebook is a page of a book. [Read it on the web]({}), where its figures move "
    "without Python, or run it here.*"
)
SOLUTIONS = (
    "## Solutions\n\nOne opens when you click on it. Its code is not run with the notebook, "
    "so that your own answers stay."
)


class Markdown(MarkdownTranslator):
    """The library's translator, with TeX that needs no page around it."""

    def visit_title(self, node):
        self._push_context(TitleContext(node["level"]))

    def depart_title(self, node):
        self._pop_context()

    def visit_math_block(self, node):
        tex = node.astext().strip()
        if node.get("label"):
            tex += rf" \tag{{{number(self.builder, 'displaymath', node)}}}"
        # Within a block quote Jupyter takes a `>` between the dollars for a part of it.
        end = "" if node.get("framed") else "\n"
        tex = tex if end else " ".join(tex.split())
        self.add(f"$${end}{tex}{end}$$", prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode

    def visit_block_quote(self, node):
        frame = IndentContext("> ", empty=True, params=SubContextParams(2, 2))
        self._push_context(frame)

    def depart_block_quote(self, node):
        self._pop_context()

    def visit_choice(self, node):
        """An answer to a question, which opens in Jupyter as on the page."""
        words = [
            f"${part}$" if isinstance(part.parent, nodes.math) else part
            for part in node.pop(0).findall(nodes.Text)
        ]
        summary = f"<summary>{''.join(words)}</summary>"
        self.add(f"<details>\n{summary}", prefix_eol=2, suffix_eol=2)

    def depart_choice(self, node):
        self.add("</details>", prefix_eol=2, suffix_eol=2)

    def visit_target(self, node):
        raise nodes.SkipNode

    visit_raw = visit_target

    def _fetch_ref_uri(self, node):
        page = address_of(self.builder, self.builder.current_docname)
        return urljoin(page, node.get("refuri") or "#" + node["refid"])


def address_of(builder, docname):
    return urljoin(builder.config.html_baseurl, builder.get_target_uri(docname))


def number(builder, kind, node):
    """4.8, as the page has it."""
    return ".".join(map(str, builder.fignumbers[kind][node["ids"][0]]))


def markdown(builder, doctree, content):
    document = doctree.copy()
    document += content
    writer = Markdown(document, builder)
    document.walkabout(writer)
    return writer.astext().strip()


def framed(content, title=()):
    quote = nodes.block_quote("", *content)
    if title:
        quote.insert(0, nodes.paragraph("", "", nodes.strong("", "", *title)))
    for math in quote.findall(nodes.math_block):
        math["framed"] = True
    return quote


def titled(node, words=""):
    """`words`, then the title in brackets that `node` begins with, and the rest."""
    title, *rest = node.children
    return [nodes.Text(words), *title.children], rest


def blocks(builder, node, level=1):
    """The document one block after the other, in terms that Markdown has."""
    for child in node.children:
        if isinstance(child, nodes.section):
            yield from blocks(builder, child, level + 1)
        elif isinstance(child, nodes.title):
            child["level"] = level - 1
            if level == 2 and (chapter := builder.secnumbers.get("")):
                child.insert(0, nodes.Text(f"{chapter[0]}. "))
            yield child
        elif isinstance(child, exercise_enumerable_node):
            words = f"Exercise {number(builder, 'exercise', child)}"
            title, rest = titled(child, words)
            yield nodes.title("", "", *title, level=3)
            yield from unwrapped(rest)
        elif isinstance(child, theorem_node):
            words = f"Theorem {number(builder, 'theorem', child)}"
            title, rest = titled(child, words)
            yield framed(unwrapped(rest), title)
        elif isinstance(child, proof_node):
            yield framed(unwrapped(child.children))
        elif isinstance(child, nodes.admonition):
            title, rest = titled(child)
            yield framed(rest, title)
        else:
            yield child


def unwrapped(content):
    """Without the sections and frames that have no title of their own."""
    for child in content:
        if isinstance(child, nodes.section | nodes.admonition):
            yield from unwrapped(child.children)
        else:
            yield child


def is_code(node):
    return getattr(node, "attributes", {}).get("nb_element") == "cell_code"


@cache
def commit():
    """That of the clone that is built; nothing outside of a clone."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True)
    return done.stdout.strip()


def code_cell(cell):
    """A cell of the source, folded in both if the page folds it."""
    texts, tags = cell.metadata.pop("mystnb", {}), cell.metadata.get("tags", [])
    if "setup" in tags and commit():
        pinned = rf"\g<0>@{commit()}"
        cell.source = re.sub(r"git\+https://\S+", pinned, cell.source)
    if {"hide-input", "hide-cell"} & set(tags):
        title = texts.get("code_prompt_show", "Show the code")
        cell.source = f"#@title {title}\n{cell.source}"
        cell.metadata |= {
            "cellView": "form",
            "jupyter": {"source_hidden": True},
        }
    return cell


def convert(builder, doctree, source):
    """The plain notebook of a page, whose settled document is `doctree`."""
    notebook = nbformat.read(source, as_version=4)
    address = address_of(builder, builder.current_docname)
    cells, text, solutions = [], [], []

    def end_text():
        if text:
            cells.append(new_markdown_cell(markdown(builder, doctree, text)))
            text.clear()

    for block in blocks(builder, doctree.deepcopy()):
        if isinstance(block, solution_node):
            title, *rest = block.children
            told = [one for one in rest if not is_code(one)]
            parts = [
                title.astext(),
                markdown(builder, doctree, unwrapped(told)),
            ]
            for one in filter(is_code, rest):
                code = notebook.cells[one["cell_index"]].source
                parts.append(f"```python\n{code}\n```")
            solutions.append(parts)
        elif is_code(block):
            end_text()
            cells.append(code_cell(notebook.cells[block["cell_index"]]))
        else:
            if isinstance(block, nodes.title):
                end_text()
            text.append(block)
    end_text()
    if solutions:
        heading = new_markdown_cell(SOLUTIONS)
        heading.metadata["jp-MarkdownHeadingCollapsed"] = True
        cells.append(heading)
    for title, *rest in solutions:
        inside = "\n\n".join([f"<summary>{title}</summary>", *rest])
        cells.append(new_markdown_cell(f"<details>\n{inside}\n\n</details>"))
    cells[0].source = f"{FIRST.format(address)}\n\n{cells[0].source}"
    for i, cell in enumerate(cells):
        if cell.cell_type == "markdown":  # the same from build to build
            cell.id = f"text-{i}"
    notebook.cells = cells
    return notebook


def write(app, pagename, templatename, context, doctree):
    source = Path(app.env.doc2path(pagename)) if doctree else Path()
    if source.suffix == ".ipynb":
        notebook = convert(app.builder, doctree, source)
        path = folder(app) / f"{pagename}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)


def folder(app):
    return Path(app.outdir).parent / "notebooks"


def offer(app, error):
    """The page's download button leads to _sources."""
    if not error and app.builder.format == "html":
        shutil.copytree(
            folder(app), Path(app.outdir) / "_sources", dirs_exist_ok=True
        )


def setup(app):
    app.connect("html-page-context", write)
    app.connect("build-finished", offer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
