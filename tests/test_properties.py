"""Derivatives of layers that hypothesis draws, against dense solves.

Five layers in `make test`; many in the weekly run (HYPOTHESIS_PROFILE=weekly).
"""

import faulthandler
import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from deqlib import anderson, fixed_point, linear, models, newton

COMMON = {
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
settings.register_profile("test", max_examples=5, **COMMON)
settings.register_profile("weekly", max_examples=300, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

LINEAR = {
    "automatic": None,
    "direct": linear.direct,
    "gmres": linear.gmres,
    "neumann": linear.neumann,
    "anderson": linear.iterated(anderson),
}
MODES = {"fwd": jax.jacfwd, "rev": jax.jacrev}
layers = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "m": st.sampled_from([1, 2, 3, 5, 8, 129]),
        "n": st.integers(1, 6),
        "radius": st.floats(0.0, 3.0),
    }
)


def dense(f, x, z):
    """S and H by solves with matrices, from the derivatives of f alone."""
    f_x, J = jax.jacfwd(f, (0, 1))(x, z)
    A = jnp.eye(z.size) - J
    S = jnp.linalg.solve(A, f_x)
    along = lambda s: jax.jacfwd(lambda r: f(x + s + r, z + S @ (s + r)))(
        jnp.zeros_like(x)
    )
    curvature = jax.jacfwd(along)(jnp.zeros_like(x))
    H = jnp.linalg.solve(A, curvature.reshape(z.size, -1))
    return S, H.reshape(curvature.shape), jnp.linalg.cond(A)


@given(
    layers, st.sampled_from(sorted(LINEAR)), st.permutations(["fwd", "rev"] * 2)
)
def test_derivatives_of_drawn_layers(drawn, name, order):
    """Right to the condition number, or NaN; and NaN only where a series may diverge."""
    # The time after which pytest ends what hangs is that of one layer.
    faulthandler.dump_traceback_later(300, exit=True)
    f, x, z0 = models.random_layer(**drawn)
    # Of many states eight mixtures: a matrix of all would take minutes to solve for.
    m = z0.size
    mixtures = np.random.default_rng(0).normal(size=(8, m)) / np.sqrt(m)
    mix = jnp.asarray(np.eye(m) if m <= 8 else mixtures, z0.dtype)
    mixed = lambda a: jnp.tensordot(mix, a, 1)
    inner, outer = (MODES[mode] for mode in order[:2])

    def derivatives(x, z0):
        solve = lambda x: fixed_point(
            f, x, z0, solver=newton, linear_solver=LINEAR[name]
        )
        z = jax.lax.stop_gradient(solve(x))
        first = inner(lambda x: mixed(solve(x).z))
        return z, dense(f, x, z.z), first(x), outer(first)(x)

    solution, (S, H, condition), first, second = jax.jit(derivatives)(x, z0)
    assume(bool(solution.converged) and condition < 1e3)
    S, H = mixed(S), mixed(H)
    eps = float(jnp.finfo(z0.dtype).eps)
    for got, want, power in ((first, S, 1), (second, H, 3)):
        if np.isnan(got).any():
            assert np.isnan(got).all() and name in (
                "neumann",
                "anderson",
                "gmres",
            )
            continue
        error = np.abs(got - want).max()
        size = max(float(np.abs(want).max()), float(np.abs(S).max()))
        assert error <= 1e3 * eps * float(condition) ** power * size
