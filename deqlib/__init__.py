"""deqlib: the derivatives of an equilibrium z = f(x, z), each as the book derives it."""

from deqlib import check, linear, models
from deqlib.equilibrium import fixed_point
from deqlib.jacobian import adjoint, jacobian, jvp, vjp
from deqlib.solvers import Solution, anderson, broyden, newton, picard

__all__ = [
    "Solution",
    "adjoint",
    "anderson",
    "broyden",
    "check",
    "fixed_point",
    "jacobian",
    "jvp",
    "linear",
    "models",
    "newton",
    "picard",
    "vjp",
]
