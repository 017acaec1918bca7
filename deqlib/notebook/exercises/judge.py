"""What all checks share: an answer is right, or gets a hint.

A check demands with `expect` what has to hold. Said that way round, nothing that is not a
number passes.
"""

import linecache
import random
import traceback
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import fixed_point, models, newton, picard
from deqlib.check import relative_error, rounding

CHECKS: dict = {}
NUMBERS: dict = {}  # of the exercises whose numbers can be drawn


class Hint(Exception):
    """Why an answer is not right."""


def check(name, answer, seed=None):
    """Print and return whether `answer` solves the exercise `name`; if not, give a hint.

    With a seed the exercise has the numbers that `drawn` gives it, if they can vary.
    Raises KeyError for an unknown exercise.

    >>> check("introduction-implicit", 1 / 4)
    Right.
    True
    """
    if name not in CHECKS:
        raise KeyError(f"name: expected one of {sorted(CHECKS)}, got {name!r}")
    try:
        answered(answer)
        CHECKS[name](answer, **values(name, seed))
    except Hint as hint:
        print(f"Not yet: {hint}")
        return False
    except Exception as error:
        where = place(error)
        print(f"Not yet: it raised {type(error).__name__}: {error}{where}")
        return False
    print("Right.")
    return True


def exercise(name, formula=None, **numbers):
    """Register a check: a function of the answer that raises a Hint unless it is right.

    `numbers` are those that can be drawn: for each letter, texts with their values, of
    which the first stands in the book. The check gets the value of each letter. Where
    the answer is made of numbers, `formula(**values)` returns it, and its likely
    mistakes with their hints.
    """
    NUMBERS[name] = numbers

    def register(function):
        CHECKS[name] = function
        function.formula = formula
        return function

    return register


def value(name, formula, **numbers):
    """Register the check of an answer that is one value."""

    @exercise(name, formula, **numbers)
    def of_value(answer, **values):
        judge(answer, *formula(**values))


def drawn(name, seed=None):
    """{letter: (text in the book, text instead)}: the numbers of an exercise.

    Those of the book without a seed; with one, never those of the book.
    """
    choose = random.Random(f"{name} {seed}").choice
    texts = {letter: list(options) for letter, options in NUMBERS[name].items()}
    return {
        letter: (own, own if seed is None else choose(others))
        for letter, (own, *others) in texts.items()
    }


def values(name, seed=None):
    """{letter: number}"""
    pairs = drawn(name, seed).items()
    return {letter: NUMBERS[name][letter][text] for letter, (_, text) in pairs}


def answer_of(name, seed=None):
    """What is asked for; None if the answer is not made of numbers."""
    formula = CHECKS[name].formula
    return formula and formula(**values(name, seed))[0]


def parts_of(answer):
    """A tuple is made of parts, each a number or an array; all else is one part."""
    return answer if isinstance(answer, tuple) else (answer,)


def settled(seed):
    """(f, x, z): a random layer of four states and three inputs at its equilibrium."""
    f, x, z0 = models.random_layer(seed, m=4, n=3)
    return f, x, fixed_point(f, x, z0).z


def answered(answer):
    missing = [part is ... or part is None for part in parts_of(answer)]
    expect(not all(missing), "nothing to check yet.")
    if any(missing):
        raise Hint(
            f"part {missing.index(True) + 1} of the answer is still missing."
        )


def place(error):
    """The last line of the reader's own code on the way to the error."""
    library = str(Path(__file__).parents[2]), "site-packages", "dist-packages"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(part in frame.filename for part in library):
            line = linecache.getline(frame.filename, frame.lineno or 0)
            return f"\n    line {frame.lineno}: {line.strip()}"
    return ""


def expect(holds, hint):
    if not holds:
        raise Hint(hint)


def array(answer, shape=None, name="the answer"):
    """The answer as a finite array of that shape. Axes of length one don't matter."""
    expect(answer is not None and answer is not ..., "it returned nothing.")
    got = np.asarray(answer, float)
    if shape is not None:
        expect(
            squeezed(got.shape) == squeezed(shape),
            f"{name} should have shape {tuple(shape)}, and has {got.shape}.",
        )
        got = got.reshape(shape)
    expect(np.isfinite(got).all(), f"{name} is not finite.")
    return got


def squeezed(shape):
    return tuple(size for size in shape if size != 1)


def judge(got, want, mistakes=()):
    """Demand that `got` equals `want`. Otherwise the hint is that of the first mistake
    that it equals; or tells how far it is."""
    want = np.asarray(want, float)
    if isinstance(got, tuple) and len(got) == 2 and want.shape[:1] != (2,):
        parts = [np.shape(part) == want.shape for part in got]
        expect(
            not any(parts),
            f"it is a pair; give its {('first', 'second')[parts[-1]]} part alone.",
        )
    got = array(got, want.shape)
    error = relative_error(got, want)
    if error <= rounding():
        return
    known = [(np.asarray(wrong, float), hint) for wrong, hint in mistakes]
    known.append((-want, "the sign is the wrong one."))
    if want.ndim > 1:
        known.append((want.T, "that is the transpose."))
    for wrong, hint in known:
        same = squeezed(wrong.shape) == squeezed(got.shape)
        expect(
            not same or relative_error(got.reshape(wrong.shape), wrong) > 1e-3,
            hint,
        )
    raise Hint(f"the relative error is {error:.1g}.")


# Arrays of numpy: JAX's would have the precision that it has when this is imported.
# Several points, so that nothing is right at one of them only.
POINTS = np.random.default_rng(5).uniform(0.1, 0.4, (4, 2))
STARTS = np.array([0.0, 0.5, 1.0, -0.5, -1.0, 2.0, -2.0, 4.0, -4.0, 8.0, -8.0])


@partial(jax.jit, static_argnums=(0, 1))
def from_all_starts(solver, layer, at):
    return jax.vmap(lambda z0: solver(lambda z: layer(*at, z), z0))(
        STARTS[:, None]
    )


def equilibrium(layer, *at):
    """An equilibrium of a layer of one state, wherever a solver finds one."""
    for solver in (newton, picard):
        found = from_all_starts(solver, layer, at)
        if found.converged.any():
            return found.z[jnp.argmax(found.converged)]
    raise Hint(f"no equilibrium was found at {numbers(*at)}.")


def numbers(*at):
    return ", ".join(f"{float(np.squeeze(one)):.3g}" for one in at)
