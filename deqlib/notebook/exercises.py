"""The checks behind the book's exercises: right, or a hint at what went wrong."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from deqlib import (
    fixed_point,
    gauss_newton,
    hessian,
    jacobian,
    loss_hessian,
    models,
    newton,
    picard,
)
from deqlib.check import relative_error, rounding

CHECKS: dict = {}


def check(name, answer):
    """Say whether `answer` solves the exercise `name`; if not, give a hint.

    Raises KeyError for an unknown exercise.
    """
    if name not in CHECKS:
        raise KeyError(f"name: expected one of {sorted(CHECKS)}, got {name!r}")
    try:
        untouched = answer is None or answer is ...
        hint = "nothing to check yet." if untouched else CHECKS[name](answer)
    except Exception as error:
        hint = f"it raised {type(error).__name__}: {error}"
    print("Right." if hint is None else f"Not yet: {hint}")


def exercise(name):
    """Register a check: a function of the answer that returns None, or a hint."""

    def register(function):
        CHECKS[name] = function
        return function

    return register


def judge(got, want, mistakes=()):
    """None if `got` equals `want`; the hint of the first mistake that it equals; or one
    that tells how far it is."""
    if got is None or got is ...:
        return "it returned nothing."
    if jax.tree.map(jnp.shape, got) != jax.tree.map(jnp.shape, want):
        shapes = jax.tree.map(jnp.shape, want), jax.tree.map(jnp.shape, got)
        return f"the shape should be {shapes[0]}, and it is {shapes[1]}."
    error = relative_error(got, want)
    if error <= rounding():
        return None
    for wrong, hint in mistakes:
        if (
            jnp.shape(wrong) == jnp.shape(got)
            and relative_error(got, wrong) < 1e-3
        ):
            return hint
    return f"the relative error is {error:.1g}."


# Introduction -------------------------------------------------------------------------


@exercise("introduction-implicit")
def _(slope):
    return judge(
        slope,
        0.25,
        [
            (1 / 3, "the second z in z³ + z = t has a derivative too."),
            (4.0, "solve for dz/dt: you have dt/dz."),
        ],
    )


@exercise("introduction-shapes")
def _(numbers):
    mistakes = [
        (5, "the row is multiplied by B in the end."),
        (15, "u makes a row of it."),
    ]
    return judge(numbers, 3, mistakes)


@exercise("introduction-directional")
def _(directional):
    g, x = (
        lambda x: jnp.stack([x[0] * x[1], jnp.sin(x[0])]),
        jnp.array([0.5, 2.0]),
    )
    v = jnp.array([1.0, -1.0])
    J = jax.jacfwd(g)(x)
    return judge(
        directional(g, x, v),
        J @ v,
        [
            (g(x), "jvp returns the value first, then the derivative."),
            (v @ J, "that is v J."),
        ],
    )


@exercise("introduction-rounding")
def _(h):
    if not 0 < h:
        return "h has to be positive."
    if (1 + math.sin(h)) - 1 != 0:
        return f"1 + sin(h) is still {1 + math.sin(h)!r}: go smaller."
    return None


# Chapter 1 ----------------------------------------------------------------------------


@exercise("layers-steps")
def _(steps):
    return judge(
        steps,
        132,
        [
            (131, "after 131 steps the error is still a little too large."),
            (150, "that is for the residual or another factor; use 0.9ᵏ."),
        ],
    )


@exercise("layers-damped")
def _(answer):
    damped, a = answer
    if damped(jnp.cos, 0.3) is None:
        return "damped should return a function."
    z = jnp.array([0.4])
    hint = judge(
        damped(jnp.cos, 0.3)(z),
        0.7 * z + 0.3 * jnp.cos(z),
        [(0.3 * z + 0.7 * jnp.cos(z), "a belongs to g, and 1 - a to z.")],
    )
    if hint is None and a is ...:
        hint = "now choose a."
    if hint is None:
        g = lambda z: jnp.tanh(-2 * z + 0.3)
        if not picard(damped(g, a), jnp.zeros(1)).converged:
            hint = f"with a = {a} the slope at the equilibrium is not between -1 and 1."
        elif jnp.abs(damped(g, a)(jnp.ones(1)) - 1) < 1e-6:
            hint = "with a = 0 every state is an equilibrium."
    return hint


@exercise("layers-growth")
def _(J):
    J = jnp.asarray(J, float)
    if J.shape != (2, 2):
        return f"J should have shape (2, 2), and has {J.shape}."
    radius = float(np.abs(np.linalg.eigvals(np.asarray(J))).max())
    if radius > 0.5 + 1e-6:
        return f"its spectral radius is {radius:.2g}."
    error = float(jnp.linalg.norm(J @ J @ J @ jnp.array([0.0, 1.0])))
    return (
        None if error > 10 else f"after three steps the error is {error:.2g}."
    )


# Chapter 2 ----------------------------------------------------------------------------


@exercise("jacobian-cell")
def _(S):
    return judge(
        jnp.asarray(S, float),
        jnp.array([4.0, 2.0]),
        [
            (jnp.array([2.0, 1.0]), "that is df/dx; solve with A."),
            (jnp.array([2.0, 4.0]), "w comes first, then b."),
            (jnp.array([2.0, 2.0]), "df/dw is z at the equilibrium."),
        ],
    )


@exercise("jacobian-dense")
def _(dense_jacobian):
    f, x, z0 = models.random_layer(11, m=4, n=3)
    z = fixed_point(f, x, z0).z
    fx, J = jax.jit(jax.jacfwd(f, (0, 1)))(x, z)
    identity = jnp.eye(4)
    return judge(
        dense_jacobian(f, x, z),
        jnp.linalg.solve(identity - J, fx),
        [
            (fx, "that is df/dx alone; solve with A."),
            (jnp.linalg.solve(J - identity, fx), "the sign: A is I - J."),
            (jnp.linalg.solve(identity - J.T, fx), "that is A transposed."),
            (jnp.linalg.solve(identity + J, fx), "A is I - J, not I + J."),
            (
                jnp.linalg.solve(1 - J, fx),
                "1 - J subtracts from every entry: use I.",
            ),
        ],
    )


@exercise("jacobian-singular")
def _(W):
    W = jnp.asarray(W, float)
    if W.shape != (2, 2):
        return f"W should have shape (2, 2), and has {W.shape}."
    if jnp.any(W == 0):
        return "W should have no zero entry."
    gap = float(np.abs(np.linalg.eigvals(np.asarray(W)) - 1).min())
    # A double eigenvalue moves by the root of a rounding error.
    if gap > 10 * float(jnp.finfo(W.dtype).eps) ** 0.5:
        return f"A is regular: the eigenvalue of W nearest to one is {gap:.2g} away."
    return None


# Chapter 3 ----------------------------------------------------------------------------


@exercise("backward-row")
def _(answer):
    lam, terms = answer
    if lam is ...:
        return "nothing to check yet."
    hint = judge(
        jnp.asarray(lam, float),
        jnp.array([1.0, 0.5]),
        [
            (
                jnp.array([1.0, 0.0]),
                "that solves A λ = u, without the transpose.",
            ),
            (jnp.array([0.0, 0.5]), "that is the second term; add the first."),
        ],
    )
    if hint is None and terms != 2:
        hint = "λ is right; count the terms of the sum that are not zero."
    return hint


@exercise("backward-truncated")
def _(backward):
    f, x, z0 = models.random_layer(12, m=4, n=3)
    z = fixed_point(f, x, z0).z
    u = jnp.array([1.0, -0.5, 0.3, 2.0])
    fx, J = jax.jit(jax.jacfwd(f, (0, 1)))(x, z)

    def row(matrix, K):
        lam = jnp.zeros_like(u)
        for _ in range(K):
            lam = matrix @ lam + u
        return lam @ fx

    for K in (1, 2, 5):
        hint = judge(
            backward(f, x, z, u, K),
            row(J.T, K),
            [
                (row(J.T, K + 1), "that is one term too many: start at λ = 0."),
                (row(J.T, K - 1), "one term is missing."),
                (row(J, K), "that multiplies with J, not with its transpose."),
                (
                    u @ jnp.linalg.solve(jnp.eye(4) - J, fx),
                    "that is the full sum.",
                ),
            ],
        )
        if hint is not None:
            return f"with K = {K}, {hint}"
    return None


@exercise("backward-uphill")
def _(answer):
    J, u = answer
    if J is ... or u is ...:
        return "nothing to check yet."
    J, u = jnp.asarray(J, float), jnp.asarray(u, float)
    if J.shape != (2, 2) or u.shape != (2,):
        return (
            f"J should be (2, 2) and u (2,); they are {J.shape} and {u.shape}."
        )
    radius = float(np.abs(np.linalg.eigvals(np.asarray(J))).max())
    if radius >= 1:
        return f"the spectral radius of J is {radius:.2g}."
    product = float(jnp.linalg.solve(jnp.eye(2) - J.T, u) @ u)
    if not product < 0:
        return f"λᵀu = {product:.2g}: downhill. Try a larger entry off the diagonal."
    return None


# Chapter 4 ----------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def mixed_terms(f, t, x, z):
    """A⁻¹ times f_tx, f_zx S_t, f_tz S and f_zz [S_t, S]."""
    f_t, f_x, f_z = (jax.jacfwd(f, i)(t, x, z) for i in range(3))
    f_tx, f_tz = (jax.jacfwd(jax.jacfwd(f, 0), i)(t, x, z) for i in (1, 2))
    f_zx, f_zz = (jax.jacfwd(jax.jacfwd(f, 2), i)(t, x, z) for i in (1, 2))
    inverse = jnp.linalg.inv(jnp.eye(z.size) - f_z)
    S_t, S = inverse @ f_t, inverse @ f_x
    return (
        inverse @ f_tx,
        inverse @ jnp.einsum("ijk,j->ik", f_zx, S_t),
        inverse @ f_tz @ S,
        inverse @ jnp.einsum("ijl,j,lk->ik", f_zz, S_t, S),
    )


@exercise("mixed-partner")
def _(value):
    return judge(
        jnp.asarray(value, float),
        4.0,
        [
            (0.0, "that is the printed formula; use f_tz S."),
            (2.0, "divide the bracket by A."),
            (12.0, "that is the derivative by t alone."),
        ],
    )


@exercise("mixed-dense")
def _(mixed_dense):
    f, t, x, z0 = models.random_time_layer(4)
    z = newton(lambda z: f(t, x, z), z0).z
    a, b, c, d = mixed_terms(f, t, x, z)
    return judge(
        mixed_dense(f, t, x, z),
        a + b + c + d,
        [
            (a - b, "that is the formula as printed."),
            (a + b, "the sign is right; two terms are missing."),
            (a - b + c + d, "the sign of the f_zx term."),
            (a + b + c, "f_zz [S_t, S] is missing."),
            (a + b + d, "f_tz S is missing."),
        ],
    )


@exercise("mixed-lucky")
def _(lucky):
    if lucky(0.3, 0.2, 0.1) is None:
        return "lucky should return a number."
    layer = lambda t, x, z: jnp.stack([lucky(t, x[0], z[0])])
    for at in [(0.3, 0.2), (0.1, 0.25)]:
        t, x = jnp.asarray(at[0]), jnp.array([at[1]])
        solution = newton(partial(layer, t, x), jnp.zeros(1))
        if not solution.converged:
            return f"no equilibrium was found at (t, x) = {at}."
        a, b, c, d = mixed_terms(layer, t, x, solution.z)
        truth = float(jnp.sum(a + b + c + d))
        if abs(truth) < 1e-6:
            return "its mixed derivative is zero."
        if relative_error(a - b, a + b + c + d) > 1e-3:
            return (
                f"at (t, x) = {at} the truth is {truth:.3g}, the printed "
                f"formula gives {float(jnp.sum(a - b)):.3g}."
            )
    return None


# Chapter 5 ----------------------------------------------------------------------------


@exercise("slope-halves")
def _(value):
    return judge(
        jnp.asarray(value, float),
        8.0,
        [
            (4.0, "that is one of the two terms."),
            (6.0, "the second derivative of z² is 2, not 1."),
        ],
    )


@exercise("slope-gradient")
def _(slope_gradient):
    f, t, x, z0 = models.random_time_layer(5)
    z, u = newton(lambda z: f(t, x, z), z0).z, jnp.array([1.0, 0.5, -2.0, 0.3])
    a, b, c, d = (u @ part for part in mixed_terms(f, t, x, z))
    return judge(
        slope_gradient(f, t, x, z, u),
        a + b + c + d,
        [
            (a + b, "that lets z stand still: add the solve with ∂φ/∂z."),
            (c + d, "that is the part through z alone: add ∂φ/∂x."),
            (a + c, "φ has a second term, f_z S_t."),
        ],
    )


@exercise("slope-blind")
def _(blind):
    if blind(0.3, 0.2, 0.1) is None:
        return "blind should return a number."
    layer = lambda t, x, z: jnp.stack([blind(t, x[0], z[0])])
    t, x = jnp.asarray(0.3), jnp.array([0.2])
    solution = newton(partial(layer, t, x), jnp.zeros(1))
    if not solution.converged:
        return "no equilibrium was found at t = 0.3, x = 0.2."
    a, b, c, d = mixed_terms(layer, t, x, solution.z)
    if abs(float(jnp.sum(a + b))) > 1e-6:
        return "the detached derivative is not zero: look at f_tx and f_zx."
    if abs(float(jnp.sum(c + d))) < 1e-6:
        return "the true derivative is zero too."
    return None


# Chapter 6 ----------------------------------------------------------------------------


@exercise("hessian-twice")
def _(value):
    return judge(
        jnp.asarray(value, float),
        16.0,
        [
            (8.0, "the mixed term counts twice, or A is missing."),
            (4.0, "that is z'."),
        ],
    )


@exercise("hessian-directions")
def _(second_along):
    f, x, z0 = models.random_layer(13, m=4, n=3)
    z = fixed_point(f, x, z0).z
    v, w = jnp.array([1.0, -0.5, 0.3]), jnp.array([0.2, 1.0, -1.0])

    @jax.jit
    def right_and_wrong(x, z):
        S, H = jacobian(f, x, z), hessian(f, x, z)
        A = jnp.eye(4) - jax.jacfwd(f, 1)(x, z)
        along_v = lambda x: jax.jvp(f, (x, z), (v, S @ v))[1]
        still = jax.jvp(along_v, (x,), (w,))[1]
        right = H @ w @ v
        return right, A @ right, jnp.linalg.solve(A, still), H @ v @ v

    right, unsolved, still, same = right_and_wrong(x, z)
    return judge(
        second_along(f, x, z, v, w),
        right,
        [
            (unsolved, "solve with A in the end."),
            (still, "z moves too: along S w."),
            (same, "w does not enter."),
        ],
    )


@exercise("hessian-straight")
def _(bent):
    if bent(0.3, 0.2) is None:
        return "bent should return a number."
    layer = lambda x, z: jnp.stack([bent(x[0], z[0])])
    x = jnp.array([0.3])
    for start in (0.0, 0.5, 1.0):
        solution = newton(lambda z: layer(x, z), jnp.array([start]))
        if solution.converged:
            break
    else:
        return "no equilibrium was found at x = 0.3."
    z = solution.z
    f_zz = jax.jacfwd(jax.jacfwd(layer, 1), 1)(x, z)
    if jnp.abs(f_zz).max() < 1e-6:
        return "f_zz is zero: the layer is not bent in z."
    if jnp.abs(jacobian(layer, x, z)).max() < 1e-6:
        return "the equilibrium does not move at all."
    bend = float(hessian(layer, x, z)[0, 0, 0])
    return None if abs(bend) < rounding() else f"z'' = {bend:.2g}."


# Chapter 7 ----------------------------------------------------------------------------


@exercise("penalty-steep")
def _(value):
    return judge(
        jnp.asarray(value, float),
        64.0,
        [
            (128.0, "the penalty carries a factor of one half."),
            (16.0, "that is z''; multiply by S."),
            (8.0, "the penalty's value is S²/2; differentiate it."),
        ],
    )


@exercise("penalty-contractive")
def _(contractive_gradient):
    f, x, z0 = models.random_layer(14, m=4, n=3)
    z = fixed_point(f, x, z0).z
    want = jax.jit(
        lambda x, z: jnp.tensordot(jacobian(f, x, z), hessian(f, x, z), 2)
    )(x, z)
    return judge(
        contractive_gradient(f, x, z),
        want,
        [(2 * want, "the penalty carries a factor of one half.")],
    )


@exercise("penalty-probe")
def _(J):
    J = jnp.asarray(J, float)
    if J.shape != (2, 2):
        return f"J should have shape (2, 2), and has {J.shape}."
    if jnp.any(J == 0):
        return "J should have no zero entry."
    same, opposite = J @ jnp.array([1.0, 1.0]), J @ jnp.array([1.0, -1.0])
    least = min(float(same @ same), float(opposite @ opposite))
    if least > rounding() * float(jnp.sum(J**2)):
        return f"the smallest probe gives {least:.2g}: look at the columns."
    return None


# Chapter 8 ----------------------------------------------------------------------------


@exercise("loss-bend")
def _(value):
    return judge(
        jnp.asarray(value, float),
        -2.0,
        [
            (4.0, "that is Term A alone."),
            (-6.0, "that is Term B alone."),
            (10.0, "the sign of the residual: it is z - y."),
        ],
    )


@exercise("loss-terms")
def _(both_terms):
    f, x, z0 = models.random_layer(15, m=4, n=3)
    z = fixed_point(f, x, z0).z
    loss = lambda z: jnp.sum(jnp.sin(z) * z) + jnp.prod(1 + z)

    @jax.jit
    def terms(x, z):
        S, H = jacobian(f, x, z), hessian(f, x, z)
        term_A = S.T @ jax.hessian(loss)(z) @ S
        return term_A, jnp.tensordot(jax.grad(loss)(z), H, 1)

    term_A, term_B = terms(x, z)
    return judge(
        both_terms(loss, f, x, z),
        term_A + term_B,
        [(term_A, "Term B is missing."), (term_B, "Term A is missing.")],
    )


@exercise("loss-saddle")
def _(y):
    f, x, z0 = models.random_layer(seed=3, m=5, n=3)
    y = jnp.asarray(y, float)
    if y.shape != (5,):
        return f"y should have shape (5,), and has {y.shape}."
    z = fixed_point(f, x, z0).z
    fit = lambda x, z: jnp.sum((z - y) ** 2) / 2
    H = jax.jit(partial(loss_hessian, fit, f))(x, z)
    low = float(jnp.linalg.eigvalsh(H)[0])
    return None if low < -10 else f"the smallest eigenvalue is {low:.2g}."


# Chapter 9 ----------------------------------------------------------------------------


def bent_loss(x, z):
    return jnp.sum(jnp.sin(z) * z) + jnp.sum(x**3) * z[0]


@exercise("master-scalar")
def _(answer):
    if answer is ...:
        return "nothing to check yet."
    lam, second = (jnp.asarray(part, float) for part in answer)
    hint = judge(lam, 4.0, [(2.0, "divide L' by A."), (1.0, "λ is L'/A.")])
    if hint is not None:
        return f"λ: {hint}"
    return judge(
        second,
        64.0,
        [
            (32.0, "one of the two terms is missing."),
            (48.0, "the mixed term counts twice."),
        ],
    )


@exercise("master-product")
def _(product):
    f, x, z0 = models.random_layer(16, m=4, n=3)
    z, v = fixed_point(f, x, z0).z, jnp.array([1.0, -0.5, 2.0])
    H = jax.jit(partial(loss_hessian, bent_loss, f))(x, z)
    G = jax.jit(partial(gauss_newton, bent_loss, f))(x, z)
    return judge(
        product(bent_loss, f, x, z, v),
        H @ v,
        [(G @ v, "that is Gauss-Newton: λᵀf belongs into the Lagrangian.")],
    )


@exercise("master-plausible")
def _(plausible):
    f, x, z0 = models.random_layer(17, m=4, n=3)
    z = fixed_point(f, x, z0).z
    H = plausible(bent_loss, f, x, z)
    if H is None:
        return "it returned nothing."
    want = jax.jit(partial(loss_hessian, bent_loss, f))(x, z)
    if jnp.shape(H) != want.shape:
        return f"the shape should be {want.shape}, and it is {jnp.shape(H)}."
    if relative_error(H, H.T) > rounding():
        return "it is not symmetric."
    if relative_error(H, want) < 1e-3:
        return "that is the Hessian itself."
    return None
