"""The package as others meet it: examples, types, a version."""

import doctest
import importlib
import subprocess
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT

import deqlib

MODULES = "equilibrium hessian jacobian linear loss mixed solvers taylor trial why".split()


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name):
    module = importlib.import_module(f"deqlib.{name}")
    names = {"jnp": jnp, "jax": jax, "deqlib": deqlib}
    assert not doctest.testmod(module, extraglobs=names).failed


def test_every_public_function_has_an_example():
    public = [getattr(deqlib, name) for name in deqlib.__all__]
    public += [
        getattr(deqlib.linear, n) for n in "direct gmres neumann".split()
    ]
    for function in public:
        if callable(function) and function is not deqlib.Solution:
            assert ">>> print(" in function.__doc__, function


def test_the_types_are_those_of_the_functions():
    """py.typed promises annotations; they stand in a stub, apart from the theorems."""
    command = [sys.executable, "-m", "mypy.stubtest", "deqlib"]
    config = ["--mypy-config-file", ROOT / "pyproject.toml"]
    ignored = ["--ignore-missing-stub", "--concise", *config]
    done = subprocess.run([*command, *ignored], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version():
    assert deqlib.__version__ == version("deqlib")
