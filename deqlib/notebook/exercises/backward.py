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


def by_hand(w):
    return ([1.0, w], 2), [
        (([1.0, 0.0], 2), "that solves A λ = u, without the transpose."),
        (([0.0, w], 2), "that is the second term; add the first."),
    ]


@exercise(
    "backward-row",
    formula=by_hand,
    w={f"& {w} ": w for w in (0.5, 0.3, 0.8, -0.4, 0.25)},
)
def _(answer, w):
    (lam, terms), mistakes = by_hand(w)
    judge(answer[0], lam, [(wrong[0], hint) for wrong, hint in mistakes])
    expect(
        answer[1] == terms,
        "λ is right; count the terms of the sum that are not zero.",
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
