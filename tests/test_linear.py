"""Solvers of A v = b: right, linear to JAX, and NaN where there is no answer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from deqlib import Solution, anderson, broyden, jacobian, linear

SOLVERS = {
    "direct": linear.direct,
    "neumann": linear.neumann,
    "gmres": linear.gmres,
    "anderson": linear.iterated(anderson),
    "broyden": linear.iterated(broyden),
    "automatic": linear.automatic,
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


def system(seed=0, m=6, radius=0.7):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(m, m))
    J *= radius / np.abs(np.linalg.eigvals(J)).max()
    return np.eye(m) - J, rng.normal(size=m)


@partial(jax.jit, static_argnums=0)
def solution(solver, A, b):
    return solver(lambda v: A @ v, b)


@every_solver
@pytest.mark.parametrize("power", [-0.9, 0.0, 0.9])
def test_solves_at_any_scale(solver, power, close):
    """Also where squares would overflow, or vanish."""
    A, b = system()
    scale = float(jnp.finfo(jnp.result_type(float)).max) ** power
    close(solution(solver, A, scale * b), scale * np.linalg.solve(A, b))


@every_solver
def test_zero_gives_zero(solver):
    A, b = system()
    assert np.all(np.asarray(solution(solver, A, 0 * b)) == 0)


def derivatives(solve, A, b):
    first = jax.grad(lambda A, b: jnp.sum(solve(A, b) ** 3), (0, 1))
    return first(A, b), jax.jacfwd(lambda b: first(A, b))(b)


@pytest.fixture(scope="module")
def truth():
    return jax.jit(partial(derivatives, jnp.linalg.solve))(*system(1, m=4))


@every_solver
def test_solve_is_differentiable_and_transposable(solver, truth, close):
    ours = lambda A, b: linear.solve(lambda v: A @ v, b, solver)
    close(jax.jit(partial(derivatives, ours))(*system(1, m=4)), truth)


def products_made(J, b, solver=linear.automatic):
    """The solver's answer for a diagonal J, and how often it multiplies with A."""
    seen = []

    def matvec(v):
        jax.debug.callback(lambda v: seen.append(v.ndim), v)
        return v - J * v

    v = jax.jit(lambda b: solver(matvec, b))(b)
    jax.effects_barrier()
    return v, len(seen)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_matrix_is_built_only_where_the_series_is_slow(scale, close):
    """Beyond the direct size: some products where J is small, m more where it is not."""
    m = linear.DIRECT_UP_TO + 1
    b = scale * jnp.linspace(1.0, 2.0, m)
    made = {}
    for J in (0.2, 0.7, 0.95, 0.99, -3.0):
        v, made[J] = products_made(J, b)
        close(v, b / (1 - J))
    assert 8 < made[0.2] < 30 < made[0.7] < m < min(made[0.95], made[0.99])
    assert max(made.values()) < m + 40
    assert products_made(0.2, 0 * b)[1] == 1


def test_gmres_stops_where_it_is_done(close):
    """After one round of at most 20 products, where A has few eigenvalues."""
    J = jnp.tile(jnp.array([0.2, 0.5, -0.3]), 20)
    v, made = products_made(J, jnp.linspace(1.0, 2.0, 60), linear.gmres)
    close(v, jnp.linspace(1.0, 2.0, 60) / (1 - J))
    assert made < 30


def test_up_to_the_direct_size_a_matrix_is_built():
    for m in (3, linear.DIRECT_UP_TO):
        assert products_made(0.2, jnp.ones(m))[1] == m
    at = linear.DIRECT_UP_TO
    factors = lambda solver, m: linear.Inverse(None, solver).factors_at(m)
    assert factors(linear.automatic, 3) and factors(linear.automatic, at)
    assert not factors(linear.automatic, at + 1)
    assert factors(linear.direct, 3) and factors(linear.direct, at + 1)
    assert not factors(linear.gmres, 3)


def test_for_many_right_hand_sides_a_matrix_is_built():
    """Up to 1024 states, from one for every eight states on."""
    factors = linear.Inverse(None, linear.automatic).factors_at
    assert factors(160, 20) and not factors(160, 19)
    assert factors(1024, 128) and not factors(1025, 1025)
    assert not linear.Inverse(None, linear.gmres).factors_at(160, 160)
    made = []
    for n in (19, 20, 200):
        W = 0.1 * jnp.eye(160, n)
        f = lambda x, z, W=W: 0.2 * jnp.roll(z, 1) + W @ x
        program = jax.jit(lambda x, z, f=f: jacobian(f, x, z))
        lines = program.lower(jnp.ones(n), jnp.ones(160)).compile().as_text()
        made.append("getrf" in lines.partition("ENTRY")[2])
    assert made == [False, True, True]


def test_of_many_matrices_the_one_with_a_nan_is_singular():
    many = jnp.broadcast_to(jnp.eye(80), (60, 80, 80)).at[3, 0, 0].set(jnp.nan)
    regular = jax.vmap(linear.factored)(many).regular
    assert not regular[3] and regular.sum() == 59


def test_a_matrix_that_is_not_needed_is_not_built_under_vmap(close):
    """The same A for all: XLA would take it out of the loop, and build it always."""
    m = linear.DIRECT_UP_TO + 1
    B = jnp.linspace(1.0, 2.0, 3 * m).reshape(3, m)

    def solve(a, B):
        matvec = lambda v: v - a * jnp.roll(v, 1)
        return jax.vmap(lambda b: linear.automatic(matvec, b))(B)

    compiled = jax.jit(solve).lower(0.2, B).compile()
    before, _, entry = compiled.as_text().partition("ENTRY")
    assert "getrf" in before and "getrf" not in entry
    for a in (0.2, 3.0):
        v = jax.jit(solve)(a, B)
        close(v - a * jnp.roll(v, 1, 1), B)


@pytest.mark.parametrize("d, good", [(1e-4, True), (1.9e-4, True), (2.2e-4, 0)])
@pytest.mark.parametrize("size", [0.2, 1.0, 5.0])
def test_an_answer_with_a_residual_is_none(d, good, size, close):
    """Above 2 tol ‖v‖, or above √tol ‖b‖, of a solver that says that it succeeded."""
    b = np.array([0.6, -0.8])

    def solve(a, v, tol=1e-4):
        found = lambda g, z0, tol: Solution(v * b, 0.0, jnp.array(1), True)
        how = linear.iterated(found, tol=tol)
        return how(lambda v: a * v, size * jnp.asarray(b))

    for v, a in ((1 + d, 1.0), (1 - d, 1.0), (1e4 * (1 + 50 * d), 1e-4)):
        got = solve(a, v)
        if good:
            close(got, size * v * b)
        else:
            assert jnp.isnan(got).all()


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_units_do_not_matter_to_direct(unit, close):
    J, D = np.array([[0.3, 0.4], [-0.2, 0.5]]), np.array([1.0, unit])
    A = np.eye(2) - J * D / D[:, None]
    got = linear.direct(lambda v: A @ v, jnp.ones(2) / D)
    close(got * D, np.linalg.solve(np.eye(2) - J, np.ones(2)))


def test_regular_is_what_rounding_leaves_so():
    """A = a, a number: I and J, each of size one, are known to 64 roundings."""
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    regular = lambda a: bool(linear.factored(jnp.array([[a]])).regular)
    assert all(map(regular, (140 * eps, -140 * eps, 0.1, 1.0, 7.0, 1e6)))
    assert not any(map(regular, (120 * eps, -120 * eps, 70 * eps, 0.0)))
    small = jnp.array([[1.0, 1.0], [1.0, 1.0 + 100 * eps]])
    assert not linear.factored(small).regular


def test_the_sizes_are_those_of_the_page():
    page = (ROOT / "book/03_backward_fixed_point.ipynb").read_text()
    for text in (page, linear.automatic.__doc__):
        for m in (linear.DIRECT_UP_TO, linear.MANY_UP_TO, linear.DENSE_UP_TO):
            assert f"{m} states" in " ".join(text.split())


def test_beyond_what_memory_holds_no_matrix_is_built():
    for m, builds in (
        (linear.DENSE_UP_TO, True),
        (linear.DENSE_UP_TO + 1, False),
    ):
        of = lambda b: linear.automatic(lambda v: 2.0 * v, b)
        assert (f"[{m},{m}]" in str(jax.make_jaxpr(of)(jnp.ones(m)))) == builds


def test_one_of_many_solves_is_slow(close):
    """Under vmap each right-hand side gets what it needs."""
    m = linear.DIRECT_UP_TO + 1
    J = jnp.linspace(-3, 0.2, m)
    B = jnp.stack([jnp.eye(m)[-1], jnp.eye(m)[0], jnp.zeros(m)])
    solve = jax.jit(jax.vmap(lambda b: linear.solve(lambda v: v - J * v, b)))
    close(solve(B), B / (1 - J)[None, :])


@every_solver
def test_singular_gives_nan(solver):
    A = jnp.array(
        [[1.0, 2.0, 0.5], [0.3, 0.1, 0.2], [1.3, 2.1, 0.7]]
    )  # row 3 = 1 + 2
    b = jnp.array([1.0, 1.0, 1.0])
    assert jnp.isnan(solver(lambda v: A @ v, b)).all()
    assert jnp.isnan(jax.jit(lambda b: solver(lambda v: A @ v, b))(b)).all()


def test_direct_sees_a_singular_matrix_even_where_b_has_a_solution():
    A = jnp.array([[1.0, 2.0, 0.5], [0.3, 0.1, 0.2], [1.3, 2.1, 0.7]])
    assert jnp.isnan(linear.direct(lambda v: A @ v, A @ jnp.ones(3))).all()


def test_neumann_diverges_where_the_radius_is_above_one():
    A, b = system(radius=1.3)
    assert jnp.isnan(linear.neumann(lambda v: A @ v, b)).all()
    assert jnp.isfinite(linear.gmres(lambda v: A @ v, b)).all()


@every_solver
def test_bad_arguments(solver):
    b = jnp.ones(3)
    with pytest.raises(
        ValueError, match=r"matvec\(b\): expected the shape.*\(3,\).*\(2,\)"
    ):
        solver(lambda v: v[:2], b)
    with pytest.raises(TypeError, match="b: expected real floats, got int"):
        solver(lambda v: v, jnp.arange(3))
    with pytest.raises(ValueError, match="b: expected a non-empty vector"):
        solver(lambda v: v, jnp.zeros(0))


def test_bad_options():
    for solver in (linear.neumann, linear.gmres):
        with pytest.raises(ValueError, match="tol: expected"):
            solver(lambda v: v, jnp.ones(3), tol=0)
        with pytest.raises(ValueError, match="max_steps: expected at least 1"):
            solver(lambda v: v, jnp.ones(3), max_steps=0)
    with pytest.raises(ValueError, match="restart: expected at least 1"):
        linear.gmres(lambda v: v, jnp.ones(3), restart=0)
