"""The linear recurrence as its equation has it, one step at a time."""

import jax
import jax.numpy as jnp


def linear_scan(
    a: jax.Array, x: jax.Array, h0: jax.Array, *, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """See `pallas_kernels.linear_scan`."""

    def step(h, inputs):
        a_t, x_t = inputs
        h = a_t.astype(h0.dtype) * h + x_t.astype(h0.dtype)
        return h, h

    steps = tuple(jnp.moveaxis(v, 1, 0) for v in (a, x))
    h_last, h = jax.lax.scan(step, h0, steps, reverse=reverse)
    return jnp.moveaxis(h, 0, 1).astype(jnp.result_type(a, x)), h_last
