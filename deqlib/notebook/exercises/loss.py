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

value(
    "loss-bend",
    -2.0,
    (4.0, "that is Term A alone."),
    (-6.0, "that is Term B alone."),
    (10.0, "the sign of the residual: it is z - y."),
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
