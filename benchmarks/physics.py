"""Van der Pol's equation, learned from the equation alone: which gradient does it take?

    python benchmarks/physics.py [--epochs 50000] [--seeds 10] [--only ARM]

A whole run writes deqlib/notebook/physics.json, which chapter 12 shows; a part of it
prints its table and writes nothing.

- The equation: y1' = y2, y2' = (1 - y1^2) y2 - y1, y(0) = (0, 0.1), 0 <= t <= 2.
- The networks: y = C z + c with z = tanh(W z + a t + b), five states, 47 parameters; and
  for comparison two hidden layers of five tanh cells, 52 parameters.
- The loss: |y(0) - (0, 0.1)|^2 + 0.1 mean |y' - F(y)|^2 + kappa mean |J|^2 / 5, with means
  over 101 equidistant times and J = df/dz.
- The gradients of y' by the parameters. "exact": all of it. "state cut": the equilibrium
  stands still, as in chapter 5. "adjoint cut": so does the solution of the backward solve,
  λ = u + Jᵀ λ, but for its first term. The values, and the gradients of y, are the same.
- Adam, learning rate 1e-3, float64. Each epoch's Newton starts at the last one's states.
  Where it fails, everything is NaN from then on: the run has lost its equilibrium.
- The error: the integral over t of |y1 - y1*| + |y2 - y2*|, against RK4 of 20 steps from
  time to time. Records are taken at 50 epochs.

A replication of Pacheco's thesis this is not: points, solver and initial weights differ.
"""

import argparse
import json
import os
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path
from time import process_time

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_X64"] = "1"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from deqlib import adjoint, fixed_point, newton

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "deqlib" / "notebook" / "physics.json"
STATES, RECORDS = 5, 50
TIMES, START = jnp.linspace(0.0, 2.0, 101), jnp.array([0.0, 0.1])
GRADIENTS = ["exact", "state cut", "adjoint cut"]
ARMS = {f"{g}, kappa = {k}": (g, k) for g, k in product(GRADIENTS, (0, 1))}
ARMS["plain network"] = ("plain", 0)


def van_der_pol(y):
    return jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]])


def runge_kutta(F, y, times, steps=20):
    """The solution of y' = F(y) at `times`, by the classical method of order four."""

    def advance(y, dt):
        h = dt / steps

        def step(_, y):
            a = F(y)
            b = F(y + h / 2 * a)
            c = F(y + h / 2 * b)
            return y + h / 6 * (a + 2 * b + 2 * c + F(y + h * c))

        y = lax.fori_loop(0, steps, step, y)
        return y, y

    return jnp.vstack([y, lax.scan(advance, y, jnp.diff(times))[1]])


def layer(p, z):
    t, x = p
    return jnp.tanh(x["W"] @ z + t * x["a"] + x["b"])


def equilibrium(gradient, t, x, z0):
    """y, y', the square of |J| / 5, and z. The gradient of y' is exact or cut."""
    p, stop = (t, x), lax.stop_gradient
    z = fixed_point(layer, p, z0, solver=newton).z
    y = lambda t: x["C"] @ fixed_point(layer, (t, x), z, solver=newton).z
    along_t = lambda f: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]
    J = jax.jacfwd(layer, 1)(p, z)
    still = stop(z)
    f_t = along_t(lambda t: layer((t, x), still))
    if gradient == "exact":
        slope = along_t(y)
    elif gradient == "state cut":
        A = jnp.eye(STATES) - jax.jacfwd(layer, 1)(p, still)
        slope = x["C"] @ jnp.linalg.solve(A, f_t)
    else:
        rows = jax.vmap(lambda u: adjoint(layer, stop(p), still, u))(
            stop(x["C"])
        )
        # The readout keeps the gradient that a hook on the state lets it have.
        slope = (rows - stop(x["C"]) + x["C"]) @ f_t
    return x["C"] @ z + x["c"], slope, jnp.sum(J**2) / STATES, z


def plain(t, x, z0):
    def y(t):
        h = jnp.tanh(t * x["a"] + x["b"])
        return x["C"] @ jnp.tanh(x["W"] @ h + x["d"]) + x["c"]

    return *jax.jvp(y, (t,), (jnp.ones_like(t),)), 0.0, z0


def network(gradient, t, x, z0):
    return (
        plain(t, x, z0)
        if gradient == "plain"
        else equilibrium(gradient, t, x, z0)
    )


def loss(x, states, gradient, kappa):
    at = jax.vmap(lambda t, z0: network(gradient, t, x, z0))
    y, slope, size, states = at(TIMES, states)
    physics = jnp.mean(jnp.sum((slope - jax.vmap(van_der_pol)(y)) ** 2, 1))
    whole = (
        jnp.sum((y[0] - START) ** 2) + 0.1 * physics + kappa * jnp.mean(size)
    )
    return whole, (states, y, size)


def weights(seed):
    """Uniform, by the number of inputs, as PyTorch does; seed 0 and on."""
    draw, k = np.random.default_rng(seed).uniform, STATES**-0.5
    x = {
        "W": draw(-k, k, (STATES, STATES)),
        "a": draw(-1, 1, STATES),
        "b": draw(-k, k, STATES),
        "C": draw(-k, k, (2, STATES)),
        "c": draw(-k, k, 2),
        "d": draw(-k, k, STATES),
    }
    return jax.tree.map(jnp.asarray, x)


def train(arm, epochs, seeds):
    gradient, kappa = ARMS[arm]
    rule, truth = optax.adam(1e-3), runge_kutta(van_der_pol, START, TIMES)

    def epoch(carry, _):
        x, memory, states = carry
        (_, (states, _, _)), g = jax.value_and_grad(loss, has_aux=True)(
            x, states, gradient, kappa
        )
        change, memory = rule.update(g, memory)
        return (optax.apply_updates(x, change), memory, states), None

    @jax.jit
    @jax.vmap
    def advance(carry):
        carry, _ = lax.scan(epoch, carry, length=max(epochs // RECORDS, 1))
        x, _, states = carry
        value, (_, y, size) = loss(x, states, gradient, kappa)
        error = jnp.trapezoid(jnp.sum(jnp.abs(y - truth), 1), TIMES)
        return carry, (value, error, jnp.sqrt(STATES * jnp.max(size)))

    x = jax.tree.map(lambda *a: jnp.stack(a), *map(weights, range(seeds)))
    states = jnp.zeros((seeds, TIMES.size, STATES))
    carry, records, start = (
        (x, jax.vmap(rule.init)(x), states),
        [],
        process_time(),
    )
    for _ in range(RECORDS):
        carry, record = advance(carry)
        records.append(np.stack(record))
    values, errors, sizes = np.stack(records, 2)  # each by seed and record
    rounded = lambda a: [None if np.isnan(v) else float(f"{v:.3g}") for v in a]
    return {
        "error": [rounded(row) for row in errors],
        "loss": rounded(values[:, -1]),
        "norm of J": rounded(sizes[:, -1]),
        "CPU seconds": round(process_time() - start),
    }


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(s for s in lines if "model name" in s).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit():
    git = lambda *a: subprocess.check_output(["git", "-C", ROOT, *a], text=True)
    changed = git("status", "--porcelain", "--untracked-files=no").strip()
    return git("rev-parse", "--short", "HEAD").strip() + (
        "+" if changed else ""
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=list(ARMS), metavar="ARM")
    options = parser.parse_args()
    results = {
        "date": date.today().isoformat(),
        "machine": processor(),
        "commit": commit(),
        "versions": {p: version(p) for p in ("jax", "optax", "deqlib")},
        "epochs": options.epochs,
        "seeds": options.seeds,
        "arms": {},
    }
    for arm in [options.only] if options.only else ARMS:
        found = results["arms"][arm] = train(arm, options.epochs, options.seeds)
        last = [row[-1] for row in found["error"]]
        kept = [e for e in last if e is not None]
        said = f"{np.mean(kept):.1e} +- {np.std(kept):.0e}" if kept else "-"
        lost = len(last) - len(kept)
        print(
            f"{arm:<24} error {said:<18} lost {lost} of {len(last)}", flush=True
        )
    if (options.epochs, options.seeds, options.only) == (50_000, 10, None):
        RESULTS.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
