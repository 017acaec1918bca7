"""Questions that a page answers without a kernel.

`{ask}` is a question with its answers as a definition list: each answer opens, and says why
it is right, or where to read on. An exercise whose answer is a few numbers gets a field
below it, which knows the same mistakes as the exercise's check; see answer.js.
"""

import json
from html import escape

import numpy as np
from course import CALL
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from deqlib.notebook.exercises import CHECKS, parts_of, values

FIELD = """<form class="answer" hidden data-known="{known}">
<label>Your answer <input type="text" inputmode="text" autocomplete="off" size="10"></label>
<button type="submit">Is it right?</button> <output role="status"></output></form>"""


class choice(nodes.General, nodes.Element):
    """An answer to a question: what it says, and what is said to it."""


class Ask(SphinxDirective):
    has_content = True

    def run(self):
        box = nodes.container(classes=["ask"])
        self.state.nested_parse(self.content, self.content_offset, box)
        lists = list(box.findall(nodes.definition_list))
        if len(lists) != 1 or len(lists[0]) < 2:
            raise self.error("ask: expected one list of at least two answers")
        choices = []
        for term, said in lists[0]:
            right = said.astext().startswith("Right")
            one = choice("", classes=["right" if right else "other"])
            one += [nodes.paragraph("", "", *term.children), *said.children]
            choices.append(one)
        if sum("right" in one["classes"] for one in choices) != 1:
            raise self.error("ask: expected one answer that begins with Right")
        lists[0].replace_self(choices)
        return [box]


def visit_choice(self, node):
    kind = " ".join(node["classes"])
    term, *said = node.children
    self.body.append(f'<details class="choice {kind}"><summary>')
    for child in term.children:
        child.walkabout(self)
    self.body.append("</summary>")
    for child in said:
        child.walkabout(self)
    self.body.append("</details>")
    raise nodes.SkipNode


def known(name):
    """[[numbers, hint], ...] of an exercise with a few numbers for an answer, the right ones
    first; None of all others."""
    if not (formula := CHECKS[name].formula):
        return None
    right, mistakes = formula(**values(name))
    rows = [(right, "Right."), *mistakes]
    if any(np.ndim(part) > 1 for part in parts_of(right)):
        return None
    numbers = lambda value: np.hstack(parts_of(value)).astype(float).tolist()
    return [[numbers(value), hint] for value, hint in rows]


def add_fields(app, doctree):
    """Below the stub of each exercise that has a few numbers for an answer."""
    for cell in list(doctree.findall(nodes.container)):
        if "tag_exercise" not in cell.get("classes", []):
            continue
        name = CALL.search(cell.astext())[1]
        if rows := known(name):
            html = FIELD.format(known=escape(json.dumps(rows)))
            field = nodes.raw("", html, format="html")
            cell.parent.insert(cell.parent.index(cell) + 1, field)


def setup(app):
    app.add_node(choice, html=(visit_choice, None))
    app.add_directive("ask", Ask)
    app.connect("doctree-read", add_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
