import jax
import jax.numpy as jnp
import numpy as np

from deqlib import jvp, mixed_vjp, models, newton, picard, vjp
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    value,
)


def cut_slopes(t, x):
    A = 1 + t * x
    want = np.array([x * t - 1, -1, -A]) / A**3
    return want, [
        (want * A, "divide by A³."),
        (want[[0, 2, 1]], "the last two have changed places."),
    ]


value(
    "physics-slopes",
    cut_slopes,
    t={"t = 1": 1, "t = 2": 2, r"t = \tfrac12": 1 / 2},
    x={"x = 3": 3, "x = 4": 4, "x = 2": 2, "x = 5": 5},
)


@exercise("physics-gradient")
def _(defect_gradient):
    f, t, x, z0 = models.random_time_layer(6)
    F = lambda z: jnp.sin(z) - z[::-1] ** 2
    g, v = lambda p, z: f(*p, z), (jnp.ones_like(t), jnp.zeros_like(x))

    @jax.jit
    def parts():
        z = newton(lambda z: f(t, x, z), z0).z
        e = jvp(g, (t, x), z, v) - F(z)
        moved = mixed_vjp(f, t, x, z, e)
        still = jax.grad(lambda x: e @ dense_slope(f, t, x, z))(x)
        return z, moved, still, vjp(g, (t, x), z, e @ jax.jacfwd(F)(z))[1]

    z, moved, still, through = parts()
    mistakes = [
        (moved, "F(z*) moves with x, too: ∂ℓ/∂z_0 is missing."),
        (moved + through, "the defect is the slope minus F."),
        (still - through, "that lets z stand still inside of S_t."),
        (still, "that lets z stand still."),
    ]
    judge(defect_gradient(f, F, t, x, z), moved - through, mistakes)


def dense_slope(f, t, x, z):
    A = jnp.eye(z.size) - jax.jacfwd(f, 2)(t, x, z)
    return jnp.linalg.solve(A, jax.jacfwd(f, 0)(t, x, z))


@exercise("physics-jump")
def _(jumping):
    array(jumping(0.5, 0.1), (), "the value")
    layer = lambda t, z: jnp.reshape(jumping(t, z[0]), (1,))
    times, levels = np.linspace(0.0, 1.0, 401), np.linspace(-2.0, 2.0, 9)

    @jax.jit
    def follow():
        def step(z, t):
            found = picard(lambda z: layer(t, z), z, max_steps=20_000)
            return found.z, (found.z[0], found.converged)

        values = jax.vmap(lambda t: jax.vmap(lambda z: jumping(t, z))(levels))
        return jax.lax.scan(step, -jnp.ones(1), times)[1], values(times)

    (states, converged), values = follow()
    steps = np.abs(np.diff(np.asarray(values), axis=0)).max()
    expect(steps < 0.1, "the layer itself jumps, or is not finite.")
    where = times[np.argmin(converged)]
    expect(
        converged.all(),
        f"at t = {where:.2f} the layer, repeated, does not settle.",
    )
    jump = np.abs(np.diff(np.asarray(states))).max()
    expect(jump > 0.5, f"the largest step from time to time is {jump:.2g}.")
