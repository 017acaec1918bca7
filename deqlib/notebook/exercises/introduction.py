import math

import jax
import jax.numpy as jnp
import numpy as np

from deqlib.notebook.exercises.judge import exercise, expect, judge, value

value(
    "introduction-implicit",
    lambda z: (
        1 / (3 * z**2 + 1),
        [
            (
                1 / (3 * z**2),
                "the second z in z³ + z = t has a derivative too.",
            ),
            (3 * z**2 + 1, "solve for dz/dt: you have dt/dz."),
        ],
    ),
    z={
        "$t = 2$, where $z = 1$": 1,
        "$t = 10$, where $z = 2$": 2,
        "$t = 30$, where $z = 3$": 3,
        "$t = -10$, where $z = -2$": -2,
        "$t = 68$, where $z = 4$": 4,
    },
)


def size(columns):
    return columns, [
        (5, "the row is multiplied by B in the end."),
        (5 * columns, "u makes a row of it."),
    ]


@exercise(
    "introduction-shapes",
    formula=size,
    columns={f"$B$ is $5 \\times {n}$": n for n in (3, 2, 4, 6, 7)},
)
def _(numbers, columns):
    if np.shape(numbers) == (2,):
        row, whole = (1, columns), (5, columns)
        return judge(numbers, row, [(whole, "u makes a row of it.")])
    judge(numbers, *size(columns))


@exercise("introduction-directional")
def _(directional):
    g = lambda x: jnp.stack([x[0] * x[1], jnp.sin(x[0]), x[1] ** 2])
    x, v = jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0])
    mistakes = [(g(x), "jvp returns the value first, then the derivative.")]
    got = directional(g, x, v)
    pair = isinstance(got, tuple)
    expect(
        not pair,
        "jvp returns a pair: the value, then the derivative. Take that.",
    )
    judge(got, jax.jacfwd(g)(x) @ v, mistakes)


@exercise("introduction-rounding")
def _(h):
    expect(h > 0, "h has to be positive.")
    left = (1 + math.sin(h)) - 1
    expect(left == 0, f"1 + sin(h) is still {1 + math.sin(h)!r}: go smaller.")
