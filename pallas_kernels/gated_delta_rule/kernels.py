"""What the kernels for TPUs and GPUs share: one chunk as they compute it, and what goes around.

A kernel walks through the chunks of a sequence with the state at hand, backward from the last to
the first. It keeps the state that enters each chunk for the gradient, which computes the rest
again. Letters: M = B·H sequences, N chunks of C steps.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.gated_delta_rule import chunk

# Q and K [M, N·C, K], V [M, N·C, V], β and g [M, N, 1, C]; of one chunk, the same without M and N.
Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


class Options(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
      scale: of the queries.
      precision: of the products.
    """

    scale: float
    precision: jax.lax.Precision


def _prepare(options: Options, q, k, v, beta, g) -> chunk.Parts:
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    i, j = chunk.indices(k.shape[0])
    column = jnp.sum(jnp.where(i == j, beta, 0), axis=1, keepdims=True)  # no transposition needed
    return chunk.prepare(options.scale * q, k, v, column, g, options.precision)


def forward(options: Options, inputs: Inputs, S: jax.Array) -> tuple[jax.Array, jax.Array]:
    """O [C, V] and S' [K, V] of one chunk."""
    parts = _prepare(options, *inputs)
    U = chunk.corrections(parts, chunk.inverse(parts.A), S, options.precision)
    return (
        chunk.output(parts, S, U, options.precision),
        chunk.leave(parts, S, U, options.precision),
    )


def backward(
    options: Options, inputs: Inputs, S: jax.Array, dO: jax.Array, dS: jax.Array
) -> tuple[Inputs, jax.Array]:
    """The gradients of one chunk's inputs and of the state S that enters it; dS is that of S'."""
    parts, transpose = jax.vjp(functools.partial(_prepare, options), *inputs)
    inverse, dO = chunk.inverse(parts.A), dO.astype(jnp.float32)
    U = chunk.corrections(parts, inverse, S, options.precision)
    direct = chunk.direct_gradients(parts, dO, options.precision)
    dX, dS_entering = chunk.enter(parts, inverse, direct, dS, options.precision)
    return transpose(chunk.gradients(S, U, dO, dX, dS, options.precision)), dS_entering


def operator(
    run_forward: Callable[..., tuple[jax.Array, ...]],
    run_backward: Callable[..., tuple[Inputs, jax.Array]],
    size: int,
    padded: Callable[[int], int],
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The operator of two kernels.

    Args:
      run_forward: (options, inputs, S_0 [M, K, V], keep) -> (O [M, N·C, V], S_T [M, K, V], and with
        `keep` the states that enter the chunks [M, N, K, V]).
      run_backward: (options, inputs, these states, dO, dS_T) -> (gradients of inputs, dS_0).
      size: C.
      padded: width -> the widths K and V that the kernels get.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(options, inputs, state):
        return run_forward(options, inputs, state, keep=False)

    def keeping(options, inputs, state):
        o, last, entering = run_forward(options, inputs, state, keep=True)
        return (o, last), (inputs, entering)

    run.defvjp(keeping, lambda options, kept, gradients: run_backward(options, *kept, *gradients))

    def sequences(x, width):
        """[B, T, H, X] -> [M, N·C, width]. Zeros as padding keep the state."""
        wider = width - x.shape[-1]
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), (0, 0), (0, wider)))
        return jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], width)

    def gates(x):
        """[B, T, H] -> [M, N, 1, C]."""
        x = sequences(x.astype(jnp.float32)[..., None], 1)
        return x.reshape(x.shape[0], -1, 1, size)

    def gated_delta_rule(q, k, v, beta, log_decay, initial_state, *, scale):
        """See `pallas_kernels.gated_delta_rule`."""
        batch, length, heads, key_width = q.shape
        value_width = v.shape[-1]
        K, V = padded(key_width), padded(value_width)
        if log_decay is None:
            log_decay = jnp.zeros(beta.shape)
        if initial_state is None:
            initial_state = jnp.zeros((batch, heads, key_width, value_width))
        wider = [(0, 0), (0, 0), (0, K - key_width), (0, V - value_width)]
        state = jnp.pad(initial_state.astype(jnp.float32), wider)
        o, last = run(
            Options(scale, dispatch.matmul_precision(q, k, v)),
            (sequences(q, K), sequences(k, K), sequences(v, V), gates(beta), gates(log_decay)),
            state.reshape(-1, K, V),
        )
        o = jnp.moveaxis(o.reshape(batch, heads, -1, V), 1, 2)
        last = last.reshape(state.shape)
        return o[:, :length, :, :value_width], last[:, :, :key_width, :value_width]

    return gated_delta_rule
