"""What every chapter starts with, and how it prints evidence and shows code."""

import gc
import inspect
import os
import textwrap
import timeit
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from deqlib import linear
from deqlib.check import relative_error, rounding

# One quantity, one colour, through the whole book (Okabe and Ito's palette).
COLORS = {
    "forward": "#0072B2",
    "backward": "#D55E00",
    "third": "#009E73",
    "fourth": "#CC79A7",
    "error": "#C22326",
    "truth": "#000000",
}
PALE = 0.55  # what a diagram has not reached yet; it can still be read


# XLA's options for a program that is compiled as usual, where others are not.
USUAL: dict[str, int | bool] = {}


def compile_quickly():
    """From here on XLA compiles in half the time and optimises little, on a CPU.

    Cells and tests mostly wait for the compiler. `seconds` times programs compiled as
    usual. A long computation is better without:
    `jax.config.update("jax_disable_most_optimizations", False)`.

    And Python looks for garbage less often: JAX keeps what it has traced, and to look
    through that again and again takes a tenth of the time.
    """
    gc.set_threshold(20_000, 50, 100)
    usual = {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    }
    before = os.environ.get("XLA_FLAGS")
    # Older ones do not use them. Newer ones end the process at an unknown flag.
    if (0, 8) <= jax.__version_info__ < (0, 11):
        usual["xla_cpu_use_fusion_emitters"] = True
        flags = f"{before or ''} --xla_cpu_use_fusion_emitters=0"
        os.environ["XLA_FLAGS"] = flags
    on_cpu = jax.default_backend() == "cpu"  # starts it: the flags are read
    os.environ.pop("XLA_FLAGS", None)
    if before is not None:
        os.environ["XLA_FLAGS"] = before
    if on_cpu:
        jax.config.update("jax_disable_most_optimizations", True)
        USUAL.update(usual)


def setup():
    """Float64 unless JAX_ENABLE_X64 says otherwise, exact products, the book's style.

    Programs are compiled quickly, see `compile_quickly`.
    """
    compile_quickly()
    if "JAX_ENABLE_X64" not in os.environ:
        jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    plt.style.use(Path(__file__).with_name("book.mplstyle"))
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")
    except (
        ImportError,
        AttributeError,
    ):  # outside a notebook there is no backend
        pass
    device, dtype = jax.devices()[0], jnp.dtype(jnp.result_type(float)).name
    print(
        f"deqlib {version('deqlib')}, jax {jax.__version__}, {device.platform}, {dtype}"
    )


def compare(name, got, want):
    """Print how far `got` is from `want`, as the same text on every device and dtype.

    Returns whether they are equal up to rounding; else the relative error is printed.
    """
    error = relative_error(got, want)
    equal = error <= rounding()
    verdict = "equal up to rounding" if equal else f"off by {error:.2g}"
    print(f"{verdict:<21} {name}")
    return equal


def diagram(boxes, arrows, size, reached=None):
    """A figure of boxes with arrows between them.

    Args:
        boxes: for each name its place (x, y), its text and the name of its colour.
        arrows: pairs of names; an arrow with a third entry is bent by so much.
        size: of the figure, in inches. The places span it from 0 to 1.
        reached: how many boxes are drawn, the last of them filled; the others are
            pale. By default all are drawn alike.
    """
    fig, ax = plt.subplots(figsize=size, layout="none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    shown = list(boxes) if reached is None else list(boxes)[:reached]
    drawn = {}
    for name, ((x, y), text, color) in boxes.items():
        last = reached is not None and name == shown[-1]
        face = to_rgb(COLORS[color]) + (0.15,) if last else "white"
        frame = {"boxstyle": "round,pad=0.5", "fc": face, "ec": COLORS[color]}
        drawn[name] = ax.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=9.5,
            alpha=1 if name in shown else PALE,
            bbox=frame | {"lw": 1.5, "alpha": None if name in shown else PALE},
        )
    fig.draw_without_rendering()
    for start, end, *bent in arrows:
        look = {
            "arrowstyle": "->",
            "color": "gray",
            "connectionstyle": f"arc3,rad={bent[0] if bent else 0}",
            "patchA": drawn[start].get_bbox_patch(),
            "patchB": drawn[end].get_bbox_patch(),
            "alpha": 1 if {start, end} <= set(shown) else PALE,
        }
        ax.annotate("", boxes[end][0], boxes[start][0], arrowprops=look)
    return fig


def seconds(function, *arguments, repeats=20):
    """The best time of a call, compilation apart. Compare times of one run only.

    A function from `jax.jit` is compiled as usual, whatever `setup` asked for.
    """
    if USUAL and hasattr(function, "lower"):
        moves = lambda leaf: isinstance(leaf, jax.Array | np.ndarray | float)
        fixed = [
            i
            for i, argument in enumerate(arguments)
            if not all(map(moves, jax.tree.leaves(argument)))
        ]
        function = jax.jit(
            function, static_argnums=fixed, compiler_options=USUAL
        )
    call = lambda: jax.block_until_ready(function(*arguments))
    call()
    return min(timeit.repeat(call, repeat=repeats, number=1))


def count_solves(function):
    """How many linear solves `function(linear_solver)` makes, counted as they run."""
    calls = []

    def linear_solver(matvec, b):
        jax.debug.callback(lambda b: calls.append(1), b)
        return linear.direct(matvec, b)

    jax.jit(lambda: function(linear_solver))()
    jax.effects_barrier()
    return len(calls)


def source(function):
    """The source of a function of deqlib, from its file, without its docstring."""
    from IPython.display import Markdown

    function = inspect.unwrap(getattr(function, "fun", function))
    lines = textwrap.dedent(inspect.getsource(function))
    if function.__doc__:
        head, _, tail = lines.partition('"""')
        lines = head.rstrip() + tail.partition('"""')[2]
    comments = inspect.getcomments(function) or ""
    return Markdown(f"```python\n{comments}{lines.rstrip()}\n```")
