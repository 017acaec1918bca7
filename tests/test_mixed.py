"""The mixed t–x Hessian and its products, against closed form, unroll and slopes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import fixed_point, mixed_hessian, mixed_vjp
from deqlib.check import slopes, taylor_remainders

TIGHT = 1e-10


@pytest.fixture(params=[(s, *second.SHAPES[s % 2]) for s in range(2)])
def case(request):
    return second.case_of(*request.param)


@partial(jax.jit, static_argnums=(0, 5))
def both(layer, t, x, z, u, linear_solver=None):
    return (
        mixed_hessian(layer, t, x, z, linear_solver=linear_solver),
        mixed_vjp(layer, t, x, z, u, linear_solver=linear_solver),
    )


def test_closed_forms(close):
    """The two pencil examples of chapter 4."""
    t, x = 0.7, np.array([0.4])
    bilinear = lambda t, x, z: t + x * z
    truth = 1 / (1 - x) ** 2
    H, row = both(bilinear, t, x, t / (1 - x), np.ones(1))
    close(H, np.diag(truth))
    close(row, truth)
    t, x = 0.2, np.array([0.3])
    square = lambda t, x, z: t + x + z**2 / 4
    z = 2 - 2 * np.sqrt(1 - t - x)
    truth = 0.5 / (1 - z / 2) ** 3
    H, row = both(square, t, x, z, np.ones(1))
    close(H, np.diag(truth))
    close(row, truth)


@pytest.mark.parametrize("name", second.SOLVERS)
def test_against_unroll_with_each_linear_solver(case, name, close):
    got = both(case.layer, case.t, case.x, case.z, case.u, second.SOLVERS[name])
    H = case.H[:, 0, 1:]
    close(got, (H, case.u @ H), TIGHT)


def test_x_is_a_tree(case, close):
    tree = {"a": case.x[:1], "b": case.x[1:]}
    layer = lambda t, x, z: case.layer(t, jnp.concatenate([x["a"], x["b"]]), z)
    got = jax.jit(partial(mixed_vjp, layer))(case.t, tree, case.z, case.u)
    want = case.u @ case.H[:, 0, 1:]
    close(got, {"a": want[:1], "b": want[1:]}, TIGHT)


def test_vmap_over_times(case, close):
    """A physics loss is a batch of these."""
    solve = lambda t: (
        fixed_point(lambda p, z: case.layer(*p, z), (t, case.x), case.z0).z
    )
    product = lambda t: mixed_vjp(case.layer, t, case.x, solve(t), case.u)
    batched = lambda times: (
        jax.vmap(product)(times),
        jax.lax.map(product, times),
    )
    close(*jax.jit(batched)(case.t + np.array([0.0, 0.1])))


def test_its_own_derivatives_are_total(close):
    """d/dt and d/dx of u^T H_tx: the third order, z moving along."""
    case = second.case_of(0, 5, 3)
    want = np.tensordot(case.u, case.third[:, 0, 1:], 1)
    product = lambda t, x: mixed_vjp(case.layer, t, x, case.z, case.u)
    dense = lambda t, x: case.u @ mixed_hessian(case.layer, t, x, case.z)
    for function in (product, dense):
        by_t, by_x = jax.jit(jax.jacfwd(function, (0, 1)))(case.t, case.x)
        close(by_t, want[:, 0], 1e-9)
        close(by_x, want[:, 1:], 1e-9)
        by_x = jax.jit(jax.jacrev(function, 1))(case.t, case.x)
        close(by_x, want[:, 1:], 1e-9)


def test_slopes():
    case = second.case_of(1, 3, 6)

    @jax.jit
    def slope_in_t(x):
        g = lambda p, z: case.layer(*p, z)
        solve = lambda t: fixed_point(g, (t, x), case.z0).z
        return jax.jvp(solve, (case.t,), (jnp.ones_like(case.t),))[1]

    steps = 0.2 * 0.5 ** np.arange(5.0)

    H = jax.jit(partial(mixed_hessian, case.layer))(case.t, case.x, case.z)

    def found(factor):
        """With the derivative times `factor`."""
        along = [factor * (H @ case.v)]
        return slopes(
            *taylor_remainders(slope_in_t, case.x, case.v, along, steps)
        )

    if jnp.result_type(float) == jnp.float64:
        assert np.all(np.abs(found(1.0) - [1, 2]) < 0.3)
        assert found(1.1)[1] < 1.5


def counted_products(n):
    case = second.case_of(0, 5, n)
    A = jnp.eye(case.m) - jax.jacfwd(case.f, 1)(case.p, case.z)
    solver = second.Counted(A)
    layer, calls = second.counted_layer(case.layer)
    mixed_vjp(layer, case.t, case.x, case.z, case.u, linear_solver=solver)
    return solver.counts(), len(calls)


def test_one_tangent_and_two_adjoint_solves_whatever_n():
    solves, evaluations = zip(*map(counted_products, (3, 12)), strict=True)
    assert solves == ((1, 2), (1, 2))
    assert evaluations[0] == evaluations[1] < 30


def test_a_failed_equilibrium_is_nan_everywhere(case):
    z = jnp.full_like(case.z, jnp.nan)
    affine = lambda t, x, z: t + jnp.sum(x) + 0.5 * z
    for layer in (case.layer, affine):
        H = mixed_hessian(layer, case.t, case.x, z)
        row = mixed_vjp(layer, case.t, case.x, z, case.u)
        assert jnp.all(jnp.isnan(H)) and jnp.all(jnp.isnan(row))


def test_a_failed_solve_is_nan_everywhere():
    """A = 0: no derivative exists, although every second derivative of f is zero."""
    layer = lambda t, x, z: z + 0 * t + 0 * jnp.sum(x)
    t, x, z = jnp.asarray(1.0), jnp.ones(2), jnp.ones(3)
    assert jnp.all(jnp.isnan(mixed_hessian(layer, t, x, z)))
    assert jnp.all(jnp.isnan(mixed_vjp(layer, t, x, z, z)))


def bad(case, **change):
    arguments = {
        "f": case.layer,
        "t": case.t,
        "x": case.x,
        "z": case.z,
    }
    return arguments | change


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"t": jnp.ones(2)}, ValueError, "t: expected one number.*(2,)"),
        ({"t": 1}, TypeError, "t: expected real floats, got int"),
        ({"x": jnp.arange(3)}, TypeError, "x.*expected"),
        ({"z": jnp.ones(0)}, ValueError, "z: expected a non-empty"),
        (
            {"f": lambda t, x, z: z[:2]},
            ValueError,
            r"f\(t, x, z\): expected the shape and dtype of z",
        ),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_bad_input(change, error, message):
    case = second.case_of(0, 5, 3)
    with pytest.raises(error, match=message):
        mixed_hessian(**bad(case, **change))
    with pytest.raises(error, match=message):
        mixed_vjp(**bad(case, **change), u=case.u)


def test_bad_shapes():
    case = second.case_of(0, 5, 3)
    with pytest.raises(TypeError, match="x: expected one vector"):
        mixed_hessian(case.layer, case.t, {"a": case.x}, case.z)
    with pytest.raises(ValueError, match="x: expected a non-empty vector"):
        mixed_hessian(lambda t, x, z: z, case.t, jnp.ones((2, 2)), case.z)
    with pytest.raises(ValueError, match="u: expected the shape of z"):
        mixed_vjp(case.layer, case.t, case.x, case.z, case.x)
