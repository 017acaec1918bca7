"""Chapter 1. Solvers of z = g(z): what to do next, given the states tried so far.

Each takes a map `g` of a vector (m,) to a vector (m,) and a first guess `z0`, and
returns a `Solution`. They share the loop and the stopping rule; they differ in the step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqlib import _validate


class Solution(NamedTuple):
    """What a solver found. Where `converged` is false, every entry of `z` is NaN.

    Attributes:
        z: (m,), the equilibrium.
        residual: ‖g(z) − z‖ / ‖g(z)‖ at the last step, a scalar; with `history=True`
            at every step, (max_steps + 1,), and NaN after the last.
        steps: how many times z was updated.
        converged: whether the residual came down to the tolerance.
    """

    z: jax.Array
    residual: jax.Array
    steps: jax.Array
    converged: jax.Array


def _iterate(g, z0, start, step, tol, max_steps, history):
    """Repeat `z, memory = step(z, r, memory, k)`, r = g(z) − z, until r is small.

    Small is relative: ‖r‖ ≤ tol ‖g(z)‖. A state shorter than eps counts as that long,
    so that an equilibrium at zero can be reached.
    """
    z0 = _validate.vector("z0", z0)
    _validate.state("g(z0)", jax.eval_shape(g, z0), "z0", z0)
    tol = _validate.tolerance(tol, z0.dtype)
    max_steps = _validate.count("max_steps", max_steps)
    shortest = jnp.finfo(z0.dtype).eps

    def measure(z):
        gz = g(z)
        r, size = gz - z, jnp.maximum(length(gz), shortest)
        # A state whose length overflows would make any residual look like zero.
        return r, length(r) / jnp.where(jnp.isfinite(size), size, jnp.nan)

    def unfinished(carry):
        _, _, residual, _, _, k = carry
        return (residual > tol) & jnp.isfinite(residual) & (k < max_steps)

    def advance(carry):
        z, r, _, residuals, memory, k = carry
        z, memory = step(z, r, memory, k)
        r, residual = measure(z)
        if history:
            residuals = residuals.at[k + 1].set(residual)
        return z, r, residual, residuals, memory, k + 1

    @jax.jit
    def run(z0):
        r, residual = measure(z0)
        residuals = jnp.zeros(1, z0.dtype)
        if history:
            residuals = jnp.full(max_steps + 1, jnp.nan, z0.dtype)
            residuals = residuals.at[0].set(residual)
        carry = (z0, r, residual, residuals, start(z0, r), jnp.asarray(0))
        z, _, residual, residuals, _, k = lax.while_loop(
            unfinished, advance, carry
        )
        converged = residual <= tol
        if history:
            residual = residuals
        return Solution(mark(z, converged), residual, k, converged)

    return run(z0)


def length(v):
    """‖v‖, without overflow or underflow of the squares."""
    top = jnp.max(jnp.abs(v))
    top = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    return (top * jnp.linalg.norm(v / top)).astype(v.dtype)


def mark(value, valid):
    """`value` where `valid`, else NaN. A product: its derivatives become NaN as well."""
    return value * jnp.where(valid, 1.0, jnp.nan).astype(value.dtype)


def picard(g, z0, *, tol=None, max_steps=1000, history=False):
    """Solve z = g(z) by z ← g(z), eq. (picard-definition).

    Source: first source, "The Jacobian of a DEQ" (any root-finding algorithm will do).

    Args:
        g: maps (m,) to (m,).
        z0: (m,), the first guess.
        tol: relative tolerance on the residual; by default 64 roundings of the dtype.
            Norms decide: a component smaller than tol ‖z‖ is not resolved.
        max_steps: after so many updates without success the solve has failed.
        history: if true, `residual` holds the residual of every step.

    Returns:
        A `Solution`.

    Raises:
        TypeError: if z0 is not an array of real floats, or max_steps not an integer.
        ValueError: if z0 is not a non-empty vector, g changes its shape or dtype, tol
            is not in [eps, 1), or max_steps is below 1.
    """
    start = lambda z, r: ()
    step = lambda z, r, memory, k: (z + r, memory)
    return _iterate(g, z0, start, step, tol, max_steps, history)


def anderson(g, z0, *, memory=5, tol=None, max_steps=1000, history=False):
    """Solve z = g(z) by Anderson acceleration, eq. (anderson-definition).

    Takes the combination of the last `memory` differences that would make the
    residual smallest if g were affine. Source: Anderson (1965); Walker and Ni (2011).

    Args:
        memory: how many differences to keep, at least 1.

    The other arguments, the result and the errors are those of `picard`.
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

    return _iterate(g, z0, start, step, tol, max_steps, history)


def broyden(g, z0, *, memory=20, tol=None, max_steps=1000, history=False):
    """Solve z = g(z) by Broyden's method, eq. (broyden-secant): a quasi-Newton method.

    Keeps H = −I + Uᵀ V, an estimate of the inverse Jacobian of g(z) − z that explains
    the last step. Source: Broyden (1965); Bai et al. (2019).

    Args:
        memory: after so many updates H starts afresh from −I; at least 1.

    The other arguments, the result and the errors are those of `picard`.
    """
    memory = _validate.count("memory", memory)

    def start(z, r):
        none = jnp.zeros((memory, z.size), z.dtype)
        return none, none, z, r

    def step(z, r, past, k):
        U, V, z_before, r_before = past
        slot = k % memory
        U = jnp.where(slot == 0, 0, U)
        # Of all H with H y = p, take the one that changes H⁻¹ least.
        p, y = z - z_before, r - r_before
        v = -p + (U @ p) @ V
        Hy = -y + (V @ y) @ U
        vy = v @ y
        u = jnp.where(vy != 0, p - Hy, 0) / jnp.where(vy != 0, vy, 1)
        U, V = U.at[slot].set(u), V.at[slot].set(v)
        return z + r - (V @ r) @ U, (U, V, z, r)

    return _iterate(g, z0, start, step, tol, max_steps, history)


def newton(g, z0, *, tol=None, max_steps=50, history=False):
    """Solve z = g(z) by Newton's method, eq. (newton-definition).

    Each step solves (I − J) s = g(z) − z with the m×m matrix J = ∂g/∂z: g must be
    differentiable, and m moderate. Source: Ortega and Rheinboldt (1970).

    The arguments, the result and the errors are those of `picard`.
    """
    start = lambda z, r: ()

    def step(z, r, memory, k):
        A = jnp.eye(z.size, dtype=z.dtype) - jax.jacfwd(g)(z)
        return z + jnp.linalg.solve(A, r), memory

    return _iterate(g, z0, start, step, tol, max_steps, history)
