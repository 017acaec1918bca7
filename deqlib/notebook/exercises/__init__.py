"""The checks behind the book's exercises, a module for each chapter."""

from deqlib.notebook.exercises import (
    backward,
    hessian,
    introduction,
    jacobian,
    layers,
    loss,
    master,
    mixed,
    penalty,
    physics,
    slope,
    taylor,
    trial,
)
from deqlib.notebook.exercises.judge import (
    CHECKS,
    NUMBERS,
    answer_of,
    check,
    drawn,
    parts_of,
    values,
)

__all__ = [
    "CHECKS",
    "NUMBERS",
    "answer_of",
    "backward",
    "check",
    "drawn",
    "hessian",
    "introduction",
    "jacobian",
    "layers",
    "loss",
    "master",
    "mixed",
    "parts_of",
    "penalty",
    "physics",
    "slope",
    "taylor",
    "trial",
    "values",
]
