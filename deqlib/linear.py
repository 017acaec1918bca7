"""Chapter 3. Solvers of A v = b, where A is known by its products `matvec(v)` = A v.

In this book A is I − J or its transpose. A solve that fails returns NaN. Only `direct`
sees every singular A; without the matrix, a b that A happens to reach gives some v.
"""

import jax
import jax.numpy as jnp
from jax import lax

from deqlib import _validate
from deqlib.solvers import length, mark, picard

DIRECT_UP_TO = 128


def direct(matvec, b):
    """Solve A v = b by building A, (m, m), from m products, and factoring it (LU).

    Args:
        matvec: maps v (m,) to A v (m,), linearly.
        b: (m,), the right-hand side.

    Returns:
        v (m,), or NaN if A is singular to working precision.

    Raises:
        TypeError: if b is not an array of real floats.
        ValueError: if b is not a non-empty vector, or matvec(b) is not like b.
    """
    return factored(matvec, _vector(matvec, b))(b)


def neumann(matvec, b, *, tol=None, max_steps=1000):
    """Solve A v = b by v ← v − A v + b, the partial sums of eq. (neumann-series).

    With A = I − Jᵀ this is the backward fixed point, eq. (deq-backward-fixed-point):
    v ← Jᵀ v + b. It converges if the spectral radius of J is below one; else the
    result is NaN. Source: first source, "Computing gradients through DEQs".

    Args:
        tol: relative to ‖v‖; by default 64 roundings of the dtype.
        max_steps: the most terms to add.

    The other arguments and the errors are those of `direct` and, for tol and
    max_steps, of `deqlib.solvers.picard`.
    """
    return iterated(picard, tol=tol, max_steps=max_steps)(matvec, b)


def gmres(matvec, b, *, tol=None, max_steps=50, restart=20):
    """Solve A v = b by GMRES, at most `max_steps` times `restart` products.

    Needs no spectral radius below one. If the residual is above tol ‖v‖ in the end,
    the result is NaN. Source: Saad and Schultz (1986), through JAX's own GMRES.

    Args:
        tol: relative to ‖v‖; by default 64 roundings of the dtype.
        max_steps: the most restarts.
        restart: products between two restarts, at least 1.

    The other arguments and the errors are those of `neumann`.
    """
    b = _vector(matvec, b)
    tol = _validate.tolerance(tol, b.dtype)
    max_steps = _validate.count("max_steps", max_steps)
    restart = _validate.count("restart", restart)
    unit, size = _unit(b)
    v, _ = jax.scipy.sparse.linalg.gmres(
        matvec,
        unit,
        tol=tol / 2,
        restart=min(restart, b.size),
        maxiter=max_steps,
        solve_method="batched",
    )
    residual = length(matvec(v) - unit)
    return size * _credible(v, unit, residual <= tol * length(v))


def iterated(solver, **options):
    """A linear solver made of a solver of fixed points: A v = b is v = v − A v + b.

    `iterated(anderson)` is a linear solver like `neumann`, which is `iterated(picard)`.

    Args:
        solver: a function of `deqlib.solvers`.
        **options: go to `solver`.

    Returns:
        A function (matvec, b) that returns v (m,), or NaN if the solver failed.
    """

    def solve_by_iteration(matvec, b):
        b = _vector(matvec, b)
        unit, size = _unit(b)
        solution = solver(lambda v: v - matvec(v) + unit, unit, **options)
        return size * _credible(solution.z, unit, solution.converged)

    return solve_by_iteration


def by_size(matvec, b):
    """The default: `direct` up to 128 states, beyond that `gmres`, without a matrix."""
    return (direct if jnp.size(b) <= DIRECT_UP_TO else gmres)(matvec, b)


def solve(matvec, b, linear_solver=None):
    """A⁻¹ b by `linear_solver(matvec, b)`, itself linear in b to JAX.

    d(A⁻¹ b) = A⁻¹ (db − dA A⁻¹ b), and the transpose of A⁻¹ solves with Aᵀ: with these
    two rules a solve can be differentiated to every order, forward and reverse, and
    the steps of the solver never are.
    """
    solver = _checked(by_size if linear_solver is None else linear_solver)
    return lax.custom_linear_solve(matvec, b, solver, transpose_solve=solver)


def inverses(matvec, like, linear_solver=None):
    """b ↦ A⁻¹ b and b ↦ A⁻ᵀ b, for many right-hand sides b (m,), like `like`.

    `direct` factors A once for both. Differentiable as `solve` is.
    """
    solver = linear_solver
    if solver is None:
        solver = direct if jnp.size(like) <= DIRECT_UP_TO else gmres
    both = [_checked(solver)] * 2
    if solver is direct:
        lu_solve = factored(matvec, like)
        both = [lambda _, b: lu_solve(b), lambda _, b: lu_solve(b, 1)]
    transposed = jax.linear_transpose(matvec, like)
    return (
        lambda b: lax.custom_linear_solve(matvec, b, *both),
        lambda b: lax.custom_linear_solve(
            lambda w: transposed(w)[0], b, *both[::-1]
        ),
    )


def factored(matvec, like):
    """A solver (b, trans=0) of A v = b, or with trans=1 of Aᵀ v = b, by one LU of A."""
    identity = jnp.eye(like.size, dtype=like.dtype)
    A = lax.stop_gradient(jax.vmap(matvec, in_axes=1, out_axes=1)(identity))
    lu = jax.scipy.linalg.lu_factor(A)
    # A = I − J is known up to a rounding of I and of J. Small pivots do not tell
    # whether that much can make it singular; the size of its inverse does.
    inverse = jax.scipy.linalg.lu_solve(lu, identity)
    size = jnp.maximum(jnp.linalg.norm(A, 1), 1)
    lost = _validate.tolerance(None, like.dtype) * size
    regular = jnp.linalg.norm(inverse, 1) * lost < 1
    return lambda b, trans=0: mark(
        jax.scipy.linalg.lu_solve(lu, b, trans), regular
    )


def _checked(solver):
    """`solver`, if what it returns is like b."""

    def solve_like(matvec, b):
        name = "linear_solver(matvec, b)"
        return _validate.state(name, solver(matvec, b), "b", b)

    return solve_like


def _unit(b):
    """b scaled to length one, and its length: a linear solve has no natural scale."""
    size = length(b)
    return b / jnp.where(size > 0, size, 1), size


def _credible(v, b, valid):
    """v if valid, else NaN. A v so long that rounding A v loses b is not valid either."""
    rounding = _validate.tolerance(None, b.dtype) * length(v)
    return mark(v, valid & ((rounding < length(b)) | jnp.all(b == 0)))


def _vector(matvec, b):
    b = _validate.vector("b", b)
    _validate.state("matvec(b)", jax.eval_shape(matvec, b), "b", b)
    return b
