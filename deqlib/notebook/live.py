"""Figures that move: sliders where there is a kernel, drawn frames on the built page."""

import inspect
import io
import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

FRAMES = 400


class Parameter(NamedTuple):
    """One slider: its label, the values it runs through, where it starts, its unit."""

    label: str
    values: Sequence
    start: Any
    unit: str = ""

    def text(self, value):
        if isinstance(value, bool):
            return "on" if value else "off"
        number = f"{value + 0:.4g}" if isinstance(value, float) else str(value)
        return f"{number} {self.unit}".strip()


class Question(NamedTuple):
    """What to guess before the figure moves.

    Two to four choices, the right one among them, and the reason. The answer appears
    where it can be `seen`, a function of the parameters; by default at the first move.
    """

    text: str
    choices: Sequence[str]
    right: str
    because: str
    seen: Callable | None = None


def live_figure(draw, predict=None, **parameters):
    """A figure that the reader moves by one to three sliders, or switches if boolean.

    With a kernel, `draw` is called as the sliders move. While the site is built (the
    environment variable DEQLIB_FRAMES is set) all pictures are drawn in advance, and
    the page shows them without a kernel.

    Args:
        draw: takes the parameters by name and returns a matplotlib figure. Its
            docstring says what the picture shows, for those who cannot see it.
            Fix the limits of the axes: their place is that of the first picture.
        predict: a `Question`. A choice opens the controls; it can be skipped. On paper
            and without scripts, question and answer stand below the picture.
        **parameters: a `Parameter` for each argument of `draw`. The built page's play
            button moves the first, or goes through all pictures if they are few.

    Returns:
        An object that Jupyter and Colab show as sliders over the picture, and a page
        without a kernel as frames, or as the picture at the start values.

    Raises:
        TypeError: if `draw` has no docstring, takes other arguments, or returns
            something else than a figure.
        ValueError: if there is no parameter or more than three, if one has no values
            or starts at none of them, if there are more than 400 pictures, or if the
            right answer is not among two to four choices.
        RuntimeError: if `draw` fails; the message names the values.
    """
    if not draw.__doc__:
        raise TypeError("draw: expected a docstring that says what it shows")
    wanted = sorted(inspect.signature(draw).parameters)
    if wanted != sorted(parameters):
        raise TypeError(
            f"draw: expected the arguments {sorted(parameters)}, got {wanted}"
        )
    if not 1 <= len(parameters) <= 3:
        raise ValueError(
            f"parameters: expected one to three, got {len(parameters)}"
        )
    for name, parameter in parameters.items():
        if len(parameter.values) == 0:
            raise ValueError(f"{name}: expected at least one value, got none")
        if parameter.start not in parameter.values:
            raise ValueError(
                f"{name}: expected a start among its values, got {parameter.start}"
            )
    count = math.prod(len(p.values) for p in parameters.values())
    if count > FRAMES:
        raise ValueError(
            f"parameters: expected at most {FRAMES} pictures, got {count}"
        )
    if predict and not (
        2 <= len(predict.choices) <= 4 and predict.right in predict.choices
    ):
        raise ValueError(
            "predict: expected two to four choices, and the right one among them, got "
            f"{list(predict.choices)} and {predict.right!r}"
        )
    return LiveFigure(draw, parameters, predict)


class LiveFigure:
    def __init__(self, draw, parameters, predict):
        self.draw, self.parameters, self.predict = draw, parameters, predict
        self.says = " ".join(draw.__doc__.split())
        self.boxes = None
        self.start = {name: p.start for name, p in parameters.items()}
        self.picture = self.svg(**self.start)
        self.frames = None
        if os.environ.get("DEQLIB_FRAMES"):
            since = time.process_time()
            grid = [
                dict(zip(parameters, values, strict=True))
                for values in itertools.product(
                    *(p.values for p in parameters.values())
                )
            ]
            self.frames = [self.svg(**values) for values in grid]
            self.seconds = time.process_time() - since
            self.answered = [i for i, v in enumerate(grid) if self.seen(v)]

    def values(self, values):
        texts = (
            f"{spoken(p.label)} = {p.text(value)}"
            for p, value in zip(
                self.parameters.values(), values.values(), strict=True
            )
        )
        return ", ".join(texts)

    def seen(self, values):
        """Whether the question's answer can be seen at these values."""
        if not self.predict:
            return False
        if self.predict.seen:
            return bool(self.predict.seen(**values))
        return values != self.start

    def svg(self, **values):
        """The picture at the given values."""
        try:
            figure = self.draw(**values)
        except Exception as error:
            plt.close()
            raise RuntimeError(
                f"draw: {self.draw.__name__} failed at {self.values(values)}: {error!r}"
            ) from error
        if not isinstance(figure, Figure) or not figure.axes:
            raise TypeError(
                f"draw: expected {self.draw.__name__} to return a figure with axes, "
                f"got {figure!r} at {self.values(values)}"
            )
        # The axes keep the place that the layout gave them in the first picture: they
        # do not jump, and a picture takes a third of the time.
        if self.boxes is None:
            figure.draw_without_rendering()
            self.boxes = [axes.get_position() for axes in figure.axes]
        figure.set_layout_engine("none")
        for axes, box in zip(figure.axes, self.boxes, strict=True):
            axes.set_position(box)
        file = io.StringIO()
        with plt.rc_context({"svg.hashsalt": self.draw.__name__}):
            # Not savefig: it draws twice where a layout was asked for.
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
        plt.close(figure)
        return inline(file.getvalue(), self.draw.__name__)

    def widget(self):
        """Controls and picture. An HTML widget: Colab's Output widget is fragile."""
        import ipywidgets

        image = ipywidgets.HTML(self.picture).add_class("live-picture")
        controls = {
            name: control(ipywidgets, p) for name, p in self.parameters.items()
        }
        moved = lambda: {name: c.value for name, c in controls.items()}
        figure = lambda parts: ipywidgets.VBox(parts).add_class("live-figure")

        def redraw(change):
            image.value = self.svg(**moved())

        for each in controls.values():
            each.observe(redraw, "value")
        if not self.predict:
            return figure([*controls.values(), image])
        asked = ipywidgets.HTML(self.question())
        choices = ipywidgets.ToggleButtons(
            options=[*map(spoken, self.predict.choices), SKIP],
            value=None,
            style={"button_width": "auto"},
        )
        sliders, answer = ipywidgets.VBox([]), ipywidgets.HTML()

        show = ipywidgets.Button(description="Show the answer")

        def reveal(change):
            if not sliders.children:
                sliders.children = (*controls.values(), show)
            if change is show or self.seen(moved()):
                said = "" if choices.value == SKIP else choices.value
                answer.value = self.answer(said)

        show.on_click(reveal)
        choices.observe(reveal, "value")
        for each in controls.values():
            each.observe(reveal, "value")
        return figure([image, asked, choices, sliders, answer])

    def question(self):
        return f"<p><strong>Predict.</strong> {written(self.predict.text)}</p>"

    def answer(self, said=""):
        """The right choice and its reason; before them, what the reader said."""
        right, because = map(
            written, (self.predict.right, self.predict.because)
        )
        verdict = f"You said: {escape(said)}. " if said else ""
        return f"<p>{verdict}<strong>Answer: {right}.</strong> {because}</p>"

    def html(self):
        """The picture, and beside it, if they were drawn, the controls and all frames."""
        at = escape(f"At {self.values(self.start)}.")
        picture = (
            f'<div class="live-picture" role="img" '
            f'aria-label="{escape(self.says)} {at}">{self.picture}</div>'
        )
        if self.frames is None:
            note = f"{at} Run this chapter to move it."
            controls = ""
        else:
            note = at
            controls = (
                '<div class="live-controls" role="group" aria-label="Move the figure"'
                f" hidden>{''.join(map(slider, self.parameters.values()))}"
                '<button type="button" class="live-play">Play</button></div>'
                '<script type="application/json">'
                f"{packed(self.frames, self.answered)}</script>"
            )
        asked = answer = ""
        if self.predict:
            choices = "".join(
                f'<button type="button" class="live-choice" aria-pressed="false">'
                f"{written(choice)}</button>"
                for choice in self.predict.choices
            )
            skip = f'<button type="button" class="live-skip" hidden>{SKIP}</button>'
            asked = (
                '<div class="live-question" role="group" aria-label="Predict">'
                f'{self.question()}<div class="live-choices">{choices}{skip}</div></div>'
            )
            answer = (
                '<div class="live-said" role="status"></div>'
                f'<div class="live-answer">{self.answer()}</div>'
            )
        return (
            f'<div class="live-figure" data-says="{escape(self.says)}"'
            f' data-seconds="{getattr(self, "seconds", 0):.2f}">{picture}'
            f'<p class="live-note">{note}</p>{asked}{controls}{answer}</div>'
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/plain": self.says, "text/html": self.html()}
        view = "application/vnd.jupyter.widget-view+json"
        return bundle | {view: self.widget()._repr_mimebundle_()[view]}


def inline(svg, name):
    """Matplotlib's SVG as a part of a page: no size, no unused or ambiguous ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S
    )
    svg = re.sub(r"<!--.*?-->|<defs>\s*</defs>", "", svg, flags=re.S)
    # On the page as large as on paper, at most, so that letters have one size.
    (points,) = re.findall(r'<svg.*?viewBox="0 0 ([\d.]+)', svg, re.S)
    width = float(points) * 4 / 3
    svg = re.sub(
        r'<svg.*?(viewBox="[^"]*").*?>',
        r'<svg \1 aria-hidden="true" focusable="false" style="width:100%;height:auto;'
        rf'--width:{width:.0f}px;stroke-linejoin:round;stroke-linecap:butt">',
        svg,
        count=1,
        flags=re.S,
    )
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(
        r'(?<= d=")[^"]*',
        lambda path: re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path[0].split())),
        svg,
        flags=re.S,
    )
    used = set(re.findall(r'["(]#([^")]+)', svg))
    svg = re.sub(
        r' id="([^"]*)"',
        lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "",
        svg,
    )
    svg = re.sub(r'(["(])#([^")]+)', rf"\1#{name}-\2", svg)
    return re.sub(r">\s+<", "><", svg).strip()


SKIP = "Skip the question"


def spoken(text):
    """Text in which $z_0$ is mathematics, as plain text."""
    plain = lambda found: re.sub("[_^{}]", "", found[1])
    return re.sub(r"\$(.+?)\$", plain, text)


def written(text):
    """The same as HTML: mathematics in its own letters, indices below, stars above."""

    def italics(found):
        inner = found[1].replace("-", "−")
        inner = re.sub(r"_(?:\{(\w+)\}|(\w))", r"<sub>\1\2</sub>", inner)
        inner = re.sub(r"\^(.)", r"<sup>\1</sup>", inner)
        return f'<i class="live-math">{inner}</i>'

    return re.sub(r"\$(.+?)\$", italics, escape(text, quote=False))


def control(ipywidgets, parameter):
    """A switch or a slider."""
    label, start = spoken(parameter.label), parameter.start
    if list(parameter.values) == [False, True]:
        return ipywidgets.Checkbox(description=label, value=start, indent=False)
    return ipywidgets.SelectionSlider(
        description=label,
        options=[(parameter.text(value), value) for value in parameter.values],
        value=start,
        style={"description_width": "initial"},
        layout={"width": "95%"},
    )


def packed(frames, answered):
    """Frames repeat most of what they draw: each piece once, a frame as its numbers."""
    pieces: dict[str, int] = {}
    numbers = [
        [pieces.setdefault(p, len(pieces)) for p in re.split("(?=<g)", frame)]
        for frame in frames
    ]
    packed = {"pieces": list(pieces), "frames": numbers, "answered": answered}
    return json.dumps(packed, separators=(",", ":")).replace("</", "<\\/")


def slider(parameter):
    """A switch or a slider, as HTML."""
    texts = [parameter.text(value) for value in parameter.values]
    start = list(parameter.values).index(parameter.start)
    told = f'autocomplete="off" data-texts="{escape(json.dumps(texts))}"'
    if list(parameter.values) == [False, True]:
        kind = f'type="checkbox" {"checked " * start}'
    else:
        kind = (
            f'type="range" min="0" max="{len(texts) - 1}" value="{start}" '
            f'aria-valuetext="{escape(texts[start])}" '
        )
    return (
        f'<label><span class="live-label">{written(parameter.label)}</span>'
        f"<input {kind}{told}><output>{escape(texts[start])}</output></label>"
    )
