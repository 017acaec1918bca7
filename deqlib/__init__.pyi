from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from deqlib import check as check
from deqlib import linear as linear
from deqlib import models as models

__all__: list[str]
__version__: str

_Tree = Any  # of real floats
_Map = Callable[[jax.Array], jax.Array]
_LinearSolver = Callable[[_Map, jax.Array], jax.Array]

class Solution(NamedTuple):
    z: Any
    residual: jax.Array
    steps: jax.Array
    converged: jax.Array

def adjoint(
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    u: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def anderson(
    g: _Map,
    z0: jax.typing.ArrayLike,
    *,
    memory: int = ...,
    tol: float | None = ...,
    max_steps: int = ...,
    history: bool = ...,
    scale: jax.typing.ArrayLike | None = ...,
) -> Solution: ...
def broyden(
    g: _Map,
    z0: jax.typing.ArrayLike,
    *,
    memory: int = ...,
    tol: float | None = ...,
    max_steps: int = ...,
    history: bool = ...,
    scale: jax.typing.ArrayLike | None = ...,
) -> Solution: ...
def derivatives(
    f: Callable[..., Any],
    x: _Tree,
    z: jax.typing.ArrayLike,
    v: _Tree,
    order: int,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> jax.Array: ...
def derivatives_vjp(
    f: Callable[..., Any],
    x: _Tree,
    z: jax.typing.ArrayLike,
    v: _Tree,
    U: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def diagnose(
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> str: ...
def fixed_point(
    f: Callable[..., Any],
    x: _Tree,
    z0: _Tree,
    *,
    solver: Callable[..., Solution] = ...,
    linear_solver: _LinearSolver | None = ...,
    **options: Any,
) -> Solution: ...
def gauss_newton(
    loss: Callable[[Any, Any], Any],
    f: Callable[..., Any],
    x: jax.typing.ArrayLike,
    z: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> jax.Array: ...
def hessian(
    f: Callable[..., Any],
    x: jax.typing.ArrayLike,
    z: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> jax.Array: ...
def implicit(
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def jacobian(
    f: Callable[..., Any],
    x: jax.typing.ArrayLike,
    z: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
    block: int | None = ...,
) -> jax.Array: ...
def jacobian_vjp(
    f: Callable[..., Any],
    x: jax.typing.ArrayLike,
    z: jax.typing.ArrayLike,
    C: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> jax.Array: ...
def jvp(
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    v: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def loss_gradient(
    loss: Callable[[Any, Any], Any],
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def loss_hessian(
    loss: Callable[[Any, Any], Any],
    f: Callable[..., Any],
    x: jax.typing.ArrayLike,
    z: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
    block: int | None = ...,
) -> jax.Array: ...
def loss_hvp(
    loss: Callable[[Any, Any], Any],
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    v: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def mixed_hessian(
    f: Callable[..., Any],
    t: jax.typing.ArrayLike,
    x: jax.typing.ArrayLike,
    z: jax.typing.ArrayLike,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> jax.Array: ...
def mixed_vjp(
    f: Callable[..., Any],
    t: jax.typing.ArrayLike,
    x: _Tree,
    z: _Tree,
    u: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
def newton(
    g: _Map,
    z0: jax.typing.ArrayLike,
    *,
    tol: float | None = ...,
    max_steps: int = ...,
    history: bool = ...,
    scale: jax.typing.ArrayLike | None = ...,
) -> Solution: ...
def picard(
    g: _Map,
    z0: jax.typing.ArrayLike,
    *,
    tol: float | None = ...,
    max_steps: int = ...,
    history: bool = ...,
    scale: jax.typing.ArrayLike | None = ...,
) -> Solution: ...
def vjp(
    f: Callable[..., Any],
    x: _Tree,
    z: _Tree,
    u: _Tree,
    *,
    linear_solver: _LinearSolver | None = ...,
) -> Any: ...
