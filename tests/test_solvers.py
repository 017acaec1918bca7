"""Solvers of z = g(z): they find it, count honestly, and fail loudly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import anderson, broyden, models, newton, picard
from deqlib.check import relative_error
from deqlib.solvers import automatic

SOLVERS = [picard, anderson, broyden, newton, automatic]
every_solver = pytest.mark.parametrize(
    "solver", SOLVERS, ids=lambda s: s.__name__
)


def map_of(example):
    return partial(example.f, example.x)


@partial(jax.jit, static_argnums=0)
def solved(solver, weights, x, z0):
    return solver(partial(models.tanh_layer(**weights), x), z0)


@every_solver
@pytest.mark.parametrize("seed", range(3))
def test_finds_the_equilibrium(solver, seed, close):
    f, x, z0 = models.random_layer(seed, m=7, n=3, radius=0.8)
    solution, truth = (
        solved(how, second.weights_of(f), x, z0) for how in (solver, newton)
    )
    assert solution.converged
    assert solution.residual <= 64 * jnp.finfo(z0.dtype).eps
    close(solution.z, truth.z)


@every_solver
def test_same_under_jit_and_vmap(solver, close):
    example = models.random_layer(0)

    def solve(x):
        return solver(partial(example.f, x), example.z0)

    xs = jnp.stack([example.x, 2 * example.x, -example.x])
    batch = jax.jit(jax.vmap(solve))(xs)
    assert batch.converged.all()
    for x, z in zip(xs, batch.z, strict=True):
        close(z, solve(x).z)


@partial(jax.jit, static_argnums=0)
def affine_solved(solver, W, b):
    return solver(lambda z: W @ z + b, jnp.zeros(2))


@every_solver
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_tolerance_is_relative(solver, scale):
    """Scaling the problem scales the answer, to the same relative accuracy."""
    W, b = np.array([[0.2, 0.5], [-0.4, 0.3]]), scale * np.array([1.0, 2.0])
    z = affine_solved(solver, W, b).z
    truth = np.linalg.solve(np.eye(2) - W, b)
    assert relative_error(z, truth) < 1e3 * jnp.finfo(z.dtype).eps


@every_solver
def test_equilibrium_at_zero(solver):
    solution = solver(lambda z: 0.5 * jnp.sin(z), jnp.ones(3))
    assert solution.converged
    assert jnp.abs(solution.z).max() < jnp.finfo(solution.z.dtype).eps


@every_solver
def test_history_holds_each_residual(solver):
    g, z0 = map_of(models.random_layer(1)), jnp.zeros(5)
    both = jax.jit(
        lambda z0: [
            solver(g, z0, max_steps=60, history=h) for h in (True, False)
        ]
    )
    solution, without = jax.tree.map(np.asarray, both(z0))
    steps, residual = int(solution.steps), solution.residual
    assert residual.shape == (61,)
    assert np.isfinite(residual[: steps + 1]).all()
    assert np.isinf(residual[steps + 1 :]).all()
    assert abs(residual[steps] / without.residual - 1) < 0.2


def test_accelerated_solvers_need_fewer_steps():
    g, z0 = map_of(models.random_layer(2, m=6, radius=0.95)), jnp.zeros(6)
    count = jax.jit(lambda z0: [solver(g, z0).steps for solver in SOLVERS])
    plain, *others = map(int, count(z0))
    assert all(steps < plain / 2 for steps in others)


def test_newton_finds_what_repels_picard(close):
    g = lambda z: -3 * jnp.sin(z) + 1
    assert not picard(g, jnp.zeros(1)).converged
    z = newton(g, jnp.zeros(1)).z
    close(g(z), z)


FAILING = {
    "diverging": lambda z: 2 * z + 1,
    "overflowing": lambda z: 8 * z + 1,
    "oscillating": lambda z: -z + 1,
    "no equilibrium": lambda z: z + 1,
    "NaN": lambda z: jnp.log(-1 - z**2),
    "stalled": lambda z: z - 1e-4 * (1 + z**2),
}


@pytest.mark.parametrize("wrap", [lambda s: s, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("kind", FAILING)
def test_failure_is_loud(kind, wrap):
    solution = wrap(lambda z0: picard(FAILING[kind], z0, max_steps=200))(
        jnp.zeros(2)
    )
    assert not solution.converged
    assert jnp.isnan(solution.z).all()


@every_solver
@pytest.mark.parametrize("kind", ["no equilibrium", "NaN"])
def test_no_solver_invents_an_equilibrium(kind, solver):
    solution = solver(FAILING[kind], jnp.zeros(2), max_steps=50)
    assert not solution.converged
    assert jnp.isnan(solution.z).all()


def test_derivative_of_a_failed_solve_is_nan():
    slope = jax.jvp(
        lambda a: picard(lambda z: a * z + 1, jnp.zeros(1), max_steps=9).z,
        (2.0,),
        (1.0,),
    )
    assert jnp.isnan(slope[1]).all()


@every_solver
def test_bad_arguments(solver):
    g, z0 = jnp.cos, jnp.ones(2)
    eps = float(jnp.finfo(z0.dtype).eps)
    for tol in (0, -1e-3, eps / 2, 1.0, float("nan")):
        with pytest.raises(
            ValueError, match=r"tol: expected a relative tolerance"
        ):
            solver(g, z0, tol=tol)
    for steps in (0, -1):
        with pytest.raises(ValueError, match="max_steps: expected at least 1"):
            solver(g, z0, max_steps=steps)
    with pytest.raises(
        TypeError, match="max_steps: expected an integer, got 2.5"
    ):
        solver(g, z0, max_steps=2.5)
    with pytest.raises(TypeError, match="z0: expected real floats, got int"):
        solver(g, jnp.arange(2))
    with pytest.raises(
        TypeError, match="z0: expected real floats, got complex"
    ):
        solver(g, z0 + 1j)
    with pytest.raises(
        ValueError, match=r"z0: expected a non-empty vector.*\(0,\)"
    ):
        solver(g, jnp.zeros(0))
    with pytest.raises(
        ValueError, match=r"z0: expected a non-empty vector.*\(2, 1\)"
    ):
        solver(g, z0[:, None])
    with pytest.raises(
        TypeError, match="z0: expected one vector of floats, got a dict"
    ):
        solver(g, {"z": z0})
    with pytest.raises(
        ValueError, match=r"g\(z0\): expected the shape.*\(2,\).*\(3,\)"
    ):
        solver(lambda z: jnp.ones(3), z0)


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def by_all(rotation, radius):
    g = lambda z: jnp.tanh(radius * rotation @ z + 1)
    return [
        solver(g, jnp.zeros(6), history=True)
        for solver in (picard, broyden, automatic)
    ]


def test_the_default_is_picard_where_that_is_fast_and_broyden_beyond():
    """In one batch: spectral radii at zero from an easy one to ones that repel."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    radii = np.array([0.3, 0.7, 1.5, 2.5])
    plain, secant, default = by_all(rotation, radii)
    assert default.converged.all()
    easy = radii < 0.5
    assert (default.steps[easy] == plain.steps[easy]).all()
    assert (default.residual[easy] == plain.residual[easy]).all()
    assert (plain.steps > 2 * default.steps)[~easy].any()
    assert (default.steps <= secant.steps + 40).all()
    for steps, residuals in zip(default.steps, default.residual, strict=True):
        assert np.isfinite(residuals[: steps + 1]).all()
        assert np.isinf(residuals[steps + 1 :]).all()


@pytest.mark.parametrize("solver", [anderson, broyden, automatic])
def test_memory_is_counted(solver):
    with pytest.raises(ValueError, match="memory: expected at least 1"):
        solver(jnp.cos, jnp.ones(2), memory=0)
