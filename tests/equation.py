"""What makes a test of the two sides of a numbered equation.

The docstring of the sides is the formula as it stands on the page. It says what the test
is a test of: when the two differ, the test fails.
Seeds are data: the sides are functions of arrays, and one program for each shape
evaluates them for all seeds at a time.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import ledger
import numpy as np
import programs
import pytest

from deqlib.check import relative_error, rounding


class Sample(NamedTuple):
    """Arguments of one shape, with a row for each seed; drawn only when a test runs."""

    name: str
    seeds: Any
    arguments: Callable


compiled: list = []  # programs, test by test


def stacked(draw, seeds):
    """draw(seed), a tree of arrays, with a row for each seed."""
    return jax.tree.map(lambda *rows: np.stack(rows), *map(draw, seeds))


def draws(*each, name="drawn"):
    """Arrays drawn one after the other by one generator, for each of five seeds."""

    def drawn(seed):
        rng = np.random.default_rng(seed)
        return [draw(rng) for draw in each]

    return [Sample(name, range(5), partial(stacked, drawn, range(5)))]


class NoLarger(NamedTuple):
    """Yielded in place of a pair of sides: left ≤ right."""

    left: Any
    right: Any


def gap(pair):
    """The relative error of left = right, or by how much left ≤ right fails."""
    left, right = pair
    if not isinstance(pair, NoLarger):
        return relative_error(left, right)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = float(np.max((left - right) / np.abs(right)))
    return max(excess, 0.0)  # NaN stays


@cache
def printed():
    """{label: formula} of the pages."""
    return {e.label: e.latex for e in ledger.equations()}


def difference(label, of_test, on_page):
    """What to say where two formulas differ, whitespace apart; "" where they do not."""
    of_test, on_page = (inspect.cleandoc(s or "") for s in (of_test, on_page))
    if "".join(of_test.split()) == "".join(on_page.split()):
        return ""
    return (
        f"equation {label}: whoever changes one must look at the other.\n\n"
        f"On the page:\n{on_page}\n\nIn the docstring of its test:\n{of_test}"
    )


def equation(label, samples):
    """The test of an equation, from a generator of the pairs that should be equal."""

    def test_of(sides):
        program = jax.jit(jax.vmap(lambda *row: list(sides(*row))))

        @pytest.mark.equation(label)
        @pytest.mark.parametrize("sample", samples, ids=lambda s: s.name)
        def test(sample, enter):
            differs = difference(label, sides.__doc__, printed().get(label))
            assert not differs, differs
            before = programs.count
            pairs = jax.tree.map(np.asarray, program(*sample.arguments()))
            compiled.append(programs.count - before)
            assert pairs, f"{label} compares nothing"
            errors = {
                (seed, k): gap(pair)
                for i, seed in enumerate(sample.seeds)
                for k, pair in enumerate(jax.tree.map(itemgetter(i), pairs))
            }
            wrong = [
                f"{label}, {sample.name}, seed {seed}, pair {k}: error {error:.1e}"
                for (seed, k), error in errors.items()
                if not error <= rounding()
            ]
            assert not wrong, "\n".join(wrong)
            for error in errors.values():
                enter(error)

        test.sides, test.__doc__ = sides, sides.__doc__
        return test

    return test_of
