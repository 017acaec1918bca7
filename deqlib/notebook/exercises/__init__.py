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
from deqlib.notebook.exercises.judge import CHECKS, check

__all__ = [
    "CHECKS",
    "backward",
    "check",
    "hessian",
    "introduction",
    "jacobian",
    "layers",
    "loss",
    "master",
    "mixed",
    "penalty",
    "physics",
    "slope",
    "taylor",
    "trial",
]
