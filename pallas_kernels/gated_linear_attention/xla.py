"""Gated linear attention in chunks: matrix products inside a chunk, a recurrence between chunks.

Inside a chunk o_i = Σ_{j ≤ i} A_ij v_j + q_i diag(P_i) S_0, where P_i = Π_{l≤i} exp g_l and
A_ij = Σ_K q_i k_j Π_{j<l≤i} exp g_l. No quotient P_i / P_j ever appears: it loses everything
where the decay is strong, and is 0/0 where it is exactly zero.

Below, M stands for the B·H·chunks independent chunks, and C for the length of one. They share one
axis, so that its products have few.
"""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch

_CHUNK = 64


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
    dtype = dispatch.arithmetic_dtype(q, k, v, log_decay, initial_state)
    length = q.shape[1]
    chunk = min(_CHUNK, 1 << (length - 1).bit_length())

    def chunks(x: jax.Array) -> jax.Array:
        """[B, T, H, X] -> [M, C, X]. Zeros as padding keep the state: k = 0, g = 0."""
        x = jnp.pad(x.astype(dtype), ((0, 0), (0, -length % chunk), (0, 0), (0, 0)))
        return jnp.moveaxis(x, 2, 1).reshape(-1, chunk, x.shape[-1])

    queries, keys, values = chunks(scale * q.astype(dtype)), chunks(k), chunks(v)
    if log_decay is not None and log_decay.ndim == 4:
        decay = jnp.exp(chunks(log_decay))
        scores, prefix, suffix, total = _decayed_scores(queries, keys, decay)
    else:
        scores = jnp.einsum("mik,mjk->mij", queries, keys)
        if log_decay is None:
            scores, prefix, suffix, total = jnp.tril(scores), None, None, None
        else:  # one decay for all channels factors out of the scores
            decay = jnp.exp(chunks(log_decay[..., None]))
            one = jnp.ones_like(decay)
            decays, prefix, suffix, total = _decayed_scores(one, one, decay)
            scores = scores * decays

    o = jnp.einsum("mij,mjv->miv", scores, values)
    kept_keys = keys if suffix is None else keys * suffix
    updates = jnp.einsum("mjk,mjv->mkv", kept_keys, values)
    batch, _, heads, _ = q.shape
    state, entering = _between_chunks(updates, total, initial_state, (batch, heads))
    if entering is not None:
        reading = queries if prefix is None else queries * prefix
        o = o + jnp.einsum("mik,mkv->miv", reading, entering)
    o = jnp.moveaxis(o.reshape(batch, heads, -1, v.shape[-1]), 1, 2)[:, :length]
    return o.astype(q.dtype), state


def _decayed_scores(
    q: jax.Array, k: jax.Array, decay: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Scores A_ij = Σ_K q_i k_j Π_{j<l≤i} decay_l in blocks of doubling size.

    The upper right of a doubled block is zero; its lower left is a matrix product, because the
    decay from j to i is that from j to the middle times that from the middle to i.

    Args:
      q: [M, C, K].
      k: [M, C, K].
      decay: [M, C, K], in [0, 1].

    Returns:
      (A [M, C, C], prefix Π_{l≤i} decay_l [M, C, K], suffix Π_{l>j} decay_l [M, C, K],
      total [M, 1, K]).
    """
    # Blocks of one step: [M, C, X] -> [M, blocks = C, size = 1, X].
    q, k, prefix = (x[:, :, None] for x in (q, k, decay))
    suffix = jnp.ones_like(prefix)
    scores = jnp.sum(q * k, axis=-1, keepdims=True)
    while scores.shape[1] > 1:
        # [M, blocks, size, X] -> left and right [M, blocks / 2, size, X]
        (q_l, q_r), (k_l, k_r), (scores_l, scores_r), (prefix_l, prefix_r), (suffix_l, suffix_r) = (
            (x[:, 0::2], x[:, 1::2]) for x in (q, k, scores, prefix, suffix)
        )
        lower = jnp.einsum("mnik,mnjk->mnij", q_r * prefix_r, k_l * suffix_l)
        scores = jnp.concatenate(
            [
                jnp.concatenate([scores_l, jnp.zeros_like(lower)], axis=-1),
                jnp.concatenate([lower, scores_r], axis=-1),
            ],
            axis=-2,
        )
        suffix = jnp.concatenate([suffix_l * prefix_r[..., -1:, :], suffix_r], axis=-2)
        prefix = jnp.concatenate([prefix_l, prefix_r * prefix_l[..., -1:, :]], axis=-2)
        q, k = jnp.concatenate([q_l, q_r], axis=-2), jnp.concatenate([k_l, k_r], axis=-2)
    scores, prefix, suffix = (x[:, 0] for x in (scores, prefix, suffix))
    return scores, prefix, suffix, prefix[..., -1:, :]


def _between_chunks(
    updates: jax.Array,
    total: jax.Array | None,
    initial_state: jax.Array | None,
    batch_and_heads: tuple[int, int],
) -> tuple[jax.Array, jax.Array | None]:
    """S_n = diag(total_n) S_{n−1} + updates_n, n counting the chunks of a sequence.

    Args:
      updates: [M, K, V].
      total: [M, 1, K or 1], the decay over each chunk; None is one.
      initial_state: [B, H, K, V], or None for zeros.
      batch_and_heads: B and H.

    Returns:
      (the last state [B, H, K, V], the states that enter each chunk [M, K, V] or None where all
      are zero).
    """
    updates = updates.reshape(*batch_and_heads, -1, *updates.shape[1:])
    if initial_state is not None:
        initial_state = initial_state.astype(updates.dtype)
    elif updates.shape[2] == 1:
        return updates[:, :, 0], None
    else:
        initial_state = jnp.zeros_like(updates[:, :, 0])
    if total is None:
        total = jnp.ones((*updates.shape[:3], 1, 1), updates.dtype)
    else:
        total = jnp.swapaxes(total, 1, 2).reshape(*updates.shape[:3], -1, 1)

    def step(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        total_n, update = inputs
        return total_n * state + update, state

    steps = (jnp.moveaxis(total, 2, 0), jnp.moveaxis(updates, 2, 0))
    state, entering = jax.lax.scan(step, initial_state, steps)
    return state, jnp.moveaxis(entering, 0, 2).reshape(-1, *entering.shape[3:])
