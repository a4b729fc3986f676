"""Greedy decoding: one `extend` for the prompt and one for each new token."""

import jax
import jax.numpy as jnp

from arch.model.backbone import Backbone


def greedy(model: Backbone, prompt: jax.Array, num_tokens: int) -> jax.Array:
    """Decode the most likely next token, `num_tokens` times.

    Args:
      model: a causal backbone.
      prompt: [B, T >= 1] int.
      num_tokens: number of tokens to decode.

    Returns:
      [B, num_tokens] int32.

    Raises:
      ValueError: num_tokens is less than 1.
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens is {num_tokens}, expected at least 1")
    batch_size, length = prompt.shape

    def choose(logits: jax.Array) -> jax.Array:
        return jnp.argmax(logits[:, -1], axis=-1).astype(jnp.int32)

    def step(carry, _):
        state, token = carry
        state, logits = model.extend(state, token[:, None])
        following = choose(logits)
        return (state, following), following

    state, logits = model.extend(model.initial_state(batch_size, length + num_tokens), prompt)
    first = choose(logits)
    _, rest = jax.lax.scan(step, (state, first), length=num_tokens - 1)
    return jnp.concatenate([first[:, None], rest.T], axis=1)
