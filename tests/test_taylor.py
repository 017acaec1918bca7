"""Every order along a line, against functions that are known and nested forward mode."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import derivatives, derivatives_vjp, fixed_point, linear, mixed_vjp
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


def test_catalan_numbers(close):
    # Not to the last digit: jet has its factorials from exp(lgamma(k + 1)).
    quadratic = lambda x, z: x + z**2
    zero, one = jnp.zeros(1), jnp.ones(1)
    rows = derivatives(quadratic, zero, zero, one, ORDER)
    integers = [1, 2, 12, 120, 1680, 30240, 665280, 17297280]
    close(rows[:, 0], np.array(integers, rows.dtype))


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
        ("kind", TypeError, "order: expected an integer, got 1.5"),
        ("direction", ValueError, r"v: expected the shape of x, \(2,\), got \(3,\)"),
        ("state", TypeError, "z: expected"),
    ],
)  # fmt: skip
def test_bad_input_is_named(kind, error, message):
    with pytest.raises(error, match=message):
        derivatives(*failing(kind))


def test_what_failed_is_nan():
    x = jnp.ones(2)
    plain = lambda x, z: z / 2 + x
    assert np.isnan(derivatives(plain, x, jnp.nan * x, x, 3)).all()
    singular = lambda x, z: z - (z - x) ** 2
    assert np.isnan(derivatives(singular, x, x, x, 2)).all()
