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

value(
    "trial-half",
    (2.0, 0.0, 1.0),
    ((1.0, 0.0, 0.5), "divide by A, which is one half."),
    ((2.0, 1.0, 0.0), "the Newton step loses both cross terms, the rule one."),
    ((1.0, 0.0, 1.0), "the equilibrium has the cross term twice."),
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
