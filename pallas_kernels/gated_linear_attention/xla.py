"""Gated linear attention in chunks: matrix products inside a chunk, a recurrence between chunks.

The gradient keeps the inputs and, for each chunk, the scores and the state that enters it, and
computes the rest again; `chunk` and `decay` have the equations. Chunks are taken in groups: what
does not depend on the state is computed for a whole group at once, then the recurrence runs through
the group.
Letters: M = B·H sequences, C steps in a chunk, G chunks in a group.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.gated_linear_attention import chunk
from pallas_kernels.gated_linear_attention.decay import decay
from pallas_kernels.matrix_state import each_chunk

_Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]  # q, k, v, g, each [B, T, H, X]


class _Options(NamedTuple):
    """Constants of a call.

    Attributes:
      size: C, the steps in a chunk.
      group: G, the chunks in a group.
      scale: of the queries.
      precision: of the products.
      dtype: of the arithmetic.
    """

    size: int
    group: int
    scale: float
    precision: jax.lax.Precision
    dtype: jnp.dtype


def _sizes(length: int, key_width: int, decayed: bool) -> tuple[int, int]:
    """The steps in a chunk and the chunks in a group, at most as many as padding needs.

    A CPU is fastest with what stays in its cache: 64 steps at a time, in shorter chunks if the
    scores, which grow as C (K + C) for every step, cost several products. An accelerator needs all
    the parallel work there is, and few steps in sequence.
    """
    steps = size = 64
    if dispatch.current_target().platform != "cpu":
        steps = length
    elif decayed:
        size = 16 if key_width < 64 else 32
    groups = -(-length // steps)
    group = -(-length // (size * groups))
    return -(-length // (group * groups)), group


def gated_linear_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.gated_linear_attention`."""
    batch, length, heads, key_width = q.shape
    size, group = _sizes(length, key_width, log_decay is not None)
    options = _Options(
        size,
        group,
        scale,
        dispatch.matmul_precision(q, k, v),
        dispatch.arithmetic_dtype(q, k, v, log_decay, initial_state),
    )
    if log_decay is not None and log_decay.ndim == 3:
        log_decay = log_decay[..., None]
    if initial_state is None:
        initial_state = jnp.zeros((batch, heads, key_width, v.shape[-1]))
    # Zeros as padding keep the state: k = 0, g = 0.
    padding = ((0, 0), (0, -length % (size * group)), (0, 0), (0, 0))
    inputs = jax.tree.map(lambda x: jnp.pad(x, padding), (q, k, v, log_decay))
    state = initial_state.astype(options.dtype).mT
    o, last = _run(options, inputs, state.reshape(-1, *state.shape[2:]))
    return o[:, :length], last.reshape(state.shape).mT


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(options: _Options, inputs: _Inputs, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All chunks in order.

    Args:
      options: constants.
      inputs: of a length that is a multiple of a group's.
      state: S_0 [M, V, K].

    Returns:
      (o [B, T, H, V] in the dtype of q, the last state [M, V, K]).
    """
    return _run_forward(options, inputs, state)[0]


def _read(options: _Options, x: jax.Array, index: jax.Array) -> jax.Array:
    """One group of x [B, T, H, X] as [G, M, C, X]. Arrays of chunks would be copies in memory."""
    batch, _, heads, width = x.shape
    steps = options.group * options.size
    x = jax.lax.dynamic_slice_in_dim(x, index * steps, steps, axis=1).astype(options.dtype)
    x = x.reshape(batch, options.group, options.size, heads, width)
    return jnp.transpose(x, (1, 0, 3, 2, 4)).reshape(options.group, -1, options.size, width)


def _write(options: _Options, x: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
    """x with `value` in place of a group: the inverse of `_read`."""
    batch, _, heads, width = x.shape
    value = value.reshape(options.group, batch, heads, options.size, width)
    value = jnp.transpose(value, (1, 0, 3, 2, 4)).reshape(batch, -1, heads, width)
    steps = options.group * options.size
    return jax.lax.dynamic_update_slice_in_dim(x, value.astype(x.dtype), index * steps, axis=1)


def _decay_and_add(S: jax.Array, total_and_update: tuple[jax.Array, jax.Array]):
    """From one chunk to the next, forwards or backwards; also the state before."""
    total, update = total_and_update
    return total * S + update, S


def _groups(options: _Options, x: jax.Array) -> jax.Array:
    return jnp.arange(x.shape[1] // (options.group * options.size))


def _run_forward(options, inputs, state):
    def prepare(q, k, v, g):
        q, decays = options.scale * q, decay(g)
        factors = chunk.prepare(q, k, decays, decays.scores(q, k, options.precision))
        return factors, chunk.update(factors, v, options.precision)

    def group_step(carry, index):
        S, o = carry
        q, k, v, g = jax.tree.map(lambda x: _read(options, x, index), inputs)
        factors, update = each_chunk(prepare, q, k, v, g)
        S, entering = jax.lax.scan(_decay_and_add, S, (factors.total, update))
        output = functools.partial(chunk.output, precision=options.precision)
        o = _write(options, o, each_chunk(output, factors, v, entering), index)
        return (S, o), (entering, factors.scores)

    q, _, v, _ = inputs
    (last, o), kept = jax.lax.scan(
        group_step, (state, jnp.zeros(v.shape, q.dtype)), _groups(options, q)
    )
    return (o, last), (inputs, kept)


def _run_backward(options, residuals, cotangents):
    """From the last chunk to the first, dS being the gradient of the state that leaves a chunk."""
    inputs, kept = residuals
    do, dlast = cotangents

    def prepare(q, k, g, do, scores):
        q, decays = options.scale * q, decay(g)
        factors = chunk.prepare(q, k, decays, scores)
        return q, decays, factors, chunk.update_gradient(factors, do, options.precision)

    def gradients(q, k, v, decays, factors, S, do, dS):
        dq, dk, dv, dg = chunk.gradients(q, k, v, decays, factors, S, do, dS, options.precision)
        return options.scale * dq, dk, dv, dg

    def group_step(carry, group):
        dS, dinputs = carry
        index, (S, scores) = group
        q, k, v, g = jax.tree.map(lambda x: _read(options, x, index), inputs)
        do_group = _read(options, do, index)
        q, decays, factors, update = each_chunk(prepare, q, k, g, do_group, scores)
        dS, leaving = jax.lax.scan(_decay_and_add, dS, (factors.total, update), reverse=True)
        group = each_chunk(gradients, q, k, v, decays, factors, S, do_group, leaving)
        return (dS, jax.tree.map(lambda x, y: _write(options, x, y, index), dinputs, group)), None

    zeros = jax.tree.map(jnp.zeros_like, inputs)
    (dstate, dinputs), _ = jax.lax.scan(
        group_step, (dlast, zeros), (_groups(options, do), kept), reverse=True
    )
    return dinputs, dstate


_run.defvjp(_run_forward, _run_backward)
