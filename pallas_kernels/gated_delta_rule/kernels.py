"""Shared code of the kernels for TPUs and GPUs: one chunk, and the layout of the arrays.

A kernel walks through the chunks of a sequence with the state at hand, backward from the last to
the first. It keeps the state that enters each chunk for the gradient, which computes the rest
again. Letters: M = B·H sequences, N chunks of C steps.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pallas_kernels import matrix_state
from pallas_kernels.gated_delta_rule import chunk
from pallas_kernels.matrix_state import KernelOptions

# Q and K [M, N·C, K], V [M, N·C, V], β and g [M, N, 1, C]; of one chunk, the same without M and N.
Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def _prepare(options: KernelOptions, q, k, v, beta, g) -> chunk.ChunkFactors:
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    beta = matrix_state.as_column(beta)
    return chunk.prepare(options.scale * q, k, v, beta, g, options.precision)


def forward(options: KernelOptions, inputs: Inputs, S: jax.Array) -> tuple[jax.Array, jax.Array]:
    """O [C, V] and S' [K, V] of one chunk."""
    factors = _prepare(options, *inputs)
    U = chunk.corrections(factors, chunk.inverse(factors.A), S, options.precision)
    return (
        chunk.output(factors, S, U, options.precision),
        chunk.leave(factors, S, U, options.precision),
    )


def backward(
    options: KernelOptions, inputs: Inputs, S: jax.Array, dO: jax.Array, dS: jax.Array
) -> tuple[Inputs, jax.Array]:
    """The gradients of one chunk's inputs and of the state S that enters it; dS is that of S'."""
    factors, transpose = jax.vjp(functools.partial(_prepare, options), *inputs)
    inverse, dO = chunk.inverse(factors.A), dO.astype(jnp.float32)
    U = chunk.corrections(factors, inverse, S, options.precision)
    direct = chunk.direct_gradients(factors, dO, options.precision)
    dX, dS_entering = chunk.enter(factors, inverse, direct, dS, options.precision)
    return transpose(chunk.gradients(S, U, dO, dX, dS, options.precision)), dS_entering


def operator(
    run_forward: Callable[..., tuple[jax.Array, ...]],
    run_backward: Callable[..., tuple[Inputs, jax.Array]],
    size: int,
    padded: Callable[[int], int],
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The operator of two kernels.

    Args:
      run_forward: see `matrix_state.differentiable`.
      run_backward: likewise.
      size: C.
      padded: width -> the widths K and V that the kernels get.
    """
    run = matrix_state.differentiable(run_forward, run_backward)

    def gates(x):
        """[B, T, H] -> [M, N, 1, C]."""
        x = matrix_state.fold(x.astype(jnp.float32)[..., None], size, 1)
        return x.reshape(x.shape[0], -1, 1, size)

    def gated_delta_rule(q, k, v, beta, log_decay, initial_state, *, scale):
        """See `pallas_kernels.gated_delta_rule`."""
        K, V = widths = padded(k.shape[-1]), padded(v.shape[-1])
        if log_decay is None:
            log_decay = jnp.zeros(beta.shape)
        folded = (matrix_state.fold(x, size, width) for x, width in ((q, K), (k, K), (v, V)))
        o, last = run(
            matrix_state.kernel_options(q, k, v, size, scale),
            (*folded, gates(beta), gates(log_decay)),
            matrix_state.fold_state(initial_state, k, v, widths),
        )
        return matrix_state.unfold(o, v), matrix_state.unfold_state(last, k, v)

    return gated_delta_rule
