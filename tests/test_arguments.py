"""What all functions of deqlib share: the kinds of argument they take and refuse."""

from collections import OrderedDict, namedtuple
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import (
    adjoint,
    fixed_point,
    gauss_newton,
    hessian,
    jacobian,
    jacobian_vjp,
    jvp,
    linear,
    loss_gradient,
    loss_hessian,
    loss_hvp,
    mixed_hessian,
    mixed_vjp,
    picard,
    vjp,
)
from deqlib.check import trial

LOSS = second.general_loss
Pair = namedtuple("Pair", "a b")


def with_time(function):
    """A function of a layer in t, x and z as one of a layer in p = (t, x) and z."""

    def of_the_first_input_as_time(f, p, z, *u, **options):
        layer = lambda t, x, z: f(jnp.concatenate([t[None], x]), z)
        return function(layer, p[0], p[1:], z, *u, **options)

    return of_the_first_input_as_time


def with_loss(function):
    return lambda *arguments, loss=LOSS, **options: function(
        loss, *arguments, **options
    )


# Each with what it takes besides f, x and z: a direction, a cotangent, or both.
OF_VECTORS = {
    "jacobian": (jacobian, ""),
    "hessian": (hessian, ""),
    "jacobian_vjp": (jacobian_vjp, "C"),
    "mixed_hessian": (with_time(mixed_hessian), ""),
    "loss_hessian": (with_loss(loss_hessian), ""),
    "gauss_newton": (with_loss(gauss_newton), ""),
}
OF_TREES = {
    "jvp": (jvp, "v"),
    "adjoint": (adjoint, "u"),
    "vjp": (vjp, "u"),
    "loss_gradient": (with_loss(loss_gradient), ""),
    "loss_hvp": (with_loss(loss_hvp), "v"),
}
BOTH = OF_VECTORS | OF_TREES | {"mixed_vjp": (with_time(mixed_vjp), "u")}
every_function = pytest.mark.parametrize("name", BOTH)
LOSSES = [name for name in BOTH if "loss" in name or "gauss" in name]


def call(name, f, x, z, **options):
    function, more = BOTH[name]
    extra = {"v": lambda: x, "u": lambda: z, "C": lambda: jnp.outer(z, x)}
    return function(f, x, z, *(extra[m]() for m in more), **options)


# x[0] moves the good states alone, but bends the bad one, where J = 2.
def half_bad(x, z):
    bend = jnp.array([0.0, 0.0, 1.0]) * (x[0] ** 2 + z[0] * x[1] + z[0] ** 2)
    return (
        jnp.array([0.5, 0.5, 2.0]) * z + jnp.array([1.0, 1.0, 0.0]) * x + bend
    )


@every_function
def test_a_solve_that_failed_alone_makes_all_nan(name):
    """For half of the right-hand sides Neumann's series converges."""
    x, z = jnp.array([0.3, -0.2, 0.0]), jnp.array([0.6, -0.4, 0.1])
    of = partial(call, name, half_bad, linear_solver=linear.neumann)
    assert np.isnan(jax.jit(of)(x, z)).all()


def test_failed_rows_and_columns_are_not_left_alone():
    """Here the loss and each single product of some directions are finite."""
    J = jnp.array([2.0, 0.5, 0.5])
    x, z = jnp.ones(3), jnp.ones(3)
    affine = lambda x, z: J * z + x
    tail = lambda x, z: jnp.sum(z[1:] ** 2)
    neumann = {"linear_solver": linear.neumann}
    unit = jnp.eye(3)[1]
    assert jnp.all(jnp.isfinite(jvp(affine, x, z, unit, **neumann)))
    assert jnp.all(jnp.isnan(jacobian(affine, x, z, **neumann)))
    for block in (None, 1):
        H = loss_hessian(tail, affine, x, z, block=block, **neumann)
        assert jnp.all(jnp.isnan(H))
    # All solves for S succeed; one of those for the second derivative does not.
    bends = lambda x, z: J * z + x * jnp.array([0.0, 1, 1]) + x[1] ** 2 * unit0
    unit0 = jnp.eye(3)[0]
    z = z.at[0].set(0)
    with_t = lambda t, x, z: bends(x, z) + t * x[2] * unit0 + t * jnp.eye(3)[1]
    x = x.at[1:].set(0)
    assert jnp.all(jnp.isfinite(jacobian(bends, x, z, **neumann)))
    assert jnp.all(jnp.isnan(hessian(bends, x, z, **neumann)))
    t = jnp.zeros(())
    assert jnp.all(jnp.isnan(mixed_hessian(with_t, t, x, z, **neumann)))


@cache
def in_one_precision(name):
    case = second.case_of(0, 5, 3)
    return np.asarray(jax.jit(partial(call, name, case.f))(case.p, case.z))


@every_function
@pytest.mark.parametrize("of_x", [jnp.float32, float])
def test_x_and_z_of_different_precision(name, of_x):
    """Derivatives in x are like x, those of z like z."""
    of_z = float if of_x is jnp.float32 else jnp.float32
    case = second.case_of(0, 5, 3)
    x, z = case.p.astype(of_x), case.z.astype(of_z)
    f = lambda x, z: case.f(x, z).astype(z.dtype)
    got = jax.jit(partial(call, name, f))(x, z)
    like_z = name in ("jacobian", "hessian", "mixed_hessian", "jvp", "adjoint")
    assert got.dtype == (z if like_z else x).dtype
    assert np.allclose(got, in_one_precision(name), rtol=1e-3, atol=1e-4)


class Weights:
    """A tree that cannot be compared."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    def __eq__(self, other):
        raise TypeError

    __hash__ = None


jax.tree_util.register_pytree_with_keys(
    Weights,
    lambda w: ((("a", w.a), ("b", w.b)), None),
    lambda _, children: Weights(*children),
)


def strict(x, z):
    """A layer that takes JAX's arrays alone."""
    assert all(isinstance(leaf, jax.Array) for leaf in (x.a, x.b, z))
    return 0.5 * z.at[0].multiply(x.a) + x.b.at[0].add(z[0] * x.a)


def strict_loss(x, z):
    assert all(isinstance(leaf, jax.Array) for leaf in (x.a, x.b, z))
    return x.a.astype(float) * z.at[0].add(x.b[0]).sum() ** 2


@pytest.mark.parametrize("name", [*OF_TREES, "mixed_vjp", "fixed_point"])
def test_trees_of_any_class_with_leaves_of_any_kind(name, close):
    def of(x, z):
        if name == "fixed_point":
            return fixed_point(strict, x, z).z
        if name == "mixed_vjp":
            layer = lambda t, x, z: strict(x, z) + t.astype(float) * z
            return mixed_vjp(layer, 0.1, x, z, np.asarray(z))
        loss = {"loss": strict_loss} if name in LOSSES else {}
        return call(name, strict, x, z, **loss)

    z = jnp.array([0.4, 1.0])
    plain = Weights(0.2, np.array([1.0, -0.5], z.dtype))
    got = of(plain, np.asarray(z))
    want = of(jax.tree.map(jnp.asarray, plain), z)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        close(a, b)


def pair(x):
    return {"a": x, "b": x}


@pytest.mark.parametrize(
    "x, v",
    [
        (pair(jnp.ones(2)), OrderedDict(pair(jnp.ones(2)))),
        (Pair(jnp.ones(2), jnp.ones(2)), (jnp.ones(2), jnp.ones(2))),
        (jnp.asarray(1.0), ()),
    ],
    ids=["dict", "tuple", "scalar"],
)
def test_a_direction_of_another_structure_is_refused(x, v):
    f = lambda x, z: 0.5 * z + jax.tree.leaves(x)[0].sum()
    loss = lambda x, z: z.sum()
    z, message = jnp.ones(2), "v: expected the structure of x, PyTreeDef"
    with pytest.raises(ValueError, match=message):
        jvp(f, x, z, v)
    with pytest.raises(ValueError, match=message):
        loss_hvp(loss, f, x, z, v)


def test_a_leaf_of_another_shape_is_named():
    f = lambda x, z: 0.5 * z + x["a"].sum()
    v = {"a": jnp.ones(2), "b": jnp.ones(3)}
    message = r"v\['b'\]: expected the shape of x\['b'\], \(2,\), got \(3,\)"
    with pytest.raises(ValueError, match=message):
        jvp(f, pair(jnp.ones(2)), jnp.ones(2), v)


@every_function
@pytest.mark.parametrize("value", [3, "direct", 0, False])
def test_what_is_no_function_is_named(name, value):
    case = second.case_of(0, 5, 3)
    expected = f": expected a function, got {value!r}"
    with pytest.raises(TypeError, match="linear_solver" + expected):
        call(name, case.f, case.p, case.z, linear_solver=value)
    if "mixed" in name:
        function, u = {"mixed_vjp": (mixed_vjp, [case.u])}.get(
            name, (mixed_hessian, [])
        )
        with pytest.raises(TypeError, match="f" + expected):
            function(value, case.t, case.x, case.z, *u)
    else:
        with pytest.raises(TypeError, match="f" + expected):
            call(name, value, case.p, case.z)
    if name in LOSSES:
        with pytest.raises(TypeError, match="loss" + expected):
            call(name, case.f, case.p, case.z, loss=value)


@every_function
@pytest.mark.parametrize(
    "answer",
    [lambda b: b[:2], lambda b: (b, 0), lambda b: b.astype(jnp.float16)],
    ids=["shape", "tuple", "dtype"],
)
def test_what_a_linear_solver_returns_is_checked(name, answer):
    case = second.case_of(0, 5, 3)
    message = r"linear_solver\(matvec, b\): expected the shape and dtype of b"
    with pytest.raises(ValueError, match=message):
        call(
            name,
            case.f,
            case.p,
            case.z,
            linear_solver=lambda matvec, b: answer(b),
        )


@pytest.mark.parametrize("t", [None, {"t": 1.0}, "1", [0.1]])
def test_a_time_that_is_no_number_is_named(t):
    case = second.case_of(0, 5, 3)
    message = f"t: expected one number, got a {type(t).__name__}"
    with pytest.raises(TypeError, match=message):
        mixed_hessian(case.layer, t, case.x, case.z)
    with pytest.raises(TypeError, match=message):
        mixed_vjp(case.layer, t, case.x, case.z, case.u)


half = lambda x, z: z / 2 + x


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda z: picard(3, z), TypeError, "g: expected a function, got 3"),
        (lambda z: linear.direct(3, z), TypeError, "matvec: expected a function"),
        (lambda z: linear.gmres(None, z), TypeError, "matvec: expected a function"),
        (lambda z: linear.iterated(3), TypeError, "solver: expected a function"),
        (lambda z: trial(lambda x: None, z), TypeError, r"function\(x\): .*got None"),
        (lambda z: trial(lambda x: z, ()), TypeError, r"x: expected an array.*got \(\)"),
        (
            lambda z: fixed_point(half, z, z, solver=lambda g, z: (z, True)),
            TypeError,
            r"solver\(g, z0\): expected a deqlib.Solution, got a tuple",
        ),
        (
            lambda z: fixed_point(half, z, z, scale=jnp.inf * z),
            ValueError,
            "scale: expected positive, finite sizes",
        ),
        (
            lambda z: fixed_point(lambda x, z: {"a": z["a"]}, z, {"a": z}, scale={"a": z}),
            ValueError,
            "scale: expected the structure of z0, made one vector",
        ),
        (
            lambda z: fixed_point(lambda x, z: (z,), z, z),
            ValueError,
            r"f\(x, z\): expected .*PyTreeDef\(\*\).*got .*PyTreeDef\(\(\*,\)\)",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones(2))
