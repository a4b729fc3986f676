"""The selective state space on a CPU: blocks of rows whose state stays in the cache.

A row is one sequence of the batch. All rows of a block take a step together, and the block goes
through all of time before the next one starts. A step is too short to be worth cutting arrays up
for it, so that a chunk of steps is cut from [B, T, F], and its results are put back, at once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.selective_scan import gradient

Arrays = tuple[jax.Array, ...]

_STATE = 2**15  # numbers in the state of a block of rows: 128 KiB of a cache in float32
_STEPS = 16  # of a chunk


def _by_rows(run: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """`run` of the rows of its arguments, block by block.

    All arguments and results have the rows as their first axis, so that an axis mapped by vmap can
    become part of it. The last argument is a state.
    """

    @jax.custom_batching.custom_vmap
    def by_rows(*arrays: jax.Array) -> Arrays:
        batch, state = arrays[0].shape[0], arrays[-1][0].size
        blocks = -(-batch // max(1, _STATE // state))
        size = -(-batch // blocks)

        def cut(a: jax.Array) -> jax.Array:
            a = jnp.pad(a, ((0, blocks * size - batch), *((0, 0),) * (a.ndim - 1)))
            return a.reshape(blocks, size, *a.shape[1:])

        results = lax.map(lambda block: run(*block), tuple(map(cut, arrays)))
        return tuple(r.reshape(-1, *r.shape[2:])[:batch] for r in results)

    @by_rows.def_vmap
    def fold(mapped: int, is_mapped, *arrays):
        arrays = (
            a if m else jnp.broadcast_to(a, (mapped, *a.shape))
            for a, m in zip(arrays, is_mapped, strict=True)
        )
        results = by_rows(*(a.reshape(-1, *a.shape[2:]) for a in arrays))
        results = tuple(r.reshape(mapped, -1, *r.shape[1:]) for r in results)
        return results, (True,) * len(results)

    return by_rows


def _cut(a: jax.Array, chunk: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """A chunk of [B, T, F] as [steps, B, F]."""
    steps = min(_STEPS, a.shape[1])
    a = lax.dynamic_slice_in_dim(a, chunk * steps, steps, axis=1)
    return jnp.swapaxes(a, 0, 1).astype(dtype)


def _put(a: jax.Array, value: jax.Array, chunk: jax.Array) -> jax.Array:
    """Writes [steps, B, F] to where `_cut` takes it from."""
    value = jnp.swapaxes(value, 0, 1).astype(a.dtype)
    return lax.dynamic_update_slice_in_dim(a, value, chunk * value.shape[1], axis=1)


@_by_rows
def _forward(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The scan with parameters per row, and the borders [B, chunks, N, D]."""

    def step(h, inputs):
        x_t, delta_t, B_t, C_t = inputs
        h = jnp.exp(delta_t[:, None, :] * A) * h + B_t[..., None] * x_t[:, None, :]
        return h, jnp.sum(C_t[..., None] * h, axis=1)

    def chunk(i, carry):
        h, y, borders = carry
        borders = lax.dynamic_update_slice_in_dim(borders, h[:, None], i, axis=1)
        u_c, delta_c, B_c, C_c = (_cut(a, i, h.dtype) for a in (u, delta, B, C))
        h, y_c = lax.scan(step, h, (delta_c * u_c, delta_c, B_c, C_c))
        return h, _put(y, y_c + D * u_c, i), borders

    batch, length, _ = u.shape
    chunks = -(-length // _STEPS)
    borders = jnp.zeros((batch, chunks, *h0.shape[1:]), h0.dtype)
    h_last, y, borders = lax.fori_loop(0, chunks, chunk, (h0, jnp.zeros_like(u), borders))
    return y, h_last, borders


@_by_rows
def _backward(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    borders: jax.Array,
    dy: jax.Array,
    dh_last: jax.Array,
) -> Arrays:
    """`gradient`, chunk by chunk from the last to the first, with parameters per row."""
    dtype = A.dtype

    def again(h, inputs):
        decay, x_t, B_t, dy_t = inputs
        kept = decay * h
        h = kept + B_t[..., None] * x_t[:, None, :]
        return h, (kept, jnp.einsum("bnd,bd->bn", h, dy_t))

    def back(carry, inputs):
        dh, dA = carry  # dh: what reaches h_t through h_{t+1}
        decay, kept, x_t, delta_t, B_t, C_t, dy_t = inputs
        g = dh + C_t[..., None] * dy_t[:, None, :]
        s = g * kept
        dx = jnp.sum(B_t[..., None] * g, axis=1)
        dB = jnp.einsum("bnd,bd->bn", g, x_t)
        dA = dA + s * delta_t[:, None, :]
        return (decay * g, dA), (dx, jnp.sum(s * A, axis=1), dB)

    def chunk(i, carry):
        dh, dA, dD, *gradients = carry
        i = chunks - 1 - i
        u_c, delta_c, B_c, C_c, dy_c = (_cut(a, i, dtype) for a in (u, delta, B, C, dy))
        x_c = delta_c * u_c
        # The barrier keeps XLA from computing the exponentials twice, one step at a time.
        decay = lax.optimization_barrier(jnp.exp(delta_c[:, :, None, :] * A))
        border = lax.dynamic_index_in_dim(borders, i, axis=1, keepdims=False)
        _, (kept, dC) = lax.scan(again, border, (decay, x_c, B_c, dy_c))
        (dh, dA), (dx, ddelta, dB) = lax.scan(
            back, (dh, dA), (decay, kept, x_c, delta_c, B_c, C_c, dy_c), reverse=True
        )
        values = (delta_c * dx + D * dy_c, u_c * dx + ddelta, dB, dC)
        gradients = (_put(g, v, i) for g, v in zip(gradients, values, strict=True))
        return dh, dA, dD + jnp.sum(dy_c * u_c, axis=0), *gradients

    chunks = borders.shape[1]
    zeros = (jnp.zeros_like(a) for a in (A, D, u, delta, B, C))
    dh0, dA, dD, du, ddelta, dB, dC = lax.fori_loop(0, chunks, chunk, (dh_last, *zeros))
    return du, ddelta, dA, dB, dC, dD, dh0


def _per_row(parameter: jax.Array, batch: int) -> jax.Array:
    return jnp.broadcast_to(parameter, (batch, *parameter.shape))


def _scan(u, delta, A, B, C, D, h0, save):
    del save  # XLA drops the borders where nothing uses them
    return _forward(u, delta, _per_row(A, len(u)), B, C, _per_row(D, len(u)), h0)


def _gradients(u, delta, A, B, C, D, borders, dy, dh_last):
    A, D = _per_row(A, len(u)), _per_row(D, len(u))
    du, ddelta, dA, dB, dC, dD, dh0 = _backward(u, delta, A, B, C, D, borders, dy, dh_last)
    return du, ddelta, dA.sum(0), dB, dC, dD.sum(0), dh0


def _padded(length: int, width: int, size: int) -> tuple[int, int, int]:
    """Whole chunks."""
    steps = min(_STEPS, length)
    return -(-length // steps) * steps, width, size


selective_scan = gradient.differentiable(_scan, _gradients, _padded)
