"""Chapters 10 and 12. Every derivative of an equilibrium along a line.

With z(s) = z*(x + s v), differentiate z(s) = f(x + s v, z(s)) k times by s, at s = 0.
On the right, z⁽ᵏ⁾ stands in one term alone, J z⁽ᵏ⁾; the rest knows lower orders only::

    A z⁽ᵏ⁾  =  dᵏ/dsᵏ f(x + s v, z + s z' + … + sᵏ⁻¹ z⁽ᵏ⁻¹⁾/(k − 1)!)

The matrix A = I − J is the same at every order. A loss of z, z', …, z⁽ᴷ⁾ has its gradient
by the same equations, transposed, from the last to the first::

    Aᵀ λ_k  =  u_k + (the k-th derivative's part in those of f of orders j > k)ᵀ λ_j
"""

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
        ValueError: as `deqlib.jacobian`, and if order is below 1 or v is not like x.
        NotImplementedError: if jet does not know a primitive of the layer, such as a
            loop. Nested `jax.jvp` through `deqlib.fixed_point` gives the same numbers.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jnp.round(derivatives(f, x, 2 * x**2, jnp.ones(1), 2)[:, 0]))
    [12.  4.]
    """
    order = _validate.count("order", order)
    if unknown := strangers(f.program):
        _validate.refuse(
            NotImplementedError,
            "f(x, z)",
            "a layer of primitives that jax.experimental.jet knows (nested jax.jvp "
            "through deqlib.fixed_point takes any)",
            ", ".join(sorted(unknown)),
        )

    def next_order(k, rows):
        b = along(f, x, v, jnp.vstack([z, rows]))[k + 1]
        return rows.at[k].set(response(f, x, z, b))

    rows = jnp.zeros((order, z.size), z.dtype)
    return lax.fori_loop(0, order, next_order, rows)


def along(f, x, v, states):
    """f and its derivatives by s, along x + s v and the state with the rows `states`."""
    order = len(states) - 1
    leaves, tree = jax.tree.flatten(x)
    lines = [
        [d, *[jnp.zeros_like(d)] * (order - 1)] for d in jax.tree.leaves(v)
    ]
    layer = lambda z, *leaves: f(jax.tree.unflatten(tree, leaves), z)
    z, *rows = states
    value, rows = jet(layer, (z, *leaves), (rows, *lines))
    return jnp.stack([value, *rows])


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


def strangers(program):
    """The primitives of a layer that Taylor mode has no rule for."""
    found = set()
    for equation in program.eqns:
        if equation.primitive.name in ("jit", "pjit"):
            found |= strangers(equation.params["jaxpr"].jaxpr)
        elif equation.primitive not in jet_rules:
            found.add(equation.primitive.name)
    return found
