"""What Sphinx leaves to mend: other hosts, dead weight, docstring links, citations."""

import importlib.util
import re
import shutil
from pathlib import Path

from docutils import nodes
from sphinx_exercise.nodes import solution_node

MATHJAX = ["tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2"]


def copy_mathjax(app, error):
    if error or app.builder.format != "html":
        return
    package = importlib.util.find_spec("sphinx-mathjax-offline").origin
    source = Path(package).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in MATHJAX:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def strip_scripts(app, pagename, templatename, context, doctree):
    """Thebe is on another host, and no page has a kernel for the state of widgets."""
    for kind in ("script_files", "css_files"):
        context[kind] = [
            f
            for f in context.get(kind, [])
            if "thebe" not in str(f)
            and "widget-state"
            not in (getattr(f, "attributes", {}).get("type") or "")
        ]


# Half a megabyte that blocks each page. All icons are drawn by its fonts without it.
FONTAWESOME = re.compile(
    r'\s*<script src="[^"]*fontawesome\.js[^"]*"></script>'
)


def strip_fontawesome(app, error):
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        page.write_text(FONTAWESOME.sub("", page.read_text()))
    for script in Path(app.outdir, "_static/scripts").glob("fontawesome.js*"):
        script.unlink()


def name_citations(app, pagename, templatename, context, doctree):
    """docutils calls the items of a list by a role that may not stand in a list."""
    if "body" in context:
        context["body"] = context["body"].replace(
            'role="doc-biblioentry"', 'role="listitem"'
        )


def fold_solutions(app, doctree):
    """A solution's code lies in the fold of its text, not in a fold of its own."""
    for solution in list(doctree.findall(solution_node)):
        following = solution.next_node(descend=False, siblings=True)
        if isinstance(following, nodes.container) and following.get(
            "hide_mode"
        ):
            following.parent.remove(following)
            del following["hide_mode"]
            solution += following


def link_docstrings(app, what, name, obj, options, lines):
    """`eq. (label)` in a docstring becomes a link to the equation of the book."""
    lines[:] = [
        re.sub(r"eq\. \(([\w-]+)\)", r"eq. :eq:`\1`", line) for line in lines
    ]


def setup(app):
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", strip_fontawesome)
    app.connect("doctree-read", fold_solutions)
    app.connect("html-page-context", strip_scripts, priority=900)
    app.connect("html-page-context", name_citations, priority=900)
    if "autodoc-process-docstring" in app.events.events:
        app.connect("autodoc-process-docstring", link_docstrings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
