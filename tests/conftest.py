"""Float64 unless JAX_ENABLE_X64 says otherwise; tolerances follow the dtype.

These tests mostly wait for the compiler, so it optimises little here.
"""

import json
import os

os.environ.setdefault("JAX_ENABLE_X64", "1")

import jax
import ledger
import numpy as np
import programs
import pytest

from deqlib.check import relative_error, rounding
from deqlib.notebook.page import compile_quickly

compile_quickly()
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = ledger.ROOT

IN_FLOAT64 = jax.config.jax_enable_x64


@pytest.fixture
def close():
    """close(got, want): equal up to rounding of the dtype, or to `tol` in float64."""

    def close(got, want, tol=None):
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(got)), (
            "not finite"
        )
        limit = rounding() if tol is None or not IN_FLOAT64 else tol
        error = relative_error(got, want)
        assert error <= limit, f"relative error {error:.2e} above {limit:.1e}"
        return error

    return close


@pytest.fixture
def on_cpu():
    """Memory is measured here: on a GPU, a product takes 32 MiB that hide the rest."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def pytest_addoption(parser):
    parser.addoption("--page", help="only the equations of this page")


def pytest_configure(config):
    config.ledger = {}


def pytest_collection_modifyitems(config, items):
    page = config.getoption("--page")
    if page:
        labels = {e.label for e in ledger.equations() if e.page.stem == page}
        marks = {item: item.get_closest_marker("equation") for item in items}
        items[:] = [i for i in items if marks[i] and marks[i].args[0] in labels]


@pytest.fixture
def enter(request):
    """enter(error): what a comparison measured, into the ledger under its label."""
    label = request.node.get_closest_marker("equation").args[0]
    name = f"{request.node.path.name}::{request.node.originalname}"

    def enter(error):
        row = {"test": name, "error": error, "runs": 1}
        merge(request.config.ledger, {label: row})

    return enter


def merge(ledger, entries):
    for label, new in entries.items():
        row = ledger.setdefault(label, {**new, "error": 0.0, "runs": 0})
        row["error"] = max(row["error"], new["error"])
        row["runs"] += new["runs"]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """A worker of pytest-xdist hands in what it measured."""
    merge(
        node.config.ledger, getattr(node, "workeroutput", {}).get("ledger", {})
    )


def pytest_sessionfinish(session, exitstatus):
    """The numbers of the book's ledger page, from this run."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["ledger"] = config.ledger
    elif config.ledger and exitstatus == 0 and IN_FLOAT64:
        ledger.LEDGER.parent.mkdir(exist_ok=True)
        # One page's equations leave the rows of the others as they are.
        kept = ledger.LEDGER.exists() and config.getoption("--page")
        rows = json.loads(ledger.LEDGER.read_text()) if kept else {}
        rows |= config.ledger
        ledger.LEDGER.write_text(json.dumps(rows, indent=1, sort_keys=True))


def pytest_terminal_summary(terminalreporter):
    if programs.count:
        terminalreporter.line(f"{programs.count} programs compiled")
