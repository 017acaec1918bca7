import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import fixed_point, hessian, jacobian, loss_hessian, models
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    settled,
    value,
)


def bend_of_loss(x, y):
    """Of L = (z - y)²/2 for x + z²/4, where z = 2 - 2 s and s = √(1 - x)."""
    s = math.sqrt(1 - x)
    term_a, misfit, bend = 1 / s**2, 2 - 2 * s - y, 1 / s**3 / 2
    return term_a + misfit * bend, [
        (term_a, "that is Term A alone."),
        (misfit * bend, "that is Term B alone."),
        (term_a - misfit * bend, "the sign of the residual: it is z - y."),
    ]


value(
    "loss-bend",
    bend_of_loss,
    x={
        r"x = \tfrac34": 3 / 4,
        r"x = \tfrac59": 5 / 9,
        r"x = \tfrac{15}{16}": 15 / 16,
        r"x = \tfrac{7}{16}": 7 / 16,
    },
    y={"y = 2.5": 2.5, "y = 2": 2, "y = 4": 4, "y = 3.5": 3.5},
)


@exercise("loss-terms")
def _(both_terms):
    f, x, z = settled(15)
    loss = lambda z: jnp.sum(jnp.sin(z) * z) + jnp.prod(1 + z)

    @jax.jit
    def terms(x, z):
        S, H = jacobian(f, x, z), hessian(f, x, z)
        term_A = S.T @ jax.hessian(loss)(z) @ S
        return term_A, jnp.tensordot(jax.grad(loss)(z), H, 1)

    term_A, term_B = map(np.asarray, terms(x, z))
    mistakes = [(term_A, "Term B is missing."), (term_B, "Term A is missing.")]
    judge(both_terms(loss, f, x, z), term_A + term_B, mistakes)


@exercise("loss-saddle")
def _(y):
    f, x, z0 = models.random_layer(seed=3, m=5, n=3)
    y = jnp.asarray(array(y, (5,), "y"))
    z = fixed_point(f, x, z0).z
    fit = lambda x, z: jnp.sum((z - y) ** 2) / 2
    H = jax.jit(partial(loss_hessian, fit, f))(x, z)
    low = np.linalg.eigvalsh(H)[0]
    expect(low < -10, f"the smallest eigenvalue is {low:.4g}.")
