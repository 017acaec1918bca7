"""Chapters 6 and 7. The second derivative of an equilibrium in all of x.

At z = z*(x), with A = I − ∂f/∂z, S = ∂z*/∂x and S_k its column k::

    H[:, j, k]   =  A⁻¹ D²f[(e_j, S_j), (e_k, S_k)]                     (m, n, n)
    ∇_x ⟨C, S⟩   =  ∇ φ(x, z*(x)),  φ = ⟨Γ, f_x + f_z S⟩,  AᵀΓ = C      (n,)

where the matrices Γ and S stand still in φ.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deqlib._border import border
from deqlib.jacobian import adjoint, jacobian, jvp, response
from deqlib.loss import loss_gradient


@border("x", "z")
def hessian(f, x, z, *, linear_solver=None):
    """H = ∂²z*/∂x², eq. (deq-hessian): m symmetric matrices, one for each state.

    Source: the first source's empty section "Hessian of DEQs"; second source,
    section 3.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at x.
        linear_solver: a function of `deqlib.linear`; by default `automatic`.

    Returns:
        H (m, n, n) with H_ijk = ∂²z*_i/∂x_j∂x_k. No larger array of second
        derivatives is formed on the way.
        NaN as `deqlib.jacobian` is: see `deqlib.diagnose`.

    Raises:
        TypeError: if x or z is not an array of real floats, or f or linear_solver is
            no function.
        ValueError: if x or z is not a non-empty vector, f(x, z) is not like z, or
            linear_solver(matvec, b) is not like b.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(hessian(f, x, 2 * x**2))
    [[[4.]]]
    """
    S = jacobian(f, x, z)

    def slice_k(direction):
        def change(s):
            here = (x + s, z + (S @ s).astype(z.dtype))
            return jax.jvp(f, here, direction)[1]

        curvature = jax.jacfwd(change)(jnp.zeros_like(x))
        return jax.vmap(lambda c: response(f, x, z, c), 1, 1)(curvature)

    directions = (jnp.eye(x.size, dtype=x.dtype), S.T)
    return jnp.moveaxis(lax.map(slice_k, directions), 0, 2)


@border("x", "z")
def jacobian_vjp(f, x, z, C, *, linear_solver=None):
    """∇_x ⟨C, S(x)⟩, eq. (jacobian-vjp), without the tensor.

    Source: the first source's empty section "Computing gradients through Jacobians of
    DEQs".

    Args:
        C: (m, n), a cotangent on the Jacobian: the gradient of a loss of S.

    Returns:
        (n,); NaN as above. The other arguments and the errors are those of `hessian`.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jacobian_vjp(f, x, 2 * x**2, jnp.ones((1, 1))))
    [4.]
    """
    V, U = jnp.eye(x.size, dtype=x.dtype), C.T
    if x.size > z.size:
        V, U = C.astype(x.dtype), jnp.eye(z.size, dtype=z.dtype)
    W = jax.vmap(lambda v: jvp(f, x, z, v))(V)
    Gamma = jax.vmap(lambda u: adjoint(f, x, z, u))(U)

    def phi(x, z):
        change = lambda v, w: jax.jvp(f, (x, z), (v, w))[1]
        return jnp.sum(Gamma * jax.vmap(change)(V, W))

    return loss_gradient(phi, f, x, z)
