"""Argument checks: each error names the argument, what was expected and what came."""

import operator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr

# What jnp.asarray takes without guessing. (isinstance with jax.typing.ArrayLike misses
# tracers in some versions of JAX.)
ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def refuse(error, name, expected, got) -> NoReturn:
    raise error(f"{name}: expected {expected}, got {got}") from None


def array(name, expected, value):
    """`value` as an array, if it is one of real floats."""
    if not isinstance(value, ARRAYS):
        advice = ": jax.flatten_util.ravel_pytree makes a vector of a tree"
        refuse(TypeError, name, expected, f"a {type(value).__name__}{advice}")
    floats(name, value)
    return jnp.asarray(value)


def vector(name, value):
    """`value` as an array, if it is one non-empty vector of real floats."""
    value = array(name, "one vector of floats", value)
    if value.dtype not in (jnp.float32, jnp.float64):
        refuse(TypeError, name, "float32 or float64", value.dtype)
    if value.ndim != 1 or value.size == 0:
        got = f"shape {value.shape}"
        refuse(ValueError, name, "a non-empty vector, shape (k,)", got)
    return value


def number(name, value):
    """`value` as an array, if it is one real float."""
    value = array(name, "one number", value)
    if value.shape != ():
        got = f"shape {value.shape}"
        refuse(ValueError, name, "one number, shape ()", got)
    return value


def scalar(name, value):
    """Raise unless `value`, known by its shape and dtype, is one real float."""
    if getattr(value, "shape", None) != ():
        got = jax.tree.map(jnp.shape, value)
        refuse(ValueError, name, "one number, shape ()", got)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        refuse(ValueError, name, "a real number", value.dtype)


def floats(name, tree):
    """Raise unless every leaf of `tree` holds real floats: only those have derivatives."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        at = name + keystr(path)
        if type(leaf).__name__ == "JetTracer":
            got = "Taylor mode, which does not know them: nest jax.jacfwd or jax.jvp"
            refuse(
                NotImplementedError, at, "a mode with implicit derivatives", got
            )
        if not isinstance(leaf, ARRAYS):
            got = f"a {type(leaf).__name__}"
            refuse(TypeError, at, "an array of real floats", got)
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            advice = "; f may close over what has no derivative"
            refuse(TypeError, at, "real floats", f"{dtype}{advice}")


def functions(**arguments):
    """Raise unless each argument is a function; linear_solver may be None."""
    for name, value in arguments.items():
        default = value is None and name == "linear_solver"
        if not default and not callable(value):
            refuse(TypeError, name, "a function", repr(value))


def solution(name, value):
    """`value`, if it is a `deqlib.Solution`, or has its fields."""
    if not all(hasattr(value, part) for part in ("z", "converged", "_replace")):
        refuse(
            TypeError, name, "a deqlib.Solution", f"a {type(value).__name__}"
        )
    return value


def some(name, tree):
    """Raise unless `tree` holds real floats, and not nothing."""
    floats(name, tree)
    if not jax.tree.leaves(tree):
        refuse(TypeError, name, "an array of real floats", repr(tree))


def state(name, value, like_name, like):
    """`value`, if it has the structure, shapes and dtypes of `like`."""
    kind = lambda leaf: (jnp.shape(leaf), str(jnp.result_type(leaf)))
    got, want = (
        [*map(kind, jax.tree.leaves(tree)), jax.tree.structure(tree)]
        for tree in (value, like)
    )
    if got != want:
        same = got[-1] == want[-1]
        one = lambda kinds: kinds[0] if same and len(kinds) == 2 else kinds
        expected = f"the shape and dtype of {like_name}, {one(want)}"
        refuse(ValueError, name, expected, one(got))
    return value


def like(name, value, other_name, other):
    """`value`, if it is a tree of floats with the structure and shapes of `other`."""
    floats(name, value)
    got: Any = jax.tree.structure(value)
    want = jax.tree.structure(other)
    if got != want:
        expected = f"the structure of {other_name}, {want}"
        refuse(ValueError, name, expected, got)

    def leaf_like(path, v, o):
        if jnp.shape(v) != jnp.shape(o):
            at = keystr(path)
            expected = f"the shape of {other_name}{at}, {jnp.shape(o)}"
            refuse(ValueError, name + at, expected, jnp.shape(v))
        return jnp.asarray(v, jnp.result_type(o))

    return jax.tree_util.tree_map_with_path(leaf_like, value, other)


def rows(name, value, z):
    """`value` as an array, if it has two or more rows like z."""
    value = array(name, "an array of floats", value)
    if value.ndim != 2 or len(value) < 2 or value.shape[1] != z.size:
        expected = f"two or more rows like z, shape (K + 1, {z.size})"
        refuse(ValueError, name, expected, f"shape {value.shape}")
    return value.astype(z.dtype)


def tolerance(tol, dtype):
    """`tol`, or by default 64 roundings of `dtype`; never below one rounding."""
    eps = float(jnp.finfo(dtype).eps)
    if tol is None:
        return 64 * eps
    try:
        tol = float(tol)
    except (TypeError, ValueError):
        refuse(TypeError, "tol", "a number known in advance", repr(tol))
    if not eps <= tol < 1:
        expected = (
            f"a relative tolerance in [{eps:.1e}, 1), between the precision of "
            f"{jnp.dtype(dtype).name} and 1"
        )
        refuse(ValueError, "tol", expected, tol)
    return tol


def scale(value, z):
    """`value`, if it is None or a positive size for each component of z."""
    if value is None:
        return None
    value = like("scale", value, "z0, made one vector", z)
    good = (value > 0) & (value < jnp.inf)
    if not isinstance(value, jax.core.Tracer) and not bool(jnp.all(good)):
        refuse(ValueError, "scale", "positive, finite sizes", value)
    return value


def count(name, value):
    """`value` as an int of at least one."""
    if isinstance(value, bool):
        refuse(TypeError, name, "an integer", value)
    try:
        number = operator.index(value)
    except TypeError:
        refuse(TypeError, name, "an integer", repr(value))
    if number < 1:
        refuse(ValueError, name, "at least 1", number)
    return number
