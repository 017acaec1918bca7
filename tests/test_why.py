"""`diagnose` names what is wrong, and nothing where nothing is."""

import re

import jax
import jax.numpy as jnp
import pytest

from deqlib import diagnose, fixed_point, jacobian, linear, models, newton


def half(x, z):
    return z / 2 + x


def chain(t, z):
    """A Markov chain: the total of z is conserved."""
    return jnp.stack([(1 - t) * z[0] + z[1] / 2, t * z[0] + z[1] / 2])


def reverse_only(x, z):
    h = jax.custom_vjp(lambda z: z / 2)
    h.defvjp(lambda z: (z / 2, None), lambda _, g: (g / 2,))
    return h(z) + x


def forward_only(x, z):
    body = lambda c: (c[0] + 1, c[1] / 2 + x)
    return jax.lax.while_loop(lambda c: c[0] < 3, body, (0, z))[1]


ONE = jnp.ones(1)
REPELLED = newton(lambda z: -3 * jnp.tanh(z) + 1, jnp.zeros(1)).z
GAP = 50 * float(jnp.finfo(ONE.dtype).eps)
FOLD = lambda t, z: t + z**2 / 4
WRONG = [
    (half, ONE, ONE, "z is no equilibrium: .* 0.33 .* Newton step .* 1 of its"),
    (half, ONE, jnp.nan * ONE, "z is not finite: the solver"),
    (lambda x, z: jnp.log(-z) + x, ONE, ONE, r"f\(x, z\) is not finite"),
    (FOLD, jnp.array(1.0), 2 * ONE, "is singular: .* a fold"),
    (FOLD, jnp.array(1 - GAP), (2 - 2 * GAP**0.5) * ONE, "limits the order"),
    (reverse_only, ONE, 2 * ONE, "no forward mode .* jax.grad"),
    (forward_only, ONE, 2 * ONE, "no reverse mode .* jax.jacfwd"),
]


@pytest.mark.parametrize("f, x, z, message", WRONG)
def test_what_is_wrong_is_named(f, x, z, message):
    said = diagnose(f, x, z)
    assert re.search(message, said), said


def test_a_solver_that_stalled_is_named():
    f = lambda x, z: -3 * jnp.tanh(z) + x
    said = diagnose(f, ONE, REPELLED, linear_solver=linear.neumann)
    assert "The linear solver failed, although A is regular" in said
    assert "2.8" in said and "deqlib.linear.direct" in said


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_where_nothing_is_wrong(seed):
    f, x, z0 = models.random_layer(seed)
    z = fixed_point(f, x, z0).z
    assert diagnose(f, x, z) == "Nothing is wrong at (f, x, z)."


def test_its_way_out_of_a_conserved_total_works():
    """REPORTS: diffrax 137, Catalyst 720, ott 162."""
    t, z = jnp.array(0.25), jnp.array([2 / 3, 1 / 3])
    said = diagnose(chain, t, z)
    assert "v = [0.894 0.447]" in said and "u = [0.707 0.707]" in said
    assert "f(x, z) - v * (u @ z - c)" in said
    u, v = jnp.array([0.5**0.5, 0.5**0.5]), jnp.array([0.8**0.5, 0.2**0.5])
    pinned = lambda t, z: chain(t, z) - v * (u @ z - 0.5**0.5)
    slope = jacobian(lambda t, z: pinned(t[0], z), t[None], z)[0, 0]
    assert abs(slope + 0.888889) < 1e-5


def test_a_fold_is_one_in_any_units_of_x():
    for unit in (1e-9, 1e9):
        fold = lambda t, z, unit=unit: unit * t + z**2 / 4
        said = diagnose(fold, jnp.asarray(1 / unit), 2 * jnp.ones(1))
        assert "no derivative: at a fold" in said


@pytest.mark.parametrize("part", [jnp.linalg.norm, jnp.sqrt])
def test_a_layer_without_a_derivative_at_z(part):
    f = lambda x, z: 0.5 * part(z) * jnp.ones(2) + x
    said = diagnose(f, jnp.zeros(2), jnp.zeros(2))
    assert said.startswith("∂f/∂z is not finite")
