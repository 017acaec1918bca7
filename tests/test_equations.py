"""The ledger: each numbered equation, both sides, on several random layers.

Layers have non-symmetric weights, m ≠ n in both directions, and every mixed derivative
alive. Where the book states an equation for a special layer, that layer is drawn.
"""

import itertools
from functools import cache, cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import second

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

SHAPES = [(5, 3), (3, 6)]
on_random_layers = pytest.mark.parametrize(
    "case",
    [(seed, m, n) for seed, (m, n) in enumerate(SHAPES * 3)],
    indirect=True,
)
on_random_seeds = pytest.mark.parametrize("rng", range(5), indirect=True)


class Case:
    """A random layer at its equilibrium, with its dense derivatives."""

    def __init__(self, seed, m, n):
        self.f, self.x, self.z0 = models.random_layer(seed, m, n)
        self.m, self.n = m, n
        self.z = newton(partial(self.f, self.x), self.z0).z
        self.J = jax.jacfwd(self.f, 1)(self.x, self.z)
        self.A = jnp.eye(m) - self.J
        self.fx = jax.jacfwd(self.f, 0)(self.x, self.z)
        rng = np.random.default_rng(100 + seed)
        self.u, self.v = (
            jnp.asarray(rng.normal(size=m)),
            jnp.asarray(rng.normal(size=n)),
        )

    def unrolled(self, x, steps=150, z0=None):
        step = lambda z, _: (self.f(x, z), None)
        return jax.lax.scan(step, self.z0 if z0 is None else z0, length=steps)[
            0
        ]

    @cached_property
    def S(self):
        """The oracle: autodiff through a long unroll."""
        return jax.jacfwd(self.unrolled)(self.x)

    @cached_property
    def H(self):
        """The oracle of second order."""
        return jax.jit(jax.jacfwd(jax.jacfwd(self.unrolled)))(self.x)

    def bend(self, v, w):
        """D²f[(v, Sv), (w, Sw)]."""
        once = lambda x, z: jax.jvp(self.f, (x, z), (v, self.S @ v))[1]
        return jax.jvp(once, (self.x, self.z), (w, self.S @ w))[1]

    def second_partials(self):
        """f_xx, f_xz, f_zz with the index of the component first."""
        by = lambda i, j: jax.jacfwd(jax.jacfwd(self.f, i), j)(self.x, self.z)
        return by(0, 0), by(0, 1), by(1, 1)


case_of = cache(Case)


@pytest.fixture
def case(request):
    return case_of(*request.param)


@pytest.fixture
def rng(request):
    return np.random.default_rng(request.param)


def contraction(rng, m, norm=0.8):
    W = rng.normal(size=(m, m))
    return jnp.asarray(norm * W / np.linalg.norm(W, 2))


# Introduction -------------------------------------------------------------------------


def quadratic(t, z):
    return t + z**2 / 4


@pytest.mark.equation("quadratic-equilibrium")
@on_random_seeds
def test_quadratic_equilibrium(rng, both_sides):
    t = jnp.asarray(rng.uniform(-3, 0.9, size=1))
    both_sides(
        deqlib.fixed_point(quadratic, t, jnp.zeros(1)).z,
        2 - 2 * jnp.sqrt(1 - t),
    )


@pytest.mark.equation("quadratic-slope")
@on_random_seeds
def test_quadratic_slope(rng, both_sides):
    t = jnp.asarray(rng.uniform(-3, 0.9, size=1))
    z = 2 - 2 * jnp.sqrt(1 - t)
    both_sides(
        jax.jacfwd(lambda t: 2 - 2 * jnp.sqrt(1 - t))(t),
        jnp.diag(1 / (1 - z / 2)),
    )
    both_sides(jacobian(quadratic, t, z), jnp.diag(1 / (1 - z / 2)))


# Chapter 1 ----------------------------------------------------------------------------


@pytest.mark.equation("affine-equilibrium")
@on_random_seeds
def test_affine_equilibrium(rng, both_sides):
    w, b = rng.uniform(-0.9, 0.9), rng.normal()
    both_sides(
        picard(lambda z: w * z + b, jnp.zeros(1)).z, jnp.array([b / (1 - w)])
    )


@pytest.mark.equation("banach-bound")
@on_random_seeds
def test_banach_bound(rng, no_larger):
    W, b = contraction(rng, 6), jnp.asarray(rng.normal(size=6))
    g = lambda z: jnp.tanh(W @ z + b)
    z_star = newton(g, jnp.zeros(6)).z
    states = [jnp.asarray(rng.normal(size=6))]
    for _ in range(20):
        states.append(g(states[-1]))
    first = jnp.linalg.norm(states[1] - states[0])
    for k, z in enumerate(states):
        no_larger(jnp.linalg.norm(z - z_star), 0.8**k / 0.2 * first)


@pytest.mark.equation("picard-error")
@on_random_seeds
def test_picard_error(rng, both_sides):
    J, b, z = contraction(rng, 5), jnp.asarray(rng.normal(size=5)), jnp.ones(5)
    z_star = jnp.linalg.solve(jnp.eye(5) - J, b)
    start = z - z_star
    for k in range(1, 8):
        z = J @ z + b
        both_sides(z - z_star, jnp.linalg.matrix_power(J, k) @ start)


@pytest.mark.equation("heron-error")
@on_random_seeds
def test_heron_error(rng, both_sides):
    x, z = (
        jnp.asarray(rng.uniform(0.5, 9, size=1)),
        jnp.asarray(rng.uniform(3, 9, size=1)),
    )
    both_sides(
        models.square_root(x, z) - jnp.sqrt(x), (z - jnp.sqrt(x)) ** 2 / (2 * z)
    )


@pytest.mark.equation("broyden-secant")
@on_random_seeds
def test_broyden_secant(rng, both_sides):
    """The dense method obeys the secant equation, and deqlib's makes the same steps."""
    W, b = contraction(rng, 6), jnp.asarray(rng.normal(size=6))
    g = lambda z: jnp.tanh(W @ z + b)
    H, z, residuals = -jnp.eye(6), jnp.zeros(6), []
    r = g(z) - z
    for _ in range(6):
        residuals.append(jnp.linalg.norm(r) / jnp.linalg.norm(g(z)))
        z_next = z - H @ r
        r_next = g(z_next) - z_next
        p, y = z_next - z, r_next - r
        H = H + jnp.outer(p - H @ y, p @ H) / (p @ H @ y)
        both_sides(H @ y, p)
        z, r = z_next, r_next
    history = broyden(g, jnp.zeros(6), history=True, max_steps=50).residual
    both_sides(history[:6], jnp.stack(residuals))


# Chapter 2 ----------------------------------------------------------------------------


@pytest.mark.equation("square-root-derivative")
@on_random_seeds
def test_square_root_derivative(rng, both_sides):
    x = jnp.asarray(rng.uniform(0.1, 9, size=1))
    truth = jnp.diag(1 / (2 * jnp.sqrt(x)))
    both_sides(jax.jacfwd(jnp.sqrt)(x), truth)
    both_sides(jacobian(models.square_root, x, jnp.sqrt(x)), truth)


@pytest.mark.equation("implicit-function")
@on_random_layers
def test_implicit_function(case, both_sides):
    root = lambda x, z: case.f(x, z) - z
    by_z, by_x = (
        jax.jacfwd(root, 1)(case.x, case.z),
        jax.jacfwd(root, 0)(case.x, case.z),
    )
    both_sides(case.S, -jnp.linalg.inv(by_z) @ by_x)


@pytest.mark.equation("root-jacobian")
@on_random_layers
def test_root_jacobian(case, both_sides):
    root = lambda z: case.f(case.x, z) - z
    both_sides(jax.jacfwd(root)(case.z), case.J - jnp.eye(case.m))


@pytest.mark.equation("deq-jacobian")
@on_random_layers
def test_deq_jacobian(case, both_sides):
    both_sides(case.S, jnp.linalg.inv(case.A) @ case.fx)
    both_sides(case.S, jacobian(case.f, case.x, case.z))


@pytest.mark.equation("implicit-equation")
@on_random_layers
def test_implicit_equation(case, both_sides):
    S = jacobian(case.f, case.x, case.z)
    both_sides(case.S, case.fx + case.J @ case.S)
    both_sides(S, case.fx + case.J @ S)


@pytest.mark.equation("deq-jvp")
@on_random_layers
def test_deq_jvp(case, both_sides):
    both_sides(case.A @ (case.S @ case.v), case.fx @ case.v)
    both_sides(case.A @ jvp(case.f, case.x, case.z, case.v), case.fx @ case.v)


@pytest.mark.equation("unroll-jacobian")
@on_random_layers
def test_unroll_jacobian(case, both_sides):
    for K in (1, 2, 5):
        powers = sum(jnp.linalg.matrix_power(case.J, k) for k in range(K))
        unrolled = partial(case.unrolled, steps=K, z0=case.z)
        both_sides(jax.jacfwd(unrolled)(case.x), powers @ case.fx)


@pytest.mark.equation("unroll-error")
@on_random_layers
def test_unroll_error(case, both_sides):
    S = case.S
    for K in (1, 3):
        unrolled = partial(case.unrolled, steps=K, z0=case.z)
        both_sides(
            S - jax.jacfwd(unrolled)(case.x),
            jnp.linalg.matrix_power(case.J, K) @ S,
        )


@pytest.mark.equation("cell-slope")
@on_random_seeds
def test_cell_slope(rng, both_sides):
    w, b = rng.uniform(-0.9, 0.9), rng.normal()
    x = jnp.array([w, b])
    step = lambda b: lambda z, _: (jnp.tanh(w * z + b), None)
    unrolled = lambda b: jax.lax.scan(step(b), jnp.zeros(1), length=500)[0][0]
    z = unrolled(b)
    formula = (1 - z**2) / (1 - w * (1 - z**2))
    both_sides(jax.grad(unrolled)(x[1]), formula)
    both_sides(jacobian(models.tanh_scalar, x, z[None])[0, 1], formula)


# Chapter 3 ----------------------------------------------------------------------------


@pytest.mark.equation("net-gradient")
@on_random_layers
def test_net_gradient(case, both_sides):
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
    both_sides(
        jax.grad(lambda x_: loss(post(case.unrolled(prior(x_)))))(x_), row
    )
    solve = lambda x: deqlib.fixed_point(case.f, x, case.z0).z
    both_sides(jax.grad(lambda x_: loss(post(solve(prior(x_)))))(x_), row)


@pytest.mark.equation("adjoint-equation")
@on_random_layers
def test_adjoint_equation(case, both_sides):
    both_sides(case.A.T @ adjoint(case.f, case.x, case.z, case.u), case.u)


@pytest.mark.equation("deq-vjp")
@on_random_layers
def test_deq_vjp(case, both_sides):
    lam = jnp.linalg.solve(case.A.T, case.u)
    both_sides(case.u @ case.S, lam @ case.fx)
    both_sides(vjp(case.f, case.x, case.z, case.u), lam @ case.fx)


@pytest.mark.equation("deq-backward-fixed-point")
@on_random_layers
def test_deq_backward_fixed_point(case, both_sides):
    for solver in (linear.direct, linear.neumann):
        lam = adjoint(case.f, case.x, case.z, case.u, linear_solver=solver)
        both_sides(lam, lam @ case.J + case.u)


@pytest.mark.equation("neumann-series")
@on_random_layers
def test_neumann_series(case, both_sides):
    """K steps of the backward iteration from zero, against K terms of the series."""
    lam = jnp.zeros(case.m)
    _, pull = jax.vjp(partial(case.f, case.x), case.z)
    for K in range(1, 8):
        lam = pull(lam)[0] + case.u
        terms = [
            jnp.linalg.matrix_power(case.J.T, k) @ case.u for k in range(K)
        ]
        both_sides(lam, sum(terms))


@pytest.mark.equation("truncation-error")
@on_random_layers
def test_truncation_error(case, both_sides):
    lam = adjoint(case.f, case.x, case.z, case.u)
    for K in (1, 3):
        partial_sum = sum(
            jnp.linalg.matrix_power(case.J.T, k) @ case.u for k in range(K)
        )
        both_sides(
            lam - partial_sum, jnp.linalg.matrix_power(case.J.T, K) @ lam
        )


@pytest.mark.equation("descent-bound")
@on_random_layers
def test_descent_bound(case, no_larger):
    lam = adjoint(case.f, case.x, case.z, case.u)
    no_larger((1 - jnp.linalg.norm(case.J, 2)) * lam @ lam, lam @ case.u)


# Chapter 4 ----------------------------------------------------------------------------

on_timed_layers = pytest.mark.parametrize(
    "timed",
    [(seed, m, n) for seed, (m, n) in enumerate(SHAPES * 3)],
    indirect=True,
)


class Timed:
    """A layer f(t, x, z) with its dense partial derivatives, and the unroll's H."""

    def __init__(self, *key):
        case = second.case_of(*key)
        self.case, self.f = case, case.layer
        self.at = case.t, case.x, case.z
        self.m, self.n, self.u = case.m, case.n, case.u
        first = [jax.jacfwd(self.f, i) for i in range(3)]
        self.f_t, self.f_x, self.f_z = (d(*self.at) for d in first)
        by = lambda i, j: jax.jacfwd(first[i], j)(*self.at)
        self.f_tx, self.f_tz = by(0, 1), by(0, 2)
        self.f_zx, self.f_zz = by(2, 1), by(2, 2)
        self.A = jnp.eye(self.m) - self.f_z
        self.H = case.H[:, 0, 1:]

    @cached_property
    def slopes(self):
        """∂z*/∂t and ∂z*/∂x of the unroll."""
        S = jax.jacfwd(self.case.unroll)(self.case.p)
        return S[:, 0], S[:, 1:]

    def moving(self, function):
        """The total derivative in x of function(t, x, z*(t, x))."""
        t, x, _ = self.at
        whole = lambda x: jnp.concatenate([t[None], x])
        return jax.jacfwd(lambda x: function(t, x, self.case.unroll(whole(x))))(
            x
        )


timed_of = cache(Timed)


@pytest.fixture
def timed(request):
    return timed_of(*request.param)


@pytest.mark.equation("bilinear-mixed")
@on_random_seeds
def test_bilinear_mixed(rng, both_sides):
    t, x = jnp.asarray(rng.normal(size=2) / 4)
    z = lambda t, x: t / (1 - x)
    both_sides(z(t, x), t + x * z(t, x))
    both_sides(jax.grad(jax.grad(z), 1)(t, x), (1 - x) ** -2)


@pytest.mark.equation("square-mixed")
@on_random_seeds
def test_square_mixed(rng, both_sides):
    t, x = jnp.asarray(rng.uniform(0.1, 0.4, size=2))
    z = lambda t, x: 2 - 2 * jnp.sqrt(1 - t - x)
    both_sides(z(t, x), t + x + z(t, x) ** 2 / 4)
    both_sides(jax.grad(jax.grad(z), 1)(t, x), 0.5 / (1 - z(t, x) / 2) ** 3)


@pytest.mark.equation("time-sensitivity")
@on_timed_layers
def test_time_sensitivity(timed, both_sides):
    both_sides(timed.A @ timed.slopes[0], timed.f_t)


@pytest.mark.equation("mixed-equation")
@on_timed_layers
def test_mixed_equation(timed, both_sides):
    S_t, _ = timed.slopes
    A = lambda *at: jnp.eye(timed.m) - jax.jacfwd(timed.f, 2)(*at)
    df_t = timed.moving(jax.jacfwd(timed.f, 0))
    dA, df_z = timed.moving(A), timed.moving(jax.jacfwd(timed.f, 2))
    inverse = jnp.linalg.inv(timed.A)
    product = inverse @ jnp.einsum("ijk,j->ik", dA, inverse @ timed.f_t)
    both_sides(timed.H, inverse @ df_t - product)
    both_sides(timed.H, inverse @ (df_t + jnp.einsum("ijk,j->ik", df_z, S_t)))


@pytest.mark.equation("total-time-slope")
@on_timed_layers
def test_total_time_slope(timed, both_sides):
    both_sides(
        timed.moving(jax.jacfwd(timed.f, 0)),
        timed.f_tx + timed.f_tz @ timed.slopes[1],
    )


@pytest.mark.equation("total-state-slope")
@on_timed_layers
def test_total_state_slope(timed, both_sides):
    S_t, S = timed.slopes
    both_sides(
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


@pytest.mark.equation("mixed-hessian")
@on_timed_layers
def test_mixed_hessian(timed, both_sides):
    right = jnp.linalg.solve(timed.A, mixed_bracket(timed))
    both_sides(timed.H, right)
    both_sides(deqlib.mixed_hessian(timed.f, *timed.at), right)


# Chapter 5 ----------------------------------------------------------------------------


@pytest.mark.equation("pencil-slope")
@on_random_seeds
def test_pencil_slope(rng, both_sides):
    t, x = jnp.asarray(rng.uniform(0.1, 0.5, size=2))
    y = lambda t, x: (t / (1 - x)) ** 2
    both_sides(jax.grad(y)(t, x), 2 * t / (1 - x) ** 2)
    both_sides(jax.grad(jax.grad(y), 1)(t, x), 4 * t / (1 - x) ** 3)


def post(z):
    """Two outputs that bend, and mix the states."""
    return jnp.stack([z[0] * z[1], jnp.sum(jnp.sin(2 * z))])


class Read(Timed):
    """The network post(z*(t, x)): its slope, by the unroll, and what it is made of."""

    def __init__(self, *key):
        super().__init__(*key)
        t, x, z = self.at
        read = lambda p: post(self.case.unroll(p))
        self.slope = jax.jacfwd(read)(self.case.p)[:, 0]
        self.H_NN = jax.jit(jax.jacfwd(jax.jacfwd(read)))(self.case.p)[:, 0, 1:]
        self.J_post, self.bend = jax.jacfwd(post)(z), jax.hessian(post)(z)
        self.w = jnp.array([0.7, -1.0])

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


read_of = cache(Read)


@pytest.fixture
def network(request):
    return read_of(*request.param)


on_networks = pytest.mark.parametrize(
    "network",
    [(seed, m, n) for seed, (m, n) in enumerate(SHAPES * 3)],
    indirect=True,
)


@pytest.mark.equation("net-slope")
@on_networks
def test_net_slope(network, both_sides):
    both_sides(network.slope, network.J_post @ network.slopes[0])


@pytest.mark.equation("net-mixed")
@on_networks
def test_net_mixed(network, both_sides):
    S_t, S = network.slopes
    bend = jnp.einsum("ijl,j,lk->ik", network.bend, S_t, S)
    both_sides(network.H_NN, bend + network.J_post @ network.H)


@pytest.mark.equation("frozen-slope")
@on_networks
def test_frozen_slope(network, both_sides):
    lam = jnp.linalg.solve(network.A.T, network.u)
    df_t = network.moving(jax.jacfwd(network.f, 0))
    df_z = network.moving(jax.jacfwd(network.f, 2))
    S_t, _ = network.slopes
    both_sides(
        network.u @ network.H,
        lam @ (df_t + jnp.einsum("ijk,j->ik", df_z, S_t)),
    )


@pytest.mark.equation("mixed-vjp")
@on_networks
def test_mixed_vjp(network, both_sides):
    lam = jnp.linalg.solve(network.A.T, network.u)
    right = network.through(network.frozen(lam))
    both_sides(network.u @ network.H, right)
    got = deqlib.mixed_vjp(network.f, *network.at, network.u)
    both_sides(got, right)


@pytest.mark.equation("net-slope-gradient")
@on_networks
def test_net_slope_gradient(network, both_sides):
    lam = jnp.linalg.solve(network.A.T, network.J_post.T @ network.w)
    frozen, S_t = network.frozen(lam), network.slopes[0]

    def phi(x, z):
        return network.w @ jax.jvp(post, (z,), (S_t,))[1] + frozen(x, z)

    both_sides(network.w @ network.H_NN, network.through(phi))


@pytest.mark.equation("v-product")
@on_networks
def test_v_product(network, both_sides):
    """V by autodiff of λᵀf, which is one number."""
    t, x, z = network.at
    lam = jnp.linalg.solve(network.A.T, network.u)
    number = lambda x, z: lam @ network.f(t, x, z)
    V = jax.jacfwd(jax.grad(number, 1), 0)(x, z)
    S_t, _ = network.slopes
    turned = jnp.einsum("ijk,j->ik", network.f_zx, S_t)
    both_sides(lam @ turned, S_t @ V)


@pytest.mark.equation("contract-after")
@on_networks
def test_contract_after(network, both_sides):
    S_t, S = network.slopes
    G = jnp.einsum("i,ijl,lk->jk", network.w, network.bend, S)
    both_sides(G.T @ S_t, jnp.linalg.solve(network.A.T, G).T @ network.f_t)


# Chapter 6 ----------------------------------------------------------------------------


@pytest.mark.equation("scalar-hessian")
@pytest.mark.parametrize(
    "case", [(seed, 1, 1) for seed in range(5)], indirect=True
)
def test_scalar_hessian(case, both_sides):
    f_xx, f_xz, f_zz = (d.squeeze() for d in case.second_partials())
    slope = case.S.squeeze()
    right = (f_xx + 2 * f_xz * slope + f_zz * slope**2) / case.A.squeeze()
    both_sides(case.H.squeeze(), right)


@pytest.mark.equation("square-root-second")
@on_random_seeds
def test_square_root_second(rng, both_sides):
    x = jnp.asarray(rng.uniform(0.5, 3, size=1))
    z = jnp.sqrt(x)
    both_sides(-1 / (2 * z**3) + 1 / (4 * z**3), -0.25 * x**-1.5)
    H = deqlib.hessian(models.square_root, x, z)
    both_sides(H[0, 0], -0.25 * x**-1.5)


@pytest.mark.equation("second-direction")
@on_random_layers
def test_second_direction(case, both_sides):
    w = jnp.cos(jnp.arange(case.n))
    both_sides(
        case.H @ w @ case.v, jnp.linalg.solve(case.A, case.bend(case.v, w))
    )


@pytest.mark.equation("deq-hessian")
@on_random_layers
def test_deq_hessian(case, both_sides):
    f_xx, f_xz, f_zz = case.second_partials()
    one = jnp.einsum("ijl,lk->ijk", f_xz, case.S)
    bracket = f_xx + one + one.swapaxes(1, 2)
    bracket += jnp.einsum("ilp,lj,pk->ijk", f_zz, case.S, case.S)
    right = jnp.tensordot(jnp.linalg.inv(case.A), bracket, 1)
    both_sides(case.H, right)
    both_sides(deqlib.hessian(case.f, case.x, case.z), right)


@pytest.mark.equation("hessian-symmetry")
@on_random_layers
def test_hessian_symmetry(case, both_sides):
    H = deqlib.hessian(case.f, case.x, case.z)
    both_sides(H, H.swapaxes(1, 2))


def pair_hessian(case, function):
    """[I; S]ᵀ ∇² function [I; S] at (x, z)."""
    n = case.n
    flat = lambda p: function(p[:n], p[n:])
    both = jnp.concatenate([jnp.eye(n), case.S])
    inner = jax.hessian(flat)(jnp.concatenate([case.x, case.z]))
    return both.T @ inner @ both


@pytest.mark.equation("hessian-contraction")
@on_random_layers
def test_hessian_contraction(case, both_sides):
    lam = jnp.linalg.solve(case.A.T, case.u)
    right = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    both_sides(jnp.tensordot(case.u, case.H, 1), right)


# Chapter 7 ----------------------------------------------------------------------------


@pytest.mark.equation("pencil-penalty")
@on_random_seeds
def test_pencil_penalty(rng, both_sides):
    x = jnp.asarray(rng.uniform(0.5, 3))
    penalty = lambda x: jax.grad(jnp.sqrt)(x) ** 2 / 2
    both_sides(jax.grad(penalty)(x), -1 / (8 * x**2))
    product = jax.grad(jnp.sqrt)(x) * jax.grad(jax.grad(jnp.sqrt))(x)
    both_sides(product, -1 / (8 * x**2))


def loss_of_jacobian(case, loss):
    """The gradient of loss(S(x)), S by autodiff through the unroll."""
    S = jax.jacfwd(case.unrolled)
    return jax.jit(jax.grad(lambda x: loss(S(x))))(case.x)


@pytest.mark.equation("jacobian-contraction")
@on_random_layers
def test_jacobian_contraction(case, both_sides):
    loss = lambda S: jnp.sum(jnp.sin(S) * S)
    C = jax.grad(loss)(case.S)
    both_sides(loss_of_jacobian(case, loss), jnp.einsum("ij,ijk->k", C, case.H))


@pytest.mark.equation("contractive-gradient")
@on_random_layers
def test_contractive_gradient(case, both_sides):
    both_sides(
        loss_of_jacobian(case, lambda S: jnp.sum(S**2) / 2),
        deqlib.jacobian_vjp(case.f, case.x, case.z, case.S),
    )


def through(case, phi):
    """∂φ/∂x + (∂f/∂x)ᵀ μ with Aᵀ μ = ∂φ/∂z."""
    phi_x, phi_z = jax.grad(phi, (0, 1))(case.x, case.z)
    return phi_x + jnp.linalg.solve(case.A.T, phi_z) @ case.fx


@pytest.mark.equation("jacobian-vjp")
@on_random_layers
def test_jacobian_vjp(case, both_sides):
    C = jnp.outer(case.u, case.v) + jnp.cos(case.S)
    Lam = jnp.linalg.solve(case.A.T, C)

    def phi(x, z):
        f_x, f_z = jax.jacfwd(case.f, 0)(x, z), jax.jacfwd(case.f, 1)(x, z)
        return jnp.sum(Lam * (f_x + f_z @ case.S))

    right = through(case, phi)
    both_sides(jnp.einsum("ij,ijk->k", C, case.H), right)
    both_sides(deqlib.jacobian_vjp(case.f, case.x, case.z, C), right)


@pytest.mark.equation("regulariser-gradient")
@on_random_layers
def test_regulariser_gradient(case, both_sides):
    R = lambda x, z: jnp.sum(jax.jacfwd(case.f, 1)(x, z) ** 2)
    total = jax.jit(jax.grad(lambda x: R(x, case.unrolled(x))))(case.x)
    both_sides(total, through(case, R))


@pytest.mark.equation("hutchinson")
@on_random_layers
def test_hutchinson(case, both_sides):
    """The expectation, exactly: the mean over all sign vectors."""
    signs = jnp.array(list(itertools.product([-1.0, 1.0], repeat=case.m)))
    mean = jnp.mean(jnp.sum((signs @ case.J.T) ** 2, 1))
    both_sides(jnp.sum(case.J**2), mean)


# Chapter 8 ----------------------------------------------------------------------------

LOSS = second.general_loss
STATE_LOSS = lambda z: jnp.sum(jnp.sin(z) * z) + jnp.prod(1 + z)
OF_STATE = lambda x, z: STATE_LOSS(z)


@cache
def through_unroll(case, derivative, loss=LOSS):
    value = lambda x: loss(x, case.unrolled(x))
    return jax.jit(derivative(value))(case.x)


@pytest.mark.equation("scalar-loss-hessian")
@on_random_seeds
def test_scalar_loss_hessian(rng, both_sides):
    x, y = jnp.asarray(rng.uniform(0.1, 0.9)), jnp.asarray(rng.normal())
    z = lambda x: 2 - 2 * jnp.sqrt(1 - x)
    slope, bend = jax.grad(z), jax.grad(jax.grad(z))
    loss = lambda x: (z(x) - y) ** 2 / 2
    right = slope(x) ** 2 + (z(x) - y) * bend(x)
    both_sides(jax.grad(jax.grad(loss))(x), right)
    bowl = lambda x, z: x + z**2 / 4
    fit = lambda x, z: jnp.sum((z - y) ** 2) / 2
    H = deqlib.loss_hessian(fit, bowl, x[None], z(x)[None])
    both_sides(H[0, 0], right)


@pytest.mark.equation("loss-gradient")
@on_random_layers
def test_loss_gradient(case, both_sides):
    right = through(case, LOSS)
    both_sides(through_unroll(case, jax.grad), right)
    both_sides(deqlib.loss_gradient(LOSS, case.f, case.x, case.z), right)


@pytest.mark.equation("adjoint-price")
@on_random_layers
def test_adjoint_price(case, both_sides):
    def relaxed(epsilon):
        step = lambda z, _: (case.f(case.x, z) + epsilon, None)
        z = jax.lax.scan(step, case.z, length=150)[0]
        return LOSS(case.x, z)

    u = jax.grad(LOSS, 1)(case.x, case.z)
    both_sides(
        jax.grad(relaxed)(jnp.zeros(case.m)),
        adjoint(case.f, case.x, case.z, u),
    )


@pytest.mark.equation("two-curvatures")
@on_random_layers
def test_two_curvatures(case, both_sides):
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    term_B = jnp.tensordot(jax.grad(STATE_LOSS)(case.z), case.H, 1)
    left = through_unroll(case, jax.hessian, OF_STATE)
    both_sides(left, term_A + term_B)


@pytest.mark.equation("gauss-newton-positive")
@on_random_layers
def test_gauss_newton_positive(case, no_larger):
    convex = lambda x, z: jnp.sum(jnp.cosh(z)) + jnp.sum(z) ** 2
    G = deqlib.gauss_newton(convex, case.f, case.x, case.z)
    no_larger(0.0, case.v @ G @ case.v)
    no_larger(0.0, case.x @ G @ case.x)


@pytest.mark.equation("gauss-newton")
@on_random_layers
def test_gauss_newton(case, both_sides):
    both_sides(
        deqlib.gauss_newton(LOSS, case.f, case.x, case.z),
        pair_hessian(case, LOSS),
    )


@pytest.mark.equation("dynamics-curvature")
@on_random_layers
def test_dynamics_curvature(case, both_sides):
    u = jax.grad(STATE_LOSS)(case.z)
    lam = jnp.linalg.solve(case.A.T, u)
    right = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    both_sides(jnp.tensordot(u, case.H, 1), right)


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


@pytest.fixture
def lagrange(case):
    return Lagrange(case)


@pytest.mark.equation("scalar-master")
@pytest.mark.parametrize(
    "case", [(seed, 1, 1) for seed in range(5)], indirect=True
)
def test_scalar_master(case, both_sides):
    loss = lambda z: jnp.sum(jnp.sin(2 * z) + z**3)
    f_xx, f_xz, f_zz = (d.squeeze() for d in case.second_partials())
    slope, A = case.S.squeeze(), case.A.squeeze()
    first = jax.grad(loss)(case.z).squeeze()
    second = jax.hessian(loss)(case.z).squeeze()
    bracket = f_xx + 2 * f_xz * slope + f_zz * slope**2
    left = through_unroll(case, jax.hessian, lambda x, z: loss(z))
    both_sides(left.squeeze(), second * slope**2 + first / A * bracket)


@pytest.mark.equation("lagrangian-value")
@on_random_layers
def test_lagrangian_value(case, lagrange, both_sides):
    """For another λ than the adjoint, and at another x."""
    x = case.x + 0.1 * case.v
    z = case.unrolled(x)
    both_sides(LOSS(x, z), lagrange(x, z, case.u))


@pytest.mark.equation("lagrangian-stationary")
@on_random_layers
def test_lagrangian_stationary(case, lagrange, both_sides):
    slope = jax.grad(lagrange, 1)
    L_z = jax.grad(LOSS, 1)(case.x, case.z)
    both_sides(slope(case.x, case.z, case.u), L_z - case.A.T @ case.u)
    gap = slope(case.x, case.z, lagrange.lam)
    both_sides(L_z + gap, L_z)


@pytest.mark.equation("lagrangian-gradient")
@on_random_layers
def test_lagrangian_gradient(case, lagrange, both_sides):
    left = through_unroll(case, jax.grad)
    both_sides(left, jax.grad(lagrange)(case.x, case.z))
    L_x = jax.grad(LOSS)(case.x, case.z)
    both_sides(left, L_x + case.fx.T @ lagrange.lam)


@pytest.mark.equation("master-formula")
@on_random_layers
def test_master_formula(case, lagrange, both_sides):
    right = pair_hessian(case, lagrange)
    both_sides(through_unroll(case, jax.hessian), right)
    both_sides(deqlib.loss_hessian(LOSS, case.f, case.x, case.z), right)


@pytest.mark.equation("master-formula-source")
@on_random_layers
def test_master_formula_source(case, both_sides):
    lam = jnp.linalg.solve(case.A.T, jax.grad(STATE_LOSS)(case.z))
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    term_B = pair_hessian(case, lambda x, z: lam @ case.f(x, z))
    left = through_unroll(case, jax.hessian, OF_STATE)
    both_sides(left, term_A + term_B)


def adjoint_at(case, x, loss=LOSS):
    """λ(x), with everything that it depends on moving."""
    z = case.unrolled(x)
    A = jnp.eye(case.m) - jax.jacfwd(case.f, 1)(x, z)
    return jnp.linalg.solve(A.T, jax.grad(loss, 1)(x, z))


@pytest.mark.equation("adjoint-derivative")
@on_random_layers
def test_adjoint_derivative(case, lagrange, both_sides):
    _, dlam = jax.jvp(partial(adjoint_at, case), (case.x,), (case.v,))
    along = (case.v, case.S @ case.v)
    slope = lambda x, z: jax.grad(lagrange, 1)(x, z)
    _, right = jax.jvp(slope, (case.x, case.z), along)
    both_sides(case.A.T @ dlam, right)


@pytest.mark.equation("section-five")
@on_random_layers
def test_section_five(case, lagrange, both_sides):
    _, dlam = jax.jvp(partial(adjoint_at, case), (case.x,), (case.v,))
    along = (case.v, case.S @ case.v)
    slope = lambda x, z: jax.grad(lagrange)(x, z)
    _, open_part = jax.jvp(slope, (case.x, case.z), along)
    H = through_unroll(case, jax.hessian)
    both_sides(H @ case.v, open_part + case.fx.T @ dlam)


def shares(case):
    """Term A and the four parts of F = λᵀf, for a loss of the state alone."""
    lam = jnp.linalg.solve(case.A.T, jax.grad(STATE_LOSS)(case.z))
    F_xx, F_xz, F_zz = (
        jnp.tensordot(lam, d, 1) for d in case.second_partials()
    )
    term_A = case.S.T @ jax.hessian(STATE_LOSS)(case.z) @ case.S
    return lam, term_A, F_xx, F_xz, F_zz


@pytest.mark.equation("attribution-adjoint")
@on_random_layers
def test_attribution_adjoint(case, both_sides):
    _, term_A, _, F_xz, F_zz = shares(case)
    dlam = jax.jacfwd(lambda x: adjoint_at(case, x, OF_STATE))(case.x)
    right = term_A + case.S.T @ F_xz.T + case.S.T @ F_zz @ case.S
    both_sides(case.fx.T @ dlam, right)


@pytest.mark.equation("attribution-explicit")
@on_random_layers
def test_attribution_explicit(case, both_sides):
    lam, _, F_xx, F_xz, _ = shares(case)
    row = lambda x: lam @ jax.jacfwd(case.f)(x, case.unrolled(x))
    both_sides(jax.jacfwd(row)(case.x), F_xx + F_xz @ case.S)


@pytest.mark.equation("loss-hvp")
@on_random_layers
def test_loss_hvp(case, lagrange, both_sides):
    w = case.S @ case.v
    phi = lambda x, z: jax.jvp(lagrange, (x, z), (case.v, w))[1]
    right = through(case, phi)
    both_sides(through_unroll(case, jax.hessian) @ case.v, right)
    got = deqlib.loss_hvp(LOSS, case.f, case.x, case.z, case.v)
    both_sides(got, right)


@pytest.mark.equation("unification")
@on_timed_layers
def test_unification(timed, both_sides):
    t, x, z = timed.at
    layer = lambda p, z: timed.f(*p, z)
    along_t = (jnp.ones_like(t), jnp.zeros_like(x))
    number = lambda p, z: timed.u @ z
    block = deqlib.loss_hvp(number, layer, (t, x), z, along_t)[1]
    both_sides(timed.u @ timed.H, block)


# Matrix and tensor calculus -----------------------------------------------------------


@pytest.mark.equation("chain-rule")
@on_random_layers
def test_chain_rule(case, both_sides):
    F, G = lambda x: case.f(x, case.z), lambda z: case.f(case.x, z)
    both_sides(
        jax.jacfwd(lambda x: G(F(x)))(case.x),
        jax.jacfwd(G)(F(case.x)) @ jax.jacfwd(F)(case.x),
    )


@pytest.mark.equation("total-derivative")
@on_random_layers
def test_total_derivative(case, both_sides):
    h = lambda x, z: jnp.sin(z) * jnp.sum(x * x) + case.f(x, z)
    total = jax.jacfwd(lambda x: h(x, case.unrolled(x)))(case.x)
    by_x, by_z = (jax.jacfwd(h, i)(case.x, case.z) for i in (0, 1))
    both_sides(total, by_x + by_z @ jacobian(case.f, case.x, case.z))


@pytest.mark.equation("transpose-identity")
@on_random_layers
def test_transpose_identity(case, both_sides):
    both_sides(
        case.u @ jvp(case.f, case.x, case.z, case.v),
        vjp(case.f, case.x, case.z, case.u) @ case.v,
    )


def matrix_path(rng):
    B, C = (jnp.asarray(rng.normal(size=(4, 4))) for _ in range(2))
    return lambda s: 4 * jnp.eye(4) + jnp.sin(s) * B + s**2 * C


@pytest.mark.equation("inverse-derivative")
@on_random_seeds
def test_inverse_derivative(rng, both_sides):
    A, s = matrix_path(rng), 0.3
    inverse = jnp.linalg.inv(A(s))
    both_sides(
        jax.jacfwd(lambda s: jnp.linalg.inv(A(s)))(s),
        -inverse @ jax.jacfwd(A)(s) @ inverse,
    )


@pytest.mark.equation("solve-derivative")
@on_random_seeds
def test_solve_derivative(rng, both_sides):
    A, s, c = matrix_path(rng), 0.3, jnp.asarray(rng.normal(size=4))
    b = lambda s: jnp.cos(s * c)
    solve = lambda s: linear.solve(lambda v: A(s) @ v, b(s))
    both_sides(
        A(s) @ jax.jacfwd(solve)(s),
        jax.jacfwd(b)(s) - jax.jacfwd(A)(s) @ solve(s),
    )


@pytest.mark.equation("geometric-series")
@on_random_seeds
def test_geometric_series(rng, both_sides):
    J = contraction(rng, 5, norm=0.7)
    powers, term = jnp.zeros((5, 5)), jnp.eye(5)
    for _ in range(200):
        powers, term = powers + term, term @ J
    both_sides(jnp.linalg.inv(jnp.eye(5) - J), powers)
