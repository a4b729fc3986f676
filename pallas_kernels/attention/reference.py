"""Softmax attention as its definition has it, with all [T, S] scores at once."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.attention.masks import Mask


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: Mask,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    q_offset: int | jax.Array,
    scale: float,
) -> jax.Array:
    """See `pallas_kernels.attention`."""
    dtype = dispatch.arithmetic_dtype(q, k, v)
    groups = q.shape[2] // k.shape[2]
    keys, values = (jnp.repeat(x.astype(dtype), groups, axis=2) for x in (k, v))
    query_positions = q_offset + jnp.arange(q.shape[1])
    visible = mask.visible(query_positions[:, None], jnp.arange(k.shape[1]))[None]
    if q_segment_ids is not None:
        same = q_segment_ids[:, :, None] == kv_segment_ids[:, None, :]
        visible = visible & same & (q_segment_ids[:, :, None] != 0)
    visible = visible[:, None]

    scores = scale * jnp.einsum("bthk,bshk->bhts", q.astype(dtype), keys, precision="highest")
    # A finite fill instead of −inf keeps a row with no visible key free of NaN; the mask afterwards
    # makes it zero.
    scores = jnp.where(visible, scores, jnp.finfo(dtype).min)
    weights = jnp.where(visible, jax.nn.softmax(scores, axis=-1), 0)
    return jnp.einsum("bhts,bshv->bthv", weights, values, precision="highest").astype(q.dtype)
