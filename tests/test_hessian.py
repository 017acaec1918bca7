"""The Hessian tensor and gradients through the Jacobian, against what knows no theorem."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import (
    fixed_point,
    hessian,
    jacobian,
    jacobian_vjp,
    linear,
    models,
)
from deqlib.check import relative_error, rounding, slopes, taylor_remainders

TIGHT = 1e-10


@pytest.fixture(params=[(s, *second.SHAPES[s % 2]) for s in range(2)])
def case(request):
    return second.case_of(*request.param)


@partial(jax.jit, static_argnums=(0, 4))
def both(f, x, z, C, linear_solver=None):
    return (
        hessian(f, x, z, linear_solver=linear_solver),
        jacobian_vjp(f, x, z, C, linear_solver=linear_solver),
    )


def test_square_root(close):
    x, C = np.array([2.0, 3.0]), np.array([[1.0, 5.0], [7.0, 2.0]])
    bend, want = -0.25 * x**-1.5, np.zeros((2, 2, 2))
    want[0, 0, 0], want[1, 1, 1] = bend
    H, product = both(models.square_root, x, np.sqrt(x), C)
    close(H, want)
    close(product, np.diag(C) * bend)


def test_affine_layers_do_not_bend():
    W, U = jnp.array([[0.1, 0.7], [-0.4, 0.3]]), jnp.ones((2, 3))
    f, x = models.affine(W, U), jnp.ones(3)
    z = fixed_point(f, x, jnp.zeros(2)).z
    for derivative in both(f, x, z, U):
        assert np.all(np.asarray(derivative) == 0)


@pytest.mark.parametrize("name", second.SOLVERS)
def test_against_unroll_with_each_linear_solver(case, name, close):
    got = both(case.f, case.p, case.z, case.C, second.SOLVERS[name])
    close(got, (case.H, np.tensordot(case.C, case.H, 2)), TIGHT)


def test_against_autodiff_of_the_jacobian(case, close):
    """`jacobian` is differentiable itself: another road to the same place."""
    S = lambda x: jacobian(case.f, x, case.z)
    contracted = jax.grad(lambda x: jnp.sum(case.C * S(x)))
    want = jax.jit(lambda x: (jax.jacfwd(S)(x), contracted(x)))(case.p)
    close(both(case.f, case.p, case.z, case.C, linear.direct), want, TIGHT)


def test_symmetry(case):
    H, _ = both(case.f, case.p, case.z, case.C, linear.direct)
    assert relative_error(H.swapaxes(1, 2), H) < rounding()


def test_its_own_derivatives_are_total(close):
    case = second.case_of(0, 5, 3)
    move = lambda x: hessian(case.f, x, case.z)
    close(jax.jit(jax.jacfwd(move))(case.p), case.third, 1e-9)
    move = lambda x: jacobian_vjp(case.f, x, case.z, case.C)
    want = np.tensordot(case.C, case.third, 2)
    close(jax.jit(jax.jacfwd(move))(case.p), want, 1e-9)
    close(jax.jit(jax.jacrev(move))(case.p), want, 1e-9)


def test_slopes():
    case = second.case_of(2, 5, 3)
    equilibrium = jax.jit(lambda x: fixed_point(case.f, x, case.z0).z)
    steps = 0.3 * 0.5 ** np.arange(5.0)
    S, H = jax.jit(
        lambda x, z: (jacobian(case.f, x, z), hessian(case.f, x, z))
    )(case.p, case.z)

    def found(factor):
        """With the second derivative times `factor`."""
        along = [S @ case.w, factor * (H @ case.w @ case.w)]
        return slopes(
            *taylor_remainders(equilibrium, case.p, case.w, along, steps)
        )

    if jnp.result_type(float) == jnp.float64:
        assert np.all(np.abs(found(1.0) - [1, 2, 3]) < 0.3)
        assert found(1.1)[2] < 2.5


@pytest.mark.parametrize("m, n", [(12, 4), (4, 12), (9, 9)])
def test_nothing_larger_than_the_result_is_formed(m, n):
    f, x, z = models.random_layer(0, m, n)
    assert second.largest_array(partial(hessian, f), x, z) == m * n * n
    naive = jax.jacfwd(jax.jacfwd(f, 1), 1)
    assert second.largest_array(naive, x, z) >= m**3


def test_gradients_through_the_jacobian_form_no_tensor():
    (f, x, z), C = models.random_layer(0, 10, 8), jnp.ones((10, 8))
    largest = second.largest_array(partial(jacobian_vjp, f), x, z, C)
    assert largest <= 10 * 10
    by_the_tensor = lambda x, z: jnp.tensordot(C, hessian(f, x, z), 2)
    assert second.largest_array(by_the_tensor, x, z) == 10 * 8 * 8


def test_failures_are_nan_everywhere(case):
    nan = jnp.full_like(case.z, jnp.nan)
    affine = models.affine(0.5 * jnp.eye(case.m), jnp.ones(case.C.shape))
    flat = lambda x, z: z + 0 * jnp.sum(x)
    for f, z in [(case.f, nan), (affine, nan), (flat, case.z)]:
        assert jnp.all(jnp.isnan(hessian(f, case.p, z)))
        assert jnp.all(jnp.isnan(jacobian_vjp(f, case.p, z, case.C)))


def test_bad_input(case):
    f, x, z = case.f, case.p, case.z
    for function in (hessian, partial(jacobian_vjp, C=case.C)):
        with pytest.raises(TypeError, match="x: expected one vector"):
            function(f, {"x": x}, z)
        with pytest.raises(ValueError, match="x: expected a non-empty vector"):
            function(lambda x, z: z, jnp.ones((2, 2)), z)
        with pytest.raises(TypeError, match="z: expected"):
            function(f, x, jnp.arange(3))
        with pytest.raises(ValueError, match=r"f\(x, z\): expected the shape"):
            function(lambda x, z: z[:1], x, z)
    with pytest.raises(ValueError, match="C: expected the shape of the Jac"):
        jacobian_vjp(f, x, z, case.C.T)
