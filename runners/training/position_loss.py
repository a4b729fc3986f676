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

import tasks
from arch.model.heads import tied_logits

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
        return measure(tied_logits(hidden, embedding), batch)
    hidden, batch = _chunks(count, hidden, batch)

    def chunk_sums(chunk: tuple[jax.Array, tasks.Batch]) -> Any:
        return measure(tied_logits(chunk[0], embedding), chunk[1])

    def add(total: Any, chunk: tuple[jax.Array, tasks.Batch]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, chunk_sums(chunk)), None

    return jax.lax.scan(add, _zeros_like(chunk_sums, (hidden, batch)), (hidden, batch))[0]


def loss(
    function: _Measure, hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch
) -> tasks.Average:
    """The training loss of a batch; as `summed`, with a gradient that keeps no logits.

    function: maps logits and their batch to an `Average`, as `Task.loss` does.
    """
    if _num_chunks(hidden, embedding) == 1:
        return function(tied_logits(hidden, embedding), batch)
    total = _total(function, hidden, embedding, batch)
    return tasks.Average(total, jnp.sum(batch.weights))


def _num_chunks(hidden: jax.Array, embedding: jax.Array) -> int:
    batch_size, positions, _ = hidden.shape
    size = 4 * batch_size * positions * embedding.shape[0]
    return min(positions, -(-size // CHUNK_BYTES))


def _chunks(count: int, hidden: jax.Array, batch: tasks.Batch) -> tuple[jax.Array, tasks.Batch]:
    """Arrays over positions in chunks, [C, B, P / C, …]; filled up with weights of 0."""
    size = -(-hidden.shape[1] // count)
    count = -(-hidden.shape[1] // size)

    def cut(array: jax.Array) -> jax.Array:
        missing = count * size - array.shape[1]
        array = jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))
        return jnp.moveaxis(array.reshape(len(array), count, size, *array.shape[2:]), 1, 0)

    # What stands over T stays out: it would be handed to every chunk whole.
    bare = dataclasses.replace(batch, inputs=None, loss_positions=None, mask=None, segment_ids=None)
    return cut(hidden), bare.on(cut)


def _zeros_like(function: Callable[[Any], Any], chunks: Any) -> Any:
    shapes = jax.eval_shape(function, jax.tree.map(lambda a: a[0], chunks))
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def _total(
    function: _Measure, hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch
) -> jax.Array:
    """Sum of the loss over all positions."""

    @jax.custom_vjp
    def total(hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch) -> jax.Array:
        return summed(function, hidden, embedding, batch).total

    def forward(
        hidden: jax.Array, embedding: jax.Array, batch: tasks.Batch
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        chunks, batches = _chunks(_num_chunks(hidden, embedding), hidden, batch)

        def chunk_loss(chunk: jax.Array, embedding: jax.Array, batch: tasks.Batch) -> jax.Array:
            return function(tied_logits(chunk, embedding), batch).total

        def step(carry: tuple, chunk: tuple) -> tuple[tuple, jax.Array]:
            value, (own, shared) = jax.value_and_grad(chunk_loss, (0, 1))(
                chunk[0], embedding, chunk[1]
            )
            return (carry[0] + value, carry[1] + shared.astype(jnp.float32)), own

        start = (jnp.zeros(()), jnp.zeros(embedding.shape, jnp.float32))
        (value, shared), own = jax.lax.scan(step, start, (chunks, batches))
        own = jnp.moveaxis(own, 0, 1).reshape(len(hidden), -1, hidden.shape[-1])
        return value, (own[:, : hidden.shape[1]], shared.astype(embedding.dtype))

    def backward(residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple:
        own, shared = residuals
        return (own * cotangent).astype(own.dtype), shared * cotangent, None

    total.defvjp(forward, backward)
    return total(hidden, embedding, batch)
