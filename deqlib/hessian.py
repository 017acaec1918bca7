"""Chapters 6 and 7. The second derivative of an equilibrium in all of x.

At z = z*(x), with A = I − ∂f/∂z, S = ∂z*/∂x and S_k its column k::

    H[:, j, k]   =  A⁻¹ D²f[(e_j, S_j), (e_k, S_k)]                     (m, n, n)
    ∇_x ⟨C, S⟩   =  ∇ φ(x, z*(x)),  φ = ⟨Λ, f_x + f_z S⟩,  AᵀΛ = C      (n,)

where the matrices Λ and S stand still in φ.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deqlib import _validate
from deqlib.jacobian import heed, implicit, jacobian, solves, spread
from deqlib.loss import loss_gradient


def hessian(f, x, z, *, linear_solver=None):
    """H = ∂²z*/∂x², eq. (deq-hessian): m symmetric matrices, one for each state.

    Source: the first source's empty section "Hessian of DEQs"; second source,
    section 3.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at x.
        linear_solver: a function of `deqlib.linear`; by default chosen by size.

    Returns:
        H (m, n, n) with H_ijk = ∂²z*_i/∂x_j∂x_k. No larger array of second
        derivatives is formed on the way.
        NaN if z is NaN, A is singular or the linear solve failed.

    Raises:
        TypeError: if x or z is not an array of real floats, or f or linear_solver is
            no function.
        ValueError: if x or z is not a non-empty vector, f(x, z) is not like z, or
            linear_solver(matvec, b) is not like b.
    """
    x, z, S = _sensitivity(f, x, z, linear_solver)
    solve, _ = solves(f, x, z, linear_solver)

    def slice_k(direction):
        def change(s):
            here = (x + s, z + (S @ s).astype(z.dtype))
            return jax.jvp(f, here, direction)[1]

        curvature = jax.jacfwd(change)(jnp.zeros_like(x))
        return jax.vmap(lambda c: solve(heed(c, z, S)), 1, 1)(curvature)

    directions = (jnp.eye(x.size, dtype=x.dtype), S.T)
    return spread(jnp.moveaxis(lax.map(slice_k, directions), 0, 2))


def jacobian_vjp(f, x, z, C, *, linear_solver=None):
    """∇_x ⟨C, S(x)⟩, eq. (jacobian-vjp), without the tensor.

    Source: the first source's empty section "Computing gradients through Jacobians of
    DEQs".

    Args:
        C: (m, n), a cotangent on the Jacobian: the gradient of a loss of S.

    Returns:
        (n,). The other arguments and the errors are those of `hessian`.
    """
    x, z, S = _sensitivity(f, x, z, linear_solver)
    C = _validate.like("C", C, "the Jacobian", S)
    _, solve_transposed = solves(f, x, z, linear_solver)
    Lam = jax.vmap(solve_transposed, 1, 1)(C)
    identity = jnp.eye(x.size, dtype=x.dtype)

    def phi(x, z):
        column = lambda e, s: jax.jvp(f, (x, z), (e, s))[1]
        return jnp.sum(Lam * jax.vmap(column, (0, 1), 1)(identity, S))

    return loss_gradient(phi, f, x, z, linear_solver=linear_solver)


def _sensitivity(f, x, z, linear_solver):
    x = _validate.vector("x", x)
    x, z = _validate.layer(f, x, z, linear_solver)
    z = implicit(f, linear_solver, x, z)
    return x, z, jacobian(f, x, z, linear_solver=linear_solver)
