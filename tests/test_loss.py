"""Gradients, Hessians and their products of a loss, against a long unroll."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second
from jax.flatten_util import ravel_pytree

from deqlib import (
    fixed_point,
    gauss_newton,
    hessian,
    jacobian,
    jacobian_vjp,
    linear,
    loss_gradient,
    loss_hessian,
    loss_hvp,
    mixed_hessian,
    mixed_vjp,
    models,
    vjp,
)
from deqlib.check import relative_error, rounding, slopes, taylor_remainders
from deqlib.notebook import seconds

TIGHT = 1e-10
LOSS = second.general_loss


@pytest.fixture(params=[(s, *second.SHAPES[s % 2]) for s in range(2)])
def case(request):
    return second.case_of(*request.param)


@cache
def derivatives(case, order=2):
    """Gradient and Hessian, or with order 3 the third derivative, of the unroll."""
    value = lambda x: LOSS(x, case.unroll(x))
    if order == 3:
        return np.asarray(jax.jit(jax.jacfwd(jax.hessian(value)))(case.p))
    both = jax.jit(lambda x: (jax.grad(value)(x), jax.hessian(value)(x)))
    return jax.tree.map(np.asarray, both(case.p))


@partial(jax.jit, static_argnums=(0, 1, 5))
def all_of_them(loss, f, x, z, v, linear_solver=None):
    arguments, how = (loss, f, x, z), {"linear_solver": linear_solver}
    return (
        loss_gradient(*arguments, **how),
        loss_hessian(*arguments, **how),
        loss_hvp(*arguments, v, **how),
        gauss_newton(*arguments, **how),
    )


def by_direct(case):
    return all_of_them(LOSS, case.f, case.p, case.z, case.w, linear.direct)


def test_pencil(close):
    """L = (z − y)²/2 with z = √x: H = z'² + (z − y) z''."""
    y, x = 2.0, np.array([1.7])
    loss = lambda x, z: jnp.sum((z - y) ** 2) / 2
    z, d, dd = x**0.5, 0.5 * x**-0.5, -0.25 * x**-1.5
    H = d**2 + (z - y) * dd
    got = all_of_them(loss, models.square_root, x, z, 3 * x)
    want = (z - y) * d, np.diag(H), H * 3 * x, np.diag(d**2)
    for sides in zip(got, want, strict=True):
        close(*sides)


def test_against_unroll(case, close):
    gradient, H = derivatives(case)
    close(by_direct(case)[:3], (gradient, H, H @ case.w), TIGHT)


def test_gauss_newton(case, close):
    """[I; S]ᵀ ∇²L [I; S]; what is missing is the tensor, contracted with ∂L/∂z."""

    @jax.jit
    def by_blocks(x, z):
        S = jacobian(case.f, x, z)
        both = jnp.concatenate([jnp.eye(x.size), S])
        flat = lambda p: LOSS(p[: x.size], p[x.size :])
        curvature = jax.hessian(flat)(jnp.concatenate([x, z]))
        u = jax.grad(LOSS, 1)(x, z)
        rest = jnp.tensordot(u, hessian(case.f, x, z), 1)
        return both.T @ curvature @ both, rest

    _, H, _, G = by_direct(case)
    want, rest = by_blocks(case.p, case.z)
    close(G, want, TIGHT)
    close(G + rest, H, TIGHT)


@pytest.mark.parametrize("name", list(second.SOLVERS)[1:])
def test_with_each_linear_solver(case, name, close):
    arguments = LOSS, case.f, case.p, case.z, case.w
    got = all_of_them(*arguments, second.SOLVERS[name])
    close(got, by_direct(case), TIGHT)


def test_trees(case, close):
    split = lambda x: {"a": x[:1], "b": x[1:]}
    join = lambda x: jnp.concatenate([x["a"], x["b"]])
    layer = lambda x, z: case.f(join(x), z)

    @jax.jit
    def ours(x, z, v):
        arguments = second.mixed_loss, layer, x, z
        return loss_gradient(*arguments), loss_hvp(*arguments, v)

    want, _, want_product, _ = by_direct(case)
    gradient, product = ours(split(case.p), case.z, split(case.w))
    close(gradient, split(want), TIGHT)
    close(product, split(want_product), TIGHT)


def test_their_own_derivatives_are_total(close):
    case = second.case_of(0, 5, 3)
    (_, H), third = derivatives(case), derivatives(case, 3)
    gradient = lambda x: loss_gradient(LOSS, case.f, x, case.z)
    full = lambda x: loss_hessian(LOSS, case.f, x, case.z)
    product = lambda x: loss_hvp(LOSS, case.f, x, case.z, case.w)
    close(jax.jit(jax.jacrev(gradient))(case.p), H, 1e-9)
    close(jax.jit(jax.jacfwd(full))(case.p), third, 1e-9)
    close(jax.jit(jax.jacrev(product))(case.p), third @ case.w, 1e-9)


def test_slopes():
    case = second.case_of(3, 3, 6)
    value = jax.jit(lambda x: LOSS(x, fixed_point(case.f, x, case.z0).z))
    w = case.w / np.linalg.norm(case.w)
    steps = 0.2 * 0.5 ** np.arange(5.0)
    found = lambda *along: slopes(
        *taylor_remainders(value, case.p, w, along, steps)
    )
    if jnp.result_type(float) == jnp.float64:
        g, _, Hw, G = all_of_them(LOSS, case.f, case.p, case.z, w)
        assert np.all(np.abs(found(g @ w, Hw @ w) - [1, 2, 3]) < 0.3)
        assert found(g @ w, w @ G @ w)[2] < 2.5


def test_asymmetry_is_rounding(case):
    _, H, _, _ = by_direct(case)
    assert relative_error(H.T, H) < rounding()


def counted(n):
    case = second.case_of(0, 5, n)
    A = jnp.eye(case.m) - jax.jacfwd(case.f, 1)(case.p, case.z)
    solver, (layer, calls) = second.Counted(A), second.counted_layer(case.f)
    loss_hvp(LOSS, layer, case.p, case.z, case.w, linear_solver=solver)
    return solver.counts(), len(calls)


def test_one_tangent_and_two_adjoint_solves_whatever_n():
    solves, evaluations = zip(*map(counted, (3, 12)), strict=True)
    assert solves == ((1, 2), (1, 2))
    assert evaluations[0] == evaluations[1] < 30


SECOND_ORDER = {
    "loss_hessian": lambda c: loss_hessian(LOSS, c.f, c.p, c.z),
    "loss_hvp": lambda c: loss_hvp(LOSS, c.f, c.p, c.z, c.w),
    "mixed_vjp": lambda c: mixed_vjp(c.layer, c.t, c.x, c.z, c.u),
    "mixed_hessian": lambda c: mixed_hessian(c.layer, c.t, c.x, c.z),
    "jacobian_vjp": lambda c: jacobian_vjp(c.f, c.p, c.z, c.C),
    "hessian": lambda c: hessian(c.f, c.p, c.z),
}


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_the_matrix_is_factored_once(name, monkeypatch):
    case, factored = second.case_of(0, 5, 3), []
    inv = jnp.linalg.inv
    monkeypatch.setattr(
        jnp.linalg, "inv", lambda A: factored.append(A.shape) or inv(A)
    )
    jax.eval_shape(lambda: SECOND_ORDER[name](case))
    assert factored == [(5, 5)]


def wide(N):
    """z = tanh(W z + U data) with all its weights in x: n = N² + 17 N."""
    draw = np.random.default_rng(0).normal
    weights = {"W": 0.5 * draw(size=(N, N)) / N**0.5, "U": draw(size=(N, 17))}
    x, weights_of = ravel_pytree(jax.tree.map(jnp.asarray, weights))
    x = x.astype(float)

    def f(x, z):
        w = weights_of(x)
        return jnp.tanh(w["W"] @ z + w["U"] @ jnp.linspace(-1, 1, 17))

    return f, x, fixed_point(f, x, jnp.zeros(N)).z


CUBE = lambda x, z: jnp.sum(z**3)


def test_block_bounds_memory_and_changes_nothing(close, on_cpu):
    """With 3000 hidden units a row needs far more room than it has entries."""
    draw = np.random.default_rng(0).normal
    W, U, V = (
        jnp.asarray(draw(size=shape), float)
        for shape in [(3000, 4), (3000, 40), (4, 3000)]
    )
    f = lambda x, z: V @ jnp.tanh(W @ z + U @ x) / 3000
    x = jnp.linspace(-1, 1, 40)
    z = fixed_point(f, x, jnp.zeros(4)).z
    whole, larger, *rest = (
        jax.jit(partial(loss_hessian, CUBE, f, block=block))
        .lower(x, z)
        .compile()
        for block in (None, 41, 7, 1)
    )
    close(larger(x, z), whole(x, z))
    memory = lambda compiled: compiled.memory_analysis().temp_size_in_bytes
    for smaller in rest:
        close(smaller(x, z), whole(x, z))
        assert memory(smaller) < 0.5 * memory(whole)


@pytest.mark.alone
def test_time_beside_filling_an_array():
    """P = 1568; the numbers are printed with -s."""
    f, x, z = wide(32)
    assert x.size == 1568
    ours = jax.jit(partial(loss_hessian, CUBE, f))
    value = jax.jit(jax.hessian(lambda x: CUBE(x, fixed_point(f, x, z).z)))
    fill = jax.jit(lambda s: jnp.full((x.size, x.size), s))
    # By turns, so that what else the machine does meets all three.
    calls = [(fill, x[0]), (ours, x, z), (value, x)]
    turns = [[seconds(*call, repeats=1) for call in calls] for _ in range(20)]
    unit, mine, nested = map(min, zip(*turns, strict=True))
    print(
        f"Hessian at P = 1568: {mine / unit:.0f} times filling an array, "
        f"jax.hessian of fixed_point {nested / unit:.0f} times"
    )
    assert mine < 1.5 * nested
    assert mine < 200 * unit


def test_failures_are_nan_everywhere(case):
    nan = jnp.full_like(case.z, jnp.nan)
    affine = models.affine(0.5 * jnp.eye(case.m), jnp.ones(case.C.shape))
    flat = lambda x, z: z + 0 * jnp.sum(x)
    linear_loss = lambda x, z: jnp.sum(z) + jnp.sum(x)
    for f, state in [(case.f, nan), (affine, nan), (flat, case.z)]:
        arguments = linear_loss, f, case.p, state
        assert jnp.all(jnp.isnan(loss_gradient(*arguments)))
        assert jnp.all(jnp.isnan(loss_hessian(*arguments)))
        assert jnp.all(jnp.isnan(loss_hvp(*arguments, case.w)))
        assert jnp.all(jnp.isnan(gauss_newton(*arguments)))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_loss_that_failed_is_nan_everywhere(case, value):
    arguments = lambda x, z: value + z[0] + x[0], case.f, case.p, case.z
    assert jnp.all(jnp.isnan(loss_gradient(*arguments)))
    assert jnp.all(jnp.isnan(loss_hessian(*arguments)))
    assert jnp.all(jnp.isnan(loss_hvp(*arguments, case.w)))
    assert jnp.all(jnp.isnan(gauss_newton(*arguments)))


def test_a_constant_loss(case):
    assert jnp.all(loss_gradient(lambda x, z: 1.0, case.f, case.p, case.z) == 0)


def test_bad_input(case):
    f, x, z = case.f, case.p, case.z
    product = lambda loss, f, x, z: loss_hvp(loss, f, x, z, case.w)
    flat = (loss_hessian, gauss_newton)
    for function in (loss_gradient, product, *flat):
        with pytest.raises(ValueError, match=r"loss\(x, z\): expected one num"):
            function(lambda x, z: z, f, x, z)
        with pytest.raises(ValueError, match=r"loss\(x, z\): expected one num"):
            function(lambda x, z: (z[0], z[1]), f, x, z)
        with pytest.raises(ValueError, match=r"loss\(x, z\): .* a real number"):
            function(lambda x, z: 1, f, x, z)
        with pytest.raises(ValueError, match=r"loss\(x, z\): .* a real number"):
            function(lambda x, z: jnp.sum(z) * 1j, f, x, z)
        with pytest.raises(TypeError, match="x: expected real floats"):
            function(LOSS, f, jnp.arange(3), z)
        with pytest.raises(ValueError, match=r"f\(x, z\): expected the shape"):
            function(LOSS, lambda x, z: z[:1], x, z)
    for function in flat:
        with pytest.raises(TypeError, match="x: expected one vector"):
            function(LOSS, f, {"x": x}, z)
        with pytest.raises(ValueError, match="x: expected a non-empty vector"):
            function(LOSS, f, jnp.ones((2, 2)), z)
    with pytest.raises(ValueError, match="v: expected the shape of x"):
        loss_hvp(LOSS, f, x, z, jnp.ones(17))
    with pytest.raises(ValueError, match="block: expected at least 1"):
        loss_hessian(LOSS, f, x, z, block=0)


def test_a_loss_of_the_state_alone(case, close):
    """Then the gradient is vjp's, and nothing of x is added."""
    loss = lambda x, z: jnp.sum(z**2)
    got = loss_gradient(loss, case.f, case.p, case.z)
    close(got, vjp(case.f, case.p, case.z, 2 * case.z), TIGHT)
