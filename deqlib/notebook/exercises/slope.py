import jax.numpy as jnp
import numpy as np

from deqlib import models, newton
from deqlib.check import rounding
from deqlib.notebook.exercises.judge import exercise, expect, judge
from deqlib.notebook.exercises.mixed import mixed_terms, terms_of


def halves(t):
    term = 2 * t / (1 - 1 / 2) ** 3
    return 2 * term, [
        (term, "that is one of the two terms."),
        (1.5 * term, "the second derivative of z² is 2, not 1."),
    ]


@exercise(
    "slope-halves",
    formula=halves,
    t={
        r"$t = \tfrac14$": 1 / 4,
        r"$t = \tfrac12$": 1 / 2,
        r"$t = \tfrac18$": 1 / 8,
        "$t = 1$": 1,
        "$t = 3$": 3,
    },
)
def _(value, t):
    whole, mistakes = halves(t)
    if np.shape(value) == (2,):
        return judge(value, [whole / 2, whole / 2])
    judge(value, whole, mistakes)


@exercise("slope-gradient")
def _(slope_gradient):
    f, t, x, z0 = models.random_time_layer(5)
    z, u = newton(lambda z: f(t, x, z), z0).z, jnp.array([1.0, 0.5, -2.0, 0.3])
    a, b, c, d = (np.asarray(u @ part) for part in mixed_terms(f, t, x, z))
    mistakes = [
        (a + b, "that lets z stand still: add the solve with ∂φ/∂z."),
        (c + d, "that is the part through z alone: add ∂φ/∂x."),
        (a + c, "φ has a second term, f_z S_t."),
    ]
    judge(slope_gradient(f, t, x, z, u), a + b + c + d, mistakes)


@exercise("slope-blind")
def _(blind):
    for where, a, b, c, d in terms_of(blind):
        scale = max(1.0, abs(a), abs(b))
        hint = f"at {where} the detached derivative is {a + b:.3g}: look at f_tx and f_zx."
        expect(abs(a + b) <= rounding() * scale, hint)
        expect(
            abs(c + d) > 1e-6, f"at {where} the true derivative is zero too."
        )
