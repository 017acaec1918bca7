import jax
import jax.numpy as jnp
import numpy as np

from deqlib import hessian, jacobian
from deqlib.check import rounding
from deqlib.notebook.exercises.judge import (
    array,
    equilibrium,
    exercise,
    expect,
    judge,
    settled,
    value,
)

TWICE = "the mixed term counts twice, or A is missing."

value(
    "hessian-twice",
    lambda x: (
        2 / (1 - x) ** 3,
        [
            (1 / (1 - x) ** 3, TWICE),
            (2 / (1 - x) ** 2, TWICE),
            (1 / (1 - x) ** 2, "that is z'."),
        ],
    ),
    x={
        r"x = \tfrac12": 1 / 2,
        r"x = \tfrac13": 1 / 3,
        r"x = \tfrac14": 1 / 4,
        r"x = \tfrac23": 2 / 3,
        r"x = \tfrac34": 3 / 4,
    },
)


@exercise("hessian-directions")
def _(second_along):
    f, x, z = settled(13)
    v, w = jnp.array([1.0, -0.5, 0.3]), jnp.array([0.2, 1.0, -1.0])

    @jax.jit
    def right_and_wrong(x, z):
        S, H = jacobian(f, x, z), hessian(f, x, z)
        A = jnp.eye(4) - jax.jacfwd(f, 1)(x, z)
        along_v = lambda x: jax.jvp(f, (x, z), (v, S @ v))[1]
        still = jax.jvp(along_v, (x,), (w,))[1]
        right = H @ w @ v
        return right, A @ right, jnp.linalg.solve(A, still), H @ v @ v

    right, unsolved, still, same = right_and_wrong(x, z)
    mistakes = [
        (unsolved, "solve with A in the end."),
        (still, "z moves too: along S w."),
        (same, "w does not enter."),
    ]
    judge(second_along(f, x, z, v, w), right, mistakes)


@exercise("hessian-straight")
def _(bent):
    array(bent(0.3, 0.2), ())
    layer = lambda x, z: jnp.stack([bent(x[0], z[0])])
    x = jnp.array([0.3])
    z = equilibrium(layer, x)
    f_zz = np.abs(jax.jacfwd(jax.jacfwd(layer, 1), 1)(x, z)).max()
    expect(f_zz > 1e-6, "f_zz is zero: the layer is not bent in z.")
    slope = np.abs(jacobian(layer, x, z)).max()
    expect(slope > 1e-6, "the equilibrium does not move at all.")
    bend = float(hessian(layer, x, z)[0, 0, 0])
    expect(abs(bend) <= rounding(), f"z'' = {bend:.2g}.")
