"""Chapters 2 and 3. The first derivative of an equilibrium, and its two products.

At z = f(x, z), with J = ∂f/∂z, A = I − J and S = ∂z*/∂x::

    S      =  A⁻¹ ∂f/∂x           the Jacobian             (m, n)
    S v    =  A⁻¹ (∂f/∂x v)       forward, one solve       (m,)
    uᵀ S   =  λᵀ ∂f/∂x            reverse, Aᵀ λ = u        like x

`z` is taken to be the equilibrium at `x`, as a solver returned it. Differentiating any
of these functions with respect to x therefore gives total derivatives: z moves along.
"""

from functools import partial

import jax
import jax.numpy as jnp

from deqlib import _validate
from deqlib.linear import inverses, solve


def jacobian(f, x, z, *, linear_solver=None):
    """S = A⁻¹ ∂f/∂x, eq. (deq-jacobian): the Jacobian of the equilibrium.

    Source: first source, eq. deq-jacobian; second source, section 2 (its Z).

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at x.
        linear_solver: a function of `deqlib.linear`; by default chosen by size.

    Returns:
        S (m, n), or NaN if z is NaN, A is singular or the linear solve failed.

    Raises:
        TypeError: if x or z is not an array of real floats, or f or linear_solver is
            no function.
        ValueError: if x or z is not a non-empty vector, f(x, z) is not like z, or
            linear_solver(matvec, b) is not like b.
    """
    x = _validate.vector("x", x)
    column = partial(jvp, f, x, z, linear_solver=linear_solver)
    identity = jnp.eye(x.size, dtype=x.dtype)
    return spread(jax.vmap(column, out_axes=1)(identity))


def jvp(f, x, z, v, *, linear_solver=None):
    """S v, eq. (deq-jvp): how the equilibrium moves when x moves along v.

    Source: first source, eq. deq-jacobian, times v.

    Args:
        x: any tree of real floats.
        v: a direction, a tree of the same shapes.

    Returns:
        S v (m,). The other arguments and the errors are those of `jacobian`.
    """
    x, z = _validate.layer(f, x, z, linear_solver)
    v = _validate.like("v", v, "x", x)
    return tangent(f, linear_solver, x, implicit(f, linear_solver, x, z), v)


def adjoint(f, x, z, u, *, linear_solver=None):
    """The adjoint λ: Aᵀ λ = u, eq. (adjoint-equation), the backward fixed point.

    Source: first source, eq. deq-backward-fixed-point (its g); second source,
    section 3 (its λ).

    Args:
        x: any tree of real floats.
        u: a cotangent on z, (m,).

    Returns:
        λ (m,). The other arguments and the errors are those of `jacobian`.
    """
    x, z = _validate.layer(f, x, z, linear_solver)
    u = _validate.like("u", u, "z", z)
    z = implicit(f, linear_solver, x, z)
    _, pull = jax.vjp(partial(f, x), z)
    return solve(lambda lam: lam - pull(lam)[0], heed(u, z), linear_solver)


def vjp(f, x, z, u, *, linear_solver=None):
    """uᵀ S = λᵀ ∂f/∂x, eq. (deq-vjp): the gradient of uᵀ z*.

    Source: first source, "Computing gradients through DEQs".

    Returns:
        A tree like x. The arguments and the errors are those of `adjoint`.
    """
    lam = adjoint(f, x, z, u, linear_solver=linear_solver)
    x, z = jax.tree.map(jnp.asarray, (x, z))
    z = implicit(f, linear_solver, x, z)
    _, pull = jax.vjp(lambda x: f(x, z), x)
    failed = jnp.sum(0 * lam)  # 0, or NaN: also where f does not use x
    return jax.tree.map(lambda r: r + failed.astype(r.dtype), pull(lam)[0])


# The equilibrium holds its equation for every x: z*(x) = f(x, z*(x)). Differentiate
# both sides along v, with z' = S v:
#
#     z' = ∂f/∂x v + J z',      so      A z' = ∂f/∂x v.
#
# How z* was found appears nowhere.
def tangent(f, linear_solver, x, z, v):
    _, b = jax.jvp(lambda x: f(x, z), (x,), (v,))
    _, push = jax.linearize(partial(f, x), z)
    b = heed(b, z, v)
    return solve(lambda dz: dz - push(dz), b, linear_solver)


def solves(f, x, z, linear_solver):
    """b ↦ A⁻¹ b and b ↦ A⁻ᵀ b at (x, z), for many b; `direct` factors A once for both."""
    _, push = jax.linearize(partial(f, x), z)
    return inverses(lambda dz: dz - push(dz), z, linear_solver)


def heed(b, z, v=()):
    """b, but NaN if z is, and with every part of v in it, times zero.

    A layer can hide a failure: an affine one does not look at z, a relu is flat at NaN,
    an input may go unused. With z and v in b, NaN reaches every part of every
    derivative.
    """
    parts = [p for p in jax.tree.leaves(v) if p.dtype != jax.dtypes.float0]
    nothing = sum(jnp.sum(0 * p).astype(b.dtype) for p in parts)
    return (b + nothing) * (1 + 0 * z)


def spread(values):
    """values, all NaN if one of them is: of many solves, one may have failed alone."""
    return values + jnp.sum(0 * values)


def implicit(f, linear_solver, x, z):
    """z, an equilibrium found by any means, with the derivatives of eq. (deq-jacobian).

    Any derivative that z brings along is replaced. The arguments are those of
    `jacobian`, and x may be any tree of real floats.
    """
    f, x = explicit(f, x, z)
    return _implicit(f, linear_solver, x, z)


def explicit(f, x, z):
    """f and x, with all the arrays that f closes over put into x.

    The wrapped f is traced anew at each call: what it closes over may have changed.
    """
    closed = jax.make_jaxpr(lambda x, z: f(x, z))(x, z)

    def explicit_f(x, z):
        leaves = jax.tree.leaves((x[0], z))
        return jax.core.eval_jaxpr(closed.jaxpr, x[1], *leaves)[0]

    return explicit_f, (x, list(closed.consts))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _implicit(f, linear_solver, x, z):
    return z


# The book's one differentiation rule. The z inside it is `_implicit` again, so that it
# moves with x when the rule itself is differentiated: every further order follows.
@_implicit.defjvp
def _implicit_rule(f, linear_solver, primals, tangents):
    x, z = primals
    v, _ = tangents
    z = _implicit(f, linear_solver, x, z)
    return z, tangent(f, linear_solver, x, z, v)
