"""Chapters 4 and 5. A derivative in t, differentiated once more in x.

For a layer f(t, x, z), at z = z*(t, x), with A = I − ∂f/∂z, S = ∂z*/∂x and
S_t = ∂z*/∂t = A⁻¹ ∂f/∂t::

    H_tx    =  A⁻¹ ( f_tx + f_tz S + f_zx ×₂ S_tᵀ + f_zz [S_t, S] )     (m, n)
    uᵀH_tx  =  ∇ φ(x, z*(t, x)),  φ = λᵀ( f_t + f_z S_t ),  Aᵀ λ = u    like x

where λ and S_t stand still in φ.
"""

from functools import partial

import jax
import jax.numpy as jnp

from deqlib._border import border
from deqlib.jacobian import adjoint, jacobian, jvp, response
from deqlib.loss import loss_gradient


# The total derivative of A S_t = f_t in x. On the line x + s, z + S s the
# right-hand side and A change, and z moves with x: hence f_tz and f_zz.
@border("x", "z")
def mixed_hessian(f, t, x, z, *, linear_solver=None):
    """H_tx = ∂²z*/∂t∂x, eq. (mixed-hessian), the corrected eq. hessian-t.

    Source: first source, "Second-order derivatives of DEQs", where a sign and two terms
    are mended.

    Args:
        f: the layer, f(t, x, z) with the shape of z.
        t: one real number.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at (t, x).
        linear_solver: a function of `deqlib.linear`; by default `automatic`.

    Returns:
        H (m, n) with H_ij = ∂²z*_i/∂t∂x_j; NaN as `deqlib.jacobian` is: see
        `deqlib.diagnose`.

    Raises:
        TypeError: if t, x or z is not made of real floats, or f or linear_solver is
            no function.
        ValueError: if t is not one number, x or z is not a non-empty vector,
            f(t, x, z) is not like z, or linear_solver(matvec, b) is not like b.

    >>> f = lambda t, x, z: z / 2 + t * x**2
    >>> t, x, z = jnp.array(0.5), jnp.array([3.0]), jnp.array([9.0])
    >>> print(mixed_hessian(f, t, x, z))
    [[12.]]
    """
    if x.size > z.size:
        row = partial(mixed_vjp, f, t, x, z)
        return jax.vmap(row)(jnp.eye(z.size, dtype=z.dtype)).astype(z.dtype)
    p, along_t = (t, x), (jnp.ones_like(t), jnp.zeros_like(x))
    S_t = jvp(f, p, z, along_t)
    S = jacobian(f.at(t), x, z)

    def change_along_t(s):
        here = ((t, x + s), z + (S @ s).astype(z.dtype))
        return jax.jvp(f, here, (along_t, S_t))[1]

    curvature = jax.jacfwd(change_along_t)(jnp.zeros_like(x))
    return jax.vmap(lambda c: response(f, p, z, c), 1, 1)(curvature)


@border()
def mixed_vjp(f, t, x, z, u, *, linear_solver=None):
    """uᵀ H_tx, eq. (mixed-vjp). One tangent solve and two adjoint solves, whatever n.

    Source: first source, "Computing gradients through derivatives of DEQs", restated.

    Args:
        x: any tree of real floats.
        z: any tree of real floats.
        u: a cotangent on z, like z.

    Returns:
        A tree like x; NaN as above. The other arguments and the errors are those of `mixed_hessian`.

    >>> f = lambda t, x, z: z / 2 + t * x**2
    >>> t, x, z = jnp.array(0.5), jnp.array([3.0]), jnp.array([9.0])
    >>> print(mixed_vjp(f, t, x, z, jnp.ones(1)))
    [12.]
    """
    p, along_t = (t, x), (jnp.ones_like(t), jax.tree.map(jnp.zeros_like, x))
    S_t = jvp(f, p, z, along_t)
    lam = adjoint(f, p, z, u)

    def phi(p, z):
        return lam @ jax.jvp(f, (p, z), (along_t, S_t))[1]

    return loss_gradient(phi, f, p, z)[1]
