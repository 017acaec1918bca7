"""The exercises: solved by the solutions, with a hint for each likely mistake.

What a reader may well hand in, right or wrong, is told as such, however it is written.
"""

import doctest
import linecache

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import IN_FLOAT64
from test_notebooks import CHAPTERS, code, run

from deqlib import loss_hessian
from deqlib.notebook import check
from deqlib.notebook.exercises import (
    CHECKS,
    NUMBERS,
    answer_of,
    drawn,
    judge,
    parts_of,
    values,
)


def exercise_cells(path):
    """(name, stub, solution) of each exercise with a check."""
    stubs, solutions = code(path, "exercise"), code(path, "solution")
    assert len(stubs) == len(solutions) >= 3
    for stub, solution in zip(stubs, solutions, strict=True):
        name = stub.source.split('check("')[1].split('"')[0]
        yield name, stub.source, solution.source


nan = float("nan")


@pytest.mark.parametrize(
    "path, name, stub, solution",
    [(path, *cells) for path in CHAPTERS for cells in exercise_cells(path)],
    ids=lambda value: (
        value if isinstance(value, str) and len(value) < 30 else ""
    ),
)
def test_solutions_pass_and_stubs_fail(path, name, stub, solution, capsys):
    namespace = {}
    run(code(path, "imports")[0].source, namespace)
    capsys.readouterr()
    run(stub, namespace)
    assert capsys.readouterr().out.startswith("Not yet: ")
    assert f'check("{name}"' in solution
    run(solution, namespace)
    assert capsys.readouterr().out == "Right.\n"
    answers = []
    run(
        solution,
        namespace | {"check": lambda name, answer: answers.append(answer)},
    )
    for number in (nan, jnp.inf)[: 1 if callable(answers[0]) else 2]:
        assert check(name, spoiled(answers[0], number)) is False, number


def spoiled(answer, number):
    """The answer, or what it returns, with no finite number left in it."""
    if isinstance(answer, tuple):
        return tuple(spoiled(part, number) for part in answer)
    if callable(answer):
        return lambda *at: spoiled(answer(*at), number)
    return jnp.full_like(jnp.asarray(answer, float), number)


def test_every_check_belongs_to_an_exercise():
    used = [name for path in CHAPTERS for name, *_ in exercise_cells(path)]
    assert sorted(used) == sorted(CHECKS)


HINTS = {
    "introduction-implicit": (1 / 3, "the second z"),
    "introduction-shapes": (15, "makes a row"),
    "introduction-directional": (lambda g, x, v: g(x), "value first"),
    "introduction-rounding": (0.1, "go smaller"),
    "layers-steps": (131, "a little too large"),
    "layers-damped": (
        (lambda g, a: lambda z: a * z + (1 - a) * g(z), 0.3),
        "belongs to",
    ),
    "layers-growth": (jnp.eye(2) * 0.4, "after three steps"),
    "jacobian-cell": ([2.0, 1.0], "solve with A"),
    "jacobian-dense": (lambda f, x, z: jnp.zeros((3, 4)), "should have shape"),
    "jacobian-singular": (jnp.full((2, 2), 0.1), "A is regular"),
    "backward-row": (([1.0, 0.0], 1), "without the transpose"),
    "backward-truncated": (lambda f, x, z, u, K: jnp.zeros(3), "with K = 1"),
    "backward-uphill": ((jnp.zeros((2, 2)), jnp.ones(2)), "downhill"),
    "slope-halves": (4, "one of the two terms"),
    "slope-gradient": (lambda f, t, x, z, u: jnp.zeros(2), "should have shape"),
    "slope-blind": (lambda t, x, z: t * x + z / 2, "detached derivative is"),
    "hessian-twice": (8, "counts twice"),
    "hessian-directions": (lambda f, x, z, v, w: jnp.zeros(3), "shape"),
    "hessian-straight": (lambda x, z: x + z / 2, "not bent"),
    "penalty-steep": (128, "one half"),
    "penalty-contractive": (lambda f, x, z: jnp.zeros(2), "should have shape"),
    "penalty-probe": (jnp.array([[1.0, 2.0], [1.0, 1.0]]), "at the columns"),
    "loss-bend": (4, "Term A alone"),
    "loss-terms": (lambda loss, f, x, z: jnp.zeros(2), "should have shape"),
    "loss-saddle": (jnp.zeros(5), "the smallest eigenvalue is"),
    "master-scalar": ((4, 48), "counts twice"),
    "master-product": (lambda loss, f, x, z, v: jnp.zeros(2), "shape"),
    "master-plausible": (lambda loss, f, x, z: jnp.ones((2, 2)), "shape"),
    "taylor-fourth": (5 / 8, "times 4!"),
    "taylor-third": (lambda f, x, z, v, z1, z2: jnp.zeros(3), "shape"),
    "taylor-short": (lambda s, z: jnp.sin(s), "reaches to about"),
    "trial-half": ((1, 0, 1), "cross term twice"),
    "trial-repair": (
        lambda f, solve: lambda x: f(x, solve(x)),
        "derivatives of order 1 are wrong",
    ),
    "trial-hidden": (lambda x: x**2, "at 3 the derivative is right"),
    "physics-slopes": ((1 / 8, -1 / 16, -1 / 4), "divide by A³"),
    "physics-gradient": (
        lambda f, F, t, x, z: jnp.zeros(2),
        "should have shape",
    ),
    "physics-jump": (lambda t, z: jnp.tanh(z / 2 + t), "the largest step"),
    "mixed-partner": (2, "divide the bracket by A"),
    "mixed-dense": (lambda f, t, x, z: jnp.zeros((3, 4)), "should have shape"),
    "mixed-lucky": (lambda t, x, z: t + x * z / 2, "the printed formula gives"),
}


@pytest.mark.parametrize("name", HINTS)
def test_wrong_answers_get_a_hint(name, capsys):
    answer, hint = HINTS[name]
    assert check(name, answer) is False
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and hint in out


def test_every_exercise_has_a_wrong_answer_here():
    assert set(HINTS) == set(CHECKS)


damped = lambda g, a: lambda z: (1 - a) * z + a * g(z)

RIGHT = [
    *[("layers-damped", (damped, a)) for a in (0.005, 0.665, 2 / 3, 0.67)],
    ("slope-blind", lambda t, x, z: 10 * t + x + jnp.sin(z) / 2),
    ("slope-halves", (4, 4)),
    ("introduction-shapes", (1, 3)),
    ("introduction-shapes", [1, 3]),
    ("jacobian-cell", [[4, 2]]),
    ("jacobian-cell", jnp.array([[4.0], [2.0]])),
    ("mixed-partner", [[4.0]]),
    ("hessian-twice", jnp.array([16])),
    ("loss-bend", np.array([[-2.0]])),
    ("introduction-directional", lambda g, x, v: [1.5, np.cos(0.5), -4.0]),
    ("layers-growth", [[0.5, 20], [0, 0.5]]),
    ("backward-row", ((1, 0.5), 2)),
    ("backward-uphill", ([[0, -4], [0, 0]], [1, 1])),
    ("penalty-probe", [[1, 1], [1, 1]]),
    ("loss-saddle", [100.0, -100.0, 100.0, 100.0, -100.0]),
    ("hessian-straight", lambda x, z: 2 * x + 9 + (z - 2 * x - 9) ** 2),
]

WRONG = [
    ("layers-damped", (damped, 0.0), "every state"),
    ("layers-damped", (damped, 0.68), "the slope at the equilibrium is -1.0"),
    ("layers-damped", (damped, nan), "is nan"),
    ("layers-damped", (damped, ...), "part 2 of the answer is still missing"),
    ("backward-uphill", (..., [1.0, 1.0]), "part 1"),
    ("layers-growth", [[0.504, 20], [0, 0.504]], "radius is 0.504"),
    ("layers-growth", [[nan, 20], [0, 0.5]], "not finite"),
    ("master-plausible", lambda loss, f, x, z: jnp.zeros((3, 3)), "left out"),
    ("master-plausible", lambda loss, f, x, z: jnp.eye(3), "left out"),
    ("master-plausible", lambda *at: 2 * loss_hessian(*at), "left out"),
    ("master-plausible", lambda *at: nan * jnp.eye(3), "not finite"),
    ("master-plausible", loss_hessian, "the Hessian itself"),
    ("penalty-probe", jnp.full((2, 2), nan), "not finite"),
    ("penalty-probe", jnp.full((2, 2), jnp.inf), "not finite"),
    (
        "mixed-lucky",
        lambda t, x, z: t * x + z / 2 + jnp.sqrt(0 * x),
        "not finite",
    ),
    (
        "slope-blind",
        lambda t, x, z: t + x + z**2 / 4 + jnp.sqrt(0 * x),
        "not finite",
    ),
    (
        "slope-blind",
        lambda t, x, z: t + x + z**2 / 4 + (x - 0.2) ** 2 * z * t,
        "the detached derivative is",
    ),
    ("slope-blind", lambda t, x, z: t + x + z / 2, "zero too"),
    (
        "slope-blind",
        lambda t, x, z: z + t + x**2 + 1,
        "no equilibrium was found",
    ),
    (
        "introduction-directional",
        lambda g, x, v: (g(x), v),
        "jvp returns a pair",
    ),
    ("hessian-twice", -16, "the sign is the wrong one"),
    (
        "jacobian-dense",
        lambda f, x, z: (z, np.zeros((4, 3))),
        "give its second part",
    ),
    ("loss-saddle", [nan] * 5, "not finite"),
    ("introduction-rounding", nan, "positive"),
    ("introduction-implicit", jnp.inf, "not finite"),
    ("hessian-twice", 16 + 1j, "raised TypeError"),
]
if IN_FLOAT64:  # in float32 the difference is below rounding
    layer = lambda t, x, z: t * x + z / 2 + 1e-4 * x * z
    WRONG.append(("mixed-lucky", layer, "the printed formula gives"))


@pytest.mark.parametrize("name, answer", RIGHT)
def test_right_however_it_is_written(name, answer, capsys):
    assert check(name, answer) is True, capsys.readouterr().out
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize("name, answer, hint", WRONG)
def test_wrong_however_plausible(name, answer, hint, capsys):
    assert check(name, answer) is False
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and hint in out


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_nothing_yet(name, capsys):
    for answer in (..., None, (..., ...)):
        assert check(name, answer) is False
        assert capsys.readouterr().out == "Not yet: nothing to check yet.\n"


def test_the_line_that_raised_is_shown(capsys):
    source = (
        "def dense(f, x, z):\n    half = z / 2\n    return half[:, 0] / 0\n"
    )
    linecache.cache["cell"] = len(source), None, source.splitlines(True), "cell"
    namespace = {}
    exec(compile(source, "cell", "exec"), namespace)
    assert check("jacobian-dense", namespace["dense"]) is False
    out = capsys.readouterr().out
    assert "it raised IndexError" in out
    assert out.endswith("\n    line 3: return half[:, 0] / 0\n")
    check("jacobian-dense", lambda f, x, z: 1 / 0)
    assert "raised ZeroDivisionError" in capsys.readouterr().out


def test_the_example_of_the_docstring():
    assert doctest.testmod(judge) == (0, 1)


def test_an_unknown_name():
    with pytest.raises(KeyError, match="name: expected one of"):
        check("no-such-exercise", 1)


VARIED = [name for name in CHECKS if NUMBERS[name]]


@pytest.mark.parametrize("seed", [None, 1, 2, 2027])
@pytest.mark.parametrize("name", VARIED)
def test_drawn_numbers_have_an_answer_of_their_own(name, seed, capsys):
    assert drawn(name, seed) == drawn(name, seed)
    own, want = answer_of(name), answer_of(name, seed)
    assert check(name, want, seed=seed), capsys.readouterr().out
    if seed is not None:
        assert not check(name, own, seed=seed)
        assert all(a != b for a, b in drawn(name, seed).values())


@pytest.mark.parametrize("name", VARIED)
def test_every_choice_of_numbers_tells_the_mistakes_apart(name):
    formula = CHECKS[name].formula
    for letter, options in NUMBERS[name].items():
        assert len(options) >= 3
        for number in options.values():
            want, mistakes = formula(**values(name) | {letter: number})
            known = [
                (np.hstack(parts_of(one)), hint)
                for one, hint in [(want, "right"), *mistakes]
            ]
            for i, (one, hint) in enumerate(known):
                for other, said in known[:i]:
                    same = np.allclose(one, other)
                    assert not same or hint == said, (letter, number)
