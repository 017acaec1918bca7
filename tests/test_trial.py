"""The trial of chapter 11: it must see what is wrong, and pass what is right."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import deqlib.trial
from deqlib import adjoint, check, fixed_point, implicit, models, newton, picard
from deqlib.check import trial
from deqlib.trial import Finding, examine

f, X, Z0 = models.random_layer(seed=2, m=4, n=3, radius=0.7)
Z = fixed_point(f, X, Z0).z
stop = jax.lax.stop_gradient
found = lambda x: stop(fixed_point(f, x, Z0, solver=picard).z)


def words(result):
    """{order: the set of verdicts}."""
    return [{f.verdict for f in each.values()} for each in result.orders]


def newton_step(x):
    """One Newton step from an equilibrium that is cut off: exact to first order."""
    z, cut = found(x), stop(x)
    J = jax.jacfwd(f, 1)(cut, z)
    return z + jnp.linalg.solve(jnp.eye(4) - J, f(x, z) - z)


@jax.custom_vjp
def reverse_alone(x):
    return found(x)


def backward(z_and_x, u):
    x, z = z_and_x
    lam = stop(adjoint(f, x, z, u))
    return (jax.vjp(lambda x: f(x, z), x)[1](lam)[0],)


reverse_alone.defvjp(lambda x: (found(x), (x, found(x))), backward)


def one_output_right(x):
    """The second output's derivative is that of one step, as after a hook is gone."""
    z = fixed_point(f, x, Z0, solver=picard).z
    return z.at[1].set(f(x, stop(z))[1])


def test_right_code_is_passed_in_every_mode_and_order():
    solved = trial(lambda x: fixed_point(f, x, Z0, solver=newton).z, X)
    assert solved.right and words(solved) == [{"right"}] * 3
    assert [len(found) for found in solved.orders] == [2, 4, 4]
    assert str(solved) == "\n".join(
        f"order {k}  right, by each mode" for k in (1, 2, 3)
    )


def test_a_right_unroll_and_a_right_short_one_are_passed():
    for steps in (3, 60):
        unrolled = lambda x, n=steps: jax.lax.scan(
            lambda z, _: (f(x, z), None), Z0, length=n
        )[0]
        assert trial(unrolled, X, 2).right


@pytest.mark.parametrize(
    "function",
    [
        lambda p: {"a": jnp.sin(p["w"]) @ p["v"], "b": p["v"] ** 2},
        lambda p: 1e3 + p["v"].sum(),
        lambda p: jnp.zeros(2),
        lambda p: p["v"] @ p["w"].T @ p["w"] @ p["v"],
        lambda p: jnp.linalg.eigh(p["w"] @ p["w"].T)[0],
        lambda p: jnp.sin(20 * p["v"]),
    ],
)
def test_plain_functions_are_right(function):
    w = jnp.sin(jnp.arange(6.0)).reshape(2, 3)
    assert trial(function, {"w": w, "v": jnp.array([0.3, -2.0, 1.0])}).right


@pytest.mark.parametrize("size", [1e-13, 1.0, 1e8])
def test_units_do_not_matter(size):
    x = jnp.array([1.0, 3.0]) * size
    right, wrong = (lambda x: x * jnp.exp(-x / size)), lambda x: stop(x) * x
    assert trial(right, x).right and not trial(wrong, x).right


def test_one_newton_step_is_wrong_from_the_second_order_on():
    verdict = trial(newton_step, X)
    assert not verdict.right
    assert words(verdict) == [{"right"}, {"wrong"}, {"open"}]
    for finding in verdict.orders[1].values():
        assert round(finding.slope) == 1 and finding.error > 0.05
    assert "order 2  not the derivative, slope 1 where 3 is due" in str(verdict)


def test_an_error_is_measured():
    """The gradient is 1.1 times what it should be."""
    scaled = lambda x: 1.1 * x @ x - 0.1 * stop(x @ x)
    for finding in trial(scaled, X, 1).orders[0].values():
        np.testing.assert_allclose(finding.error, 0.1 / 1.1, rtol=0.02)


def test_a_rule_for_reverse_mode_alone():
    verdict = trial(reverse_alone, X, 2)
    first, second = verdict.orders
    assert first["forward"].verdict == "missing"
    assert "custom_vjp" in first["forward"].said
    assert first["reverse"].verdict == "right"
    assert second["reverse"].verdict == "wrong"
    assert second["reverse over forward"].verdict == "open"
    assert "forward: JAX has none" in str(verdict)


def test_missing_modes_are_not_wrong_but_an_order_needs_one():
    square = jax.custom_vjp(lambda x: x @ x)
    square.defvjp(lambda x: (x @ x, x), lambda x, u: (2 * u * x,))
    assert trial(square, X, 2).right
    loop = lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x)
    )[1]
    verdict = trial(loop, X, 2)
    assert verdict.right and verdict.orders[0]["reverse"].verdict == "missing"
    first_alone = jax.custom_vjp(lambda x: x @ x)
    back = jax.custom_vjp(lambda x, u: 2 * u * x)
    back.defvjp(lambda x, u: (back(x, u), None), lambda _, c: 1 / 0)
    first_alone.defvjp(lambda x: (x @ x, x), lambda x, u: (back(x, u),))
    assert trial(first_alone, X, 1).right
    assert not trial(first_alone, X, 2).right


def test_one_wrong_output_is_seen():
    assert words(trial(one_output_right, X, 2)) == [{"wrong"}, {"open"}]


def test_a_batch_that_is_coupled_and_differentiated_one_by_one_is_wrong():
    layer = lambda x, z: 0.3 * z + x - 0.6 * jnp.mean(z)

    def solved(x):
        z = stop(fixed_point(layer, x, jnp.zeros(3)).z)
        alone = lambda x, z: (
            fixed_point(
                lambda x, y: 0.3 * y + x - 0.6 * stop(jnp.mean(z)), x, z
            ).z
        )
        return alone(x, z)

    assert not trial(solved, X, 1).right
    assert trial(lambda x: fixed_point(layer, x, jnp.zeros(3)).z, X, 1).right


def test_an_antisymmetric_error_of_the_hessian_is_seen():
    """vᵀ H v would not show it."""
    turn = jnp.array([[0.0, 1.0, 2.0], [-1.0, 0.0, 0.5], [-2.0, -0.5, 0.0]])
    slope = jax.custom_jvp(lambda x: 2 * x)
    slope.defjvp(lambda p, t: (slope(*p), 2 * t[0] + turn @ t[0]))
    energy = jax.custom_jvp(lambda x: x @ x)
    energy.defjvp(lambda p, t: (energy(*p), slope(*p) @ t[0]))
    assert words(trial(energy, X, 2)) == [{"right"}, {"wrong"}]


def test_a_loose_solve_is_seen():
    loose = lambda x: implicit(f, x, stop(fixed_point(f, x, Z0, tol=1e-2).z))
    assert not trial(loose, X, 1).right


def test_rough_values_are_called_rough():
    rough = lambda x: x + stop(0.1 * jnp.sin(1e5 * x))
    steps = trial(rough, jnp.array([0.3, 0.71]), 1)
    assert not steps.right and words(steps) == [{"rough"}]
    assert "values too rough to tell" in str(steps)


def test_roughness_is_told_by_the_shortest_step():
    """There the error is 0.3, far more than over longer ones, and less than one."""
    eps = float(jnp.finfo(X.dtype).eps)
    rough = lambda x: x + stop(eps ** (1 / 3) / 4 * jnp.sin(1e5 * x))
    found = trial(rough, jnp.array(0.3), 1).orders[0]["forward"]
    assert found.verdict == "rough"


def test_a_constant_with_a_little_noise_has_no_slope():
    """What is no slope is judged by the values: here by one."""
    noise = 50 * float(jnp.finfo(X.dtype).eps)
    still = lambda x: stop(1 + noise * jnp.sin(1e5 * x))
    assert trial(still, jnp.array(0.3), 1).right


def test_what_is_not_finite():
    edge = lambda x: jnp.sqrt(jnp.abs(x - 1))
    verdict = trial(edge, jnp.ones(2), 1)
    assert not verdict.right and "not finite" in str(verdict)
    with pytest.raises(ValueError, match=r"function\(x\): expected finite"):
        trial(lambda x: x / 0, X)
    there = lambda x: jnp.where(x == 0.3, 1.0, jnp.nan) * x
    assert words(trial(there, jnp.array(0.3), 1)) == [{"rough"}]


def test_a_function_that_looks_at_its_values_is_not_compiled():
    positive = lambda x: x**2 if x > 0 else -(x**2)
    assert trial(positive, jnp.array(0.5)).right


def test_directions_are_drawn_from_the_seed():
    errors = lambda seed: trial(jnp.sin, X, 1, seed=seed).orders[0]["forward"]
    assert errors(0) == errors(0) != errors(1)
    counted = []
    trial(lambda x: counted.append(x) or x, X, 1, lines=3)
    assert len(counted) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": 3}, "function"),
        ({"x": jnp.arange(3)}, "x"),
        ({"order": 0}, "order"),
        ({"order": 1.5}, "order"),
        ({"lines": 0}, "lines"),
        ({"function": lambda x: jnp.argmax(x)}, r"function\(x\)"),
    ],
)
def test_bad_input(change, message):
    given = {"function": jnp.sin, "x": X} | change
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        trial(**given)


def test_a_kink_is_named_where_the_derivative_may_be_right():
    square = lambda x: jnp.maximum(x, 0) ** 2
    found = trial(square, jnp.array(0.0), 1).orders[0]["forward"]
    assert re.search("slope 2 where 3 is due, .* off, or a kink$", str(found))
    wrong = lambda x: jax.lax.stop_gradient(x) * x
    found = trial(wrong, jnp.array(1.0), 1).orders[0]["forward"]
    assert str(found).endswith("slope 1 where 3 is due, 0.5 off")
    for slope, kink in ((1.5, 0), (1.6, 1), (2.4, 1), (2.5, 0), (3.0, 0)):
        assert ("kink" in str(Finding("wrong", 0.1, slope))) == kink


def test_it_stands_where_the_book_says():
    assert check.trial is trial and partial(trial)(jnp.sin, X, 1).right


def test_small_errors_are_seen_and_smaller_ones_are_not():
    wrong = lambda e: lambda x: (1 + e) * x @ x - e * stop(x @ x)
    seen, unseen = (1e-6, 1e-9) if X.dtype == jnp.float64 else (5e-3, 1e-5)
    assert not trial(wrong(seen), X, 1).right
    assert trial(wrong(unseen), X, 1).right


def test_rounding_of_a_constant_is_no_slope():
    constant = lambda x: 1e6 * (jnp.sin(x) ** 2 + jnp.cos(x) ** 2)
    assert trial(constant, X, 1).right


def test_each_line_is_walked():
    calls = []

    def counted(x):
        calls.append(x[0] > 0)
        return x.sum() if x[0] > -9 else x.sum()

    for lines in (1, 2):
        trial(counted, X, 1, lines=lines)
        calls.append(None)
    first = calls.index(None)
    assert len(calls) - first > 1.8 * first


def test_the_worst_line_counts():
    """Right along one of two lines."""
    G = lambda x, u: x**2 + u * stop(x)
    one = jnp.array(1.0)
    for weights, verdict in (([0.0, 0.0], "right"), ([0.0, 1.0], "wrong")):
        found = deqlib.trial.judge(G, one, weights, [[one, one]])
        assert {f.verdict for f in found[0].values()} == {verdict}
    assert {f.verdict for f in found[0].values()} == {"wrong"}


def test_values_at_one_step_alone_are_not_enough():
    near = float(jnp.finfo(X.dtype).eps) ** (1 / 3) / 4
    G = lambda x: jnp.where(jnp.abs(x) < 1.5 * near, x, jnp.nan)
    found = examine(jnp.array(0.0), G, lambda x, v: v, jnp.array(1.0))
    assert found.verdict == "rough"


def steps():
    """The lengths that `examine` walks."""
    eps = float(jnp.finfo(X.dtype).eps)
    return np.geomspace(0.25, eps ** (1 / 3) / 4, 9)


def test_values_at_two_steps_are_enough():
    reach = (steps()[-2] + steps()[-3]) / 2
    G = lambda x: jnp.where(jnp.abs(x) < reach, x, jnp.nan)
    at = lambda slope: examine(
        jnp.array(0.0), G, lambda x, v: slope * v, jnp.array(1.0)
    )
    assert at(1.0).verdict == "right" and at(1.1).verdict == "wrong"


def test_a_mistake_that_the_next_term_hides_is_seen():
    """At one step the two cancel; what remains without h³ is the mistake."""
    h = steps()[4 if X.dtype == jnp.float64 else 1]
    found = examine(
        jnp.array(0.0),
        lambda x: x + x**3,
        lambda x, v: (1 + h**2) * v,
        jnp.array(1.0),
    )
    assert found.verdict == "wrong"
    assert 0.5 * h**2 < found.error < 2 * h**2


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_slope_of_zero_that_is_none_is_wholly_off(scale):
    found = examine(
        jnp.array(0.0),
        lambda x: scale * x,
        lambda x, v: 0 * v,
        jnp.array(1.0),
    )
    assert found.verdict == "wrong" and abs(found.error - 1) < 0.01


def test_float32_where_float64_is_on():
    """Steps keep the dtype of x."""
    found = lambda x: trial(lambda x: jnp.sin(x) * x, x, 3).orders[2]
    errors = [f.error for f in found(X.astype(jnp.float32)).values()]
    assert all(1e-7 < error < 1e-3 for error in errors)
