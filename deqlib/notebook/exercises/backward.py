import jax
import jax.numpy as jnp
import numpy as np

from deqlib.notebook.exercises.judge import (
    Hint,
    array,
    exercise,
    expect,
    judge,
    settled,
)


@exercise("backward-row")
def _(answer):
    lam, terms = answer
    mistakes = [
        ([1.0, 0.0], "that solves A λ = u, without the transpose."),
        ([0.0, 0.5], "that is the second term; add the first."),
    ]
    judge(lam, [1.0, 0.5], mistakes)
    expect(
        terms == 2, "λ is right; count the terms of the sum that are not zero."
    )


@exercise("backward-truncated")
def _(backward):
    f, x, z = settled(12)
    u = jnp.array([1.0, -0.5, 0.3, 2.0])
    fx, J = jax.jit(jax.jacfwd(f, (0, 1)))(x, z)

    def row(matrix, K):
        lam = jnp.zeros_like(u)
        for _ in range(K):
            lam = matrix @ lam + u
        return lam @ fx

    full = u @ np.linalg.solve(jnp.eye(4) - J, fx)
    for K in (1, 2, 5):
        mistakes = [
            (row(J.T, K + 1), "that is one term too many: start at λ = 0."),
            (row(J.T, K - 1), "one term is missing."),
            (row(J, K), "that multiplies with J, not with its transpose."),
            (full, "that is the full sum."),
        ]
        try:
            judge(backward(f, x, z, u, K), row(J.T, K), mistakes)
        except Hint as hint:
            raise Hint(f"with K = {K}, {hint}") from None


@exercise("backward-uphill")
def _(answer):
    J, u = array(answer[0], (2, 2), "J"), array(answer[1], (2,), "u")
    radius = np.abs(np.linalg.eigvals(J)).max()
    expect(radius < 1, f"the spectral radius of J is {radius:.7g}.")
    product = np.linalg.solve(np.eye(2) - J.T, u) @ u
    hint = (
        f"λᵀu = {product:.2g}: downhill. Try a larger entry off the diagonal."
    )
    expect(product < 0, hint)
