"""The selective state space on a CPU: blocks of rows whose state stays in the cache.

A row is one sequence of the batch. All rows of a block take a step together, and the block goes
through all of time before the next one starts. A step is too short to be worth cutting arrays up
for it: a chunk of steps is cut from [B, T, F], and its results are put back, at once.

Measured on 2 cores, float32, forward and backward, against a scan of all rows at once over arrays
with time first, in chunks of √T: 0.8 to 0.9 of the time and 0.3 of the temporary memory at B 4,
T 4096, D 512, N 16, and 0.7 of the time for nine members mapped over B 64, T 64, D 128, N 16. Half
or twice the rows of a block, or the steps of a chunk, change the time by less than a tenth.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from pallas_kernels.selective_scan import gradient

_Arrays = tuple[jax.Array, ...]

_STATE = 2**15  # numbers in the state of a block of rows: 128 KiB of a cache in float32
_STEPS = 16  # of a chunk


def _folding(run: Callable[..., _Arrays]) -> Callable[..., _Arrays]:
    """`run`, all of whose arguments and results begin with the rows: vmap makes more of them."""
    run = jax.custom_batching.custom_vmap(run)

    @run.def_vmap
    def fold(mapped: int, is_mapped, *arrays):
        arrays = (
            a if m else jnp.broadcast_to(a, (mapped, *a.shape))
            for a, m in zip(arrays, is_mapped, strict=True)
        )
        results = run(*(a.reshape(-1, *a.shape[2:]) for a in arrays))
        results = tuple(r.reshape(mapped, -1, *r.shape[1:]) for r in results)
        return results, (True,) * len(results)

    return run


def _each_block(
    h: jax.Array, chunks: int, body: Callable[..., _Arrays], results: _Arrays
) -> _Arrays:
    """Applies `body(cut, put, results)` to block after block of the rows of states h [B, N, D].

    `cut(a)` are the block's rows of [B, ...], `put(a, rows)` writes them. With an index i, they are
    those of chunk i of `chunks` of [B, T, F], as [steps, B, F]. The last block begins early enough
    to be full: rows in two blocks are computed twice, and written twice.
    """
    batch = len(h)
    blocks = -(-batch // max(1, _STATE // h[0].size))
    size = -(-batch // blocks)

    def block(i, results):
        first = jnp.minimum(i * size, batch - size)

        def cut(a, i=None):
            if i is None:
                return lax.dynamic_slice_in_dim(a, first, size)
            steps = a.shape[1] // chunks
            a = lax.dynamic_slice(a, (first, i * steps, 0), (size, steps, a.shape[2]))
            return jnp.swapaxes(a, 0, 1).astype(h.dtype)

        def put(a, rows, i=None):
            if i is None:
                return lax.dynamic_update_slice_in_dim(a, rows, first, axis=0)
            rows = jnp.swapaxes(rows, 0, 1).astype(a.dtype)
            return lax.dynamic_update_slice(a, rows, (first, i * rows.shape[1], 0))

        return body(cut, put, results)

    return lax.fori_loop(0, blocks, block, results)


def _forward(
    save: bool,
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> _Arrays:
    """The scan with parameters per row, and, to save them, the borders [B, chunks, N D]."""
    chunks = -(-u.shape[1] // _STEPS)

    def block(cut, put, results):
        y, h_last, *borders = results
        A_, D_ = cut(A), cut(D)

        def step(h, inputs):
            x_t, delta_t, B_t, C_t = inputs
            h = jnp.exp(delta_t[:, None, :] * A_) * h + B_t[..., None] * x_t[:, None, :]
            return h, jnp.sum(C_t[..., None] * h, axis=1)

        def chunk(i, carry):
            h, y, *borders = carry
            borders = [put(b, h.reshape(1, len(h), -1), i) for b in borders]
            u_c, delta_c, B_c, C_c = (cut(a, i) for a in (u, delta, B, C))
            h, y_c = lax.scan(step, h, (delta_c * u_c, delta_c, B_c, C_c))
            return h, put(y, y_c + D_ * u_c, i), *borders

        h, y, *borders = lax.fori_loop(0, chunks, chunk, (cut(h0), y, *borders))
        return y, put(h_last, h), *borders

    borders = [jnp.zeros((len(u), chunks, h0[0].size), h0.dtype)] * save
    return _each_block(h0, chunks, block, (jnp.zeros_like(u), jnp.zeros_like(h0), *borders))


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
) -> _Arrays:
    """`gradient`, chunk by chunk from the last to the first, with parameters per row."""
    chunks = borders.shape[1]

    def block(cut, put, results):
        *of_steps, dA, dD, dh0 = results
        A_, D_ = cut(A), cut(D)

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
            return (decay * g, dA), (dx, jnp.sum(s * A_, axis=1), dB)

        def chunk(i, carry):
            dh, dA, dD, *of_steps = carry
            i = chunks - 1 - i
            u_c, delta_c, B_c, C_c, dy_c = (cut(a, i) for a in (u, delta, B, C, dy))
            x_c = delta_c * u_c
            # The barrier keeps XLA from computing the exponentials twice, one step at a time.
            decay = lax.optimization_barrier(jnp.exp(delta_c[:, :, None, :] * A_))
            border = cut(borders, i)[0].reshape(A_.shape)
            _, (kept, dC) = lax.scan(again, border, (decay, x_c, B_c, dy_c))
            (dh, dA), (dx, ddelta, dB) = lax.scan(
                back, (dh, dA), (decay, kept, x_c, delta_c, B_c, C_c, dy_c), reverse=True
            )
            values = (delta_c * dx + D_ * dy_c, u_c * dx + ddelta, dB, dC)
            of_steps = (put(g, v, i) for g, v in zip(of_steps, values, strict=True))
            return dh, dA, dD + jnp.sum(dy_c * u_c, axis=0), *of_steps

        start = (cut(dh_last), jnp.zeros_like(A_), jnp.zeros_like(D_), *of_steps)
        dh, *of_row, du, ddelta, dB, dC = lax.fori_loop(0, chunks, chunk, start)
        of_row = (put(a, v) for a, v in zip((dA, dD, dh0), (*of_row, dh), strict=True))
        return du, ddelta, dB, dC, *of_row

    zeros = tuple(jnp.zeros_like(a) for a in (u, delta, B, C, A, D, dh_last))
    return _each_block(dh_last, chunks, block, zeros)


def _per_row(parameter: jax.Array, batch: int) -> jax.Array:
    return jnp.broadcast_to(parameter, (batch, *parameter.shape))


def _scan(u, delta, A, B, C, D, h0, save):
    A, D = _per_row(A, len(u)), _per_row(D, len(u))
    return _folding(functools.partial(_forward, save))(u, delta, A, B, C, D, h0)


def _gradients(u, delta, A, B, C, D, *others):
    A, D = _per_row(A, len(u)), _per_row(D, len(u))
    du, ddelta, dB, dC, dA, dD, dh0 = _folding(_backward)(u, delta, A, B, C, D, *others)
    return du, ddelta, dA.sum(0), dB, dC, dD.sum(0), dh0


def _padded(length: int, width: int, size: int) -> tuple[int, int, int]:
    """Whole chunks."""
    steps = min(_STEPS, length)
    return -(-length // steps) * steps, width, size


selective_scan = gradient.differentiable(_scan, _gradients, _padded)
