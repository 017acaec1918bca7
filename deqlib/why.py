"""Why a derivative at an equilibrium is NaN, or has few digits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import _validate
from deqlib._border import flatten, inputs, layer, precisely
from deqlib._guard import finite, largest
from deqlib.linear import factored
from deqlib.solvers import length

PINNED = (
    "f(x, z) - v * (u @ z - c) has the equilibrium of total u @ z = c alone, and there "
    "derivatives exist"
)


@precisely
def diagnose(f, x, z, *, linear_solver=None):
    """What is wrong at (f, x, z), in a sentence or two, for a person who has met NaN.

    Looks at the residual f(x, z) − z of eq. (equilibrium-definition), at the matrix
    A = I − ∂f/∂z of eq. (deq-jacobian), which it builds, and at the linear solver.
    Not for use under `jit`. Source: Deuflhard (2011) for the Newton step; ours.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: any tree of real floats.
        z: a tree of real floats, the equilibrium at x; or, if the solver did not find
            one, its first guess.
        linear_solver: the one that was used.

    Returns:
        A string.

    Raises:
        TypeError, ValueError: as `deqlib.vjp`.

    >>> import jax.numpy as jnp
    >>> print(diagnose(lambda x, z: z / 2 + x, jnp.ones(1), jnp.ones(1)))
    z is no equilibrium: f(x, z) and z differ by 0.33 of their size, and a Newton step would move z by 1 of its own.
    """
    _validate.functions(f=f, linear_solver=linear_solver)
    x = inputs("x", x)
    _, z, unravel = flatten("z", z)
    if not finite(z):
        return (
            "z is not finite: the solver found no equilibrium. Its Solution holds the "
            "residual and the steps. Ask again with the first guess in place of z."
        )
    f, z = layer(f, x, z, linear_solver, unravel)
    value = f.value(x, z)
    if not finite(value):
        return "f(x, z) is not finite."
    words = missing_modes(f, x, z)
    J = slope(f, x, z)
    if not finite(J):
        words.append(
            "∂f/∂z is not finite: f has no derivative at z, as a norm or a square root "
            "has none at zero."
        )
        return " ".join(words)
    A = jnp.eye(z.size, dtype=z.dtype) - J
    r, eps = value - z, float(jnp.finfo(z.dtype).eps)
    if not factored(A).regular:
        return " ".join([*words, singular(f, x, z, A)])
    step = jnp.linalg.solve(A, r)
    size = lambda v: float(largest(v))
    relative = size(r) / max(size(value), 1e-300)
    moved = size(step) / max(size(z), 1e-300)
    if relative > 64 * eps and moved > 64 * eps:
        words.append(
            f"z is no equilibrium: f(x, z) and z differ by {relative:.2g} of their "
            f"size, and a Newton step would move z by {moved:.2g} of its own."
        )
    words += rounding(f, x, z, A, max(size(r), eps * size(z)))
    b = jnp.linspace(1.0, 2.0, z.size, dtype=z.dtype)
    if not finite(f.inverse(lambda v: A @ v, b)):
        radius = np.abs(np.linalg.eigvals(np.asarray(J))).max()
        words.append(
            f"The linear solver failed, although A is regular (the spectral radius of "
            f"∂f/∂z is {radius:.2g}): try deqlib.linear.direct."
        )
    return " ".join(words) or "Nothing is wrong at (f, x, z)."


def missing_modes(f, x, z):
    words = []
    try:
        jax.jvp(partial(f, x), (z,), (z,))
    except TypeError:
        words.append(
            "The layer has no forward mode (jax.custom_vjp): use reverse mode, "
            "deqlib.vjp or jax.grad."
        )
    try:
        jax.vjp(partial(f, x), z)[1](z)
    except ValueError:
        words.append(
            "The layer has no reverse mode (jax.lax.while_loop, fori_loop): use forward "
            "mode, deqlib.jvp or jax.jacfwd."
        )
    return words


def slope(f, x, z):
    try:
        return jax.jacfwd(f.value, 1)(x, z)
    except TypeError:
        return jax.jacrev(f.value, 1)(x, z)


def singular(f, x, z, A):
    """A v = 0 and uᵀ A = 0. If uᵀ ∂f/∂x = 0, z is free along v; else it has no slope."""
    U, _, V = np.linalg.svd(np.asarray(A))
    u, v = (vector * np.sign(vector.sum() or 1) for vector in (U[:, -1], V[-1]))
    # Zero is what is left of its largest part, in whatever units x has.
    parts = jnp.asarray([u, np.where(abs(u) == abs(u).max(), u, 0)], z.dtype)
    try:
        pull = jax.vjp(lambda x: f.value(x, z), x)[1]
        whole, part = (
            max(
                float(largest(jnp.ravel(p))) for p in jax.tree.leaves(pull(row))
            )
            for row in parts
        )
    except ValueError:
        whole = part = 0.0
    show = partial(np.array2string, precision=3, threshold=8)
    words = f"A = I - ∂f/∂z is singular: A v = 0 for v = {show(v)}."
    if whole > float(jnp.finfo(z.dtype).eps) ** 0.5 * part:
        return (
            f"{words} Here the equilibrium has no derivative: at a fold it ends, "
            "elsewhere its slope grows without bound."
        )
    return (
        f"{words} Nothing decides how far z lies along v (a conserved total, a free "
        f"potential). Pin it: with u = {show(u)}, {PINNED}."
    )


def rounding(f, x, z, A, r):
    """The relative error of the k-th derivative: about (2k − 1) ‖f_zz‖ ‖r‖ ‖A⁻¹‖²."""
    _, s, V = np.linalg.svd(np.asarray(A))
    v = jnp.asarray(V[-1], z.dtype)
    try:
        along = lambda h: f.value(x, z + h * v)
        first = lambda h: jax.jvp(along, (h,), (jnp.ones_like(h),))[1]
        zero = jnp.zeros((), z.dtype)
        bend = jax.jvp(first, (zero,), (jnp.ones_like(zero),))[1]
    except TypeError:
        return []
    lost = float(length(bend)) * r / s[-1] ** 2
    lost = max(lost, float(jnp.finfo(z.dtype).eps) / s[-1])
    if lost < 1e-3:
        return []
    return [
        f"A is nearly singular, and rounding limits the order: derivative k has a "
        f"relative error of about (2k - 1) times {lost:.1g}."
    ]
