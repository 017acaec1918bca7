import jax
import jax.numpy as jnp
import numpy as np

from deqlib import hessian, jacobian
from deqlib.check import rounding
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    settled,
    value,
)

value(
    "penalty-steep",
    lambda x: (
        2 / (1 - x) ** 5,
        [
            (4 / (1 - x) ** 5, "the penalty carries a factor of one half."),
            (2 / (1 - x) ** 3, "that is z''; multiply by S."),
            (
                1 / (1 - x) ** 4 / 2,
                "the penalty's value is S²/2; differentiate it.",
            ),
        ],
    ),
    x={
        r"x = \tfrac12": 1 / 2,
        r"x = \tfrac13": 1 / 3,
        r"x = \tfrac23": 2 / 3,
        r"x = -1": -1,
    },
)


@exercise("penalty-contractive")
def _(contractive_gradient):
    f, x, z = settled(14)
    want = jax.jit(
        lambda x, z: jnp.tensordot(jacobian(f, x, z), hessian(f, x, z), 2)
    )(x, z)
    mistakes = [(2 * want, "the penalty carries a factor of one half.")]
    judge(contractive_gradient(f, x, z), want, mistakes)


@exercise("penalty-probe")
def _(J):
    J = array(J, (2, 2), "J")
    expect((J != 0).all(), "J should have no zero entry.")
    least = min(np.sum((J @ [1, 1]) ** 2), np.sum((J @ [1, -1]) ** 2))
    hint = f"the smallest probe gives {least:.2g}: look at the columns."
    expect(least <= rounding() * np.sum(J**2), hint)
