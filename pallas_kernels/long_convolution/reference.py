"""The convolution as a sum over taps, in O(T L)."""

import jax
import jax.numpy as jnp

from pallas_kernels import dispatch


def long_convolution(u: jax.Array, kernel: jax.Array, *, causal: bool) -> jax.Array:
    """See `pallas_kernels.long_convolution`."""
    dtype = dispatch.arithmetic_dtype(u, kernel)
    u_, taps = u.astype(dtype), jnp.moveaxis(kernel.astype(dtype), -1, 0)  # taps: [L, (B,) D]
    length = u.shape[1]
    if not causal:
        u_ = jnp.pad(u_, ((0, 0), (0, len(taps) - length), (0, 0)))

    def add_tap(carry, tap):
        y, delayed = carry
        y = y + tap[..., None, :] * delayed
        delayed = jnp.roll(delayed, 1, axis=1)  # u_{t−j} becomes u_{t−j−1}
        if causal:
            delayed = delayed.at[:, 0].set(0)
        return (y, delayed), None

    (y, _), _ = jax.lax.scan(add_tap, (jnp.zeros_like(u_), u_), taps)
    return y[:, :length].astype(u.dtype)
