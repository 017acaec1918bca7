import math

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import derivatives
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    settled,
    value,
)

value(
    "taylor-fourth",
    lambda c: (
        120 * c**3,
        [
            (5 * c**3, "that is a coefficient: times 4!."),
            (120.0, "c stands there to the third power."),
            (7 * 240 * c**4, "that is the fifth."),
        ],
    ),
    c={
        "x + z^2/2": 1 / 2,
        "x + z^2/4": 1 / 4,
        "x + 2z^2": 2,
        "x + z^2/3": 1 / 3,
    },
)


@exercise("taylor-third")
def _(third_along):
    f, x, z = settled(11)
    v = jnp.array([1.0, -0.5, 0.3])
    z1, z2, right = jax.jit(lambda x, z: derivatives(f, x, z, v, 3))(x, z)
    A = jnp.eye(4) - jax.jacfwd(f, 1)(x, z)
    b = lambda s: f(x + s * v, z + s * z1 + s**2 * z2)
    for _ in range(3):
        b = jax.jacfwd(b)
    mistakes = [
        (A @ right, "solve with A in the end."),
        (right / 6, "that is the coefficient: times 3!."),
        (
            jnp.linalg.solve(A, b(0.0)),
            "the second derivative is divided by 2!.",
        ),
    ]
    judge(third_along(f, x, z, v, z1, z2), right, mistakes)


@exercise("taylor-short")
def _(short):
    layer = lambda s, z: jnp.stack([short(s[0], z[0])])
    for s in np.linspace(-2.0, 2.0, 9):
        array(short(s, 0.3), (), f"f at s = {s:g}")
        expect(
            abs(float(short(s, 0.3)) - float(short(s, -0.7))) == 0,
            "it contains z.",
        )
    zero = jnp.zeros(1)
    rows = derivatives(layer, zero, layer(zero, zero), jnp.ones(1), 10)
    # A coefficient of order k is about R^-k, and some are zero by symmetry.
    reach = min(
        (abs(float(row)) / math.factorial(k)) ** (-1 / k) if row else np.inf
        for k, row in enumerate(rows[:, 0], 1)
        if k > 6
    )
    expect(reach < 0.5, f"its series at 0 reaches to about {reach:.2g}.")
