"""The gated delta rule in chunks: matrix products inside a chunk, a recurrence between chunks.

The gradient keeps the inputs and the state that enters each chunk, and computes the rest of a chunk
again; `chunk` has the equations. Chunks are taken in groups: what does not depend on the state is
computed for a whole group at once, then the recurrence runs through the group. Letters: M = B·H
sequences, C steps in a chunk, G chunks in a group.
"""

import functools

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.gated_delta_rule import chunk
from pallas_kernels.matrix_state import each_chunk

# Q, K, V, β and g (or None) of many chunks, as `chunk.prepare` takes them for one.
_Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]


def _sizes(length: int) -> tuple[int, int]:
    """The steps in a chunk and the chunks in a group.

    On a CPU, small products of one chunk at a time stay in the cache. Measured on 2 cores at
    B 4, T 2048, H 4, K = V = 64, forward and backward: chunks of 16 steps 170 ms and 73 MiB, of 32
    steps 160 ms and 57 MiB, of 64 steps 209 ms. An accelerator needs all the parallel work there
    is, and few steps in sequence.
    """
    if dispatch.current_target().platform == "cpu":
        return min(32, length), 1
    size = min(64, length)
    return size, -(-length // size)


def gated_delta_rule(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    beta: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.gated_delta_rule`."""
    dtype = dispatch.arithmetic_dtype(q, k, v, beta, log_decay, initial_state)
    batch, length, heads, key_width = q.shape
    size, group = _sizes(length)

    def chunks(x: jax.Array) -> jax.Array:
        """[B, T, H, X] -> [groups, G, M, C, X]. Zeros as padding keep the state."""
        x = jnp.pad(x.astype(dtype), ((0, 0), (0, -length % (size * group)), (0, 0), (0, 0)))
        x = x.reshape(batch, -1, group, size, heads, x.shape[-1])
        x = jnp.transpose(x, (1, 2, 0, 4, 3, 5))
        return x.reshape(*x.shape[:2], batch * heads, size, x.shape[-1])

    if log_decay is not None:
        log_decay = chunks(log_decay[..., None]).mT
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, key_width, v.shape[-1]), dtype)
    state = initial_state.astype(dtype)
    o, last = _run(
        dispatch.matmul_precision(q, k, v),
        (chunks(scale * q.astype(dtype)), chunks(k), chunks(v), chunks(beta[..., None]), log_decay),
        state.reshape(-1, *state.shape[2:]),
    )
    o = o.reshape(-1, batch, heads, size, v.shape[-1])
    o = jnp.transpose(o, (1, 0, 3, 2, 4)).reshape(batch, -1, heads, v.shape[-1])
    return o[:, :length].astype(q.dtype), last.reshape(state.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    precision: jax.lax.Precision, inputs: _Inputs, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """All chunks in order.

    Args:
      precision: of the products.
      inputs: [groups, G, M, ...].
      state: [M, K, V].

    Returns:
      (o [groups, G, M, C, V], the last state [M, K, V]).
    """
    return _run_forward(precision, inputs, state)[0]


def _prepare(precision: jax.lax.Precision, inputs: _Inputs) -> chunk.ChunkFactors:
    return each_chunk(functools.partial(chunk.prepare, precision=precision), *inputs)


def _inverse(factors: chunk.ChunkFactors) -> jax.Array:
    return each_chunk(chunk.inverse, factors.A)


def _run_forward(precision, inputs, state):
    def chunk_step(S, prepared):
        factors, T = prepared
        U = chunk.corrections(factors, T, S, precision)
        return chunk.leave(factors, S, U, precision), (S, U)

    def group_step(S, group):
        factors = _prepare(precision, group)
        S, (entering, U) = jax.lax.scan(chunk_step, S, (factors, _inverse(factors)))
        return S, (chunk.output(factors, entering, U, precision), entering)

    last, (o, entering) = jax.lax.scan(group_step, state, inputs)
    return (o, last), (inputs, entering)


def _run_backward(precision, residuals, cotangents):
    inputs, entering = residuals
    do, dlast = cotangents

    def chunk_step(dS, prepared):
        factors, T, direct = prepared
        dX, dS_entering = chunk.enter(factors, T, direct, dS, precision)
        return dS_entering, (dX, dS)

    def group_step(dS, group):
        group_inputs, S, do = group
        factors, transpose = jax.vjp(functools.partial(_prepare, precision), group_inputs)
        T = _inverse(factors)
        U = chunk.corrections(factors, T, S, precision)
        direct = chunk.direct_gradients(factors, do, precision)
        dS, (dX, dS_left) = jax.lax.scan(chunk_step, dS, (factors, T, direct), reverse=True)
        return dS, transpose(chunk.gradients(S, U, do, dX, dS_left, precision))[0]

    dstate, dinputs = jax.lax.scan(group_step, dlast, (inputs, entering, do), reverse=True)
    return dinputs, dstate


_run.defvjp(_run_forward, _run_backward)
