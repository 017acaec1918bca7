"""The ledger: each numbered equation, both sides, on several random layers.

Layers have non-symmetric weights, m ≠ n in both directions, and every mixed derivative
alive. Where the book states an equation for a special layer, that layer is drawn. The
docstring of a test is the formula on the page: whoever changes one looks at the other.
"""

import inspect
import itertools
import math
from collections import namedtuple
from functools import cache, cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import programs
import second
from equation import NoLarger, Sample, compiled, draws, equation, stacked

import deqlib
from deqlib import (
    adjoint,
    broyden,
    jacobian,
    jvp,
    linear,
    models,
    newton,
    picard,
    vjp,
)


def by(*places):
    """The partial derivative of f in these of its arguments, at a layer's point."""

    def partial_derivative(layer):
        function = layer.f
        for place in places:
            function = jax.jacfwd(function, place)
        return function(*layer.at)

    return cached_property(partial_derivative)


class Case(namedtuple("Case", "weights x u v z S H", defaults=[None] * 3)):
    """A random layer at its equilibrium, with its dense derivatives."""

    f = property(lambda self: models.tanh_layer(**self.weights))
    at = property(lambda self: (self.x, self.z))
    m = property(lambda self: self.u.size)
    n = property(lambda self: self.x.size)
    fx, J = by(0), by(1)
    f_xx, f_xz, f_zz = by(0, 0), by(0, 1), by(1, 1)
    A = property(lambda self: jnp.eye(self.m) - self.J)

    def unrolled(self, x, steps=200, z0=None):
        step = lambda z, _: (self.f(x, z), None)
        z0 = jnp.zeros(self.m) if z0 is None else z0
        return jax.lax.scan(step, z0, length=steps)[0]

    def solved(self):
        """With z, and the oracles S and H: autodiff through a long unroll."""
        S = jax.jacfwd(self.unrolled)
        z = newton(partial(self.f, self.x), jnp.zeros(self.m)).z
        return self._replace(z=z, S=S(self.x), H=jax.jacfwd(S)(self.x))

    def bend(self, v, w):
        """D²f[(v, Sv), (w, Sw)]."""
        once = lambda x, z: jax.jvp(self.f, (x, z), (v, self.S @ v))[1]
        return jax.jvp(once, (self.x, self.z), (w, self.S @ w))[1]

    def second_partials(self):
        """f_xx, f_xz, f_zz with the index of the component first."""
        return self.f_xx, self.f_xz, self.f_zz


@cache
def cases(m, n, seeds, first):
    """The `Case` of each seed, all in one; u and v are drawn from seed `first` on."""

    def drawn(seed):
        f, x, _ = models.random_layer(seed, m, n)
        normal = np.random.default_rng(first + seed).normal
        weights = inspect.getclosurevars(f).nonlocals
        return Case(weights, x, normal(size=m), normal(size=n))

    return jax.jit(jax.vmap(Case.solved))(stacked(drawn, seeds))


def layers(view, seeds_of):
    """A sample of layers view(m, n, seeds) for each shape (m, n)."""
    return [
        Sample(f"{m}-{n}", seeds, partial(view, m, n, seeds))
        for (m, n), seeds in seeds_of.items()
    ]


SHAPES = {(5, 3): (0, 2, 4), (3, 6): (1, 3, 5)}
random_layers = lambda m, n, seeds: [cases(m, n, seeds, first=100)]
LAYERS = layers(random_layers, SHAPES)
SCALARS = layers(random_layers, {(1, 1): range(5)})


def uniform(low, high, *size):
    return lambda rng: rng.uniform(low, high, size)


def normal(*size):
    return lambda rng: rng.normal(size=size)


def contraction(m, norm=0.8):
    def draw(rng):
        W = rng.normal(size=(m, m))
        return norm * W / np.linalg.norm(W, 2)

    return draw


def stretching(m, radius=0.8):
    """Of spectral radius below one, and norm above one."""

    def draw(rng):
        W = rng.normal(size=(m, m))
        W *= radius / np.abs(np.linalg.eigvals(W)).max()
        W *= 2.0 ** np.subtract.outer(range(m), range(m))  # no eigenvalue moves
        assert np.linalg.norm(W, 2) > 1
        return W

    return draw


def beyond_one(rng):
    """A weight of absolute value above one, of either sign."""
    return rng.choice([-1, 1]) * rng.uniform(1.1, 2)


# Introduction -------------------------------------------------------------------------


def quadratic(t, z):
    return t + z**2 / 4


@equation("quadratic-equilibrium", draws(uniform(-3, 0.9, 1)))
def test_quadratic_equilibrium(t):
    r"""z^*(t) = 2 - 2\sqrt{1 - t}, \quad t \le 1."""
    yield (
        deqlib.fixed_point(quadratic, t, jnp.zeros(1)).z,
        2 - 2 * jnp.sqrt(1 - t),
    )


@equation("quadratic-slope", draws(uniform(-3, 0.9, 1)))
def test_quadratic_slope(t):
    r"""\frac{\mathrm{d} z^*}{\mathrm{d} t} = \frac{1}{1 - z^*/2}."""
    z = 2 - 2 * jnp.sqrt(1 - t)
    yield (
        jax.jacfwd(lambda t: 2 - 2 * jnp.sqrt(1 - t))(t),
        jnp.diag(1 / (1 - z / 2)),
    )
    yield jacobian(quadratic, t, z), jnp.diag(1 / (1 - z / 2))


# Chapter 1 ----------------------------------------------------------------------------


@equation(
    "affine-equilibrium",
    draws(uniform(-0.9, 0.9), normal())
    + draws(beyond_one, normal(), name="beyond-one"),
)
def test_affine_equilibrium(w, b):
    r"""z^* = \frac{b}{1 - w}."""
    layer, right = lambda z: w * z + b, b[None] / (1 - w)
    yield newton(layer, jnp.zeros(1)).z, right
    # Where iteration runs away, the equilibrium is still there.
    reached = picard(layer, jnp.zeros(1)).z
    yield jnp.where(jnp.abs(w) < 1, reached, layer(right)), right


@equation("banach-bound", draws(contraction(6), normal(6), normal(6)))
def test_banach_bound(W, b, start):
    r"""
    \lVert z_k - z^* \rVert \le \frac{q^k}{1 - q}\,\lVert z_1 - z_0 \rVert.
    """
    # For the second layer the bound is attained.
    for g in (lambda z: jnp.tanh(W @ z + b), lambda z: 0.8 * z + b):
        z_star = newton(g, jnp.zeros(6)).z
        states = [start]
        for _ in range(20):
            states.append(g(states[-1]))
        first = jnp.linalg.norm(states[1] - states[0])
        for k, z in enumerate(states):
            yield NoLarger(jnp.linalg.norm(z - z_star), 0.8**k / 0.2 * first)


@equation(
    "picard-error",
    draws(contraction(5), normal(5))
    + draws(stretching(5), normal(5), name="stretching"),
)
def test_picard_error(J, b):
    r"""z_k - z^* = J^k\,(z_0 - z^*)."""
    z, z_star = jnp.ones(5), jnp.linalg.solve(jnp.eye(5) - J, b)
    start = z - z_star
    for k in range(1, 8):
        z = J @ z + b
        yield z - z_star, jnp.linalg.matrix_power(J, k) @ start


@equation("heron-error", draws(uniform(0.5, 9, 1), uniform(3, 9, 1)))
def test_heron_error(x, z):
    r"""
    \begin{aligned}
    z_{k+1} &= \frac12\Bigl(z_k + \frac{x}{z_k}\Bigr), \\[1ex]
    z_{k+1} - \sqrt{x} &= \frac{(z_k - \sqrt{x})^2}{2 z_k}.
    \end{aligned}
    """
    # The step is Newton's, for the layer z + x - z².
    r, A = x - z**2, jnp.diag(1 - jax.jacfwd(lambda z: z + x - z**2)(z))
    step = (z + x / z) / 2
    yield z + r / A, step
    yield models.square_root(x, z), step
    yield step - jnp.sqrt(x), (z - jnp.sqrt(x)) ** 2 / (2 * z)


@equation("broyden-secant", draws(contraction(6), normal(6)))
def test_broyden_secant(W, b):
    r"""H_{k+1}\,(r_{k+1} - r_k) = z_{k+1} - z_k."""
    # The dense method obeys the secant equation, and deqlib's makes the same steps.
    g = lambda z: jnp.tanh(W @ z + b)
    H, z, residuals = -jnp.eye(6), jnp.zeros(6), []
    r = g(z) - z
    for _ in range(6):
        residuals.append(jnp.abs(r).max() / jnp.abs(g(z)).max())
        z_next = z - H @ r
        r_next = g(z_next) - z_next
        p, y = z_next - z, r_next - r
        H = H + jnp.outer(p - H @ y, p @ H) / (p @ H @ y)
        yield H @ y, p
        z, r = z_next, r_next
    history = broyden(g, jnp.zeros(6), history=True, max_steps=50).residual
    yield history[:6], jnp.stack(residuals)


# Chapter 2 ----------------------------------------------------------------------------


@equation("square-root-derivative", draws(uniform(0.1, 9, 1)))
def test_square_root_derivative(x):
    r"""\frac{\mathrm{d}}{\mathrm{d} x}\sqrt{x} = \frac{1}{2\sqrt{x}}."""
    truth = jnp.diag(1 / (2 * jnp.sqrt(x)))
    yield jax.jacfwd(jnp.sqrt)(x), truth
    yield jacobian(models.square_root, x, jnp.sqrt(x)), truth


@equation("implicit-function", LAYERS)
def test_implicit_function(case):
    r"""
    S = -\Bigl[\frac{\partial r}{\partial z}\Bigr]^{-1}
      \frac{\partial r}{\partial x}.
    """
    root = lambda x, z: case.f(x, z) - z
    by_z, by_x = (
        jax.jacfwd(root, 1)(case.x, case.z),
        jax.jacfwd(root, 0)(case.x, case.z),
    )
    yield case.S, -jnp.linalg.inv(by_z) @ by_x


@equation("root-jacobian", LAYERS)
def test_root_jacobian(case):
    r"""
    \begin{aligned}
    \frac{\partial r_i}{\partial z_j} &=
      \frac{\partial f_i}{\partial z_j} - \delta_{ij}, \\[1ex]
    \text{that is,}\quad \frac{\partial r}{\partial z} &= J - I,
    \end{aligned}
    """
    root = lambda z: case.f(case.x, z) - z
    yield jax.jacfwd(root)(case.z), case.J - jnp.eye(case.m)


@equation("deq-jacobian", LAYERS)
def test_deq_jacobian(case):
    r"""
    \underbrace{S}_{m \times n} =
      \underbrace{A^{-1}}_{m \times m}\,\underbrace{\frac{\partial f}{\partial
      x}}_{m \times n}, \quad A = I - J.
    """
    yield case.S, jnp.linalg.inv(case.A) @ case.fx
    yield case.S, jacobian(case.f, case.x, case.z)


@equation("implicit-equation", LAYERS)
def test_implicit_equation(case):
    r"""S = \frac{\partial f}{\partial x} + J S."""
    S = jacobian(case.f, case.x, case.z)
    yield case.S, case.fx + case.J @ case.S
    yield S, case.fx + case.J @ S


@equation("deq-jvp", LAYERS)
def test_deq_jvp(case):
    r"""A\,(S v) = \frac{\partial f}{\partial x}\,v."""
    yield case.A @ (case.S @ case.v), case.fx @ case.v
    yield case.A @ jvp(case.f, case.x, case.z, case.v), case.fx @ case.v


@equation("unroll-jacobian", LAYERS)
def test_unroll_jacobian(case):
    r"""S_K = \sum_{k=0}^{K-1} J^k\,\frac{\partial f}{\partial x}."""
    for K in (1, 2, 5):
        powers = sum(jnp.linalg.matrix_power(case.J, k) for k in range(K))
        unrolled = partial(case.unrolled, steps=K, z0=case.z)
        yield jax.jacfwd(unrolled)(case.x), powers @ case.fx


@equation("unroll-error", LAYERS)
def test_unroll_error(case):
    r"""S - S_K = J^K S."""
    S = case.S
    for K in (1, 3):
        unrolled = partial(case.unrolled, steps=K, z0=case.z)
        yield (
            S - jax.jacfwd(unrolled)(case.x),
            jnp.linalg.matrix_power(case.J, K) @ S,
        )


@equation(
    "cell-slope",
    draws(uniform(-0.9, 0.9), normal())
    + draws(beyond_one, normal(), name="beyond-one"),
)
def test_cell_slope(w, b):
    r"""
    \frac{\mathrm{d} z^*}{\mathrm{d} b} = \frac{1 - z^2}{1 - w\,(1 - z^2)}.
    """
    # By half steps from the side of b: they settle for every w that is drawn.
    half = lambda b: lambda z, _: ((z + jnp.tanh(w * z + b)) / 2, None)
    start = jnp.sign(b)
    unrolled = lambda b: jax.lax.scan(half(b), start, length=500)[0]
    z = unrolled(b)
    formula = (1 - z**2) / (1 - w * (1 - z**2))
    yield jax.grad(unrolled)(b), formula
    x = jnp.array([w, b])
    yield jacobian(models.tanh_scalar, x, z[None])[0, 1], formula


# Chapter 3 ----------------------------------------------------------------------------


@equation("net-gradient", LAYERS)
def test_net_gradient(case):
    r"""
    \begin{aligned}
    &\nabla (\ell \circ NN)(x') = \\
    &\quad \underbrace{\nabla \ell(y)}_{1 \times m'}\;
    \underbrace{J_{\text{post}}(z^*)}_{m' \times m}\;
    \underbrace{S(x)}_{m \times n}\;
    \underbrace{J_{\text{prior}}(x')}_{n \times n'}.
    \end{aligned}
    """
    mix = jnp.asarray(
        np.random.default_rng(case.m).normal(size=(case.n, case.n + 2))
    )
    prior = lambda x_: jnp.sin(mix @ x_)
    post = lambda z: jnp.stack([z[0] * z[1], jnp.sum(z**2), z[-1]])
    loss = lambda y: jnp.log(1 + y[0] ** 2) + y[1] * y[2]
    x_ = jnp.linspace(-0.5, 0.8, case.n + 2)
    x = prior(x_)
    z = case.unrolled(x)
    S = jacobian(case.f, x, z)
    factors = (
        jax.grad(loss)(post(z)),
        jax.jacrev(post)(z),
        S,
        jax.jacrev(prior)(x_),
    )
    row = factors[0] @ factors[1] @ factors[2] @ factors[3]
    yield jax.grad(lambda x_: loss(post(case.unrolled(prior(x_)))))(x_), row
    solve = lambda x: deqlib.fixed_point(case.f, x, jnp.zeros(case.m)).z
    yield jax.grad(lambda x_: loss(post(solve(prior(x_)))))(x_), row


@equation("adjoint-equation", LAYERS)
def test_adjoint_equation(case):
    r"""
    \underbrace{A^\top}_{m \times m}\,\underbrace{\lambda}_{m} =
      \underbrace{u}_{m}.
    """
    yield case.A.T @ adjoint(case.f, case.x, case.z, case.u), case.u


@equation("deq-vjp", LAYERS)
def test_deq_vjp(case):
    r"""
    \underbrace{u^\top S}_{1 \times n} =
      \underbrace{\lambda^\top}_{1 \times m}\,\underbrace{\frac{\partial
      f}{\partial x}}_{m \times n}.
    """
    lam = jnp.linalg.solve(case.A.T, case.u)
    yield case.u @ case.S, lam @ case.fx
    yield vjp(case.f, case.x, case.z, case.u), lam @ case.fx


@equation("deq-backward-fixed-point", LAYERS)
def test_deq_backward_fixed_point(case):
    r"""
    \underbrace{\lambda^\top}_{1 \times m} =
      \underbrace{\lambda^\top}_{1 \times m}\,\underbrace{J}_{m \times m} +
      \underbrace{u^\top}_{1 \times m}.
    """
    for solver in (linear.direct, linear.neumann):
        lam = adjoint(case.f, case.x, case.z, case.u, linear_solver=solver)
        yield lam, lam @ case.J + case.u


@equation("neumann-series", LAYERS)
def test_neumann_series(case):
    r"""\lambda_K = \sum_{k=0}^{K-1} (J^\top)^k\,u,"""
    # K steps of the backward iteration from zero, against K terms of the series.
    lam = jnp.zeros(case.m)
    _, pull = jax.vjp(partial(case.f, case.x), case.z)
    for K in range(1, 8):
        lam = pull(lam)[0] + case.u
        terms = [
            jnp.linalg.matrix_power(case.J.T, k) @ case.u for k in range(K)
        ]
        yield lam, sum(terms)


@equation("truncation-error", LAYERS)
def test_truncation_error(case):
    r"""\lambda - \lambda_K = (J^\top)^K \lambda."""
    lam = adjoint(case.f, case.x, case.z, case.u)
    for K in (1, 3):
        partial_sum = sum(
            jnp.linalg.matrix_power(case.J.T, k) @ case.u for k in range(K)
        )
        yield lam - partial_sum, jnp.linalg.matrix_power(case.J.T, K) @ lam


@equation("descent-bound", LAYERS)
def test_descent_bound(case):
    r"""
    (1 - \lVert J \rVert)\,\lVert \lambda \rVert^2 \;\le\; \lambda^\top u.
    """
    norm = jnp.linalg.norm(case.J, 2)
    lam = adjoint(case.f, case.x, case.z, case.u)
    yield NoLarger((1 - norm) * lam @ lam, lam @ case.u)
    # Attained, where u is the direction that J stretches most.
    J = 0.6 * jnp.outer(case.u, case.u) / (case.u @ case.u)
    norm = jnp.linalg.norm(J, 2)
    lam = adjoint(lambda x, z: J @ z + x, case.z, case.z, case.u)
    yield NoLarger((1 - norm) * lam @ lam, lam @ case.u)


# Chapter 4 ----------------------------------------------------------------------------


class Timed(namedtuple("Timed", "case")):
    """A case as a layer f(t, x, z), where t is the first input."""

    at = property(lambda self: (self.case.x[0], self.case.x[1:], self.case.z))
    m = property(lambda self: self.case.m)
    u = property(lambda self: self.case.u)
    A = property(lambda self: self.case.A)
    f_t, f_x, f_z = by(0), by(1), by(2)
    f_tx, f_tz, f_zx, f_zz = by(0, 1), by(0, 2), by(2, 1), by(2, 2)
    H = property(lambda self: self.case.H[:, 0, 1:])

    def f(self, t, x, z):
        return self.case.f(jnp.concatenate([t[None], x]), z)

    def unrolled(self, t, x):
        return self.case.unrolled(jnp.concatenate([t[None], x]))

    @property
    def slopes(self):
        """∂z*/∂t and ∂z*/∂x of the unroll."""
        return self.case.S[:, 0], self.case.S[:, 1:]

    def moving(self, function):
        """The total derivative in x of function(t, x, z*(t, x))."""
        t, x, _ = self.at
        return jax.jacfwd(lambda x: function(t, x, self.unrolled(t, x)))(x)


def with_time(kind):
    view = lambda m, n, seeds: [kind(cases(m, n + 1, seeds, first=50))]
    return layers(view, SHAPES)


TIMED = with_time(Timed)


@equation("bilinear-mixed", draws(normal(2)))
def test_bilinear_mixed(drawn):
    r"""\frac{\partial^2 z^*}{\partial t\,\partial x} = \frac{1}{(1 - x)^2}."""
    t, x = drawn / 4
    z = lambda t, x: t / (1 - x)
    yield z(t, x), t + x * z(t, x)
    yield jax.grad(jax.grad(z), 1)(t, x), (1 - x) ** -2


@equation("square-mixed", draws(uniform(0.1, 0.4), uniform(0.1, 0.4)))
def test_square_mixed(t, x):
    r"""
    \frac{\partial^2 z^*}{\partial t\,\partial x} = \frac{1/2}{(1 - z/2)^3}.
    """
    z = lambda t, x: 2 - 2 * jnp.sqrt(1 - t - x)
    yield z(t, x), t + x + z(t, x) ** 2 / 4
    yield jax.grad(jax.grad(z), 1)(t, x), 0.5 / (1 - z(t, x) / 2) ** 3


@equation("time-sensitivity", TIMED)
def test_time_sensitivity(timed):
    r"""
    \underbrace{A}_{m \times m}\,\underbrace{S_t}_{m} = \underbrace{f_t}_{m},
      \qquad A = I - f_z.
    """
    yield timed.A @ timed.slopes[0], timed.f_t


@equation("mixed-equation", TIMED)
def test_mixed_equation(timed):
    r"""
    \begin{aligned}
    \frac{\mathrm{d} S_t}{\mathrm{d} x_k} &=
      A^{-1}\frac{\mathrm{d} f_t}{\mathrm{d} x_k} -
      A^{-1}\frac{\mathrm{d} A}{\mathrm{d} x_k}A^{-1} f_t \\
    &= A^{-1}\Bigl(\frac{\mathrm{d} f_t}{\mathrm{d} x_k} +
      \frac{\mathrm{d} f_z}{\mathrm{d} x_k}\,S_t\Bigr).
    \end{aligned}
    """
    S_t, _ = timed.slopes
    A = lambda *at: jnp.eye(timed.m) - jax.jacfwd(timed.f, 2)(*at)
    df_t = timed.moving(jax.jacfwd(timed.f, 0))
    dA, df_z = timed.moving(A), timed.moving(jax.jacfwd(timed.f, 2))
    inverse = jnp.linalg.inv(timed.A)
    product = inverse @ jnp.einsum("ijk,j->ik", dA, inverse @ timed.f_t)
    yield timed.H, inverse @ df_t - product
    yield timed.H, inverse @ (df_t + jnp.einsum("ijk,j->ik", df_z, S_t))


@equation("total-time-slope", TIMED)
def test_total_time_slope(timed):
    r"""\frac{\mathrm{d} f_t}{\mathrm{d} x_k} = f_{t x_k} + f_{tz}\,S_k,"""
    yield (
        timed.moving(jax.jacfwd(timed.f, 0)),
        timed.f_tx + timed.f_tz @ timed.slopes[1],
    )


@equation("total-state-slope", TIMED)
def test_total_state_slope(timed):
    r"""
    \frac{\mathrm{d} f_z}{\mathrm{d} x_k}\,S_t = f_{z x_k} S_t + f_{zz}[S_t,
      S_k].
    """
    S_t, S = timed.slopes
    yield (
        jnp.einsum("ijk,j->ik", timed.moving(jax.jacfwd(timed.f, 2)), S_t),
        jnp.einsum("ijk,j->ik", timed.f_zx, S_t)
        + jnp.einsum("ijl,j,lk->ik", timed.f_zz, S_t, S),
    )


def mixed_bracket(timed):
    S_t, S = timed.slopes
    return (
        timed.f_tx
        + timed.f_tz @ S
        + jnp.einsum("ijk,j->ik", timed.f_zx, S_t)
        + jnp.einsum("ijl,j,lk->ik", timed.f_zz, S_t, S)
    )


@equation("mixed-hessian", TIMED)
def test_mixed_hessian(timed):
    r"""
    \begin{aligned}
    H_{tx} = A^{-1}\Bigl( & f_{tx} + f_{tz}\,S + f_{zx} \times_2 S_t^\top \\
    & + f_{zz}[S_t, S] \Bigr).
    \end{aligned}
    """
    right = jnp.linalg.solve(timed.A, mixed_bracket(timed))
    yield timed.H, right
    yield deqlib.mixed_hessian(timed.f, *timed.at), right


# Chapter 5 ----------------------------------------------------------------------------


@equation("pencil-slope", draws(uniform(0.1, 0.5), uniform(0.1, 0.5)))
def test_pencil_slope(t, x):
    r"""
    \frac{\partial y}{\partial t} = \frac{2t}{(1 - x)^2}, \quad
    \frac{\partial^2 y}{\partial t\,\partial x} = \frac{4t}{(1 - x)^3}.
    """
    y = lambda t, x: (t / (1 - x)) ** 2
    yield jax.grad(y)(t, x), 2 * t / (1 - x) ** 2
    yield jax.grad(jax.grad(y), 1)(t, x), 4 * t / (1 - x) ** 3


def post(z):
    """Two outputs that bend, and mix the states."""
    return jnp.stack([z[0] * z[1], jnp.sum(jnp.sin(2 * z))])


class Network(Timed):
    """The network post(z*(t, x)): its slope, by the unroll, and what it is made of."""

    J_post = property(lambda self: jax.jacfwd(post)(self.case.z))
    bend = property(lambda self: jax.hessian(post)(self.case.z))
    w = property(lambda self: jnp.array([0.7, -1.0]))

    def read(self, p):
        return post(self.case.unrolled(p))

    @property
    def slope(self):
        return jax.jacfwd(self.read)(self.case.x)[:, 0]

    @property
    def H_NN(self):
        return jax.jacfwd(jax.jacfwd(self.read))(self.case.x)[:, 0, 1:]

    def through(self, phi):
        """∂φ/∂x + μᵀ ∂f/∂x with Aᵀ μ = ∂φ/∂z."""
        t, x, z = self.at
        phi_x, phi_z = jax.grad(phi, (0, 1))(x, z)
        return phi_x + jnp.linalg.solve(self.A.T, phi_z) @ self.f_x

    def frozen(self, lam):
        t, x, z = self.at
        S_t = self.slopes[0]
        move = (jnp.ones_like(t), jnp.zeros_like(x), S_t)
        return lambda x, z: lam @ jax.jvp(self.f, (t, x, z), move)[1]


NETWORKS = with_time(Network)


@equation("net-slope", NETWORKS)
def test_net_slope(network):
    r"""
    \underbrace{J_{NN,t}}_{m'} =
      \underbrace{J_{\text{post}}(z^*)}_{m' \times m}\;\underbrace{S_t}_{m}.
    """
    yield network.slope, network.J_post @ network.slopes[0]


@equation("net-mixed", NETWORKS)
def test_net_mixed(network):
    r"""
    \begin{aligned}
    \underbrace{H_{NN,tx}}_{m' \times n} = {} &
      \underbrace{\nabla^2 n_{\text{post}}[S_t, S]}_{m' \times n} \\
    & + \underbrace{J_{\text{post}}}_{m' \times m}\,\underbrace{H_{tx}}_{m
      \times n}.
    \end{aligned}
    """
    S_t, S = network.slopes
    bend = jnp.einsum("ijl,j,lk->ik", network.bend, S_t, S)
    yield network.H_NN, bend + network.J_post @ network.H


@equation("frozen-slope", NETWORKS)
def test_frozen_slope(network):
    r"""
    \begin{gathered}
    u^\top \mathrm{d} S_t = \lambda^\top\bigl(\mathrm{d} f_t + \mathrm{d}
      f_z\,S_t\bigr), \\[0.2em]
    A^\top \lambda = u.
    \end{gathered}
    """
    lam = jnp.linalg.solve(network.A.T, network.u)
    df_t = network.moving(jax.jacfwd(network.f, 0))
    df_z = network.moving(jax.jacfwd(network.f, 2))
    S_t, _ = network.slopes
    yield (
        network.u @ network.H,
        lam @ (df_t + jnp.einsum("ijk,j->ik", df_z, S_t)),
    )


@equation("mixed-vjp", NETWORKS)
def test_mixed_vjp(network):
    r"""
    \begin{gathered}
    \underbrace{u^\top H_{tx}}_{1 \times n} =
      \frac{\partial \varphi}{\partial x} + \underbrace{\mu^\top}_{1 \times m}
      \frac{\partial f}{\partial x}, \\[0.6em]
    A^\top \mu = \Bigl(\frac{\partial \varphi}{\partial z}\Bigr)^{\!\top}.
    \end{gathered}
    """
    lam = jnp.linalg.solve(network.A.T, network.u)
    right = network.through(network.frozen(lam))
    yield network.u @ network.H, right
    got = deqlib.mixed_vjp(network.f, *network.at, network.u)
    yield got, right


@equation("net-slope-gradient", NETWORKS)
def test_net_slope_gradient(network):
    r"""
    \begin{gathered}
    \nabla_x(u^\top J_{NN,t}) = \frac{\partial \varphi}{\partial x} + \mu^\top
      \frac{\partial f}{\partial x}, \\
    \varphi = u^\top J_{\text{post}}(z) S_t + \lambda^\top(f_t + f_z S_t).
    \end{gathered}
    """
    lam = jnp.linalg.solve(network.A.T, network.J_post.T @ network.w)
    frozen, S_t = network.frozen(lam), network.slopes[0]

    def phi(x, z):
        return network.w @ jax.jvp(post, (z,), (S_t,))[1] + frozen(x, z)

    yield network.w @ network.H_NN, network.through(phi)


@equation("v-product", NETWORKS)
def test_v_product(network):
    r"""
    \begin{gathered}
    G = u^\top\,\frac{\mathrm{d}^2 n_{\text{post}}}{\mathrm{d} z\,\mathrm{d}
      x}, \qquad V = f_{zx} \times_1 \lambda^\top, \\
    \underbrace{\lambda^\top\bigl(f_{zx} \times_2 S_t^\top\bigr)}_{1 \times n}
      = \underbrace{S_t^\top}_{1 \times m}\,\underbrace{V}_{m \times n}.
    \end{gathered}
    """
    t, x, z = network.at
    S_t, S = network.slopes
    by_z = lambda t, x, z: network.w @ jax.jacfwd(post)(z)
    G = jnp.einsum("i,ijl,lk->jk", network.w, network.bend, S)
    yield network.moving(by_z), G
    # V by autodiff of λᵀf, which is one number.
    lam = jnp.linalg.solve(network.A.T, network.u)
    number = lambda x, z: lam @ network.f(t, x, z)
    V = jax.jacfwd(jax.grad(number, 1), 0)(x, z)
    yield V, jnp.einsum("ijk,i->jk", network.f_zx, lam)
    turned = jnp.einsum("ijk,j->ik", network.f_zx, S_t)
    yield lam @ turned, S_t @ V


@equation("contract-after", NETWORKS)
def test_contract_after(network):
    r"""
    \underbrace{G^\top}_{n \times m}\,\underbrace{S_t}_{m} = \bigl(A^{-\top}
      G\bigr)^\top f_t.
    """
    S_t, S = network.slopes
    G = jnp.einsum("i,ijl,lk->jk", network.w, network.bend, S)
    yield G.T @ S_t, jnp.linalg.solve(network.A.T, G).T @ network.f_t


# Chapter 6 ----------------------------------------------------------------------------


@equation("scalar-hessian", SCALARS)
def test_scalar_hessian(case):
    r"""z'' = \frac{f_{xx} + 2 f_{xz}\,z' + f_{zz}\,z'^2}{A}."""
    f_xx, f_xz, f_zz = (d.squeeze() for d in case.second_partials())
    slope = case.S.squeeze()
    right = (f_xx + 2 * f_xz * slope + f_zz * slope**2) / case.A.squeeze()
    yield case.H.squeeze(), right


@equation("square-root-second", draws(uniform(0.5, 3, 1)))
def test_square_root_second(x):
    r"""z'' = -\frac{1}{2z^3} + \frac{1}{4z^3} = -\frac14\,x^{-3/2}."""
    z = jnp.sqrt(x)
    yield -1 / (2 * z**3) + 1 / (4 * z**3), -0.25 * x**-1.5
    H = deqlib.hessian(models.square_root, x, z)
    yield H[0, 0], -0.25 * x**-1.5


@equation("second-direction", LAYERS)
def test_second_direction(case):
    r"""
    \begin{gathered}
    z^{*\prime\prime}[v, w] = \\
    \underbrace{A^{-1}}_{m \times m}\,\underbrace{D^2 f\bigl[(v, Sv), (w,
      Sw)\bigr]}_{m}.
    \end{gathered}
    """
    w = jnp.cos(jnp.arange(case.n))
    yield case.H @ w @ case.v, jnp.linalg.solve(case.A, case.bend(case.v, w))


@equation("deq-hessian", LAYERS)
def test_deq_hessian(case):
    r"""
    \begin{aligned}
    H_{:jk} = A^{-1}\Bigl( & f_{x_j x_k} + f_{x_j z}\,S_k + f_{x_k z}\,S_j \\
    & + f_{zz}[S_j, S_k] \Bigr).
    \end{aligned}
    """
    f_xx, f_xz, f_zz = case.second_partials()
    one = jnp.einsum("ijl,lk->ijk", f_xz, case.S)
    bracket = f_xx + one + one.swapaxes(1, 2)
    bracket += jnp.einsum("ilp,lj,pk->ijk", f_zz, case.S, case.S)
    right = jnp.tensordot(jnp.linalg.inv(case.A), bracket, 1)
    yield case.H, right
    yield deqlib.hessian(case.f, case.x, case.z), right


def S_at(case, x):
    """S(x) = A⁻¹ ∂f/∂x, with everything that it depends on moving."""
    z = case.unrolled(x)
    f_x, f_z = jax.jacfwd(case.f, 0)(x, z), jax.jacfwd(case.f, 1)(x, z)
    return jnp.linalg.solve(jnp.eye(case.m) - f_z, f_x)


@equation("hessian-symmetry", LAYERS)
def test_hessian_symmetry(case):
    r"""H_{ijk} = H_{ikj}."""
    # Column j of S by x_k, against the unroll by x_k and then by x_j.
    H = jax.jacfwd(partial(S_at, case))(case.x)
    yield H, case.H.swapaxes(1, 2)
    yield H, deqlib.hessian(case.f, case.x, case.z).swapaxes(1, 2)


def pair_hessian(case, function):
    """[I; S]ᵀ ∇² function [I; S] at (x, z)."""
    n = case.n
    flat = lambda p: function(p[:n], p[n:])
    both = jnp.concatenate([jnp.eye(n), case.S])
    inner = jax.hessian(flat)(jnp.concatenate([case.x, case.z]))
    return both.T @ inner @ both


@equation("hessian-contraction", LAYERS)
def test_hessian_contraction(case):
    r"""
    \underbrace{H \times_1 u^\top}_{n \times n} =
    \begin{pmatrix} I \\ S \end{pmatrix}^{\!\top}
    \underbrace{\nabla^2_{(x,z)}(\lambda^\top f)}_{(n+m) \times (n+m)}
    \begin{pmatrix} I \\ S \end{pmatrix}.
    """
    lam = jnp.linalg.solve(case.A.T, case.u)
    right = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    yield jnp.tensordot(case.u, case.H, 1), right


# Chapter 7 ----------------------------------------------------------------------------


@equation("pencil-penalty", draws(uniform(0.5, 3)))
def test_pencil_penalty(x):
    r"""
    \begin{aligned}
    \frac{\mathrm{d} P}{\mathrm{d} x} &= S\,z'' =
      \frac{1}{2\sqrt x}\cdot\Bigl(-\frac{1}{4\,x^{3/2}}\Bigr) \\[0.6em]
    &= -\frac{1}{8x^2}.
    \end{aligned}
    """
    penalty = lambda x: jax.grad(jnp.sqrt)(x) ** 2 / 2
    yield jax.grad(penalty)(x), -1 / (8 * x**2)
    product = jax.grad(jnp.sqrt)(x) * jax.grad(jax.grad(jnp.sqrt))(x)
    yield product, -1 / (8 * x**2)


def loss_of_jacobian(case, loss):
    """The gradient of loss(S(x)), S by autodiff through the unroll."""
    S = jax.jacfwd(case.unrolled)
    return jax.grad(lambda x: loss(S(x)))(case.x)


@equation("jacobian-contraction", LAYERS)
def test_jacobian_contraction(case):
    r"""\bigl(\nabla_x \ell(S)\bigr)_k = \sum_{ij} C_{ij}\,H_{ijk}."""
    loss = lambda S: jnp.sum(jnp.sin(S) * S)
    C = jax.grad(loss)(case.S)
    yield loss_of_jacobian(case, loss), jnp.einsum("ij,ijk->k", C, case.H)


@equation("contractive-gradient", LAYERS)
def test_contractive_gradient(case):
    r"""
    \nabla_x\,\tfrac12\lVert S \rVert_F^2 = \nabla_x\langle C,
      S\rangle\big|_{C = S}.
    """
    C = case.S
    right = jax.grad(lambda x: jnp.sum(C * S_at(case, x)))(case.x)
    yield loss_of_jacobian(case, lambda S: jnp.sum(S**2) / 2), right
    yield deqlib.jacobian_vjp(case.f, case.x, case.z, C), right


def through(case, phi):
    """∂φ/∂x + (∂f/∂x)ᵀ μ with Aᵀ μ = ∂φ/∂z."""
    phi_x, phi_z = jax.grad(phi, (0, 1))(case.x, case.z)
    return phi_x + jnp.linalg.solve(case.A.T, phi_z) @ case.fx


@equation("jacobian-vjp", LAYERS)
def test_jacobian_vjp(case):
    r"""
    \begin{gathered}
    \nabla_x \langle C, S\rangle = \frac{\partial\varphi}{\partial x} +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\mu, \\[0.6em]
    A^\top \mu = \frac{\partial\varphi}{\partial z}.
    \end{gathered}
    """
    C = jnp.outer(case.u, case.v) + jnp.cos(case.S)
    Lam = jnp.linalg.solve(case.A.T, C)

    def phi(x, z):
        f_x, f_z = jax.jacfwd(case.f, 0)(x, z), jax.jacfwd(case.f, 1)(x, z)
        return jnp.sum(Lam * (f_x + f_z @ case.S))

    right = through(case, phi)
    yield jnp.einsum("ij,ijk->k", C, case.H), right
    yield deqlib.jacobian_vjp(case.f, case.x, case.z, C), right


@equation("regulariser-gradient", LAYERS)
def test_regulariser_gradient(case):
    r"""
    \begin{gathered}
    \nabla_x \lVert J \rVert_F^2 = \frac{\partial R}{\partial x} +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\!\lambda, \\[0.6em]
    A^\top\lambda = \frac{\partial R}{\partial z}.
    \end{gathered}
    """
    R = lambda x, z: jnp.sum(jax.jacfwd(case.f, 1)(x, z) ** 2)
    total = jax.grad(lambda x: R(x, case.unrolled(x)))(case.x)
    yield total, through(case, R)


@equation("hutchinson", LAYERS)
def test_hutchinson(case):
    r"""\lVert J \rVert_F^2 = \operatorname{E}\,\lVert J\xi \rVert^2."""
    # The expectation, exactly: the mean over all sign vectors.
    signs = jnp.array(list(itertools.product([-1.0, 1.0], repeat=case.m)))
    mean = jnp.mean(jnp.sum((signs @ case.J.T) ** 2, 1))
    yield jnp.sum(case.J**2), mean


# Chapter 8 ----------------------------------------------------------------------------

LOSS = second.general_loss
STATE_LOSS = lambda z: jnp.sum(jnp.sin(z) * z) + jnp.prod(1 + z)
OF_STATE = lambda x, z: STATE_LOSS(z)


def through_unroll(case, derivative, loss=LOSS):
    return derivative(lambda x: loss(x, case.unrolled(x)))(case.x)


@equation("scalar-loss-hessian", draws(uniform(0.1, 0.9), normal()))
def test_scalar_loss_hessian(x, y):
    r"""
    \frac{\mathrm{d}^2 L}{\mathrm{d} x^2} = \underbrace{z'^2}_{\text{Term A}} +
      \underbrace{(z^* - y)\,z''}_{\text{Term B}}.
    """
    z = lambda x: 2 - 2 * jnp.sqrt(1 - x)
    slope, bend = jax.grad(z), jax.grad(jax.grad(z))
    loss = lambda x: (z(x) - y) ** 2 / 2
    right = slope(x) ** 2 + (z(x) - y) * bend(x)
    yield jax.grad(jax.grad(loss))(x), right
    bowl = lambda x, z: x + z**2 / 4
    fit = lambda x, z: jnp.sum((z - y) ** 2) / 2
    H = deqlib.loss_hessian(fit, bowl, x[None], z(x)[None])
    yield H[0, 0], right


@equation("loss-gradient", LAYERS)
def test_loss_gradient(case):
    r"""
    \begin{gathered}
    \nabla L(x, z^*(x)) = \frac{\partial L}{\partial x} +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\lambda, \\[0.6em]
    A^\top\lambda = \frac{\partial L}{\partial z}.
    \end{gathered}
    """
    right = through(case, LOSS)
    yield through_unroll(case, jax.grad), right
    yield deqlib.loss_gradient(LOSS, case.f, case.x, case.z), right


@equation("adjoint-price", LAYERS)
def test_adjoint_price(case):
    r"""
    \frac{\mathrm{d} L}{\mathrm{d}\varepsilon}\Big|_{\varepsilon = 0} =
      \lambda_i.
    """

    def relaxed(epsilon):
        step = lambda z, _: (case.f(case.x, z) + epsilon, None)
        z = jax.lax.scan(step, case.z, length=150)[0]
        return LOSS(case.x, z)

    u = jax.grad(LOSS, 1)(case.x, case.z)
    yield (
        jax.grad(relaxed)(jnp.zeros(case.m)),
        adjoint(case.f, case.x, case.z, u),
    )


@equation("two-curvatures", LAYERS)
def test_two_curvatures(case):
    r"""
    \begin{aligned}
    \nabla^2 (L \circ z^*) = {} &
      \underbrace{S^\top\,\nabla^2_{zz} L\;S}_{\text{Term A},\ n \times n} \\
    & + \underbrace{\textstyle\sum_i \frac{\partial L}{\partial z_i}\,\nabla^2
      z^*_i}_{\text{Term B},\ n \times n}.
    \end{aligned}
    """
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    term_B = jnp.tensordot(jax.grad(STATE_LOSS)(case.z), case.H, 1)
    left = through_unroll(case, jax.hessian, OF_STATE)
    yield left, term_A + term_B


@equation("gauss-newton-positive", LAYERS)
def test_gauss_newton_positive(case):
    r"""0 \le v^\top S^\top\,\nabla^2_{zz} L\;S\,v."""
    convex = lambda x, z: jnp.sum(jnp.cosh(z)) + jnp.sum(z) ** 2
    bowl = lambda x, z: convex(x, z - case.z)
    S = jnp.linalg.solve(case.A, case.fx)
    for loss in (convex, bowl):
        term_A = S.T @ jax.hessian(loss, 1)(case.x, case.z) @ S
        yield NoLarger(0.0, case.v @ term_A @ case.v)
        yield NoLarger(0.0, case.x @ term_A @ case.x)
        yield deqlib.gauss_newton(loss, case.f, case.x, case.z), term_A
    # The bowl is flat at z*: nothing is added to Term A, and the unroll knows S.
    yield through_unroll(case, jax.hessian, bowl), term_A


@equation("gauss-newton", LAYERS)
def test_gauss_newton(case):
    r"""
    G = \begin{pmatrix} I \\ S \end{pmatrix}^{\!\top}
      \underbrace{\nabla^2_{(x,z)} L}_{(n+m) \times (n+m)} \begin{pmatrix} I
      \\ S \end{pmatrix}.
    """
    # What the Hessian of the loss has besides Term B, both by the unroll.
    term_B = jnp.tensordot(jax.grad(LOSS, 1)(case.x, case.z), case.H, 1)
    S = jnp.linalg.solve(case.A, case.fx)
    right = pair_hessian(case._replace(S=S), LOSS)
    yield through_unroll(case, jax.hessian) - term_B, right
    yield deqlib.gauss_newton(LOSS, case.f, case.x, case.z), right


@equation("dynamics-curvature", LAYERS)
def test_dynamics_curvature(case):
    r"""
    \text{Term B} = \begin{pmatrix} I \\ S \end{pmatrix}^{\!\top}
      \nabla^2_{(x,z)}\bigl(\lambda^\top f\bigr) \begin{pmatrix} I \\ S
      \end{pmatrix}.
    """
    u = jax.grad(STATE_LOSS)(case.z)
    lam = jnp.linalg.solve(case.A.T, u)
    right = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    yield jnp.tensordot(u, case.H, 1), right


# Chapter 9 ----------------------------------------------------------------------------


class Lagrange:
    """Λ(x, z, λ) of the general loss, with λ the adjoint, at a case's point."""

    def __init__(self, case):
        self.f, self.x, self.z = case.f, case.x, case.z
        self.lam = adjoint(
            case.f, case.x, case.z, jax.grad(LOSS, 1)(case.x, case.z)
        )

    def __call__(self, x, z, lam=None):
        lam = self.lam if lam is None else lam
        return LOSS(x, z) + lam @ (self.f(x, z) - z)


@equation("scalar-master", SCALARS)
def test_scalar_master(case):
    r"""
    \begin{aligned}
    \frac{\mathrm{d}^2 L}{\mathrm{d} x^2} &= L''\,z'^2 \\
    &\quad {} + \lambda\,\bigl(f_{xx} + 2 f_{xz}\,z' + f_{zz}\,z'^2\bigr).
    \end{aligned}
    """
    loss = lambda z: jnp.sum(jnp.sin(2 * z) + z**3)
    f_xx, f_xz, f_zz = (d.squeeze() for d in case.second_partials())
    slope, A = case.S.squeeze(), case.A.squeeze()
    first = jax.grad(loss)(case.z).squeeze()
    second = jax.hessian(loss)(case.z).squeeze()
    bracket = f_xx + 2 * f_xz * slope + f_zz * slope**2
    left = through_unroll(case, jax.hessian, lambda x, z: loss(z))
    yield left.squeeze(), second * slope**2 + first / A * bracket


@equation("lagrangian-value", LAYERS)
def test_lagrangian_value(case):
    r"""L(x, z^*(x)) = \Lambda(x, z^*(x), \lambda)."""
    # For another λ than the adjoint, and at another x.
    lagrange = Lagrange(case)
    x = case.x + 0.1 * case.v
    z = case.unrolled(x)
    yield LOSS(x, z), lagrange(x, z, case.u)


@equation("lagrangian-stationary", LAYERS)
def test_lagrangian_stationary(case):
    r"""
    \frac{\partial\Lambda}{\partial z} = \frac{\partial L}{\partial z} -
      A^\top\lambda = 0.
    """
    lagrange = Lagrange(case)
    slope = jax.grad(lagrange, 1)
    L_z = jax.grad(LOSS, 1)(case.x, case.z)
    yield slope(case.x, case.z, case.u), L_z - case.A.T @ case.u
    gap = slope(case.x, case.z, lagrange.lam)
    yield L_z + gap, L_z


@equation("lagrangian-gradient", LAYERS)
def test_lagrangian_gradient(case):
    r"""
    \nabla L(x, z^*(x)) = \frac{\partial\Lambda}{\partial x} =
      \frac{\partial L}{\partial x} +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\lambda.
    """
    lagrange = Lagrange(case)
    left = through_unroll(case, jax.grad)
    yield left, jax.grad(lagrange)(case.x, case.z)
    L_x = jax.grad(LOSS)(case.x, case.z)
    yield left, L_x + case.fx.T @ lagrange.lam


@equation("master-formula", LAYERS)
def test_master_formula(case):
    r"""
    \underbrace{H}_{n \times n} =
    \begin{pmatrix} I \\ S \end{pmatrix}^{\!\top}
    \underbrace{\nabla^2_{(x,z)}\Lambda}_{(n+m) \times (n+m)}
    \begin{pmatrix} I \\ S \end{pmatrix}.
    """
    lagrange = Lagrange(case)
    right = pair_hessian(case, lagrange)
    yield through_unroll(case, jax.hessian), right
    yield deqlib.loss_hessian(LOSS, case.f, case.x, case.z), right


@equation("master-formula-source", LAYERS)
def test_master_formula_source(case):
    r"""
    \begin{aligned}
    H = {} & S^\top\,\nabla^2_{zz} L\;S \\
    & + \begin{pmatrix} I \\ S \end{pmatrix}^{\!\top}
    \nabla^2_{(x,z)}\bigl(\lambda^\top f\bigr)
    \begin{pmatrix} I \\ S \end{pmatrix},
    \end{aligned}
    """
    lam = jnp.linalg.solve(case.A.T, jax.grad(STATE_LOSS)(case.z))
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    term_B = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    left = through_unroll(case, jax.hessian, OF_STATE)
    yield left, term_A + term_B


def adjoint_at(case, x, loss=LOSS):
    """λ(x), with everything that it depends on moving."""
    z = case.unrolled(x)
    A = jnp.eye(case.m) - jax.jacfwd(case.f, 1)(x, z)
    return jnp.linalg.solve(A.T, jax.grad(loss, 1)(x, z))


@equation("adjoint-derivative", LAYERS)
def test_adjoint_derivative(case):
    r"""
    A^\top \dot\lambda = \frac{\partial}{\partial
      z}\,\bigl(\nabla\Lambda\cdot(v, w)\bigr),
    """
    lagrange = Lagrange(case)
    _, dlam = jax.jvp(partial(adjoint_at, case), (case.x,), (case.v,))
    along = (case.v, case.S @ case.v)
    slope = lambda x, z: jax.grad(lagrange, 1)(x, z)
    _, right = jax.jvp(slope, (case.x, case.z), along)
    yield case.A.T @ dlam, right


@equation("section-five", LAYERS)
def test_section_five(case):
    r"""
    H v = \frac{\partial}{\partial x}\,\bigl(\nabla\Lambda\cdot(v, w)\bigr) +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\dot\lambda.
    """
    lagrange = Lagrange(case)
    _, dlam = jax.jvp(partial(adjoint_at, case), (case.x,), (case.v,))
    along = (case.v, case.S @ case.v)
    slope = lambda x, z: jax.grad(lagrange)(x, z)
    _, open_part = jax.jvp(slope, (case.x, case.z), along)
    H = through_unroll(case, jax.hessian)
    yield H @ case.v, open_part + case.fx.T @ dlam


def shares(case):
    """Term A and the four parts of F = λᵀf, for a loss of the state alone."""
    lam = jnp.linalg.solve(case.A.T, jax.grad(STATE_LOSS)(case.z))
    F_xx, F_xz, F_zz = (
        jnp.tensordot(lam, d, 1) for d in case.second_partials()
    )
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    return lam, term_A, F_xx, F_xz, F_zz


@equation("attribution-adjoint", LAYERS)
def test_attribution_adjoint(case):
    r"""
    \begin{aligned}
    \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\lambda' = {} & S^\top
      \nabla^2_{zz} L\,S \\
    & + S^\top F_{zx} + S^\top F_{zz}\,S,
    \end{aligned}
    """
    _, term_A, _, F_xz, F_zz = shares(case)
    dlam = jax.jacfwd(lambda x: adjoint_at(case, x, OF_STATE))(case.x)
    right = term_A + case.S.T @ F_xz.T + case.S.T @ F_zz @ case.S
    yield case.fx.T @ dlam, right


@equation("attribution-explicit", LAYERS)
def test_attribution_explicit(case):
    r"""
    \frac{\mathrm{d}}{\mathrm{d} x}\Bigl(\frac{\partial f}{\partial
      x}\Bigr)^{\!\top}\lambda\,\Big|_{\lambda\ \text{fixed}} = F_{xx} +
      F_{xz}\,S.
    """
    lam, _, F_xx, F_xz, _ = shares(case)
    row = lambda x: lam @ jax.jacfwd(case.f)(x, case.unrolled(x))
    yield jax.jacfwd(row)(case.x), F_xx + F_xz @ case.S


@equation("loss-hvp", LAYERS)
def test_loss_hvp(case):
    r"""
    H v = \frac{\partial\varphi}{\partial x} +
      \Bigl(\frac{\partial f}{\partial x}\Bigr)^{\!\top}\mu, \quad A^\top\mu =
      \frac{\partial\varphi}{\partial z}.
    """
    lagrange = Lagrange(case)
    w = case.S @ case.v
    phi = lambda x, z: jax.jvp(lagrange, (x, z), (case.v, w))[1]
    right = through(case, phi)
    yield through_unroll(case, jax.hessian) @ case.v, right
    got = deqlib.loss_hvp(LOSS, case.f, case.x, case.z, case.v)
    yield got, right


@equation("unification", TIMED)
def test_unification(timed):
    r"""
    u^\top H_{tx} = \Bigl(\nabla^2\bigl(u^\top z^*(t, x)\bigr)\Bigr)_{tx}:
    """
    case, (t, x, z) = timed.case, timed.at
    number = lambda p: timed.u @ case.unrolled(p)
    right = jax.hessian(number)(case.x)[0, 1:]
    yield timed.u @ jnp.linalg.solve(timed.A, mixed_bracket(timed)), right
    layer = lambda p, z: timed.f(*p, z)
    along_t = (jnp.ones_like(t), jnp.zeros_like(x))
    of_state = lambda p, z: timed.u @ z
    yield deqlib.loss_hvp(of_state, layer, (t, x), z, along_t)[1], right


# Matrix and tensor calculus -----------------------------------------------------------


def complex_step(function, at, along=1.0, h=1e-20):
    """The derivative of an analytic function, by arithmetic alone and without a rule."""
    return function(at + 1j * h * along).imag / h


@equation("chain-rule", LAYERS)
def test_chain_rule(case):
    r"""
    (G \circ F)'(x) = \underbrace{G'(F(x))}_{l \times m}\;\underbrace{F'(x)}_{m
      \times n}.
    """
    F, G = lambda x: case.f(x, case.z), lambda z: case.f(case.x, z)
    along = lambda v: complex_step(lambda x: G(F(x)), case.x, v)
    yield (
        jax.vmap(along, out_axes=1)(jnp.eye(case.n)),
        jax.jacfwd(G)(F(case.x)) @ jax.jacfwd(F)(case.x),
    )


@equation("total-derivative", LAYERS)
def test_total_derivative(case):
    r"""
    \frac{\mathrm{d}}{\mathrm{d} x}\,f(x, z^*(x)) =
      \frac{\partial f}{\partial x} + \frac{\partial f}{\partial z}\,S.
    """
    h = lambda x, z: jnp.sin(z) * jnp.sum(x * x) + case.f(x, z)
    total = jax.jacfwd(lambda x: h(x, case.unrolled(x)))(case.x)
    by_x, by_z = (jax.jacfwd(h, i)(case.x, case.z) for i in (0, 1))
    yield total, by_x + by_z @ jacobian(case.f, case.x, case.z)


@equation("transpose-identity", LAYERS)
def test_transpose_identity(case):
    r"""u^\top (F' v) = (u^\top F')\,v."""
    yield (
        case.u @ jvp(case.f, case.x, case.z, case.v),
        vjp(case.f, case.x, case.z, case.u) @ case.v,
    )


def matrix_path(B, C):
    return lambda s: 4 * jnp.eye(4) + jnp.sin(s) * B + s**2 * C


@equation("inverse-derivative", draws(normal(4, 4), normal(4, 4)))
def test_inverse_derivative(B, C):
    r"""
    \frac{\mathrm{d} A^{-1}}{\mathrm{d} s} =
      -A^{-1}\,\frac{\mathrm{d} A}{\mathrm{d} s}\,A^{-1}.
    """
    A, s = matrix_path(B, C), 0.3
    inverse = jnp.linalg.inv(A(s))
    yield (
        complex_step(lambda s: jnp.linalg.inv(A(s)), s),
        -inverse @ jax.jacfwd(A)(s) @ inverse,
    )


@equation("solve-derivative", draws(normal(4, 4), normal(4, 4), normal(4)))
def test_solve_derivative(B, C, c):
    r"""
    A\,\frac{\mathrm{d} v}{\mathrm{d} s} = \frac{\mathrm{d} b}{\mathrm{d} s} -
      \frac{\mathrm{d} A}{\mathrm{d} s}\,v.
    """
    A, s = matrix_path(B, C), 0.3
    b = lambda s: jnp.cos(s * c)
    v = lambda s: linear.solve(lambda v: A(s) @ v, b(s))
    right = jax.jacfwd(b)(s) - jax.jacfwd(A)(s) @ v(s)
    yield A(s) @ complex_step(lambda s: jnp.linalg.solve(A(s), b(s)), s), right
    yield A(s) @ jax.jacfwd(v)(s), right


@equation(
    "geometric-series",
    draws(contraction(5, norm=0.7)) + draws(stretching(5), name="stretching"),
)
def test_geometric_series(J):
    r"""(I - J)^{-1} = \sum_{k=0}^{\infty} J^k."""
    powers, term = jnp.zeros((5, 5)), jnp.eye(5)
    for _ in range(200):
        powers, term = powers + term, term @ J
    yield jnp.linalg.inv(jnp.eye(5) - J), powers


def test_all_equations_compile_few_programs():
    """Those before it; all of them, if they run one after the other."""
    assert sum(compiled) <= programs.EQUATIONS


# Chapter 10 ---------------------------------------------------------------------------


@equation("catalan-derivatives", draws(uniform(0.2, 1.5, 1)))
def test_catalan_derivatives(c):
    r"""
    \frac{\mathrm{d}^k z^*}{\mathrm{d} x^k}(0) = k!\;C_{k-1}\,c^{k-1}.
    """
    branch = lambda x: (1 - jnp.sqrt(1 - 4 * c * x)) / (2 * c)
    for k in range(1, 6):
        branch = jax.jacfwd(branch)
        catalan = math.comb(2 * k - 2, k - 1) // k
        yield branch(0.0), math.factorial(k) * catalan * c ** (k - 1)


@equation("fold-law", draws(uniform(0.2, 1.5, 1), uniform(-0.5, 0.1, 1)))
def test_fold_law(c, x):
    r"""
    z^{(k)} = (2k - 3)!!\;\frac{(2c)^{k-1}}{A^{2k-1}}.
    """
    branch = lambda x: (1 - jnp.sqrt(1 - 4 * c * x)) / (2 * c)
    A, z_k, double = 1 - 2 * c * branch(x[0]), branch, 1
    for k in range(1, 5):
        z_k = jax.jacfwd(z_k)
        double *= max(2 * k - 3, 1)
        yield z_k(x[0]), double * (2 * c) ** (k - 1) / A ** (2 * k - 1)


def along(g, directions):
    """The derivative of g along each of the directions, one after the other."""
    if not directions:
        return g
    *before, last = directions
    inner = along(g, before)
    return lambda p: jax.jvp(inner, (p,), (last,))[1]


@equation("taylor-recursion", LAYERS)
def test_taylor_recursion(case):
    r"""
    \begin{gathered}
    \underbrace{A}_{m \times m}\,\underbrace{z^{(k)}}_{m} = \\
    \frac{\mathrm{d}^k}{\mathrm{d} s^k}\,f\bigl(x + sv,\, \hat
      z_{k-1}(s)\bigr)\Big|_{s=0}.
    \end{gathered}
    """
    line = lambda s: case.unrolled(case.x + s * case.v)
    known = [case.z]
    for k in range(1, 4):
        model = lambda s, known=tuple(known): sum(
            s**j / math.factorial(j) * z_j for j, z_j in enumerate(known)
        )
        right = lambda s, model=model: case.f(case.x + s * case.v, model(s))
        known.append(along(line, [1.0] * k)(0.0))
        yield case.A @ known[-1], along(right, [1.0] * k)(0.0)


@equation("third-derivative", LAYERS)
def test_third_derivative(case):
    r"""
    \begin{gathered}
    z'''[u, v, w] = A^{-1}\Bigl( D^3 f[\hat u, \hat v, \hat w] \\
    {} + \sum_{u,\,v,\,w} D^2 f\bigl[\hat u, (0, z''[v, w])\bigr] \Bigr).
    \end{gathered}
    """
    v, w, u = case.v, jnp.roll(case.v, 1), jnp.cos(case.v)
    hat = lambda d: (d, case.S @ d)
    second = lambda d, e: (0 * d, case.H @ e @ d)
    D = lambda *pairs: along(lambda p: case.f(*p), pairs)((case.x, case.z))
    bracket = D(hat(u), hat(v), hat(w)) + D(hat(u), second(v, w))
    bracket += D(hat(v), second(u, w)) + D(hat(w), second(u, v))
    yield (
        along(case.unrolled, (u, v, w))(case.x),
        jnp.linalg.solve(case.A, bracket),
    )


# Chapter 11 ---------------------------------------------------------------------------


@equation(
    "trial-remainder", draws(*[uniform(-1.0, 1.0, 3)] * 4, uniform(0.1, 0.5, 2))
)
def test_trial_remainder(c, d, x, v, h_and_slope):
    r"""
    \begin{gathered}
    G(x + hv) - G(x - hv) - 2h\,G' \\
    {} = 2h\,\bigl(DG[v] - G'\bigr) \\
    {} + \tfrac{h^3}{3}\,D^3 G[v, v, v] + \cdots
    \end{gathered}
    """
    h, slope = h_and_slope
    G = lambda x: (c @ x) ** 4 + (d @ x) ** 3 + jnp.prod(x)  # no term in h⁵
    left = G(x + h * v) - G(x - h * v) - 2 * h * slope
    third = along(G, [v] * 3)(x)
    yield left, 2 * h * (along(G, [v])(x) - slope) + h**3 / 3 * third


def second_slots(case, *pairs):
    """D²f along pairs of directions of x and of z."""
    return along(lambda p: case.f(*p), pairs)((case.x, case.z))


@equation("newton-step-second", LAYERS)
def test_newton_step_second(case):
    r"""
    A\,y''[v, w] = D^2 f\bigl[(v, 0), (w, 0)\bigr].
    """
    v, w, still = case.v, jnp.roll(case.v, 1), jnp.zeros_like(case.z)
    y = lambda x: case.z + jnp.linalg.solve(case.A, case.f(x, case.z) - case.z)
    right = second_slots(case, (v, still), (w, still))
    yield case.A @ along(y, (v, w))(case.x), right


@equation("cut-rule-second", LAYERS)
def test_cut_rule_second(case):
    r"""
    A\,y''[v, w] = D^2 f\bigl[\hat v, (w, 0)\bigr].
    """
    v, w, still = case.v, jnp.roll(case.v, 1), jnp.zeros_like(case.z)

    def rule(x):
        f_x, J = jax.jacfwd(case.f, (0, 1))(x, case.z)
        return jnp.linalg.solve(jnp.eye(len(J)) - J, f_x @ v)

    right = second_slots(case, (v, case.S @ v), (w, still))
    yield case.A @ along(rule, (w,))(case.x), right


@equation("short-unroll", LAYERS)
def test_short_unroll(case):
    r"""
    \frac{\partial z_K}{\partial x} = (I - J^K)\,S.
    """
    identity = jnp.eye(len(case.J))
    for K in (1, 4):

        def more(x, K=K):
            z = case.z
            for _ in range(K):
                z = case.f(x, z)
            return z

        missing = jnp.linalg.matrix_power(case.J, K)
        yield jax.jacfwd(more)(case.x), (identity - missing) @ case.S


@equation("loose-law", draws(uniform(0.2, 1.5, 1), uniform(-0.5, 0.1, 1)))
def test_loose_law(c, x):
    r"""
    \frac{\delta z^{(k)}}{z^{(k)}} = -(2k - 1)\,\frac{f_{zz}}{A^2}\;r.
    """
    c, x = c[0], x[0]
    z = (1 - jnp.sqrt(1 - 4 * c * x)) / (2 * c)
    A, f_zz = 1 - 2 * c * z, 2 * c

    f = lambda z: x + c * z**2

    def loose(r):
        """The state near z whose residual is r."""
        return (1 - jnp.sqrt(1 - 4 * c * (x - r))) / (2 * c)

    yield f(loose(0.01)) - loose(0.01), 0.01

    def coefficients(r):
        """z⁽ᵏ⁾/k! by the recursion, at that state."""
        A_there = 1 - 2 * c * loose(r)
        a = [1 / A_there]
        for k in range(2, 5):
            square = sum(a[j] * a[k - 2 - j] for j in range(k - 1))
            a.append(c * square / A_there)
        return jnp.stack(a)

    a, change = jax.jvp(coefficients, (0.0,), (1.0,))
    for k in range(1, 5):
        yield change[k - 1] / a[k - 1], -(2 * k - 1) * f_zz / A**2


# Chapter 12 ---------------------------------------------------------------------------


@equation("pencil-defect", draws(uniform(0.1, 1.5, 2)))
def test_pencil_defect(given):
    r"""
    e = S_t + z^{*2} = \frac{1 - x}{(1 + tx)^2}.
    """
    t, x = given
    z = lambda t: newton(lambda z: 1 - t * x * z, jnp.zeros(1)).z[0]
    step = 1j * 1e-20  # of the closed form: newton has no rule
    S_t = jnp.imag(1 / (1 + (t + step) * x)) / 1e-20
    e = (1 - x) / (1 + t * x) ** 2
    yield S_t + z(t) ** 2, e


@equation("cut-slopes", draws(uniform(0.1, 2.5, 2)))
def test_cut_slopes(given):
    r"""
    \frac{\partial S_t}{\partial x} = \frac{xt - 1}{A^3}, \quad \frac{-1}{A^3}, \quad
    \frac{-A}{A^3}.
    """
    t, x = given
    A, z = 1 + t * x, 1 / (1 + t * x)
    f = lambda x, z: 1 - t * x * z
    f_t = lambda x, z: -x * z
    solved = lambda x: newton(partial(f, stop(x)), jnp.zeros(1)).z[0]

    def z_of(x):
        """A Newton step; f is affine in z, so that it is right in x to every order."""
        z = solved(x)
        return z + (f(x, z) - z) / (1 + t * x)

    exact = lambda x: f_t(x, z_of(x)) / (1 + t * x)
    state = lambda x: f_t(x, z) / (1 + t * x)
    adjoint = lambda x: f_t(x, z) / A
    yield jax.grad(exact)(x), (x * t - 1) / A**3
    yield jax.grad(state)(x), -1 / A**3
    yield jax.grad(adjoint)(x), -A / A**3


stop = jax.lax.stop_gradient


def tower_of(case, K):
    """z_0, …, z_K of the layer f(x + t v, z) at t = 0, and the f[j] as a function of
    x and of the states of a curve: nested forward mode, through the unroll and along it."""
    line = lambda x: lambda t: case.unrolled(x + t * case.v)
    states = lambda x: [along(line(x), [1.0] * k)(0.0) for k in range(K + 1)]

    def curve(states, t):
        return sum(t**j / math.factorial(j) * z for j, z in enumerate(states))

    def layer_along(x, states):
        at = lambda t: case.f(x + t * case.v, curve(states, t))
        return [along(at, [1.0] * j)(0.0) for j in range(K + 1)]

    def J_along(states):
        at = lambda t: jax.jacfwd(case.f, 1)(
            case.x + t * case.v, curve(states, t)
        )
        return [along(at, [1.0] * i)(0.0) for i in range(K + 1)]

    return states, layer_along, J_along


def tower_adjoints(case, K, cotangents):
    """All λ_j at once: the transposed system of the K + 1 equations, as one matrix."""
    states, layer_along, _ = tower_of(case, K)
    rows = states(case.x)
    at = lambda rows: jnp.stack(rows) - jnp.stack(layer_along(case.x, rows))
    whole = jnp.stack(jax.jacfwd(at)(rows), 2).reshape((K + 1) * case.m, -1)
    return jnp.linalg.solve(whole.T, cotangents.ravel()).reshape(K + 1, -1)


def tower_cotangents(case, K):
    return jnp.stack([jnp.roll(case.u, k) * (k + 1) for k in range(K + 1)])


@equation("tower-adjoint", LAYERS)
def test_tower_adjoint(case):
    r"""
    \begin{gathered}
    \underbrace{A^\top \lambda_k}_{m} = \frac{\partial \ell}{\partial z_k} \\
    {} + \sum_{j=k+1}^K \binom{j}{k} \bigl(J^{(j-k)}\bigr)^\top \lambda_j, \\
    J^{(i)} = \frac{\mathrm{d}^i}{\mathrm{d} t^i}\,\frac{\partial f}{\partial z}.
    \end{gathered}
    """
    K = 3
    states, _, J_along = tower_of(case, K)
    U, J = tower_cotangents(case, K), J_along(states(case.x))
    lam = tower_adjoints(case, K, U)
    for k in range(K + 1):
        above = [
            math.comb(j, k) * J[j - k].T @ lam[j] for j in range(k + 1, K + 1)
        ]
        yield case.A.T @ lam[k], U[k] + sum(above)


@equation("tower-gradient", LAYERS)
def test_tower_gradient(case):
    r"""
    \underbrace{\frac{\mathrm{d}\ell}{\mathrm{d} x}}_{n} =
    \frac{\partial \ell}{\partial x} + \sum_{j=0}^K
    \Bigl(\frac{\partial f^{[j]}}{\partial x}\Bigr)^{\!\top} \lambda_j.
    """
    K = 2
    states, layer_along, _ = tower_of(case, K)
    openly = lambda x: jnp.sum(x**3)
    U = tower_cotangents(case, K)
    whole = lambda x: openly(x) + jnp.sum(U * jnp.stack(states(x)))
    lam, rows = tower_adjoints(case, K, U), states(case.x)
    by_x = jax.jacfwd(lambda x: jnp.stack(layer_along(x, rows)))(case.x)
    right = jax.grad(openly)(case.x) + jnp.einsum("jm,jmn->n", lam, by_x)
    yield jax.jacfwd(whole)(case.x), right


@equation("defect-bound", draws(uniform(0.3, 1.5, 2), uniform(-0.5, 0.5, 2, 2)))
def test_defect_bound(L_and_t, gap_and_defect):
    r"""
    \begin{aligned}
    \|y(t) - y^*(t)\| \le {} & e^{Lt} \Bigl(\|y(0) - y_0\| \\
    & + \int_0^t \|e(s)\|\,\mathrm{d} s\Bigr).
    \end{aligned}
    """
    (L, t), (gap, e) = L_and_t, gap_and_defect
    # y' = L y + e, from y_0 + gap; a defect that stands still.
    for g, c in ((gap, e), (gap, 0 * e), (0 * gap, e)):
        left = g * jnp.exp(L * t) + c * (jnp.exp(L * t) - 1) / L
        total = jnp.linalg.norm(g) + t * jnp.linalg.norm(c)
        yield NoLarger(jnp.linalg.norm(left), jnp.exp(L * t) * total)
        # y' = -L y + e decays: the smallest L that the bound may take is 0.
        left = g * jnp.exp(-L * t) + c * (1 - jnp.exp(-L * t)) / L
        yield NoLarger(jnp.linalg.norm(left), total)
    # A rotation, followed by a curve that does not obey; F has the factor L.
    F = lambda y: L * jnp.sin(jnp.stack([y[1], -y[0]]))
    y_of = lambda s: gap + s * e + s**2 * gap[::-1]
    times = jnp.linspace(0.0, t, 401)
    defects = jax.vmap(lambda s: jax.jvp(y_of, (s,), (1.0,))[1] - F(y_of(s)))
    integral = jnp.trapezoid(jnp.linalg.norm(defects(times), axis=1), times)

    def heun(y, _):
        h = t / 400
        half = y + h / 2 * F(y)
        return y + h * F(half), None

    true, _ = jax.lax.scan(heun, 0 * gap, length=400)
    left = jnp.linalg.norm(y_of(t) - true)
    yield NoLarger(left, jnp.exp(L * t) * (jnp.linalg.norm(gap) + integral))


@equation("heat-solution", draws(uniform(0.1, 2.0, 1), uniform(0.1, 0.9, 1)))
def test_heat_solution(tau, s):
    r"""
    \begin{gathered}
    \frac{\partial u}{\partial\tau} = \frac1{\pi^2}\,\frac{\partial^2 u}{\partial s^2},
      \quad u(0, s) = \sin \pi s, \\
    u = e^{-\tau} \sin \pi s.
    \end{gathered}
    """
    u = lambda tau, s: jnp.exp(-tau) * jnp.sin(jnp.pi * s)
    tau, s = tau[0], s[0]
    bend = jax.grad(jax.grad(u, 1), 1)(tau, s)
    yield jax.grad(u)(tau, s), bend / jnp.pi**2
    yield u(0.0, s), jnp.sin(jnp.pi * s)


@equation(
    "uniform-contraction",
    draws(normal(4, 4), normal(4), normal(4), normal(2, 4), uniform(0, 2, 1)),
)
def test_uniform_contraction(B, a, b, states, t):
    r"""
    \begin{gathered}
    \|f(t, z) - f(t, w)\| \le q\,\|z - w\|, \\
    q = \frac{\|B\|}{1 + \|B\|} < 1, \qquad \|S_t\| \le \frac{\|a\|}{1 - q}.
    \end{gathered}
    """
    size = jnp.linalg.norm
    # The second layer, of rank one and at rest, leaves next to nothing to spare.
    edge = 3 * jnp.outer(a, a) / size(a) ** 2
    tiny = 1e-3 * a / size(a)
    for W, shift, t_0, (z, w) in (
        (B, b, t[0], states),
        (edge, 0 * b, 0 * t[0], (tiny, -tiny)),
    ):
        q = size(W) / (1 + size(W))
        f = lambda t, z, W=W, shift=shift: jnp.tanh(
            W @ z / (1 + size(W)) + t * a + shift
        )
        yield NoLarger(q, 1.0)
        yield NoLarger(size(f(t_0, z) - f(t_0, w)), q * size(z - w))
        again = lambda _, z, f=f, t_0=t_0: f(t_0, z)
        rest = jax.lax.fori_loop(0, 200, again, 0 * z)
        J, f_t = jax.jacfwd(f, 1)(t_0, rest), jax.jacfwd(f)(t_0, rest)
        S_t = jnp.linalg.solve(jnp.eye(4) - J, f_t)
        yield NoLarger(size(S_t), size(a) / (1 - q))
