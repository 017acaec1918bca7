"""Chapters 1 to 3. A deep equilibrium layer: solve, and differentiate by the theorem."""

from jax import lax

from deqlib import _validate
from deqlib.jacobian import explicit, implicit
from deqlib.solvers import anderson


def fixed_point(f, x, z0, *, solver=anderson, linear_solver=None, **options):
    """Solve z = f(x, z), eq. (equilibrium-definition); z is differentiable in x.

    f              the layer, f(x, z) with the shape of z
    x              any tree of real floats: inputs and parameters
    z0             (m,), the first guess
    solver         a function of `deqlib.solvers`, or any other with its arguments;
                   it is never differentiated
    linear_solver  a function of `deqlib.linear`, for the derivatives; by default by size
    options        go to the solver: tol, max_steps, history, …

    Returns a `Solution`. Its z has the derivatives of z*(x) to every order, in forward
    and reverse mode; the other fields have none. If the solve failed, z and all
    its derivatives are NaN. Raises TypeError or ValueError if x holds anything but real
    floats, z0 is not a non-empty vector of real floats, f(x, z0) is not like z0, or an
    option is out of range.
    Source: first source, eq. layer-definition and eq. deq-jacobian.
    """
    z0 = _validate.vector("z0", z0)
    _validate.layer(f, x, z0)
    f, x = explicit(f, x, z0)
    fixed_x, z0 = lax.stop_gradient((x, z0))
    solution = solver(lambda z: f(fixed_x, z), z0, **options)
    return solution._replace(z=implicit(f, linear_solver, x, solution.z))
