"""Shared code of the kernels for TPUs and GPUs: access to one chunk, and the layout of the arrays.

Arrays are laid out [M, T, X] with M = B·H sequences, the state transposed [M, V, K], as in `chunk`.
A kernel is a pair of functions,

    forward(options, (q, k, v, g), S_0, keep) -> (o, S_T, and with `keep` entering)
    backward(options, (q, k, v, g), entering, do, dS_T) -> ((dq, dk, dv, dg), dS_0)

where `entering` are the states that enter each of N chunks [M, N, V, K], the length is a multiple
of options.size, and g is [M, T, K], [M, T, 1] or None.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from pallas_kernels import matrix_state
from pallas_kernels.gated_linear_attention.decay import Decay, decay
from pallas_kernels.matrix_state import KernelOptions

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]


def per_chunk(options: KernelOptions, x: Any, last_first: bool = False) -> pl.BlockSpec:
    """One chunk of x in a grid (M, N): of [M, T, X], or the state of a chunk in [M, N, V, K]."""
    block = (options.size, x.shape[2]) if len(x.shape) == 3 else (None, *x.shape[2:])
    chunks = x.shape[1] // options.size if len(x.shape) == 3 else x.shape[1]
    zeros = (0,) * (len(x.shape) - 2)
    return pl.BlockSpec(
        (None, *block), lambda m, n: (m, chunks - 1 - n if last_first else n, *zeros)
    )


def per_sequence(state: jax.Array) -> pl.BlockSpec:
    """The state of one sequence in [M, V, K], in a grid (M, N)."""
    return pl.BlockSpec((None, *state.shape[1:]), lambda m, n: (m, 0, 0))


def states(options: KernelOptions, x: jax.Array, state: jax.Array) -> jax.ShapeDtypeStruct:
    """A state [M, V, K] for each chunk of x [M, T, X]: [M, N, V, K]."""
    sequences, *shape = state.shape
    return jax.ShapeDtypeStruct((sequences, x.shape[1] // options.size, *shape), jnp.float32)


def read(options: KernelOptions, inputs: Inputs) -> tuple[jax.Array, jax.Array, jax.Array, Decay]:
    """Scaled q, k, v and the decays of a chunk in float32, from references to its inputs."""
    q, k, v, g = jax.tree.map(lambda ref: ref[...].astype(jnp.float32), inputs)
    return options.scale * q, k, v, decay(g)


def write_gradients(
    options: KernelOptions,
    references: Inputs,
    gradients: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None],
) -> None:
    """Writes the results of `chunk.gradients`, that of the scaled q first."""
    dq, *others = gradients
    values = jax.tree.leaves((options.scale * dq, *others))
    for ref, value in zip(jax.tree.leaves(references), values, strict=True):
        ref[...] = value.astype(ref.dtype)


def operator(
    forward: Callable[..., tuple[jax.Array, ...]],
    backward: Callable[..., tuple[Inputs, jax.Array]],
    largest_size: int,
    padded: Callable[[int], int],
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The operator of two kernels.

    Args:
      forward: see `matrix_state.differentiable`; here states are transposed.
      backward: likewise.
      largest_size: C at most, a power of two.
      padded: width -> the widths K and V that the kernels get.
    """
    run = matrix_state.differentiable(forward, backward)

    def gated_linear_attention(q, k, v, log_decay, initial_state, *, scale):
        """See `pallas_kernels.gated_linear_attention`."""
        K, V = widths = padded(k.shape[-1]), padded(v.shape[-1])
        size = min(largest_size, max(16, 1 << (k.shape[1] - 1).bit_length()))
        g = log_decay
        if g is not None and g.ndim == 3:
            g = matrix_state.fold(g[..., None], size, 1)
        elif g is not None:
            g = matrix_state.fold(g, size, K)
        o, last = run(
            matrix_state.kernel_options(q, k, v, size, scale),
            (*(matrix_state.fold(x, size, w) for x, w in ((q, K), (k, K), (v, V))), g),
            matrix_state.fold_state(initial_state, k, v, widths).mT,
        )
        return matrix_state.unfold(o, v), matrix_state.unfold_state(last.mT, k, v)

    return gated_linear_attention
