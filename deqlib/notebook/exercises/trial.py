import jax
import jax.numpy as jnp

from deqlib.check import trial
from deqlib.notebook.exercises.judge import (
    array,
    exercise,
    expect,
    judge,
    settled,
    value,
)


def three_bends(a):
    """Of f = a x z + (1 - a) at x = 1, where z* = 1: A = 1 - a, f_xz = a, S = a / A."""
    term = a * a / (1 - a) ** 2
    return (2 * term, 0.0, term), [
        ((2 * term * (1 - a), 0.0, term * (1 - a)), "divide by A."),
        (
            (2 * term, term, 0.0),
            "the Newton step loses both cross terms, the rule one.",
        ),
        ((term, 0.0, term), "the equilibrium has the cross term twice."),
    ]


value(
    "trial-half",
    three_bends,
    a={
        r"\frac12 xz + \frac12": 1 / 2,
        r"\frac13 xz + \frac23": 1 / 3,
        r"\frac23 xz + \frac13": 2 / 3,
        r"\frac14 xz + \frac34": 1 / 4,
        r"\frac34 xz + \frac14": 3 / 4,
    },
)


@exercise("trial-repair")
def _(repaired):
    f, x, z = settled(12)
    function = repaired(f, lambda x: jax.lax.stop_gradient(solved(f, x, z)))
    expect(callable(function), "it should return a function of x.")
    judge(function(x), z)
    verdict = trial(function, x, 2)
    for order, found in enumerate(verdict.orders, 1):
        expect(
            all(finding.verdict != "wrong" for finding in found.values()),
            f"derivatives of order {order} are wrong:\n{verdict}",
        )
    expect(verdict.right, f"not every order has a mode:\n{verdict}")


def solved(f, x, z0):
    return jax.lax.fori_loop(0, 120, lambda _, z: f(x, z), z0)


@exercise("trial-hidden")
def _(hidden):
    array(hidden(1.0), (), "the value at 1")
    near = trial(hidden, jnp.array(1.0), 2)
    expect(near.right, f"at 1 the trial finds:\n{near}")
    far = trial(hidden, jnp.array(3.0), 1)
    expect(not far.right, "at 3 the derivative is right.")
