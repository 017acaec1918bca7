"""What chapters use to draw graphs, to time calls and to count solves."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest

from deqlib import jacobian, jvp, models
from deqlib.notebook import count_solves, diagram, seconds

BOXES = {
    "a": ((0.5, 0.9), "start", "truth"),
    "b": ((0.2, 0.5), "left", "backward"),
    "c": ((0.8, 0.5), "right", "forward"),
}
ARROWS = [("a", "b"), ("a", "c", 0.3)]


def drawn(reached):
    figure = diagram(BOXES, ARROWS, (4, 4), reached)
    texts = figure.axes[0].texts
    boxes = {text.get_text(): text for text in texts if text.get_text()}
    arrows = [text.arrow_patch for text in texts if not text.get_text()]
    plt.close(figure)
    return boxes, arrows


def filled(box):
    return box.get_bbox_patch().get_facecolor()[:3] != (1, 1, 1)


def test_a_diagram_without_steps_shows_all_alike():
    boxes, arrows = drawn(None)
    assert list(boxes) == ["start", "left", "right"] and len(arrows) == 2
    assert all(b.get_alpha() == 1 and not filled(b) for b in boxes.values())
    assert all(arrow.get_alpha() == 1 for arrow in arrows)


@pytest.mark.parametrize("reached", [1, 2, 3])
def test_a_diagram_fills_the_box_reached_and_pales_what_is_to_come(reached):
    boxes, arrows = drawn(reached)
    alphas = [box.get_alpha() for box in boxes.values()]
    assert [a == 1 for a in alphas] == [i < reached for i in range(3)]
    last = [filled(box) for box in boxes.values()]
    assert last == [i == reached - 1 for i in range(3)]
    solid = [arrow.get_alpha() == 1 for arrow in arrows]
    assert solid == [reached >= 2, reached >= 3]


class Later:
    """A result that is ready after `self.wait` seconds."""

    def __init__(self, wait):
        self.wait = wait

    def block_until_ready(self):
        time.sleep(self.wait)


def test_a_call_is_timed_until_its_result_is_ready_and_the_first_is_not():
    waits = iter([0.5, 0.2, 0.05, 0.2])
    best = seconds(lambda waits: Later(next(waits)), waits, repeats=3)
    assert 0.05 <= best < 0.2 and not list(waits)
    waits = iter([0.01, 0.05])
    assert seconds(lambda: Later(next(waits)), repeats=1) >= 0.05


@pytest.mark.alone
def test_times_are_those_of_programs_compiled_as_usual():
    """Here and in the chapters all others are compiled quickly."""

    @partial(jax.jit, static_argnums=(0, 2))
    def steps(g, x, count):
        return jax.lax.fori_loop(0, count, lambda _, x: g(x), x)

    g = lambda x: jnp.tanh(1.1 * x + jnp.exp(-(x**2)))
    at = g, jnp.linspace(0.0, 1.0, 2000), 200
    quick = lambda *at: steps(*at)  # not from jit: timed as it is
    turns = [(seconds(steps, *at), seconds(quick, *at)) for _ in range(3)]
    usual, little = map(min, zip(*turns, strict=True))
    assert usual < 0.7 * little


def test_what_is_timed_may_take_trees_and_numbers():
    layer = jax.jit(lambda w, x: w["W"] @ x + w["b"])
    w = {"W": jnp.ones((2, 2)), "b": 0.5}
    assert seconds(layer, w, jnp.ones(2), repeats=1) > 0
    assert seconds(jax.jit(lambda x, c: c * x), jnp.ones(2), 2.0, repeats=1) > 0


def test_solves_are_counted_as_they_run():
    f, x, z = models.random_layer(0, 5, 4)
    one = lambda how: jvp(f, x, z, x, linear_solver=how)
    assert count_solves(one) == 1
    assert count_solves(lambda how: jacobian(f, x, z, linear_solver=how)) == 4
