"""Argument checks: each error names the argument, what was expected and what came."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

# What jnp.asarray takes without guessing. (isinstance with jax.typing.ArrayLike misses
# tracers in some versions of JAX.)
ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def vector(name, value):
    """`value` as an array, if it is one non-empty vector of real floats."""
    if not isinstance(value, ARRAYS):
        raise TypeError(
            f"{name}: expected one vector of floats, got a {type(value).__name__}"
        )
    floats(name, value)
    value = jnp.asarray(value)
    if value.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(
            f"{name}: expected float32 or float64, got {value.dtype}"
        )
    if value.ndim != 1 or value.size == 0:
        raise ValueError(
            f"{name}: expected a non-empty vector, shape (k,), got shape {value.shape}"
        )
    return value


def number(name, value):
    """`value` as an array, if it is one real float."""
    floats(name, value)
    if jnp.shape(value) != ():
        raise ValueError(
            f"{name}: expected one number, shape (), got shape {jnp.shape(value)}"
        )
    return jnp.asarray(value)


def scalar(name, value):
    """Raise unless `value`, known by its shape and dtype, is one real float."""
    if getattr(value, "shape", None) != ():
        got = jax.tree.map(jnp.shape, value)
        raise ValueError(f"{name}: expected one number, shape (), got {got}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"{name}: expected a real number, got {value.dtype}")


def floats(name, tree):
    """Raise unless every leaf of `tree` holds real floats: only those have derivatives."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(leaf, ARRAYS):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)}: expected an array of real "
                f"floats, got a {type(leaf).__name__}"
            )
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)}: expected real floats, got {dtype}"
            )


def layer(f, x, z):
    """Raise unless z ↦ f(x, z) maps the vector z to its own shape and dtype."""
    floats("x", x)
    z = vector("z", z)
    state("f(x, z)", jax.eval_shape(f, x, z), "z", z)
    return z


def functions(**arguments):
    """Raise unless each argument is a function, or None."""
    for name, value in arguments.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name}: expected a function, got {value!r}")


def state(name, value, like_name, like):
    """Raise unless `value` has the shape and dtype of `like`."""
    got = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), value)
    want = (like.shape, str(like.dtype))
    if got != want:
        raise ValueError(
            f"{name}: expected the shape and dtype of {like_name}, {want}, got {got}"
        )


def like(name, value, other_name, other):
    """`value`, if it is a tree of floats with the structure and shapes of `other`."""
    floats(name, value)
    got, want = jax.tree.map(jnp.shape, value), jax.tree.map(jnp.shape, other)
    if got != want:
        raise ValueError(
            f"{name}: expected the shape of {other_name}, {want}, got {got}"
        )
    return jax.tree.map(
        lambda v, o: jnp.asarray(v, jnp.result_type(o)), value, other
    )


def tolerance(tol, dtype):
    """`tol`, or by default 64 roundings of `dtype`; never below one rounding."""
    eps = float(jnp.finfo(dtype).eps)
    if tol is None:
        return 64 * eps
    try:
        tol = float(tol)
    except (TypeError, ValueError):
        raise TypeError(
            f"tol: expected a number known in advance, got {tol!r}"
        ) from None
    if not eps <= tol < 1:
        raise ValueError(
            f"tol: expected a relative tolerance in [{eps:.1e}, 1), between the "
            f"precision of {jnp.dtype(dtype).name} and 1, got {tol}"
        )
    return tol


def count(name, value):
    """`value` as an int of at least one."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    if number < 1:
        raise ValueError(f"{name}: expected at least 1, got {number}")
    return number
