"""Chapter 11. Are a function's derivatives those of its values? Asked of any library.

Let G be a derivative of order k − 1 that has stood the trial, and G' what JAX gives for
its derivative along v. Then, as h falls::

    |G(x + h v) − G(x − h v) − 2h G'|  ~  h³    if G' is right,
                                       ~  h     if it is not
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import _validate

SEVERITY = "right", "missing", "rough", "wrong"
MODES = "forward", "reverse", "forward over reverse", "reverse over forward"


class Finding(NamedTuple):
    """What was found about one derivative. Printed, it is a phrase.

    `verdict` is "right", "wrong", "rough" (the values are: one cannot tell), "missing"
    (JAX raised the error in `said`) or "open" (one of lower order is not right already).
    `error` is relative; `slope` is near 1 for what is no derivative, and near 2 where the
    derivative has a kink and may be right.
    """

    verdict: str
    error: float = math.nan
    slope: float = math.nan
    said: str = ""

    def __str__(self):
        if self.verdict == "wrong" and math.isnan(self.error):
            return "not finite"
        return {
            "right": "right",
            "wrong": f"not the derivative, slope {self.slope:.0f} where 3 is due, "
            f"{self.error:.2g} off" + ", or a kink" * (1.5 < self.slope < 2.5),
            "rough": f"values too rough to tell, {self.error:.0e} off",
            "missing": "JAX has none",
            "open": "not looked at",
        }[self.verdict]


class Trial(NamedTuple):
    """Whether all is right, and for each order a `Finding` for each mode."""

    right: bool
    orders: list[dict[str, Finding]]

    def __repr__(self):
        lines = []
        for order, findings in enumerate(self.orders, 1):
            said = [f"{mode}: {found}" for mode, found in findings.items()]
            if len(set(map(str, findings.values()))) == 1:
                said = [f"{next(iter(findings.values()))}, by each mode"]
            lines.append(f"order {order}  " + "\n         ".join(said))
        return "\n".join(lines)


def trial(function, x, order=3, *, lines=2, seed=0):
    """Whether JAX's derivatives of function(x) are the derivatives of its values.

    Order by order, eq. (trial-remainder) along random directions, in forward and reverse
    mode and both of their mixtures. Source: the gradient test of adjoint codes.

    The values are believed: a solve that ends too early gives wrong values, and may give
    the right derivatives of these. An error is seen from some 1e-7 of the derivative on
    (in float32 some 1e-3), and near x alone. Near x two more derivatives than are asked
    for have to be continuous.

    Args:
        function: maps x to an array or a tree of them. It is compiled, unless it looks at
            its values; what it does beside returning something is done once.
        x: any tree of real floats. Steps are in proportion to each of its arrays.
        order: the highest order that is looked at.
        lines: how often directions are drawn.
        seed: of the directions.

    Returns:
        A `Trial`, which prints as a verdict: `right`, and `orders`, for each order a
        `Finding` by mode. A mode that JAX does not have for function is not wrong; an
        order without any is.

    Raises:
        TypeError: if function is none, or x or function(x) holds anything but real floats.
        ValueError: if function(x) is not finite, or order or lines below 1.

    >>> trial(lambda x: x**3, jnp.array(2.0), 2)
    order 1  right, by each mode
    order 2  right, by each mode
    """
    _validate.functions(function=function)
    _validate.some("x", x)
    order = _validate.count("order", order)
    lines = _validate.count("lines", lines)
    compiled: Callable = jax.jit
    try:
        value = jax.jit(function)(x)
    except jax.errors.JAXTypeError:  # it looks at its values
        value, compiled = function(x), lambda function: function
    _validate.some("function(x)", value)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(value)):
        _validate.refuse(ValueError, "function(x)", "finite numbers", value)
    rng = np.random.default_rng(seed)
    weights = [jax.tree.map(partial(random, rng), value) for _ in range(lines)]
    directions = [[direction(x, rng) for _ in weights] for _ in range(order)]
    G = compiled(weighed(compiled(function)))
    orders = judge(G, x, weights, directions, compiled)
    verdicts = [{f.verdict for f in found.values()} for found in orders]
    right = all(
        {"right"} <= v <= {"right", "missing", "open"} for v in verdicts
    )
    return Trial(right, orders)


def weighed(function):
    """G(x, u) = u · function(x): a number, with random weights u."""
    return lambda x, u: product(u, function(x))


def direction(x, rng):
    size = lambda a: np.max(np.abs(a), initial=0) or 1
    return jax.tree.map(lambda a: random(rng, a) * size(a), x)


def random(rng, a):
    return jnp.asarray(rng.normal(size=np.shape(a)), jnp.asarray(a).dtype)


def product(u, v):
    pairs = zip(jax.tree.leaves(u), jax.tree.leaves(v), strict=True)
    return sum(jnp.vdot(a, b) for a, b in pairs)


def forward(G):
    """The derivative of G(x, …) along v, as a function of (x, …, v)."""
    return lambda x, *given: jax.jvp(
        lambda x: G(x, *given[:-1]), (x,), given[-1:]
    )[1]


def reverse(G):
    """The same, by reverse mode."""
    return lambda x, *given: product(jax.grad(G)(x, *given[:-1]), given[-1])


def judge(G, x, weights, directions, compiled=jax.jit):
    """For each order a `Finding` by mode: the worst of those along each line."""
    first = {"forward": forward, "reverse": reverse}
    below = dict.fromkeys(first, (G, Finding("right")))
    orders: list[dict[str, Finding]] = []
    for order in range(1, len(directions) + 1):
        lines = list(zip(weights, *directions[:order], strict=True))
        here = {}
        for mode in MODES if orders else first:
            outer, _, inner = mode.partition(" over ")
            G, found = below.get(mode) or below[inner]
            G_v = compiled(first[outer](G))
            if found.verdict != "right":
                found = Finding("open")
            else:
                found = max(
                    (examine(x, G, G_v, *line) for line in lines), key=rank
                )
            here[mode] = G_v, found
        orders.append({mode: found for mode, (_, found) in here.items()})
        below = here
    return orders


def rank(finding):
    return SEVERITY.index(finding.verdict)


def examine(x, G, G_v, *given):
    """A `Finding` on G_v as the derivative of G along v, eq. (trial-remainder).

    v is the last that is given to G_v; what comes before it, G is given, too.
    """
    *fixed, v = given
    try:
        slope = G_v(x, *given)
    except Exception as why:
        return Finding("missing", said=str(why).partition("\n")[0])
    if not np.isfinite(slope):
        return Finding("wrong")
    eps = float(jnp.finfo(slope.dtype).eps)
    tol = 4 * eps**0.5
    h = np.geomspace(0.25, eps ** (1 / 3) / 4, 9)
    moved = lambda h: jax.tree.map(lambda x, v: x + h * v, x, v)
    at = lambda h: float(G(moved(h), *fixed))
    ends = np.array([(at(step), at(-step)) for step in h.tolist()])
    kept = np.isfinite(ends).all(1)
    if kept.sum() < 2:
        return Finding("rough", said="there are no values near x")
    h, ends = h[kept], ends[kept]
    change = ends[:, 0] - ends[:, 1]
    gap = change - 2 * h * float(slope)
    # Where there is no slope, G itself says what is small.
    top = np.abs(ends).max()
    size = np.median(np.abs(change / h)) / 2
    size = max(abs(float(slope)), size, tol**0.5 * top)
    # From two neighbours h³ drops out, which else could hide a term in h.
    ratio = h[1:] / h[:-1]
    left = np.abs(gap[1:] - ratio**3 * gap[:-1]) / (1 - ratio**2)
    errors = left / (2 * h[1:] * (size or 1))
    error = float(errors.min())
    if error <= tol:
        return Finding("right", error)
    if errors[-1] > 10 * error:
        return Finding("rough", error)
    with np.errstate(divide="ignore"):
        local = np.diff(np.log(np.abs(gap))) / np.diff(np.log(h))
    return Finding("wrong", error, float(np.median(local)))
