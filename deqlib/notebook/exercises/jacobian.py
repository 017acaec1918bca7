import jax
import jax.numpy as jnp
import numpy as np

from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    settled,
    value,
)


def cell_slopes(w, b):
    A = 1 - w
    z = b / A
    return [z / A, 1 / A], [
        ([z, 1], "that is df/dx; solve with A."),
        ([1 / A, z / A], "w comes first, then b."),
        ([b / A, 1 / A], "df/dw is z at the equilibrium."),
    ]


value(
    "jacobian-cell",
    cell_slopes,
    w={"w = 0.5": 0.5, "w = 0.2": 0.2, "w = 0.75": 0.75, "w = 0.6": 0.6},
    b={"b = 1": 1, "b = 3": 3, "b = 2": 2, "b = -2": -2},
)


@exercise("jacobian-dense")
def _(dense_jacobian):
    f, x, z = settled(11)
    fx, J = jax.jit(jax.jacfwd(f, (0, 1)))(x, z)
    identity, solve = jnp.eye(4), np.linalg.solve
    mistakes = [
        (fx, "that is df/dx alone; solve with A."),
        (solve(J - identity, fx), "the sign: A is I - J."),
        (solve(identity - J.T, fx), "that is A transposed."),
        (solve(identity + J, fx), "A is I - J, not I + J."),
        (solve(1 - J, fx), "1 - J subtracts from every entry: use I."),
    ]
    judge(dense_jacobian(f, x, z), solve(identity - J, fx), mistakes)


@exercise("jacobian-singular")
def _(W):
    W = array(W, (2, 2), "W")
    expect((W != 0).all(), "W should have no zero entry.")
    gap = np.abs(np.linalg.eigvals(W) - 1).min()
    # A double eigenvalue moves by the root of a rounding error.
    slack = 10 * float(jnp.finfo(jnp.zeros(1).dtype).eps) ** 0.5
    hint = (
        f"A is regular: the eigenvalue of W nearest to one is {gap:.2g} away."
    )
    expect(gap <= slack, hint)
