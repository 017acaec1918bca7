"""Chapters 1 to 3. A deep equilibrium layer: solve, and differentiate by the theorem."""

import jax.numpy as jnp
from jax import lax

from deqlib import _validate
from deqlib._border import flatten, inputs, layer, precisely
from deqlib._guard import guard, nothing
from deqlib.jacobian import moving
from deqlib.solvers import broyden


@precisely
def fixed_point(f, x, z0, *, solver=broyden, linear_solver=None, **options):
    """Solve z = f(x, z), eq. (equilibrium-definition); z is differentiable in x.

    Source: first source, eq. layer-definition and eq. deq-jacobian.

    Args:
        f: the layer, f(x, z) with the shape of z.
        x: any tree of real floats: inputs and parameters.
        z0: the first guess, a tree of floats; inside it is one vector (m,).
        solver: a function of `deqlib.solvers`, or another with the same arguments. It
            is never differentiated.
        linear_solver: a function of `deqlib.linear`, for the derivatives; by default
            chosen by size. One of your own must return NaN if it fails, and must not
            close over traced values.
        **options: go to the solver: tol, max_steps, history, and scale, for a state whose
            components have different units or sizes.

    Returns:
        A `Solution`. Its z has the derivatives of z*(x) to every order, in forward and
        reverse mode; its other fields have none. If the solve failed, z and all its
        derivatives are NaN: `deqlib.diagnose` says why.

    Raises:
        TypeError: if x or z0 holds anything but real floats, or z0 those of two
            dtypes, f, solver or linear_solver is no function, or the solver does not
            know an option or returns no `Solution`.
        ValueError: if z0 holds no number, f(x, z0) is not like z0, or an
            option is out of range.

    >>> f = lambda x, z: z / 2 + x**2
    >>> x = jnp.array([3.0])
    >>> print(jax.jacrev(lambda x: fixed_point(f, x, jnp.zeros(1)).z)(x))
    [[12.]]
    """
    _validate.functions(f=f, solver=solver, linear_solver=linear_solver)
    x = inputs("x", x)
    _, z0, unravel = flatten("z0", z0)
    z0 = lax.stop_gradient(z0)
    f, z0 = layer(f, x, z0, linear_solver, unravel, z_name="z0")
    fixed, fixed_x, z0 = lax.stop_gradient((f, x, z0))
    solution = solver(lambda z: fixed.value(fixed_x, z), z0, **options)
    solution = _validate.solution("solver(g, z0)", solution)
    _validate.state("solver(g, z0).z", solution.z, "z0", z0)
    z = jnp.where(solution.converged, solution.z, z0)
    z = guard(moving(f, x, z), solution.converged, nothing(f, x))
    return solution._replace(z=unravel(z))
