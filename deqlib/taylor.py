"""Chapter 10. Every derivative of an equilibrium along a line.

With z(s) = z*(x + s v), differentiate z(s) = f(x + s v, z(s)) k times by s, at s = 0.
On the right, z⁽ᵏ⁾ stands in one term alone, J z⁽ᵏ⁾; the rest knows lower orders only::

    A z⁽ᵏ⁾  =  dᵏ/dsᵏ f(x + s v, z + s z' + … + sᵏ⁻¹ z⁽ᵏ⁻¹⁾/(k − 1)!)

The matrix A = I − J is the same at every order.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.jet import jet, jet_rules

from deqlib import _validate
from deqlib._border import border
from deqlib.jacobian import response


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
    still = jax.tree.map(jnp.zeros_like, v)

    def along(z_series):
        """Derivatives of f along x + s v and the state of these derivatives."""
        leaves, tree = jax.tree.flatten(x)
        directions = zip(
            jax.tree.leaves(v), jax.tree.leaves(still), strict=True
        )
        lines = [[d, *[none] * (order - 1)] for d, none in directions]
        layer = lambda z, *leaves: f(jax.tree.unflatten(tree, leaves), z)
        return jet(layer, (z, *leaves), (list(z_series), *lines))[1]

    def next_order(k, rows):
        b = jnp.stack(along(rows))[k]
        return rows.at[k].set(response(f, x, z, b))

    rows = jnp.zeros((order, z.size), z.dtype)
    return lax.fori_loop(0, order, next_order, rows)


def strangers(program):
    """The primitives of a layer that Taylor mode has no rule for."""
    found = set()
    for equation in program.eqns:
        if equation.primitive.name in ("jit", "pjit"):
            found |= strangers(equation.params["jaxpr"].jaxpr)
        elif equation.primitive not in jet_rules:
            found.add(equation.primitive.name)
    return found
