"""The machinery of the book's pages: setup, evidence, source, figures, exercises."""

from deqlib.notebook.exercises import check
from deqlib.notebook.live import Parameter, Question, live_figure
from deqlib.notebook.page import (
    COLORS,
    compare,
    count_solves,
    diagram,
    seconds,
    setup,
    source,
)

__all__ = [
    "COLORS",
    "Parameter",
    "Question",
    "check",
    "compare",
    "count_solves",
    "diagram",
    "live_figure",
    "seconds",
    "setup",
    "source",
]
