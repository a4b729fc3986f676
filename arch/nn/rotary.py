"""Rotary position embedding (RoFormer, Su et al. 2021, arXiv 2104.09864)."""

import jax
import jax.numpy as jnp

BASE = 10_000.0


def rotate(x: jax.Array, start: jax.Array | int = 0) -> jax.Array:
    """Rotate channel pair i of the token at position m by the angle m θ_i, θ_i = BASE^(−2i/K) (eq.
    15 and 34).

    Then q_m · k_n depends on positions through m − n alone. Angles are in float32.

    Args:
      x: [B, T, H, K], K even; pair i is the channels 2i and 2i + 1.
      start: the position of the first token; may be traced.
    """
    length, width = x.shape[1], x.shape[3]
    theta = BASE ** (-jnp.arange(0, width, 2) / width)
    angle = (start + jnp.arange(length))[:, None, None] * theta  # [T, 1, K/2]
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = [
        even * jnp.cos(angle) - odd * jnp.sin(angle),
        even * jnp.sin(angle) + odd * jnp.cos(angle),
    ]
    return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x.dtype)
