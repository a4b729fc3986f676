"""In-context n-grams: earlier occurrences of the last n tokens, and predictors of the next one.

Letters: T tokens, V vocabulary, n order.
"""

import jax
import jax.numpy as jnp


def occurrences(tokens: jax.Array, n: int) -> jax.Array:
    """Earlier places of the last n tokens: [T, T] bool, at [t, j] one that ends at j < t.

    tokens: [T] int. With n = 0 that is every earlier place.
    """
    T = tokens.shape[0]
    same = jnp.tri(T, k=-1, dtype=bool)
    for back in range(n):
        earlier = jnp.roll(tokens, back)
        same = same & (earlier[:, None] == earlier) & (jnp.arange(T) >= back)
    return same


def in_context(tokens: jax.Array, order: int, predicted: jax.Array) -> list[jax.Array]:
    """Predictions of the 1-, 2-, … n-gram predictor after each token of one sequence.

    The n-gram predictor at t looks for earlier places where the last n − 1 tokens were the same,
    and gives each token the share of those places that it followed. Where there is no such place it
    says what the (n − 1)-gram predictor says; the 1-gram predictor takes all places, and with none
    yet says the uniform distribution.

    Args:
      tokens: [T] int32.
      order: the largest n.
      predicted: [V] bool; only these tokens are predicted, and counted where they follow.

    Returns:
      For n = 1, …, order: [T, V] float32, the distribution of the token after t.
    """
    followed = jax.nn.one_hot(jnp.roll(tokens, -1), predicted.size) * predicted  # [T, V] at j
    distribution = jnp.broadcast_to(predicted / predicted.sum(), followed.shape)
    results = []
    for n in range(1, order + 1):
        counts = occurrences(tokens, n - 1).astype(jnp.float32) @ followed
        total = counts.sum(axis=-1, keepdims=True)
        distribution = jnp.where(total > 0, counts / jnp.maximum(total, 1), distribution)
        results.append(distribution)
    return results
