"""The instruments themselves: they must tell right from wrong."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from equation import NoLarger, draws, equation

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


def entered(sides):
    """What the test of an equation of one number enters in the ledger."""
    errors, samples = [], draws(lambda rng: rng.uniform(1, 2))
    equation("label", samples)(sides)(samples[0], errors.append)
    return errors


def test_an_equation_is_compared_for_each_seed_and_pair():
    def sides(x):
        yield 2 * x, x + x
        yield NoLarger(x, 2 * x)

    assert entered(sides) == 10 * [0.0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, y: (x, y),
        lambda x, y: NoLarger(y, x),
        lambda x, y: (x, x + jnp.log(x - y)),
        lambda x, y: NoLarger(x + jnp.log(x - y), x),
    ],
)
def test_a_wrong_equation_is_reported_with_its_seed(wrong):
    def sides(x):
        yield x, x
        yield wrong(x, jnp.where(x > 1.9, 1.01 * x, 0.99 * x))

    with pytest.raises(AssertionError, match="label, drawn, seed 4, pair 1"):
        entered(sides)


def test_an_equation_must_compare_something():
    with pytest.raises(AssertionError, match="compares nothing"):
        entered(lambda x: [])
