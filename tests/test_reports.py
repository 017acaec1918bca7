"""Situations that people reported elsewhere, each with the value that is right.

One example stands for a kind. The thread in which it was met is named beside it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from deqlib import (
    anderson,
    broyden,
    fixed_point,
    implicit,
    jacobian,
    jacobian_vjp,
    loss_hvp,
    mixed_hessian,
    newton,
    picard,
)
from deqlib.check import relative_error

BOTH = [jnp.float32, jnp.float64]
each_dtype = pytest.mark.parametrize("dtype", BOTH, ids=["single", "double"])


@pytest.fixture(autouse=True)
def both_precisions():
    with jax.enable_x64(True):
        yield


def eps_of(dtype):
    return float(jnp.finfo(dtype).eps)


def test_taylor_mode_is_refused():
    """diffrax 616, jax 2431."""
    F = lambda x: fixed_point(lambda x, z: z / 2 + x**2, x, jnp.zeros(1)).z[0]
    e = jnp.ones(1)
    with pytest.raises(NotImplementedError, match="x: .*Taylor mode.*jacfwd"):
        jet(F, (3 * e,), ([e, 0 * e],))
    # Under jit it is JAX that stops, each version in its own way.
    stops = (
        NotImplementedError,
        AttributeError,
        jax.errors.UnexpectedTracerError,
    )
    with pytest.raises(stops):
        jet(jax.jit(F), (3 * e,), ([e, 0 * e],))


def heat(x, z):
    beside = jnp.pad(z[1:], (0, 1)) + jnp.pad(z[:-1], (1, 0))
    return beside / 2 + x / z.size**2


@each_dtype
@pytest.mark.parametrize("m", [32, 128, 129, 500])
@pytest.mark.parametrize("solver", [newton, None])
def test_the_heat_equation_at_every_size(m, dtype, solver):
    """jax 15837, SciMLSensitivity 1207, jaxopt 466, lineax 160. As good as a dense solve:
    the condition number is m²/5."""
    options = {"solver": solver} if solver else {"max_steps": 4000}
    loss = lambda x: jnp.sum(
        fixed_point(heat, x, jnp.zeros(m, dtype), **options).z ** 2
    )
    A = np.eye(m) - (np.eye(m, k=1) + np.eye(m, k=-1)) / 2
    i = np.arange(1, m + 1)
    want = np.linalg.solve(A, 2 * i * (m + 1 - i) / m**2) / m**2
    got = jax.jit(jax.grad(loss))(jnp.ones(m, dtype))
    error = relative_error(got, want)
    if solver or np.isfinite(error):
        assert error < 10 * m**2 * eps_of(dtype)


@pytest.mark.parametrize("radius", [0.9, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(2))
@each_dtype
def test_random_layers_of_150_states(radius, seed, dtype):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(150, 150))
    W *= radius / np.abs(np.linalg.eigvals(W)).max()
    J = jnp.asarray(W, dtype)
    f = lambda x, z: J @ z + x
    u = jnp.asarray(rng.normal(size=150), dtype)
    loss = lambda x: u @ fixed_point(f, x, 0 * x, solver=newton).z
    want = np.linalg.solve(np.eye(150) - W.T, u)
    got = jax.jit(jax.grad(loss))(jnp.ones(150, dtype))
    assert relative_error(got, want) < 1e4 * eps_of(dtype)


@each_dtype
@pytest.mark.parametrize("size", [1e-13, 1e-4, 1e13])
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_states_of_any_size(dtype, size, solver):
    """scipy 18740, optimistix 161."""
    x = jnp.array([size], dtype)
    f = lambda x, z: x * jnp.exp(-z / x)
    solution = fixed_point(f, x, 0 * x, solver=solver)
    assert solution.converged
    np.testing.assert_allclose(solution.z / x, 0.5671432904, rtol=1e-5)
    slope = jax.jacrev(lambda x: fixed_point(f, x, 0 * x, solver=solver).z)(x)
    np.testing.assert_allclose(slope, [[0.5671432904]], rtol=1e-5)


def test_a_layer_that_couples_a_batch_by_name_is_refused():
    """equinox 45, jaxopt 333, NonlinearSolve.jl 1310."""
    f = lambda x, z: 0.3 * z + x - 0.6 * jax.lax.pmean(z, "b")
    solve = lambda x: fixed_point(f, x, jnp.zeros(1)).z[0]
    batch = jnp.array([[0.3], [-0.5], [1.1]])
    of_batch = jax.vmap(solve, axis_name="b")
    for derivative in (of_batch, jax.jacrev(of_batch), jax.jit(of_batch)):
        with pytest.raises(ValueError, match="over the named axis 'b'"):
            derivative(batch)
    inner = lambda x, z: jax.jit(lambda z: f(x, z))(z)
    with pytest.raises(ValueError, match="solve for the whole batch"):
        jax.vmap(lambda x: jacobian(inner, x, x), axis_name="b")(batch)
    # As one state it is right.
    whole = lambda x, z: 0.3 * z + x - 0.6 * z.mean()
    S = jacobian(
        whole, batch[:, 0], fixed_point(whole, batch[:, 0], batch[:, 0]).z
    )
    np.testing.assert_allclose(S[0], [1.2087912, -0.21978, -0.21978], rtol=1e-5)


@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_mixed_units_of_the_state(solver):
    """NLsolve.jl 206, Optim.jl 1107: the small component is found as well."""
    f = lambda x, z: jnp.stack([0.5 * z[0] + x[0] / 2, 0.9 * z[1] + 0.1 * x[1]])
    x = jnp.array([1e5, 1e-3], jnp.float32)
    for scale in (None, x):
        z = fixed_point(f, x, 0 * x, solver=solver, scale=scale).z
        np.testing.assert_allclose(z, x, rtol=2e-3 if scale is None else 1e-4)


def masked(t):
    f = lambda p, z: (p[0] * p[1] + z * z) / 2
    samples = jnp.array([0.2, 0.5, 0.8, 3.0])
    s = jax.vmap(lambda d: fixed_point(f, (t, d), jnp.zeros(1)))(samples)
    return s.z[:, 0], s.converged


def test_a_failed_sample_that_nothing_uses():
    """optimistix 39 and 66."""
    d = np.array([0.2, 0.5, 0.8])
    want = np.sum(d / (2 * np.sqrt(1 - d))), np.sum(d**2 / (4 * (1 - d) ** 1.5))

    def loss(t):
        z, converged = masked(t)
        return jnp.sum(jnp.where(converged, z, 0.0))

    for first in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(
            jax.jit(first(loss))(1.0), want[0], rtol=1e-6
        )
    for second in (jax.hessian(loss), jax.jacfwd(jax.jacfwd(loss))):
        np.testing.assert_allclose(jax.jit(second)(1.0), want[1], rtol=1e-6)
    used = lambda t: jnp.sum(masked(t)[0])
    for of in (used, jax.grad(used), jax.jacfwd(used), jax.hessian(used)):
        assert jnp.isnan(jax.jit(of)(1.0))


def loop(x, z):
    body = lambda c: (c[0] + 1, c[1] / 2 + x)
    return jax.lax.while_loop(lambda c: c[0] < 3, body, (0, z))[1]


def test_forward_mode_through_a_loop_in_the_layer():
    """jax 650, jax 18311."""
    x = jnp.ones(1)
    for solver in (broyden, newton):
        solve = lambda x, how=solver: fixed_point(loop, x, 0 * x, solver=how).z
        np.testing.assert_allclose(jax.jacfwd(solve)(x), [[2.0]])
        np.testing.assert_allclose(
            jax.jacfwd(jax.jacfwd(solve))(x), 0, atol=1e-9
        )
    np.testing.assert_allclose(jacobian(loop, x, 2 * x), [[2.0]])
    wide = lambda x, z: loop(x[:1] + x[1:], z)
    S = jacobian(wide, jnp.ones(2), 4 * x)
    np.testing.assert_allclose(S, [[2.0, 2.0]])
    with pytest.raises(Exception, match="[Rr]everse|backwards|transpose"):
        jax.grad(lambda x: solve(x).sum())(x)


def test_a_layer_with_reverse_mode_alone():
    """optimistix 50, jax 1927."""
    h = jax.custom_vjp(lambda z: z / 2)
    h.defvjp(lambda z: (z / 2, None), lambda _, g: (g / 2,))
    f = lambda x, z: h(z) + x
    for m in (2, 150):
        x = jnp.ones(m)
        for solver in (broyden, newton):
            loss = lambda x, s=solver: fixed_point(
                f, x, 0 * x, solver=s
            ).z.sum()
            np.testing.assert_allclose(jax.grad(loss)(x), 2.0)
            np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), 2.0)
        np.testing.assert_allclose(
            jacobian(f, x, 2 * x), 2 * np.eye(m), atol=1e-9
        )


@pytest.mark.parametrize(
    "solver, m",
    [(picard, 1), (anderson, 1), (broyden, 1), (newton, 1), (broyden, 130)],
)
def test_shard_map_with_its_defaults(solver, m):
    """lineax 185, jax 27664. One device is enough for the types to be checked."""
    f = lambda p, z: p[0] * z + p[1]
    solve = lambda p: fixed_point(f, p, jnp.zeros(m), solver=solver).z[:1]
    of = lambda w, X: jax.vmap(lambda x: solve((w, x)))(X)
    sharded = jax.shard_map(
        of,
        mesh=Mesh(np.array(jax.devices()[:1]), ("d",)),
        in_specs=(P(), P("d")),
        out_specs=P("d"),
    )
    w, X = jnp.array(0.5), jnp.arange(4.0)[:, None]
    np.testing.assert_allclose(jax.jit(sharded)(w, X), 2 * X)
    loss = lambda w: jnp.sum(sharded(w, X))
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), 4 * 6.0)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(w), 4 * 6.0)


def test_at_rounding_newton_is_done():
    """optika 168: 1e4 in units of its own rounding."""
    f = lambda x, z: z - (jnp.exp(z) - x)
    solve = lambda x: fixed_point(f, x, jnp.array([9.0]), solver=newton)
    x = jnp.array([1e4])
    assert solve(x).converged
    np.testing.assert_allclose(solve(x).z, 9.210340371976184, rtol=1e-15)
    np.testing.assert_allclose(jax.jacfwd(lambda x: solve(x).z)(x), [[1e-4]])


@pytest.mark.parametrize("m", [2, 150])
def test_a_conserved_total(m):
    """diffrax 137, Catalyst 720, ott 162: singular A, and the same state pinned."""
    rest = np.random.default_rng(0).dirichlet(np.ones(m - 1), m).T
    P0 = jnp.asarray(np.vstack([rest, rest[:1]]) / 2 + 0.5 / m)
    P0 = P0 / P0.sum(0, keepdims=True)

    def chain(t, z, pinned):
        moved = (
            P0 @ z
            + t * (z[0] - z[1]) * jnp.eye(m)[1]
            - t * (z[0] - z[1]) * jnp.eye(m)[0]
        )
        return moved + (0.5 / m * (1 - jnp.sum(z)) if pinned else 0.0)

    start = jnp.full(m, 1 / m)

    def solve(t, pinned):
        f = lambda t, z: chain(t, z, pinned)
        return fixed_point(f, t, start, solver=picard).z[0]

    step = 1e-5
    slope = (solve(0.1 + step, False) - solve(0.1 - step, False)) / (2 * step)
    for mode in (jax.grad, jax.jacfwd):
        assert jnp.isnan(mode(solve)(0.1, False)) or m > 128
        np.testing.assert_allclose(mode(solve)(0.1, True), slope, rtol=1e-6)


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_debug_nans_raises_no_false_alarm(solver, history):
    """jax 18680, 5698."""
    f = lambda x, z: 0.5 * z + x
    with jax.debug_nans(True), jax.disable_jit():
        solve = lambda x: (
            fixed_point(f, x, jnp.zeros(1), solver=solver, history=history).z
        )
        np.testing.assert_allclose(solve(jnp.ones(1)), 2.0)
        np.testing.assert_allclose(jax.jacfwd(solve)(jnp.ones(1)), [[2.0]])
        np.testing.assert_allclose(jacobian(f, jnp.ones(1), 2 * jnp.ones(1)), 2)


# What a numerical review found -------------------------------------------------------

MISSED = [
    (jnp.float32, 1 + 1e-5, {}),
    (jnp.float32, 1 + 3e-6, {}),
    (jnp.float64, 1 + 1e-14, {}),
    (jnp.float64, 1 + 1e-12, {}),
    (jnp.float64, 1.0005, {"tol": 1e-3}),
    (jnp.float64, 1.0001, {"tol": 1e-3}),
]


@pytest.mark.parametrize("dtype, t, options", MISSED)
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
@pytest.mark.parametrize("start", [0.0, 2.0])
def test_a_fold_just_missed_is_no_equilibrium(dtype, t, options, solver, start):
    f = lambda t, z: t + z**2 / 4
    z0 = jnp.full(1, start, dtype)
    options = options | {"max_steps": 5000 if solver is picard else 200}
    solution = fixed_point(
        f, jnp.asarray(t, dtype), z0, solver=solver, **options
    )
    assert not solution.converged


GAPS = [(jnp.float32, [1e-4, 1e-3, 9e-3]), (jnp.float64, [1e-10, 1e-6, 1e-3])]


@pytest.mark.parametrize("dtype, gaps", GAPS)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_a_fold_just_missed_beside_a_large_component(dtype, gaps, size, solver):
    """Against that, what is left of the small one is a rounding, first or second."""
    z0, steps = jnp.zeros(2, dtype), 5000 if solver is picard else 200

    def solve(t, order):
        def h(t, z):
            small, large = z[order]
            return jnp.stack([t + small**2 / 4, large / 2 + size / 2])[order]

        return fixed_point(h, t, z0, solver=solver, max_steps=steps)

    t, orders = 1 + jnp.asarray(gaps * 2, dtype), [[0, 1]] * 3 + [[1, 0]] * 3
    solution = jax.vmap(solve)(t, jnp.array(orders))
    assert not solution.converged.any()


def test_a_fold_just_missed_while_a_large_component_settles():
    """Newton comes to both at once: the larger moves more, but less in its own size."""
    size, t = 1e4, 1 + jnp.array([1e-12, 4e-12])
    settles = lambda z: z - size * jnp.expm1(z / size - 1)
    h = lambda t, z: jnp.stack([t + z[0] ** 2 / 4, settles(z[1])])
    alone = newton(settles, jnp.full(1, 9 * size))
    np.testing.assert_allclose(alone.z, size)

    def solve(t, guess):
        z0 = jnp.stack([0.0, size * guess])
        return fixed_point(h, t, z0, solver=newton, max_steps=300).converged

    guesses = jnp.linspace(2, 30, 200)
    every = jax.vmap(jax.vmap(solve, (None, 0)), (0, None))
    assert not every(t, guesses).any()


# A first guess that is far off: what g was there is no size of what comes after it. ----

GUESSES = [(jnp.float32, 80.0), (jnp.float64, 650.0)]


@pytest.mark.parametrize("dtype, most", GUESSES)
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_a_first_guess_at_which_an_exponential_is_huge(solver, dtype, most):
    """Right or refused. One jump to e^80, and what came next was called converged."""
    f = lambda x, z: x - jnp.exp(z) / 5
    x = jnp.asarray(0.5 + np.exp(0.5) / 5, dtype)
    guesses = jnp.linspace(1, most, 100, dtype=dtype)
    solve = lambda z0: fixed_point(f, x, z0, solver=solver, max_steps=900)
    found = jax.jit(jax.vmap(solve))(guesses)
    right = abs(found.z - 0.5) < 200 * eps_of(dtype)
    np.testing.assert_array_equal(found.converged, right)
    assert right.sum() > 20


@each_dtype
@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_a_first_guess_far_from_the_equilibrium(solver, dtype):
    """Each step of Picard's closes a part of the gap, as if zero were the end."""
    end, rates = jnp.array([1, 0.5], dtype), np.linspace(0.05, 0.9, 18)
    guesses = np.geomspace(1e4, 1e20, 18)
    solve = lambda a, size: fixed_point(
        lambda a, z: a * z + (1 - a) * end, a, size * end, solver=solver
    )
    found = jax.jit(jax.vmap(solve))(*jnp.array([rates, guesses], dtype))
    assert found.converged.all()
    error = np.abs(np.asarray(found.z) / np.asarray(end) - 1).max()
    assert error < 2e4 * eps_of(dtype)


def test_newton_wanders_and_ends_at_an_equilibrium_or_nowhere():
    """Half of these layers have none. From a jump to 1e50 it comes back by halves."""
    draw = np.random.default_rng(0).normal
    W, b, z0 = draw(size=(400, 2, 2)), draw(size=(400, 2)), draw(size=(400, 2))

    def f(x, z):
        W, b = x
        return W @ jnp.stack([jnp.exp(z[0]), z[1] ** 2]) + b

    solve = lambda x, z0: fixed_point(f, x, z0, solver=newton, max_steps=300)
    x = jnp.array(W), jnp.array(b)
    found = jax.jit(jax.vmap(solve))(x, 0.1 * jnp.array(z0))
    apart = jax.vmap(f)(x, found.z) - found.z
    ends = np.asarray(found.converged)
    assert 150 < ends.sum() < 250
    np.testing.assert_allclose(apart[ends], 0, atol=1e-9)


def test_newtons_step_is_small_against_the_state():
    """g is e^60 there, against which any step is small."""
    f = lambda x, z: z - x * (jnp.exp(z) - 2)
    for guess in (60.0, 200.0):
        z0 = jnp.full(1, guess)
        found = fixed_point(f, 0.1, z0, solver=newton, max_steps=300)
        np.testing.assert_allclose(found.z, np.log(2))


@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
@pytest.mark.parametrize(
    "dtype, gap", [(jnp.float32, 1e-5), (jnp.float64, 1e-13)]
)
def test_just_before_the_fold(solver, dtype, gap):
    """As precise as the data allow, or nothing."""
    t = jnp.asarray(1 - gap, dtype)
    gap = 1 - float(t)
    solve = lambda t: fixed_point(
        lambda t, z: t + z**2 / 4, t, jnp.zeros(1, dtype), solver=solver
    ).z[0]
    S, H = jax.grad(solve)(t), jax.grad(jax.grad(solve))(t)
    for got, want in ((S, gap**-0.5), (H, gap**-1.5 / 2)):
        assert not np.isfinite(got) or abs(got / want - 1) < 0.1, (got, want)


UNITS = [
    (jnp.float32, [[0.3, 0.4], [-0.2, 0.5]], [1.0, 1e3]),
    (jnp.float64, [[0.3, 0.4], [-0.2, 0.5]], [1.0, 1e8]),
    (jnp.float64, [[0.3, 0.4], [-0.2, 0.5]], [1e-150, 1e150]),
    (jnp.float32, [[0.5, -400.0], [0.0, 0.25]], [1.0, 1.0]),
    (jnp.float64, [[0.5, -1e7], [0.0, 0.25]], [1.0, 1.0]),
]


@pytest.mark.parametrize("dtype, J, units", UNITS)
def test_a_change_of_units(dtype, J, units):
    D = np.diag(units)
    J = np.linalg.inv(D) @ np.array(J) @ D
    want = np.linalg.inv(np.eye(2) - J)
    J = jnp.asarray(J, dtype)
    f = lambda x, z: J @ z + x
    x = z = jnp.zeros(2, dtype)
    for S in (jacobian(f, x, z), jax.jacrev(lambda x: implicit(f, x, z))(x)):
        error = np.abs(D @ (np.asarray(S) - want) @ np.linalg.inv(D)).max()
        size = np.abs(D @ want @ np.linalg.inv(D)).max()
        assert error < 100 * eps_of(dtype) * size


def of_200(kind):
    rng = np.random.default_rng(1)
    m = 300 if kind == "gaussian" else 200
    if kind == "symmetric":
        Q = np.linalg.qr(rng.normal(size=(m, m)))[0]
        return Q @ np.diag(np.linspace(-3, 3, m)) @ Q.T
    if kind == "gaussian":
        W = rng.normal(size=(m, m))
        return 0.999 * W / np.abs(np.linalg.eigvals(W)).max()
    return {"2": 2, "-2": -2, "0.99": 0.99}[kind] * np.roll(np.eye(m), 1, 0)


@pytest.mark.parametrize("kind", ["2", "-2", "0.99", "symmetric", "gaussian"])
def test_the_default_is_as_good_as_a_matrix(kind):
    J = of_200(kind)
    f = lambda x, z: jnp.asarray(J) @ z + x
    z = jnp.zeros(len(J))
    got = jax.jit(lambda x: jacobian(f, x, z))(z)
    want = np.linalg.inv(np.eye(len(J)) - J)
    assert relative_error(got, want) < 1e-11


def test_many_inputs_and_few_states():
    """min(n, m) solves, and room like that of the result."""
    m, n = 8, 100_000
    rng = np.random.default_rng(0)
    U = jnp.asarray(rng.normal(size=(m, n)) / n)
    f = lambda x, z: 0.5 * jnp.tanh(jnp.roll(z, 1) + U @ x)
    layer = lambda t, x, z: f(x, z) * t
    x, t = jnp.ones(n), jnp.asarray(0.9)
    z = jnp.full(m, 0.1)
    C = jnp.asarray(rng.normal(size=(m, n)))
    for function, arguments in (
        (lambda x, z: jacobian(f, x, z), (x, z)),
        (lambda x, z: jacobian_vjp(f, x, z, C), (x, z)),
        (lambda x, z: mixed_hessian(layer, t, x, z), (x, z)),
    ):
        compiled = jax.jit(function).lower(*arguments).compile()
        room = compiled.memory_analysis().temp_size_in_bytes
        assert room < 20 * 8 * m * n
        assert jnp.isfinite(compiled(*arguments)).all()


def test_products_are_precise_unless_you_choose(monkeypatch):
    """On a GPU, float32 products are TensorFloat-32 by default."""
    W = jnp.ones((3, 3)) / 9
    f = lambda x, z: jnp.tanh(W @ z + x)
    loss = lambda x, z: jnp.sum(z**2)
    solve = lambda x: fixed_point(f, x, 0 * x).z.sum()

    def products(function, *arguments):
        text = str(jax.make_jaxpr(function)(*arguments))
        return text.count("dot_general["), text.count("Precision.HIGHEST")

    x = jnp.ones(3)
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    try:
        for function, arguments in (
            (solve, (x,)),
            (jax.grad(solve), (x,)),
            (jax.hessian(solve), (x,)),
            (lambda x: loss_hvp(loss, f, x, x, x), (x,)),
        ):
            count, precise = products(function, *arguments)
            assert count and precise >= count
        with jax.default_matmul_precision("tensorfloat32"):
            count, precise = products(jax.grad(solve), x)
            assert precise < count
    finally:
        jax.config.update("jax_default_matmul_precision", before)
