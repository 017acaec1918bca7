"""What Sphinx leaves to mend: folds, numbers, punctuation, terms, docstring links, citations."""

import gc
import re
from functools import cache
from html import unescape

from docutils import nodes
from matplotlib import rc_context
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from sphinx_exercise.nodes import solution_node


def fold_solutions(app, doctree):
    """A solution's code lies in the fold of its text, not in a fold of its own."""
    for solution in list(doctree.findall(solution_node)):
        after = lambda node: node.next_node(descend=False, siblings=True)
        following = after(solution)
        while isinstance(following, nodes.container) and following.get(
            "hide_mode"
        ):
            following.parent.remove(following)
            del following["hide_mode"]
            solution += following
            following = after(solution)


def keep_punctuation(app, doctree):
    """No line begins with the comma that follows a formula."""
    for math in list(doctree.findall(nodes.math)):
        after = math.next_node(descend=False, siblings=True)
        mark = isinstance(after, nodes.Text) and re.match(
            r"[-.,;:!?)–’]+", after
        )
        if mark:
            rest = nodes.Text(after[mark.end() :])
            kept = nodes.inline(
                "", "", nodes.math("", math.astext()), classes=["kept"]
            )
            kept += nodes.Text(mark[0])
            math.parent.replace(after, rest)
            math.parent.replace(math, kept)


def number_appendices(app, env):
    """Equations of the appendices are A.1, A.2 and so on, and go through all of them."""
    count = 0
    for docname in env.toctree_includes[env.config.root_doc]:
        if "/appendices/" in docname:
            numbers = env.toc_fignumbers.get(docname, {}).get("displaymath", {})
            for key in numbers:
                count += 1
                numbers[key] = ("A", count)
    return []


def explain_terms(app, doctree, docname):
    """A link to the glossary shows what the word means under the pointer."""
    links = [
        node
        for node in doctree.findall(nodes.reference)
        if node.get("refuri", "").partition("#")[2].startswith("term-")
        or node.get("refid", "").startswith("term-")
    ]
    if not links:
        return
    glossary = app.env.get_doctree("book/appendices/glossary")
    meanings = {
        name: item[1].astext()
        for item in glossary.findall(nodes.definition_list_item)
        for name in item[0]["ids"]
    }
    for link in links:
        target = link.get("refuri", "").partition("#")[2] or link["refid"]
        link["reftitle"] = meanings[target]


def link_docstrings(app, what, name, obj, options, lines):
    """`eq. (label)` in a docstring becomes a link to the equation of the book."""
    lines[:] = [
        re.sub(r"eq\. \(([\w-]+)\)", r"eq. :eq:`\1`", line) for line in lines
    ]


def name_citations(app, pagename, templatename, context, doctree):
    """docutils calls the items of a list by a role that may not stand in a list."""
    if "body" in context:
        context["body"] = context["body"].replace(
            'role="doc-biblioentry"', 'role="listitem"'
        )


INLINE = re.compile(
    r'<span class="math notranslate nohighlight">(\\\((.*?)\\\))</span>', re.S
)
# What MathJax reads and matplotlib does not, and something of that size instead.
LIKE = {
    r"\\[td]frac": r"\\frac",
    r"\\frac(\d)(\d)": r"\\frac{\1}{\2}",
    r"\\frac(\d)\{": r"\\frac{\1}{",
    r"\\frac": r"\\,\\:\\frac",
    r"\^\*|\^\{\*\}": "^s",
    r"\\[bB]igg?[lrm]?(?![a-zA-Z])": "",
    r"\\[lr]Vert": r"\\Vert ",
    r"\\[lr]vert": "|",
    r"\\top(?![a-z])": "T",
    r"\\([lg])e(?![a-z])": r"\\\1eq",
    r"\\(text|operatorname)\{": r"\\mathrm{",
}


@cache
def size_of(tex):
    """A formula's width, height and depth, in letters of size one."""
    for old, new in LIKE.items():
        tex = re.sub(old, new, tex)
    try:
        parser, font = MathTextParser("path"), FontProperties(size=100)
        width, height, depth, *_ = parser.parse(f"${tex}$", 72, font)
    except ValueError:
        seen = re.sub(r"\\[a-z]+|[{}^_&\s]", "", tex)
        return 0.6 * len(seen), 1.0, 0.25
    return width / 100, height / 100, depth / 100


def leave_room(app, pagename, templatename, context, doctree):
    """Before it is set, an inline formula has the room that it takes afterwards."""

    def sized(found):
        width, height, depth = size_of(unescape(found[2]))
        style = f"--w:{width:.2f};--h:{height:.2f};--d:{depth:.2f}"
        return found[0].replace("<span ", f'<span style="{style}" ', 1)

    if "body" in context:
        with rc_context({"mathtext.fontset": "cm"}):
            context["body"] = INLINE.sub(sized, context["body"])


def setup(app):
    # Trees of documents are no garbage: to look through them took a fifth of the time.
    gc.set_threshold(20_000, 50, 100)
    app.connect("html-page-context", leave_room, priority=900)
    app.connect("doctree-read", fold_solutions)
    app.connect("doctree-read", keep_punctuation)
    app.connect("doctree-resolved", explain_terms)
    app.connect("env-get-updated", number_appendices, priority=900)
    app.connect("html-page-context", name_citations, priority=900)
    if "autodoc-process-docstring" in app.events.events:
        app.connect("autodoc-process-docstring", link_docstrings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
