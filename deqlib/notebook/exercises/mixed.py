from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import models, newton
from deqlib.check import relative_error, rounding
from deqlib.notebook.exercises.judge import (
    POINTS,
    array,
    equilibrium,
    exercise,
    expect,
    judge,
    numbers,
    value,
)


@partial(jax.jit, static_argnums=0)
def mixed_terms(f, t, x, z):
    """A⁻¹ times f_tx, f_zx S_t, f_tz S and f_zz [S_t, S]."""
    f_t, f_x, f_z = (jax.jacfwd(f, i)(t, x, z) for i in range(3))
    f_tx, f_tz = (jax.jacfwd(jax.jacfwd(f, 0), i)(t, x, z) for i in (1, 2))
    f_zx, f_zz = (jax.jacfwd(jax.jacfwd(f, 2), i)(t, x, z) for i in (1, 2))
    inverse = jnp.linalg.inv(jnp.eye(z.size) - f_z)
    S_t, S = inverse @ f_t, inverse @ f_x
    return (
        inverse @ f_tx,
        inverse @ jnp.einsum("ijk,j->ik", f_zx, S_t),
        inverse @ f_tz @ S,
        inverse @ jnp.einsum("ijl,j,lk->ik", f_zz, S_t, S),
    )


def terms_of(scalar_layer):
    """At each of several points: the point, and the four terms of a layer of one state."""
    layer = lambda t, x, z: jnp.stack([scalar_layer(t, x[0], z[0])])
    array(scalar_layer(*POINTS[0], 0.1), ())
    for t, x in POINTS:
        at = jnp.asarray(t), jnp.array([x])
        terms = mixed_terms(layer, *at, equilibrium(layer, *at))
        where = f"(t, x) = ({numbers(*at)})"
        named = [array(term, (), f"at {where} a derivative") for term in terms]
        yield where, *named


value(
    "mixed-partner",
    lambda t, x: (
        1 / (1 - t) ** 2,
        [
            (0.0, "that is the printed formula; use f_tz S."),
            (1 / (1 - t), "divide the bracket by A."),
            (x / (1 - t) ** 2, "that is the derivative by t alone."),
        ],
    ),
    t={
        r"t = \tfrac12": 1 / 2,
        r"t = \tfrac13": 1 / 3,
        r"t = \tfrac14": 1 / 4,
        r"t = \tfrac23": 2 / 3,
    },
    x={"x = 3": 3, "x = 2": 2, "x = 5": 5, "x = 4": 4},
)


@exercise("mixed-dense")
def _(mixed_dense):
    f, t, x, z0 = models.random_time_layer(4)
    z = newton(lambda z: f(t, x, z), z0).z
    a, b, c, d = map(np.asarray, mixed_terms(f, t, x, z))
    mistakes = [
        (a - b, "that is the formula as printed."),
        (a + b, "the sign is right; two terms are missing."),
        (a - b + c + d, "the sign of the f_zx term."),
        (a + b + c, "f_zz [S_t, S] is missing."),
        (a + b + d, "f_tz S is missing."),
    ]
    judge(mixed_dense(f, t, x, z), a + b + c + d, mistakes)


@exercise("mixed-lucky")
def _(lucky):
    for where, a, b, c, d in terms_of(lucky):
        truth, printed = a + b + c + d, a - b
        expect(abs(truth) > 1e-6, "its mixed derivative is zero.")
        expect(
            relative_error(printed, truth) <= rounding(),
            f"at {where} the truth is {truth:.7g}, the printed formula gives "
            f"{printed:.7g}.",
        )
