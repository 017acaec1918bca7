"""The instruments themselves: they must tell right from wrong."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from deqlib.check import relative_error, rounding, slopes, taylor_remainders


def test_relative_error():
    assert (
        relative_error(
            {"a": jnp.array([3.0, 4.5])}, {"a": jnp.array([3.0, 4.0])}
        )
        == 0.1
    )
    assert relative_error(jnp.array([0.5]), jnp.zeros(1)) == 0.5
    assert math.isnan(relative_error(jnp.array([jnp.nan]), jnp.ones(1)))
    assert math.isnan(relative_error(*[jnp.array([jnp.inf])] * 2))
    tiny = np.array([3.0, 4.0]) * 1e-200  # whose squares underflow
    assert abs(relative_error(1.1 * tiny, tiny) - 0.1) < 1e-12
    with pytest.raises(ValueError, match=r"got: expected the shape of want"):
        relative_error(jnp.ones((2, 1)), jnp.ones(2))


def test_rounding_follows_the_dtype():
    assert rounding(jnp.float32) / rounding(jnp.float16) < 1e-3
    assert rounding() == rounding(jnp.result_type(float))


def exponential(x):
    return jnp.exp(x["a"]) * jnp.ones(2)


def test_slopes_of_right_derivatives():
    x = {"a": jnp.array(0.3)}
    terms = [exponential(x)] * 2
    order = slopes(
        *taylor_remainders(exponential, x, {"a": jnp.array(1.0)}, terms)
    )
    assert jnp.abs(order - jnp.array([1, 2, 3])).max() < 0.25


def test_slopes_betray_a_wrong_second_derivative():
    x = {"a": jnp.array(0.3)}
    terms = [exponential(x), 2 * exponential(x)]
    order = slopes(
        *taylor_remainders(exponential, x, {"a": jnp.array(1.0)}, terms)
    )
    assert jnp.abs(order - jnp.array([1, 2, 2])).max() < 0.25


def test_bad_direction():
    with pytest.raises(ValueError, match="v: expected the shape of x"):
        taylor_remainders(jnp.sin, jnp.ones(2), jnp.ones(3), [])
