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
    notebook.live_figure = lambda draw, predict, **parameters: found.append(
        (draw, parameters)
    )
    namespace = {}
    for cell in (setup, figure):
        exec(TransformerManager().transform_cell(cell.source), namespace)
    return found[0]


def main():
    """Let the state settle, then move the input up and down."""
    draw, parameters = first_figure()
    inputs, steps = (parameters[name].values for name in ("t", "steps"))
    moments = [(inputs[0], k, 350) for k in steps]
    moments += [(t, steps[-1], 160) for t in [*inputs, *inputs[-2:0:-1]]]
    frames = []
    for t, k, _ in moments:
        buffer, figure = io.BytesIO(), draw(t=t, steps=k)
        figure.savefig(buffer, dpi=130, format="png")
        plt.close(figure)
        frames.append(Image.open(buffer).convert("RGB").quantize(64))
    frames[0].save(
        ROOT / "book/_static/cover.gif",
        save_all=True,
        append_images=frames[1:],
        duration=[milliseconds for *_, milliseconds in moments],
        loop=0,
    )


if __name__ == "__main__":
    main()
