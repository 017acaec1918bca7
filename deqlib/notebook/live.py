"""Figures that move: sliders where there is a kernel, a still picture on the page."""

import inspect
import io
from html import escape
from typing import Any, NamedTuple

import matplotlib.pyplot as plt


class Parameter(NamedTuple):
    """One slider: its label, the values it runs through, and the one it starts at."""

    label: str
    values: Any
    start: Any


def live_figure(draw, **parameters):
    """A figure that is drawn again as the reader moves its sliders.

    Args:
        draw: takes the parameters by name and returns a matplotlib figure. Its
            docstring says what the picture shows, for those who cannot see it.
        **parameters: a `Parameter` for each argument of `draw`.

    Returns:
        An object that Jupyter and Colab show as sliders over the figure, and a page
        without a kernel as the picture at the start values.

    Raises:
        TypeError: if `draw` has no docstring or takes other arguments.
        ValueError: if a parameter has no values, or starts at none of them.
    """
    return LiveFigure(draw, parameters)


class LiveFigure:
    def __init__(self, draw, parameters):
        if not draw.__doc__:
            raise TypeError(
                "draw: expected a docstring that says what the figure shows"
            )
        wanted = set(inspect.signature(draw).parameters)
        if wanted != set(parameters):
            raise TypeError(
                f"draw: expected the arguments {sorted(parameters)}, got {sorted(wanted)}"
            )
        for name, (_, values, start) in parameters.items():
            if len(values) == 0:
                raise ValueError(
                    f"{name}: expected at least one value, got none"
                )
            if not any(start == value for value in values):
                raise ValueError(
                    f"{name}: expected a start among its values, got {start}"
                )
        self.draw, self.parameters = draw, parameters
        self.text = " ".join(draw.__doc__.split())

    def svg(self, **values):
        """The picture at the given values."""
        figure = self.draw(**values)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        plt.close(figure)
        picture = "<svg" + file.getvalue().partition("<svg")[2]
        name = f'role="img" aria-label="{escape(self.text)}"'
        return f'<div class="live-figure">{picture.replace("<svg", f"<svg {name}", 1)}</div>'

    def start(self):
        return {name: p.start for name, p in self.parameters.items()}

    def widget(self):
        """Sliders above the picture. An HTML widget: Colab's Output widget is fragile."""
        import ipywidgets

        picture = ipywidgets.HTML(self.svg(**self.start()))
        sliders = {
            name: ipywidgets.SelectionSlider(
                description=p.label,
                options=[
                    (f"{v:.4g}" if isinstance(v, float) else str(v), v)
                    for v in p.values
                ],
                value=next(v for v in p.values if v == p.start),
                style={"description_width": "initial"},
                layout={"width": "95%"},
            )
            for name, p in self.parameters.items()
        }

        def redraw(change):
            picture.value = self.svg(
                **{name: s.value for name, s in sliders.items()}
            )

        for slider in sliders.values():
            slider.observe(redraw, "value")
        return ipywidgets.VBox([*sliders.values(), picture])

    def still(self):
        """The picture at the start values, with the values written under it."""
        values = ", ".join(
            f"{p.label} = {p.start:.4g}"
            if isinstance(p.start, float)
            else f"{p.label} = {p.start}"
            for p in self.parameters.values()
        )
        return (
            f"{self.svg(**self.start())}<p class='live-figure-note'>At {escape(values)}. "
            "Run this chapter to move it.</p>"
        )

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/plain": self.text, "text/html": self.still()}
        widget = self.widget()._repr_mimebundle_()
        view = "application/vnd.jupyter.widget-view+json"
        return bundle | {view: widget[view]}
