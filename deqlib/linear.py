"""Chapter 3. Solvers of A v = b, where A is known by its products `matvec(v)` = A v.

In this book A is I − J or its transpose. A solve that fails returns NaN, unless b is
zero: then v is zero. Only `direct` sees every singular A; without the matrix, a b that
A happens to reach gives some v.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from deqlib import _validate
from deqlib._guard import guard, largest, lenient, varied
from deqlib.solvers import length, picard

DIRECT_UP_TO = 128
MANY_UP_TO = 1024
DENSE_UP_TO = 4096


def direct(matvec, b):
    """Solve A v = b by building A, (m, m), from m products, and factoring it (LU).

    Rows and columns are scaled first: the units of the states do not matter.

    Args:
        matvec: maps v (m,) to A v (m,), linearly.
        b: (m,), the right-hand side.

    Returns:
        v (m,), or NaN if A is singular to working precision.

    Raises:
        TypeError: if b is not an array of real floats.
        ValueError: if b is not a non-empty vector, or matvec(b) is not like b.

    Source: Higham (2002), chapters 7 and 14.

    >>> print(direct(lambda v: 2 * v, jnp.array([1.0, 3.0])))
    [0.5 1.5]
    """
    b = _vector(matvec, b)
    A = products(matvec, varied(jnp.eye(b.size, dtype=b.dtype), b))
    return factored(A).solve(b)


def neumann(matvec, b, *, tol=None, max_steps=1000):
    """Solve A v = b by v ← v − A v + b, the partial sums of eq. (neumann-series).

    With A = I − Jᵀ this is the backward fixed point, eq. (deq-backward-fixed-point):
    v ← Jᵀ v + b. It converges for every b if the spectral radius of J is below one;
    above, only for a b that has no part in the directions that grow. Where it does not
    converge the result is NaN. Source: first source, "Computing gradients through
    DEQs".

    Args:
        tol: relative to ‖v‖; by default 64 roundings of the dtype. Whatever it is, a
            residual above √tol ‖b‖ is a failure.
        max_steps: the most terms to add.

    The other arguments and the errors are those of `direct` and, for tol and
    max_steps, of `deqlib.solvers.picard`.

    >>> print(jnp.round(neumann(lambda v: v / 2, jnp.array([1.0, 3.0]))))
    [2. 6.]
    """
    return iterated(picard, tol=tol, max_steps=max_steps)(matvec, b)


def gmres(matvec, b, *, tol=None, max_steps=50, restart=20):
    """Solve A v = b by GMRES, at most `max_steps` times `restart` products.

    Needs no spectral radius below one. If the residual is above tol ‖v‖ or √tol ‖b‖ in
    the end, the result is NaN. Source: Saad and Schultz (1986), through JAX's own GMRES.

    Args:
        tol: relative to ‖v‖; by default 64 roundings of the dtype.
        max_steps: the most restarts.
        restart: products between two restarts, at least 1.

    The other arguments and the errors are those of `neumann`.

    >>> print(jnp.round(gmres(lambda v: v / 2, jnp.array([1.0, 3.0]))))
    [2. 6.]
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
    return size * _credible(matvec, v, unit, tol)


def iterated(solver, **options):
    """A linear solver made of a solver of fixed points: A v = b is v = v − A v + b.

    `iterated(anderson)` is a linear solver like `neumann`, which is `iterated(picard)`.

    Args:
        solver: a function of `deqlib.solvers`.
        **options: go to `solver`.

    Returns:
        A function (matvec, b) that returns v (m,), or NaN if the solver failed.

    >>> solve = iterated(deqlib.anderson)
    >>> print(jnp.round(solve(lambda v: v / 2, jnp.array([1.0, 3.0]))))
    [2. 6.]
    """
    _validate.functions(solver=solver)

    def solve_by_iteration(matvec, b):
        b = _vector(matvec, b)
        tol = _validate.tolerance(options.get("tol"), b.dtype)
        unit, size = _unit(b)
        v = solver(lambda v: v - matvec(v) + unit, unit, **options).z
        return size * _credible(matvec, v, unit, tol)

    return solve_by_iteration


def automatic(matvec, b):
    """The default. Up to 128 states it is `direct`; beyond, a series, then a matrix.

    Neumann's series is summed for as long as it converges well, and its residual is
    measured against b. If that is not small, A is built and factored as in `direct`;
    above 4096 states, where the matrix would fill the memory, `gmres` solves instead.

    Functions that return a matrix solve for many b. For one b to every eight states or
    more they build A first, up to 1024 states. The numbers are those of a CPU: on a GPU
    one solve is many short waits, and `direct` is often the faster up to 512 states.

    >>> print(automatic(lambda v: 2 * v, jnp.array([1.0, 3.0])))
    [0.5 1.5]
    """
    b = _vector(matvec, b)
    if b.size <= DIRECT_UP_TO:
        return direct(matvec, b)
    rest = direct if b.size <= DENSE_UP_TO else gmres
    v = _series(matvec, b)

    # A loop of at most one step is not entered where it is not needed, under vmap too.
    def again(carry):
        return ~carry[1]

    # XLA would take what does not depend on the carry out of the loop: the matrix.
    def once(carry):
        one, _ = lax.optimization_barrier((jnp.ones_like(b[0]), carry[1]))
        return rest(lambda v: matvec(one * v), b), carry[1] | True

    tol = _validate.tolerance(None, b.dtype)
    good = length(matvec(v) - b) <= tol * length(b)
    return lax.while_loop(again, once, (v, good))[0]


def _series(matvec, b):
    """b + J b + J² b + …, while the terms shrink fast enough to vanish in m of them."""
    eps = jnp.finfo(b.dtype).eps
    size = largest(b)

    def unfinished(carry):
        _, term, k = carry
        left = largest(term)
        late = 10 * size * eps ** (k / b.size)
        return (left > eps * size) & (left <= late)

    def add(carry):
        v, term, k = carry
        return v + term, term - matvec(term), k + 1

    nothing_yet = varied(jnp.zeros_like(b), b)
    return lax.while_loop(unfinished, add, (nothing_yet, b, 0))[0]


def solve(matvec, b, linear_solver=None):
    """A⁻¹ b by `linear_solver(matvec, b)`, itself linear in b to JAX.

    d(A⁻¹ b) = A⁻¹ (db − dA A⁻¹ b), and the transpose of A⁻¹ solves with Aᵀ: with these
    two rules a solve can be differentiated to every order, forward and reverse, and
    the steps of the solver never are.

    >>> print(jax.grad(lambda a: solve(lambda v: a * v, jnp.ones(1))[0])(2.0))
    -0.25
    """
    inverse = linear_solver
    if not isinstance(inverse, Inverse):
        inverse = Inverse(None, linear_solver or automatic)
    try:
        return lax.custom_linear_solve(matvec, b, inverse, inverse.T)
    except Exception:
        # The layer has no reverse mode; or the same error comes again.
        return lax.custom_linear_solve(matvec, b, inverse)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inverse:
    """A linear solver of A v = b, or, as `.T`, of Aᵀ v = b; with A factored or not."""

    factors: Any
    solver: Any = field(metadata={"static": True})
    transposed: bool = field(default=False, metadata={"static": True})

    @property
    def T(self):
        return replace(self, transposed=not self.transposed)

    def factors_at(self, m, solves=1):
        """Whether A is factored, and has not been, where it has m rows."""
        pays = m <= DIRECT_UP_TO or (m <= MANY_UP_TO and 8 * solves >= m)
        wanted = self.solver is direct or (self.solver is automatic and pays)
        return self.factors is None and wanted

    def at(self, A):
        return replace(self, factors=factored(lax.stop_gradient(A)))

    def __call__(self, matvec, b):
        if self.factors is not None:
            v = self.factors.solve(b, self.transposed)
        else:
            name = "linear_solver(matvec, b)"
            v = _validate.state(name, self.solver(matvec, b), "b", b)
        return lenient(v, b, True)

    @property
    def regular(self):
        """Whether A is regular, as far as that is known already."""
        return True if self.factors is None else self.factors.regular


class Factored(NamedTuple):
    """A⁻¹ = diag(columns) inverse diag(rows), (m, m), and whether A is regular."""

    inverse: jax.Array
    rows: jax.Array
    columns: jax.Array
    regular: jax.Array

    def solve(self, b, transposed=False):
        if transposed:
            v = self.rows * ((self.columns * b) @ self.inverse)
        else:
            v = self.columns * (self.inverse @ (self.rows * b))
        return guard(v, self.regular)


def factored(A):
    """A⁻¹ by one LU of A, (m, m), after its rows and columns were scaled to one."""
    identity = jnp.eye(len(A), dtype=A.dtype)
    scale = lambda largest: 1 / jnp.where(largest > 0, largest, 1)
    rows = scale(largest(A))
    columns = scale(largest((rows[:, None] * A).T))
    inverse = jnp.linalg.inv(rows[:, None] * A * columns[None, :])
    # A = I − J is known up to a rounding of I and of J, entry by entry. That much moves
    # a solution by A⁻¹ (|I| + |J|) roundings at most; in the units of the columns:
    moved = rows * ((identity + jnp.abs(identity - A)) @ columns)
    moved = jnp.abs(inverse) @ moved
    lost = _validate.tolerance(None, A.dtype) * largest(moved)
    return Factored(inverse, rows, columns, lost < 1)


def products(matvec, V):
    """matvec of each column of V, (m, k)."""
    try:
        return jax.vmap(matvec, 1, 1)(V)
    except TypeError:
        # A layer with a reverse mode alone: this is never run but transposed.
        return lax.map(matvec, V.T).T


def _unit(b):
    """b scaled to length one, and its length: a linear solve has no natural scale."""
    size = length(b)
    return b / jnp.where(size > 0, size, 1), size


def _credible(matvec, v, b, tol):
    """v, if its residual is small against v and against b; else NaN."""
    of_v, of_b, residual = largest(v, b, matvec(v) - b)
    return guard(
        v, (residual <= 2 * tol * of_v) & (residual <= tol**0.5 * of_b)
    )


def _vector(matvec, b):
    _validate.functions(matvec=matvec)
    b = _validate.vector("b", b)
    _validate.state("matvec(b)", jax.eval_shape(matvec, b), "b", b)
    return b
