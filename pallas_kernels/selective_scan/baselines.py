"""The selective scan in plain JAX."""

import jax
import jax.numpy as jnp

from pallas_kernels.baseline import associative_scan, in_float32


def _associative_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array,
    h0: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    decay = jnp.exp(delta[..., None] * A)  # [B, T, D, N]
    x = (delta * u)[..., None] * B[:, :, None, :]
    h = associative_scan(decay, x, h0)
    return jnp.einsum("btdn,btn->btd", h, C) + D * u, h[:, -1]


BASELINES = {"lax.associative_scan": in_float32(_associative_scan)}
