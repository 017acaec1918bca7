"""A cross-check: optimistix solves the same layers, with its own implicit rule."""

import jax
import jax.numpy as jnp
import optimistix
import pytest

from deqlib import fixed_point, models


def theirs(f, x, z0):
    solver = optimistix.Newton(rtol=1e-13, atol=1e-13)
    root = lambda z, x: f(x, z) - z
    return optimistix.root_find(root, solver, z0, args=x, max_steps=100).value


@pytest.mark.skipif(
    not jax.config.jax_enable_x64,
    reason="the tolerances given to the peer are float64's",
)
@pytest.mark.parametrize("seed", range(2))
def test_first_and_second_derivatives_agree_with_optimistix(seed, close):
    f, x, z0 = models.random_layer(20 + seed, m=6, n=4)
    loss = lambda solve: lambda x: jnp.sum(jnp.sin(solve(f, x, z0)))
    ours, peer = loss(lambda f, x, z0: fixed_point(f, x, z0).z), loss(theirs)
    both = lambda loss, x: jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),))
    close(*jax.jit(lambda x: (both(ours, x), both(peer, x)))(x))
