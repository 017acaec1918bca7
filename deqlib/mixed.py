"""Chapters 4 and 5. A derivative in t, differentiated once more in x.

For a layer f(t, x, z), at z = z*(t, x), with A = I − ∂f/∂z, S = ∂z*/∂x and
S_t = ∂z*/∂t = A⁻¹ ∂f/∂t::

    H_tx    =  A⁻¹ ( f_tx + f_tz S + f_zx ×₂ S_tᵀ + f_zz [S_t, S] )     (m, n)
    uᵀH_tx  =  ∇ φ(x, z*(t, x)),  φ = λᵀ( f_t + f_z S_t ),  Aᵀ λ = u    like x

where λ and S_t stand still in φ.
"""

import jax
import jax.numpy as jnp

from deqlib import _validate
from deqlib.jacobian import (
    adjoint,
    heed,
    implicit,
    jacobian,
    jvp,
    solves,
    spread,
)
from deqlib.loss import loss_gradient


# The total derivative of A S_t = f_t in x. On the line x + s, z + S s the
# right-hand side and A change, and z moves with x: hence f_tz and f_zz.
def mixed_hessian(f, t, x, z, *, linear_solver=None):
    """H_tx = ∂²z*/∂t∂x, eq. (mixed-hessian), the corrected eq. hessian-t.

    Source: first source, "Second-order derivatives of DEQs", where a sign and two terms
    are mended.

    Args:
        f: the layer, f(t, x, z) with the shape of z.
        t: one real number.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at (t, x).
        linear_solver: a function of `deqlib.linear`; by default chosen by size.

    Returns:
        H (m, n) with H_ij = ∂²z*_i/∂t∂x_j; NaN if z is NaN, A is singular or the
        linear solve failed.

    Raises:
        TypeError: if t, x or z is not made of real floats, or f or linear_solver is
            no function.
        ValueError: if t is not one number, x or z is not a non-empty vector,
            f(t, x, z) is not like z, or linear_solver(matvec, b) is not like b.
    """
    x = _validate.vector("x", x)
    g, p, along_t, z = _with_time(f, t, x, z, linear_solver)
    S_t = jvp(g, p, z, along_t, linear_solver=linear_solver)
    S = jacobian(
        lambda x, z: g((p[0], x), z), x, z, linear_solver=linear_solver
    )

    def change_along_t(s):
        here = ((p[0], x + s), z + (S @ s).astype(z.dtype))
        return jax.jvp(g, here, (along_t, S_t))[1]

    solve, _ = solves(g, p, z, linear_solver)
    curvature = jax.jacfwd(change_along_t)(jnp.zeros_like(x))
    column = lambda c: solve(heed(c, z, (S_t, S)))
    return spread(jax.vmap(column, 1, 1)(curvature))


def mixed_vjp(f, t, x, z, u, *, linear_solver=None):
    """uᵀ H_tx, eq. (mixed-vjp). One tangent solve and two adjoint solves, whatever n.

    Source: first source, "Computing gradients through derivatives of DEQs", restated.

    Args:
        x: any tree of real floats.
        u: a cotangent on z, (m,).

    Returns:
        A tree like x. The other arguments and the errors are those of `mixed_hessian`.
    """
    g, p, along_t, z = _with_time(f, t, x, z, linear_solver)
    S_t = jvp(g, p, z, along_t, linear_solver=linear_solver)
    lam = adjoint(g, p, z, u, linear_solver=linear_solver)

    def phi(p, z):
        return lam @ jax.jvp(g, (p, z), (along_t, S_t))[1]

    return loss_gradient(phi, g, p, z, linear_solver=linear_solver)[1]


def _with_time(f, t, x, z, linear_solver):
    """The layer g((t, x), z), its point (t, x), the direction of t, and z moving."""
    t = _validate.number("t", t)
    _validate.functions(f=f)
    _validate.floats("x", x)
    g = lambda p, z: f(*p, z)
    p, z = _validate.layer(g, (t, x), z, linear_solver, "f(t, x, z)")
    along_t = (jnp.ones_like(t), jax.tree.map(jnp.zeros_like, p[1]))
    return g, p, along_t, implicit(g, linear_solver, p, z)
