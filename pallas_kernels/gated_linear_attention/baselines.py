"""Gated linear attention in plain JAX."""

import jax
import jax.numpy as jnp

from pallas_kernels.baseline import associative_scan, in_float32


def _associative_scan(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    log_decay: jax.Array,
    initial_state: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    decay = jnp.broadcast_to(jnp.exp(log_decay)[..., None], (*k.shape, v.shape[-1]))
    x = k[..., :, None] * v[..., None, :]  # [B, T, H, K, V]
    states = associative_scan(decay, x, initial_state)
    return jnp.einsum("bthk,bthkv->bthv", q, states) * q.shape[-1] ** -0.5, states[:, -1]


BASELINES = {"lax.associative_scan": in_float32(_associative_scan)}
