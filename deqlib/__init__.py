"""deqlib: the derivatives of an equilibrium z = f(x, z), each as the book derives it."""

from importlib.metadata import version

from deqlib import check, linear, models
from deqlib.equilibrium import fixed_point
from deqlib.hessian import hessian, jacobian_vjp
from deqlib.jacobian import adjoint, implicit, jacobian, jvp, vjp
from deqlib.loss import gauss_newton, loss_gradient, loss_hessian, loss_hvp
from deqlib.mixed import mixed_hessian, mixed_vjp
from deqlib.solvers import Solution, anderson, broyden, newton, picard
from deqlib.taylor import derivatives, derivatives_vjp
from deqlib.why import diagnose

__version__ = version("deqlib")

__all__ = [
    "Solution",
    "adjoint",
    "anderson",
    "broyden",
    "check",
    "derivatives",
    "derivatives_vjp",
    "diagnose",
    "fixed_point",
    "gauss_newton",
    "hessian",
    "implicit",
    "jacobian",
    "jacobian_vjp",
    "jvp",
    "linear",
    "loss_gradient",
    "loss_hessian",
    "loss_hvp",
    "mixed_hessian",
    "mixed_vjp",
    "models",
    "newton",
    "picard",
    "vjp",
]
