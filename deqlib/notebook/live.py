"""Figures that move: sliders where there is a kernel, drawn frames on the built page."""

import inspect
import io
import itertools
import json
import math
import os
import re
import time
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
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
        number = f"{value:.4g}" if isinstance(value, float) else str(value)
        return f"{number} {self.unit}".strip()


def live_figure(draw, **parameters):
    """A figure that the reader moves by one to three sliders.

    With a kernel, `draw` is called as the sliders move. While the site is built (the
    environment variable DEQLIB_FRAMES is set) all pictures are drawn in advance, and
    the page shows them without a kernel.

    Args:
        draw: takes the parameters by name and returns a matplotlib figure. Its
            docstring says what the picture shows, for those who cannot see it.
            Fix the limits of the axes: their place is that of the first picture.
        **parameters: a `Parameter` for each argument of `draw`. The built page's play
            button moves the first, or goes through all pictures if they are few.

    Returns:
        An object that Jupyter and Colab show as sliders over the picture, and a page
        without a kernel as frames, or as the picture at the start values.

    Raises:
        TypeError: if `draw` has no docstring, takes other arguments, or returns
            something else than a figure.
        ValueError: if there is no parameter or more than three, if one has no values
            or starts at none of them, or if there are more than 400 pictures.
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
    return LiveFigure(draw, parameters)


class LiveFigure:
    def __init__(self, draw, parameters):
        self.draw, self.parameters = draw, parameters
        self.says = " ".join(draw.__doc__.split())
        self.boxes = None
        self.start = {name: p.start for name, p in parameters.items()}
        self.picture = self.svg(**self.start)
        self.frames = None
        if os.environ.get("DEQLIB_FRAMES"):
            since = time.process_time()
            grid = itertools.product(*(p.values for p in parameters.values()))
            self.frames = [
                self.svg(**dict(zip(parameters, values, strict=True)))
                for values in grid
            ]
            self.seconds = time.process_time() - since

    def values(self, values):
        texts = (
            f"{p.label} = {p.text(value)}"
            for p, value in zip(
                self.parameters.values(), values.values(), strict=True
            )
        )
        return ", ".join(texts)

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
            figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
        return inline(file.getvalue(), self.draw.__name__)

    def widget(self):
        """Sliders above the picture. An HTML widget: Colab's Output widget is fragile."""
        import ipywidgets

        image = ipywidgets.HTML(self.picture)
        sliders = {
            name: ipywidgets.SelectionSlider(
                description=p.label,
                options=[(p.text(value), value) for value in p.values],
                value=p.start,
                style={"description_width": "initial"},
                layout={"width": "95%"},
            )
            for name, p in self.parameters.items()
        }

        def redraw(change):
            image.value = self.svg(**{n: s.value for n, s in sliders.items()})

        for slider in sliders.values():
            slider.observe(redraw, "value")
        return ipywidgets.VBox([*sliders.values(), image])

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
                f'<script type="application/json">{packed(self.frames)}</script>'
            )
        return (
            f'<div class="live-figure" data-says="{escape(self.says)}"'
            f' data-seconds="{getattr(self, "seconds", 0):.2f}">'
            f'{picture}<p class="live-note">{note}</p>{controls}</div>'
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
    svg = re.sub(
        r'<svg.*?(viewBox="[^"]*").*?>',
        r'<svg \1 aria-hidden="true" focusable="false" style="width:100%;height:auto;'
        r'max-width:34rem;stroke-linejoin:round;stroke-linecap:butt">',
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


def packed(frames):
    """Frames repeat most of what they draw: each piece once, a frame as its numbers."""
    pieces: dict[str, int] = {}
    numbers = [
        [pieces.setdefault(p, len(pieces)) for p in re.split("(?=<g)", frame)]
        for frame in frames
    ]
    packed = {"pieces": list(pieces), "frames": numbers}
    return json.dumps(packed, separators=(",", ":")).replace("</", "<\\/")


def slider(parameter):
    texts = [parameter.text(value) for value in parameter.values]
    start = list(parameter.values).index(parameter.start)
    return (
        f'<label><span class="live-label">{escape(parameter.label)}</span>'
        f'<input type="range" min="0" max="{len(texts) - 1}" value="{start}" '
        f'autocomplete="off" aria-valuetext="{escape(texts[start])}" '
        f'data-texts="{escape(json.dumps(texts))}">'
        f"<output>{escape(texts[start])}</output></label>"
    )
