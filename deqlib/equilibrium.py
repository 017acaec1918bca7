"""Chapters 1 to 3. A deep equilibrium layer: solve, and differentiate by the theorem."""

from jax import lax

from deqlib import _validate
from deqlib.jacobian import explicit, implicit
from deqlib.solvers import broyden, mark


def fixed_point(f, x, z0, *, solver=broyden, linear_solver=None, **options):
    """Solve z = f(x, z), eq. (equilibrium-definition); z is differentiable in x.

    Source: first source, eq. layer-definition and eq. deq-jacobian.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: any tree of real floats: inputs and parameters.
        z0: (m,), the first guess.
        solver: a function of `deqlib.solvers`, or another with the same arguments. It
            is never differentiated.
        linear_solver: a function of `deqlib.linear`, for the derivatives; by default
            chosen by size. One of your own must return NaN if it fails, and must not
            close over traced values.
        **options: go to the solver: tol, max_steps, history.

    Returns:
        A `Solution`. Its z has the derivatives of z*(x) to every order, in forward and
        reverse mode; its other fields have none. If the solve failed, z and all its
        derivatives are NaN.

    Raises:
        TypeError: if x or z0 holds anything but real floats, f, solver or
            linear_solver is no function, or the solver does not know an option.
        ValueError: if z0 is not a non-empty vector, f(x, z0) is not like z0, or an
            option is out of range.
    """
    _validate.functions(solver=solver)
    z0 = _validate.vector("z0", z0)
    x, z0 = _validate.layer(f, x, z0, linear_solver)
    f, x = explicit(f, x, z0)
    fixed_x, z0 = lax.stop_gradient((x, z0))
    solution = solver(lambda z: f(fixed_x, z), z0, **options)
    _validate.state("solver(g, z0).z", solution.z, "z0", z0)
    z = mark(solution.z, solution.converged)
    return solution._replace(z=implicit(f, linear_solver, x, z))
