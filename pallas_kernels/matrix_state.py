"""Shared code of the operators with a matrix state, computed in chunks by matrix products.

Gated linear attention and the gated delta rule keep a state S [K, V] for every head and write
k_tᵀ v_t into it. Letters: B batch, T time, H heads, K key width, V value width; M = B·H sequences,
N chunks of C steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch

# In place of a log-decay of −∞, which would make NaN of 0 · −∞ under a mask. Log-decays are at most
# 0, so that every sum with it in it is at most −1e3, and exp of that is 0 even in float64, whose
# least number is exp(−745.1). More would only make the sums of a chunk larger than need be.
LOG_ZERO = -1e3


def dot(
    a: jax.Array,
    b: jax.Array,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
    *,
    transpose: str = "",
) -> jax.Array:
    """The products a b of matrices [..., i, j], which have their leading axes in common.

    Args:
      a: the left factors.
      b: the right factors.
      precision: of the products.
      transpose: "a" for aᵀ b, "b" for a bᵀ.
    """
    inner_a = a.ndim - 2 if transpose == "a" else a.ndim - 1
    inner_b = b.ndim - 1 if transpose == "b" else b.ndim - 2
    batch = tuple(range(a.ndim - 2))
    dimensions = (((inner_a,), (inner_b,)), (batch, batch))
    return jax.lax.dot_general(a, b, dimensions, precision=precision)


def indices(rows: int, columns: int) -> tuple[jax.Array, jax.Array]:
    """The row i and the column j of every entry of a matrix."""
    shape = (rows, columns)
    return tuple(jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))


def as_row(column: jax.Array) -> jax.Array:
    """[X, 1] -> [1, X], without a transposition, which not every kernel compiler has."""
    i, j = indices(column.shape[0], column.shape[0])
    return jnp.sum(jnp.where(i == j, column, 0), axis=0, keepdims=True)


def as_column(row: jax.Array) -> jax.Array:
    """[1, X] -> [X, 1]; see `as_row`."""
    i, j = indices(row.shape[1], row.shape[1])
    return jnp.sum(jnp.where(i == j, row, 0), axis=1, keepdims=True)


def each_chunk(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of one chunk, mapped over G chunks of M sequences.

    The two become one axis: products with few axes are faster.

    Args:
      function: takes and returns pytrees of arrays.
      *trees: its arguments, with leading axes [G, M].

    Returns:
      Its results, with leading axes [G, M].
    """
    shape = jax.tree.leaves(trees)[0].shape[:2]
    results = jax.vmap(function)(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trees))
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), results)


class KernelOptions(NamedTuple):
    """Constants of a Pallas kernel.

    Attributes:
      size: C, the steps in a chunk.
      scale: of the queries.
      precision: of the products.
      interpret: run in Pallas' interpreter.
    """

    size: int
    scale: float
    precision: jax.lax.Precision
    interpret: bool


def kernel_options(
    q: jax.Array, k: jax.Array, v: jax.Array, size: int, scale: float
) -> KernelOptions:
    """The options of a kernel on chunks of `size` steps."""
    interpret = dispatch.current_target().interpret
    return KernelOptions(size, scale, dispatch.matmul_precision(q, k, v), interpret)


def differentiable(
    forward: Callable[..., tuple[jax.Array, ...]],
    backward: Callable[..., tuple[Any, jax.Array]],
) -> Callable[[KernelOptions, Any, jax.Array], tuple[jax.Array, jax.Array]]:
    """A function of two kernels with a gradient, which keeps the states that enter the chunks.

    Args:
      forward: (options, inputs, S_0 [M, K, V], keep) -> (o [M, N·C, V], S_T [M, K, V], and with
        `keep` the states that enter the chunks [M, N, K, V]).
      backward: (options, inputs, these states, do, dS_T) -> (gradients of inputs, dS_0).

    Returns:
      (options, inputs, S_0) -> (o, S_T).
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(options, inputs, state):
        o, last, *_ = forward(options, inputs, state, keep=False)
        return o, last

    def run_forward(options, inputs, state):
        o, last, entering = forward(options, inputs, state, keep=True)
        return (o, last), (inputs, entering)

    def run_backward(options, residuals, cotangents):
        return backward(options, *residuals, *cotangents)

    run.defvjp(run_forward, run_backward)
    return run


def fold(x: jax.Array, size: int, width: int) -> jax.Array:
    """[B, T, H, X] -> [M, N·C, width]. Zeros as padding keep the state: k = 0, g = 0, β = 0."""
    padding = ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, width - x.shape[-1]))
    x = jnp.moveaxis(jnp.pad(x, padding), 2, 1)
    return x.reshape(-1, *x.shape[2:])


def unfold(x: jax.Array, like: jax.Array) -> jax.Array:
    """[M, N·C, width] -> [B, T, H, X], the shape of `like`: the inverse of `fold`."""
    batch, length, heads, width = like.shape
    x = jnp.moveaxis(x.reshape(batch, heads, *x.shape[1:]), 1, 2)
    return x[:, :length, :, :width]


def fold_state(
    state: jax.Array | None, k: jax.Array, v: jax.Array, widths: tuple[int, int]
) -> jax.Array:
    """S_0 [B, H, K, V], or None for zeros, -> [M, *widths] in float32, padded with zeros."""
    batch, _, heads, key_width = k.shape
    shape = (key_width, v.shape[-1])
    state = jnp.zeros((batch, heads, *shape)) if state is None else state.astype(jnp.float32)
    padding = [(0, wide - narrow) for wide, narrow in zip(widths, shape, strict=True)]
    return jnp.pad(state, [(0, 0), (0, 0), *padding]).reshape(-1, *widths)


def unfold_state(state: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """[M, ...] -> S_T [B, H, K, V]: the inverse of `fold_state`."""
    batch, _, heads, key_width = k.shape
    state = state.reshape(batch, heads, *state.shape[1:])
    return state[..., :key_width, : v.shape[-1]]
