"""Gradient accumulation: the batch of a step as micro-batches, one after the other.

The activations of a whole batch may not fit a device; here those of one micro-batch are alive at a
time. Sums and counts are added up, not means, so that filler and unequal weights count as they do
in the whole batch: the result is its loss and gradient up to rounding. Two things are of a
micro-batch by their nature: an auxiliary loss, of which the mean over micro-batches is taken, as it
is not linear in the batch, and a dropout mask, which each micro-batch draws for itself.

Letters: B batch, N micro-batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import tasks
from runners.core.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Piece:
    """Place of a micro-batch in the batch of its step.

    Attributes:
      index: its number, 0 … N − 1.
      count: N.
      weight: sum of the weights of the whole batch; the sums of the micro-batches are divided by
        it.
    """

    index: jax.Array
    count: int
    weight: jax.Array


def check(count: int, batch_size: int) -> None:
    """Raises ConfigError if a batch cannot be cut into so many micro-batches of one size."""
    if batch_size % count:
        divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        near = [n for n in divisors if n < count][-1:] + [n for n in divisors if n > count][:1]
        raise ConfigError(
            f"--accumulate is {count}, expected a divisor of train.batch_size {batch_size}, such "
            f"as {' or '.join(map(str, near))}"
        )


def value_and_grad(
    loss: Callable[..., jax.Array], params: Any, batch: tasks.Batch, count: int
) -> tuple[jax.Array, Any]:
    """The loss of a batch, a scalar, and its gradient with respect to `params`.

    Args:
      loss: `loss(params, batch=…, piece=…)` is the loss of a whole batch if the piece is None, else
        the share that a micro-batch has in it: the shares of all add up to the whole.
      params: a tree of arrays.
      batch: with B examples.
      count: N, a divisor of B; 1 does nothing but differentiate.
    """
    if count == 1:
        return jax.value_and_grad(loss)(params, batch=batch, piece=None)
    weight = jnp.maximum(jnp.sum(batch.weights), 1)
    pieces = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), batch)

    def add(total: Any, piece: tuple[jax.Array, tasks.Batch]) -> tuple[Any, None]:
        index, micro_batch = piece
        place = Piece(index, count, weight)
        share = jax.value_and_grad(loss)(params, batch=micro_batch, piece=place)
        return jax.tree.map(jnp.add, total, share), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, zeros, (jnp.arange(count), pieces))[0]
