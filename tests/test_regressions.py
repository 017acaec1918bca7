"""Ways in which a derivative through an equilibrium once went wrong without a sound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deqlib import (
    Solution,
    anderson,
    broyden,
    derivatives,
    fixed_point,
    jacobian,
    linear,
    loss_gradient,
    newton,
    picard,
    vjp,
)
from deqlib._guard import guard
from deqlib.notebook.page import USUAL

X = jnp.ones(2)


def test_a_layer_is_read_anew_at_each_call():
    """A changed global or attribute must not meet an earlier trace of the layer."""

    class Layer:
        w = 0.3

        def __call__(self, x, z):
            return self.w * z + x

    layer = Layer()
    first = fixed_point(layer, X, X).z

    def loss(w):
        layer.w = w
        return fixed_point(layer, X, X).z.sum()

    assert jnp.allclose(first, 1 / 0.7) and jnp.allclose(loss(0.6), 5.0)
    assert jnp.allclose(jax.grad(loss)(0.6), 12.5)


def test_a_failure_reaches_each_leaf_of_the_gradient():
    """Also through a relu, which is flat at NaN, and for a leaf that f does not use."""
    relu = lambda x: fixed_point(
        lambda x, z: jax.nn.relu(2 * z + x), x, x, solver=picard
    ).z.sum()
    unused = lambda p: fixed_point(
        lambda p, z: 2 * z + p["a"], p, X, solver=picard
    ).z.sum()
    for value in (
        relu(X),
        jax.grad(relu)(X),
        jax.hessian(relu)(X),
        jax.jit(jax.grad(relu))(X),
        vjp(lambda x, z: jax.nn.relu(2 * z + x), X, jnp.nan * X, X),
        *jax.grad(unused)({"a": X, "b": X}).values(),
    ):
        assert jnp.isnan(value).all()


@pytest.mark.parametrize(
    "rows",
    [
        [[319, -209, -474], [-32, 87, -260], [287, -122, -734]],
        [[-4, -20, 11], [1, 1, 15], [9, 41, -7]],
    ],
)
def test_singular_matrices_without_a_small_pivot(rows):
    A, y = jnp.array(rows, float), jnp.array([1.0, 2.0, 3.0])
    f = lambda x, z: z - A @ (z - x)
    assert jnp.isnan(jacobian(f, y, y)).all()


def test_layers_that_close_over_indices():
    weights = jnp.array([[[0.3, 0.1], [0.0, 0.2]], [[0.1, 0.2], [0.3, 0.0]]])

    def loss(x, i):
        f = lambda x, z: jnp.tanh(weights[i] @ z + x)
        return fixed_point(f, x, jnp.zeros(2)).z.sum()

    grad = jax.grad(loss)
    want = grad(X, 1)
    each = jax.lax.map(lambda i: grad(X, i), jnp.arange(2))
    both = jax.grad(
        lambda x: jax.lax.map(lambda i: loss(x, i), jnp.arange(2)).sum()
    )
    assert jnp.allclose(jax.grad(jax.jit(loss))(X, 1), want)
    assert jnp.allclose(each[1], want)
    assert jnp.allclose(both(X), each.sum(0))
    assert jnp.allclose(jax.grad(jax.checkpoint(loss))(X, 1), want)


@pytest.mark.parametrize("scale", [1e-20, 1e19])
def test_cotangents_of_any_size(scale):
    f = lambda x, z: 0.5 * z + x
    for solver in (linear.direct, linear.neumann, linear.gmres):
        row = vjp(f, X, 2 * X, scale * X, linear_solver=solver)
        assert jnp.allclose(row / scale, 2 * X, rtol=1e-4)


def test_a_solver_of_your_own_is_not_trusted():
    f = lambda x, z: 0.5 * z + x

    def failing(g, z0):
        return Solution(z0 + 7, jnp.array(1.0), jnp.array(0), jnp.array(False))

    def misshapen(g, z0):
        return Solution(z0[:1], jnp.array(0.0), jnp.array(0), jnp.array(True))

    solve = lambda x: fixed_point(f, x, x, solver=failing).z
    assert jnp.isnan(solve(X)).all() and jnp.isnan(jax.jacrev(solve)(X)).all()
    with pytest.raises(
        ValueError, match=r"solver\(g, z0\).z: expected the shape"
    ):
        fixed_point(f, X, X, solver=misshapen)


def test_one_failing_sample_does_not_spoil_a_batch():
    f = lambda x, z: x * z + 1
    solve = lambda w: fixed_point(f, w, jnp.zeros(1), solver=picard).z[0]
    batch = jnp.array([[0.5], [2.0], [0.25]])
    values, slopes = jax.vmap(jax.value_and_grad(solve))(batch)
    good = jnp.array([0, 2])
    assert jnp.allclose(values[good], 1 / (1 - batch[good, 0]))
    assert jnp.allclose(slopes[good, 0], 1 / (1 - batch[good, 0]) ** 2)
    assert jnp.isnan(values[1]) and jnp.isnan(slopes[1]).all()


def test_success_makes_no_nan_on_the_way():
    with jax.debug_nans(True):
        loss = lambda x: fixed_point(lambda x, z: 0.5 * z + x, x, x).z.sum()
        assert jnp.allclose(jax.grad(loss)(X), 2.0)


def test_arguments_of_a_wrong_kind_are_named():
    half = jnp.ones(2, jnp.bfloat16)
    f = lambda x, z: 0.5 * z + x
    with pytest.raises(
        TypeError, match="z0: expected float32 or float64, got bfloat16"
    ):
        fixed_point(f, half, half)
    with pytest.raises(
        TypeError, match="solver: expected a function, got 'newton'"
    ):
        fixed_point(f, X, X, solver="newton")
    with pytest.raises(TypeError, match="linear_solver: expected a function"):
        fixed_point(f, X, X, linear_solver="direct")
    with pytest.raises(
        TypeError, match="tol: expected a number known in advance"
    ):
        jax.jit(lambda tol: picard(jnp.cos, X, tol=tol))(1e-5)
    with pytest.raises(
        TypeError, match="max_steps: expected an integer, got True"
    ):
        picard(jnp.cos, X, max_steps=True)


def test_arrays_of_numpy_under_vmap_in_a_jit(close):
    """JAX's own custom rules fail on them (0.10): data of a batch are often numpy's."""
    batch = np.linspace(0.1, 0.6, 6).reshape(3, 2)
    f = lambda x, z: x[0] * z + x[1]
    state = lambda w, x: fixed_point(f, (w, x), jnp.zeros(2)).z
    solve = lambda w: jax.vmap(lambda x: state(w, x))(batch)
    close(jax.jit(solve)(0.5), 2 * batch)

    def through_a_closure(w, x):
        g = lambda v, z: v * z + x
        return jax.grad(lambda v: fixed_point(g, v, jnp.zeros(2)).z.sum())(w)

    slope = lambda w: jax.vmap(lambda x: through_a_closure(w, x))(batch)
    close(jax.jit(slope)(0.5), 4 * batch.sum(1))


def operations(program):
    """All of them, those inside of others too."""
    for equation in program.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


def test_the_weights_are_read_by_the_layer_alone():
    """Once they were summed, too, to mark what failed: a third of a gradient's time."""
    W = jnp.eye(5, 7)
    f = lambda x, z: 0.5 * z + W @ x
    solve = lambda x: fixed_point(f, x, jnp.zeros(5)).z
    product = lambda x: vjp(f, x, jnp.zeros(5), jnp.ones(5))
    for function in (solve, product):
        program = jax.make_jaxpr(function)(jnp.ones(7))
        readers = {
            equation.primitive.name
            for equation in operations(program.jaxpr)
            for read in equation.invars
            if read.aval.shape == W.shape
        }
        assert "dot_general" in readers
        assert not readers & {"mul", "reduce_sum"}


COMPLEX = {
    "exp": lambda x: jnp.real(jnp.exp(1j * x)),
    "fft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) ** 2, x.size),
    "abs": lambda x: jnp.abs(1 + 1j * x),
}


@pytest.mark.parametrize("inner", COMPLEX.values(), ids=COMPLEX)
def test_taylor_mode_refuses_complex_numbers_inside_a_layer(inner, close):
    """They counted as what has no derivative: the result was zero."""
    f, x = lambda x, z: z / 2 + inner(x), jnp.arange(1.0, 5.0)
    z, ones = 2 * inner(x), jnp.ones(4)
    with pytest.raises(NotImplementedError, match="a layer of real numbers"):
        derivatives(f, x, z, ones, 2)
    want = 2 * jax.jvp(inner, (x,), (ones,))[1]
    close(jax.jvp(lambda x: fixed_point(f, x, z).z, (x,), (ones,))[1], want)


def test_newtons_step_is_measured_by_the_scale():
    """The step was small against the largest state, and no equilibrium of the other."""
    f = lambda x, z: jnp.stack([z[0] / 2 + x[0] / 2, x[1] * jnp.exp(-z[1])])
    x = jnp.array([1e5, 1.0], jnp.float32)
    z0 = jnp.array([1e5, 0.0], jnp.float32)
    z = fixed_point(f, x, z0, solver=newton, scale=x).z
    np.testing.assert_allclose(z[1], 0.567143, 1e-5)
    fold = lambda x, z: jnp.stack([z[0] / 2 + x[0] / 2, x[1] + z[1] ** 2 / 4])
    x = jnp.array([1e6, 1.5], jnp.float32)  # beyond the fold: there is none
    scale = jnp.array([1e6, 1.0], jnp.float32)
    found = fixed_point(fold, x, 0 * x, solver=newton, scale=scale)
    assert not found.converged and jnp.isnan(found.z).all()


@pytest.mark.parametrize("solver", [picard, anderson, broyden, newton])
def test_a_residual_that_underflows_is_not_zero(solver):
    """Planck's constant in SI units: in float32 its rounding is below all numbers."""
    f = lambda x, z: 0.9 * z + 0.1 * x
    for x, found in ((1.05e-34, False), (1.05e-30, True)):
        x = jnp.array([x], jnp.float32)
        solution = fixed_point(f, x, 0 * x, solver=solver)
        assert solution.converged == found
        if found:
            np.testing.assert_allclose(solution.z, x, 1e-3)
        else:
            assert jnp.isnan(solution.z).all()


def test_states_of_mixed_precision_are_refused():
    """Rounding of the one looked like convergence of the other."""
    kinds = jnp.bfloat16, jnp.float32
    z0 = {str(k): jnp.zeros(1, kind) for k, kind in enumerate(kinds)}
    f = lambda x, z: jax.tree.map(lambda a: a / 2 + x.astype(a.dtype), z)
    message = "z0: expected floats of one dtype, got bfloat16 and float32"
    with pytest.raises(TypeError, match=message):
        fixed_point(f, jnp.ones((), jnp.float32), z0)


def test_a_layer_without_inputs_has_an_empty_gradient():
    f, z = lambda x, z: 0.5 * z + 1, 2 * jnp.ones(1)
    assert vjp(f, {}, z, z) == {}
    assert loss_gradient(lambda x, z: z.sum(), f, {}, z) == {}


@pytest.mark.parametrize("size", [2.0**-100, 2.0**-73, 2.0**100])
def test_broyden_squares_no_small_or_large_number(size):
    """In float32 the squares of these are zero, or infinite."""
    unit = jnp.asarray(size, jnp.float32)
    g = lambda z: (
        unit * (0.9 * jnp.sin(z / unit) + jnp.array([1.0, -0.3], z.dtype))
    )
    found = broyden(g, jnp.zeros(2, jnp.float32))
    want = broyden(lambda z: g(unit * z) / unit, jnp.zeros(2, jnp.float32))
    assert found.converged and found.steps == want.steps
    np.testing.assert_allclose(found.z / unit, want.z, 1e-5)


def test_the_compiler_keeps_what_is_nan():
    """As usual, not quickly, LLVM made 0 of 0 / 0 (llvm-project, pull 202482)."""
    programs = [
        (lambda x: linear.neumann(lambda v: -0.1 * v, x), (jnp.ones(1),)),
        (
            jax.vmap(lambda v, valid: 2 * guard(guard(v, valid), valid)),
            (jnp.ones((2, 1)), jnp.zeros(2, bool)),
        ),
    ]
    for program, arguments in programs:
        lowered = jax.jit(program).lower(*arguments)
        value = lowered.compile(compiler_options=USUAL)(*arguments)
        assert jnp.isnan(value).all()
