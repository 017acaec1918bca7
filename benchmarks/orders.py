"""How long the derivatives of one equilibrium along a line take, order by order.

    python benchmarks/orders.py

A layer tanh(W z + U x + b) + z * (V x) of 64 states. For each order K: the lines of the
program, the seconds to a first result (tracing, compiling and one run, nothing cached),
and the milliseconds of a run, the best of 20. `derivatives` goes to order 32. The peers
nest `jax.jvp` K times, which is all they have, and go as far as they come in a minute.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"

from time import perf_counter as now

import jax
import jax.numpy as jnp
import lineax
from bench import by_custom_root, by_optimistix

from deqlib import check, derivatives, fixed_point, models
from deqlib.notebook import seconds

F, X, Z0 = models.random_layer(seed=1, m=64, n=4)
V, LIMIT = jnp.ones(4), 60


def recursion(order):
    """All orders up to this one; the last is returned."""
    z = lambda x: fixed_point(F, x, Z0).z
    return lambda x: derivatives(F, x, z(x), V, order)[-1]


def nested(solve):
    def tower(order):
        g = lambda x: solve(F, x, Z0)
        for _ in range(order):
            g = lambda x, g=g: jax.jvp(g, (x,), (V,))[1]
        return g

    return tower


lu = lambda tol: lineax.LU()
TOWERS = {
    "deqlib derivatives": recursion,
    "deqlib fixed_point": nested(lambda f, x, z0: fixed_point(f, x, z0).z),
    "custom_root": nested(by_custom_root),
    "optimistix LU": nested(lambda *a: by_optimistix(lu, *a)),
}


def main():
    jax.config.update("jax_enable_compilation_cache", False)
    right = {}
    print("                    order    lines   first s    run ms")
    for name, tower in TOWERS.items():
        for order in (1, 2, 4, 6, 8, 16, 24, 32):
            jax.clear_caches()
            start = now()
            program = jax.jit(tower(order)).lower(X)
            lines = len(program.as_text().splitlines())
            run = program.compile()
            value = run(X).block_until_ready()
            first = now() - start
            wanted = right.setdefault(order, value)
            assert check.relative_error(value, wanted) < 1e-6, (name, order)
            ms = 1e3 * seconds(run, X)
            print(
                f"{name:<19} {order:5} {lines:8} {first:9.2f} {ms:9.3f}",
                flush=True,
            )
            if first > LIMIT or (tower is not recursion and order == 8):
                break


if __name__ == "__main__":
    main()
