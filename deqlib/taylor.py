"""Chapters 10 and 12. Every derivative of an equilibrium along a line.

With z(s) = z*(x + s v), differentiate z(s) = f(x + s v, z(s)) k times by s, at s = 0.
On the right, z⁽ᵏ⁾ stands in one term alone, J z⁽ᵏ⁾; the rest knows lower orders only::

    A z⁽ᵏ⁾  =  dᵏ/dsᵏ f(x + s v, z + s z' + … + sᵏ⁻¹ z⁽ᵏ⁻¹⁾/(k − 1)!)

The matrix A = I − J is the same at every order. A loss of z, z', …, z⁽ᴷ⁾ has its gradient
by the same equations, transposed, from the last to the first::

    Aᵀ λ_k  =  u_k + (the k-th derivative's part in those of f of orders j > k)ᵀ λ_j
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.jet import jet, jet_rules

from deqlib import _validate
from deqlib._border import border
from deqlib.jacobian import adjoint, response


@border("z")
def derivatives(f, x, z, v, order, *, linear_solver=None):
    """[z', z'', …, z⁽ᴷ⁾], K = order, of z*(x + s v) at s = 0, eq. (taylor-recursion).

    One solve for each order, with A factored once. Source: the first source's title,
    "(and further)"; Griewank and Walther (2008), chapter 13.

    Args:
        f: the layer, f(x, z) with the shape of z. For order K it must have K continuous
            derivatives, and be made of what `jax.experimental.jet` knows.
        x: any tree of real floats.
        z: (m,), the equilibrium at x, a vector.
        v: a direction, a tree like x.
        order: K, at least 1.
        linear_solver: a function of `deqlib.linear`; by default `automatic`.

    Returns:
        (K, m), row k − 1 the k-th derivative. NaN if z is NaN, A is singular or a
        linear solve failed: see `deqlib.diagnose`.

    Raises:
        TypeError: as `deqlib.jacobian`, and if order is no integer.
        ValueError: as `deqlib.jacobian`, and if order is below 1 or above 170 (in float32,
            34), or v is not like x.
        NotImplementedError: if jet does not know a primitive of the layer, such as a
            loop, or complex numbers are inside. Nested `jax.jvp` through
            `deqlib.fixed_point` gives the same numbers.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jnp.round(derivatives(f, x, 2 * x**2, jnp.ones(1), 2)[:, 0]))
    [12.  4.]
    """
    order = _validate.count("order", order)
    if math.factorial(order) > float(jnp.finfo(z.dtype).max):
        expected = f"at most what has a finite factorial in {z.dtype}"
        _validate.refuse(ValueError, "order", expected, order)

    def next_order(k, rows):
        b = along(f, x, v, jnp.vstack([z, rows]))[k + 1]
        return rows.at[k].set(response(f, x, z, b))

    rows = jnp.zeros((order, z.size), z.dtype)
    return lax.fori_loop(0, order, next_order, rows)


def along(f, x, v, states):
    """f and its derivatives by s, along x + s v and the state with the rows `states`."""
    order = len(states) - 1
    factorials = [float(math.factorial(k)) for k in range(order + 1)]
    lines = [
        [x, v, *[jnp.zeros_like(x)] * (order - 1)]
        for x, v in zip(jax.tree.leaves(x), jax.tree.leaves(v), strict=True)
    ]
    state = [row / k for row, k in zip(states, factorials, strict=True)]
    inputs = [*jax.tree.leaves(f.given), *lines, state]
    (rows,) = series(f.program, f.consts, inputs)
    if not isinstance(rows, list):
        rows = [rows, *[jnp.zeros_like(rows)] * order]
    return jnp.stack([r * k for r, k in zip(rows, factorials, strict=True)])


# Let f[j] be the j-th derivative of f along the line, a function of x and of
# z, …, z⁽ʲ⁾. When x moves the states move, and the loss has both in it. In
#
#     ℓ + Σ_j λ_jᵀ (f[j] − z⁽ʲ⁾)
#
# the states may stand still, if the λ_j are such that no state matters. In f[k]
# the state z⁽ᵏ⁾ has the factor J, whence Aᵀ λ_k. It stands in f[j] for j > k,
# too: so the last λ comes first.
@border("z")
def derivatives_vjp(f, x, z, v, U, *, linear_solver=None):
    """The gradient of Σ_k u_kᵀ z⁽ᵏ⁾ by x, k = 0, …, K, eq. (tower-gradient).

    K solves for the derivatives along x + s v, and K + 1 with Aᵀ, eq. (tower-adjoint),
    whatever the size of x. For K = 1 this is `mixed_vjp`, with a loss on z besides.
    Source: what the first source does for K = 1; Griewank and Walther (2008).

    Args:
        U: (K + 1, m), a row u_k for each of z, z', …, z⁽ᴷ⁾; K at least 1.

    Returns:
        A tree like x; v stays the same when x moves. NaN as `derivatives` is. The other
        arguments and the errors are those of `derivatives`, and ValueError if U has
        another shape.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x, U = jnp.array([3.0]), jnp.array([[0.0], [1.0]])
    >>> print(derivatives_vjp(f, x, 2 * x**2, jnp.ones(1), U))
    [4.]
    """
    K = len(U) - 1
    states = jnp.vstack([z, derivatives(f, x, z, v, K)])
    _, pull = jax.vjp(lambda x, states: along(f, x, v, states), x, states)

    def order_below(i, lam):
        k = K - i
        u = U[k] + pull(lam)[1][k]
        return lam.at[k].set(adjoint(f, x, z, u))

    lam = lax.fori_loop(0, K + 1, order_below, jnp.zeros_like(states))
    return pull(lam)[0]


# f is a list of operations, and Taylor mode has a rule for each. Only products with
# something that stands still, such as a matrix of weights, are made here, with all rows
# at once: that rule would multiply each row of a state with each of a matrix, and all
# but the first of those are zero.
PRODUCTS = lax.mul_p, lax.dot_general_p, lax.conv_general_dilated_p


def series(program, consts, inputs):
    """The Taylor coefficients of what a program returns: a list, for what moves."""
    known = dict(zip(program.constvars, consts, strict=True))
    known |= dict(zip(program.invars, inputs, strict=True))
    read = lambda a: a.val if hasattr(a, "val") else known[a]
    for operation in program.eqns:
        if operation.primitive.name in ("jit", "pjit"):
            inner = operation.params["jaxpr"]
            given = [read(a) for a in operation.invars]
            outputs = series(inner.jaxpr, inner.consts, given)
        else:
            variables = [a for a in operation.invars if not hasattr(a, "val")]
            alone = program.replace(
                constvars=[],
                invars=variables,
                outvars=operation.outvars,
                eqns=[operation],
            )
            apply = partial(jax.core.eval_jaxpr, alone, [])
            given = [known[a] for a in variables]
            outputs = through(operation.primitive, apply, given)
        known |= dict(zip(operation.outvars, outputs, strict=True))
    return [read(a) for a in program.outvars]


def through(primitive, apply, given):
    """The coefficients of what one operation returns."""
    moving = [i for i, a in enumerate(given) if isinstance(a, list)]
    if not moving:
        return apply(*given)
    if primitive in PRODUCTS and len(moving) == 1:
        rows = [jnp.stack(a) if isinstance(a, list) else a for a in given]
        axes = [0 if i in moving else None for i in range(len(given))]
        return [list(a) for a in jax.vmap(apply, axes)(*rows)]

    def of_moving(*values):
        moved = dict(zip(moving, values, strict=True))
        return apply(*[moved.get(i, a) for i, a in enumerate(given)])

    values = [given[i][0] for i in moving]
    rest = [given[i][1:] for i in moving]
    try:
        jet_rules[primitive]  # jet would pass over the rules of custom_jvp
        values, rest = jet(of_moving, values, rest, factorial_scaled=False)
        if any(jnp.iscomplexobj(a) for a in values):
            raise TypeError  # some of jet's rules are for real numbers alone
    except (KeyError, TypeError, ValueError):
        _validate.refuse(
            NotImplementedError,
            "f(x, z)",
            "a layer of real numbers and of primitives that jax.experimental.jet knows "
            "(nested jax.jvp through deqlib.fixed_point takes any)",
            primitive.name,
        )
    # What is no float, such as the outcome of a comparison, has no derivative.
    return [
        [a, *b] if jnp.issubdtype(a.dtype, jnp.floating) else a
        for a, b in zip(values, rest, strict=True)
    ]
