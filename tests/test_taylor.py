"""Every order along a line, against functions that are known and nested forward mode."""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import second

from deqlib import (
    derivatives,
    derivatives_vjp,
    fixed_point,
    implicit,
    linear,
    mixed_vjp,
    models,
    newton,
    taylor,
)
from deqlib.check import relative_error

ORDER = 8


def nested(g, v, order):
    """The derivative of that order of g(x + s v)."""
    if order == 0:
        return g
    inner = nested(g, v, order - 1)
    return lambda x: jax.jvp(inner, (x,), (v,))[1]


@pytest.mark.parametrize("m, n", second.SHAPES)
def test_agrees_with_nested_forward_mode(m, n, close):
    case = second.case_of(1, m, n)
    rows = jax.jit(partial(derivatives, case.f, order=4))(
        case.p, case.z, case.w
    )
    assert rows.shape == (4, m) and rows.dtype == case.z.dtype
    solve = lambda x: fixed_point(case.f, x, case.z0).z
    for k in range(1, 5):
        close(rows[k - 1], jax.jit(nested(solve, case.w, k))(case.p))


def test_order_six_agrees_with_nested_forward_mode(close):
    case = second.case_of(2, 3, 2)
    rows = jax.jit(partial(derivatives, case.f, order=6))(
        case.p, case.z, case.w
    )
    solve = lambda x: implicit(case.f, x, case.z)
    close(rows[5], jax.jit(nested(solve, case.w, 6))(case.p))


def in_sixty_digits(case, orders, points=24, radius=0.01):
    """Cauchy's formula on a circle about s = 0, each z*(x + s v) by plain steps."""
    exactly = lambda a: np.vectorize(mpmath.mpf)(np.asarray(a, float))
    W, U, b, V = (exactly(second.weights_of(case.f)[name]) for name in "WUbV")
    tanh = np.vectorize(mpmath.tanh)
    with mpmath.workdps(60):
        turns = [
            mpmath.expjpi(mpmath.mpf(2 * j) / points) for j in range(points)
        ]
        states = np.zeros((points, case.m), object)
        for z, turn in zip(states, turns, strict=True):
            x = exactly(case.p) + radius * turn * exactly(case.w)
            layer = lambda z, x=x: tanh(W @ z + U @ x + b) + z * (V @ x)
            for _ in range(300):
                z[:] = layer(z)
            assert max(abs(layer(z) - z)) < 1e-55
        return [
            [
                mpmath.factorial(k) * mpmath.re(total) / points / radius**k
                for total in np.array([t**-k for t in turns]) @ states
            ]
            for k in orders
        ]


def test_order_eight_agrees_with_sixty_digits():
    """To what the dtype allows: the state is rounded, and so is each solve."""
    case = second.case_of(1, 5, 3)
    run = jax.jit(partial(derivatives, case.f, order=ORDER))
    rows = run(case.p, case.z, case.w)
    want = in_sixty_digits(case, range(1, ORDER + 1))
    for row, exact in zip(rows, want, strict=True):
        error = relative_error(row, np.array(exact, float))
        assert error < 1e2 * jnp.finfo(row.dtype).eps


def known(x):
    """A function of two inputs to three states, all of whose derivatives are alive."""
    return jnp.stack(
        [jnp.sin(x[0] + x[1]), jnp.exp(x[0]) * x[1], jnp.tanh(x[1])]
    )


def layer_of(B):
    """A layer with the equilibrium known(x), in which everything multiplies z."""
    return lambda x, z: z - B @ (z - known(x)) * (1 + z[0] ** 2 / 4)


def test_order_eight_of_a_known_function(close):
    B = np.random.default_rng(0).normal(size=(3, 3)) / 3 + np.eye(3)
    x, v = jnp.array([0.3, -0.4]), jnp.array([0.7, 0.5])
    run = jax.jit(partial(derivatives, layer_of(jnp.asarray(B)), order=ORDER))
    rows = run(x, known(x), v)
    for k in range(1, ORDER + 1):
        want = jax.jit(nested(known, v, k))(x)
        error = relative_error(rows[k - 1], want)
        # Each order loses a little more: rounding is divided by A again.
        assert error < 10 ** (k / 2) * 1e2 * jnp.finfo(x.dtype).eps, k


def test_catalan_numbers_are_integers():
    quadratic = lambda x, z: x + z**2
    zero, one = jnp.zeros(1), jnp.ones(1)
    rows = derivatives(quadratic, zero, zero, one, ORDER)
    integers = [1, 2, 12, 120, 1680, 30240, 665280, 17297280]
    np.testing.assert_array_equal(rows[:, 0], np.array(integers, float))


LAYERS = {
    "a constant": lambda x, z: jnp.array([0.3, -0.2, 0.1]),
    "x alone": lambda x, z: jnp.sin(jnp.sum(x)) * jnp.ones(3),
    "a product with itself": lambda x, z: z * z / 4 + jnp.sum(x) / 8,
    "a comparison": lambda x, z: jnp.where(z < 0.1, z**2, z / 3 - x[0]),
    "a product of the others": lambda x, z: (
        jnp.outer(z, z) @ jnp.ones(3) / 9 + x[0]
    ),
    "jit, and an order": jax.jit(
        lambda x, z: (
            jnp.take(jnp.exp(-z), np.array([2, 0, 1])) / 4 + x[1] * x[0]
        )
    ),
    "a sum of shares": lambda x, z: (
        jnp.exp(z / 2) / jnp.sum(jnp.exp(z / 2)) - jnp.sum(x) * z / 2
    ),
    "a convolution": lambda x, z: (
        jnp.convolve(z, jnp.array([0.2, 0.3, -0.1]), "same")
        + jnp.sqrt(1 + x[0] ** 2)
    ),
    "what x multiplies": lambda x, z: jnp.tanh(
        x[0] * z @ jnp.eye(3, k=1) + x[1]
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_operations_of_a_layer(name, close):
    f, x, v = LAYERS[name], jnp.array([0.3, -0.4]), jnp.array([1.0, 0.5])
    z = fixed_point(f, x, jnp.zeros(3), solver=newton).z
    rows = derivatives(f, x, z, v, 4)
    solve = lambda x: implicit(f, x, z)
    for k in range(1, 5):
        close(rows[k - 1], jax.jit(nested(solve, v, k))(x))


def by_custom_root(f, x, m):
    """The fastest of the peers to nest: JAX's own."""
    picard = lambda g, z: jax.lax.fori_loop(0, 60, lambda _, z: z + g(z), z)
    dense = lambda g, b: jnp.linalg.solve(jax.jacobian(g)(b), b)
    return jax.lax.custom_root(
        lambda z: f(x, z) - z, jnp.zeros(m), picard, dense
    )


def test_the_program_stays_small():
    """At order 8 below a tenth of what nesting gives; and a product of all orders with
    a matrix is one product."""
    f, x, _ = models.random_layer(seed=0, m=64, n=3)
    z, v = jnp.zeros(64), jnp.ones(3)
    text = lambda g, *a: jax.jit(g).lower(*a).as_text()
    ours = {
        K: text(partial(derivatives, f, order=K), x, z, v) for K in (2, 8, 16)
    }
    tower = text(nested(lambda x: by_custom_root(f, x, 64), v, ORDER), x)
    lines = {K: len(program.splitlines()) for K, program in ours.items()}
    assert 10 * lines[8] < len(tower.splitlines())
    assert lines[16] < 3 * lines[8]
    products = {program.count("dot_general") for program in ours.values()}
    assert len(products) == 1


def test_one_factorisation_and_a_solve_for_each_order():
    factored, solves = [], []

    def counting(matvec, b):
        jax.debug.callback(lambda: solves.append(1))
        return linear.direct(matvec, b)

    case = second.case_of(1, 5, 3)
    jax.jit(
        lambda: derivatives(
            case.f, case.p, case.z, case.w, 5, linear_solver=counting
        )
    )().block_until_ready()
    jax.effects_barrier()
    assert len(solves) == 5
    whole = linear.factored
    try:
        linear.factored = lambda A: factored.append(1) or whole(A)
        jax.make_jaxpr(lambda: derivatives(case.f, case.p, case.z, case.w, 5))()
    finally:
        linear.factored = whole
    assert len(factored) == 1


def test_it_can_be_differentiated(close):
    case = second.case_of(1, 5, 3)
    solve = lambda x: fixed_point(case.f, x, case.z0).z
    ours = lambda x: derivatives(case.f, x, solve(x), case.w, 2)[1] @ case.u
    want = lambda x: nested(solve, case.w, 2)(x) @ case.u
    close(jax.jit(jax.grad(ours))(case.p), jax.jit(jax.grad(want))(case.p))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("m, n", second.SHAPES)
def test_gradient_agrees_with_autodiff_through_nested_jvp(m, n, order, close):
    case = second.case_of(1, m, n)
    U = jnp.asarray(np.random.default_rng(order).normal(size=(order + 1, m)))
    U = U.astype(case.z.dtype)
    solve = lambda x: fixed_point(case.f, x, case.z0).z

    def loss(x):
        towers = [nested(solve, case.w, k)(x) for k in range(order + 1)]
        return jnp.sum(U * jnp.stack(towers))

    ours = jax.jit(partial(derivatives_vjp, case.f))
    got = ours(case.p, case.z, case.w, U)
    close(got, jax.jit(jax.grad(loss))(case.p))


def test_gradient_at_order_one_is_mixed_vjp(close):
    case = second.case_of(2, 5, 3)
    f, u = lambda t, x, z: case.f(x + t * case.w, z), case.u
    U = jnp.stack([0 * u, u])
    got = derivatives_vjp(case.f, case.p, case.z, case.w, U)
    close(got, mixed_vjp(f, jnp.zeros(()), case.p, case.z, u))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_gradient_takes_2k_plus_1_solves(order):
    solves, case = [], second.case_of(1, 5, 3)

    def counting(matvec, b):
        jax.debug.callback(lambda: solves.append(1))
        return linear.direct(matvec, b)

    U = jnp.ones((order + 1, 5))
    given = case.f, case.p, case.z, case.w, U
    run = jax.jit(lambda: derivatives_vjp(*given, linear_solver=counting))
    run().block_until_ready()
    jax.effects_barrier()
    assert len(solves) == 2 * order + 1


def test_gradient_can_be_differentiated(close):
    case = second.case_of(1, 3, 2)
    U = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    U = U.astype(case.z.dtype)
    solve = lambda x: fixed_point(case.f, x, case.z0).z

    def loss(x):
        towers = [nested(solve, case.w, k)(x) for k in range(3)]
        return jnp.sum(U * jnp.stack(towers))

    ours = lambda x: derivatives_vjp(case.f, x, solve(x), case.w, U)
    along = lambda g: jax.jit(lambda x: jax.jvp(g, (x,), (case.w,))[1])
    close(along(ours)(case.p), along(jax.grad(loss))(case.p))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 3), (2, 2, 1)])
def test_rows_of_another_shape_are_refused(shape):
    plain = lambda x, z: z / 2 + x
    x, U = jnp.ones(2), jnp.ones(shape)
    message = r"U: expected two or more rows like z, shape \(K \+ 1, 2\)"
    with pytest.raises(ValueError, match=message):
        derivatives_vjp(plain, x, 2 * x, x, U)


def test_gradient_of_what_failed_is_nan():
    x, U = jnp.ones(2), jnp.ones((2, 2))
    plain = lambda x, z: z / 2 + x
    assert np.isnan(derivatives_vjp(plain, x, jnp.nan * x, x, U)).all()
    singular = lambda x, z: z - (z - x) ** 2
    assert np.isnan(derivatives_vjp(singular, x, x, x, U)).all()


def test_inputs_may_be_a_tree(close):
    f = lambda p, z: jnp.tanh(p["w"] * z + p["b"])
    p = {"w": jnp.asarray(0.4), "b": jnp.array([0.3, -0.2])}
    v = {"w": jnp.asarray(1.0), "b": jnp.array([0.5, 2.0])}
    solve = lambda p: fixed_point(f, p, jnp.zeros(2)).z
    rows = derivatives(f, p, solve(p), v, 2)
    close(rows[1], jax.jit(nested(solve, v, 2))(p))


def failing(kind):
    x, ones = jnp.ones(2), jnp.ones(2)
    loop = lambda x, z: jax.lax.fori_loop(0, 3, lambda i, y: y / 2 + x, z)
    rule = lambda x, z: jax.nn.relu(z / 2 + x)
    solve = lambda x, z: jnp.linalg.solve(2 * jnp.eye(2), z + x)
    plain = lambda x, z: z / 2 + x
    return {
        "loop": (loop, x, x, ones, 2),
        "rule": (rule, x, x, ones, 2),
        "solve": (solve, x, x, ones, 2),
        "order": (plain, x, 2 * x, ones, 0),
        "kind": (plain, x, 2 * x, ones, 1.5),
        "largest": (plain, x, 2 * x, ones, 35 if x.dtype == "float32" else 171),
        "direction": (plain, x, 2 * x, jnp.ones(3), 2),
        "state": (plain, x, {"z": x}, ones, 2),
    }[kind]


@pytest.mark.parametrize(
    "kind, error, message",
    [
        ("loop", NotImplementedError, r"f\(x, z\): expected a layer of.*got (scan|while)"),
        ("rule", NotImplementedError, "nested jax.jvp.*got custom_jvp_call"),
        ("solve", NotImplementedError, "got custom_linear_solve"),
        ("order", ValueError, "order: expected at least 1, got 0"),
        ("largest", ValueError, "order: expected at most.*finite factorial"),
        ("kind", TypeError, "order: expected an integer, got 1.5"),
        ("direction", ValueError, r"v: expected the shape of x, \(2,\), got \(3,\)"),
        ("state", TypeError, "z: expected"),
    ],
)  # fmt: skip
def test_bad_input_is_named(kind, error, message):
    with pytest.raises(error, match=message):
        derivatives(*failing(kind))


def test_a_rule_of_jet_that_fails_is_named(monkeypatch):
    """In JAX 0.10 that of min does, for a number beside a vector."""

    def broken(*_, **__):
        raise TypeError("select cases must have the same shapes")

    monkeypatch.setitem(taylor.jet_rules, jax.lax.sin_p, broken)
    x = jnp.ones(2)
    with pytest.raises(NotImplementedError, match="nested jax.jvp.*got sin"):
        derivatives(lambda x, z: jnp.sin(z) / 2 + x, x, x, x, 2)


def test_what_failed_is_nan():
    x = jnp.ones(2)
    plain = lambda x, z: z / 2 + x
    assert np.isnan(derivatives(plain, x, jnp.nan * x, x, 3)).all()
    singular = lambda x, z: z - (z - x) ** 2
    assert np.isnan(derivatives(singular, x, x, x, 2)).all()
