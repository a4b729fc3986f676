"""Gated linear attention by jla's kernels for Hopper GPUs."""

import jax
import jax.numpy as jnp

from pallas_kernels import hopper


def obstacle(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array | None,
    initial_state: jax.Array | None,
    *,
    scale: float,
) -> str | None:
    """Why jla cannot run this call, or None if it can."""
    del initial_state, scale
    return hopper.obstacle() or hopper.refused(q, k, v, _heads(q, log_decay))


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
    if log_decay is None:
        log_decay = jnp.zeros(q.shape[:3])
    return hopper.linear_attention(
        "gla" if log_decay.ndim == 4 else "simple_gla",
        _heads(q, log_decay),
        q,
        k,
        v,
        g=hopper.finite(log_decay),
        initial_state=initial_state,
        scale=scale,
    )


def _heads(q: jax.Array, log_decay: jax.Array | None) -> list[tuple[int, int]]:
    """One decay per key channel: all heads together are a multiple of 128 key channels wide."""
    per_channel = log_decay is not None and len(log_decay.shape) == 4
    multiple = 128 if per_channel else 1
    return [(K, V) for K, V in hopper.HEADS if q.shape[2] * K % multiple == 0]
