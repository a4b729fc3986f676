"""The selective scan on a TPU: blocks of time in sequence, the state in VMEM between them.

The grid is (batch, width blocks, time blocks). D lies along the lanes and N along the sublanes: for
N = 16 a state of 512 columns is eight vector registers, which hide the latency of the recurrence.
A time block is a chunk of `gradient`, whose states the backward kernel holds in VMEM.

The sizes are unmeasured.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from pallas_kernels.selective_scan import kernels
from pallas_kernels.selective_scan import step as steps

_TILE = 16  # steps of a vector register of bfloat16: a single row of one cannot be read
_STEPS = 64  # of a time block
_WIDTHS = (512, 256, 128)  # of a width block, which is a divisor of D
_STATE = 8192  # numbers in the state of a width block; with _STEPS of them in VMEM, 2 MiB


def _padded(length: int, width: int, size: int) -> tuple[int, int, int]:
    """Whole time blocks of whole tiles, and whole lanes."""
    steps = min(_STEPS, pl.cdiv(length, _TILE) * _TILE)
    return pl.cdiv(length, steps) * steps, pl.cdiv(width, 128) * 128, size


def _flip(a: jax.Array, axis: int) -> jax.Array:
    """The column [N, 1] of a row [1, N] (axis 1), or the row of a column (axis 0).

    Lanes become sublanes by way of a diagonal [N, N], of which every sum has one term.
    """
    size = max(a.shape)
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), i) for i in (0, 1))
    return jnp.sum(jnp.where(row == column, a, 0.0), axis=axis, keepdims=True)


def _tile(i: jax.Array, refs: tuple) -> tuple:
    """Place of tile i in a time block, and the steps (u, Δ, B, C, ...) that `refs` have there."""
    here = pl.ds(pl.multiple_of(i * _TILE, _TILE), _TILE)
    tiles = [ref[here, :].astype(jnp.float32) for ref in refs]

    def step(t):
        u, delta, B, C, *others = (tile[t : t + 1] for tile in tiles)
        return u, delta, _flip(B, 1), _flip(C, 1), *others

    return here, [step(t) for t in range(_TILE)]


def _forward_kernel(
    u_ref, delta_ref, A_ref, B_ref, C_ref, D_ref, h0_ref, y_ref, h_ref, *border_refs
):
    """`h_ref`, the last state, stays in VMEM while its block's time goes by."""

    @pl.when(pl.program_id(2) == 0)
    def _():
        h_ref[...] = h0_ref[...]

    for ref in border_refs:
        ref[...] = h_ref[...]
    A, D = A_ref[...], D_ref[...]

    def tile(i, h):
        here, inputs = _tile(i, (u_ref, delta_ref, B_ref, C_ref))
        y = [None] * _TILE
        for t in range(_TILE):
            h, y[t] = steps.forward(h, A, D, *inputs[t])
        y_ref[here, :] = jnp.concatenate(y).astype(y_ref.dtype)
        return h

    h_ref[...] = jax.lax.fori_loop(0, y_ref.shape[0] // _TILE, tile, h_ref[...])


def _backward_kernel(*refs):
    """`dh_ref`, `dA_ref` and `dD_ref` gather while time goes by, from the end to the start."""
    *inputs, dy_ref, dh_last_ref = refs[:9]
    u_ref, delta_ref, A_ref, B_ref, C_ref, D_ref, border_ref = inputs
    du_ref, ddelta_ref, dA_ref, dB_ref, dC_ref, dD_ref, dh_ref, h_ref = refs[9:]

    @pl.when(pl.program_id(2) == 0)
    def _():
        dh_ref[...] = dh_last_ref[...]
        dA_ref[...] = jnp.zeros_like(dA_ref)
        dD_ref[...] = jnp.zeros_like(dD_ref)

    A, D = A_ref[...], D_ref[...]
    tiles = u_ref.shape[0] // _TILE

    def again(i, h):
        _, inputs = _tile(i, (u_ref, delta_ref, B_ref, C_ref))
        for t in range(_TILE):
            h_ref[i * _TILE + t] = h
            h, _ = steps.forward(h, A, D, *inputs[t])
        return h

    def back(i, carry):
        dh, dA, dD = carry
        i = tiles - 1 - i
        here, inputs = _tile(i, (u_ref, delta_ref, B_ref, C_ref, dy_ref))
        rows = [None] * _TILE
        for t in reversed(range(_TILE)):
            h = h_ref[i * _TILE + t]
            dh, (du, ddelta, dB, dC), more = steps.backward(dh, h, A, D, *inputs[t])
            dA, dD = dA + more[0], dD + more[1]
            rows[t] = du, ddelta, _flip(dB, 0), _flip(dC, 0)
        for ref, of_steps in zip(
            (du_ref, ddelta_ref, dB_ref, dC_ref), zip(*rows, strict=True), strict=True
        ):
            ref[here, :] = jnp.concatenate(of_steps).astype(ref.dtype)
        return dh, dA, dD

    jax.lax.fori_loop(0, tiles, again, border_ref[...])
    dh_ref[...], dA_ref[...], dD_ref[...] = jax.lax.fori_loop(
        0, tiles, back, (dh_ref[...], dA_ref[...], dD_ref[...])
    )


def _tiling(u: jax.Array, A: jax.Array, reverse: bool) -> kernels.Tiling:
    (batch, length, width), size = u.shape, len(A)
    steps = min(_STEPS, length)
    lanes = next(w for w in _WIDTHS if width % w == 0 and (size * w <= _STATE or w == 128))
    chunks = length // steps

    def time(t):
        return chunks - 1 - t if reverse else t

    return kernels.Tiling(
        grid=(batch, width // lanes, chunks),
        chunks=chunks,
        blocks={
            "u": pl.BlockSpec((None, steps, lanes), lambda b, d, t: (b, time(t), d)),
            "A": pl.BlockSpec((size, lanes), lambda b, d, t: (0, d)),
            "B": pl.BlockSpec((None, steps, size), lambda b, d, t: (b, time(t), 0)),
            "D": pl.BlockSpec((1, lanes), lambda b, d, t: (0, d)),
            "h": pl.BlockSpec((None, size, lanes), lambda b, d, t: (b, 0, d)),
            "borders": pl.BlockSpec((None, None, size, lanes), lambda b, d, t: (b, time(t), 0, d)),
            "dB": pl.BlockSpec((None, None, steps, size), lambda b, d, t: (b, d, time(t), 0)),
            "dD": pl.BlockSpec((None, 1, lanes), lambda b, d, t: (b, 0, d)),
        },
        options={
            "compiler_params": pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary")
            )
        },
        scratch=(pltpu.VMEM((steps, size, lanes), jnp.float32),),
    )


selective_scan = kernels.operator(_forward_kernel, _backward_kernel, _tiling, _padded)
