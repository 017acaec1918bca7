"""Draw the README's moving picture, book/_static/cover.gif, from the book's first figure.

python book/_ext/picture.py
"""

import io

import matplotlib.pyplot as plt
import nbformat
from address import ROOT
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from deqlib import notebook


def first_figure():
    """(draw, its parameters) of the figure that opens the introduction."""
    cells = nbformat.read(ROOT / "book/introduction.ipynb", as_version=4).cells
    setup, figure = [cell for cell in cells if cell.cell_type == "code"][:2]
    found = []
    notebook.live_figure = lambda draw, **parameters: found.append(
        (draw, parameters)
    )
    namespace = {}
    for cell in (setup, figure):
        exec(TransformerManager().transform_cell(cell.source), namespace)
    return found[0]


def main():
    """Raise the order at one point, then slide the point along the curve and back."""
    draw, parameters = first_figure()
    points, orders = parameters["t0"].values, parameters["order"].values
    start, order = parameters["t0"].start, parameters["order"].start
    slide = [*points, *points[-2::-1]]
    slide = slide[slide.index(start) :] + slide[: slide.index(start)]
    steps = [(start, k, 600) for k in orders] + [(t, order, 110) for t in slide]
    frames = []
    for t, k, _ in steps:
        buffer, figure = io.BytesIO(), draw(t0=t, order=k)
        figure.savefig(buffer, dpi=130, format="png")
        plt.close(figure)
        frames.append(Image.open(buffer).convert("RGB").quantize(64))
    frames[0].save(
        ROOT / "book/_static/cover.gif",
        save_all=True,
        append_images=frames[1:],
        duration=[milliseconds for *_, milliseconds in steps],
        loop=0,
    )


if __name__ == "__main__":
    main()
