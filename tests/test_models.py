"""The example layers are what their docstrings say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

from deqlib import fixed_point, models


def test_square_root(close):
    x = jnp.array([2.0, 0.3])
    close(fixed_point(models.square_root, x, jnp.ones(2)).z, jnp.sqrt(x))


def test_affine(close):
    W, U, x = jnp.array([[0.5]]), jnp.array([[1.0, 2.0]]), jnp.array([1.0, 1.0])
    close(fixed_point(models.affine(W, U), x, jnp.zeros(1)).z, jnp.array([6.0]))


@jax.jit
def derivatives(weights, x, z0):
    """∂f/∂z at the equilibrium, and the blocks of second derivatives."""
    f = models.tanh_layer(**weights)
    z = fixed_point(f, x, z0).z
    blocks = jax.jacfwd(jax.jacrev(f, (0, 1)), (0, 1))(x, z)
    return jax.jacfwd(f, 1)(x, z), blocks


@pytest.mark.parametrize("seed", range(3))
def test_random_layers_hide_no_mistake(seed):
    f, x, z0 = models.random_layer(seed, m=5, n=3, radius=0.6)
    J, blocks = derivatives(second.weights_of(f), x, z0)
    assert np.abs(np.linalg.eigvals(J)).max() < 0.99
    assert np.linalg.norm(J - J.T) > 0.3 * np.linalg.norm(J)
    for block in jax.tree.leaves(blocks):
        assert np.linalg.norm(block) > 0.1
