"""Softmax attention in plain JAX."""

from typing import Any

import jax
import jax.numpy as jnp


def _dot_product_attention(q: jax.Array, k: jax.Array, v: jax.Array, *, mask: Any) -> jax.Array:
    positions = jnp.arange(q.shape[1])
    visible = mask.visible(positions[:, None], positions)
    return jax.nn.dot_product_attention(q, k, v, mask=visible[None, None])


BASELINES = {"dot_product_attention": _dot_product_attention}
