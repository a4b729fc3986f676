"""The selective scan on a GPU, by Pallas' Triton lowering: a warp walks some columns through time.

A program has 16 columns of one sequence and holds their state [N, 16] in registers, 8 numbers of it
in each thread; what it loads for a chunk of steps does not wait for the recurrence. Triton has no
memory of its own for the states that the backward kernel computes again, so that a chunk is short
enough to hold them in registers too: 16 steps, whose borders take as much memory as u for N = 16.

The sizes are unmeasured.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from pallas_kernels.selective_scan import kernels
from pallas_kernels.selective_scan import step as steps

_STEPS = 16  # of a chunk
_WIDTH = 16  # columns of a program


def _padded(length: int, width: int, size: int) -> tuple[int, int, int]:
    """Whole chunks of whole programs; Triton's arrays have powers of two for sizes."""
    return (
        pl.cdiv(length, _STEPS) * _STEPS,
        pl.cdiv(width, _WIDTH) * _WIDTH,
        pl.next_power_of_2(size),
    )


def _chunk(first: jax.Array, rows: tuple, columns: tuple) -> list[tuple[jax.Array, ...]]:
    """(u, Δ, B, C, ...) of the steps of a chunk, loaded together."""

    def step(t):
        u, delta, *others = (ref[pl.ds(t, 1), :].astype(jnp.float32) for ref in rows)
        B, C = (ref[t, :].astype(jnp.float32)[:, None] for ref in columns)
        return u, delta, B, C, *others

    return [step(first + s) for s in range(_STEPS)]


def _forward_kernel(
    u_ref, delta_ref, A_ref, B_ref, C_ref, D_ref, h0_ref, y_ref, h_ref, *border_refs
):
    A, D = A_ref[...], D_ref[...]

    def chunk(i, h):
        for ref in border_refs:
            ref[i] = h
        first = i * _STEPS
        y = [None] * _STEPS
        for s, inputs in enumerate(_chunk(first, (u_ref, delta_ref), (B_ref, C_ref))):
            h, y[s] = steps.forward(h, A, D, *inputs)
        for s in range(_STEPS):
            y_ref[pl.ds(first + s, 1), :] = y[s].astype(y_ref.dtype)
        return h

    h_ref[...] = jax.lax.fori_loop(0, y_ref.shape[0] // _STEPS, chunk, h0_ref[...])


def _backward_kernel(*refs):
    u_ref, delta_ref, A_ref, B_ref, C_ref, D_ref, borders_ref, dy_ref, dh_last_ref = refs[:9]
    du_ref, ddelta_ref, dA_ref, dB_ref, dC_ref, dD_ref, dh0_ref = refs[9:]
    A, D = A_ref[...], D_ref[...]
    chunks = u_ref.shape[0] // _STEPS

    def chunk(i, carry):
        dh, dA, dD = carry
        i = chunks - 1 - i
        first = i * _STEPS
        inputs = _chunk(first, (u_ref, delta_ref, dy_ref), (B_ref, C_ref))
        h = [borders_ref[i]]
        for *inputs_t, _ in inputs[:-1]:
            h.append(steps.forward(h[-1], A, D, *inputs_t)[0])
        for s in reversed(range(_STEPS)):
            dh, (du, ddelta, dB, dC), more = steps.backward(dh, h[s], A, D, *inputs[s])
            dA, dD = dA + more[0], dD + more[1]
            du_ref[pl.ds(first + s, 1), :] = du.astype(du_ref.dtype)
            ddelta_ref[pl.ds(first + s, 1), :] = ddelta.astype(ddelta_ref.dtype)
            dB_ref[first + s, :] = dB.reshape(-1)
            dC_ref[first + s, :] = dC.reshape(-1)
        return dh, dA, dD

    start = dh_last_ref[...], jnp.zeros_like(A), jnp.zeros_like(D)
    dh0_ref[...], dA_ref[...], dD_ref[...] = jax.lax.fori_loop(0, chunks, chunk, start)


def _tiling(u: jax.Array, A: jax.Array, reverse: bool) -> kernels.Tiling:
    """Of time, a program has all."""
    del reverse
    (batch, length, width), size = u.shape, len(A)
    chunks = length // _STEPS
    # More warps for more than 16 numbers per column. The loads of a chunk are pipeline enough.
    warps = min(8, pl.cdiv(size, 16))
    return kernels.Tiling(
        grid=(batch, width // _WIDTH),
        chunks=chunks,
        blocks={
            "u": pl.BlockSpec((None, length, _WIDTH), lambda b, d: (b, 0, d)),
            "A": pl.BlockSpec((size, _WIDTH), lambda b, d: (0, d)),
            "B": pl.BlockSpec((None, length, size), lambda b, d: (b, 0, 0)),
            "D": pl.BlockSpec((1, _WIDTH), lambda b, d: (0, d)),
            "h": pl.BlockSpec((None, size, _WIDTH), lambda b, d: (b, 0, d)),
            "borders": pl.BlockSpec((None, chunks, size, _WIDTH), lambda b, d: (b, 0, 0, d)),
            "dB": pl.BlockSpec((None, None, length, size), lambda b, d: (b, d, 0, 0)),
            "dD": pl.BlockSpec((None, 1, _WIDTH), lambda b, d: (b, 0, d)),
        },
        options={"compiler_params": plgpu.CompilerParams(num_warps=warps, num_stages=1)},
    )


selective_scan = kernels.operator(_forward_kernel, _backward_kernel, _tiling, _padded)
