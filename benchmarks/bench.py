"""How long deqlib and its peers take to the same derivatives of z = f(x, z).

    python benchmarks/bench.py [--quick] [--only TASK]

Writes results.json and results.svg: of a whole run beside this file, of a part
into _build.

- f is tanh(W z + U x + b), with m states, m / 2 inputs x and a random W; for
  the loss Hessian m = 32, and x is W, U and b: 1568 parameters. All times
  include the solve for z. `unroll` is told how many steps are enough, the
  others find out.
- The competitors take turns, round after round of one run, and medians count:
  what slows the computer slows them all. A turn is four calls, and its time the
  shortest: the first finds caches and memory as another program left them.
- No time counts unless the result agrees with the entrywise median of all
  results, up to `check.rounding`. Who is wrong or fails is listed with the
  reason.
- "First" is the time to a first result: tracing, compiling and one run, with
  JAX's caches empty and none on disk. "Temp" is the compiled program's own
  memory.
- A ratio is the best peer's number over deqlib's: above 1, deqlib is better.
  Each number has its own best peer.
- One BLAS thread: JAX's LU is OpenBLAS's, whose threads fight with those of
  XLA. On two cores, they make one LU of 256 x 256 take 140 ms instead of 1.
"""

import argparse
import json
import math
import os
import platform
import re
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import geometric_mean, median
from time import perf_counter as now

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy reads it when it is imported
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import lineax
import matplotlib.style
import numpy as np
import optimistix
from jax import lax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure

import deqlib
from deqlib import check, fixed_point

ROOT = Path(__file__).resolve().parents[1]
TASKS = ["gradient", "hvp", "mixed-vjp", "loss-hessian", "jacobian"]
MEAN = ["gradient", "hvp", "loss-hessian"]  # what the geometric means are over
NUMBERS = {"ms": "run time", "first_s": "first result"}
PACKAGES = ["deqlib", "jax", "jaxlib", "optimistix", "lineax"]
RADIUS = 0.55  # the spectral radius of W


# Competitors: functions (f, x, z0) that return z, for JAX to differentiate.


def by_optimistix(linear_solver, f, x, z0):
    tol = tolerance(z0)
    return optimistix.fixed_point(
        lambda z, x: f(x, z),
        optimistix.FixedPointIteration(rtol=tol, atol=tol),
        z0,
        args=x,
        adjoint=optimistix.ImplicitAdjoint(linear_solver(tol)),
    ).value


def by_custom_root(f, x, z0):
    def picard(root, z):
        size, tol = jnp.linalg.norm, tolerance(z)
        far = lambda zr: size(zr[1]) > tol * size(zr[0] + zr[1])
        step = lambda zr: (zr[0] + zr[1], root(zr[0] + zr[1]))
        return lax.while_loop(far, step, (z, root(z)))[0]

    dense = lambda g, b: jnp.linalg.solve(jax.jacobian(g)(b), b)
    return lax.custom_root(lambda z: f(x, z) - z, z0, picard, dense)


def by_unrolling(f, x, z0):
    steps = math.ceil(math.log(jnp.finfo(z0.dtype).eps, RADIUS))
    return lax.scan(lambda z, _: (f(x, z), None), z0, length=steps)[0]


def tolerance(z):
    """deqlib's default: there of a norm, in optimistix of every entry."""
    return 64 * float(jnp.finfo(z.dtype).eps)


# The TASKS: functions (f, x, z0, v). In the mixed vJp f is f(t, x, z), v is u.


def loss(x, z):
    return jnp.sum(jnp.sin(z))


def by_jax(solve):
    def mixed(f, x, z0, u):
        g = lambda t, x: u @ solve(partial(f, t), x, z0)
        return jax.jvp(lambda t: jax.grad(g, 1)(t, x), (1.0,), (1.0,))[1]

    total = lambda f, z0: lambda x: loss(x, solve(f, x, z0))
    grad = lambda f, x, z0, v: jax.grad(total(f, z0))(x)
    hvp = lambda f, x, z0, v: jax.jvp(jax.grad(total(f, z0)), (x,), (v,))[1]
    hessian = lambda f, x, z0, v: jax.hessian(total(f, z0))(x)
    jacobian = lambda f, x, z0, v: jax.jacfwd(solve, 1)(f, x, z0)
    return [grad, hvp, mixed, hessian, jacobian]


def by_deqlib():
    def mixed(f, x, z0, u):
        return deqlib.mixed_vjp(f, 1.0, x, z(partial(f, 1.0), x, z0), u)

    z = lambda f, x, z0: fixed_point(f, x, z0).z
    hvp = lambda f, x, z0, v: deqlib.loss_hvp(loss, f, x, z(f, x, z0), v)
    hessian = lambda f, x, z0, v: deqlib.loss_hessian(loss, f, x, z(f, x, z0))
    jacobian = lambda f, x, z0, v: deqlib.jacobian(f, x, z(f, x, z0))
    return [by_jax(z)[0], hvp, mixed, hessian, jacobian]


auto = lambda tol: lineax.AutoLinearSolver(well_posed=None)
lu = lambda tol: lineax.LU()
gmres = lambda tol: lineax.GMRES(rtol=tol, atol=tol)
COMPETITORS = {
    "deqlib": by_deqlib(),
    "optimistix auto": by_jax(partial(by_optimistix, auto)),
    "optimistix LU": by_jax(partial(by_optimistix, lu)),
    "optimistix GMRES": by_jax(partial(by_optimistix, gmres)),
    "custom_root": by_jax(by_custom_root),
    "unroll": by_jax(by_unrolling),
}


def problem(task, m, dtype):
    """A function that makes the layer of arrays; and these, x, z0 and v."""
    n, draw = m // 2, np.random.default_rng(m).normal
    W, U, b = draw(size=(m, m)), draw(size=(m, n)) / n**0.5, 0.3 * draw(size=m)
    W *= RADIUS / np.abs(np.linalg.eigvals(W)).max()
    known, x = (W, U, b), 0.7 * draw(size=n)
    f = lambda w, t, x, z: jnp.tanh(w[0] @ z + t * (w[1] @ x) + w[2])
    layer = lambda w: partial(f, w, 1.0)
    if task == "mixed-vjp":
        layer = lambda w: partial(f, w)
    if task == "loss-hessian":
        known, (x, unravel) = x, ravel_pytree(known)
        layer = lambda inputs: lambda x, z: f(unravel(x), 1.0, inputs, z)
    v = draw(size=m if task == "mixed-vjp" else x.size)
    cast = lambda a: jnp.asarray(a, dtype)
    return layer, jax.tree.map(cast, (known, x, np.zeros(m), v))


def measure(task, m, dtype, firsts, rounds):
    """A row for each competitor. Where it has a note it has no times."""
    layer, arrays = problem(task, m, dtype)
    about = {"task": task, "m": m, "dtype": dtype, "note": ""}
    rows = {by: {"by": by, **about} for by in COMPETITORS}
    runs, results, times = {}, {}, {by: ([], []) for by in rows}
    for by in list(rows) * firsts:
        derivative = COMPETITORS[by][TASKS.index(task)]
        program = lambda w, *rest, d=derivative: d(layer(w), *rest)
        jax.clear_caches()
        start = now()
        try:
            runs[by] = jax.jit(program).lower(*arrays).compile()
            results[by] = jax.block_until_ready(runs[by](*arrays))
        except Exception as error:  # whatever it is, it is listed
            rows[by]["note"] = f"{type(error).__name__}: {error}"[:200]
        times[by][0].append(now() - start)
    agreed = np.nanmedian([np.asarray(r) for r in results.values()], axis=0)
    for by, result in results.items():
        error = check.relative_error(result, agreed)
        if not error <= check.rounding(dtype):
            rows[by]["note"] = rows[by]["note"] or f"wrong: error {error:.1e}"
    right = [by for by in rows if not rows[by]["note"]]
    for by in right * rounds:
        ticks = [now()]
        for _ in range(4):
            jax.block_until_ready(runs[by](*arrays))
            ticks.append(now())
        times[by][1].append(1e3 * min(np.diff(ticks)))
    for by in right:
        rows[by]["first_s"], rows[by]["ms"] = map(median, times[by])
        memory = runs[by].memory_analysis().temp_size_in_bytes
        rows[by]["temp_kb"] = memory / 1e3
    return list(rows.values())


def best_peer(rows, number):
    """Which peer is best, and the ratio of its number to deqlib's."""
    ours, *peers = rows
    peers = [(peer[number], peer["by"]) for peer in peers if number in peer]
    best, by = min(peers, default=(math.nan, "no peer"))
    return by, best / ours.get(number, math.nan)


def show(rows):
    line = "{task:<12} {m:>4} {dtype}  {by:<17} {note}".format
    numbers = "{ms:9.3f} ms {first_s:6.2f} s {temp_kb:9.0f} kB".format
    for row in rows:
        print(line(**row) + ("" if row["note"] else numbers(**row)))
    for key, name in NUMBERS.items():
        by, ratio = best_peer(rows, key)
        print(f"    {name}: {by} / deqlib = {ratio:.2f}", flush=True)


def picture(cells, path):
    matplotlib.style.use(ROOT / "deqlib" / "notebook" / "book.mplstyle")
    label = "{task}, m = {m}".format
    names = list(dict.fromkeys(label(**rows[0]) for rows in cells))
    figure = Figure(figsize=(8, 1 + 0.3 * len(names)))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, name) in zip(panels, NUMBERS.items(), strict=True):
        for dtype, marker in {"float64": "o", "float32": "x"}.items():
            these = [rows for rows in cells if rows[0]["dtype"] == dtype]
            ratios = [best_peer(rows, key)[1] for rows in these]
            axes.plot(ratios, range(len(these)), marker, label=dtype)
        axes.axvline(1, color="black", linewidth=1)
        axes.set(xscale="log", xlabel=f"{name}: best peer / deqlib")
        axes.set_xticks(ticks := [0.05, 0.1, 0.2, 0.5, 1, 2, 5], ticks)
        axes.set_xticks([], minor=True)
        axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def facts():
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    model = re.search("model name.*: (.*)|$", text)[1] or platform.machine()
    return {
        "date": str(date.today()),
        "cpu": f"{model}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def main(quick, only):
    sizes, dtypes, counts = [64, 256, 512], ["float64", "float32"], (3, 11)
    if quick:
        sizes, dtypes, counts = [64], ["float64"], (1, 5)
    jax.config.update("jax_enable_compilation_cache", False)
    cells = []
    for dtype in dtypes:
        jax.config.update("jax_enable_x64", dtype == "float64")
        measure("gradient", 8, dtype, 1, 1)  # what only a first program meets
        for task in [only] if only else TASKS:
            for m in [32] if task == "loss-hessian" else sizes:
                cells.append(measure(task, m, dtype, *counts))
                show(cells[-1])
    means = {}
    for dtype, key in product(dtypes, NUMBERS):
        of = [c for c in cells if c[0]["dtype"] == dtype]
        of = [best_peer(c, key)[1] for c in of if c[0]["task"] in MEAN]
        mean = means[f"{dtype} {key}"] = geometric_mean(of) if of else None
        if mean:
            name = f"{dtype}, {NUMBERS[key]}"
            print(f"{name}: geometric mean {mean:.2f} over {', '.join(MEAN)}")
    folder = ROOT / ("_build" if quick or only else "benchmarks")
    folder.mkdir(exist_ok=True)
    results = {**facts(), "geometric_means": means, "rows": sum(cells, [])}
    text = json.dumps(results, indent=1) + "\n"
    (folder / "results.json").write_text(text)
    picture(cells, folder / "results.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=TASKS, metavar="TASK")
    main(**vars(parser.parse_args()))
