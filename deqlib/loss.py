"""Chapters 8 and 9. The gradient and the Hessian of a loss through an equilibrium.

At z = z*(x), with A = I − ∂f/∂z, S = ∂z*/∂x and Aᵀ λ = ∂L/∂z, and with the Lagrangian
Λ(x, z) = L(x, z) + λᵀ(f(x, z) − z), where λ stands still::

    ∇L(x, z*(x))    =  ∂L/∂x + (∂f/∂x)ᵀ λ                    like x
    ∇²L(x, z*(x))   =  [I; S]ᵀ ∇²Λ [I; S]                    (n, n)
    of which           [I; S]ᵀ ∇²L [I; S]  is Gauss–Newton   (n, n)

`loss(x, z)` is one real number. As everywhere in deqlib, z is taken to be the
equilibrium at x, and all derivatives are total ones.
"""

import jax
import jax.numpy as jnp

from deqlib._border import border
from deqlib.jacobian import adjoint, for_each, jacobian, jvp, response, vjp


@border()
def loss_gradient(loss, f, x, z, *, linear_solver=None):
    """∇L(x, z*(x)) = ∂L/∂x + (∂f/∂x)ᵀ λ, eq. (loss-gradient). One adjoint solve.

    Source: second source, section 2 (with a loss of z alone) and section 5.

    Args:
        loss: L(x, z), one real number.
        f: the layer, f(x, z) with the shape of z.
        x: any tree of real floats.
        z: the equilibrium at x, a tree of real floats.
        linear_solver: a function of `deqlib.linear`; by default `automatic`.

    Returns:
        A tree like x; NaN as `deqlib.jacobian` is: see `deqlib.diagnose`.

    Raises:
        TypeError: if x or z is not made of real floats, or loss, f or linear_solver
            is no function.
        ValueError: if z holds no number, f(x, z) is not like z,
            loss(x, z) is not one real number, or linear_solver(matvec, b) is not
            like b.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([1.0])
    >>> loss = lambda x, z: z[0] ** 2
    >>> print(loss_gradient(loss, f, x, 2 * x**2))
    [16.]
    """
    L_x, L_z = jax.grad(loss, (0, 1))(x, z)
    through = vjp(f, x, z, L_z)
    return jax.tree.map(jnp.add, L_x, through)


# The derivative of L along v is ∂L/∂x v + uᵀ w, with u = ∂L/∂z and w = Sv. To
# differentiate it once more, w need not be differentiated: with b = ∂f/∂x v,
#
#     A w = b,   so   A dw = db + dJ w,   so   uᵀ dw = λᵀ (db + dJ w).
#
# That is the differential of λᵀ(∂f/∂x v + J w) while λ and w stand still. The
# rest, ∂L/∂x v + uᵀ w with w standing still, joins it: together they are φ
# below, a loss like any other, whose gradient is `loss_gradient`.
@border()
def loss_hvp(loss, f, x, z, v, *, linear_solver=None):
    """∇²L(x, z*(x)) v, eq. (loss-hvp). One tangent solve and two adjoint solves.

    Source: second source, section 4, times v; the Lagrangian is ours.

    Args:
        v: a direction, a tree like x.

    Returns:
        A tree like x. The other arguments and the errors are those of `loss_gradient`.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([1.0])
    >>> loss = lambda x, z: z[0] ** 2
    >>> print(loss_hvp(loss, f, x, 2 * x**2, jnp.ones(1)))
    [48.]
    """
    w = jvp(f, x, z, v)
    lam = adjoint(f, x, z, jax.grad(loss, 1)(x, z))

    def phi(x, z):
        lagrangian = lambda x, z: loss(x, z) + lam @ f(x, z)
        return jax.jvp(lagrangian, (x, z), (v, w))[1]

    return loss_gradient(phi, f, x, z)


# The second source's section 5, a row at a time. The gradient is ∂Λ/∂x, and along
# v all three move: x by v, z by w and λ by λ'. Since ∂Λ/∂z = 0 at every x, λ'
# solves Aᵀ λ' = r, with r the change of ∂Λ/∂z along (v, w).
@border("x")
def loss_hessian(loss, f, x, z, *, linear_solver=None, block=None):
    """∇²L(x, z*(x)), eq. (master-formula). A is factored once for all rows, if at all.

    Source: second source, sections 4 and 5.

    Args:
        x: (n,), one flat vector.
        block: how many rows are computed at a time, by default all. What is needed
            besides the result is proportional to it.

    Returns:
        (n, n), symmetric up to rounding. The other arguments and the errors are those
        of `loss_gradient`.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([1.0])
    >>> loss = lambda x, z: z[0] ** 2
    >>> print(loss_hessian(loss, f, x, 2 * x**2))
    [[48.]]
    """
    u = jax.grad(loss, 1)(x, z)
    lam = adjoint(f, x, z, u)
    lagrangian = lambda x, z, lam: loss(x, z) + lam @ f(x, z)
    _, df_x = jax.linearize(lambda x: f(x, z), x)
    _, change_z = jax.linearize(
        lambda x, z: jax.grad(lagrangian, 1)(x, z, lam), x, z
    )
    _, change_x = jax.linearize(jax.grad(lagrangian, 0), x, z, lam)

    def row(v):
        w = response(f, x, z, df_x(v))
        r = change_z(v, w)
        dlam = adjoint(f, x, z, r)
        return change_x(v, w, dlam)

    return for_each(row, jnp.eye(x.size, dtype=x.dtype), block)


@border("x")
def gauss_newton(loss, f, x, z, *, linear_solver=None):
    """[I; S]ᵀ ∇²L [I; S], eq. (gauss-newton): the Hessian without the layer's curvature.

    For a loss of z alone it is Sᵀ (∂²L/∂z²) S, Term A. Source: second source, section 3.

    Returns:
        (n, n). The arguments and the errors are those of `loss_hessian`, without block.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([1.0])
    >>> loss = lambda x, z: z[0] ** 2
    >>> print(gauss_newton(loss, f, x, 2 * x**2))
    [[32.]]
    """
    S = jacobian(f, x, z)
    moved = lambda s: loss(x + s, z + (S @ s).astype(z.dtype))
    return jax.hessian(moved)(jnp.zeros_like(x))
