"""What the tests of second derivatives share: a layer, and oracles that know no theorem."""

from functools import cache, cached_property
from inspect import getclosurevars

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import anderson, fixed_point, linear, models

SHAPES = [(5, 3), (3, 6)]
SOLVERS = {
    "direct": linear.direct,
    "neumann": linear.neumann,
    "gmres": linear.gmres,
    "anderson": linear.iterated(anderson),
}


class Case:
    """A random layer f(x, z), the same as f(t, x, z), and the unroll's derivatives."""

    def __init__(self, seed, m, n):
        self.f, self.p, self.z0 = models.random_layer(seed, m, n + 1)
        self.m, self.n, self.t, self.x = m, n, self.p[0], self.p[1:]
        self.z = fixed_point(self.f, self.p, self.z0).z
        draw = np.random.default_rng(50 + seed).normal
        numbers = lambda *shape: draw(size=shape).astype(self.p.dtype)
        self.u, self.v = numbers(m), numbers(n)
        self.C, self.w = numbers(m, n + 1), numbers(n + 1)
        self.layer = lambda t, x, z: self.f(jnp.concatenate([t[None], x]), z)

    def unroll(self, p, steps=200):
        step = lambda z, _: (self.f(p, z), None)
        return jax.lax.scan(step, self.z0, length=steps)[0]

    @cached_property
    def H(self):
        second = jax.jacfwd(jax.jacfwd(self.unroll))
        return np.asarray(jax.jit(second)(self.p))

    @cached_property
    def third(self):
        third = jax.jacfwd(jax.jacfwd(jax.jacfwd(self.unroll)))
        return np.asarray(jax.jit(third)(self.p))


def weights_of(f):
    """The arrays in a `models.tanh_layer`: as data, they share one program."""
    return getclosurevars(f).nonlocals


case_of = cache(Case)


def general_loss(x, z):
    """Nothing in it is symmetric, and every second derivative is alive."""
    return jnp.sum(jnp.sin(z) * z) + jnp.sum(x**3) * z[0] + jnp.prod(1 + z)


def mixed_loss(x, z):
    """A loss on a tree of parameters."""
    return general_loss(jnp.concatenate([x["a"], x["b"]]), z)


class Counted:
    """`direct`, which remembers at run time whether it solved with A or with its
    transpose."""

    def __init__(self, A):
        self.seen, self.A = [], A

    def __call__(self, matvec, b):
        entry = matvec(jnp.zeros_like(b).at[1].set(1))[0]
        jax.debug.callback(lambda a: self.seen.append(float(a)), entry)
        return linear.direct(matvec, b)

    def counts(self):
        """(solves with A, solves with its transpose)"""
        jax.effects_barrier()
        tangent = [abs(a - self.A[0, 1]) < 1e-6 for a in self.seen]
        adjoint = [abs(a - self.A[1, 0]) < 1e-6 for a in self.seen]
        assert all(s != t for s, t in zip(tangent, adjoint, strict=True))
        return sum(tangent), sum(adjoint)


def counted_layer(f):
    """f, and a list that grows with each evaluation of it at run time."""
    calls = []

    def counted(*arguments):
        jax.debug.callback(lambda: calls.append(1))
        return f(*arguments)

    return counted, calls


def largest_array(function, *arguments):
    """The number of entries of the largest array in the program of `function`."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (v.aval.size for v in equation.outvars)
            for value in equation.params.values():
                for inner in jax.tree.leaves(
                    value, is_leaf=lambda v: hasattr(v, "eqns")
                ):
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(function)(*arguments).jaxpr))
