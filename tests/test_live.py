"""Live figures: sliders with a kernel, frames on the page, and errors that speak."""

import json
import re

import matplotlib
import matplotlib.pyplot as plt
import pytest

from deqlib.notebook import Parameter, Question, live_figure

matplotlib.use("agg")
SLOPE = Parameter("slope w", [0.5, 1.0, 2.0], 1.0, unit="m/s")
SHIFT = Parameter("shift b", range(4), 3)


def line(w, b=0):
    """A line of slope <w>."""
    fig, ax = plt.subplots()
    ax.plot([0, 1], [b, w])
    ax.set(ylim=(0, 3), xlabel="$x$")
    return fig


def line_of_slope(w):
    """A line."""
    return line(w)


ASKED = Question(
    "Does it rise with $z_0$?",
    ["yes", "no"],
    "yes",
    "It is a line of slope $w$.",
    seen=lambda w, b: w > 1,
)


def unpacked(html):
    data = re.search(r"<script[^>]*>(.*)</script>", html)[1]
    data = json.loads(data)
    return ["".join(data["pieces"][i] for i in f) for f in data["frames"]]


def test_with_a_kernel_sliders_move_the_picture():
    figure = live_figure(line, w=SLOPE, b=SHIFT)
    bundle = figure._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "A line of slope <w>."
    slope, shift, image = figure.widget().children
    assert slope.options[2] == ("2 m/s", 2.0) and slope.value == 1.0
    before = image.value
    slope.value = 2.0
    assert image.value != before and image.value == figure.svg(w=2.0, b=3)
    assert figure.frames is None, "frames are drawn for the site alone"
    assert "<script" not in bundle["text/html"]
    assert "Run this chapter" in bundle["text/html"]
    assert not plt.get_fignums()


def test_with_a_kernel_a_choice_opens_the_controls():
    figure = live_figure(line, predict=ASKED, w=SLOPE, b=SHIFT)
    image, asked, choices, controls, answer = figure.widget().children
    assert "Does it rise with" in asked.value and "<sub>0</sub>" in asked.value
    assert not controls.children and not answer.value and choices.value is None
    choices.value = "no"
    slope, shift, show = controls.children
    shift.value = 0
    assert not answer.value, "not where it can be seen"
    slope.value = 2.0
    assert image.value == figure.svg(w=2.0, b=0)
    for words in ("You said: no.", "Answer: yes.", "It is a line of slope"):
        assert words in answer.value
    answer.value = ""
    slope.value, choices.value = 0.5, choices.options[-1]
    assert not answer.value
    show.click()
    assert answer.value.startswith("<p><strong>Answer: yes.")


def test_on_the_page_question_and_answer_are_plain_text(monkeypatch):
    html = live_figure(line, predict=ASKED, w=SLOPE, b=SHIFT).html()
    assert "Does it rise" in html and "Answer: yes." in html
    monkeypatch.setenv("DEQLIB_FRAMES", "1")
    html = live_figure(line, predict=ASKED, w=SLOPE, b=SHIFT).html()
    data = json.loads(re.search(r"<script[^>]*>(.*)</script>", html)[1])
    assert data["answered"] == [8, 9, 10, 11]
    simple = ASKED._replace(seen=None)
    html = live_figure(line, predict=simple, w=SLOPE, b=SHIFT).html()
    data = json.loads(re.search(r"<script[^>]*>(.*)</script>", html)[1])
    assert data["answered"] == [i for i in range(12) if i != 7]


def test_what_is_on_or_off_is_a_switch(monkeypatch):
    def switched(on):
        """A line, if it is on."""
        return line(float(on))

    on = Parameter("with $f_t$", [False, True], True)
    (switch, _) = live_figure(switched, on=on).widget().children
    assert switch.description == "with ft" and switch.value is True
    monkeypatch.setenv("DEQLIB_FRAMES", "1")
    html = live_figure(switched, on=on).html()
    assert 'type="checkbox" checked' in html and 'type="range"' not in html


def test_on_the_page_there_is_a_frame_for_each_combination(monkeypatch):
    monkeypatch.setenv("DEQLIB_FRAMES", "1")
    figure = live_figure(line, w=SLOPE, b=SHIFT)
    html = figure.html()
    frames = unpacked(html)
    assert len(frames) == 12 == len(set(frames))
    assert frames[1 * 4 + 3] == figure.picture and figure.picture in html
    assert frames[2 * 4 + 0] == figure.svg(w=2.0, b=0)
    assert "A line of slope &lt;w&gt;. At slope w = 1 m/s, shift b = 3." in html
    assert 'aria-valuetext="1 m/s"' in html and 'max="3" value="3"' in html
    assert html.count('type="range"') == 2


def test_pictures_are_the_same_each_time_and_keep_their_ids_apart():
    one, other = (
        live_figure(line, w=SLOPE, b=SHIFT),
        live_figure(line_of_slope, w=SLOPE),
    )
    assert one.svg(w=2.0, b=0) == one.svg(w=2.0, b=0)
    names = [set(re.findall(r' id="([^"]+)"', f.picture)) for f in (one, other)]
    assert names[0] and not names[0] & names[1]
    for figure, known in zip((one, other), names, strict=True):
        assert set(re.findall(r'["(]#([^")]+)', figure.picture)) <= known
        assert "<style" not in figure.picture
        assert not re.search(r"<svg[^>]* (width|height)=", figure.picture)


def test_axes_stay_where_they_are_as_the_figure_moves():
    def wide(w):
        """Tick labels of different widths."""
        fig, ax = plt.subplots()
        ax.plot([0, w], [0, w])
        return fig

    figure = live_figure(wide, w=Parameter("w", [1.0, 1e6], 1.0))
    spine = r"<path d=\"(M [\d.]+ [\d.]+ L [\d.]+ [\d.]+) ?\" style=\"fill: none; stroke: #000000; stroke-width: 0.8"
    found = [re.findall(spine, figure.svg(w=w)) for w in (1.0, 1e6)]
    assert found[0] and found[0] == found[1]


@pytest.mark.parametrize(
    "draw, parameters, error, message",
    [
        (line_of_slope, {"v": SLOPE}, TypeError, r"draw: expected the arguments \['v'\]"),
        (line_of_slope, {"w": SLOPE, "b": SHIFT}, TypeError, "draw: expected the arg"),
        (lambda w: None, {"w": SLOPE}, TypeError, "draw: expected a docstring"),
        (lambda: None, {}, TypeError, "draw: expected a docstring"),
        (line, {"w": SLOPE._replace(values=[]), "b": SHIFT}, ValueError, "w: expected at least one"),
        (line, {"w": SLOPE._replace(start=3.0), "b": SHIFT}, ValueError, "w: expected a start among"),
        (line, {"w": SLOPE, "b": Parameter("b", range(134), 0)}, ValueError, "at most 400 pictures, got 402"),
        (line, {"predict": ASKED._replace(right="who knows"), "w": SLOPE, "b": SHIFT}, ValueError, "predict: expected two to four"),
        (line, {"predict": ASKED._replace(choices=["yes"]), "w": SLOPE, "b": SHIFT}, ValueError, "predict: expected two to four"),
    ],
)  # fmt: skip
def test_bad_use_is_refused(draw, parameters, error, message):
    with pytest.raises(error, match=message):
        live_figure(draw, **parameters)


def test_one_to_three_parameters():
    def still():
        """Nothing to move."""

    def four(a, b, c, d):
        """Too much to move."""

    with pytest.raises(ValueError, match="one to three, got 0"):
        live_figure(still)
    with pytest.raises(ValueError, match="one to three, got 4"):
        live_figure(four, **dict.fromkeys("abcd", SLOPE))


def test_one_bad_frame_stops_the_build(monkeypatch):
    def fragile(w):
        """A line, or a mistake."""
        return line(1 / (w - 2.0))

    figure = live_figure(fragile, w=SLOPE)  # the first picture is fine
    assert figure.picture
    monkeypatch.setenv("DEQLIB_FRAMES", "1")
    with pytest.raises(
        RuntimeError,
        match="draw: fragile failed at slope w = 2 m/s: ZeroDivision",
    ):
        live_figure(fragile, w=SLOPE)
    assert not plt.get_fignums()


@pytest.mark.parametrize("result", [None, 3, "figure"])
def test_something_else_than_a_figure_is_refused(result):
    def draws(w):
        """Something else."""
        return plt.figure() if result == "figure" else result

    with pytest.raises(
        TypeError, match="draw: expected draws to return a figure"
    ):
        live_figure(draws, w=SLOPE)
    plt.close("all")
