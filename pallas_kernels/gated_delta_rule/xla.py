"""The gated delta rule in chunks: matrix products inside a chunk, a recurrence between chunks.

The gradient keeps the inputs and the state that enters each chunk, and computes the rest of a chunk
again; `chunk` has the equations. Chunks are taken in groups: what does not depend on the state is
computed for a whole group at once, then the recurrence runs through the group. Letters: M = B·H
sequences, C steps in a chunk, G chunks in a group.
"""

import functools

import jax
import jax.numpy as jnp
from jax.lax.linalg import triangular_solve

from pallas_kernels import dispatch
from pallas_kernels.gated_delta_rule import chunk

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]


def _sizes(length: int) -> tuple[int, int]:
    """The steps in a chunk and the chunks in a group.

    On a CPU, products of one chunk at a time stay in the cache, which halves the time. An
    accelerator needs all the parallel work there is, and few steps in sequence.
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
    precision = dispatch.matmul_precision(q, k, v)
    batch, length, heads, key_width = q.shape
    size, group = _sizes(length)

    def chunks(x: jax.Array) -> jax.Array:
        """[B, T, H, X] -> [groups, G, M, C, X]. Zeros as padding keep the state."""
        x = jnp.pad(x.astype(dtype), ((0, 0), (0, -length % size), (0, 0), (0, 0)))
        x = x.reshape(batch, -1, group, size, heads, x.shape[-1])
        return jnp.transpose(x, (1, 2, 0, 4, 3, 5)).reshape(
            -1, group, batch * heads, size, x.shape[-1]
        )

    if log_decay is not None:
        log_decay = jnp.swapaxes(chunks(log_decay[..., None]), -1, -2)
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, key_width, v.shape[-1]), dtype)
    state = initial_state.astype(dtype)
    inputs = (chunks(scale * q.astype(dtype)), chunks(k), chunks(v), chunks(beta[..., None]))
    o, last = _run(precision, (*inputs, log_decay), state.reshape(-1, *state.shape[2:]))
    o = o.reshape(-1, batch, heads, size, v.shape[-1])
    o = jnp.transpose(o, (1, 0, 3, 2, 4)).reshape(batch, -1, heads, v.shape[-1])
    return o[:, :length].astype(q.dtype), last.reshape(state.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(
    precision: jax.lax.Precision, inputs: Inputs, state: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """All chunks in order.

    Args:
      precision: of the products.
      inputs: q, k, v, β of [groups, G, M, C, X] and log-decays [groups, G, M, 1, C].
      state: [M, K, V].

    Returns:
      (o [groups, G, M, C, V], the last state [M, K, V]).
    """
    return _run_forward(precision, inputs, state)[0]


def _prepare(precision: jax.lax.Precision, inputs: Inputs) -> chunk.Parts:
    """`chunk.prepare` for inputs of [G, M, ...]."""
    one = functools.partial(chunk.prepare, precision=precision)
    shape = inputs[0].shape[:2]
    # One axis for the products, not two.
    parts = jax.vmap(one)(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs))
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), parts)


def _inverse(A: jax.Array) -> jax.Array:
    """(I + A)^{-1} by substitution: a third of the time of `chunk.inverse` on a CPU."""
    identity = jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape)
    return triangular_solve(A, identity, left_side=True, lower=True, unit_diagonal=True)


def _run_forward(precision, inputs, state):
    dot = functools.partial(jnp.matmul, precision=precision)

    def chunk_step(S, prepared):
        parts, T = prepared
        U = dot(T, parts.Y - dot(parts.Z, S))
        return parts.total * S + dot(parts.keys.mT, U), (S, U)

    def group_step(S, group):
        parts = _prepare(precision, group)
        S, (entering, U) = jax.lax.scan(chunk_step, S, (parts, _inverse(parts.A)))
        return S, (dot(parts.queries, entering) + dot(parts.scores, U), entering)

    last, (o, entering) = jax.lax.scan(group_step, state, inputs)
    return (o, last), (inputs, entering)


def _run_backward(precision, residuals, cotangents):
    """From the last chunk to the first, with X = Y − Z S and U = T X of each computed again.

    dU = scoresᵀ dO + keys dS', dX = Tᵀ dU, dS = P_C dS' + queriesᵀ dO − Zᵀ dX, where S' leaves the
    chunk that S enters. The inverse needs no gradient of its own: (I + A) U = X gives dA = −dX Uᵀ.
    """
    inputs, entering = residuals
    do, dlast = cotangents
    dot = functools.partial(jnp.matmul, precision=precision)

    def chunk_step(dS, prepared):
        parts, T, dU, dS_read = prepared
        dX = dot(T.mT, dU + dot(parts.keys, dS))
        return parts.total * dS + dS_read - dot(parts.Z.mT, dX), (dX, dS)

    def group_step(dS, group):
        group_inputs, S, do = group
        parts, transpose = jax.vjp(functools.partial(_prepare, precision), group_inputs)
        T = _inverse(parts.A)
        U = dot(T, parts.Y - dot(parts.Z, S))
        read = (dot(parts.scores.mT, do), dot(parts.queries.mT, do))
        dS, (dX, dS_left) = jax.lax.scan(chunk_step, dS, (parts, T, *read), reverse=True)
        dparts = chunk.Parts(
            A=-dot(dX, U.mT),
            Y=dX,
            Z=-dot(dX, S.mT),
            queries=dot(do, S.mT),
            scores=dot(do, U.mT),
            keys=dot(U, dS_left.mT),
            total=jnp.sum(S * dS_left, axis=(-2, -1), keepdims=True),
        )
        return dS, transpose(dparts)[0]

    dstate, dinputs = jax.lax.scan(group_step, dlast, (inputs, entering, do), reverse=True)
    return dinputs, dstate


_run.defvjp(_run_forward, _run_backward)
