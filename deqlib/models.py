"""The example layers of the book."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


def affine(W, U):
    """The layer f(x, z) = W z + U x, with W (m, m) and U (m, n).

    Its equilibrium is known in closed form: z* = (I − W)⁻¹ U x, so S = (I − W)⁻¹ U.
    """
    return lambda x, z: W @ z + U @ x


def square_root(x, z):
    """The layer (z + x/z) / 2 of one state, elementwise: its equilibrium is √x.

    One step is one Newton step on z² = x (Heron's method). At √x it has J = 0.
    """
    return (z + x / z) / 2


def tanh_scalar(x, z):
    """The layer tanh(w z + b) of one state, with x = (w, b): chapter 1's cobweb."""
    w, b = x
    return jnp.tanh(w * z + b)


def tanh_layer(W, U, b, V=None):
    """The layer f(x, z) = tanh(W z + U x + b) + z ⊙ V x.

    W (m, m), U and V (m, n), b (m,). The bilinear last term is left out without V.
    """

    def f(x, z):
        value = jnp.tanh(W @ z + U @ x + b)
        return value if V is None else value + z * (V @ x)

    return f


class Example(NamedTuple):
    """A layer with a point and a first guess.

    Attributes:
        f: the layer.
        x: (n,), the point.
        z0: (m,), the first guess.
    """

    f: Any
    x: Any
    z0: Any


def random_layer(seed, m=5, n=3, radius=0.6):
    """A random tanh layer that hides no mistake: an `Example` with m states, n inputs.

    W is not symmetric and has the given spectral radius; every mixed derivative of f
    is alive, through the bilinear term. The numbers depend on the seed alone, not on
    the dtype or the device.
    """
    draw = np.random.default_rng(seed).normal
    W = draw(size=(m, m))
    W *= radius / np.abs(np.linalg.eigvals(W)).max()
    U, b, x = draw(size=(m, n)) / n**0.5, 0.3 * draw(size=m), 0.7 * draw(size=n)
    V = 0.15 * draw(size=(m, n)) / n**0.5
    weights = [jnp.asarray(array, float) for array in (W, U, b, V)]
    return Example(tanh_layer(*weights), jnp.asarray(x, float), jnp.zeros(m))


def time_layer(W, U, b, B):
    """The layer f(t, x, z) = tanh(W z + t U x + b) + z ⊙ B x: t turns the input up.

    W (m, m), U and B (m, n), b (m,), t a scalar.
    """
    return lambda t, x, z: jnp.tanh(W @ z + t * (U @ x) + b) + z * (B @ x)


class TimeExample(NamedTuple):
    """A layer f(t, x, z) with a point and a first guess.

    Attributes:
        f: the layer.
        t: the time, a scalar.
        x: (n,), the point.
        z0: (m,), the first guess.
    """

    f: Any
    t: Any
    x: Any
    z0: Any


def random_time_weights(seed, m=4, n=3, radius=0.4):
    """W, U, b and B of `random_time_layer`: many layers as data for one program."""
    draw = np.random.default_rng(seed).normal
    W = draw(size=(m, m))
    W *= radius / np.abs(np.linalg.eigvals(W)).max()
    U, b, B = draw(size=(m, n)), draw(size=m), draw(size=(m, n))
    return [jnp.asarray(array, float) for array in (W, U, 0.3 * b, 0.045 * B)]


def random_time_layer(seed, m=4, n=3, radius=0.4):
    """A random `time_layer` in which every mixed derivative is alive: a `TimeExample`.

    W is not symmetric and has the given spectral radius. As in `random_layer`, the
    numbers depend on the seed alone.
    """
    f = time_layer(*random_time_weights(seed, m, n, radius))
    x = jnp.asarray(np.cos(2.5 * np.arange(n)) / 1.5, float)
    return TimeExample(f, jnp.asarray(0.5, float), x, jnp.zeros(m))
