"""Diagonal state space with many inputs and outputs (MIMO), used by the LRU and S5.

Letters: B batch, T time, D model width, N complex states.
"""

import jax
import jax.numpy as jnp

from pallas_kernels import linear_scan


def diagonal_ssm(
    u: jax.Array,
    decay: jax.Array,
    scale: jax.Array,
    B: jax.Array,
    C: jax.Array,
    h0: jax.Array,
    starts: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """h_t = λ ⊙ h_{t−1} + γ ⊙ (B u_t), y_t = Re(C h_t).

    The two projections run in the dtype of u, the recurrence in complex64: a decay of 0.999 is 1 in
    bfloat16.

    Args:
      u: [B, T, D].
      decay: λ [N] complex.
      scale: γ [N], real or complex.
      B: [2, D, N], the real and the imaginary part.
      C: [2, N, D], likewise.
      h0: [B, N] complex.
      starts: [B, T] bool, tokens before which the state is cleared; or None.

    Returns:
      (y [B, T, D] in the dtype of u, h_T [B, N]).
    """
    # Real and imaginary parts side by side: one product for u, one for y.
    driven = (u @ jnp.concatenate([*B], axis=1).astype(u.dtype)).astype(jnp.float32)
    drive = scale * jax.lax.complex(*jnp.split(driven, 2, axis=-1))
    decay = jnp.broadcast_to(decay, drive.shape)
    if starts is not None:
        decay = jnp.where(starts[..., None], 0, decay)
    h, h_last = linear_scan(decay, drive, h0)
    parts = jnp.concatenate([h.real, h.imag], axis=-1).astype(u.dtype)
    return parts @ jnp.concatenate([C[0], -C[1]]).astype(u.dtype), h_last
