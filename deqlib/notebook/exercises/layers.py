import math

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import newton
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    value,
)


def steps_needed(w):
    steps = math.ceil(6 * math.log(10) / -math.log(w))
    small = f"after {steps - 1} steps the error is still a little too large."
    other = f"that is for the residual or another factor; use {w}ᵏ."
    # of the residual: |z_1 - z_0| is 1, and |z*| is 1 / (1 - w)
    residual = math.ceil((6 * math.log(10) - math.log(1 - w)) / -math.log(w))
    return steps, [(steps - 1, small), (residual, other)]


value(
    "layers-steps",
    steps_needed,
    w={
        "f(z) = 0.9 z": 0.9,
        "f(z) = 0.8 z": 0.8,
        "f(z) = 0.7 z": 0.7,
        "f(z) = 0.95 z": 0.95,
        "f(z) = 0.85 z": 0.85,
    },
)


@exercise("layers-damped")
def _(answer):
    damped, a = answer
    expect(damped(jnp.cos, 0.3) is not None, "damped should return a function.")
    z = jnp.array([0.4])
    mistakes = [(0.3 * z + 0.7 * jnp.cos(z), "a belongs to g, and 1 - a to z.")]
    judge(damped(jnp.cos, 0.3)(z), 0.7 * z + 0.3 * jnp.cos(z), mistakes)
    g = lambda z: jnp.tanh(-2 * z + 0.3)
    expect(a != 0, "with a = 0 every state is an equilibrium.")
    slope = 1 - a + a * float(jax.jacfwd(g)(newton(g, jnp.zeros(1)).z)[0, 0])
    expect(
        abs(slope) < 1,
        f"with a = {a} the slope at the equilibrium is {slope:.4g}, not between -1 and 1.",
    )


@exercise("layers-growth")
def _(J):
    J = array(J, (2, 2), "J")
    radius = np.abs(np.linalg.eigvals(J)).max()
    # A double eigenvalue moves by the root of a rounding error.
    slack = 10 * np.finfo(float).eps ** 0.5 * max(1, np.abs(J).max()) ** 0.5
    expect(radius <= 0.5 + slack, f"its spectral radius is {radius:.7g}.")
    error = np.linalg.norm(J @ J @ J @ [0, 1])
    expect(error > 10, f"after three steps the error is {error:.4g}.")
