"""The selective state space as its recurrence has it, one step at a time."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch


def selective_scan(
    u: jax.Array,
    delta: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    D: jax.Array | None,
    h0: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.selective_scan`."""
    dtype = dispatch.arithmetic_dtype(u, delta, A, B, C, D, h0)
    steps = tuple(jnp.moveaxis(x.astype(dtype), 1, 0) for x in (u, delta, B, C))
    h0 = jnp.zeros((u.shape[0], *A.shape), dtype) if h0 is None else h0.astype(dtype)

    def step(h, inputs):
        u_t, delta_t, B_t, C_t = inputs
        decay = jnp.exp(delta_t[..., None] * A.astype(dtype))
        h = decay * h + (delta_t * u_t)[..., None] * B_t[:, None, :]
        return h, jnp.sum(C_t[:, None, :] * h, axis=-1)

    h_last, y = jax.lax.scan(step, h0, steps)
    y = jnp.moveaxis(y, 0, 1)
    if D is not None:
        y = y + D.astype(dtype) * u.astype(dtype)
    return y.astype(u.dtype), h_last
