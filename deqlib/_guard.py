"""One mark for all that failed: a value that is NaN, in every derivative and mode."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_jvp
def guard(value, valid, nothing=0.0):
    """`value` where the solve succeeded, else NaN; and so are all its derivatives.

    In reverse mode zero stays zero: a failed sample that nothing uses leaves the rest of
    its batch alone (to the second derivative, but for reverse over reverse). `nothing`
    is a zero made of all that `value` may depend on: derivatives fail in these
    directions too, also where `value` is flat.
    """
    return value + failed(valid, value)


# The derivative is the identity, written as a solve: it can be transposed, zero can
# pass, and where it failed the next derivative fails too, because `nothing` moves the
# matrix. What is added to it is seen by forward mode alone.
@guard.defjvp
def _guard_rule(primals, tangents):
    value, valid, nothing = primals
    dvalue, _, dnothing = tangents
    of_value = lambda a: jnp.asarray(a).astype(value.dtype)
    scaled = lambda v: v * of_value(1 + nothing)
    keep = lambda _, b: lenient(b, b, valid)
    moved = dvalue + of_value(dnothing)
    dvalue = lax.custom_linear_solve(scaled, moved, keep, keep)
    return guard(value, valid, nothing), dvalue + failed(valid, value)


def failed(valid, like):
    """0, or NaN. No NaN is made where nothing failed."""
    # LLVM makes 0 of 0 / valid, and of 0 / 0 (llvm-project, pull 202482; jax 0.10).
    zero, nan = map(like.dtype.type, (0, jnp.nan))
    return lax.select(jnp.asarray(valid), zero, nan)


def lenient(v, b, valid):
    """v, the answer to b, where it is valid; else NaN, but zero where b is zero."""
    none = jnp.all(b == 0)
    return jnp.where(none, jnp.zeros_like(v), v) + failed(valid | none, v)


@jax.custom_jvp
def nothing(*trees):
    """0, which depends on every float in the trees: so do its derivatives, all 0."""
    # No array is read for it, but in a shard_map a number has its axes from them.
    return added_up(trees) if shards(trees) else jnp.zeros(())


def _nothing_rule(trees, changes):
    still = jax.custom_derivatives.SymbolicZero
    moving = [c for c in jax.tree.leaves(changes) if not isinstance(c, still)]
    zero = nothing(*trees)
    return zero, varied(added_up(moving), zero)


nothing.defjvp(_nothing_rule, symbolic_zeros=True)


def added_up(trees):
    """0, made of every float in the trees."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(trees)]
    floats = [a for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)]
    return sum((jnp.sum(0 * a) for a in floats), jnp.zeros(())).astype(float)


def finite(*trees):
    """Whether every number in the trees is finite."""
    leaves = jax.tree.leaves(trees)
    each = [jnp.all(jnp.isfinite(a)) for a in leaves]
    return jnp.all(jnp.stack(each)) if each else jnp.array(True)


def largest(*vectors):
    """The size of the largest entry of each, along the last axis; NaN where there is one."""
    # Read as integers, without their signs, they have the same order, with NaN at its end.
    # Of many floats, XLA on a CPU forgets that one was NaN (jax 0.10), and takes longer.
    # And |NaN| may keep its sign: on a GPU, log(-1) is below all other integers.
    # One reduction of all compiles in half the time of one reduction of each.
    dtype = jnp.result_type(*vectors)
    integer = jnp.dtype(f"int{8 * dtype.itemsize}")

    def size(v):
        bits = lax.bitcast_convert_type(jnp.asarray(v, dtype), integer)
        return bits & jnp.iinfo(integer).max

    sizes, zeros = map(size, vectors), [integer.type(0)] * len(vectors)
    both = lambda a, b: list(map(lax.max, a, b))
    found = lax.reduce(list(sizes), zeros, both, (vectors[0].ndim - 1,))
    found = [lax.bitcast_convert_type(v, dtype) for v in found]
    return found if len(found) > 1 else found[0]


def shards(*trees):
    """The axes of a shard_map along which some array of the trees differs."""
    kinds = map(jax.typeof, jax.tree.leaves(trees))
    new = [getattr(kind, "mat", kind) for kind in kinds]  # jax < 0.10: no `mat`
    axes = [getattr(k, "varying", getattr(k, "vma", ())) for k in new]
    return set().union(*axes)


def varied(a, *like):
    """a, differing between the devices of a shard_map where one of `like` does."""
    if shards(like) - shards(a):
        return a + nothing(like).astype(a.dtype)
    return a
