"""Softmax attention in blocks of queries, each against the keys that its mask can reach."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch
from pallas_kernels.attention.masks import Full, Mask, Window

_MIN_BLOCK = 128  # queries in a block; a shorter sequence is one block
_MAX_BLOCKS = 16  # the blocks are unrolled: bounds the size of the program


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
    """See `pallas_kernels.attention`. With several blocks, the backward pass recomputes scores."""
    length = q.shape[1]
    block = max(_MIN_BLOCK, -(-length // _MAX_BLOCKS))

    attend = (
        _attend_block if length <= block else jax.checkpoint(_attend_block, static_argnums=(6, 7))
    )
    blocks = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        first, last = _reach(mask, q_offset, start, stop, k.shape[1])
        blocks.append(
            attend(
                q[:, start:stop],
                k[:, first:last],
                v[:, first:last],
                None if q_segment_ids is None else q_segment_ids[:, start:stop],
                None if kv_segment_ids is None else kv_segment_ids[:, first:last],
                q_offset + start - first,
                mask,
                scale,
            )
        )
    return jnp.concatenate(blocks, axis=1)


def _reach(
    mask: Mask, q_offset: int | jax.Array, start: int, stop: int, num_keys: int
) -> tuple[int, int]:
    """The range of keys that queries start … stop − 1 can see, if known at trace time."""
    if isinstance(mask, Full) or not isinstance(q_offset, int):
        return 0, num_keys
    last = min(max(q_offset + stop, 1), num_keys)
    first = q_offset + start - mask.size + 1 if isinstance(mask, Window) else 0
    return min(max(first, 0), last - 1), last


def _attend_block(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    q_segment_ids: jax.Array | None,
    kv_segment_ids: jax.Array | None,
    q_offset: int | jax.Array,
    mask: Mask,
    scale: float,
) -> jax.Array:
    """Attention of one block of queries; R heads share each of the G key-value heads."""
    dtype = dispatch.arithmetic_dtype(q, k, v)
    batch, length, heads, width = q.shape
    num_keys, groups = k.shape[1:3]
    queries = (scale * q.astype(dtype)).reshape(batch, length, groups, heads // groups, width)
    scores = jnp.einsum("btgrk,bsgk->bgrts", queries, k.astype(dtype))

    positions = q_offset + jnp.arange(length)
    visible = mask.visible(positions[:, None], jnp.arange(num_keys))  # [T, S]
    if q_segment_ids is not None:
        same = q_segment_ids[:, :, None] == kv_segment_ids[:, None, :]
        visible = visible & same & (q_segment_ids[:, :, None] != 0)
        visible = visible[:, None, None]  # [B, 1, 1, T, S]

    # A finite fill instead of −inf keeps a row with no visible key free of NaN; the mask afterwards
    # makes it zero.
    scores = jnp.where(visible, scores, jnp.finfo(dtype).min)
    weights = jnp.where(visible, jax.nn.softmax(scores, axis=-1), 0)
    o = jnp.einsum("bgrts,bsgv->btgrv", weights, v.astype(dtype))
    return o.reshape(batch, length, heads, v.shape[-1]).astype(q.dtype)
