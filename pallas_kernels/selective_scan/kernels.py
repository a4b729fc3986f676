"""The two Pallas calls of the selective scan, forward and backward, whatever they compile to."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels import dispatch
from pallas_kernels.selective_scan import gradient


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Grid and blocks that cut the arrays up.

    Attributes:
      grid: (batch, width blocks, ...).
      chunks: of time, each with its border.
      blocks: of u [B, T, D] (also Δ, y), A [N, D], B [B, T, N] (also C), D [1, D], h [B, N, D],
        borders [B, chunks, N, D], and of the sums over a part only: dB [B, width blocks, T, N]
        (also dC), dA [B, N, D] as h, dD [B, 1, D].
      options: of both calls.
      scratch: shapes, of the backward call.
    """

    grid: tuple[int, ...]
    chunks: int
    blocks: Mapping[str, pl.BlockSpec]
    options: Mapping[str, Any]
    scratch: tuple[Any, ...] = ()


def operator(
    forward_kernel: Callable[..., None],
    backward_kernel: Callable[..., None],
    tiling: Callable[[jax.Array, jax.Array, bool], Tiling],
    padded: Callable[[int, int, int], tuple[int, int, int]],
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A backend of the operator.

    Args:
      forward_kernel: takes refs of u, Δ, A, B, C, D, h0; y, h_T and, where they are kept, borders.
      backward_kernel: takes refs of u, Δ, A, B, C, D, borders, dy, dh_T; the gradients of u, Δ, A,
        B, C, D, h0; the scratch.
      tiling: (u, A, from the end of time to its start?) -> how these are cut up.
      padded: see `gradient.differentiable`.
    """

    def call(kernel, name, cut, inputs, outputs, scratch=()):
        """`inputs` are (name of the block, array), `outputs` (name of the block, shape, dtype)."""
        return pl.pallas_call(
            kernel,
            out_shape=[jax.ShapeDtypeStruct(shape, dtype) for _, shape, dtype in outputs],
            grid=cut.grid,
            in_specs=[cut.blocks[block] for block, _ in inputs],
            out_specs=[cut.blocks[block] for block, *_ in outputs],
            scratch_shapes=scratch,
            interpret=dispatch.current_target().interpret,
            name=name,
            **cut.options,
        )(*(array for _, array in inputs))

    def common(u, delta, A, B, C, D):
        return [("u", u), ("u", delta), ("A", A), ("B", B), ("B", C), ("D", D[None])]

    def forward(u, delta, A, B, C, D, h0, save):
        cut = tiling(u, A, False)
        inputs = [*common(u, delta, A, B, C, D), ("h", h0)]
        outputs = [("u", u.shape, u.dtype), ("h", h0.shape, jnp.float32)]
        if save:
            outputs.append(("borders", (len(u), cut.chunks, *A.shape), jnp.float32))
        y, h_last, *borders = call(forward_kernel, "selective_scan", cut, inputs, outputs)
        return y, h_last, *borders

    def backward(u, delta, A, B, C, D, borders, dy, dh_last):
        cut = tiling(u, A, True)
        inputs = [*common(u, delta, A, B, C, D), ("borders", borders), ("u", dy), ("h", dh_last)]
        dB_shape = (*cut.grid[:2], *B.shape[1:])
        outputs = [
            ("u", u.shape, u.dtype),
            ("u", delta.shape, delta.dtype),
            ("h", dh_last.shape, jnp.float32),
            ("dB", dB_shape, jnp.float32),
            ("dB", dB_shape, jnp.float32),
            ("dD", (len(u), 1, len(D)), jnp.float32),
            ("h", dh_last.shape, jnp.float32),
        ]
        du, ddelta, dA, dB, dC, dD, dh0 = call(
            backward_kernel, "selective_scan_backward", cut, inputs, outputs, cut.scratch
        )
        return du, ddelta, dA.sum(0), dB.sum(1), dC.sum(1), dD.sum((0, 1)), dh0

    return gradient.differentiable(forward, backward, padded)
