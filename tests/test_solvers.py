"""Solvers of z = g(z): they find it, count honestly, and fail loudly."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import anderson, broyden, models, newton, picard
from deqlib._guard import largest
from deqlib.check import relative_error
from deqlib.solvers import length, ratio

SOLVERS = [picard, anderson, broyden, newton]
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


def test_broyden_falls_to_zero_without_squares_that_vanish():
    """In float32, from 1 to 1e-22: it took up to 700 steps."""
    rates = jnp.linspace(0.05, 0.95, 19, dtype=jnp.float32)
    z0 = jnp.array([0.7, -0.3], jnp.float32)
    found = jax.vmap(lambda a: broyden(lambda z: a * jnp.sin(z), z0))(rates)
    assert found.converged.all() and found.steps.max() < 200
    assert jnp.abs(found.z).max() < 1e-15


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


@pytest.mark.parametrize("a", [3.0, -3.0])
def test_broyden_finds_what_repels_in_either_direction(a, close):
    found = broyden(lambda z: a * z + 1, jnp.zeros(1))
    assert found.steps <= 3
    close(found.z, 1 / (1 - np.array([a])))


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


@every_solver
def test_overflow_is_no_success(solver):
    """Newton's first step goes to where g is infinite, beside which it is short."""
    found = solver(lambda z: jnp.exp(z) - 10, jnp.full(1, 1e-3), max_steps=1)
    assert not found.converged and jnp.isnan(found.z).all()


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


@pytest.mark.parametrize("solver", [anderson, broyden])
def test_memory_is_counted(solver):
    with pytest.raises(ValueError, match="memory: expected at least 1"):
        solver(jnp.cos, jnp.ones(2), memory=0)


# Each method once more, in numpy, without a stopping rule and with whole matrices.


def picard_steps(r, memory):
    while True:
        _, r = yield r


def anderson_steps(r, memory):
    dz, dr, step = [], [], r
    while True:
        (p, y), r = yield step
        dz, dr = [*dz, p][-memory:], [*dr, y][-memory:]
        Z, R = np.column_stack(dz), np.column_stack(dr)
        step = r - (Z + R) @ np.linalg.lstsq(R, r)[0]


def broyden_steps(r, memory):
    H, k = -np.eye(r.size), 0
    while True:
        (p, y), r = yield -H @ r
        k += 1
        H = -np.eye(r.size) if k % memory == 0 else H
        H = H + np.outer(p - H @ y, p @ H) / (p @ H @ y)


def residuals_of(steps, g, z, count, memory):
    r = g(z) - z
    residuals = [np.abs(r).max() / np.abs(g(z)).max()]
    method = steps(r, memory)
    step = next(method)
    for _ in range(count):
        z_before, r_before = z, r
        z = z + step
        r = g(z) - z
        residuals.append(np.abs(r).max() / np.abs(g(z)).max())
        step = method.send(((z - z_before, r - r_before), r))
    return np.array(residuals)


@pytest.mark.parametrize(
    "solver, steps, memory",
    [
        (picard, picard_steps, None),
        (anderson, anderson_steps, 1),
        (anderson, anderson_steps, 3),
        (broyden, broyden_steps, 3),
        (broyden, broyden_steps, 20),
    ],
)
def test_each_step_is_the_methods(solver, steps, memory):
    W = np.random.default_rng(3).normal(size=(6, 6)) / 4
    g = lambda z: np.tanh(W @ z + np.linspace(-1, 1, 6))
    options = {"memory": memory} if memory else {}
    got = solver(
        lambda z: jnp.tanh(W @ z + np.linspace(-1, 1, 6)),
        jnp.ones(6),
        max_steps=9,
        history=True,
        **options,
    ).residual
    want = residuals_of(steps, g, np.ones(6), 9, memory)
    clear = want > 1e4 * jnp.finfo(got.dtype).eps
    assert clear.sum() > 4
    np.testing.assert_allclose(got[clear], want[clear], rtol=1e-3)


@pytest.mark.parametrize("solver", [picard, anderson, broyden])
@pytest.mark.parametrize("tol", [1e-3, 1e-4, 1e-5])
def test_stops_at_the_first_small_residual(solver, tol):
    g, z0 = map_of(models.random_layer(1)), jnp.zeros(5)
    found = solver(g, z0, tol=tol, history=True)
    *before, last = found.residual[: int(found.steps) + 1]
    assert last <= tol < min(before)


@pytest.mark.parametrize("small", [0.5, -0.5])
def test_small_components_have_their_turn(small):
    """To three quarters of the digits, or for as long as that improves."""
    tol = 1e-4
    a, b = np.array([0.5, small]), np.array([0.5, 1e-5])
    z0 = np.array([0.0, 1e6])
    z, steps = z0, 0
    while not (
        np.abs(a * z + b - z).max() <= tol * np.abs(a * z + b).max()
        and (np.abs(a * z + b - z) <= tol**0.75 * (a * z + b)).all()
    ):
        z, steps = a * z + b, steps + 1
    found = picard(lambda z: a * z + b, jnp.asarray(z0), tol=tol)
    assert found.converged and found.steps > steps - 2 > 40
    if found.z.dtype == jnp.float64:
        assert found.steps == steps
    moves = lambda z: jnp.stack([z[0] / 2 + 1, 1e-9 - z[1]])
    found = picard(moves, jnp.array([1.0, 3e-10]), tol=tol)
    assert found.converged and found.steps < 20
    grows = lambda z: jnp.stack([z[0] / 2 + 1, 2 * z[1]])
    found = picard(grows, jnp.array([1.0, 1e-20]), tol=tol)
    assert found.converged and found.steps < 20


def test_a_component_counts_from_a_power_of_the_tolerance_on():
    """One that falls to zero is followed to tol^1.5 of the largest, and no further."""
    tol, z, steps = 1e-4, np.ones(2), 0
    while z[1] / 2 > tol**0.75 * max(z[1] / 2, tol**1.5):
        z, steps = np.array([z[0] / 2 + 0.5, z[1] / 2]), steps + 1
    fall = lambda z: jnp.stack([z[0] / 2 + 0.5, z[1] / 2])
    found = picard(fall, jnp.ones(2), tol=tol)
    assert found.converged and found.steps == steps


@every_solver
@pytest.mark.parametrize("size", [10, 1e5])
def test_components_that_are_lost_in_rounding_do_not_hinder(solver, size):
    """Differences of states that are 1e4: `size` roundings of these."""
    rng = np.random.default_rng(5)
    draw = lambda: rng.normal(size=(5, 5))
    W, Q = (
        0.3 * a / np.abs(np.linalg.eigvals(a)).max() for a in (draw(), draw())
    )
    P, xs, own = draw(), rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    exact = np.zeros((20, 5))
    for _ in range(200):
        exact = 1e4 * np.tanh(exact @ W.T / 1e4 + xs)
    unit = 1e4 * size * float(jnp.finfo(jnp.result_type(float)).eps)

    def solve(x, c):
        def g(z):
            large, small = 1e4 * jnp.tanh(W @ z[:5] / 1e4 + x), Q @ z[5:]
            small = unit * jnp.tanh(small / unit) + (P @ z[:5] - c)
            return jnp.concatenate([large, small])

        return solver(g, jnp.zeros(10))

    x, c = jnp.asarray(xs), jnp.asarray(exact @ P.T - unit * own)
    found = jax.vmap(solve)(x, c)
    # One of Newton's may end in a cycle of roundings.
    assert found.converged.sum() >= 20 - (solver is newton)
    large = found.z[found.converged, :5]
    np.testing.assert_allclose(large, exact[found.converged], rtol=1e-4)


@pytest.mark.parametrize("a, b", [(0.5, 1.0), (0.9, 7.0), (0.95, -0.1)])
def test_where_z_moves_far_the_residual_has_to_fall_further(a, b):
    """Kantorovich: gain² ‖r‖ has to be small in units of z, here 0.01."""
    gain, z, steps = 1 / (1 - a), 0.0, 0
    residual = 1.0
    while residual > min(1e-2, 0.01 / gain**2):
        z, steps = a * z + b, steps + 1
        residual = abs((a * z + b - z) / (a * z + b))
    found = picard(lambda z: a * z + b, jnp.zeros(1), tol=1e-2)
    assert found.converged and found.steps >= steps
    if found.z.dtype == jnp.float64:
        assert found.steps == steps


@pytest.mark.parametrize("solver", [picard, broyden, newton])
@pytest.mark.parametrize("tol", [1e-3, None])
def test_a_power_of_two_changes_z_alone(solver, tol):
    g = lambda z: jnp.array([0.9, -0.5]) * z + jnp.array([1.0, 0.3])

    def of(unit):
        scaled = lambda z: unit * g(z / unit)
        z, *rest = solver(scaled, jnp.zeros(2), tol=tol, history=True)
        return z / unit, *rest

    for unit in (2.0**-30, 2.0**30):
        for one, other in zip(of(1.0), of(unit), strict=True):
            np.testing.assert_array_equal(one, other)


def test_where_a_is_nearly_singular_the_residual_has_to_stop_falling():
    a = 1 - float(jnp.finfo(jnp.result_type(float)).eps) ** 0.45
    found = newton(lambda z: a * z + (1 - a) * jnp.pi, jnp.zeros(1))
    assert found.converged and found.steps == 2


@every_solver
def test_where_it_stands_already_no_step_is_made(solver):
    found = solver(lambda z: z / 2 + 1, jnp.full(2, 2.0))
    assert found.steps == 0 and found.residual == 0 and found.converged
    found = solver(lambda z: z / 2 + 1, jnp.full(2, 2.1))
    assert found.steps > 0


@every_solver
def test_a_scale_says_what_is_small(solver):
    scale = jnp.array([1.0, 1e-3])
    g = lambda z: jnp.array([0.5, 0.25]) * jnp.sin(z) + scale
    found = solver(g, jnp.zeros(2), scale=scale, tol=1e-2)
    r = g(found.z) - found.z
    np.testing.assert_allclose(found.residual, np.abs(r / scale).max(), 1e-5)
    assert found.converged and 0 < found.residual <= 1e-2


def test_broydens_pairs_stay_where_they_are():
    """Stored in place: a copy at every step would cost as much as the products."""
    g = lambda z: jnp.cos(z) / 2
    program = jax.jit(lambda z: broyden(g, z, memory=7)).lower(jnp.zeros(160))
    lines = program.compile().as_text().splitlines()
    pairs = [line for line in lines if re.search(r"= f\d+\[.*7,160\]", line)]
    assert any("dynamic-update-slice" in line for line in pairs)
    assert not any(" copy(" in line for line in pairs)


def test_only_a_small_residual_is_looked_at_closely():
    """Two divisions a component, by its own size, and only once ‖r‖ is small."""
    g = lambda z: 0.5 * jnp.cos(z)
    lines = str(jax.make_jaxpr(lambda z: picard(g, z))(jnp.zeros(160)))
    before, closely = lines.split(" cond[")
    assert not re.search(r"f\d+\[160\] = div", before)
    assert len(re.findall(r"f\d+\[160\] = div", closely)) == 2


def test_the_largest_of_any_size():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32, float):
        of = lambda *v, dtype=dtype: largest(jnp.array(v, dtype))
        assert of(0.0, -0.0) == 0
        assert of(1.0, -2.0, 1.5) == 2 and of(-1e-5).dtype == of(1.0).dtype
        assert of(1.0, -jnp.inf) == jnp.inf
        assert of(-1 / 3) == jnp.array(1 / 3, dtype)  # the last bit, too
        assert jnp.isnan(of(jnp.inf, jnp.nan, 1.0))
        assert jnp.isnan(of(-jnp.nan, -jnp.inf))
    both = largest(jnp.array([[1.0, -3.0], [0.5, 0.25]]))
    np.testing.assert_array_equal(both, [3.0, 0.5])
    of_each = largest(jnp.array([1.0, -3.0]), jnp.array([0.5, jnp.nan]))
    np.testing.assert_array_equal(of_each, [3.0, jnp.nan])
    double = largest(np.array([1.0, -3.0]), jnp.array([2.0, 0.5], jnp.float16))
    assert double[1] == 2 and double[1].dtype == jnp.result_type(float)


@pytest.mark.parametrize("shape", [(3,), (5000,), (64, 64), (3, 5000)])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32, float])
def test_no_nan_is_lost_among_many(shape, dtype):
    """As XLA's own largest loses it on a CPU, from 4096 entries on (jax 0.10).

    On a GPU, |NaN| keeps its sign in float64 (jax 0.11): no size is taken as a float.
    """
    many = jnp.linspace(-2.0, 1.0, math.prod(shape), dtype=dtype).reshape(shape)
    compiled = jax.jit(largest)
    assert compiled(many).max() == 2
    assert not re.search(r"f\d+\S* = abs", str(jax.make_jaxpr(largest)(many)))
    for nan in (jnp.nan, -jnp.nan):
        for at in (0, many.size // 2, many.size - 1):
            one = many.ravel().at[at].set(nan).reshape(shape)
            assert np.isnan(np.asarray(compiled(one), float)).sum() == 1
            of_both = [np.isnan(of).sum() for of in compiled(many, one)]
            assert of_both == [0, 1]


@every_solver
def test_one_of_many_states_that_is_not_a_number_is_a_failure(solver):
    """Its logarithm has no value from the second step on. The others settle."""
    g = lambda z: (0.5 * z + 1).at[7].set(jnp.log(z[7] - 0.5))
    for m in (20, 700):
        found = solver(g, jnp.full(m, 1.2))
        assert not found.converged and np.isnan(found.z).all()


def test_lengths_and_ratios_of_any_size():
    largest = float(jnp.finfo(jnp.result_type(float)).max)
    for size in (largest**-0.9, 1e-5, 1.0, 1e5, largest**0.9):
        v = size * jnp.array([3.0, -4.0])
        np.testing.assert_allclose(length(v) / size, 5.0, 1e-5)
    assert length(jnp.zeros(2)) == 0
    assert length(jnp.array([1.0, jnp.inf])) == jnp.inf
    assert jnp.isnan(length(jnp.array([1.0, jnp.nan])))
    a, b = jnp.array([0, 0, 3, -3, -1, 1, 1]), jnp.array([0, 5, -2, 2, 4, 4, 0])
    want = [0, 0, 1.5, 1.5, 0.25, 0.25, jnp.inf]
    np.testing.assert_array_equal(ratio(a * 1.0, b * 1.0), want)


def test_with_a_scale_the_first_step_within_the_tolerance_is_the_last():
    g, scale = lambda z: z / 2 + 1, jnp.array([1.0, 4.0])
    found = picard(g, jnp.zeros(2), tol=1e-4, scale=scale, history=True)
    assert found.steps == 14
    assert found.residual[14] == 2.0**-14 and found.residual[13] > 1e-4


def test_no_more_steps_are_made_than_are_allowed():
    found = picard(lambda z: z + 1, jnp.zeros(1), max_steps=3, history=True)
    assert found.steps == 3 and found.residual.shape == (4,)
    assert not found.converged


@pytest.mark.parametrize("g", [lambda z: z / 0, lambda z: jnp.log(-1 - z)])
def test_where_g_is_not_finite_the_residual_is_infinite(g):
    found = picard(g, jnp.ones(1))
    assert found.residual == jnp.inf and found.steps == 0
