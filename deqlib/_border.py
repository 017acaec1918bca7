"""Between what people pass and what the chapters compute.

Inside, a layer is data, the state is one finite vector, and A = I − ∂f/∂z is factored
at most once. What comes out is marked once: NaN wherever a solve failed.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from deqlib import _validate
from deqlib._guard import finite, guard, nothing, shards, varied
from deqlib.linear import Inverse, automatic

P = ParamSpec("P")
R = TypeVar("R")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    """f(x, z) as data: `consts`, the arrays that f closes over, are inputs like x.

    `given` are inputs that stand before x. `inverse` solves with A and with Aᵀ.
    """

    consts: list
    given: tuple
    inverse: Inverse
    program: Any = field(metadata={"static": True})

    def value(self, x, z):
        leaves = jax.tree.leaves((self.given, x, z))
        return jax.core.eval_jaxpr(self.program, self.consts, *leaves)[0]

    # A derivative of f may be flat where a solve failed, and hide it. Here it is not:
    # every input is used, and A moves with each.
    def __call__(self, x, z):
        zero = nothing(self.consts, self.given, x).astype(z.dtype)
        return self.value(x, z) + zero * (1 + z)

    def at(self, t):
        """f(x, z) of the layer f((t, x), z)."""
        return replace(self, given=(*self.given, t))


def layer(f, x, z, linear_solver, unravel, name="f(x, z)", z_name="z"):
    """f as a `Layer`, and z. f is traced anew: what it closes over may have changed."""

    def flat_f(x, z):
        z = unravel(z)
        return flatten(name, _validate.state(name, f(x, z), z_name, z))[1]

    # In a shard_map, z differs between devices as soon as anything in f does.
    z = varied(z, x)
    closed = jax.make_jaxpr(flat_f)(x, z)
    if shards(closed.consts) - shards(z):
        z = varied(z, closed.consts)
        closed = jax.make_jaxpr(flat_f)(x, z)
    refuse_collectives(closed.jaxpr)
    inverse = Inverse(None, linear_solver or automatic)
    return Layer([*map(own, closed.consts)], (), inverse, closed.jaxpr), z


def at_point(f, x, z, solves=1):
    """f with A factored at (x, z), once for all solves, if its solver does that."""
    if not f.inverse.factors_at(z.size, solves):
        return f
    identity = varied(jnp.eye(z.size, dtype=z.dtype), z)
    try:
        _, push = jax.linearize(partial(f, x), z)
        J = jax.vmap(push, 1, 1)(identity)
    except TypeError:  # f has a reverse mode alone
        J = jax.jacrev(partial(f, x))(z)
    return replace(f, inverse=f.inverse.at(identity - J))


ALONE = "axis_index", "pvary", "pcast", "pbroadcast"  # ask no other sample


def refuse_collectives(program):
    """One sample's state must not depend on another's: their Jacobians would be lost."""
    for equation in program.eqns:
        values = equation.params.values()
        axes = [equation.params.get(name) for name in ("axes", "axis_name")]
        names = [a for a in jax.tree.leaves(axes) if isinstance(a, str)]
        if names and equation.primitive.name not in ALONE:
            _validate.refuse(
                ValueError,
                "f(x, z)",
                "a layer of one sample; to couple samples, solve for the whole batch as "
                "one state",
                f"{equation.primitive.name} over the named axis {names[0]!r}",
            )
        if equation.primitive.name not in ("shard_map", "xla_pmap"):
            inner = lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
            for value in jax.tree.leaves(list(values), is_leaf=inner):
                value = getattr(value, "jaxpr", value)
                if hasattr(value, "eqns"):
                    refuse_collectives(value)


def precisely(function: Callable[P, R]) -> Callable[P, R]:
    """Products in full precision, also on a GPU, unless the user has chosen another."""

    @wraps(function)
    def precise(*arguments: P.args, **options: P.kwargs) -> R:
        chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        if chosen is not None:
            return function(*arguments, **options)
        with jax.default_matmul_precision("highest"):
            return function(*arguments, **options)

    return precise


def border(*flat: str, returns_state: bool = False):
    """Make a function of a `Layer` at a finite, flat equilibrium one of what people pass.

    Arguments are known by their names. Those in `flat` have to be vectors: the result
    is an array with an axis for each.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def at_the_border(*arguments: P.args, **options: P.kwargs) -> R:
            bound = signature.bind(*arguments, **options)
            if isinstance(bound.arguments["f"], Layer):
                return function(*arguments, **options)
            unravel, valid, x = enter(bound.arguments, flat)
            result: Any = function(*bound.args, **bound.kwargs)
            valid &= finite(result)
            mark = lambda r: guard(r, valid, nothing(x))
            result = jax.tree.map(mark, result)
            return unravel(result) if returns_state else result

        return precisely(at_the_border)

    return decorate


def enter(given, flat):
    """Check what is `given` and put what the inside takes in its place.

    Returns how to give a flat state its shape back, whether z and the loss are finite,
    and x.
    """
    from deqlib.jacobian import moving

    f, solver = given["f"], given.get("linear_solver")
    if "loss" in given:
        _validate.functions(loss=given["loss"])
    _validate.functions(f=f, linear_solver=solver)
    x = given["x"] = inputs("x", given["x"], flat)
    state, z, unravel = flatten("z", given["z"], flat)
    of, name, p = f, "f(x, z)", x
    if "t" in given:
        given["t"] = _validate.number("t", given["t"])
        p, of, name = (given["t"], x), lambda p, z: f(*p, z), "f(t, x, z)"
    valid = finite(z)
    z = jnp.where(valid, z, jnp.zeros_like(z))
    f, z = layer(of, p, z, solver, unravel, name)
    solves = min(x.size, z.size) if "x" in flat else 1
    f = given["f"] = at_point(f, p, z, solves)
    valid &= f.inverse.regular
    if "loss" in given:
        given["loss"] = total(given["loss"], x, z, unravel)
        valid &= jnp.isfinite(given["loss"](x, z))
    given["z"] = moving(f, p, z)
    if "v" in given:
        given["v"] = _validate.like("v", given["v"], "x", x)
    if "u" in given:
        u = _validate.like("u", given["u"], "z", state)
        given["u"] = flatten("u", u)[1]
    if "U" in given:
        given["U"] = _validate.rows("U", given["U"], z)
    if "C" in given:
        S = jax.ShapeDtypeStruct((z.size, x.size), z.dtype)
        given["C"] = _validate.like("C", given["C"], "the Jacobian", S)
    return unravel, valid, p


def inputs(name, value, flat=()):
    """`value` as arrays: one vector, or any tree of real floats."""
    if name in flat:
        return own(_validate.vector(name, value))
    _validate.floats(name, value)
    return jax.tree.map(own, value)


def own(a):
    """a as an array of JAX, also where vmap holds an array of numpy inside a jit.

    A custom rule would fail on that (jax 0.10).
    """
    return jnp.array(a) if isinstance(a, jax.core.Tracer) else jnp.asarray(a)


def flatten(name, value, flat=()):
    """A state, the same as one vector, and the way back."""
    state = inputs(name, value, flat)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(state)}
    # Rounding of one would look like convergence in another.
    if len(kinds) > 1:
        got = " and ".join(sorted(kinds))
        _validate.refuse(TypeError, name, "floats of one dtype", got)
    if isinstance(state, jax.Array) and state.ndim == 1:
        vector, unravel = state, lambda z: z
    else:
        vector, unravel = ravel_pytree(state)
    return state, _validate.vector(name, vector), unravel


def total(loss, x, z, unravel):
    """loss(x, z) of a flat state. Every input is used, and twice: as in a `Layer`."""
    _validate.scalar("loss(x, z)", jax.eval_shape(loss, x, unravel(z)))

    def flat_loss(x, z):
        value, zero = jnp.asarray(loss(x, unravel(z))), nothing(x, z)
        return value + (zero * zero).astype(value.dtype)

    return flat_loss
