"""Chapter 1. Solvers of z = g(z): what to do next, given the states tried so far.

Each takes a map `g` of a vector (m,) to a vector (m,) and a first guess `z0`, and
returns a `Solution`. They share the loop and the stopping rule; they differ in the step.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqlib import _validate
from deqlib._guard import guard, largest, varied


class Solution(NamedTuple):
    """What a solver found. Where `converged` is false, every entry of `z` is NaN.

    Attributes:
        z: (m,), the equilibrium.
        residual: ‖g(z) − z‖ / ‖g(z)‖, by largest entries, at the last step, a scalar; with `history=True`
            at every step, (max_steps + 1,), and inf after the last.
        steps: how many times z was updated.
        converged: whether the residual came down to the tolerance.
    """

    z: jax.Array
    residual: jax.Array
    steps: jax.Array
    converged: jax.Array


def _iterate(g, z0, start, step, tol, max_steps, history, scale, by_step=False):
    """Repeat `z, memory = step(z, r, memory, k)`, r = g(z) − z, until z is found.

    ‖·‖ is the largest entry, and small is relative: ‖r‖ ≤ tol ‖g(z)‖. With a scale,
    |rᵢ| ≤ tol scaleᵢ decides; with `by_step`, a step as small as that suffices where z is
    of the size of g(z). Then each component is seen in its own size, |zᵢ| but at least
    tol^1.5 ‖g(z)‖, or scaleᵢ: rᵢ has to fall to three quarters of the digits, unless it
    has grown. What only then matters is only then computed.

    A z that falls to zero has no size. So no size is less than a rounding of what z was,
    at the first guess or, where it is smaller, since. But of a guess far off nothing may
    stay: a fall by more than 1/√tol in one step is a jump, not convergence, and what z was
    is forgotten like k⁻⁴, which any convergence by a factor outruns.

    Where z moved by much more than r did, A is nearly singular, and r says little about
    z: an equilibrium that has just ceased to exist would be found. There r has to fall
    as far as rounding lets it. With gain = |Δzᵢ| / |Δrᵢ| where z moved most, about ‖A⁻¹‖,
    Kantorovich's condition for an equilibrium to be near is that gain² |r| be small, in
    units of z, and the estimate of gain is local if gain |Δzᵢ| is. A residual that has
    grown and changed its sign is rounding: past a fold, it keeps its sign.
    """
    _validate.functions(g=g)
    z0 = _validate.vector("z0", z0)
    _validate.state("g(z0)", jax.eval_shape(g, z0), "z0", z0)
    eps, zero = jnp.finfo(z0.dtype).eps, z0.dtype.type(0)
    tol = _validate.tolerance(tol, z0.dtype)
    max_steps = _validate.count("max_steps", max_steps)
    scale = _validate.scale(scale, z0)
    least = float(jnp.finfo(z0.dtype).tiny) / tol
    scaled = lambda v: v if scale is None else v / scale

    def relative(of_r, of_g, shortest):
        size = jnp.maximum(of_g, shortest)
        residual = ratio(of_r, size) if scale is None else of_r
        # Where g is not finite, the ratio may be NaN; where it is so small that rounding
        # of it is below all numbers, zero. The residual is infinite there.
        told = (size < jnp.inf) & ((size >= least) | (size == 0))
        return jnp.where(told, residual, jnp.inf), size

    def sure(z, r, z_before, r_before, residual, before, size, seen):
        own = scale
        if scale is None:
            own = jnp.maximum(jnp.abs(z), tol**1.5 * size)
        moved, changed = jnp.abs(z - z_before), jnp.abs(r - r_before)
        grows = jnp.abs(r) >= jnp.abs(r_before)
        seen |= jnp.stack([grows, (r > 0) != (r_before > 0)])
        grown, rounding = seen[0], seen[0] & seen[1]
        if by_step:
            rounding |= moved <= tol**0.75 * own
        parts = jnp.where(rounding, 0, jnp.abs(r) / own)
        moves = jnp.where(rounding, 0, moved / own)
        changed = jnp.maximum(changed - 4 * eps * jnp.abs(z), 0)
        each = parts, jnp.where(grown, 0, parts), moves, moved, changed
        found = lax.reduce(each, (zero,) * 5, worst_and_furthest, (0,))
        worst, left, most, far, little = found
        gain = 1 / jnp.maximum(little / jnp.where(far == 0, jnp.inf, far), eps)
        doubt = gain * jnp.maximum(10 * gain * worst, most) > 0.1
        lowest = (worst <= 4 * eps) & (residual >= before)
        return (~doubt | lowest) & (left <= tol**0.75), seen

    def worst_and_furthest(a, b):
        # Of the first two the larger ones; the others from where z moved further.
        further = partial(lax.select, a[2] >= b[2])
        return *map(lax.max, a[:2], b[:2]), *map(further, a[2:], b[2:])

    def unfinished(carry):
        residual, done, k = carry[2], carry[-2], carry[-1]
        return ~done & (residual < jnp.inf) & (k < max_steps)

    @jax.jit
    def run(z0):
        g0 = g(z0)
        r = g0 - z0
        of_r, of_g, first = largest(scaled(r), g0, z0)

        def advance(carry):
            z_before, r_before, before, residuals, memory, seen, was, _, k = (
                carry
            )
            z, memory = step(z_before, r_before, memory, k)
            r = g(z) - z
            of_r, of_g, of_z, of_z_before, of_step = largest(
                scaled(r), z + r, z, z_before, scaled(z - z_before)
            )
            fall = ratio(of_z, of_z_before) / tol**0.5
            was *= jnp.minimum(fall, ((k + 1) / (k + 2)) ** 4)
            was = jnp.maximum(was, jnp.minimum(of_z, first))
            residual, size = relative(of_r, of_g, eps * was)
            near = residual <= tol
            if by_step:
                small, _ = relative(of_step, of_g, eps * was)
                near |= (small <= tol) & (residual < 0.5)
            steps = z, r, z_before, r_before, residual, before, size, seen
            none = jnp.zeros_like(seen)
            done, seen = lax.cond(near, sure, lambda *_: (near, none), *steps)
            if history:
                residuals = residuals.at[k + 1].set(residual)
            return z, r, residual, residuals, memory, seen, was, done, k + 1

        residual, _ = relative(of_r, of_g, eps * first)
        residuals = None
        if history:
            residuals = varied(jnp.full(max_steps + 1, jnp.inf, z0.dtype), r)
            residuals = residuals.at[0].set(residual)
        memory = jax.tree.map(lambda a: varied(a, r), start(z0, r))
        seen = varied(jnp.zeros((2, z0.size), bool), r)
        done = residual == 0
        carry = (z0, r, residual, residuals, memory, seen, first, done, 0)
        z, _, residual, residuals, _, _, _, converged, k = lax.while_loop(
            unfinished, advance, carry
        )
        residual = residual if residuals is None else residuals
        return Solution(
            guard(z, converged), residual, jnp.asarray(k), converged
        )

    return run(z0)


def length(v):
    """‖v‖, without overflow or underflow of the squares."""
    unit = largest(v)
    unit = jnp.where((unit > 0) & (unit < jnp.inf), unit, 1)
    return (unit * jnp.linalg.norm(v / unit)).astype(v.dtype)


def ratio(a, b):
    """|a| / |b|, where zero is no part of anything, not of zero either."""
    return jnp.abs(a) / jnp.where(a == 0, 1, jnp.abs(b))


def picard(g, z0, *, tol=None, max_steps=1000, history=False, scale=None):
    """Solve z = g(z) by z ← g(z), eq. (picard-definition).

    Source: first source, "The Jacobian of a DEQ" (any root-finding algorithm will do).

    Args:
        g: maps (m,) to (m,).
        z0: (m,), the first guess.
        tol: relative tolerance on the residual; by default 64 roundings of the dtype.
            A component smaller than tol^1.5 ‖z‖ counts as one of that size: see `scale`.
        max_steps: after so many updates without success the solve has failed.
        history: if true, `residual` holds the residual of every step.
        scale: (m,), what counts as one in each component, if their sizes differ widely
            and are known: then the residual is the largest entry of (g(z) − z) / scale.

    Returns:
        A `Solution`.

    Raises:
        TypeError: if z0 is not an array of real floats, or max_steps not an integer.
        ValueError: if z0 is not a non-empty vector, g changes its shape or dtype, tol
            is not in [eps, 1), or max_steps is below 1.

    >>> print(picard(lambda z: z / 2 + 1, jnp.zeros(1)).converged)
    True
    """
    start = lambda z, r: ()
    step = lambda z, r, memory, k: (z + r, memory)
    return _iterate(g, z0, start, step, tol, max_steps, history, scale)


def anderson(
    g, z0, *, memory=5, tol=None, max_steps=1000, history=False, scale=None
):
    """Solve z = g(z) by Anderson acceleration, eq. (anderson-definition).

    Takes the combination of the last `memory` differences that would make the
    residual smallest if g were affine. Source: Anderson (1965); Walker and Ni (2011).

    Args:
        memory: how many differences to keep, at least 1.

    The other arguments, the result and the errors are those of `picard`.

    >>> print(anderson(lambda z: z / 2 + 1, jnp.zeros(1)).converged)
    True
    """
    memory = _validate.count("memory", memory)

    def start(z, r):
        none = jnp.zeros((z.size, memory), z.dtype)
        return none, none, z, r

    def step(z, r, past, k):
        dz, dr, z_before, r_before = past
        dz = jnp.column_stack([dz[:, 1:], z - z_before])
        dr = jnp.column_stack([dr[:, 1:], r - r_before])
        # γ minimises ‖r − ΔR γ‖. The columns shrink with the residual: scaled to one,
        # their Gram matrix stays readable, and a ridge of rounding size keeps it regular.
        length = jnp.linalg.norm(dr, axis=0)
        length = jnp.where(length > 0, length, 1)
        q = dr / length[None, :]
        ridge = 10 * jnp.finfo(z.dtype).eps * jnp.eye(memory, dtype=z.dtype)
        gamma = jnp.linalg.solve(q.T @ q + ridge, q.T @ r) / length
        return z + r - (dz + dr) @ gamma, (dz, dr, z, r)

    return _iterate(g, z0, start, step, tol, max_steps, history, scale)


def broyden(
    g, z0, *, memory=20, tol=None, max_steps=1000, history=False, scale=None
):
    """Solve z = g(z) by Broyden's method, eq. (broyden-secant): a quasi-Newton method.

    Keeps H = −I + Uᵀ V, an estimate of the inverse Jacobian of g(z) − z that explains
    the last step. Source: Broyden (1965); Bai et al. (2019).

    Args:
        memory: after so many updates H starts afresh from −I; at least 1.

    The other arguments, the result and the errors are those of `picard`.

    >>> print(broyden(lambda z: z / 2 + 1, jnp.zeros(1)).converged)
    True
    """
    memory = _validate.count("memory", memory)

    def start(z, r):
        no_pairs = jnp.zeros((2, memory, z.size), z.dtype)
        return no_pairs, jnp.zeros_like(z), r

    def step(z, r, past, k):
        UV, p, r_before = past
        slot, y = k % memory, r - r_before
        known = (jnp.arange(memory) < slot)[None, :]
        # Two products at a time: H y = −y + Uᵀ V y and v = Hᵀ p = −p + Vᵀ U p.
        Up, Vy = jnp.where(known, jnp.matvec(UV, jnp.stack([p, y])), 0)
        Hy, v = jnp.vecmat(jnp.stack([Vy, Up]), UV) - jnp.stack([y, p])
        # Only its direction counts: so no product of two small ones vanishes.
        size = largest(v)
        v = v / jnp.where(size > 0, size, 1)
        # Of all H with H y = p, take the one that changes H⁻¹ least.
        vy, vr = jnp.stack([y, r]) @ v
        u = jnp.where(vy != 0, p - Hy, 0) / jnp.where(vy != 0, vy, 1)
        # The last step was p = −H r_before: by the old H, −H r = p − H y.
        # (By a product, which XLA computes once: else r can be that of another z.)
        by_old = jnp.where(slot == 0, r, p - Hy)
        s = jnp.stack([1, -vr]) @ jnp.stack([by_old, u])
        UV = lax.dynamic_update_index_in_dim(UV, jnp.stack([u, v]), slot, 1)
        return z + s, (UV, s, r)

    return _iterate(g, z0, start, step, tol, max_steps, history, scale)


def newton(g, z0, *, tol=None, max_steps=50, history=False, scale=None):
    """Solve z = g(z) by Newton's method, eq. (newton-definition).

    Each step solves (I − J) s = g(z) − z with the m×m matrix J = ∂g/∂z: g must be
    differentiable, and m moderate. Source: Ortega and Rheinboldt (1970).

    The arguments, the result and the errors are those of `picard`.

    >>> print(newton(lambda z: z / 2 + 1, jnp.zeros(1)).converged)
    True
    """
    start = lambda z, r: ()

    def step(z, r, memory, k):
        try:
            J = jax.jacfwd(g)(z)
        except TypeError:  # g has a reverse mode alone
            J = jax.jacrev(g)(z)
        A = jnp.eye(z.size, dtype=z.dtype) - J
        return z + jnp.linalg.solve(A, r), memory

    return _iterate(
        g, z0, start, step, tol, max_steps, history, scale, by_step=True
    )
