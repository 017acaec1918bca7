"""Each claim of the book has a test, which carries the formula on the page; each test of
an equation has a label, and the docstrings of deqlib name equations that exist."""

import inspect
import re
import sys

import ledger
import pytest
import test_equations
from equation import difference, printed

import deqlib


def marked():
    """{label: test function} of the marked tests."""
    functions = vars(test_equations).values()
    return {
        mark.args[0]: function
        for function in functions
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "equation"
    }


def mismatches(equations, tests):
    """Labels without a test, tests without a label, labels given twice."""
    labels = [e.label for e in equations]
    claims = {e.label for e in equations if not e.is_definition}
    twice = {label for label in labels if labels.count(label) > 1}
    return claims - set(tests), set(tests) - claims, twice


def test_every_label_has_a_test_and_every_test_a_label():
    without_test, without_label, twice = mismatches(
        ledger.equations(), marked()
    )
    assert not without_test, f"equations without a test: {without_test}"
    assert not without_label, f"tests without an equation: {without_label}"
    assert not twice, f"labels given twice: {twice}"


def test_the_comparison_sees_each_kind_of_mismatch():
    one = ledger.Equation("one", "x", None)
    name = ledger.Equation("a-definition", "x", None)
    assert mismatches([one, name], {"one": 1}) == (set(), set(), set())
    assert mismatches([one, name], {}) == ({"one"}, set(), set())
    assert mismatches([one], {"one": 1, "two": 1}) == (set(), {"two"}, set())
    assert mismatches([one, one], {"one": 1}) == (set(), set(), {"one"})
    assert mismatches([name], {"a-definition": 1})[1] == {"a-definition"}


def test_blocks_are_read_whole():
    found = ledger.BLOCK.findall(
        "$$\na\n$$\n\ntext\n\n$$\nb = \\\\\nc\n$$ (two)\n"
    )
    assert [(latex, label) for latex, _, label in found] == [
        ("a", ""),
        ("b = \\\\\nc", "two"),
    ]


def test_no_labelled_equation_escapes_the_ledger():
    """Every $$ … (label) of the prose is found, however it is written."""
    text = "\n".join(ledger.prose(page) for page in ledger.pages())
    labels = re.findall(r"\$\$ *\(([\w-]+)\)", text)
    assert labels == [e.label for e in ledger.equations()]
    assert ":label: eq" not in text and "\\begin{equation}" not in text


@pytest.mark.parametrize("label", sorted(marked()))
def test_the_test_compares_two_sides_more_than_once(label):
    function = marked()[label]
    assert inspect.isgeneratorfunction(function.sides)
    samples = [
        m.args[1] for m in function.pytestmark if m.name == "parametrize"
    ]
    assert sum(len(sample.seeds) for sample in samples[0]) >= 5


@pytest.mark.parametrize("label", sorted(marked()))
def test_the_test_carries_the_formula_on_the_page(label):
    differs = difference(label, marked()[label].__doc__, printed().get(label))
    assert not differs, differs


def test_whitespace_apart_each_change_of_a_formula_is_seen():
    page = "a &= b - c, \\\\\n\\text{if } c > 0."
    assert not difference("one", page.replace(" ", "\n  "), page)
    for old, new in {"-": "+", "b": "b^2", ">": r"\ge", "0": "1"}.items():
        other = page.replace(old, new)
        said = difference("one", other, page)
        assert "one: whoever changes one must look at the other" in said
        assert other in said and page in said
    assert difference("one", None, page) and difference("one", page, None)


def test_docstrings_name_equations_that_exist():
    labels = {e.label for e in ledger.equations()}
    modules = [
        m for name, m in sys.modules.items() if name.startswith("deqlib.")
    ]
    named = {
        label
        for module in modules
        for label in re.findall(r"eq\. \(([\w-]+)\)", inspect.getsource(module))
    }
    assert len(named) > 8
    assert named <= labels, named - labels


FUNCTIONS = [
    getattr(deqlib, name)
    for name in deqlib.__all__
    if inspect.isfunction(getattr(deqlib, name))
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_public_docstrings_name_equation_and_source(function):
    assert re.search(r"eq\. \([\w-]+\)", function.__doc__)
    assert "Source:" in function.__doc__
