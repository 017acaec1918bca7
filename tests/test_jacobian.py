"""The Jacobian and its products, against closed form, long unrolls and slopes."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

import deqlib
from deqlib import (
    adjoint,
    fixed_point,
    jacobian,
    jacobian_vjp,
    jvp,
    linear,
    mixed_hessian,
    models,
    vjp,
)
from deqlib.check import slopes, taylor_remainders


def unroll(example, steps=200):
    def equilibrium(x):
        step = lambda z, _: (example.f(x, z), None)
        return jax.lax.scan(step, example.z0, length=steps)[0]

    return equilibrium


@cache
def case_of(seed):
    example = models.random_layer(seed, m=5, n=3)
    truth = jax.jit(jax.jacfwd(unroll(example)))(example.x)
    return example, fixed_point(*example).z, np.asarray(truth)


@pytest.fixture(params=range(3))
def case(request):
    return case_of(request.param)


def by_weights(function):
    """Compiled once for all the seeds: function(f, …) of the weights of f."""
    of = lambda weights, *more: function(models.tanh_layer(**weights), *more)
    compiled = jax.jit(of)
    return lambda f, *more: compiled(second.weights_of(f), *more)


@pytest.mark.parametrize("m, n", [(30, 20), (20, 30)])
def test_block_bounds_memory_and_changes_nothing(m, n, close, on_cpu):
    """With 800 hidden units a product needs far more room than it has entries."""
    draw = np.random.default_rng(0).normal
    shapes = (800, n), (800, 800), (m, 800)
    U, T, V = (jnp.asarray(draw(size=shape), float) / 30 for shape in shapes)
    f = lambda x, z: (
        z / 2 - jnp.roll(z, 1) ** 3 + V @ jnp.tanh(T @ jnp.tanh(U @ x))
    )
    x = jnp.linspace(-1, 1, n)
    z = fixed_point(f, x, jnp.zeros(m)).z
    whole, larger, smaller, single = (
        jax.jit(partial(jacobian, f, block=block)).lower(x, z).compile()
        for block in (None, 31, 3, 1)
    )
    for compiled in (larger, smaller, single):
        close(compiled(x, z), whole(x, z))
    room = lambda compiled: compiled.memory_analysis().temp_size_in_bytes
    assert room(single) < room(smaller) < 0.5 * room(whole)
    with pytest.raises(ValueError, match="block: expected at least 1"):
        jacobian(f, x, z, block=0)


def test_affine_closed_form(close):
    W = np.array([[0.1, 0.7], [-0.4, 0.3]])
    U = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])
    x = np.array([1.0, -2.0, 0.5])
    S = np.linalg.solve(np.eye(2) - W, U)
    close(jax.jit(partial(jacobian, models.affine(W, U)))(x, S @ x), S)


def test_square_root(close):
    x = np.array([2.0])
    S = jax.jit(partial(jacobian, models.square_root))(x, np.sqrt(x))
    close(S, np.diag(0.5 / np.sqrt(x)))


jitted = by_weights(jacobian)


def test_jacobian_against_unroll(case, close):
    (f, x, _), z, S = case
    close(jacobian(f, x, z), S)
    close(jitted(f, x, z), S)


@by_weights
def products(f, x, z, v, u):
    J = jax.jacfwd(f, 1)(x, z)
    return jvp(f, x, z, v), vjp(f, x, z, u), adjoint(f, x, z, u), J


def test_products(case, close):
    (f, x, _), z, S = case
    v, u = np.array([1.0, -0.5, 2.0]), np.array([0.3, -1.0, 0.2, 2.0, 1.0])
    forward, backward, lam, J = products(f, x, z, v, u)
    close(forward, S @ v)
    close(backward, u @ S)
    close(lam, np.linalg.solve((np.eye(5) - J).T, u))


@cache
def both_by(linear_solver):
    how = {"linear_solver": linear_solver}
    return by_weights(
        lambda f, x, z: (jacobian(f, x, z, **how), vjp(f, x, z, z, **how))
    )


@pytest.mark.parametrize(
    "linear_solver",
    [linear.direct, linear.neumann, linear.gmres],
    ids=lambda s: s.__name__,
)
def test_with_each_linear_solver(case, linear_solver, close):
    (f, x, _), z, S = case
    whole, row = both_by(linear_solver)(f, x, z)
    close(whole, S)
    close(row, np.asarray(z) @ S)


def test_derivatives_of_the_products_are_total(close):
    """z moves with x, although it is passed as a number."""
    example = models.random_layer(4, m=4, n=2)
    f, x, _ = example
    z, u, v = fixed_point(*example).z, np.arange(1.0, 5.0), np.array([1.0, -1])

    @jax.jit
    def derivatives(x):
        return (
            jax.jacfwd(jax.jacfwd(unroll(example)))(x),
            jax.jacfwd(lambda x: jacobian(f, x, z))(x),
            jax.jacrev(lambda x: jvp(f, x, z, v))(x),
            jax.jacfwd(lambda x: vjp(f, x, z, u))(x),
        )

    H, of_jacobian, of_jvp, of_vjp = derivatives(x)
    close(of_jacobian, H)
    close(of_jvp, np.einsum("ijk,j->ik", H, v))
    close(of_vjp, np.einsum("i,ijk->jk", u, H))


def test_products_with_a_tree(close):
    example = models.random_layer(5)
    f, x, z0 = example
    tree = {"a": x[:1], "b": (x[1:],)}
    g = lambda t, z: f(jnp.concatenate([t["a"], t["b"][0]]), z)

    @jax.jit
    def products(x, tree):
        z = fixed_point(f, x, z0).z
        S = jacobian(f, x, z)
        return jvp(g, tree, z, tree), vjp(g, tree, z, z), S @ x, z @ S

    forward, backward, Sx, zS = products(x, tree)
    close(forward, Sx)
    close(backward, {"a": zS[:1], "b": (zS[1:],)})


def test_batches_by_vmap(close):
    f, x, z0 = models.random_layer(6)
    xs = jnp.stack([x, -x, 0.5 * x])
    zs = jax.jit(jax.vmap(lambda x: fixed_point(f, x, z0).z))(xs)
    batch = jax.jit(jax.vmap(lambda x, z: jacobian(f, x, z)))(xs, zs)
    for x, z, S in zip(xs, zs, batch, strict=True):
        close(S, jacobian(f, x, z))


solved = by_weights(lambda f, x, z0: fixed_point(f, x, z0).z)
along = by_weights(jvp)


def test_slopes(case):
    (f, x, z0), z, _ = case
    v = np.array([0.6, -0.3, 0.7])
    equilibrium = lambda x: solved(f, x, z0)
    model = [along(f, x, z, v)]
    found = slopes(*taylor_remainders(equilibrium, x, v, model))
    assert np.abs(found - [1, 2]).max() < 0.25, found


@pytest.mark.parametrize("m, n", [(5, 3), (3, 5), (4, 4), (1, 4), (4, 1)])
def test_as_many_solves_as_the_shorter_side_is_long(m, n):
    f, x, z = models.random_layer(0, m, n)
    layer, C, seen = lambda t, x, z: f(t * x, z), jnp.ones((m, n)), []

    def solver(matvec, b):
        jax.debug.callback(lambda b: seen.append(b.shape), b)
        return linear.direct(matvec, b)

    def solves(function, *arguments):
        seen.clear()
        function(*arguments, linear_solver=solver)
        jax.effects_barrier()
        return len(seen)

    shorter = min(m, n)
    assert solves(jacobian, f, x, z) == shorter
    assert solves(mixed_hessian, layer, 1.0, x, z) == 2 * shorter + 1
    assert solves(jacobian_vjp, f, x, z, C) == 2 * shorter + 1


def test_singular_is_nan():
    """At the fold of tanh(w z + b), w = 1 and b = 0, the equilibrium has no slope."""
    x, z = jnp.array([1.0, 0.0]), jnp.zeros(1)
    assert jnp.isnan(jacobian(models.tanh_scalar, x, z)).all()
    assert jnp.isnan(vjp(models.tanh_scalar, x, z, jnp.ones(1))).all()


def test_failed_equilibrium_is_nan_also_where_the_layer_is_affine():
    f = models.affine(jnp.eye(2) / 2, jnp.ones((2, 1)))
    x, z = jnp.ones(1), jnp.full(2, jnp.nan)
    assert jnp.isnan(jacobian(f, x, z)).all()
    assert jnp.isnan(vjp(f, x, z, jnp.ones(2))).all()


@pytest.mark.parametrize("function", [jacobian, jvp, adjoint, vjp])
def test_bad_layers(function):
    f, x, z = models.random_layer(0)
    more = {jacobian: (), jvp: (x,), adjoint: (z,), vjp: (z,)}[function]
    with pytest.raises(
        ValueError, match=r"f\(x, z\): expected the shape.*\(5,\).*\(4,\)"
    ):
        function(lambda x, z: z[:4], x, z, *more)
    with pytest.raises(TypeError, match="x: expected real floats, got int"):
        function(f, jnp.arange(3), z, *more)
    with pytest.raises(TypeError, match="z: expected real floats, got complex"):
        function(f, x, z + 1j, *more)
    with pytest.raises(
        ValueError, match=r"z: expected a non-empty vector.*\(0,\)"
    ):
        function(f, x, z[:0], *more)
    if function is jacobian:
        with pytest.raises(
            ValueError, match=r"z: expected a non-empty vector.*\(5, 1\)"
        ):
            function(f, x, z[:, None])


def test_bad_directions():
    f, x, z = models.random_layer(0)
    with pytest.raises(
        ValueError, match=r"v: expected the shape of x, \(3,\), got \(5,\)"
    ):
        jvp(f, x, z, z)
    for product in (adjoint, vjp):
        with pytest.raises(
            ValueError, match=r"u: expected the shape of z, \(5,\)"
        ):
            product(f, x, z, x)
        with pytest.raises(TypeError, match="u: expected real floats, got int"):
            product(f, x, z, jnp.arange(5))
    with pytest.raises(ValueError, match="v: expected the structure of x"):
        jvp(f, x, z, {"v": x})
    with pytest.raises(
        TypeError, match="x: expected one vector of floats, got a dict"
    ):
        jacobian(lambda t, z: f(t["x"], z), {"x": x}, z)
    with pytest.raises(
        ValueError, match=r"x: expected a non-empty vector.*\(3, 1\)"
    ):
        jacobian(f, x[:, None], z)


def test_public_names():
    assert all(hasattr(deqlib, name) for name in deqlib.__all__)
