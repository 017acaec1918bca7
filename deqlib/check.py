"""How the book and the tests tell right from wrong: relative errors and Taylor slopes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import _validate
from deqlib.trial import Finding, Trial, trial

__all__ = [
    "Finding",
    "Trial",
    "relative_error",
    "rounding",
    "slopes",
    "taylor_remainders",
    "trial",
]


def relative_error(got, want):
    """‖got − want‖ / ‖want‖ over all entries of two trees of the same shapes, a float.

    Where want is zero, the absolute error. NaN anywhere gives NaN.

    Raises:
        ValueError: if the shapes differ.
    """
    shapes = jax.tree.map(np.shape, got), jax.tree.map(np.shape, want)
    if shapes[0] != shapes[1]:
        expected = f"the shape of want, {shapes[1]}"
        _validate.refuse(ValueError, "got", expected, shapes[0])
    got, want = _flat("got", got), _flat("want", want)
    with np.errstate(invalid="ignore"):  # inf - inf is nan, which is an answer
        return _length(got - want) / (_length(want) or 1.0)


def rounding(dtype=None, growth=1e4):
    """What counts as equal up to rounding: `growth` times the precision of dtype.

    By default the dtype of JAX's floats: 2.2e-12 in float64, 1.2e-3 in float32.
    """
    return growth * float(jnp.finfo(dtype or jnp.result_type(float)).eps)


def taylor_remainders(function, x, v, derivatives, steps=None):
    """Remainders of the Taylor models of function(x + h v), eq. (taylor-remainder-definition).

    Source: the gradient test of adjoint codes, e.g. pyadjoint's `taylor_to_dict`.
    Computed in numpy: `function` may be compiled, this may not.

    Args:
        function: maps a tree x to an array.
        x: the point, a tree of real floats.
        v: the direction, a tree of the same shapes.
        derivatives: [F', F'', …], arrays like function(x): the derivatives along v.
        steps: the step lengths h, (s,); by default nine, halved from one to the next.

    Returns:
        The steps (s,), and the remainders (len(derivatives) + 1, s): row k is
        ‖F(x + h v) − Σ_{j≤k} hʲ/j! F⁽ʲ⁾‖.

    Raises:
        TypeError: if v holds anything but real floats.
        ValueError: if v has not the shapes of x.
    """
    _validate.floats("x", x)
    v = _validate.like("v", v, "x", x)
    base = jnp.asarray(function(x))
    for k, term in enumerate(derivatives):
        _validate.state(
            f"derivatives[{k}]", jnp.asarray(term), "function(x)", base
        )
    if steps is None:
        start = 0.25 if base.dtype == jnp.float64 else 1.0
        steps = start * 0.5 ** jnp.arange(9, dtype=base.dtype)
    steps = _validate.vector("steps", jnp.asarray(steps))
    moved = np.asarray(
        jax.vmap(
            lambda h: function(jax.tree.map(lambda x, v: x + h * v, x, v))
        )(steps)
    )
    steps, model, rows = np.asarray(steps), np.zeros_like(moved), []
    for k, term in enumerate([base, *derivatives]):
        model += np.multiply.outer(steps**k / math.factorial(k), term)
        gap = (moved - model).reshape(len(steps), -1)
        rows.append(np.linalg.norm(gap, axis=1))
    return steps, np.stack(rows)


def slopes(steps, remainders):
    """The order of each row of `remainders` as the steps shrink: about 1, 2, 3, …

    A model with k right derivatives leaves a remainder of order k + 1. Of the slopes
    between neighbouring steps, the one at the smallest steps is taken that rounding does
    not spoil: where the remainder is above √eps of the largest. Returns (rows,), a
    numpy array.

    Raises:
        ValueError: if there are fewer than two steps, or not a remainder for each.
    """
    steps, remainders = np.asarray(steps), np.atleast_2d(remainders)
    if remainders.shape[1] != steps.size or steps.size < 2:
        raise ValueError(
            f"remainders: expected a column for each of at least two steps, got shape "
            f"{remainders.shape} for {steps.size} steps"
        )
    with np.errstate(divide="ignore", invalid="ignore"):  # a remainder may be 0
        local = np.diff(np.log(remainders), axis=1) / np.diff(np.log(steps))
    floor = np.finfo(remainders.dtype).eps ** 0.5 * remainders[:, :1]
    usable = np.sum(remainders[:, 1:] > floor, axis=1)
    return local[np.arange(len(local)), np.maximum(usable - 1, 0)]


def _length(v):
    """‖v‖ in numpy, which compiles nothing; no square overflows or underflows."""
    top = float(np.max(np.abs(v)))
    return top * float(np.linalg.norm(v / top)) if 0 < top < np.inf else top


def _flat(name, tree):
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    if not leaves:
        raise ValueError(f"{name}: expected at least one array, got {tree!r}")
    return np.concatenate(leaves, dtype=float)
