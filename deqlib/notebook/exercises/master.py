from functools import partial
from itertools import product as every

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import (
    adjoint,
    gauss_newton,
    jacobian,
    loss_hessian,
)
from deqlib.check import relative_error, rounding
from deqlib.notebook.exercises.judge import (
    Hint,
    array,
    exercise,
    expect,
    judge,
    settled,
)


def bent_loss(x, z):
    return jnp.sum(jnp.sin(z) * z) + jnp.sum(x**3) * z[0]


def scalar(x):
    z, A = x / (1 - x), 1 - x
    lam, slope = 2 * z / A, 1 / A**2
    curved, mixed = 2 * slope**2, 2 * lam * slope
    return (lam, curved + mixed), [
        ((lam, curved), "one of the two terms is missing."),
        ((lam, mixed), "one of the two terms is missing."),
        ((lam, curved + mixed / 2), "the mixed term counts twice."),
    ]


@exercise(
    "master-scalar",
    formula=scalar,
    x={
        r"$x = \tfrac12$": 1 / 2,
        r"$x = \tfrac13$": 1 / 3,
        r"$x = \tfrac14$": 1 / 4,
        r"$x = \tfrac34$": 3 / 4,
        r"$x = \tfrac15$": 1 / 5,
    },
)
def _(answer, x):
    (lam, second), mistakes = scalar(x)
    slope = lam * (1 - x)
    early = [(slope, "divide L' by A."), (slope * (1 - x), "λ is L'/A.")]
    try:
        judge(answer[0], lam, early)
    except Hint as hint:
        raise Hint(f"λ: {hint}") from None
    judge(answer[1], second, [(wrong[1], hint) for wrong, hint in mistakes])


@exercise("master-product")
def _(product):
    f, x, z = settled(16)
    v = jnp.array([1.0, -0.5, 2.0])
    H = jax.jit(partial(loss_hessian, bent_loss, f))(x, z)
    G = jax.jit(partial(gauss_newton, bent_loss, f))(x, z)
    mistakes = [
        (G @ v, "that is Gauss-Newton: λᵀf belongs into the Lagrangian.")
    ]
    judge(product(bent_loss, f, x, z, v), H @ v, mistakes)


@partial(jax.jit, static_argnums=(0, 1))
def master_terms(loss, f, x, z):
    """The symmetric pieces of the master formula: three of the loss, three of λᵀf."""
    S, lam = jacobian(f, x, z), adjoint(f, x, z, jax.grad(loss, 1)(x, z))
    pieces = []
    for part in (loss, lambda x, z: lam @ f(x, z)):
        (xx, xz), (_, zz) = jax.hessian(part, (0, 1))(x, z)
        pieces += [xx, xz @ S + (xz @ S).T, S.T @ zz @ S]
    return pieces


@exercise("master-plausible")
def _(plausible):
    f, x, z = settled(17)
    H = array(plausible(bent_loss, f, x, z), (3, 3))
    expect(relative_error(H, H.T) <= rounding(), "it is not symmetric.")
    pieces = np.stack(master_terms(bent_loss, f, x, z))
    whole = pieces.sum(0)
    expect(relative_error(H, whole) > 1e-3, "that is the Hessian itself.")
    # Each piece is there or not; of a mixed one, half is left when one side is dropped.
    counts = every(*[(0, 1), (0, 0.5, 1), (0, 1)] * 2)
    sums = [np.tensordot(count, pieces, 1) for count in counts if any(count)]
    expect(
        any(relative_error(H, one) <= rounding() for one in sums),
        "it is not the formula with terms left out: each that stays comes once.",
    )
