"""Loss of a language model without all of its logits at once.

[B, P, V] logits in float32 are the largest array of a large model: 3.3 GB for 8 rows of 2,048
tokens and 50,000 words. Above a limit the positions are cut into chunks, and the gradient of each
chunk is taken at once, so that its logits are computed one time and never kept. (Wijmans et al.
2024, arXiv 2411.09009, avoid the same array in a kernel.)

Letters: B batch, P positions, D width, V vocabulary, C chunks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import arch
import tasks

CHUNK_BYTES = 2**25  # of the logits of one chunk

_Measure = Callable[[jax.Array, tasks.Batch], Any]  # (logits, batch) → sums


def summed(measure: _Measure, hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch) -> Any:
    """Sums of `measure` over chunks of the positions.

    Args:
      measure: maps logits [B, p, V] and their batch to a tree of sums over positions, which
        positions of weight 0 do not change.
      hidden: input of the tied head, [B, P, D].
      embedding: [V, D].
      batch: with P positions.
    """
    count = _num_chunks(hidden, embedding)
    if count == 1:
        return measure(arch.tied_logits(hidden, embedding), batch)

    def chunk_sums(i: jax.Array) -> Any:
        hidden_chunk, _, batch_chunk = _chunk(i, count, hidden, batch)
        return measure(arch.tied_logits(hidden_chunk, embedding), batch_chunk)

    def add(i: jax.Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, chunk_sums(i))

    shapes = jax.eval_shape(chunk_sums, jnp.int32(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.fori_loop(0, count, add, zeros)


def mean(average: tasks.Average, weight: jax.Array | None) -> jax.Array:
    """The value of an average; with a weight, its total divided by that."""
    return average.value if weight is None else average.total / weight


def loss(
    function: _Measure,
    hidden: jax.Array,
    embedding: jax.Array,
    batch: tasks.Batch,
    weight: jax.Array | None = None,
) -> jax.Array:
    """The training loss of a batch, a scalar; its gradient keeps no logits.

    Args:
      function: maps logits and their batch to an `Average` over `batch.weights`, as `Task.loss`
        does.
      hidden: input of the tied head, [B, P, D].
      embedding: [V, D].
      batch: with P positions.
      weight: at least 1, that the sum over the batch is divided by, where this is a piece of a
        batch; None is the sum of its own weights.
    """
    if _num_chunks(hidden, embedding) == 1:
        return mean(function(arch.tied_logits(hidden, embedding), batch), weight)

    @jax.custom_vjp
    def chunked(
        hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch, weight: jax.Array | None
    ) -> jax.Array:
        return mean(summed(function, hidden, embedding, batch), weight)

    def forward(
        hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch, weight: jax.Array | None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        # The gradient of the mean and not of the sum: it is the one that a training step asks for,
        # and so is not multiplied into a second array of the embedding's size.
        count = jnp.maximum(jnp.sum(batch.weights), 1) if weight is None else weight
        num_chunks = _num_chunks(hidden, embedding)

        def step(i: jax.Array, carry: tuple) -> tuple:
            value, own, shared = carry
            x, start, chunk = _chunk(i, num_chunks, hidden, batch)

            def share(logits: jax.Array) -> jax.Array:
                return function(logits, chunk).total / count

            part, g = jax.value_and_grad(share)(arch.tied_logits(x, embedding))
            g = g.astype(x.dtype)
            dx = jnp.einsum("bpv,vd->bpd", g, embedding.astype(x.dtype))
            old = jax.lax.dynamic_slice_in_dim(own, start, x.shape[1], axis=1)
            own = jax.lax.dynamic_update_slice_in_dim(own, old + dx, start, axis=1)
            return value + part, own, _add_outer(shared, g, x)

        zeros = (jnp.zeros(()), jnp.zeros_like(hidden), jnp.zeros_like(embedding))
        value, own, shared = jax.lax.fori_loop(0, num_chunks, step, zeros)
        return value, (own, shared)

    def backward(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple:
        own, shared = residuals
        return (own * cotangent).astype(own.dtype), shared * cotangent, None, None

    chunked.defvjp(forward, backward)
    return chunked(hidden, embedding, batch, weight)


def _add_outer(total: jax.Array, g: jax.Array, hidden: jax.Array) -> jax.Array:
    """total [V, D] + gᵀ hidden, for g [B, p, V] and hidden [B, p, D].

    Block by block of V, in place: the product alone would be as large as the embedding.
    """
    size = -(-total.shape[0] // -(-4 * total.size // CHUNK_BYTES))
    for low in range(0, total.shape[0], size):
        block = jnp.einsum(
            "bpv,bpd->vd", g[..., low : low + size], hidden, preferred_element_type=jnp.float32
        )
        total = total.at[low : low + size].add(block.astype(total.dtype))
    return total


def _num_chunks(hidden: jax.Array, embedding: jax.Array) -> int:
    batch_size, positions, _ = hidden.shape
    size = 4 * batch_size * positions * embedding.shape[0]
    return min(positions, -(-size // CHUNK_BYTES))


def _chunk(
    i: jax.Array, count: int, hidden: jax.Array, batch: tasks.Batch
) -> tuple[jax.Array, jax.Array, tasks.Batch]:
    """Chunk number i of the positions: its hidden input, first position, and batch.

    All chunks have one size, so that the last may overlap the one before; what was there has a
    weight of 0 then. Nothing is copied but the chunk.
    """
    size = -(-hidden.shape[1] // count)
    start = jnp.minimum(i * size, hidden.shape[1] - size)

    def cut(array: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(array, start, size, axis=1)

    # What stands over T stays out: it would be handed to every chunk whole.
    bare = dataclasses.replace(batch, inputs=None, loss_positions=None, mask=None, segment_ids=None)
    chunk = bare.on(cut)
    is_new = start + jnp.arange(size) >= i * size
    return cut(hidden), start, dataclasses.replace(chunk, weights=chunk.weights * is_new)
