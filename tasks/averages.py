"""Averages in pieces, and the loss of a token.

Letters: B batch, P supervised positions per example, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """An exact average in pieces: a total and the count behind it.

    Add pieces of any size, then take `value`.
    """

    total: jax.Array
    count: jax.Array

    def __add__(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.count + other.count)

    @property
    def value(self) -> jax.Array:
        return self.total / jnp.maximum(self.count, 1)


def weighted(values: jax.Array, weights: jax.Array) -> Average:
    """The average of some values, each as often as its weight says."""
    return Average(jnp.sum(values * weights), jnp.sum(weights))


def token_losses(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Negative log-likelihoods of targets [B, P] in nats, from logits [B, P, V]."""
    logits = logits.astype(jnp.float32)
    # A comparison picks the target's logit: it fuses with the softmax's gradient, where a gather
    # would scatter into a second array of [B, P, V].
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    target_logit = jnp.sum(jnp.where(is_target, logits, 0), -1)
    return jax.nn.logsumexp(logits, -1) - target_logit
