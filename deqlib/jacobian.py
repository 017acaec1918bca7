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
from jax import lax

from deqlib import _validate
from deqlib._border import at_point, border, flatten, inputs, layer, precisely
from deqlib._guard import failed
from deqlib.linear import solve


@border("x", "z")
def jacobian(f, x, z, *, linear_solver=None, block=None):
    """S = A⁻¹ ∂f/∂x, eq. (deq-jacobian): the Jacobian of the equilibrium.

    Source: first source, eq. deq-jacobian; second source, section 2 (its Z).
    f must be differentiable at (x, z). At a kink, such as relu at 0, JAX differentiates
    one branch, or a mean of two, and S need not be a slope of either side.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: (n,), one flat vector.
        z: (m,), the equilibrium at x; for the products any tree of floats.
        linear_solver: a function of `deqlib.linear`; by default `automatic`.
        block: how many columns, or rows if there are fewer, are computed at a time, by
            default all. What is needed besides the result is proportional to it.

    Returns:
        S (m, n), or NaN if z is NaN, A is singular or the linear solve failed:
        `deqlib.diagnose` says which. (Without the matrix, above 128 states, a singular
        A is seen by the right-hand sides that it does not reach.)

    Raises:
        TypeError: if x or z is not an array of real floats, or f or linear_solver is
            no function.
        ValueError: if x or z is not a non-empty vector, f(x, z) is not like z,
            linear_solver(matvec, b) is not like b, or block is below 1.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jacobian(f, x, 2 * x**2))
    [[12.]]
    """

    def columns():
        identity = jnp.eye(x.size, dtype=x.dtype)
        return for_each(partial(jvp, f, x, z), identity, block).T

    def rows():
        identity = jnp.eye(z.size, dtype=z.dtype)
        return for_each(partial(vjp, f, x, z), identity, block).astype(z.dtype)

    few, many = (columns, rows) if x.size <= z.size else (rows, columns)
    try:
        return few()
    except (TypeError, ValueError):  # f has the other mode alone
        return many()


def for_each(function, vectors, block=None):
    """function(v) of each row v of `vectors`, `block` of them at a time, or all."""
    if block is None:
        return jax.vmap(function)(vectors)
    block = min(_validate.count("block", block), len(vectors))
    return lax.map(function, vectors, batch_size=block)


@border(returns_state=True)
def jvp(f, x, z, v, *, linear_solver=None):
    """S v, eq. (deq-jvp): how the equilibrium moves when x moves along v.

    Source: first source, eq. deq-jacobian, times v.

    Args:
        x: any tree of real floats.
        v: a direction, a tree of the same shapes.

    Returns:
        S v, like z; NaN as `jacobian` is. The other arguments and the errors are those of `jacobian`,
        without block.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jvp(f, x, 2 * x**2, jnp.ones(1)))
    [12.]
    """
    return tangent(f, x, z, v)


@border(returns_state=True)
def adjoint(f, x, z, u, *, linear_solver=None):
    """The adjoint λ: Aᵀ λ = u, eq. (adjoint-equation), the backward fixed point.

    Source: first source, eq. deq-backward-fixed-point (its g); second source,
    section 3 (its λ).

    Args:
        x: any tree of real floats.
        u: a cotangent on z, like z.

    Returns:
        λ, like z; NaN as `jacobian` is. The other arguments and the errors are those of `jacobian`,
        without block.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(adjoint(f, x, 2 * x**2, jnp.ones(1)))
    [2.]
    """
    _, pull = jax.vjp(partial(f, x), z)
    return solve(lambda lam: lam - pull(lam)[0], u, f.inverse.T)


@border()
def vjp(f, x, z, u, *, linear_solver=None):
    """uᵀ S = λᵀ ∂f/∂x, eq. (deq-vjp): the gradient of uᵀ z*.

    Source: first source, "Computing gradients through DEQs".

    Returns:
        A tree like x; NaN as `jacobian` is, see `deqlib.diagnose`. The arguments and the
        errors are those of `adjoint`.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(vjp(f, x, 2 * x**2, jnp.ones(1)))
    [12.]
    """
    lam = adjoint(f, x, z, u)
    _, pull = jax.vjp(lambda x: f(x, z), x)
    return pull(lam)[0]


# The equilibrium holds its equation for every x: z*(x) = f(x, z*(x)). Differentiate
# both sides along v, with z' = S v:
#
#     z' = ∂f/∂x v + J z',      so      A z' = ∂f/∂x v.
#
# How z* was found appears nowhere.
def tangent(f, x, z, v):
    _, b = jax.jvp(lambda x: f(x, z), (x,), (v,))
    return response(f, x, z, b)


def response(f, x, z, b):
    _, push = jax.linearize(partial(f, x), z)
    return solve(lambda dz: dz - push(dz), b, f.inverse)


@precisely
def implicit(f, x, z, *, linear_solver=None):
    """z, an equilibrium found by any means, with the derivatives of eq. (deq-jacobian).

    What a solver outside of JAX has found becomes differentiable in x. Any derivative
    that z brings along is replaced. A root g(x, z) = 0 is the equilibrium of the layer
    f(x, z) = z − g(x, z), which has A = ∂g/∂z. Source: first source, eq. deq-jacobian.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: any tree of real floats.
        z: a tree of real floats, the equilibrium at x.
        linear_solver: a function of `deqlib.linear`; by default `automatic`.

    Returns:
        z. The errors are those of `jacobian`.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jax.jacfwd(lambda x: implicit(f, x, 2 * x**2))(x))
    [[12.]]
    """
    _validate.functions(f=f, linear_solver=linear_solver)
    x = inputs("x", x)
    _, z, unravel = flatten("z", z)
    f, z = layer(f, x, z, linear_solver, unravel)
    return unravel(moving(f, x, z))


@jax.custom_jvp
def moving(f, x, z):
    """z, which moves with x and with what f closes over, as the theorem says."""
    # Taylor mode, which ignores this rule, has none for the barrier, and says so.
    return lax.optimization_barrier((f, x, z))[2]


# The book's one differentiation rule. The z inside it is `moving` again: it moves with x
# when the rule itself is differentiated, and every further order follows.
@moving.defjvp
@precisely
def _moving_rule(primals, tangents):
    (f, x, z), (df, dx, _) = primals, tangents
    z = moving(f, x, z)
    _, b = jax.jvp(lambda f, x: f(x, z), (f, x), (df, dx))
    f = at_point(f, x, z)
    return z, response(f, x, z, b) + failed(f.inverse.regular, z)
