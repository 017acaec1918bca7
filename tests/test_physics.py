"""The experiment of chapter 12: its gradients are what their names say, and what the page
says of its results is so."""

import importlib.util
import json
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "physics.py"
RESULTS = resources.files("deqlib.notebook").joinpath("physics.json")


@pytest.fixture
def physics(monkeypatch):
    for name in ("JAX_PLATFORMS", "JAX_ENABLE_X64"):  # the script sets them
        monkeypatch.setenv(name, "")
    spec = importlib.util.spec_from_file_location("physics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unrolled(physics, t, x, steps=100):
    step = lambda _, z: physics.layer((t, x), z)
    return jax.lax.fori_loop(0, steps, step, jnp.zeros(5))


def test_gradients_of_the_slope_are_what_their_names_say(physics, close):
    x, t, u = physics.weights(1), jnp.asarray(0.7), jnp.array([1.0, -0.5])
    x["W"] = x["W"] / 2  # so that the unroll converges
    stop = jax.lax.stop_gradient
    z = unrolled(physics, t, x)

    def slope(x, z, A=None):
        J = jax.jacfwd(physics.layer, 1)((t, x), z)
        A = jnp.eye(5) - J if A is None else A
        f_t = jax.jacfwd(lambda t: physics.layer((t, x), z))(t)
        return u @ x["C"] @ jnp.linalg.solve(A, f_t)

    fixed = jnp.eye(5) - jax.jacfwd(physics.layer, 1)((t, x), z)
    want = {
        "exact": lambda x: slope(x, unrolled(physics, t, x)),
        "state cut": lambda x: slope(x, stop(z)),
        "adjoint cut": lambda x: (
            slope({**x, "C": stop(x["C"])}, stop(z), fixed)
            + (
                u
                @ (x["C"] - stop(x["C"]))
                @ stop(jax.jacfwd(lambda t: physics.layer((t, x), z))(t))
            )
        ),
    }
    for gradient in physics.GRADIENTS:
        got = lambda x, g=gradient: u @ physics.equilibrium(g, t, x, z)[1]
        value, by_x = jax.jit(jax.value_and_grad(got))(x)
        expected, wanted = jax.jit(jax.value_and_grad(want[gradient]))(x)
        close(value, slope(x, z))
        jax.tree.map(close, by_x, wanted)


def test_a_small_part_runs_and_writes_nothing(physics, monkeypatch, capsys):
    before = RESULTS.read_bytes()
    arguments = ["physics.py", "--epochs", "50", "--seeds", "2"]
    monkeypatch.setattr("sys.argv", [*arguments, "--only", "plain network"])
    physics.main()
    out = capsys.readouterr().out
    assert out.startswith("plain network ") and "lost 0 of 2" in out
    assert RESULTS.read_bytes() == before


def test_what_the_page_says_of_the_results(physics):
    results = json.loads(RESULTS.read_text())
    assert (results["epochs"], results["seeds"]) == (50_000, 10)
    assert not results["commit"].endswith("+")
    arms = results["arms"]
    assert list(arms) == list(physics.ARMS)
    last = {
        name: np.array([row[-1] for row in arm["error"]], float)
        for name, arm in arms.items()
    }
    cut = last.pop("adjoint cut, kappa = 0")
    assert np.isnan(cut).all()
    assert not any(np.isnan(errors).any() for errors in last.values())
    for middle in (np.mean, np.median):
        best = min(last, key=lambda name: middle(last[name]))
        assert best == "exact, kappa = 0"
    for name, arm in arms.items():
        if name.endswith("1"):
            assert np.median(arm["norm of J"]) < 1e-3
        if name.startswith(("exact", "state")) and name.endswith("0"):
            assert min(arm["norm of J"]) > 0.5
            assert (
                arm["CPU seconds"] > 10 * arms["plain network"]["CPU seconds"]
            )
